//! Archives that others made: which balenaOS would take, and what is said of the others.

use std::fs;

use balena_migrate::backup::inspect;
use balena_migrate::sys::Sys;

use crate::workshop::*;

/// An archive of these entries: kind, name.
fn foreign(entries: &[(tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    for (kind, name) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(0);
        if *kind == tar::EntryType::GNUSparse {
            header.as_gnu_mut().unwrap().realsize = *b"00000000000\0";
        }
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[test]
fn a_foreign_backup_is_refused_with_the_name_of_the_offender() {
    use tar::EntryType::{Directory as Dir, GNUSparse, Regular as Reg, Symlink as Link};
    let name = "is no name of a volume: those are of letters, digits, `_`, `.` and `-`, and begin \
                with a letter or a digit";
    let lost = format!("`lost+found` {name}");
    let blank = format!("`my data` {name}");
    let hidden = format!("`.cache` {name}");
    /// What is in the archive, and what is said of it.
    type Row<'a> = (Vec<(tar::EntryType, &'a str)>, Vec<&'a str>);
    let cases: Vec<Row> = vec![
        (vec![(Dir, "v/"), (Reg, "v/a"), (Dir, "w")], vec![]),
        (vec![(Reg, "v/a")], vec![]),
        (vec![(Dir, "./"), (Dir, "./v/"), (Reg, "./v/a")], vec![]),
        (
            vec![(Dir, "v/"), (Reg, "notes.txt")],
            vec!["`notes.txt` is no folder, and at the top level"],
        ),
        (
            vec![(Reg, "./notes.txt")],
            vec!["`./notes.txt` is no folder, and at the top level"],
        ),
        (
            vec![(Link, "v")],
            vec!["`v` is no folder, and at the top level"],
        ),
        (
            vec![(Reg, "/etc/passwd")],
            vec!["`/etc/passwd` is an absolute path"],
        ),
        (
            vec![(Dir, "v/"), (Reg, "v/../../etc/x")],
            vec!["`v/../../etc/x` has `..` in it"],
        ),
        (
            vec![(Dir, "lost+found/"), (Reg, "lost+found/x")],
            vec![&lost],
        ),
        (vec![(Dir, "my data/")], vec![&blank]),
        (vec![(Dir, "./.cache/")], vec![&hidden]),
        (
            vec![(GNUSparse, "v/disk")],
            vec!["`v/disk` is a sparse file, which its tar leaves out; make it without --sparse"],
        ),
    ];
    for (entries, expected) in cases {
        let contents = inspect::inspect(foreign(&entries).as_slice()).unwrap();
        assert_eq!(contents.refused, expected, "{entries:?}");
        assert_eq!(
            contents.dotted,
            entries[0].1.starts_with("./"),
            "{entries:?}"
        );
    }
}

#[test]
fn a_damaged_backup_is_refused() {
    let home = folder();
    let noise: Vec<u8> = (0..2_000_000_u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    put(home.path(), "v/x", noise);
    let (packed, _) = archived(&define(
        home.path(),
        "- volume: v\n  content:\n  - source: v\n",
    ));
    let path = home.path().join("backup.tgz");
    let path = path.to_str().unwrap();
    let finding = |bytes: &[u8]| {
        fs::write(path, bytes).unwrap();
        said(&inspect::existing(&Sys::new("/"), path), home.path())
    };
    assert_eq!(finding(&packed), [""; 0]);
    let mut broken = packed.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 0x10;
    let mut last = packed.clone();
    let crc = last.len() - 6;
    last[crc] ^= 1;
    let trailing = [packed.as_slice(), b"garbage"].concat();
    for (bad, how) in [
        (&packed[..packed.len() - 1], "cut at the end"),
        (&packed[..1000], "cut early"),
        (&broken, "a bit turned"),
        (&last, "a wrong check sum"),
        (&trailing, "garbage after it"),
        (b"no gzip at all", "no gzip"),
        (b"", "empty"),
    ] {
        let said = finding(bad);
        assert_eq!(said.len(), 1, "{how}: {said:?}");
        assert!(
            said[0].starts_with("error backup-archive: the backup ~/backup.tgz can't be used: "),
            "{how}: {said:?}"
        );
    }
}

#[test]
fn an_existing_backup_with_many_faults_names_some() {
    let home = folder();
    let entries: Vec<(tar::EntryType, String)> = (0..9)
        .map(|number| (tar::EntryType::Regular, format!("f{number}")))
        .collect();
    let entries: Vec<(tar::EntryType, &str)> = entries
        .iter()
        .map(|(kind, name)| (*kind, name.as_str()))
        .collect();
    let path = put(home.path(), "backup.tgz", foreign(&entries));
    let said = said(
        &inspect::existing(&Sys::new("/"), path.to_str().unwrap()),
        home.path(),
    );
    assert_eq!(said.len(), 6);
    assert_eq!(
        said[0],
        "error backup-archive: balenaOS would not take ~/backup.tgz: `f0` is no folder, and at the top level; make it anew: at its top there may be folders only, each with the name of a volume"
    );
    assert!(said[5].contains("4 more like these"), "{}", said[5]);
}
