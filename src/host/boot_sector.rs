//! What a BIOS finds in the first sector of a disk, and which disk it calls its first. Called by the
//! collector.
//!
//! The bytes themselves are not kept: what they start is all that the checks ask for.

use serde::{Deserialize, Serialize};

use super::{Partition, disks, firmware};
use crate::sys::Sys;

/// What the BIOS has told the kernel of its first disk (kernel: ABI/testing/sysfs-firmware-edd), where the
/// module edd is loaded.
const FIRST_DISK: &str = "/sys/firmware/edd/int13_dev80/mbr_signature";

/// Size of what a BIOS reads, whatever the sectors of the disk are.
pub(super) const BYTES: usize = 512;

/// Where the boot code ends.
const SIGNATURE: usize = 440;

/// Where the partition table begins.
const TABLE: usize = 446;

/// What all of GRUB's boot sectors say on the screen.
const GRUB: &[u8] = b"GRUB";

/// The first sector of a disk, as a BIOS takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSector {
    /// What it starts.
    pub code: BootCode,
    /// The disk signature, 8 lower-case hex digits; none when it is 0, as on most disks with a GPT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// What the boot code of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootCode {
    /// There is none: a BIOS goes on to another disk.
    None,
    /// GRUB's, there or in the active partition that the code there starts.
    Grub,
    /// Another one, such as what some tools put on every disk that they partition.
    Other,
}

impl BootSector {
    /// Of the first bytes of a disk and its partitions; `None` when it could not be read.
    pub(super) fn of(sys: &Sys, head: &[u8], partitions: &[Partition]) -> Option<BootSector> {
        let sector = head.get(..BYTES)?;
        let active = || {
            let start = active_start(sector)?;
            let part = partitions.iter().find(|part| part.start == start)?;
            disks::head_of(sys, &part.name, BYTES)
        };
        Some(BootSector {
            code: code(sector, active),
            signature: named(u32::from_le_bytes(
                sector[SIGNATURE..][..4].try_into().expect("four bytes"),
            )),
        })
    }
}

/// `active` is the first sector of the partition that the code in `sector` goes on to.
fn code(sector: &[u8], active: impl FnOnce() -> Option<Vec<u8>>) -> BootCode {
    let code = &sector[..SIGNATURE];
    if !sector.ends_with(&[0x55, 0xaa]) || code.iter().all(|byte| *byte == 0) {
        return BootCode::None;
    }
    match has_grub(code) || active().is_some_and(|active| has_grub(&active)) {
        true => BootCode::Grub,
        false => BootCode::Other,
    }
}

fn has_grub(bytes: &[u8]) -> bool {
    bytes.windows(GRUB.len()).any(|window| window == GRUB)
}

/// Where the active partition begins, in bytes.
fn active_start(sector: &[u8]) -> Option<u64> {
    let mut entries = sector[TABLE..BYTES - 2].chunks_exact(16);
    let active = entries.find(|entry| entry[0] == 0x80)?;
    let start = u32::from_le_bytes(active[8..12].try_into().ok()?);
    Some(u64::from(start) * BYTES as u64)
}

/// The signature of the disk that the BIOS calls its first, where the kernel knows it: GRUB goes past the start of
/// the kernel that asks the BIOS by its `linux`, and not by `linux16`.
pub(super) fn first_disk(sys: &Sys) -> Option<String> {
    if let Some(text) = disks::attribute(sys, FIRST_DISK) {
        return named(u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()?);
    }
    by_boot_params(&sys.read(firmware::BOOT_PARAMS).ok()?)
}

fn by_boot_params(data: &[u8]) -> Option<String> {
    /// Where `edd_mbr_sig_buf_entries` and `edd_mbr_sig_buffer` are.
    const COUNT: usize = 0x1ea;
    const FIRST: usize = 0x290;
    (*data.get(COUNT)? > 0).then_some(())?;
    let first = data.get(FIRST..FIRST + 4)?;
    named(u32::from_le_bytes(first.try_into().ok()?))
}

/// A signature by which a disk can be told from others.
fn named(signature: u32) -> Option<String> {
    (signature != 0).then(|| format!("{signature:08x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(code: &[u8], flag: u8) -> Vec<u8> {
        let mut sector = vec![0; BYTES];
        sector[..code.len()].copy_from_slice(code);
        sector[TABLE] = flag;
        sector[TABLE + 8] = 8;
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    #[test]
    fn what_boot_code_starts() {
        let grub = b"\xebcGRUB \0Geom\0";
        let none = || None;
        assert_eq!(code(&sector(grub, 0), none), BootCode::Grub);
        assert_eq!(code(&sector(b"", 0), none), BootCode::None);
        assert_eq!(code(&sector(b"\xfa\xb8", 0), none), BootCode::Other);
        let mut data = sector(grub, 0);
        data[510] = 0;
        assert_eq!(code(&data, none), BootCode::None);
    }

    #[test]
    fn the_first_disk_that_the_kernel_was_told_of() {
        let mut data = vec![0; 4096];
        data[0x290..0x294].copy_from_slice(&[0x0d, 0xf0, 0xad, 0x0b]);
        assert_eq!(by_boot_params(&data), None);
        data[0x1ea] = 2;
        assert_eq!(by_boot_params(&data).as_deref(), Some("0badf00d"));
        data[0x290..0x294].fill(0);
        assert_eq!(by_boot_params(&data), None);
    }

    #[test]
    fn the_active_partition_may_have_grub() {
        let usual = sector(b"\xfa\xb8", 0x80);
        assert_eq!(active_start(&usual), Some(4096));
        assert_eq!(active_start(&sector(b"\xfa\xb8", 0)), None);
        assert_eq!(code(&usual, || Some(b"xGRUB".to_vec())), BootCode::Grub);
        assert_eq!(code(&usual, || Some(b"NTFS".to_vec())), BootCode::Other);
        // Without code there is nothing that goes on to it.
        let bare = sector(b"", 0x80);
        assert_eq!(code(&bare, || Some(b"GRUB".to_vec())), BootCode::None);
    }
}
