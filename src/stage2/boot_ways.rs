//! Images with an MBR can be started by a BIOS and by UEFI firmware. The vendor's flasher leaves
//! only the way of the firmware that started the flasher; [`super::finish`] does the same here.

use crate::handover::Firmware;
use crate::sys::Sys;

/// Bytes of the first sector before the partition table: boot code and disk signature. The vendor's
/// flasher clears all of them on UEFI machines.
const BOOT_CODE: usize = 446;

/// Where the kind of the first partition is.
const KIND: usize = BOOT_CODE + 4;

/// The kind of the partition that stands for a GPT.
const PROTECTIVE: u8 = 0xee;

/// A folder of resin-boot that is for a BIOS.
const FOR_BIOS: &str = "/grub";

/// A folder of resin-boot that is for UEFI firmware.
const FOR_EFI: &str = "/EFI";

/// What is not for the firmware of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Other {
    folder: &'static str,
}

/// The way that goes, on an image that starts with `first`; nothing where the firmware of this machine
/// would be left without one.
pub fn other(firmware: Firmware, first: &[u8], boot: &Sys) -> Option<Other> {
    let (ours, folder) = match firmware {
        Firmware::Bios => (FOR_BIOS, FOR_EFI),
        Firmware::Efi => (FOR_EFI, FOR_BIOS),
        Firmware::Board => return None,
    };
    let is_mbr = first.get(KIND).is_some_and(|kind| *kind != PROTECTIVE);
    (is_mbr && boot.exists(ours)).then_some(Other { folder })
}

impl Other {
    /// Its folder on resin-boot.
    pub fn folder(self) -> &'static str {
        self.folder
    }

    /// Whether a file of resin-boot goes with it.
    pub fn has(self, path: &str) -> bool {
        let mut names = path.trim_start_matches('/').split('/');
        // Names on FAT have no case.
        let first = names.next().unwrap_or_default();
        first.eq_ignore_ascii_case(&self.folder[1..]) && names.next().is_some()
    }

    /// The first sector without what is for a BIOS, where that is what goes.
    pub fn clear(self, first: &mut [u8]) {
        if self.folder == FOR_BIOS {
            first[..BOOT_CODE].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(kind: u8) -> Vec<u8> {
        let mut sector = vec![0x90; 512];
        sector[KIND] = kind;
        sector
    }

    #[test]
    fn a_way_goes_only_where_the_firmware_has_another() {
        let both = ["grub", "EFI"];
        for (firmware, kind, folders, goes) in [
            (Firmware::Bios, 0x0c, &both[..], Some(FOR_EFI)),
            (Firmware::Bios, 0x0c, &both[1..], None),
            (Firmware::Efi, 0x0c, &both[..], Some(FOR_BIOS)),
            (Firmware::Efi, 0x0c, &both[..1], None),
            (Firmware::Bios, PROTECTIVE, &both[..], None),
            (Firmware::Efi, PROTECTIVE, &both[..], None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let boot = Sys::new(dir.path());
            for folder in folders {
                boot.make_dir(folder, 0o755).unwrap();
            }
            let found = other(firmware, &sector(kind), &boot);
            let case = (firmware, kind, folders);
            assert_eq!(found.map(Other::folder), goes, "{case:?}");
        }
    }

    #[test]
    fn what_goes_with_it() {
        let other = Other { folder: FOR_EFI };
        assert!(other.has("efi/BOOT/bootx64.efi"));
        assert!(other.has("/EFI/x"));
        assert!(!other.has("EFI"));
        assert!(!other.has("EFI2/x"));
        let mut first = sector(0x0c);
        other.clear(&mut first);
        assert!(first == sector(0x0c));
    }
}
