//! The step that makes what brings stage 2 back after a power cut in the middle of the flash.

use super::keep::{Content, Keep, Wanted};
use crate::boot::core_fat::BoardFiles;
use crate::boot::core_image::CORE_BYTES;
use crate::boot::{core_esp, core_fat};
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
/// The boot partition of a board.
pub const FAT: &str = "boot-partition";
/// The [`crate::resume`] record.
pub const RECORD: &str = "record";

/// What starts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoreFirmware {
    /// A BIOS: [`CORE`], [`KERNEL`] and [`INITRAMFS`] are kept, and found by their sectors.
    Bios(CoreTools),
    /// UEFI firmware of so many bits: [`ESP`] is kept, with all in it.
    Uefi {
        /// 32 or 64.
        bits: u32,
        /// GRUB's tools.
        tools: CoreTools,
    },
    /// That of a board: [`FAT`] is kept, with all in it.
    Board(BoardFiles),
}

/// A file for the new system that is not packed with stage 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Its path in the initramfs, where stage 2 looks for it.
    pub content: String,
    /// Its path on this system.
    pub path: String,
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
    /// The kernel's arguments.
    pub arguments: Vec<String>,
    /// The initramfs, as this system names the file.
    pub initramfs: String,
    /// What is missing there, and has to be in the one that is kept: the old system is gone then.
    pub aside: Vec<Aside>,
    /// The run of the hand-over.
    pub run_id: String,
}

/// The files to keep for it: the kernel of that path, which has so many bytes, and an initramfs of up to
/// so many.
pub fn files(
    firmware: &CoreFirmware,
    kernel: &str,
    kernel_bytes: u64,
    initramfs_bytes: u64,
) -> Vec<Wanted> {
    let wanted = |name: &str, contiguous: bool, content: Content| Wanted {
        name: name.to_owned(),
        content,
        contiguous,
        by_firmware: true,
    };
    let reserved = |bytes: u64| Content::Reserved { bytes };
    let record = Wanted {
        by_firmware: false,
        ..wanted(RECORD, true, reserved(RECORD_BYTES))
    };
    match firmware {
        CoreFirmware::Uefi { .. } => {
            let room = core_esp::room(kernel_bytes, initramfs_bytes);
            return vec![record, wanted(ESP, true, reserved(room))];
        }
        CoreFirmware::Board(board) => {
            let room = core_fat::room(&board.firmware, initramfs_bytes);
            return vec![record, wanted(FAT, true, reserved(room))];
        }
        CoreFirmware::Bios(_) => (),
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
