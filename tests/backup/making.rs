//! The making of an archive: sources that change, sinks that fail, order and size.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use balena_migrate::backup::walk::NoteKind;
use balena_migrate::backup::{archive, gzip::gzip, survey};
use balena_migrate::sys::Sys;

use crate::workshop::*;

/// Changes a file in the middle of its reading, by way of the progress callback.
fn notes_when(change: impl Fn(&Path)) -> (Vec<NoteKind>, usize) {
    let home = folder();
    let file = put(home.path(), "v/log", vec![7; 600 << 10]);
    let volumes = define(home.path(), "- volume: v\n  content:\n  - source: v\n");
    let mut packed = Vec::new();
    let mut changed = false;
    let notes = archive::write(&Sys::new("/"), &volumes, &[], &mut packed, &mut |_| {
        if !std::mem::replace(&mut changed, true) {
            change(&file);
        }
    })
    .unwrap();
    let target = unpacked(&packed);
    let bytes = fs::metadata(target.path().join("backup/v/log"))
        .unwrap()
        .len();
    (kinds(&notes), bytes as usize)
}

#[test]
fn a_file_that_changes_while_it_is_read_is_said_and_the_archive_stays_sound() {
    let append = |path: &Path| {
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"more").unwrap();
    };
    let cut = |path: &Path| {
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(100)
            .unwrap();
    };
    let touch = |path: &Path| set_time(path, 1);
    for change in [&append as &dyn Fn(&Path), &cut, &touch] {
        assert_eq!(notes_when(change), (vec![NoteKind::Changed], 600 << 10));
    }
    let nothing = |_: &Path| ();
    assert_eq!(notes_when(nothing), (vec![], 600 << 10));
}

#[test]
fn the_backup_does_not_go_into_itself() {
    let home = folder();
    put(home.path(), "v/backup.tgz", "of an earlier day");
    put(home.path(), "v/.backup.tgz.balena-migrate-new", "growing");
    put(home.path(), "v/data", "");
    let sys = Sys::new("/");
    let own = survey::own_files(&sys, home.path().join("v/backup.tgz").to_str().unwrap());
    let volumes = define(home.path(), "- volume: v\n  content:\n  - source: v\n");
    let mut packed = Vec::new();
    let notes = archive::write(&sys, &volumes, &own, &mut packed, &mut |_| ()).unwrap();
    assert_eq!(kinds(&notes), [NoteKind::Itself; 2]);
    let target = unpacked(&packed);
    assert_eq!(names(&target.path().join("backup")), ["v", "v/data"]);
}

#[test]
fn many_files_come_in_order_and_one_member_follows_the_other() {
    let home = folder();
    for number in 0..5000 {
        put(
            home.path(),
            format!("v/{}/{number}", number % 50),
            format!("{number}").repeat(200),
        );
    }
    let text = "- volume: v\n  content:\n  - source: v\n";
    let (packed, notes) = archived(&define(home.path(), text));
    assert_eq!(notes, []);
    let target = unpacked(&packed);
    assert_eq!(tree(&home.path().join("v")).len(), 5050);
    assert!(tree(home.path()) == tree(&target.path().join("backup")));
    let (again, _) = archived(&define(home.path(), text));
    assert!(packed == again, "the same files make the same archive");
    assert!(
        packed.len() as u64
            <= survey::survey(&Sys::new("/"), &define(home.path(), text), &[])
                .size
                .packed
    );
}

#[test]
fn gzip_takes_the_members_for_one_stream() {
    for bytes in [0_usize, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 40 << 20] {
        let content: Vec<u8> = (0..bytes).map(|n| ((n * 31) >> 9) as u8).collect();
        let mut gzip = gzip(Vec::new()).unwrap();
        gzip.write_all(&content).unwrap();
        let packed = gzip.finish().unwrap();
        let target = folder();
        let file = put(target.path(), "x.gz", packed);
        let done = Command::new("gzip").arg("-d").arg(file).output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty());
        assert!(
            fs::read(target.path().join("x")).unwrap() == content,
            "{bytes}"
        );
    }
}

#[test]
fn a_sink_that_fails_ends_the_archive_with_its_reason() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(1)
                .ok_or_else(|| std::io::Error::other("no room"))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let home = folder();
    put(home.path(), "v/large", vec![1; 30 << 20]);
    let volumes = define(home.path(), "- volume: v\n  content:\n  - source: v\n");
    for good in [0, 1, 20] {
        let error = archive::write(&Sys::new("/"), &volumes, &[], Full(good), &mut |_| ());
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("no room"), "{error}");
    }
}
