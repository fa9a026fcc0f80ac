//! Whether a backup fits on resin-data, and how large that becomes for it: foretold for file systems
//! that mkfs makes, and compared with what resize2fs makes of them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use balena_migrate::ext_space::ExtSpace;
use balena_migrate::growth::{DataPlace, need};
use balena_migrate::handover::{Format, ImagePartition, TableIdentity};
use balena_migrate::payload::scan::{BootFiles, Scan};

const MIB: u64 = 1 << 20;

fn tool(program: &str, arguments: &[&str], path: &Path, last: Option<&str>) {
    let output = Command::new(program)
        .args(arguments)
        .arg(path)
        .args(last)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
}

fn space(file: &File) -> ExtSpace {
    let mut head = vec![0; 4096];
    file.read_exact_at(&mut head, 0).unwrap();
    ExtSpace::read(&head).unwrap()
}

/// A new file system of `mib` MiB.
fn made(arguments: &[&str], mib: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(mib * MIB).unwrap();
    tool(
        "mkfs.ext4",
        &[&["-q", "-F"], arguments].concat(),
        file.path(),
        None,
    );
    file
}

#[test]
fn the_room_after_growing_is_foretold() {
    for arguments in [
        &[][..],
        &["-b", "4096"],
        &["-b", "4096", "-i", "8192"],
        &["-O", "^64bit,^has_journal"],
        &["-O", "^flex_bg"],
        &["-t", "ext3"],
        &["-O", "meta_bg,^resize_inode"],
    ] {
        let file = made(arguments, 192);
        let before = space(file.as_file());
        for mib in [200, 257, 900] {
            let blocks = before.blocks_in(mib * MIB);
            assert!(blocks * before.block_bytes <= mib * MIB);
            let foretold = before.free_at(blocks);
            file.as_file().set_len(mib * MIB).unwrap();
            tool("resize2fs", &["-f"], file.path(), Some(&blocks.to_string()));
            let after = space(file.as_file());
            assert_eq!(after.blocks, blocks, "{arguments:?}");
            let free = after.free * after.block_bytes;
            assert!(
                foretold <= free,
                "{arguments:?} {mib}: {foretold} of {free}"
            );
            assert!(
                foretold >= free - free / 20,
                "{arguments:?} {mib}: {foretold} of {free}"
            );
            // It is the same place for both stages, grown or not.
            assert_eq!(after.blocks_in(mib * MIB), blocks);
            assert_eq!(after.most_bytes(), before.most_bytes());
        }
    }
}

#[test]
fn what_the_kernel_can_t_grow_stays() {
    for features in ["^resize_inode", "bigalloc", "sparse_super2,^resize_inode"] {
        let file = made(&["-O", features], 64);
        let space = space(file.as_file());
        assert_eq!(space.blocks_in(900 * MIB), space.blocks, "{features}");
    }
    let file = made(&["-E", "resize=200000"], 64);
    let space = space(file.as_file());
    assert!((195 * MIB..400 * MIB).contains(&space.most_bytes()));
    assert_eq!(
        space.blocks_in(900 * MIB),
        space.most_bytes() / space.block_bytes
    );
}

/// An image with a resin-data of 192 MiB that begins at 1000 MiB.
fn image(table: TableIdentity, data: &ExtSpace) -> Scan {
    let data_partition = ImagePartition {
        number: 6,
        label: "resin-data".into(),
        fs_type: "ext4".into(),
        start: 1000 * MIB,
        bytes: 192 * MIB,
    };
    Scan {
        format: Format::Raw,
        file_bytes: 0,
        file_sha256: String::new(),
        file_md5: None,
        unpack_memory: 0,
        image_bytes: 1192 * MIB,
        image_sha256: String::new(),
        table,
        partitions: vec![data_partition],
        partitions_end: 1192 * MIB,
        data_space: Some(*data),
        partition_names: Vec::new(),
        boot_code: true,
        boot: BootFiles::default(),
    }
}

fn mbr() -> TableIdentity {
    TableIdentity::Mbr("0000beef".into())
}

#[test]
fn it_grows_only_when_it_must_and_no_further() {
    let space = space(made(&["-b", "4096"], 192).as_file());
    let data = DataPlace::of(&image(mbr(), &space), 64 << 30).unwrap();
    let free = space.free_at(space.blocks);
    assert_eq!(data.end_for(0), Ok(None));
    assert_eq!(data.end_for(free - 5 * MIB), Ok(None));
    for bytes in [free, 200 * MIB, 333 * MIB, 5 << 30, 50 << 30] {
        let end = data.end_for(bytes).unwrap().unwrap();
        assert_eq!(end % (4 * MIB), 0);
        let room = |end: u64| space.free_at(space.blocks_in(end - 1000 * MIB));
        assert!(room(end) >= need(bytes));
        assert!(end == 1192 * MIB || room(end - 4 * MIB) < need(bytes));
    }
}

#[test]
fn it_says_why_it_can_t_grow_so_far() {
    let default = space(made(&["-b", "4096"], 192).as_file());
    let fixed = space(made(&["-b", "4096", "-O", "^resize_inode"], 192).as_file());
    let gpt = || TableIdentity::Gpt("8".repeat(36));
    let refused = |scan: &Scan, disk: u64, bytes: u64| {
        let data = DataPlace::of(scan, disk).unwrap();
        data.end_for(bytes).unwrap_err().to_string()
    };
    let why = refused(&image(mbr(), &default), 2 << 30, 2 << 30);
    assert!(why.contains("the disk has no more"), "{why}");
    let vast = space(made(&["-b", "4096", "-E", "resize=1500000000"], 192).as_file());
    let why = refused(&image(mbr(), &vast), 8 << 40, 5 << 40);
    assert!(why.contains("2 TiB"), "{why}");
    let why = refused(&image(mbr(), &fixed), 64 << 30, 1 << 30);
    assert!(why.contains("its file system"), "{why}");
    let why = refused(&image(gpt(), &default), 8 << 40, 5 << 40);
    assert!(why.contains("its file system"), "{why}");
    let mut other = image(mbr(), &default);
    other.partitions_end += 1;
    let why = refused(&other, 64 << 30, 1 << 30);
    assert!(why.contains("not the last partition"), "{why}");
}
