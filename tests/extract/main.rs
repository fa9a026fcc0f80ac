//! `extract`: every generation of flasher images, compared byte by byte with what was put in, and what
//! it says of images that are broken.

mod flasher;
mod generations;
mod hostile;
mod indexed;
mod listing;
mod mounted;
mod outputs;
mod places;
mod progress;
mod settings;
mod users;
mod wrong;

use std::fs;

use balena_migrate::payload::digest::sha256_hex;
use flasher::{Flasher, PAYLOAD, extract, extracted, modern, modern_os, packed, run};
use tempfile::tempdir;

/// Unpacked by the tool that everybody has.
fn gunzip(path: &std::path::Path) -> Vec<u8> {
    run("gzip", &["-dc", path.to_str().unwrap()], b"")
}

#[test]
fn every_packing_gives_the_same_image() {
    for format in ["raw", "zip", "stored.zip", "gz", "xz", "bz2", "zst"] {
        let dir = tempdir().unwrap();
        let file = packed(dir.path(), modern(), format);
        let said = extract(dir.path(), &["--img", "os.img.gz", &file]);
        assert_eq!(said.code, 0, "{format}: {}", said.err);
        let is_scratch = matches!(format, "xz" | "bz2" | "zst");
        assert_eq!(
            said.err.contains(" MiB of scratch in "),
            is_scratch,
            "{format}: {}",
            said.err
        );
        assert!(
            gunzip(&dir.path().join("os.img.gz")) == modern_os(),
            "{format}"
        );
        let out = String::from_utf8(said.out).unwrap();
        let sum = sha256_hex(modern_os());
        assert!(
            out.contains(&format!("SHA-256     {sum} (unpacked)\n")),
            "{out}"
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            3,
            "image, list, input: no litter"
        );
    }
}

#[test]
fn gz_zst_and_raw_unpack_to_what_was_put_in() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    for (args, unpack) in [
        (&["--img", "a.zst"][..], Some("zstd")),
        (&["--img", "b", "--format", "zst"], Some("zstd")),
        (&["--img", "c.raw"], None),
        (&["--img", "d", "--format", "raw"], None),
        (&["--img", "e.img", "--format", "gz"], Some("gzip")),
    ] {
        extracted(dir.path(), &[args, &[&file]].concat());
        let path = dir.path().join(args[1]);
        let bytes = match unpack {
            Some(program) => run(program, &["-dc"], &fs::read(&path).unwrap()),
            None => fs::read(&path).unwrap(),
        };
        assert!(bytes == modern_os(), "{args:?}");
    }
    let piped = extract(dir.path(), &["--img", "-", &file]);
    assert_eq!(piped.code, 0, "{}", piped.err);
    assert!(run("gzip", &["-dc"], &piped.out) == modern_os());
    assert!(
        piped.err.contains("wrote       standard output\n"),
        "{}",
        piped.err
    );
}

#[test]
fn single_files_go_where_they_are_told() {
    let dir = tempdir().unwrap();
    let flasher = Flasher {
        boot: vec![
            ("balena-image-flasher", Vec::new()),
            ("EFI/BOOT/grub.cfg_internal", b"efi\n".to_vec()),
            ("grub/boot.img", vec![1; 512]),
            ("grub/core.img", vec![2; 1000]),
            ("config.json", b"{}".to_vec()),
        ],
        ..Flasher::modern(vec![(PAYLOAD, modern_os().to_vec())])
    };
    let file = packed(dir.path(), &flasher.build(), "gz");
    let args = [
        "--grub",
        "g",
        "--grub-boot",
        "b",
        "--grub-core",
        "c",
        "--balena-cfg",
        "j",
        &file,
    ];
    extracted(dir.path(), &args);
    for (name, bytes) in [
        ("g", &b"efi\n"[..]),
        ("b", &[1; 512]),
        ("c", &[2; 1000]),
        ("j", b"{}"),
    ] {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), bytes, "{name}");
    }
    assert_eq!(
        extracted(dir.path(), &["--out-dir", "o", &file])
            .matches("wrote ")
            .count(),
        5
    );
    let piped = extract(dir.path(), &["--grub", "-", &file]);
    assert_eq!((piped.code, &*piped.out), (0, &b"efi\n"[..]));
}

#[test]
fn an_os_image_is_packed_anew_and_says_so() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern_os(), "zip");
    let said = extracted(dir.path(), &["--out-dir", ".", &file]);
    assert!(
        said.contains("is no flasher image but the OS image itself: packed anew\n"),
        "{said}"
    );
    let path = dir.path().join("balena-image-genericx86-64-ext.img.gz");
    assert!(gunzip(&path) == modern_os());
}
