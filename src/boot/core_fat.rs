//! What brings stage 2 back on a board: a boot partition of its own, behind the new system, and a first sector
//! that leads to it. With both in place, the board starts stage 2 from a disk that is overwritten in part, and
//! that goes on.
//!
//! The firmware looks for the first FAT partition in the table of an MBR, wherever that lies. So, as with
//! [`super::core_esp`], writing this one sector switches from the old system to stage 2, and writing the image's
//! from stage 2 to the new system.
//!
//! Pure: [`crate::engine`] reads the files of the old boot partition and writes the new one.

use std::collections::BTreeSet;
use std::io::{self, Cursor, Write};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};

use super::boot_partition::{CMDLINE, INITRAMFS};
use crate::host::raspberry_pi::CONFIG;

/// The kind of such a partition in an MBR: FAT32 by sectors, as on every card for these boards. Boot ROMs know few
/// others (<https://github.com/raspberrypi/firmware/issues/1711>), and some no FAT16
/// (<https://github.com/raspberrypi/firmware/issues/1738>).
pub const MBR_KIND: u8 = 0x0c;

/// Bytes of a cluster: FAT32 has 65525 of them at least, and the makers' own cards have some of this size.
const CLUSTER: u64 = 512;

/// The least that FAT32 with such clusters takes.
const LEAST: u64 = 36 << 20;

/// A file of the old boot partition, which goes into the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareFile {
    /// Its path there, without a leading `/`.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What a board needs beside kernel and initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardFiles {
    /// Where the boot partition is mounted.
    pub point: String,
    /// Those of its files that go as they are, the kernel too.
    pub firmware: Vec<FirmwareFile>,
    /// What config.txt is to be.
    pub config: String,
}

/// Bytes to set aside for it, whole MiB.
pub fn room(firmware: &[FirmwareFile], initramfs_bytes: u64) -> u64 {
    /// Both tables of FAT itself, for each byte of the files, one in so many.
    const TABLES: u64 = CLUSTER / 8;
    /// A file's entry with a long name, and the rest of its last cluster.
    const EACH: u64 = 1 << 10;
    /// config.txt, the command line, folders, secrets.
    const BESIDE: u64 = 2 << 20;
    let firmware_bytes: u64 = firmware.iter().map(|file| file.bytes + EACH).sum();
    let files = firmware_bytes + initramfs_bytes;
    (files + files / TABLES + BESIDE)
        .max(LEAST)
        .next_multiple_of(1 << 20)
}

/// The files of the partition.
pub struct Files<'a> {
    /// config.txt.
    pub config: &'a str,
    /// The kernel's arguments.
    pub arguments: &'a [String],
    /// The initramfs.
    pub initramfs: &'a [u8],
    /// What else the firmware reads.
    pub firmware: &'a [FirmwareFile],
    /// Reads one of these by its path: all of them at once are much for a small board.
    pub read: &'a dyn Fn(&str) -> io::Result<Vec<u8>>,
}

/// The partition's content: a FAT of `bytes`, on sectors of 512.
///
/// # Errors
///
/// When the files do not fit, or one of them can't be read.
pub fn image(bytes: u64, files: &Files) -> io::Result<Vec<u8>> {
    let mut image = Cursor::new(vec![0; bytes as usize]);
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(CLUSTER as u32)
        .volume_label(*b"BALENA-MIGR");
    fatfs::format_volume(&mut image, options)?;
    let fs = FileSystem::new(&mut image, FsOptions::new())?;
    let root = fs.root_dir();
    for folder in folders(files.firmware) {
        root.create_dir(folder)?;
    }
    let put = |path: &str, content: &[u8]| {
        let mut file = root.create_file(path)?;
        file.write_all(content)?;
        file.flush()
    };
    for file in files.firmware {
        put(&file.path, &(files.read)(&file.path)?)?;
    }
    put(CONFIG, files.config.as_bytes())?;
    put(
        CMDLINE,
        format!("{}\n", files.arguments.join(" ")).as_bytes(),
    )?;
    put(INITRAMFS, files.initramfs)?;
    drop(root);
    fs.unmount()?;
    Ok(image.into_inner())
}

/// All folders of the files, each before those in it.
fn folders(files: &[FirmwareFile]) -> BTreeSet<&str> {
    let mut folders = BTreeSet::new();
    for file in files {
        let ends = file.path.match_indices('/');
        folders.extend(ends.map(|(end, _)| &file.path[..end]));
    }
    folders
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_partition_has_what_the_firmware_reads() {
        let firmware = [
            ("bootcode.bin", 50_000),
            ("current/overlays/a-long-name.dtbo", 3_000),
            ("kernel8.img", 9 << 20),
        ];
        let wanted = firmware.map(|(path, bytes)| FirmwareFile {
            path: path.to_owned(),
            bytes,
        });
        let initramfs = vec![9; 30 << 20];
        let bytes = room(&wanted, initramfs.len() as u64);
        let files = Files {
            config: "[all]\n",
            arguments: &["console=tty1".to_owned(), "rdinit=/init".to_owned()],
            initramfs: &initramfs,
            firmware: &wanted,
            read: &|path| {
                let file = firmware.iter().find(|(name, _)| *name == path);
                Ok(vec![7; file.unwrap().1 as usize])
            },
        };
        let image = image(bytes, &files).unwrap();
        assert_eq!(image.len() as u64, bytes);
        let fs = FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap();
        assert_eq!(fs.fat_type(), FatType::Fat32);
        let read = |path: &str| {
            let mut content = Vec::new();
            let mut file = fs.root_dir().open_file(path).unwrap();
            file.read_to_end(&mut content).unwrap();
            content
        };
        for (path, bytes) in firmware {
            assert!(read(path) == vec![7; bytes as usize], "{path}");
        }
        assert!(read("balena-migrate.img") == initramfs);
        assert_eq!(read("config.txt"), b"[all]\n");
        assert_eq!(read("balena-migrate.txt"), b"console=tty1 rdinit=/init\n");
    }

    #[test]
    fn the_smallest_is_fat32_too() {
        let files = Files {
            config: "",
            arguments: &[],
            initramfs: &[],
            firmware: &[],
            read: &|_| unreachable!("there is none"),
        };
        let image = image(room(&[], 0), &files).unwrap();
        let fs = FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap();
        assert_eq!(fs.fat_type(), FatType::Fat32);
    }
}
