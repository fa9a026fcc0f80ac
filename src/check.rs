//! Findings: everything that is wrong or worth knowing, all of it at once, before anything is done.

use std::fmt;

use serde::Serialize;


/// Something that the user should know before the migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name, for scripts and for the reference.
    pub code: &'static str,
    /// Whether it stops the migration.
    pub severity: Severity,
    /// What is so, with names and numbers.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The migration does not start.
    Error,
    /// The migration starts if the user says so.
    Warning,
}

impl Finding {
    /// A finding that stops the migration.
    pub fn error(code: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding {
            code,
            severity: Severity::Error,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// A finding that does not.
    pub fn warning(code: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Warning,
            ..Finding::error(code, what, remedy)
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}
