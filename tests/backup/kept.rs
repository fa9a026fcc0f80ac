//! What of a file is in the archive, by the two programs that unpack it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use balena_migrate::backup::survey;
use balena_migrate::backup::walk::NoteKind;
use balena_migrate::sys::Sys;

use crate::workshop::*;

/// A folder with everything that a name, a mode, an owner and a time can be.
fn odd_tree(at: &Path) {
    let put = |name: &OsStr, content: &[u8]| put(at, name, content);
    for name in [
        "plain".into(),
        "with blank".into(),
        "-rf".into(),
        "line\nbreak\ttab".into(),
        "back\\slash'\"quote".into(),
        "ünïcode".into(),
        "x".repeat(99),
        "y".repeat(100),
        "z".repeat(101),
        "w".repeat(255),
        format!(
            "{}/{}/{}",
            "d".repeat(200),
            "e".repeat(200),
            "f".repeat(200)
        ),
    ] {
        put(OsStr::new(&name), name.as_bytes());
    }
    put(OsStr::from_bytes(b"latin1-\xe4\xff"), b"not UTF-8");
    put(OsStr::new("empty"), b"");
    for (bytes, name) in [(511, "511"), (512, "512"), (513, "513"), (3 << 20, "3 MiB")] {
        let content: Vec<u8> = (0..bytes)
            .map(|n: u32| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        put(OsStr::new(name), &content);
    }
    fs::create_dir(at.join("empty folder")).unwrap();
    for mode in [0o000, 0o400, 0o644, 0o755, 0o1777, 0o2755, 0o4755, 0o6711] {
        let path = put(OsStr::new(&format!("mode-{mode:o}")), b"");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let private = at.join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o2700)).unwrap();
    for id in [1, 1000, 2_097_151, 2_097_152, 4_294_967_294] {
        chown(
            put(OsStr::new(&format!("owner-{id}")), b""),
            Some(id),
            Some(id - 1),
        )
        .unwrap();
    }
    set_time(&private, 1_000_000_000);
    set_time(at, 1_111_111_111);
}

#[test]
fn gnu_tar_gets_back_names_bytes_modes_owners_and_times() {
    let home = folder();
    odd_tree(&home.path().join("v"));
    let (target, notes) = made(home.path(), "- volume: v\n  content:\n  - source: v\n");
    assert_eq!(notes, []);
    let (was, is) = (tree(home.path()), tree(&target.path().join("backup")));
    assert!(was.len() > 30);
    for (name, what) in &was {
        assert_eq!(is.get(name), Some(what), "{name:?}");
    }
    assert_eq!(is.len(), was.len());
}

/// The tar of balenaOS' supervisor, as long as its image is built on Alpine.
#[test]
fn busybox_tar_gets_back_the_same() {
    let home = folder();
    odd_tree(&home.path().join("v"));
    put(home.path(), "v/twin", "twin");
    fs::hard_link(home.path().join("v/twin"), home.path().join("v/twin2")).unwrap();
    symlink("nowhere/".repeat(40), home.path().join("v/dangling")).unwrap();
    let (packed, _) = archived(&define(
        home.path(),
        "- volume: v\n  content:\n  - source: v\n",
    ));
    let target = unpacked_by(&["busybox", "tar"], &packed, &[]);
    let (mut was, mut is) = (tree(home.path()), tree(&target.path().join("backup")));
    // It does not set the times of links, and those of folders before it fills them.
    for what in was.values_mut().chain(is.values_mut()) {
        if what.0 & 0o170_000 != 0o100_000 {
            what.3 = 0;
        }
    }
    for (name, what) in &was {
        assert_eq!(is.get(name), Some(what), "{name:?}");
    }
    assert_eq!(is.len(), was.len());
    let twin = fs::metadata(target.path().join("backup/v/twin")).unwrap();
    assert_eq!(twin.nlink(), 2);
}

#[test]
fn times_before_1970_and_after_2242_come_back() {
    let home = folder();
    // Eleven octal digits end in 2242.
    for seconds in [-3600, -1, 0, 8_589_934_591, 8_589_934_592, 10_413_792_000] {
        set_time(&put(home.path(), format!("v/at{seconds}"), ""), seconds);
    }
    let text = "- volume: v\n  content:\n  - source: v\n";
    let (packed, _) = archived(&define(home.path(), text));
    let target = unpacked_by(&["tar"], &packed, &["--warning=no-timestamp"]);
    assert_eq!(tree(&target.path().join("backup")), tree(home.path()));
}

#[test]
fn extended_attributes_are_there_for_who_asks() {
    let home = folder();
    let file = put(home.path(), "v/file", "x");
    xattr::set(&file, "user.colour", b"blue\n=\0\xff").unwrap();
    xattr::set(&file, "user.long", &[b'l'; 900]).unwrap();
    xattr::set(home.path().join("v"), "user.folder", b"yes").unwrap();
    let text = "- volume: v\n  content:\n  - source: v\n";
    let (packed, notes) = archived(&define(home.path(), text));
    assert_eq!(notes, []);
    let target = unpacked_by(&["tar"], &packed, &["--xattrs", "--xattrs-include=*"]);
    let got = |path: &str, name: &str| {
        xattr::get(target.path().join("backup").join(path), name)
            .unwrap()
            .unwrap()
    };
    assert_eq!(got("v/file", "user.colour"), b"blue\n=\0\xff");
    assert_eq!(got("v/file", "user.long"), [b'l'; 900]);
    assert_eq!(got("v", "user.folder"), b"yes");
}

/// BusyBox says a word about each, and the supervisor kills a tar that talks too much.
#[test]
fn extended_attributes_of_very_many_files_are_left_out_and_that_is_said() {
    let home = folder();
    for number in 0..1010 {
        let file = put(home.path(), format!("v/{number}"), "");
        xattr::set(&file, "user.a", b"b").unwrap();
        xattr::set(&file, "security.selinux", b"system_u:object_r:etc_t:s0").unwrap();
    }
    let text = "- volume: v\n  content:\n  - source: v\n";
    let (packed, notes) = archived(&define(home.path(), text));
    assert_eq!(kinds(&notes), [NoteKind::XattrsDropped; 10]);
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(packed.as_slice()));
    let mut records = 0;
    for entry in archive.entries().unwrap() {
        for record in entry
            .unwrap()
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
        {
            assert_eq!(record.unwrap().key(), Ok("SCHILY.xattr.user.a"));
            records += 1;
        }
    }
    assert_eq!(records, 1000);
}

#[test]
fn hard_links_stay_one_file_within_a_volume_and_become_two_in_two() {
    let home = folder();
    let long = format!("v/{}", "a".repeat(150));
    put(home.path(), &long, "one file");
    fs::hard_link(home.path().join(&long), home.path().join("v/b")).unwrap();
    let text = "- volume: v\n  content:\n  - source: v\n- volume: w\n  content:\n  - source: v\n";
    let (target, notes) = made(home.path(), text);
    assert_eq!(notes, []);
    let ino = |name: &str| {
        fs::metadata(target.path().join("backup").join(name))
            .unwrap()
            .ino()
    };
    assert_eq!(ino(&long), ino("v/b"));
    assert_eq!(ino("w/b"), ino(&long.replacen('v', "w", 1)));
    assert_ne!(ino("v/b"), ino("w/b"));
    assert_eq!(
        fs::read(target.path().join("backup/w/b")).unwrap(),
        b"one file"
    );
}

/// BusyBox would leave out what GNU calls a sparse file, so its holes are zeros in the archive.
#[test]
fn a_sparse_file_comes_whole_and_packs_small() {
    let home = folder();
    let path = put(home.path(), "v/sparse", "head");
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(70 << 20)).unwrap();
    file.write_all(b"tail").unwrap();
    file.set_len(80 << 20).unwrap();
    drop(file);
    let text = "- volume: v\n  content:\n  - source: v\n";
    let survey = survey::survey(&Sys::new("/"), &define(home.path(), text), &[]);
    assert_eq!(survey.size.unpacked, 80 << 20);
    assert!(survey.size.packed < 1 << 20, "{:?}", survey.size);
    let (packed, _) = archived(&define(home.path(), text));
    assert!(packed.len() < 200_000, "{}", packed.len());
    for tar in [&["tar"][..], &["busybox", "tar"]] {
        let target = unpacked_by(tar, &packed, &[]);
        let same =
            fs::read(target.path().join("backup/v/sparse")).unwrap() == fs::read(&path).unwrap();
        assert!(same, "{tar:?}");
    }
}

#[test]
fn links_are_followed_and_those_without_an_end_stay_links() {
    let home = folder();
    put(home.path(), "elsewhere/file", "content");
    put(home.path(), "v/plain", "plain");
    let v = home.path().join("v");
    symlink("../elsewhere", v.join("to-folder")).unwrap();
    symlink("../elsewhere/file", v.join("to-file")).unwrap();
    symlink(home.path().join("elsewhere/file"), v.join("absolute")).unwrap();
    symlink("gone", v.join("dangling")).unwrap();
    symlink("self", v.join("self")).unwrap();
    symlink("..", home.path().join("elsewhere/up")).unwrap();
    symlink(".", v.join("here")).unwrap();
    let text = "- volume: v\n  content:\n  - source: v\n";
    let (target, mut notes) = made(home.path(), text);
    let v = target.path().join("backup/v");
    for name in ["to-file", "absolute", "to-folder/file"] {
        let path = v.join(name);
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{name}");
        assert_eq!(fs::read(path).unwrap(), b"content", "{name}");
    }
    assert!(fs::symlink_metadata(v.join("to-folder")).unwrap().is_dir());
    for (name, leads_to) in [("dangling", "gone"), ("self", "self"), ("here", ".")] {
        assert_eq!(
            fs::read_link(v.join(name)).unwrap(),
            Path::new(leads_to),
            "{name}"
        );
    }
    notes.sort_by(|a, b| a.path.cmp(&b.path));
    let notes: Vec<String> = notes
        .iter()
        .map(|note| note.to_string().replace(home.path().to_str().unwrap(), "~"))
        .collect();
    let circle = "links that lead in a circle stay links in the backup: ~/v/";
    assert!(notes.contains(&format!("{circle}here")), "{notes:#?}");
    assert!(notes.contains(&format!("{circle}self")), "{notes:#?}");
    let around = "folders are left out where they would come inside themselves: ~/v/to-folder/up/v";
    assert!(notes.contains(&around.into()), "{notes:#?}");
    assert!(
        notes.contains(&"links that lead nowhere stay links in the backup: ~/v/dangling".into()),
        "{notes:#?}"
    );
    // Before anything is done, the survey says the same.
    let said = surveyed(home.path(), text);
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(
        said.iter()
            .all(|line| line.starts_with("warning backup-content: b.yml:3: "))
    );
}

#[test]
fn sockets_are_left_out_pipes_are_kept_and_nothing_waits_for_them() {
    let home = folder();
    put(home.path(), "v/file", "x");
    let _listening = UnixListener::bind(home.path().join("v/socket")).unwrap();
    let pipe = home.path().join("v/pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let (target, notes) = made(home.path(), "- volume: v\n  content:\n  - source: v\n");
    assert_eq!(
        names(&target.path().join("backup")),
        ["v", "v/file", "v/pipe"]
    );
    assert_eq!(kinds(&notes), [NoteKind::Special]);
    let device = "- volume: v\n  content:\n  - source: /dev/null\n";
    assert_eq!(
        surveyed(home.path(), device),
        [
            "error backup-source: b.yml:3: the source /dev/null is neither a file nor a folder; take it out of the backup"
        ]
    );
}
