//! Real file systems in memory, made and read by the tools of the distribution.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use balena_migrate::superblock::Superblock;
use tempfile::TempDir;

/// Bytes that look like nothing and compress badly.
pub fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

/// A folder for a test, in memory where there is a place for it: fsync is slow on disks.
pub fn scratch() -> TempDir {
    let shm = Path::new("/dev/shm");
    match shm.is_dir() {
        true => tempfile::tempdir_in(shm),
        false => tempfile::tempdir(),
    }
    .unwrap()
}

fn tool(program: &str, args: &[&str]) {
    // With its whole path, std need not copy this process and its memory to start it.
    let folders = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let mut paths = folders.iter().map(|folder| Path::new(folder).join(program));
    let path = paths.find(|path| path.exists());
    let output = Command::new(path.unwrap_or_else(|| panic!("there is no {program}")))
        .args(args)
        .env("MTOOLS_SKIP_CHECK", "1")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

/// The bytes of a file system of `len` bytes with the files of `dir`.
pub fn pack(dir: &Path, like: &Superblock, len: u64) -> Vec<u8> {
    let scratch = scratch();
    let path = scratch.path().join("fs");
    File::create(&path).unwrap().set_len(len).unwrap();
    let (path, dir_text) = (path.to_str().unwrap(), dir.to_str().unwrap());
    let label = like.label.as_str();
    if like.fs_type == "vfat" {
        let id = like.uuid.replace('-', "");
        tool("mkfs.vfat", &["-n", label, "-i", &id, path]);
        let entries = fs::read_dir(dir).unwrap();
        let entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        let entries = entries.iter().map(|entry| entry.to_str().unwrap());
        let args = ["-s", "-i", path].into_iter().chain(entries).chain(["::/"]);
        tool("mcopy", &args.collect::<Vec<_>>());
    } else {
        let options = ["-q", "-F", "-O", "^has_journal", "-U", &like.uuid, "-L"];
        let options = options.into_iter().chain([label, "-d", dir_text, path]);
        tool("mkfs.ext4", &options.collect::<Vec<_>>());
    }
    fs::read(path).unwrap()
}

/// Puts the files of a file system into `dir`.
pub fn unpack(bytes: &[u8], fs_type: &str, dir: &Path) {
    let scratch = scratch();
    let path = scratch.path().join("fs");
    fs::write(&path, bytes).unwrap();
    let (path, dir) = (path.to_str().unwrap(), dir.to_str().unwrap());
    match fs_type {
        "vfat" => tool("mcopy", &["-s", "-n", "-i", path, "::*", dir]),
        _ => tool("debugfs", &["-R", &format!("rdump / {dir}"), path]),
    }
}

/// What a file system is to say of itself.
pub fn label(fs_type: &'static str, uuid: &str, label: &str) -> Superblock {
    Superblock {
        fs_type,
        uuid: uuid.to_owned(),
        label: label.to_owned(),
    }
}
