//! `extract --list`: what is told of an image.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tempfile::tempdir;

use super::flasher::{
    Flasher, MIB, PAYLOAD, SLUG, extract, extracted, modern, modern_os, packed, run,
};

fn listed(image: &[u8], format: &str) -> Value {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), image, format);
    let said = extract(dir.path(), &["--list", "--json", &file]);
    assert_eq!(said.code, 0, "{}", said.err);
    let json: Value = serde_json::from_slice(&said.out).unwrap();
    assert_eq!(json["file_bytes"], fs::metadata(&file).unwrap().len());
    json
}

#[test]
fn the_list_tells_what_is_in_a_flasher() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    let before = fs::read_dir(dir.path()).unwrap().count();
    let json = listed(modern(), "zip");
    assert_eq!(json["kind"], "flasher");
    assert_eq!(json["format"], "zip");
    assert_eq!(json["image"]["bytes"], 58 * MIB);
    assert_eq!(json["image"]["partitions"][1]["label"], "flash-rootA");
    assert_eq!(json["carried"]["path"], format!("/{PAYLOAD}"));
    assert_eq!(json["carried"]["bytes"], 25 * MIB);
    let os = &json["carried"]["image"];
    assert_eq!(os["device_type"], SLUG);
    assert_eq!(os["os"], "balenaOS 6.0.10");
    assert_eq!(os["boots_by"][0], "BIOS");
    assert_eq!(os["boots_by"][1], "UEFI EFI/BOOT/BOOTX64.EFI");
    let parts = os["partitions"].as_array().unwrap();
    let parts: Vec<(u64, &str)> = parts
        .iter()
        .map(|part| {
            (
                part["number"].as_u64().unwrap(),
                part["label"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        (1, "resin-boot"),
        (2, "resin-rootA"),
        (3, "resin-rootB"),
        (5, "resin-state"),
        (6, "resin-data"),
    ];
    assert_eq!(parts, expected);
    let text = extracted(dir.path(), &["--list", &file]);
    let verb = Command::new(env!("CARGO_BIN_EXE_balena-migrate"))
        .args(["extract", "--list", &file])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(verb.stdout).unwrap(), text);
    for line in [
        "  what         flasher image: an installer that carries the OS image\n",
        "    2  flash-rootA    ext4          44 MiB  from 12 MiB\n",
        "  starts by    BIOS, UEFI EFI/BOOT/BOOTX64.EFI\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before);
}

#[test]
fn sizes_are_told_whatever_the_image_lies_in() {
    let inner = |image: Vec<u8>| Flasher {
        ..Flasher::modern(vec![("opt/resinos.img.gz", run("gzip", &["-1c"], &image))])
    };
    let flasher = inner(modern_os().to_vec()).build();
    for format in ["raw", "zip", "stored.zip", "gz", "xz", "bz2", "zst"] {
        let json = listed(&flasher, format);
        assert_eq!(json["image"]["bytes"], 58 * MIB, "{format}");
        assert_eq!(json["carried"]["image"]["bytes"], 25 * MIB, "{format}");
    }
    // Members of a gzip file count together.
    let (front, back) = modern_os().split_at(23 * MIB);
    let dir = tempdir().unwrap();
    let file = dir.path().join("two.gz");
    let members = [run("gzip", &["-1c"], front), run("gzip", &["-1c"], back)];
    fs::write(&file, members.concat()).unwrap();
    let text = extracted(dir.path(), &["--list", "two.gz"]);
    assert!(text.contains("\n  size         25 MiB\n"), "{text}");
    let packed = format!(
        "\n  packed as    gzip, {:.1} MiB\n",
        members.concat().len() as f64 / MIB as f64
    );
    assert!(text.contains(&packed), "{text}");
    // Of a file that is not whole nothing is told.
    fs::write(&file, &members[0]).unwrap();
    let said = extract(dir.path(), &["--list", "two.gz"]);
    assert_eq!(said.code, 1);
    let says = format!(
        "it has {} bytes, but its partition 6 reaches up to byte {}",
        23 * MIB,
        24 * MIB
    );
    assert!(said.err.contains(&says), "{}", said.err);
}

#[test]
fn firmware_and_boot_loaders_are_named() {
    for (names, expected) in [
        (
            &[
                "config.txt",
                "bootcode.bin",
                "start4.elf",
                "kernel8.img",
                "boot.scr",
            ][..],
            &["Raspberry Pi firmware", "u-boot"][..],
        ),
        (
            &["config.txt", "bcm2712-rpi-5-b.dtb", "kernel_2712.img"],
            &["Raspberry Pi firmware"],
        ),
        (&["MLO", "u-boot.img", "uEnv.txt"], &["u-boot"]),
        (&["grub/grub.cfg"], &["GRUB"]),
        (
            &["EFI/BOOT/bootaa64.efi", "EFI/BOOT/grub.cfg"],
            &["UEFI EFI/BOOT/BOOTAA64.EFI", "GRUB"],
        ),
        (&["config.txt", "readme"], &[]),
    ] {
        let mut boot = vec![("balena-image-flasher", Vec::new())];
        boot.extend(names.iter().map(|name| (*name, vec![1])));
        let image = Flasher {
            boot,
            ..Flasher::modern(vec![(PAYLOAD, modern_os().to_vec())])
        };
        let json = listed(&image.build(), "raw");
        assert_eq!(
            json["image"]["boots_by"],
            Value::from(expected),
            "{names:?}"
        );
    }
}
