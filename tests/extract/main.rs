//! `extract`: every generation of flasher images, compared byte by byte with what was put in, and what
//! it says of images that are broken.

mod flasher;
mod hostile;
mod indexed;
mod outputs;
mod wrong;

use std::fs;
use std::process::Command;

use balena_migrate::payload::digest::sha256_hex;
use flasher::{
    Flasher, MIB, PAYLOAD, SLUG, extract, extracted, modern, modern_os, noise, os, packed, run,
};
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

/// Flashers as they were made over the years; grub.cfg_internal, boot.img and core.img are of old ones.
#[test]
fn flashers_of_every_generation_give_what_is_in_them() {
    let gpt_os = os("generic-amd64", "gpt", true);
    let old_os = os("genericx86-64", "dos", false);
    let oldest = run("gzip", &["-c"], &old_os);
    let boot_img = noise(512, 3);
    let core_img = noise(30_000, 4);
    let grub = || {
        vec![
            ("grub.cfg_internal", b"internal\n".to_vec()),
            ("grub/boot.img", boot_img.clone()),
            ("grub/core.img", core_img.clone()),
            ("config.json", b"{\"applicationId\":1}".to_vec()),
        ]
    };
    let gpt = Flasher {
        table: "gpt",
        slug: "generic-amd64",
        fs: "ext4 -b 4096 -E lazy_itable_init=0",
        ..Flasher::modern(vec![
            (
                "opt/balena-image-generic-amd64.balenaos-img",
                gpt_os.clone(),
            ),
            (
                "opt/balena-image-generic-amd64.balenaos-img.sig",
                vec![7; 512],
            ),
        ])
    };
    let resin = Flasher {
        labels: "resin",
        slug: "genericx86-64",
        boot: grub(),
        fs: "ext4 -O ^metadata_csum,^64bit -b 1024",
        ..Flasher::modern(vec![(
            "opt/resin-image-genericx86-64.resinos-img",
            old_os.clone(),
        )])
    };
    let compressed = Flasher {
        labels: "flash",
        slug: "",
        boot: [grub(), vec![("resin-image-flasher", Vec::new())]].concat(),
        fs: "ext4 -O ^extents,^has_journal,^64bit",
        ..Flasher::modern(vec![("opt/resinos.img.gz", oldest)])
    };
    for (flasher, image, name, others) in [
        (
            gpt,
            &gpt_os,
            "balena-image-generic-amd64",
            &["balena-image-generic-amd64.img.sig"][..],
        ),
        (
            resin,
            &old_os,
            "resin-image-genericx86-64",
            &["boot.img", "config.json", "core.img", "grub.cfg"],
        ),
        (
            compressed,
            &old_os,
            "resinos",
            &["boot.img", "config.json", "core.img", "grub.cfg"],
        ),
    ] {
        let dir = tempdir().unwrap();
        let file = packed(dir.path(), &flasher.build(), "zip");
        extracted(dir.path(), &["--out-dir", "out", &file]);
        let out = dir.path().join("out");
        assert!(
            gunzip(&out.join(format!("{name}.img.gz"))) == **image,
            "{name}"
        );
        let mut names: Vec<String> = fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|found| !found.starts_with(&format!("{name}.img.gz")))
            .collect();
        names.sort();
        let mut expected = [others, &["checksums.sha256"]].concat();
        expected.sort();
        assert_eq!(names, expected);
        for (name, bytes) in [
            ("boot.img", boot_img.clone()),
            ("core.img", core_img.clone()),
            ("grub.cfg", b"internal\n".to_vec()),
            ("config.json", b"{\"applicationId\":1}".to_vec()),
            ("balena-image-generic-amd64.img.sig", vec![7; 512]),
        ] {
            if others.contains(&name) {
                assert_eq!(fs::read(out.join(name)).unwrap(), bytes, "{name}");
            }
        }
        run(
            "sh",
            &[
                "-c",
                "cd $0 && sha256sum --strict -c checksums.sha256",
                out.to_str().unwrap(),
            ],
            b"",
        );
    }
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

#[test]
fn the_list_tells_what_is_in_a_flasher() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    let before = fs::read_dir(dir.path()).unwrap().count();
    let json = extracted(dir.path(), &["--list", "--json", &file]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
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
