//! What brings stage 2 back on a machine with UEFI firmware: an EFI system partition of its own, behind the
//! new system, and a first sector that leads to it. With both in place, a disk that is overwritten in part
//! still starts stage 2, which goes on.
//!
//! The first sector is an MBR whose only partition is that one. Firmware takes a disk for one with a GPT
//! only when the first sector says so (UEFI specification 2.10, 5.2.3), so writing this one sector switches
//! from the old system to stage 2, and writing the image's from stage 2 to the new system.
//!
//! Pure: [`crate::engine`] runs grub-mkimage and writes the pieces.

use std::io::{Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

use super::core_image;
use crate::efi;
use crate::handover::{BOOT_CODE_BYTES, Extent, MBR_BYTES};

/// Where GRUB looks for its configuration.
pub const PREFIX: &str = "/EFI/BOOT";

/// Bytes that GRUB, its configuration and the file system take at most, beside kernel and initramfs.
const BESIDE: u64 = 6 << 20;

/// Bytes to set aside for it, whole MiB.
pub fn room(kernel_bytes: u64, initramfs_bytes: u64) -> u64 {
    /// Of FAT itself, for each byte of the files, one in so many.
    const TABLES: u64 = 64;
    let files = kernel_bytes + initramfs_bytes;
    (files + files / TABLES + BESIDE).next_multiple_of(1 << 20)
}

/// The files of the partition.
pub struct Files<'a> {
    /// 32 or 64, of the firmware.
    pub bits: u32,
    /// GRUB, made with [`crate::grub_platform::EFI_MODULES`] and [`PREFIX`].
    pub grub: &'a [u8],
    /// The kernel.
    pub kernel: &'a [u8],
    /// Its arguments.
    pub arguments: &'a [String],
    /// The initramfs.
    pub initramfs: &'a [u8],
}

/// The partition's content: a FAT of `bytes` for sectors of `sector_bytes`.
///
/// # Errors
///
/// When the files do not fit.
pub fn image(bytes: u64, sector_bytes: u32, files: &Files) -> std::io::Result<Vec<u8>> {
    let mut image = Cursor::new(vec![0; bytes as usize]);
    let options = FormatVolumeOptions::new()
        .bytes_per_sector(sector_bytes as u16)
        .volume_label(*b"BALENA-MIGR");
    fatfs::format_volume(&mut image, options)?;
    let fs = FileSystem::new(&mut image, FsOptions::new())?;
    let root = fs.root_dir();
    root.create_dir("EFI")?;
    root.create_dir("EFI/BOOT")?;
    let loader = format!("EFI/BOOT/{}", efi::removable_loader(files.bits));
    let config = core_image::start("/linux", "/initramfs", files.arguments);
    for (path, content) in [
        (loader.as_str(), files.grub),
        ("EFI/BOOT/grub.cfg", config.as_bytes()),
        ("linux", files.kernel),
        ("initramfs", files.initramfs),
    ] {
        let mut file = root.create_file(path)?;
        file.write_all(content)?;
        file.flush()?;
    }
    drop(root);
    fs.unmount()?;
    Ok(image.into_inner())
}

/// The first sector's content that leads to the partition in `place`, of such a `kind`, on a disk with sectors
/// of `sector_bytes` that gets the `signature`. `None` when the place is beyond what an MBR can name.
pub fn first_sector(
    place: Extent,
    kind: u8,
    sector_bytes: u32,
    signature: u32,
) -> Option<[u8; MBR_BYTES]> {
    /// What stands for a place that cylinders, heads and sectors can't name.
    const BEYOND: [u8; 3] = [0xfe, 0xff, 0xff];
    let sectors = |bytes: u64| u32::try_from(bytes / u64::from(sector_bytes)).ok();
    let mut mbr = [0; MBR_BYTES];
    mbr[BOOT_CODE_BYTES..BOOT_CODE_BYTES + 4].copy_from_slice(&signature.to_le_bytes());
    let entry = &mut mbr[446..462];
    entry[1..4].copy_from_slice(&BEYOND);
    entry[4] = kind;
    entry[5..8].copy_from_slice(&BEYOND);
    entry[8..12].copy_from_slice(&sectors(place.start)?.to_le_bytes());
    entry[12..16].copy_from_slice(&sectors(place.bytes)?.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    Some(mbr)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_partition_has_what_the_firmware_and_grub_look_for() {
        let (kernel, initramfs) = (vec![7; 9 << 20], vec![9; 5 << 20]);
        let bytes = room(kernel.len() as u64, initramfs.len() as u64);
        for (bits, sector_bytes, loader) in [
            (64, 512, "EFI/BOOT/BOOTX64.EFI"),
            (32, 4096, "EFI/BOOT/BOOTIA32.EFI"),
        ] {
            let files = Files {
                bits,
                grub: b"MZ",
                kernel: &kernel,
                arguments: &["a b".to_owned(), "console=ttyS0,115200".to_owned()],
                initramfs: &initramfs,
            };
            let image = image(bytes, sector_bytes, &files).unwrap();
            assert_eq!(image.len() as u64, bytes);
            let fs = FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap();
            let read = |path: &str| {
                let mut content = Vec::new();
                let mut file = fs.root_dir().open_file(path).unwrap();
                file.read_to_end(&mut content).unwrap();
                content
            };
            assert_eq!(read(loader), b"MZ");
            assert!(read("linux") == kernel && read("initramfs") == initramfs);
            let config = String::from_utf8(read("EFI/BOOT/grub.cfg")).unwrap();
            assert!(config.contains("if linux /linux 'a b' console=ttyS0,115200;"));
            assert!(config.starts_with("serial --unit=0 --speed=115200\n"));
        }
    }

    #[test]
    fn files_that_do_not_fit_are_an_error() {
        let files = Files {
            bits: 64,
            grub: b"MZ",
            kernel: &[0; 3 << 20],
            arguments: &[],
            initramfs: &[],
        };
        assert!(image(2 << 20, 512, &files).is_err());
    }

    #[test]
    fn the_first_sector_names_the_partition_and_no_gpt() {
        let place = Extent {
            start: 3 << 30,
            bytes: 20 << 20,
        };
        let mbr = first_sector(place, efi::MBR_KIND, 512, 0x1234_5678).unwrap();
        assert_eq!(mbr[440..444], [0x78, 0x56, 0x34, 0x12]);
        assert_eq!(mbr[450], 0xef);
        assert_eq!(mbr[454..458], ((3u32 << 30) / 512).to_le_bytes());
        assert_eq!(mbr[458..462], ((20u32 << 20) / 512).to_le_bytes());
        assert!(mbr[462..510].iter().all(|byte| *byte == 0));
        assert_eq!(mbr[510..], [0x55, 0xaa]);
        let far = Extent {
            start: 3 << 40,
            bytes: 1 << 20,
        };
        assert_eq!(first_sector(far, efi::MBR_KIND, 512, 1), None);
        assert!(first_sector(far, efi::MBR_KIND, 4096, 1).is_some());
    }
}
