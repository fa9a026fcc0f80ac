//! Images that are broken, each with its one message, and nothing left behind.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use balena_migrate::extract::disk::{Source, Window};
use balena_migrate::extract::{look_into, open};
use balena_migrate::sys::Sys;
use tempfile::tempdir;

use super::flasher::{
    Flasher, MIB, PAYLOAD, Part, SLUG, disk, extract, modern, modern_os, noise, os, packed,
};

/// What is said of a file, behind its name.
#[track_caller]
fn said_of(dir: &Path, file: &str) -> String {
    let before = names(dir);
    let said = extract(dir, &["--img", "os.img.gz", file]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert_eq!(names(dir), before, "nothing half done is left");
    let prefix = format!("extract: {file}: ");
    let message = said
        .err
        .strip_prefix(&prefix)
        .unwrap_or_else(|| panic!("{}", said.err));
    assert!(
        message.ends_with('\n') && message.lines().count() == 1,
        "{message}"
    );
    message.trim_end().to_owned()
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn said(bytes: &[u8]) -> String {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.img");
    fs::write(&path, bytes).unwrap();
    said_of(dir.path(), path.to_str().unwrap())
}

#[test]
fn files_that_are_no_image() {
    assert_eq!(said(b""), "it is empty");
    let neither = "it is neither compressed with gzip, zip, xz, zstd or bzip2 nor a raw disk image";
    assert_eq!(said(b"#!/bin/sh\n"), neither);
    assert_eq!(said(&noise(MIB, 1)), neither);
    let dir = tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    assert_eq!(
        said_of(dir.path(), folder),
        "it is a folder; name the image file in it"
    );
    let missing = format!("{folder}/missing");
    assert_eq!(
        said_of(dir.path(), &missing),
        "No such file or directory (os error 2)"
    );
}

#[test]
fn downloads_that_were_cut_off_or_changed() {
    for (format, cut, flipped) in [
        (
            "zip",
            "the zip file is truncated or damaged: invalid Zip archive: Could not find EOCD",
            "the zip stream is damaged: ",
        ),
        (
            "gz",
            "the gzip stream ends too early (truncated file)",
            "the gzip stream is damaged: ",
        ),
        (
            "xz",
            "the xz stream ends too early (truncated file)",
            "the xz stream is damaged: ",
        ),
        (
            "bz2",
            "the bzip2 stream ends too early (truncated file)",
            "the bzip2 stream is damaged: ",
        ),
        (
            "zst",
            "the zstd stream ends too early (truncated file)",
            "the zstd stream is damaged: ",
        ),
    ] {
        let dir = tempdir().unwrap();
        let file = packed(dir.path(), modern(), format);
        let whole = fs::read(&file).unwrap();
        // In the noise behind the payload: what is wrong there is not seen before the end.
        let at = whole.len() - MIB / 2;
        fs::write(&file, &whole[..at]).unwrap();
        assert_eq!(said_of(dir.path(), &file), cut, "{format}");
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        fs::write(&file, &damaged).unwrap();
        let message = said_of(dir.path(), &file);
        assert!(message.starts_with(flipped), "{format}: {message}");
    }
    let message = said(&modern()[..40 * MIB]);
    let expected = format!(
        "it has {} bytes, but its partition 2 reaches up to byte {} (truncated file)",
        40 * MIB,
        56 * MIB
    );
    assert_eq!(message, expected);
}

#[test]
fn file_systems_that_are_damaged() {
    let mut ext4 = modern().to_vec();
    // The table of groups, behind the superblock.
    ext4[12 * MIB + 2048..12 * MIB + 4096 + 64].fill(0xee);
    let message = said(&ext4);
    let start = "the ext4 file system of its partition 2 (flash-rootA) is damaged or of a kind that \
                 can't be read: ";
    assert!(message.starts_with(start), "{message}");
    assert!(message.ends_with("; download the image again"), "{message}");
    let mut fat = modern().to_vec();
    // The number of sectors, in both of its places.
    fat[4 * MIB + 19..4 * MIB + 21].fill(0);
    fat[4 * MIB + 32..4 * MIB + 36].fill(0);
    let message = said(&fat);
    let start = "the FAT of its boot partition 1 is damaged: ";
    assert!(message.starts_with(start), "{message}");
    fat[4 * MIB..4 * MIB + 512].fill(0);
    let expected = "it is a flasher image without a boot partition (a FAT), the partitions are 1 (no \
                    known file system), 2 flash-rootA (ext4); download it again";
    assert_eq!(said(&fat), expected);
    let mut table = modern().to_vec();
    table[510] = 0;
    assert!(said(&table).starts_with("it is neither compressed"));
}

#[test]
fn flashers_without_an_image_that_can_be_taken() {
    let flasher = |root: Vec<(&'static str, Vec<u8>)>| said(&Flasher::modern(root).build());
    let start = "it is a flasher image, but there is no OS image in /opt: ";
    assert_eq!(flasher(vec![]), format!("{start}flash-rootA has no /opt"));
    assert_eq!(
        flasher(vec![("opt/containerd/x", vec![1]), ("opt/readme", vec![1])]),
        format!("{start}/opt of flash-rootA has only containerd, readme")
    );
    assert_eq!(
        flasher(vec![("opt", vec![1])]),
        "/opt of flash-rootA is a file and no folder"
    );
    let inside = "opt/balena-image-genericx86-64-ext.balenaos-img/x";
    assert_eq!(
        flasher(vec![(inside, vec![1])]),
        format!(
            "/{PAYLOAD} of flash-rootA, where the OS image should be, is a folder; download the image \
             again"
        )
    );
    assert_eq!(
        flasher(vec![(PAYLOAD, Vec::new())]),
        format!(
            "/{PAYLOAD} of flash-rootA, where the OS image should be, is empty; download the image again"
        )
    );
    assert_eq!(
        flasher(vec![(PAYLOAD, noise(MIB, 1))]),
        format!(
            "the OS image /{PAYLOAD} of flash-rootA: it is neither compressed with gzip, zip, xz, zstd or \
             bzip2 nor a raw disk image"
        )
    );
    assert_eq!(
        flasher(vec![
            ("opt/a.balenaos-img", vec![1]),
            ("opt/b.resinos-img", vec![1])
        ]),
        "/opt of flash-rootA has more than one file that may be the OS image: a.balenaos-img, \
         b.resinos-img"
    );
    let signature = "opt/balena-image-genericx86-64-ext.balenaos-img.sig";
    for bytes in [0, (64 << 10) + 1] {
        let with = vec![(PAYLOAD, modern_os().to_vec()), (signature, vec![1; bytes])];
        assert_eq!(
            flasher(with),
            format!(
                "/{signature} of flash-rootA has {bytes} bytes, which is no signature; download the \
                 image again"
            )
        );
    }
}

#[test]
fn images_of_something_else() {
    let other = Flasher {
        slug: "raspberrypi4-64",
        ..Flasher::modern(vec![(PAYLOAD, modern_os().to_vec())])
    };
    assert_eq!(
        said(&other.build()),
        format!(
            "it is an installer for the device type raspberrypi4-64, but carries an OS image for {SLUG}; \
             download it again"
        )
    );
    let part = |label, fs, at| Part {
        label,
        fs,
        at,
        mib: 8,
        files: Vec::new(),
    };
    let script = "label: dos\nstart=4MiB, size=8MiB, type=7\nstart=12MiB, size=8MiB\n";
    let parts = [part("C", "ntfs", 4), part("debian", "ext4", 12)];
    assert_eq!(
        said(&disk(24, script, &parts)),
        "it is no image of balenaOS: its first partition is not resin-boot with a FAT, the partitions \
         are 1 (no known file system), 2 debian (ext4)"
    );
    let flasher = [part("flash-boot", "vfat", 4), part("C", "ntfs", 12)];
    assert_eq!(
        said(&disk(24, script, &flasher)),
        "it is a flasher image, but there is no OS image in /opt: no partition has an ext4 file system, \
         they are 1 flash-boot (vfat), 2 (no known file system)"
    );
    let resin = Flasher {
        labels: "resin",
        boot: Vec::new(),
        ..Flasher::modern(vec![("opt/readme", vec![1])])
    };
    assert_eq!(
        said(&resin.build()),
        "it is neither a flasher image with an OS image in /opt nor a whole OS image, the partitions \
         are 1 resin-boot (vfat), 2 resin-rootA (ext4); download it again"
    );
    let mut torn = os(SLUG, "dos", true);
    // The superblock of resin-data.
    torn[22 * MIB..22 * MIB + 4096].fill(0);
    let message = said(&torn);
    let start = "the OS image is not whole: it has no partition with the label resin-data; it has ";
    assert!(message.starts_with(start), "{message}");
}

/// What an image says of itself goes to terminals.
#[test]
fn no_name_in_an_image_commands_the_terminal() {
    const WHITE: &str = "\u{1b}[2J\u{9b}1m";
    let os_release = format!("SLUG={SLUG}\nPRETTY_NAME=\"OS {WHITE}\"\nVERSION_ID={WHITE}\n");
    let boot = vec![("os-release", os_release.into_bytes())];
    let carried = format!("{PAYLOAD}.img");
    let stray = format!("opt/{WHITE}");
    let with = |root| {
        let mut image = Flasher {
            boot: boot.clone(),
            fs: "ext4 -O ^metadata_csum",
            ..Flasher::modern(root)
        }
        .build();
        // The label of flash-rootA.
        let label = 12 * MIB + 1024 + 0x78;
        image[label + 6..label + 9].copy_from_slice(b"\x1b[A");
        image
    };
    let dir = tempdir().unwrap();
    let whole = with(vec![(PAYLOAD, modern_os().to_vec())]);
    let file = packed(dir.path(), &whole, "raw");
    for args in [&["--list"][..], &["--list", "--json"], &["--img", "x"]] {
        let said = extract(dir.path(), &[args, &[&file]].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        let out = String::from_utf8(said.out).unwrap();
        let is_bad = |c: char| c.is_control() && c != '\n';
        assert!(!out.contains(is_bad), "{out:?}");
    }
    let empty = with(vec![(stray.as_str(), vec![1]), (&carried, vec![])]);
    let message = said(&empty);
    assert!(!message.contains(char::is_control), "{message:?}");
    assert!(message.contains("flash-\\u{1b}[A"), "{message}");
}

#[test]
fn an_image_for_sectors_of_4096_bytes() {
    let mut image = vec![0; 8 * MIB];
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image[446 + 4] = 0xee;
    image[4096..4104].copy_from_slice(b"EFI PART");
    let expected = "its partition table is made for disks with sectors of 4096 bytes, and balenaOS makes \
                    none like that; download the image again";
    assert_eq!(said(&image), expected);
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), &image, "gz");
    assert_eq!(said_of(dir.path(), &file), expected);
}

#[test]
fn too_little_room_is_said_before_anything_is_written() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "xz");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_balena-migrate"))
        .args(["extract", "--img", "os.gz", &file])
        .current_dir(dir.path())
        // A file system without any room.
        .env("TMPDIR", "/proc")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("MiB of scratch, and /proc has 0 MiB free; set TMPDIR to a"),
        "{message}"
    );
    assert_eq!(names(dir.path()).len(), 1);
}

struct Silent;

impl open::Notice for Silent {
    fn tell(&self, _: String) {}

    fn at(&self, _: &'static str, _: u64, _: Option<u64>) -> std::io::Result<()> {
        Ok(())
    }
}

/// A flasher image of 4 MiB, as far as it can be looked into.
fn tiny() -> Vec<u8> {
    let script = "label: dos\nstart=1MiB, size=1MiB, type=e\nstart=2MiB, size=2MiB\n";
    let part = |label, fs, at, mib, files| Part {
        label,
        fs,
        at,
        mib,
        files,
    };
    let boot = vec![
        ("balena-image-flasher", Vec::new()),
        ("os-release", b"SLUG=x\n".to_vec()),
    ];
    let root = vec![(PAYLOAD, noise(100_000, 1)), ("opt/other", vec![1; 5000])];
    let parts = [
        part("flash-boot", "vfat", 1, 1, boot),
        part("flash-rootA", "ext4 -b 1024 -O ^has_journal", 2, 2, root),
    ];
    disk(4, script, &parts)
}

/// Whatever is wrong in the file systems, it is said.
#[test]
fn damage_anywhere_in_the_file_systems_is_no_panic() {
    let whole = tiny();
    let look = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        let image = Window::all(Source::File(file), Some(bytes.len() as u64));
        let sys = Sys::new("/");
        let silent: Rc<dyn open::Notice> = Rc::new(Silent);
        open::unpack(&sys, image, &Silent)
            .and_then(|opened| look_into(&sys, opened, &silent))
            .map(drop)
            .map_err(|error| format!("{error:#}"))
    };
    let said = look(&whole).unwrap_err();
    assert!(
        said.starts_with(&format!("the OS image /{PAYLOAD} of flash-rootA: ")),
        "{said}"
    );
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = whole.clone();
        for _ in 0..random.usize(1..30) {
            let start = if random.bool() { MIB } else { 2 * MIB };
            let reach = if random.bool() { 4096 } else { 300_000 };
            let at = start + random.usize(..reach);
            bytes[at] = random.u8(..);
        }
        let _ = look(&bytes);
    }
}
