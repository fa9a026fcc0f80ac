//! Looks at a disk from outside, and changes files on it, without mounting anything.
//!
//! Only for machines that are off: the guest's kernel would not see the change, or be broken by it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::tool;

/// A disk image; not longer than the machine that it belongs to, whose end removes it.
pub struct Disk<'machine> {
    path: &'machine Path,
}

/// Where a partition lies, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    pub number: u32,
    pub start: u64,
    pub size: u64,
}

impl<'machine> Disk<'machine> {
    pub fn new(path: &'machine Path) -> Self {
        Disk { path }
    }

    /// Its partitions as sfdisk reads them.
    pub fn partitions(&self) -> Vec<Partition> {
        let text = tool::run(Command::new("sfdisk").arg("--json").arg(self.path));
        let table: Value = serde_json::from_str(&text).expect("sfdisk --json writes JSON");
        let entries = table["partitiontable"]["partitions"].as_array();
        entries
            .expect("sfdisk lists partitions")
            .iter()
            .map(|entry| Partition {
                number: trailing_number(entry["node"].as_str().unwrap_or_default()),
                start: entry["start"].as_u64().expect("a start") * 512,
                size: entry["size"].as_u64().expect("a size") * 512,
            })
            .collect()
    }

    /// Partition `number`.
    #[track_caller]
    pub fn partition(&self, number: u32) -> Partition {
        let all = self.partitions();
        let found = all.iter().find(|p| p.number == number);
        *found
            .unwrap_or_else(|| panic!("{} has no partition {number}: {all:?}", self.path.display()))
    }

    /// Its bytes from `start` on.
    #[track_caller]
    pub fn bytes(&self, start: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(length).expect("fits the address space")];
        File::open(self.path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(start))?;
                file.read_exact(&mut bytes)
            })
            .unwrap_or_else(|e| panic!("reading {} at {start}: {e}", self.path.display()));
        bytes
    }

    /// The SHA-256 of a partition's bytes.
    #[track_caller]
    pub fn partition_sha256(&self, number: u32) -> String {
        let Partition { start, size, .. } = self.partition(number);
        // By the host's tool: sha2 takes long when it is built without optimisation.
        let said = tool::run(
            Command::new("sh")
                .args(["-c", "tail -c +$2 \"$1\" | head -c $3 | sha256sum", "sh"])
                .arg(self.path)
                .args([(start + 1).to_string(), size.to_string()]),
        );
        said[..64].to_owned()
    }

    /// The content of a file on a disk that is one ext4 file system, or None.
    #[track_caller]
    pub fn whole_ext4_file(&self, path: &str) -> Option<Vec<u8>> {
        self.ext4_file_at(0, path)
    }

    /// The content of a file on an ext4 partition, or None when there is no such file.
    #[track_caller]
    pub fn ext4_file(&self, partition: u32, path: &str) -> Option<Vec<u8>> {
        self.ext4_file_at(self.partition(partition).start, path)
    }

    fn ext4_file_at(&self, offset: u64, path: &str) -> Option<Vec<u8>> {
        assert!(self.path.is_file(), "{} is no disk", self.path.display());
        // debugfs exits with 0 whatever happens: stat tells whether the file is there.
        let stat = self.debugfs(offset, &format!("stat {path}"), false);
        if !String::from_utf8_lossy(&stat).contains("Inode:") {
            return None;
        }
        Some(self.debugfs(offset, &format!("cat {path}"), false))
    }

    /// Puts `content` in the place of a file on an ext4 partition, or makes the file.
    #[track_caller]
    pub fn write_ext4_file(&self, partition: u32, path: &str, content: &[u8]) {
        let temporary = tempfile::NamedTempFile::new().expect("making a temporary file");
        std::fs::write(temporary.path(), content).expect("writing a temporary file");
        let offset = self.partition(partition).start;
        if self.ext4_file_at(offset, path).is_some() {
            self.debugfs(offset, &format!("rm {path}"), true);
        }
        let source = temporary.path().display();
        self.debugfs(offset, &format!("write {source} {path}"), true);
        let now = self.ext4_file_at(offset, path);
        assert!(
            now.as_deref() == Some(content),
            "debugfs has not written {path}"
        );
    }

    /// The content of a file on a FAT partition, or None when there is no such file.
    #[track_caller]
    pub fn fat_file(&self, partition: u32, path: &str) -> Option<Vec<u8>> {
        let image = format!(
            "{}@@{}",
            self.path.display(),
            self.partition(partition).start
        );
        let output = Command::new("mtype")
            .args(["-i", &image])
            .arg(format!("::{path}"))
            .env("MTOOLS_SKIP_CHECK", "1")
            .output()
            .expect("starting mtype");
        output.status.success().then_some(output.stdout)
    }

    #[track_caller]
    fn debugfs(&self, offset: u64, request: &str, write: bool) -> Vec<u8> {
        let mut command = Command::new("debugfs");
        if write {
            command.arg("-w");
        }
        command.args(["-R", request]);
        command.arg(format!("{}?offset={offset}", self.path.display()));
        tool::run_bytes(&mut command)
    }
}

fn trailing_number(text: &str) -> u32 {
    let digits = text.len() - text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    text[text.len() - digits..]
        .parse()
        .unwrap_or_else(|e| panic!("no partition number in {text}: {e}"))
}
