//! What is wrong with a file that the user wrote: found by the readers of config.json and of network
//! configurations, shown by the checks among their findings.

use std::fmt;

/// Something that the user has to know, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable name, such as `config-json-key`.
    pub code: &'static str,
    /// Whether the migration can go on.
    pub weight: Weight,
    /// The file, and the line where one can be named: `file:line`.
    pub place: String,
    /// What is wrong. Never holds a secret.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// Whether the migration can go on in spite of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It can; the user should look at it.
    Warning,
    /// It can't.
    Error,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.remedy)
    }
}
