//! Where files go, and what is there already: nothing is lost, and nothing is there by half.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use balena_migrate::extract::open::Notice;
use balena_migrate::extract::pack::Packing;
use balena_migrate::extract::take::take;
use balena_migrate::extract::wanted::{Target, Wanted};
use balena_migrate::sys::Sys;
use balena_migrate::sys::extents::{FileExtent, Media};
use balena_migrate::sys::files::Space;
use tempfile::{TempDir, tempdir};

use super::flasher::{Flasher, MIB, PAYLOAD, extract, extracted, modern, modern_os, packed, run};

/// A flasher of old in a folder of its own, with all that there can be, and its path.
fn old_flasher() -> (TempDir, String) {
    let flasher = Flasher {
        boot: vec![
            ("balena-image-flasher", Vec::new()),
            ("grub.cfg_internal", b"internal\n".to_vec()),
            ("grub/boot.img", vec![1; 512]),
            ("grub/core.img", vec![2; 1000]),
            ("config.json", b"{}".to_vec()),
        ],
        ..Flasher::modern(vec![
            (PAYLOAD, modern_os().to_vec()),
            (
                "opt/balena-image-genericx86-64-ext.balenaos-img.sig",
                vec![7; 512],
            ),
        ])
    };
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), &flasher.build(), "zip");
    (dir, file)
}

/// Names below a folder, and what is in the files.
fn tree(dir: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let is_dir = fs::symlink_metadata(&path).unwrap().is_dir();
        if is_dir {
            found.extend(tree(&path));
        }
        let bytes = (!is_dir).then(|| fs::read(&path).unwrap_or_default());
        found.push((path.to_str().unwrap().to_owned(), bytes));
    }
    found.sort();
    found
}

/// Runs `extract` and expects one message that ends so, and all files as they were.
#[track_caller]
fn refused(dir: &Path, args: &[&str], says: &str) {
    let before = tree(dir);
    let said = extract(dir, args);
    assert_eq!(said.code, 1, "{args:?}: {}", said.err);
    assert!(
        said.err.trim_end().ends_with(says),
        "{args:?}: {}",
        said.err
    );
    assert!(tree(dir) == before, "{args:?}");
}

#[test]
fn no_two_files_go_to_one_place() {
    let (dir, file) = old_flasher();
    fs::create_dir_all(dir.path().join("d/e")).unwrap();
    symlink("d", dir.path().join("same")).unwrap();
    fs::write(dir.path().join("d/mine.conf"), "A_KEY=1\n").unwrap();
    symlink("d/mine.conf", dir.path().join("link.conf")).unwrap();
    let rest = "; give one of them another name";
    for (args, says) in [
        (
            &["--img", "out", "--grub", "out"][..],
            "the OS image and grub.cfg",
        ),
        (
            &["--grub-boot", "d/x", "--grub-core", "d/e/../x"],
            "boot.img and core.img",
        ),
        (
            &["--grub-boot", "d/x", "--balena-cfg", "same//x"],
            "boot.img and config.json",
        ),
        (
            &["--out-dir", "d", "--img", "d/grub.cfg"],
            "the OS image and grub.cfg",
        ),
        (
            &["--out-dir", "new", "--img", "new/./core.img"],
            "the OS image and core.img",
        ),
        (
            &["--img", "x.gz", "--grub", "x.sig"],
            "grub.cfg and the signature",
        ),
        (
            &["--img", "x", "--config", "x"],
            "the OS image and the configuration",
        ),
        (
            &[
                "--force",
                "--grub",
                "same/mine.conf",
                "--config",
                "link.conf",
            ],
            "grub.cfg and the configuration",
        ),
        (
            &["--force", "--grub", "link.conf", "--config", "link.conf"],
            "grub.cfg and the configuration",
        ),
        (
            &["--img", "d/x", "--grub", "same/checksums.sha256"],
            "grub.cfg and the list of checksums",
        ),
        (
            &["--out-dir", "d", "--config", "d/checksums.sha256"],
            "the list of checksums and the configuration",
        ),
    ] {
        refused(
            dir.path(),
            &[args, &[&file]].concat(),
            &format!("{says}{rest}"),
        );
    }
    // The same names in two folders.
    let args = [
        "--img",
        "d/e/x",
        "--grub",
        "d/x",
        "--config",
        "d/e/mine.conf",
        &file,
    ];
    extracted(dir.path(), &args);
}

/// Somebody who does something when so many bytes are done.
struct Meddler<F: Fn()>(F);

impl<F: Fn()> Notice for Meddler<F> {
    fn tell(&self, _: String) {}

    fn at(&self, what: &'static str, bytes: u64, _: Option<u64>) -> io::Result<()> {
        if (what, bytes) == ("extracting", 10 << 20) {
            (self.0)();
        }
        Ok(())
    }
}

fn image_to(path: &Path, force: bool) -> Wanted {
    Wanted {
        img: Some(Target::File(path.to_str().unwrap().to_owned())),
        packing: Packing::Gz,
        items: Vec::new(),
        all: None,
        config: None,
        home: None,
        force,
    }
}

#[test]
fn two_processes_leave_one_whole_file() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let wanted = image_to(&out.join("os.gz"), true);
    let (other, path) = (wanted.clone(), file.clone());
    let meddler = Meddler(move || {
        let quiet: Rc<dyn Notice> = Rc::new(Meddler(|| ()));
        take(&Sys::new("/"), &path, &other, &quiet)
            .map(drop)
            .unwrap();
    });
    let notice: Rc<dyn Notice> = Rc::new(meddler);
    take(&Sys::new("/"), &file, &wanted, &notice)
        .map(drop)
        .unwrap();
    let packed = fs::read(out.join("os.gz")).unwrap();
    assert!(run("gzip", &["-dc"], &packed) == modern_os());
    assert_eq!(
        fs::read_dir(&out).unwrap().count(),
        2,
        "the image, its list"
    );
}

#[test]
fn a_file_that_appears_in_the_meantime_stays() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    let out = dir.path().join("os.gz");
    let theirs = out.clone();
    let notice: Rc<dyn Notice> = Rc::new(Meddler(move || fs::write(&theirs, "theirs").unwrap()));
    let taken = take(&Sys::new("/"), &file, &image_to(&out, false), &notice).map(drop);
    let message = format!("{:#}", taken.unwrap_err());
    let says = format!(
        "writing {}: it is there by now; remove it, or say --force",
        out.display()
    );
    assert!(message.ends_with(&says), "{message}");
    assert_eq!(fs::read(&out).unwrap(), b"theirs");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn what_is_replaced_is_a_link_and_not_what_it_leads_to() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let file = packed(dir.path(), modern(), "zip");
    fs::write(at("mine"), "mine").unwrap();
    symlink("mine", at("link.gz")).unwrap();
    symlink("nowhere", at("loose.gz")).unwrap();
    refused(
        dir.path(),
        &["--img", "link.gz", &file],
        "is there already; remove it, or say --force",
    );
    refused(
        dir.path(),
        &["--img", "loose.gz", &file],
        "is there already; remove it, or say --force",
    );
    extracted(dir.path(), &["--force", "--img", "link.gz", &file]);
    assert!(fs::symlink_metadata(at("link.gz")).unwrap().is_file());
    assert_eq!(fs::read(at("mine")).unwrap(), b"mine");
}

/// A file system on which what is left is kept for root.
struct KeptForRoot;

impl Media for KeptForRoot {
    fn extents(&self, _: &File) -> io::Result<Vec<FileExtent>> {
        unreachable!()
    }

    fn read_raw(
        &self,
        _: &Path,
        _: &[Range<u64>],
        _: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        unreachable!()
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space {
            bytes: 1 << 40,
            free: 1 << 39,
            available: 3 << 20,
        })
    }
}

#[test]
fn what_is_kept_for_root_is_no_room() {
    let dir = tempdir().unwrap();
    let sys = Sys::new("/").on_media(Arc::new(KeptForRoot));
    let quiet: Rc<dyn Notice> = Rc::new(Meddler(|| ()));
    let raw = Wanted {
        packing: Packing::Raw,
        ..image_to(&dir.path().join("os.img"), false)
    };
    for (format, says) in [
        (
            "zip",
            "takes 25 MiB, and there are 3 MiB free; use --format gz, or another folder",
        ),
        (
            "xz",
            "has 3 MiB free; set TMPDIR to a folder with more room, or take the same image",
        ),
    ] {
        let file = packed(dir.path(), modern(), format);
        let taken = take(&sys, &file, &raw, &quiet).map(drop);
        let message = format!("{:#}", taken.unwrap_err());
        assert!(message.contains(says), "{message}");
        assert!(!dir.path().join("os.img").exists());
    }
}

#[test]
fn a_name_does_not_promise_what_is_not_in_the_file() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    for end in ["xz", "bz2", "zip", "XZ", "zstd"] {
        let name = format!("os.img.{end}");
        let said = extract(dir.path(), &["--img", &name, &file]);
        let end = end.to_lowercase();
        let says =
            format!("{name} looks like {end}, but the OS image is written as gz, zst or raw");
        assert_eq!(said.code, 2);
        assert!(said.err.contains(&says), "{}", said.err);
    }
    extracted(
        dir.path(),
        &["--img", "os.img.xz", "--format", "zst", &file],
    );
    extracted(dir.path(), &["--img", "os.ZST", &file]);
    for name in ["os.img.xz", "os.ZST"] {
        let packed = fs::read(dir.path().join(name)).unwrap();
        assert!(run("zstd", &["-dc"], &packed) == modern_os(), "{name}");
    }
}

#[test]
fn what_can_not_be_done_in_the_end_is_told_at_the_start() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    fs::create_dir(dir.path().join("out")).unwrap();
    fs::write(dir.path().join("out/checksums.sha256"), b"\xff\n").unwrap();
    let says = "out/checksums.sha256 can't be read: stream did not contain valid UTF-8; make it anew with \
                `balena-migrate checksums`, or remove it";
    // Not even looked at.
    for args in [
        &["--img", "out/os.gz", "missing"][..],
        &["--out-dir", "out", "missing"],
        &["--config", "out/x.conf", "missing"],
    ] {
        refused(dir.path(), args, says);
    }
    for args in [
        &["--out-dir", "a/b", "missing"],
        &["--out-dir", "a/b/", "missing"],
    ] {
        refused(dir.path(), args, "/a/; make it, or name another one");
    }
    // A folder for what does not come is not left.
    let damaged = fs::read(&file).unwrap();
    fs::write(&file, &damaged[..damaged.len() - MIB]).unwrap();
    refused(
        dir.path(),
        &["--out-dir", "new", &file],
        "Could not find EOCD",
    );
    let mut flipped = damaged;
    let at = flipped.len() - MIB / 2;
    flipped[at] ^= 0xff;
    fs::write(&file, &flipped).unwrap();
    let before = tree(dir.path());
    assert_eq!(extract(dir.path(), &["--out-dir", "new", &file]).code, 1);
    assert!(tree(dir.path()) == before);
}

#[test]
fn a_small_file_of_a_damaged_download_is_not_written() {
    let dir = tempdir().unwrap();
    let flasher = Flasher {
        boot: vec![
            ("balena-image-flasher", Vec::new()),
            ("config.json", b"{}".to_vec()),
        ],
        ..Flasher::modern(vec![(PAYLOAD, modern_os().to_vec())])
    };
    for format in ["zip", "gz"] {
        let file = packed(dir.path(), &flasher.build(), format);
        let mut damaged = fs::read(&file).unwrap();
        let at = damaged.len() - MIB / 2;
        damaged[at] ^= 0xff;
        fs::write(&file, &damaged).unwrap();
        let said = extract(dir.path(), &["--balena-cfg", "config.json", &file]);
        assert_eq!(said.code, 1, "{format}");
        assert!(said.err.contains("stream is damaged: "), "{}", said.err);
        assert!(!dir.path().join("config.json").exists());
        assert_eq!(extract(dir.path(), &["--balena-cfg", "-", &file]).out, b"");
    }
}
