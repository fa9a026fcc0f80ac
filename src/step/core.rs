//! The step that makes what brings stage 2 back after a power cut in the middle of the flash.

use super::keep::{Content, Keep, Wanted};
use crate::boot::core_esp;
use crate::boot::core_image::CORE_BYTES;
use crate::host::CoreTools;
use crate::resume::RECORD_BYTES;

/// Names of its files among those that are kept on the disk.
pub const CORE: &str = "core";
/// The kernel.
pub const KERNEL: &str = "kernel";
/// The initramfs, a second time.
pub const INITRAMFS: &str = "initramfs";
/// An EFI system partition.
pub const ESP: &str = "esp";
/// The [`crate::resume`] record.
pub const RECORD: &str = "record";

/// What starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoreFirmware {
    /// A BIOS: [`CORE`], [`KERNEL`] and [`INITRAMFS`] are kept, and found by their sectors.
    Bios,
    /// UEFI firmware of so many bits: [`ESP`] is kept, with all in it.
    Uefi {
        /// 32 or 64.
        bits: u32,
    },
}

/// What to make it of.
#[derive(Debug, Clone)]
pub struct BuildCore {
    /// What starts it.
    pub firmware: CoreFirmware,
    /// The kernel, as this system names the file.
    pub kernel: String,
    /// The step that keeps its files.
    pub keep: Keep,
    /// GRUB's tools.
    pub tools: CoreTools,
    /// The kernel's arguments.
    pub arguments: Vec<String>,
    /// The initramfs, as this system names the file.
    pub initramfs: String,
    /// The run of the hand-over.
    pub run_id: String,
}

/// The files to keep for it: the kernel of that path, which has so many bytes, and an initramfs of up to
/// so many.
pub fn files(
    firmware: CoreFirmware,
    kernel: &str,
    kernel_bytes: u64,
    initramfs_bytes: u64,
) -> Vec<Wanted> {
    let wanted = |name: &str, contiguous: bool, content: Content| Wanted {
        name: name.to_owned(),
        content,
        contiguous,
    };
    let reserved = |bytes: u64| Content::Reserved { bytes };
    let record = wanted(RECORD, true, reserved(RECORD_BYTES));
    if let CoreFirmware::Uefi { .. } = firmware {
        let room = core_esp::room(kernel_bytes, initramfs_bytes);
        return vec![record, wanted(ESP, true, reserved(room))];
    }
    let kernel = Content::Copy {
        path: kernel.to_owned(),
        sha256: None,
        in_place: false,
    };
    vec![
        record,
        wanted(CORE, true, reserved(CORE_BYTES)),
        wanted(KERNEL, true, kernel),
        wanted(INITRAMFS, false, reserved(initramfs_bytes)),
    ]
}
