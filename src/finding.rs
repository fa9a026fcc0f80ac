//! Findings: what the user should know before anything is done, and what to do about it.
//!
//! The readers of the user's files and the checks make them; they are all shown at once.

use std::fmt;

use serde::Serialize;

/// Something that is wrong or worth knowing. None of its texts holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name, such as `config-json-key`, for scripts and for the reference.
    pub code: &'static str,
    /// Whether it stops the migration.
    pub severity: Severity,
    /// The file, and the line where one can be named: `file:line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
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
            place: None,
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

    /// The same at a place in a file.
    pub fn at(self, place: impl Into<String>) -> Self {
        Finding {
            place: Some(place.into()),
            ..self
        }
    }

    /// Place and what, in one sentence.
    pub fn sentence(&self) -> String {
        match &self.place {
            Some(place) => format!("{place}: {}", self.what),
            None => self.what.clone(),
        }
    }
}

/// Whether any finding stops the migration.
pub fn stops(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.sentence(), self.remedy)
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
