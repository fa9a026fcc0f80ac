//! The log of a unit: `ID.jsonl` in the folder for logs, one JSON object a line, all tries in one file.

use serde_json::json;

use crate::sys::Sys;
use crate::sys::files::Appender;

use super::moment::Moment;

/// An open log. What can't be written is told once on standard error, and stops nothing.
pub struct UnitLog {
    unit: String,
    path: String,
    file: Option<Appender>,
}

impl UnitLog {
    /// Opens the log of a unit in an absolute folder, which is made when it is not there.
    pub fn open(sys: &Sys, folder: &str, unit: &str) -> UnitLog {
        let path = format!("{folder}/{unit}.jsonl");
        let made = match sys.exists(folder) {
            true => Ok(()),
            false => sys.make_dir(folder, 0o700),
        };
        let file = made.and_then(|()| sys.append(&path, 0o600));
        UnitLog {
            unit: unit.to_owned(),
            file: file
                .inspect_err(|error| log::warn!("{path}: {error}; there is no such log"))
                .ok(),
            path,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Notes a message in a phase.
    pub fn say(&mut self, phase: &str, message: &str) {
        log::info!("{}: {phase}: {message}", self.unit);
        self.note(phase, message);
    }

    /// As [`UnitLog::say`], but only in the file: for what a device says at length.
    pub fn note(&mut self, phase: &str, message: &str) {
        let line = json!({
            "time": Moment::now().iso(),
            "unit": self.unit,
            "phase": phase,
            "message": message,
        });
        if let Some(file) = &mut self.file
            && let Err(error) = file.line(&line.to_string())
        {
            log::warn!("{}: {error}; this log goes no further", self.path);
            self.file = None;
        }
    }
}
