//! Images that were made to do harm: each is refused soon, in little memory, with a message.

use std::fs;
use std::process::Command;

use balena_migrate::handover::{ZipEntry, ZipMethod};
use balena_migrate::payload::indexed::{Indexed, Wrapping};
use tempfile::tempdir;

use super::flasher::{Flasher, MIB, PAYLOAD, modern, modern_os, noise, run};
use super::indexed::{Bytes, unseen};

/// What `extract --list` says of an image within a minute of the processor and 1 GiB of memory.
#[track_caller]
fn listed(image: &[u8]) -> Result<String, String> {
    let dir = tempdir().unwrap();
    let file = dir.path().join("x.img");
    fs::write(&file, image).unwrap();
    let output = Command::new("prlimit")
        .args(["--as=1073741824", "--cpu=60", "--core=0"])
        .arg(env!("CARGO_BIN_EXE_extract"))
        .arg("--list")
        .arg(&file)
        .output()
        .unwrap();
    let code = output.status.code();
    let err = String::from_utf8(output.stderr).unwrap();
    match code {
        Some(0) => Ok(String::from_utf8(output.stdout).unwrap()),
        Some(1) => {
            let prefix = format!("extract: {}: ", file.display());
            Err(err
                .strip_prefix(&prefix)
                .unwrap_or(&err)
                .trim_end()
                .to_owned())
        }
        _ => panic!("{:?}: {err}", output.status),
    }
}

#[track_caller]
fn refused(image: &[u8]) -> String {
    listed(image).expect_err("it is refused")
}

/// The number of the first cluster of a folder, by its short name as it lies in the FAT.
fn cluster_of(fat: &[u8], name: &str) -> usize {
    let entry = format!("{name:11}\x10");
    let at = fat
        .windows(12)
        .position(|bytes| bytes == entry.as_bytes())
        .unwrap();
    usize::from(u16::from_le_bytes([fat[at + 26], fat[at + 27]]))
}

/// A flasher whose FAT has so many files in `folder`, and that folder's first cluster follows itself.
fn with_loop(fat: (&str, usize), folder: &str, entry_bytes: usize) -> Vec<u8> {
    let names: Vec<String> = (0..200)
        .map(|number| format!("{folder}{number}.efi"))
        .collect();
    let mut boot: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), vec![])).collect();
    boot.push(("balena-image-flasher", Vec::new()));
    let mut image = Flasher {
        fat,
        boot,
        ..Flasher::modern(vec![(PAYLOAD, modern_os().to_vec())])
    }
    .build();
    let fat = &mut image[4 * MIB..];
    let cluster = match folder.trim_end_matches('/').rsplit('/').next() {
        Some("") | None => 2,
        Some(name) => cluster_of(fat, name),
    };
    let table = 512 * usize::from(u16::from_le_bytes([fat[14], fat[15]]));
    let number = (cluster as u32).to_le_bytes();
    let at = table + entry_bytes * cluster;
    fat[at..at + entry_bytes].copy_from_slice(&number[..entry_bytes]);
    image
}

#[test]
fn a_fat_with_a_loop_has_an_end() {
    let expected = "the FAT of its boot partition 1 is damaged: a chain of its clusters has no end; \
                    download the image again";
    let fat16 = ("vfat -F 16 -s 1", 8);
    for (fat, folder, entry_bytes) in [
        (fat16, "EFI/BOOT/", 2),
        // There is no BOOT in it.
        (fat16, "EFI/", 2),
        (("vfat -F 32 -s 1", 36), "", 4),
    ] {
        let image = with_loop(fat, folder, entry_bytes);
        assert_eq!(refused(&image), expected, "/{folder}");
    }
}

#[test]
fn a_fingerprint_that_names_a_file_too_often_is_not_read_for_ever() {
    let large = noise(5 * MIB, 1);
    let md5 = String::from_utf8(run("md5sum", &[], &large)).unwrap();
    let line = format!("{}  large\n", &md5[..32]);
    let flasher = |lines| {
        Flasher {
            boot: vec![
                ("balena-image-flasher", Vec::new()),
                ("large", large.clone()),
                ("balenaos.fingerprint", line.repeat(lines).into_bytes()),
            ],
            ..Flasher::modern(vec![(PAYLOAD, modern_os().to_vec())])
        }
        .build()
    };
    listed(&flasher(1)).unwrap();
    listed(&flasher(25_000)).unwrap();
}

/// A flasher without checksums in its ext4, which begins at 12 MiB.
fn plain() -> Vec<u8> {
    Flasher {
        fs: "ext4 -b 1024 -O ^metadata_csum,^64bit",
        ..Flasher::modern(vec![(PAYLOAD, modern_os().to_vec())])
    }
    .build()
}

#[test]
fn an_ext4_that_names_more_than_it_has_takes_no_memory() {
    let start = "the ext4 file system of its partition 2 (flash-rootA) is damaged or of a kind that \
                 can't be read: ";
    let blocks = (1u64 << 32) + 44 * 1024;
    for (number, place, says) in [
        (
            u32::MAX,
            0x04,
            "it has 4294967295 blocks of 1024 bytes by 1 in a partition of ",
        ),
        (
            1,
            0x150,
            &format!("it has {blocks} blocks of 1024 bytes by 1 in a partition of "),
        ),
        (7, 0x18, "its blocks are larger than 64 KiB"),
    ] {
        let mut image = plain();
        let superblock = &mut image[12 * MIB + 1024..][..1024];
        superblock[place..place + 4].copy_from_slice(&u32::to_le_bytes(number));
        // As many groups as blocks.
        superblock[0x20..0x24].copy_from_slice(&[1, 0, 0, 0]);
        let message = refused(&image);
        assert!(message.starts_with(&format!("{start}{says}")), "{message}");
    }
}

#[test]
fn a_folder_without_end_is_not_listed() {
    let mut image = plain();
    let dir = tempdir().unwrap();
    let fs_file = dir.path().join("fs");
    fs::write(&fs_file, &image[12 * MIB..56 * MIB]).unwrap();
    let set = [
        "-w",
        "-R",
        "set_inode_field /opt size 1099511627776",
        fs_file.to_str().unwrap(),
    ];
    run("debugfs", &set, b"");
    image[12 * MIB..56 * MIB].copy_from_slice(&fs::read(&fs_file).unwrap());
    assert_eq!(
        refused(&image),
        "the ext4 file system of its partition 2 (flash-rootA) is damaged or of a kind that can't be \
         read: its folder /opt has 1099511627776 bytes; download the image again"
    );
}

#[test]
fn a_gpt_that_names_more_than_it_has_takes_no_memory() {
    let gpt = Flasher {
        table: "gpt",
        ..Flasher::modern(vec![(PAYLOAD, modern_os().to_vec())])
    }
    .build();
    for (at, says) in [
        (
            80,
            "it has 4294967295 entries from sector 2 on, which is not at its start",
        ),
        (84, "its entries have 4294967295 bytes each instead of 128"),
    ] {
        let mut image = gpt.clone();
        let header = &mut image[512..512 + 92];
        header[at..at + 4].fill(0xff);
        header[16..20].fill(0);
        let mut crc = flate2::Crc::new();
        crc.update(header);
        header[16..20].copy_from_slice(&crc.sum().to_le_bytes());
        assert_eq!(
            refused(&image),
            format!("its partition table can't be read: {says}")
        );
    }
}

#[test]
fn an_entry_of_a_zip_that_is_larger_than_any_file_ends_with_its_file() {
    let entry = ZipEntry {
        offset: 40,
        method: ZipMethod::Deflate,
        compressed_bytes: u64::MAX,
        bytes: u64::MAX,
        crc32: 0,
    };
    let mut indexed = Indexed::new(Wrapping::Zip(entry), Bytes(modern()[..MIB].to_vec()));
    indexed.page(0, &mut unseen).unwrap_err();
}
