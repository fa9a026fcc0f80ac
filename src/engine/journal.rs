//! The journal: what was foreseen, done and undone, one JSON document a line, each on the disk
//! before the next thing happens.
//!
//! It lies in [`DIR`] beside the saved files. A torn last line is one whose action never began.

use std::io;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::step::{OneShot, Undo};
use crate::sys::Sys;
use crate::sys::files::Appender;

/// Folder of everything that a run keeps on the old system.
pub const DIR: &str = "/var/lib/balena-migrate";

/// The journal.
pub const PATH: &str = "/var/lib/balena-migrate/journal";

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// A run began.
    Begin(Begin),
    /// What will take step `step` back; the step acts after this line is on the disk.
    Foreseen {
        /// The step, counted from 0.
        step: usize,
        /// The step in words.
        what: String,
        /// What takes it back.
        undo: Undo,
    },
    /// The step is done.
    Done {
        /// The step, counted from 0.
        step: usize,
    },
    /// Every step is done.
    Complete {
        /// The next boot goes to stage 2, as opposed to NO_SETUP.
        armed: bool,
    },
    /// Everything is taken back; only the run's own files are left to remove.
    Undone,
}

/// The head of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The run.
    pub run_id: String,
    /// The user's folder: stage 2's log is left there after an undo.
    pub home: String,
    /// Which boot of the machine it was, from /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
    /// Where the next boot is noted, when it is armed: `status` looks into it.
    pub one_shot: Option<OneShot>,
    /// Folder in which stage 2 leaves its report.
    pub report: String,
}

/// A journal as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Journal {
    /// Its lines, without a torn last one.
    pub records: Vec<Record>,
}

impl Journal {
    /// Reads the journal; `None` when there is none.
    pub fn read(sys: &Sys) -> Result<Option<Journal>> {
        match sys.read(PATH) {
            Ok(bytes) => Journal::parse(&bytes)
                .with_context(|| format!("reading {PATH}"))
                .map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {PATH}")),
        }
    }

    /// Parses the text of a journal.
    fn parse(bytes: &[u8]) -> Result<Journal> {
        let mut records = Vec::new();
        // Only a line that ends in a line break was written in full.
        for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            records.push(
                serde_json::from_slice(line)
                    .with_context(|| format!("line {} is not a journal record", number + 1))?,
            );
        }
        Ok(Journal { records })
    }

    /// The head, unless the run was cut off before it was written.
    pub fn begin(&self) -> Option<&Begin> {
        self.records.iter().find_map(|record| match record {
            Record::Begin(begin) => Some(begin),
            _ => None,
        })
    }

    /// Whether every step was done, and if so whether the next boot goes to stage 2.
    pub fn complete(&self) -> Option<bool> {
        self.records.iter().find_map(|record| match record {
            Record::Complete { armed } => Some(*armed),
            _ => None,
        })
    }

    /// Whether everything was taken back.
    pub fn is_undone(&self) -> bool {
        self.records.contains(&Record::Undone)
    }

    /// The undos, last step first.
    pub fn undos(&self) -> impl Iterator<Item = &Undo> {
        self.records.iter().rev().filter_map(|record| match record {
            Record::Foreseen { undo, .. } => Some(undo),
            _ => None,
        })
    }
}

/// An open journal.
pub struct JournalWriter {
    file: Appender,
}

impl JournalWriter {
    /// Starts a journal; there must be none.
    pub fn start(sys: &Sys, begin: Begin) -> Result<JournalWriter> {
        if !sys.exists(DIR) {
            sys.make_dir(DIR, 0o700)
                .with_context(|| format!("making {DIR}"))?;
        }
        let mut journal = JournalWriter::resume(sys)?;
        journal.append(&Record::Begin(begin))?;
        Ok(journal)
    }

    /// Opens the journal to append to it; a torn last line is dropped first.
    pub fn resume(sys: &Sys) -> Result<JournalWriter> {
        if let Ok(bytes) = sys.read(PATH) {
            let whole = bytes
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            if whole < bytes.len() {
                sys.write_whole(PATH, &bytes[..whole], 0o600, None)
                    .with_context(|| format!("mending {PATH}"))?;
            }
        }
        let file = sys
            .append(PATH, 0o600)
            .with_context(|| format!("opening {PATH}"))?;
        Ok(JournalWriter { file })
    }

    /// Appends a record and waits for the disk.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record).expect("plain data serialises");
        self.file
            .line(&line)
            .with_context(|| format!("writing {PATH}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_left_out() {
        let text = b"{\"done\":{\"step\":0}}\n{\"done\":{\"st";
        let journal = Journal::parse(text).unwrap();
        assert_eq!(journal.records, [Record::Done { step: 0 }]);
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_an_error() {
        let error = Journal::parse(b"garbage\n{\"done\":{\"step\":0}}\n").unwrap_err();
        assert_eq!(error.to_string(), "line 1 is not a journal record");
    }
}
