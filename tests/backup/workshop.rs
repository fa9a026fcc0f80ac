//! Sources, archives and what is unpacked from them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use balena_migrate::backup::walk::{Note, NoteKind};
use balena_migrate::backup::{Volume, archive, definition, inspect, survey};
use balena_migrate::finding::Finding;
use balena_migrate::sys::Sys;

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

pub fn put(folder: &Path, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

/// The volumes of a definition without fault; relative sources are in `home`.
#[track_caller]
pub fn define(home: &Path, text: &str) -> Vec<Volume> {
    let (volumes, findings) = definition::parse("b.yml", text, home.to_str().unwrap());
    assert!(findings.is_empty(), "{findings:#?}");
    volumes
}

/// What the survey says of a definition.
pub fn surveyed(home: &Path, text: &str) -> Vec<String> {
    let survey = survey::survey(&Sys::new("/"), &define(home, text), &[]);
    said(&survey.findings, home)
}

pub fn said(findings: &[Finding], home: &Path) -> Vec<String> {
    let line = |finding: &Finding| {
        format!("{} {}: {finding}", finding.severity, finding.code)
            .replace(home.to_str().unwrap(), "~")
    };
    findings.iter().map(line).collect()
}

#[track_caller]
pub fn archived(volumes: &[Volume]) -> (Vec<u8>, Vec<Note>) {
    let mut packed = Vec::new();
    let sys = Sys::new("/");
    let notes = archive::write(&sys, volumes, &[], &mut packed, &mut |_| ()).unwrap();
    (packed, notes)
}

/// Unpacks as the supervisor does, with a tar that must not have a word to say about it.
#[track_caller]
pub fn unpacked_by(tar: &[&str], packed: &[u8], options: &[&str]) -> tempfile::TempDir {
    let target = folder();
    let file = put(target.path(), "backup.tgz", packed);
    let out = target.path().join("backup");
    fs::create_dir(&out).unwrap();
    let done = Command::new(tar[0])
        .args(&tar[1..])
        .args(options)
        .args(["-xzf", "backup.tgz", "-C", "backup"])
        .current_dir(target.path())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && complaint.is_empty(), "{complaint}");
    fs::remove_file(file).unwrap();
    target
}

#[track_caller]
pub fn unpacked(packed: &[u8]) -> tempfile::TempDir {
    let target = unpacked_by(&["tar"], packed, &[]);
    let contents = inspect::inspect(packed).unwrap();
    assert_eq!(contents.refused, Vec::<String>::new());
    assert!(!contents.dotted);
    target
}

#[track_caller]
pub fn made(home: &Path, text: &str) -> (tempfile::TempDir, Vec<Note>) {
    let (packed, notes) = archived(&define(home, text));
    (unpacked(&packed), notes)
}

/// Mode, owner, group, seconds of the time, and content of all that is in a folder.
pub type Tree = BTreeMap<OsString, (u32, u32, u32, i64, Vec<u8>)>;

pub fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match () {
                () if meta.is_file() => fs::read(&path).unwrap(),
                () if meta.is_symlink() => {
                    fs::read_link(&path).unwrap().into_os_string().into_vec()
                }
                () => Vec::new(),
            };
            let name = path.strip_prefix(root).unwrap().as_os_str().to_owned();
            let what = (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), content);
            tree.insert(name, what);
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    tree
}

pub fn names(root: &Path) -> Vec<String> {
    let names = tree(root).into_keys();
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

pub fn kinds(notes: &[Note]) -> Vec<NoteKind> {
    notes.iter().map(|note| note.kind).collect()
}

pub fn set_time(path: &Path, seconds: i64) {
    let offset = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH - offset,
        false => SystemTime::UNIX_EPOCH + offset,
    };
    File::open(path).unwrap().set_modified(time).unwrap();
}
