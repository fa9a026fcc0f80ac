//! GRUB for the new system, where the image has none (GRUB_INSTALL): balenaOS before 2.26.
//!
//! Stage 1 makes all of it ([`gather`] reads and runs what that takes, before anything is changed), and
//! stage 2 writes it with the image: the boot code and the core over its first sectors, the rest as
//! files of resin-boot. So it is verified, read back and resumed like the image itself.

mod gather;

pub use gather::gather;

use crate::boot::core_image::{self, CoreError};
use crate::finding::Finding;
use crate::handover::{Extent, TableIdentity};
use crate::payload::scan::Scan;
use crate::secret::Secret;

/// The sector of a BIOS, in bytes.
const SECTOR: u64 = 512;

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrub {
    /// What goes over the bytes of the image.
    pub pieces: Vec<Piece>,
    /// What goes onto resin-boot.
    pub files: Vec<File>,
    /// In words, for the plan.
    pub summary: String,
    /// What a careful person should know of it.
    pub findings: Vec<Finding>,
}

/// Bytes that go over those of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where, in bytes from the start of the disk.
    pub at: u64,
    /// They.
    pub bytes: Vec<u8>,
}

/// A file of resin-boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path there, with a leading `/`.
    pub path: String,
    /// Where it comes from.
    pub from: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl NewGrub {
    /// All that the initramfs has to carry.
    pub fn contents(&self) -> impl Iterator<Item = Secret> {
        let pieces = self.pieces.iter().map(|piece| &piece.bytes);
        let files = self.files.iter().map(|file| &file.bytes);
        pieces.chain(files).map(|bytes| Secret::new(bytes.clone()))
    }
}

/// Boot code and core of a BIOS machine in the sectors before the first partition of the image, each told
/// where the next one lies.
///
/// # Errors
///
/// When they are not of the known kind, or there is too little room.
pub fn sectors(boot_img: &[u8], core: Vec<u8>, image: &Scan) -> Result<Vec<Piece>, CoreError> {
    let first_partition = image.partitions.iter().map(|part| part.start).min();
    let place = Extent {
        start: SECTOR,
        bytes: first_partition.unwrap_or(0).saturating_sub(SECTOR),
    };
    Ok(vec![
        Piece {
            at: 0,
            bytes: core_image::boot_code(boot_img, place)?,
        },
        Piece {
            at: place.start,
            bytes: core_image::settle(core, place)?,
        },
    ])
}

/// A configuration that starts balenaOS up to 2.26, when none is given: the kernel is on resin-boot, later on
/// the root file system. `boot_dev` is GRUB_BOOT_DEV, for a GRUB that finds no label.
pub fn config(boot_dev: &str, table: &TableIdentity) -> String {
    let scheme = match table {
        TableIdentity::Gpt(_) => "gpt",
        TableIdentity::Mbr(_) => "msdos",
    };
    format!(
        "# Made by balena-migrate, since GRUB_CFG was not set.\n\
         set root='{boot_dev},{scheme}1'\n\
         search --no-floppy --label --set=root resin-boot\n\
         set kernel=/vmlinuz\n\
         if [ ! -e $kernel ]; then\n\
         \tset root='{boot_dev},{scheme}2'\n\
         \tsearch --no-floppy --label --set=root resin-rootA\n\
         \tset kernel=/boot/bzImage\n\
         fi\n\
         echo 'Starting balenaOS ...'\n\
         linux $kernel root=LABEL=resin-rootA ro rootwait\n\
         boot\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_the_disk_and_the_label_decides() {
        let mbr = config("hd1", &TableIdentity::Mbr("12345678".to_owned()));
        assert!(
            mbr.contains(
                "set root='hd1,msdos1'\nsearch --no-floppy --label --set=root resin-boot\n"
            )
        );
        let gpt = config("hd0", &TableIdentity::Gpt(String::new()));
        assert!(gpt.contains("set root='hd0,gpt2'\n"), "{gpt}");
    }

    #[test]
    fn grub_can_read_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, config("hd0", &TableIdentity::Mbr(String::new()))).unwrap();
        let checked = crate::sys::Sys::new("/").run(
            &[
                "grub-script-check".to_owned(),
                file.path().display().to_string(),
            ],
            None,
        );
        let ended = checked.expect("package grub-common is there");
        assert!(ended.success, "{}", ended.complaint);
    }
}
