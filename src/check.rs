//! Findings: everything that is wrong or worth knowing, all of it at once, before anything is done.

pub mod boot;
pub mod device;
pub mod files;
pub mod image;
pub mod memory;

use std::fmt;

use serde::Serialize;

use crate::config::Config;
use crate::host::Host;
use crate::material::Material;
use crate::problem::{Problem, Weight};

/// What every check looks at.
pub struct Subject<'a> {
    /// The settings.
    pub config: &'a Config,
    /// The machine.
    pub host: &'a Host,
    /// The user's files and what was made from them.
    pub material: &'a Material,
}

/// A check: nothing found means that all is well.
type Check = fn(&Subject) -> Vec<Finding>;

/// Every check, in the order in which findings are shown.
const CHECKS: &[Check] = &[
    device::root_user,
    device::architecture,
    device::distribution,
    device::disk,
    image::image,
    image::device_type,
    files::config_json,
    files::home_dir,
    files::backup_script,
    files::network,
    files::log_drive,
    memory::stage2,
    boot::secure_boot,
    boot::loader,
    boot::kernel,
    boot::room,
];

/// Runs all checks and gathers what they find.
pub fn all(subject: &Subject) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| check(subject)).collect()
}

/// Whether any finding stops the migration.
pub fn stops(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
}

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

impl From<Problem> for Finding {
    fn from(problem: Problem) -> Finding {
        Finding {
            code: problem.code,
            severity: match problem.weight {
                Weight::Error => Severity::Error,
                Weight::Warning => Severity::Warning,
            },
            what: format!("{}: {}", problem.place, problem.what),
            remedy: problem.remedy,
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
