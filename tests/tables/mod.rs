//! Disks with a partition table, as sfdisk makes it.

use std::io::Write;
use std::process::{Command, Stdio};

/// A disk of 8 MiB with the table that sfdisk makes of `script`.
pub fn disk(script: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(8 << 20).unwrap();
    let mut sfdisk = Command::new("/usr/sbin/sfdisk")
        .arg("-q")
        .arg(file.path())
        .stdin(Stdio::piped())
        .spawn()
        .expect("starting sfdisk");
    let mut input = sfdisk.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    assert!(sfdisk.wait().unwrap().success());
    std::fs::read(file.path()).unwrap()
}
