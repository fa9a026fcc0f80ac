//! Partition tables and file systems by their first bytes: what real tools make, and documented
//! offsets for what no tool here makes.

use balena_migrate::handover::TableIdentity;
use balena_migrate::superblock::{HEAD_BYTES, Superblock, identify, table_identity};
use std::process::Command;

/// The head of a fresh image of `mib` MiB that `program` filled.
fn made_by(program: &str, options: &[&str], mib: u64) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(mib << 20).unwrap();
    let output = Command::new(program)
        .args(options)
        .arg(file.path())
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    let mut head = std::fs::read(file.path()).unwrap();
    head.truncate(HEAD_BYTES);
    head
}

fn found(fs_type: &'static str, uuid: &str, label: &str) -> Option<Superblock> {
    Some(Superblock {
        fs_type,
        uuid: uuid.into(),
        label: label.into(),
    })
}

const UUID: &str = "0b5f7f4e-8f1c-4c7a-9d4e-1a2b3c4d5e6f";

#[test]
fn ext_of_each_age() {
    for (program, label) in [
        ("mkfs.ext2", "old"),
        ("mkfs.ext3", ""),
        ("mkfs.ext4", "resin-data-16byt"),
    ] {
        let head = made_by(program, &["-q", "-U", UUID, "-L", label], 16);
        let fs_type = program.strip_prefix("mkfs.").unwrap();
        assert_eq!(identify(&head), found(fs_type, UUID, label));
    }
}

#[test]
fn fat_of_each_width() {
    for (bits, mib) in [("12", 4), ("16", 40), ("32", 64)] {
        let options = ["-F", bits, "-i", "1a2B3c4D", "-n", "resin-boot"];
        let head = made_by("mkfs.vfat", &options, mib);
        assert_eq!(identify(&head), found("vfat", "1A2B-3C4D", "resin-boot"));
    }
    let head = made_by("mkfs.vfat", &["-i", "0000000A"], 8);
    assert_eq!(identify(&head), found("vfat", "0000-000A", ""));
    assert_eq!(table_identity(&head, 512), None);
}

#[test]
fn swap_by_its_page() {
    let head = made_by("mkswap", &["-q", "-U", UUID, "-L", "spare"], 4);
    assert_eq!(identify(&head), found("swap", UUID, "spare"));
}

fn planted(pieces: &[(usize, &[u8])]) -> Vec<u8> {
    let mut head = vec![0; HEAD_BYTES];
    for (offset, bytes) in pieces {
        head[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    head
}

#[test]
fn others_by_their_documented_offsets() {
    let id: Vec<u8> = (0..16).collect();
    let uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f";
    let xfs = planted(&[(0, b"XFSB"), (32, &id), (108, b"root")]);
    assert_eq!(identify(&xfs), found("xfs", uuid, "root"));
    let btrfs = planted(&[(0x10040, b"_BHRfS_M"), (0x10020, &id), (0x1012b, b"fedora")]);
    assert_eq!(identify(&btrfs), found("btrfs", uuid, "fedora"));
    let md = planted(&[
        (4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]),
        (4112, &id),
        (4128, b"box:0"),
    ]);
    assert_eq!(identify(&md), found("linux_raid_member", uuid, "box:0"));
    let luks = planted(&[
        (0, b"LUKS\xba\xbe\0\x02"),
        (24, b"safe"),
        (168, UUID.as_bytes()),
    ]);
    assert_eq!(identify(&luks), found("crypto_LUKS", UUID, "safe"));
    let lvm = planted(&[
        (512, b"LABELONE"),
        (532, &32u32.to_le_bytes()),
        (536, b"LVM2 001"),
        (544, b"abcdef0123456789ABCDEF0123456789"),
    ]);
    let pv = "abcdef-0123-4567-89AB-CDEF-0123-456789";
    assert_eq!(identify(&lvm), found("LVM2_member", pv, ""));
}

#[test]
fn nothing_in_zeros_or_short_heads() {
    assert_eq!(identify(&[0; HEAD_BYTES]), None);
    for len in [0, 1, 511, 512, 1024, 1100] {
        let head = planted(&[(1080, &[0x53, 0xef]), (510, &[0x55, 0xaa]), (0, &[0xeb])]);
        assert_eq!(identify(&head[..len]), None);
        assert_eq!(table_identity(&head[..len], 512), None);
    }
}

#[test]
fn mbr_signature() {
    let head = planted(&[
        (0x1b8, &[0x78, 0x56, 0x34, 0x02]),
        (450, &[0x83]),
        (510, &[0x55, 0xaa]),
    ]);
    let id = TableIdentity::Mbr("02345678".into());
    assert_eq!(table_identity(&head, 512), Some(id));
}

#[test]
fn gpt_guid_at_either_sector_size() {
    let id = [
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
    ];
    for sector in [512usize, 4096] {
        let head = planted(&[
            (450, &[0xee]),
            (510, &[0x55, 0xaa]),
            (sector, b"EFI PART"),
            (sector + 56, &id),
        ]);
        let name = TableIdentity::Gpt("c12a7328-f81f-11d2-ba4b-00a0c93ec93b".into());
        assert_eq!(table_identity(&head, sector as u32), Some(name));
    }
}
