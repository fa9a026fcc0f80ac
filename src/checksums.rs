//! Lists of checksums in HOME_DIR: `checksums.sha256`, as `sha256sum` writes it, and the older tool's
//! `checksums.md5`. Stage 1 verifies what they name; `balena-migrate checksums` writes the first, and
//! `extract` keeps both true of what it writes.

mod line;

use std::collections::HashMap;
use std::io::{self, Read, Write};

use md5::Md5;
use sha2::{Digest, Sha256};

use line::{escape, line, parse, without_end};

use crate::finding::Finding;
use crate::payload::digest::hex;
use crate::payload::scan::Scan;
use crate::sys::Sys;
use crate::sys::files::temporary_name;
use crate::sys::put::Put;

/// The list that this program writes.
pub const SHA256_LIST: &str = "checksums.sha256";

/// The list of the older tool.
pub const MD5_LIST: &str = "checksums.md5";

/// Which checksum a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sha256,
    Md5,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Sha256 => "SHA-256",
            Kind::Md5 => "MD5",
        }
    }

    fn digits(self) -> usize {
        match self {
            Kind::Sha256 => 64,
            Kind::Md5 => 32,
        }
    }

    fn hash(self, file: impl Read) -> io::Result<String> {
        match self {
            Kind::Sha256 => hash::<Sha256>(file),
            Kind::Md5 => hash::<Md5>(file),
        }
    }
}

fn hash<D: Digest>(mut file: impl Read) -> io::Result<String> {
    let mut digest = D::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&digest.finalize())),
            Ok(read) => digest.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The lists of a folder, read and not yet verified.
pub struct Lists {
    lists: Vec<List>,
    findings: Vec<Finding>,
}

struct List {
    kind: Kind,
    path: String,
    entries: Vec<Entry>,
}

/// A file that a list names.
struct Entry {
    line: usize,
    path: String,
    sum: String,
}

impl Lists {
    /// Reads the lists of the folder `home` that are there.
    pub fn read(sys: &Sys, home: &str) -> Lists {
        let home = home.trim_end_matches('/');
        let mut read = Lists {
            lists: Vec::new(),
            findings: Vec::new(),
        };
        for (kind, name) in [(Kind::Sha256, SHA256_LIST), (Kind::Md5, MD5_LIST)] {
            let path = format!("{home}/{name}");
            match sys.read_text(&path) {
                Ok(text) => read.add(kind, home, path, &text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => read.findings.push(Finding::error(
                    "checksums",
                    format!("{path} can't be read: {error}"),
                    "make it anew with `balena-migrate checksums`, or remove it",
                )),
            }
        }
        read
    }

    fn add(&mut self, kind: Kind, home: &str, path: String, text: &str) {
        let mut entries = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((sum, name)) = parse(kind, line) else {
                self.findings
                    .push(unreadable(kind).at(format!("{path}:{number}")));
                continue;
            };
            let mut name = name.as_str();
            while let Some(shorter) = name.strip_prefix("./") {
                name = shorter.trim_start_matches('/');
            }
            let file = match name.starts_with('/') {
                true => name.to_owned(),
                false => format!("{home}/{name}"),
            };
            // `find … | xargs md5sum > checksums.md5` has the list in itself, as it was half made.
            if file != path {
                entries.push(Entry {
                    line: number,
                    path: file,
                    sum,
                });
            }
        }
        self.lists.push(List {
            kind,
            path,
            entries,
        });
    }

    /// Whether the MD5 of `file` is in a list: whoever reads it anyway can take it then.
    pub fn want_md5_of(&self, file: &str) -> bool {
        self.lists
            .iter()
            .filter(|list| list.kind == Kind::Md5)
            .any(|list| list.entries.iter().any(|entry| entry.path == file))
    }

    /// Compares all files that are named. The image was read already: its path and what was found.
    pub fn verify(self, sys: &Sys, image: Option<(&str, &Scan)>) -> Vec<Finding> {
        let mut findings = self.findings;
        for list in &self.lists {
            for entry in &list.entries {
                let known = image
                    .filter(|(path, _)| *path == entry.path)
                    .and_then(|(_, scan)| match list.kind {
                        Kind::Sha256 => Some(scan.file_sha256.clone()),
                        Kind::Md5 => scan.file_md5.clone(),
                    });
                let found = match known {
                    Some(sum) => Ok(sum),
                    None => hash_file(sys, list.kind, &entry.path),
                };
                let place = format!("{}:{}", list.path, entry.line);
                findings.extend(compare(list.kind, entry, found).map(|found| found.at(place)));
            }
        }
        findings
    }
}

fn hash_file(sys: &Sys, kind: Kind, path: &str) -> io::Result<String> {
    if sys.meta(path)?.is_dir {
        return Err(io::Error::other("it is a folder"));
    }
    kind.hash(sys.open(path)?)
}

fn compare(kind: Kind, entry: &Entry, found: io::Result<String>) -> Option<Finding> {
    let path = &entry.path;
    let what = match found {
        Ok(sum) if sum == entry.sum => return None,
        Ok(sum) => format!(
            "{path} is not the file of this list: its {} is {sum} instead of {}",
            kind.name(),
            entry.sum
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("{path} is missing"),
        Err(error) => format!("{path} can't be read: {error}"),
    };
    let remedy = match kind {
        Kind::Sha256 => {
            "copy it again; if it was changed on purpose, run `balena-migrate checksums`"
        }
        Kind::Md5 => "copy it again; if it was changed on purpose, remove the list or make it anew",
    };
    Some(Finding::error("checksums", what, remedy))
}

fn unreadable(kind: Kind) -> Finding {
    let program = match kind {
        Kind::Sha256 => "sha256sum",
        Kind::Md5 => "md5sum",
    };
    Finding::error(
        "checksums",
        format!("this line does not come from {program}"),
        "make the list anew with `balena-migrate checksums`, or remove it",
    )
}

/// Writes [`SHA256_LIST`] for all files below `home` and says how many they are.
pub fn write(sys: &Sys, home: &str) -> io::Result<usize> {
    let home = home.trim_end_matches('/');
    let list = format!("{home}/{SHA256_LIST}");
    let unfinished = temporary_name(&list);
    let mut text = String::new();
    let mut count = 0;
    for name in sys.files_below(home)? {
        let path = format!("{home}/{name}");
        if path == list || path == unfinished {
            continue;
        }
        let sum = hash_file(sys, Kind::Sha256, &path)
            .map_err(|error| io::Error::new(error.kind(), format!("reading {path}: {error}")))?;
        text.push_str(&line(&sum, &name));
        count += 1;
    }
    sys.write_whole(&list, text.as_bytes(), 0o644, None)?;
    Ok(count)
}

/// The lists of `folder` that are there can be read, so that they can be changed later.
pub fn check(sys: &Sys, folder: &str) -> io::Result<()> {
    for name in [SHA256_LIST, MD5_LIST] {
        let path = format!("{}/{name}", folder.trim_end_matches('/'));
        read_list(sys, &path)?;
    }
    Ok(())
}

/// The text of a list; none when it is not there.
fn read_list(sys: &Sys, path: &str) -> io::Result<Option<String>> {
    match sys.read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!(
                "{path} can't be read: {error}; make it anew with `balena-migrate checksums`, or \
                 remove it"
            ),
        )),
    }
}

/// Puts files of `folder`, each with its SHA-256, into its [`SHA256_LIST`]; what the list has on other
/// files stays. The first of them is the image, of so many bytes and with that SHA-256 when it is
/// unpacked.
pub fn note(
    sys: &Sys,
    folder: &str,
    files: &[(String, String)],
    unpacked: (u64, &str),
) -> io::Result<()> {
    let path = format!("{}/{SHA256_LIST}", folder.trim_end_matches('/'));
    let old = read_list(sys, &path)?.unwrap_or_default();
    write_list(sys, &path, &noted(&old, files, unpacked))
}

/// The text of a list with files in it, as [`note`] writes it.
pub fn noted(old: &str, files: &[(String, String)], (bytes, sha256): (u64, &str)) -> String {
    let image = files.first().map_or("", |(name, _)| name);
    let comment = format!("# {}, unpacked:", escape(image));
    let is_replaced = |line: &str| match line.starts_with('#') {
        true => line.starts_with(&comment),
        false => parse(Kind::Sha256, without_end(line)).is_some_and(|(_, name)| {
            let name = name.strip_prefix("./").unwrap_or(&name);
            files.iter().any(|(known, _)| known == name)
        }),
    };
    let kept = old.split_inclusive('\n').filter(|line| !is_replaced(line));
    let mut text: String = kept.collect();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("{comment} {bytes} bytes, SHA-256 {sha256}\n"));
    text.extend(files.iter().map(|(name, sum)| line(sum, name)));
    text
}

/// Makes true what the lists of `folder` say of files that were `written` anew, each with its path and
/// SHA-256; those that they do not name stay out. A line with an MD5 goes.
pub fn refresh(sys: &Sys, folder: &str, written: &[(&str, &str)]) -> io::Result<()> {
    let folder = folder.trim_end_matches('/');
    let real = |path: &str| sys.canonical(path).unwrap_or_else(|_| path.to_owned());
    let written: HashMap<String, &str> = written
        .iter()
        .map(|(path, sum)| (real(path), *sum))
        .collect();
    for (kind, name) in [(Kind::Sha256, SHA256_LIST), (Kind::Md5, MD5_LIST)] {
        let path = format!("{folder}/{name}");
        let Some(old) = read_list(sys, &path)? else {
            continue;
        };
        let new: String = old
            .split_inclusive('\n')
            .map(|old| {
                let named = parse(kind, without_end(old));
                let sum = named.as_ref().and_then(|(_, name)| {
                    let file = match name.starts_with('/') {
                        true => name.clone(),
                        false => format!("{folder}/{name}"),
                    };
                    written.get(&real(&file))
                });
                match (sum, named, kind) {
                    (Some(sum), Some((_, name)), Kind::Sha256) => line(sum, &name),
                    (Some(_), _, Kind::Md5) => String::new(),
                    _ => old.to_owned(),
                }
            })
            .collect();
        if new != old {
            write_list(sys, &path, &new)?;
        }
    }
    Ok(())
}

fn write_list(sys: &Sys, path: &str, text: &str) -> io::Result<()> {
    let how = Put {
        mode: 0o644,
        owner: None,
        replace: true,
    };
    sys.put(path, how, |file| file.write_all(text.as_bytes()))
}
