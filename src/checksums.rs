//! Lists of checksums in HOME_DIR: `checksums.sha256`, as `sha256sum` writes it, and the older tool's
//! `checksums.md5`. Stage 1 verifies what they name; `balena-migrate checksums` writes the first.

use std::io::{self, Read};

use md5::Md5;
use sha2::{Digest, Sha256};

use crate::finding::Finding;
use crate::payload::digest::hex;
use crate::payload::scan::Scan;
use crate::sys::Sys;
use crate::sys::files::temporary_name;

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

/// Checksum and name of a line of `sha256sum` or `md5sum`: a backslash before all of it when the name is
/// escaped, the digits, a space, a space for text or `*` for binary, the name.
fn parse(kind: Kind, line: &str) -> Option<(String, String)> {
    let (is_escaped, line) = match line.strip_prefix('\\') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (sum, rest) = line.split_at_checked(kind.digits())?;
    let name = rest
        .strip_prefix("  ")
        .or_else(|| rest.strip_prefix(" *"))
        .filter(|name| !name.is_empty())?;
    if !sum.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let name = match is_escaped {
        true => unescape(name)?,
        false => name.to_owned(),
    };
    Some((sum.to_ascii_lowercase(), name))
}

fn unescape(name: &str) -> Option<String> {
    let mut plain = String::new();
    let mut chars = name.chars();
    while let Some(next) = chars.next() {
        plain.push(match next {
            '\\' => match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                '\\' => '\\',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

/// A line as `sha256sum` writes it.
fn line(sum: &str, name: &str) -> String {
    let escaped = name
        .replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r");
    match escaped == name {
        true => format!("{sum}  {name}\n"),
        false => format!("\\{sum}  {escaped}\n"),
    }
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

/// Puts files of `folder`, each with its SHA-256, into its [`SHA256_LIST`]; what the list has on other
/// files stays. `remark` becomes a comment, in the place of one that starts with the same word.
pub fn note(sys: &Sys, folder: &str, files: &[(String, String)], remark: &str) -> io::Result<()> {
    let path = format!("{}/{SHA256_LIST}", folder.trim_end_matches('/'));
    let old = match sys.read_text(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        old => old?,
    };
    let word = remark.split_whitespace().next().unwrap_or_default();
    let is_replaced = |line: &str| match line.strip_prefix("# ") {
        Some(comment) => comment.split_whitespace().next() == Some(word),
        None => parse(Kind::Sha256, line).is_some_and(|(_, name)| {
            let name = name.strip_prefix("./").unwrap_or(&name);
            files.iter().any(|(known, _)| known == name)
        }),
    };
    let kept = old.lines().filter(|line| !is_replaced(line));
    let mut text: String = kept.map(|line| format!("{line}\n")).collect();
    text.push_str(&format!("# {remark}\n"));
    text.extend(files.iter().map(|(name, sum)| line(sum, name)));
    sys.write_whole(&path, text.as_bytes(), 0o644, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn parsed(line: &str) -> Option<String> {
        parse(Kind::Sha256, line).map(|(sum, name)| {
            assert_eq!(sum, SUM);
            name
        })
    }

    #[test]
    fn lines_of_sha256sum_are_read() {
        let upper = SUM.to_uppercase();
        for (line, name) in [
            (format!("{SUM}  image.gz"), "image.gz"),
            (format!("{upper} *a b/image.gz"), "a b/image.gz"),
            (format!("{SUM}  *star"), "*star"),
            (format!("{SUM}    two spaces"), "  two spaces"),
            (format!("\\{SUM}  a\\\\b\\nc\\rd"), "a\\b\nc\rd"),
            (format!("{SUM}  a\\b"), "a\\b"),
        ] {
            assert_eq!(parsed(&line).as_deref(), Some(name), "{line}");
        }
    }

    #[test]
    fn other_lines_are_not() {
        for line in [
            format!("{SUM} image"),
            format!("{SUM}  "),
            SUM.to_owned(),
            SUM[1..].to_owned() + "  image",
            format!("{}x  image", &SUM[1..]),
            format!("\\{SUM}  a\\x"),
            "ü".repeat(70),
        ] {
            assert_eq!(parsed(&line), None, "{line}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for name in ["plain", "two words", "a\\b", "a\nb\r", "\\"] {
            let line = line(SUM, name);
            assert_eq!(parsed(line.trim_end_matches('\n')).as_deref(), Some(name));
        }
    }
}
