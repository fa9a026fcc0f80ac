//! A boot file that is replaced: what it was is kept beside it too, for people, who may have to put it back on
//! another machine.

use super::config_txt::marks;
use super::{OldBootFile, gone};
use crate::finding::Finding;
use crate::host::Host;
use crate::secret::Secret;
use crate::step::{Expect, Step, Writers};

/// A boot file and its next content.
pub(super) struct Replaced<'a> {
    /// Its path on this system.
    pub(super) path: &'a str,
    /// Its content as it is.
    pub(super) old: &'a str,
    /// What it gets.
    pub(super) new: String,
    /// Its permission bits.
    pub(super) mode: u32,
}

impl Replaced<'_> {
    /// The steps: the backup is complete before the file changes.
    pub(super) fn steps(self, host: &Host) -> Vec<Step> {
        vec![
            Step::WriteFile {
                path: self.backup(host),
                content: Secret::new(self.old.to_owned()),
                mode: self.mode,
                expect: Expect::Anything,
                writers: Writers::People,
            },
            Step::WriteFile {
                path: self.path.to_owned(),
                content: Secret::new(self.new),
                mode: self.mode,
                expect: Expect::Seen(Some(self.old.as_bytes().to_vec())),
                writers: Writers::Around(marks()),
            },
        ]
    }

    /// What stage 2 puts back: the file first, for with it back the rest does nothing.
    pub(super) fn old_files(&self, host: &Host) -> Vec<OldBootFile> {
        let old = OldBootFile {
            path: self.path.to_owned(),
            old: Some((self.old.as_bytes().to_vec(), self.mode)),
        };
        vec![old, gone(&self.backup(host))]
    }

    /// `config.txt.20261122-17-05-00`: the older scripts' name for it, by a clock in UTC.
    fn backup(&self, host: &Host) -> String {
        let time = jiff::Timestamp::from_second(host.taken.unwrap_or_default()).unwrap_or_default();
        format!("{}.{}", self.path, time.strftime("%Y%m%d-%H-%M-%S"))
    }
}

/// What an earlier run has left in a file, which must not be taken for the old one: put back, it would
/// start files that are gone.
pub(super) fn leftover(path: &str, text: &str) -> Option<Finding> {
    let marks = marks();
    marks.are_in(text).then(|| {
        Finding::error(
            "boot-leftover",
            format!("{path} has lines of an earlier run of balena-migrate"),
            format!(
                "run `balena-migrate undo`; where that has nothing to take back, remove the lines from \"{}\" to \
                 \"{}\" and each \"{}\" at the start of a line",
                marks.begin,
                marks.end,
                marks.aside.trim_end()
            ),
        )
    })
}
