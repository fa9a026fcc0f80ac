//! What stage 2 tells the old system: written by stage 2 into the folder that the hand-over
//! names, read by `balena-migrate status`.

use serde::{Deserialize, Serialize};

/// File name of the report in the report folder.
pub const FILE: &str = "stage2.json";

/// File name of stage 2's log in the report folder.
pub const LOG_FILE: &str = "stage2.log";

/// In a line of the log, what comes before a message of the kernel that tells of a disk in trouble.
pub const KERNEL_MARK: &str = "kernel: ";

/// In the log, the line before all that the kernel said.
pub const KERNEL_LOG: &str = "-- the kernel's log --";

/// The report of stage 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The run that it belongs to.
    pub run_id: String,
    /// How far stage 2 came.
    pub outcome: Outcome,
    /// Seconds from the start of stage 2 to this report.
    pub seconds: f64,
}

/// How stage 2 left the machine. Only outcomes in which the old system is intact can be read on it:
/// those of the time after the first write are of a flash of another disk (FLASH_TO).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Outcome {
    /// Written first: still there in the old system, it means that power was lost or the machine
    /// stopped before the first write.
    Running {
        /// The phase that was entered last.
        phase: String,
    },
    /// `--pretend` or NO_FLASH: everything before the first write succeeded.
    Pretended,
    /// Something was wrong before the first write.
    Stopped {
        /// The phase that failed.
        phase: String,
        /// Stable name of the reason, such as `payload-hash`.
        code: String,
        /// What was wrong, and what to do, for a person.
        reason: String,
    },
    /// Written before the first write to another disk: still there in the old system, it means that
    /// power was lost or the machine stopped before the new one was complete.
    Overwriting {
        /// That disk, for a person.
        disk: String,
    },
    /// Another disk could not be overwritten; it has no system now.
    Failed {
        /// That disk, for a person.
        disk: String,
        /// Stable name of the reason, such as `disk-write`.
        code: String,
        /// What was wrong, and what to do, for a person.
        reason: String,
    },
    /// The new system is on another disk, complete.
    Migrated {
        /// That disk, for a person.
        disk: String,
    },
}
