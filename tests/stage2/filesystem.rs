//! Real file systems in memory, made and read by the tools of the distribution.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use balena_migrate::superblock::Superblock;

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

fn tool(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .env("MTOOLS_SKIP_CHECK", "1")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

/// The bytes of a file system of `len` bytes with the files of `dir`.
pub fn pack(dir: &Path, like: &Superblock, len: u64) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    let (path, dir_text) = (file.path().to_str().unwrap(), dir.to_str().unwrap());
    if like.fs_type == "vfat" {
        let id = like.uuid.replace('-', "");
        tool("mkfs.vfat", &["-n", &like.label, "-i", &id, path]);
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap().path();
            tool("mcopy", &["-s", "-i", path, entry.to_str().unwrap(), "::/"]);
        }
    } else {
        let (uuid, label) = (like.uuid.as_str(), like.label.as_str());
        let options = ["-q", "-F", "-O", "^has_journal", "-U", uuid, "-L", label];
        let options: Vec<&str> = options.into_iter().chain(["-d", dir_text, path]).collect();
        tool("mkfs.ext4", &options);
    }
    fs::read(file.path()).unwrap()
}

/// Puts the files of a file system into `dir`.
pub fn unpack(bytes: &[u8], fs_type: &str, dir: &Path) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let (path, dir) = (file.path().to_str().unwrap(), dir.to_str().unwrap());
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
