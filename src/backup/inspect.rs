//! Looks into a backup that others made: would balenaOS take it?
//!
//! Its supervisor unpacks the file and then wants every name at the top level to be a folder that is
//! called as a volume of the application. With anything else it tries again and again, and the
//! application never starts. [`existing`] is called before anything is done, [`check`] by the engine
//! after the user's script.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::{refuse_volume_name, shown};
use crate::finding::Finding;
use crate::sys::Sys;

/// What there is in an archive.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The names at the top level.
    pub top: BTreeSet<Vec<u8>>,
    /// What balenaOS would not take, each a sentence with the name.
    pub refused: Vec<String>,
    /// There are names such as `./settings`, which old supervisors stumble over.
    pub dotted: bool,
}

/// As many offenders are named.
const NAMED: usize = 5;

/// What to say about the backup at `path`, if there is one.
pub fn existing(sys: &Sys, path: &str) -> Vec<Finding> {
    const CODE: &str = "backup-archive";
    if !sys.exists(path) {
        return Vec::new();
    }
    let remedy =
        "make it anew: at its top there may be folders only, each with the name of a volume";
    let contents = match contents_of(sys, path) {
        Ok(contents) => contents,
        Err(error) => {
            let what = format!("the backup {path} can't be used: {error:#}");
            return vec![Finding::error(CODE, what, "make it anew, or remove it")];
        }
    };
    let mut findings: Vec<Finding> = named(&contents.refused)
        .into_iter()
        .map(|what| {
            Finding::error(
                CODE,
                format!("balenaOS would not take {path}: {what}"),
                remedy,
            )
        })
        .collect();
    if contents.top.is_empty() {
        let what = format!("the backup {path} has nothing in it");
        findings.push(Finding::warning(CODE, what, "make it anew, or remove it"));
    }
    if contents.dotted {
        let what = format!("{path} has names that begin with `./`, which old supervisors refuse");
        findings.push(Finding::warning(
            CODE,
            what,
            "name the folders when it is made: tar … -- *",
        ));
    }
    findings
}

/// Refuses a backup that balenaOS would not take.
pub fn check(sys: &Sys, path: &str) -> Result<()> {
    let contents = contents_of(sys, path)
        .with_context(|| format!("the backup script ended well but made a bad {path}"))?;
    if !contents.refused.is_empty() {
        let refused = named(&contents.refused).join("; ");
        bail!("balenaOS would not take the backup {path}: {refused}");
    }
    if contents.dotted {
        log::warn!("{path} has names that begin with `./`, which old supervisors refuse");
    }
    Ok(())
}

fn contents_of(sys: &Sys, path: &str) -> Result<Contents> {
    let file = sys.open(path).context("opening it")?;
    inspect(io::BufReader::with_capacity(1 << 20, file))
}

/// The first sentences, and how many more there are.
fn named(refused: &[String]) -> Vec<String> {
    let mut named: Vec<String> = refused.iter().take(NAMED).cloned().collect();
    if refused.len() > NAMED {
        named.push(format!("{} more like these", refused.len() - NAMED));
    }
    named
}

/// Reads a gzipped tar archive to its end.
pub fn inspect(file: impl io::BufRead) -> Result<Contents> {
    let mut contents = Contents::default();
    let mut archive = Archive::new(MultiGzDecoder::new(file));
    for entry in archive.entries().context("reading it")? {
        let entry = entry.context("it is no gzipped tar archive, or is damaged")?;
        let name = entry.path_bytes();
        contents.note(&name, entry.header().entry_type());
    }
    // The check sum of what was packed is at the very end.
    io::copy(&mut archive.into_inner().by_ref(), &mut io::sink())
        .context("it is no gzipped tar archive, or is damaged")?;
    Ok(contents)
}

impl Contents {
    fn note(&mut self, name: &[u8], kind: EntryType) {
        let shown = shown(Path::new(OsStr::from_bytes(name)));
        if name.starts_with(b"/") {
            self.refused.push(format!("`{shown}` is an absolute path"));
            return;
        }
        self.dotted |= name.starts_with(b"./") || name == b".";
        let parts: Vec<&[u8]> = name
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .collect();
        if parts.iter().any(|part| *part == b"..") {
            self.refused.push(format!("`{shown}` has `..` in it"));
            return;
        }
        if kind == EntryType::GNUSparse {
            self.refused.push(format!(
                "`{shown}` is a sparse file, which its tar leaves out; make it without --sparse"
            ));
        }
        let Some(top) = parts.first() else { return };
        if parts.len() == 1 && kind != EntryType::Directory {
            self.refused
                .push(format!("`{shown}` is no folder, and at the top level"));
        }
        if self.top.insert(top.to_vec())
            && let Some(wrong) = refuse_volume_name(top)
        {
            let top = self::shown(Path::new(OsStr::from_bytes(top)));
            self.refused.push(format!("`{top}` {wrong}"));
        }
    }
}
