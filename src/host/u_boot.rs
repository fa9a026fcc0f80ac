//! Describes a board that u-boot starts: which one it is, and the files that u-boot reads. Called by the
//! collector.

use serde::{Deserialize, Serialize};

use super::disks::{attribute, is_mmc_area};
use crate::sys::Sys;

/// What the u-boot of BeagleBones reads for the kernel to start, in the folder of that name on the first
/// partition that has it.
pub const U_ENV: &str = "/boot/uEnv.txt";

/// What it reads before, of the first partition: commands.
pub const FIRST_U_ENV: &str = "/uEnv.txt";

/// What u-boot reads where it starts distributions alike.
/// <https://docs.u-boot.org/en/latest/develop/distro.html>
pub const EXTLINUX: &str = "/boot/extlinux/extlinux.conf";

/// Longest file of these that is read, in bytes.
const TEXT_BYTES: usize = 64 << 10;

/// Where the kernel is told of an initramfs in memory.
const INITRAMFS: &str = "/proc/device-tree/chosen/linux,initrd-start";

/// A board with a device tree, and without UEFI firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UBoot {
    /// What the device tree calls the board, by the most exact of its names: `ti,am335x-bone-black`.
    pub board: String,
    /// Kernel name of its eMMC.
    pub emmc: Option<String>,
    /// The kernel was started with an initramfs.
    pub initramfs: bool,
    /// [`FIRST_U_ENV`], where it is a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_u_env: Option<String>,
    /// [`U_ENV`], where it is a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub u_env: Option<String>,
    /// [`EXTLINUX`], where it is a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extlinux: Option<String>,
}

/// What a BeagleBone with an AM335x looks for on the first FAT of its eMMC, or of a card: u-boot in two parts.
/// AM335x Technical Reference Manual, "Initialization".
const AM335X_LOADER: &[&str] = &["MLO", "u-boot.img"];

impl UBoot {
    /// It is a BeagleBone: what is on the eMMC starts before what is on a card.
    pub fn is_beaglebone(&self) -> bool {
        self.board.starts_with("ti,am335x-bone")
    }

    /// The files that must be on the boot partition of an image for it, as far as that is known.
    pub fn loader(&self) -> &'static [&'static str] {
        match self.is_beaglebone() {
            true => AM335X_LOADER,
            false => &[],
        }
    }
}

/// The board; nothing on machines without a device tree.
pub(super) fn collect(sys: &Sys) -> Option<UBoot> {
    let compatible = sys.read("/proc/device-tree/compatible").ok()?;
    let board = compatible.split(|byte| *byte == 0).next()?;
    Some(UBoot {
        board: String::from_utf8_lossy(board).into_owned(),
        emmc: emmc(sys),
        initramfs: sys.exists(INITRAMFS),
        first_u_env: text(sys, FIRST_U_ENV),
        u_env: text(sys, U_ENV),
        extlinux: text(sys, EXTLINUX),
    })
}

/// The first eMMC: the kernel names cards alike, and in an order of its own.
fn emmc(sys: &Sys) -> Option<String> {
    let names = sys.list("/sys/block").unwrap_or_default();
    names.into_iter().find(|name| {
        let kind = attribute(sys, &format!("/sys/block/{name}/device/type"));
        name.starts_with("mmcblk") && !is_mmc_area(name) && kind.as_deref() == Some("MMC")
    })
}

fn text(sys: &Sys, path: &str) -> Option<String> {
    let bytes = sys.read(path).ok()?;
    let bytes = (bytes.len() <= TEXT_BYTES).then_some(bytes)?;
    String::from_utf8(bytes).ok()
}
