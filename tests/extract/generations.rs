//! Flashers as they were made over the years; grub.cfg_internal, boot.img and core.img are of old ones.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use tempfile::tempdir;

use super::flasher::{Flasher, extract, noise, os, packed, run};

/// A flasher image, and what is to come out of it.
pub struct Generation {
    pub flasher: Flasher<'static>,
    /// That, built.
    pub image: Vec<u8>,
    /// The OS image in it, unpacked.
    pub os: Vec<u8>,
    /// The path of that, as it lies there, and the program that unpacks it.
    pub payload: (&'static str, Option<&'static str>),
    /// What the name of the OS image begins with.
    pub stem: &'static str,
}

impl Generation {
    /// The small files: how each is called afterwards, and where it was.
    pub fn smalls(&self) -> Vec<(String, String)> {
        let renamed = [
            ("grub.cfg_internal", "grub.cfg"),
            ("grub/boot.img", "boot.img"),
            ("grub/core.img", "core.img"),
            ("config.json", "config.json"),
        ];
        let names = self.flasher.boot.iter().map(|(name, _)| *name);
        let boot = names.filter_map(|name| {
            let (from, to) = renamed.iter().find(|(from, _)| *from == name)?;
            Some((to.to_string(), format!("fat/{from}")))
        });
        let names = self.flasher.root.iter().map(|(name, _)| *name);
        let signature = names.filter(|name| name.ends_with(".sig"));
        let signature =
            signature.map(|name| (format!("{}.img.sig", self.stem), format!("root/{name}")));
        boot.chain(signature).collect()
    }
}

fn grub() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("grub.cfg_internal", b"internal\n".to_vec()),
        ("grub/boot.img", noise(512, 3)),
        ("grub/core.img", noise(30_000, 4)),
        ("config.json", b"{\"applicationId\":1}".to_vec()),
    ]
}

/// One of each.
pub fn generations() -> &'static [Generation] {
    static ALL: OnceLock<Vec<Generation>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = described();
        for generation in &mut all {
            generation.image = generation.flasher.build();
        }
        all
    })
}

fn described() -> Vec<Generation> {
    let gpt_os = os("generic-amd64", "gpt", true);
    let old_os = os("genericx86-64", "dos", false);
    let mut all = vec![
        Generation {
            flasher: Flasher {
                table: "gpt",
                slug: "generic-amd64",
                fat: ("vfat -F 32 -s 1", 36),
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
            },
            image: Vec::new(),
            os: gpt_os,
            payload: ("opt/balena-image-generic-amd64.balenaos-img", None),
            stem: "balena-image-generic-amd64",
        },
        Generation {
            flasher: Flasher {
                labels: "resin",
                slug: "genericx86-64",
                boot: grub(),
                fs: "ext4 -O ^metadata_csum,^64bit -b 1024",
                ..Flasher::modern(vec![(
                    "opt/resin-image-genericx86-64.resinos-img",
                    old_os.clone(),
                )])
            },
            image: Vec::new(),
            os: old_os.clone(),
            payload: ("opt/resin-image-genericx86-64.resinos-img", None),
            stem: "resin-image-genericx86-64",
        },
    ];
    for (path, program) in [
        ("opt/resinos.img.gz", "gzip"),
        ("opt/resinos.img.xz", "xz"),
        ("opt/resinos.img.zst", "zstd"),
        ("opt/resinos.img.bz2", "bzip2"),
    ] {
        let packed = run(program, &["-1", "-c"], &old_os);
        all.push(Generation {
            flasher: Flasher {
                slug: "",
                boot: [grub(), vec![("resin-image-flasher", Vec::new())]].concat(),
                fs: "ext4 -O ^extents,^has_journal,^64bit",
                ..Flasher::modern(vec![(path, packed)])
            },
            image: Vec::new(),
            os: old_os.clone(),
            payload: (path, Some(program)),
            stem: "resinos",
        });
    }
    all
}

/// Compares what came out, all there is, with what `was_in` the image at each place.
#[track_caller]
pub fn compare(generation: &Generation, out: &Path, was_in: impl Fn(&str) -> Vec<u8>) {
    let stem = generation.stem;
    let image = fs::read(out.join(format!("{stem}.img.gz"))).unwrap();
    let (payload, program) = generation.payload;
    let mut carried = was_in(&format!("root/{payload}"));
    if let Some(program) = program {
        carried = run(program, &["-dc"], &carried);
    }
    assert!(carried == generation.os, "{payload}");
    assert!(run("gzip", &["-dc"], &image) == carried, "{payload}");
    for (name, place) in generation.smalls() {
        let bytes = fs::read(out.join(&name)).unwrap();
        assert!(bytes == was_in(&place), "{payload}: {name}");
    }
    let mut names: Vec<String> = fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let smalls = generation.smalls().into_iter().map(|(name, _)| name);
    let mut expected: Vec<String> = smalls.collect();
    expected.extend([format!("{stem}.img.gz"), "checksums.sha256".to_owned()]);
    expected.sort();
    assert_eq!(names, expected, "{payload}");
}

#[test]
fn flashers_of_every_generation_give_what_is_in_them() {
    for generation in generations() {
        let dir = tempdir().unwrap();
        let file = packed(dir.path(), &generation.image, "zip");
        let said = extract(dir.path(), &["--out-dir", "out", &file]);
        assert_eq!(said.code, 0, "{}", said.err);
        let out = dir.path().join("out");
        compare(generation, &out, |place| {
            let (folder, name) = place.split_once('/').unwrap();
            let files = match folder {
                "fat" => &generation.flasher.boot,
                _ => &generation.flasher.root,
            };
            let found = files.iter().find(|(known, _)| *known == name);
            found.unwrap().1.clone()
        });
        let check = "cd $0 && sha256sum --strict -c checksums.sha256";
        run("sh", &["-c", check, out.to_str().unwrap()], b"");
    }
}
