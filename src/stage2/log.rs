//! What stage 2 says: to every console, to a file in memory, and to the log drive if there is one.

use std::fmt::Display;
use std::sync::Mutex;
use std::time::Duration;

use super::machine::{Machine, Mounted};
use crate::sys::Sys;
use crate::sys::files::Appender;

/// The log in the memory folder.
pub const FILE: &str = "stage2.log";

/// The name of the phase entered last, in the memory folder.
const PHASE_FILE: &str = "phase";

/// The log on the log drive, by the name that the shell tool gave it; later runs append to it.
const DRIVE_FILE: &str = "migrate.log";

/// The log of stage 2. Never give it contents of files: they may be secrets.
pub struct Log<'a> {
    machine: &'a dyn Machine,
    memory: Sys,
    targets: Mutex<Targets>,
}

struct Targets {
    memory: Option<Appender>,
    drive: Option<Drive>,
}

struct Drive {
    file: Appender,
    mounted: Box<dyn Mounted>,
}

impl<'a> Log<'a> {
    /// Continues the log in memory, or begins it.
    pub fn open(machine: &'a dyn Machine) -> Log<'a> {
        let memory = Sys::new(machine.memory_dir());
        let targets = Mutex::new(Targets {
            memory: memory.append(&format!("/{FILE}"), 0o600).ok(),
            drive: None,
        });
        Log {
            machine,
            memory,
            targets,
        }
    }

    /// Says a line.
    pub fn say(&self, text: impl Display) {
        let line = format!("[{:8.1}] {text}", self.machine.elapsed().as_secs_f64());
        self.machine.show(&line);
        let Ok(mut targets) = self.targets.lock() else {
            return;
        };
        if let Some(memory) = &mut targets.memory {
            let _ = memory.line(&line);
        }
        let lost = targets
            .drive
            .as_mut()
            .and_then(|drive| drive.file.line(&line).err());
        if let Some(error) = lost {
            targets.drive = None;
            let line = format!("the log drive failed and is given up: {error}");
            self.machine.show(&line);
            if let Some(memory) = &mut targets.memory {
                let _ = memory.line(&line);
            }
        }
    }

    /// Shows a line on the consoles only: progress.
    pub fn show(&self, text: impl Display) {
        let line = format!("[{:8.1}] {text}", self.machine.elapsed().as_secs_f64());
        self.machine.show(&line);
    }

    /// Runs `act` as the phase `name`, and says how long it took.
    pub fn phase<T, E>(
        &self,
        name: &str,
        what: &str,
        act: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let start = self.machine.elapsed();
        // Only the report after a crash reads it.
        let _ = self
            .memory
            .write_whole(&format!("/{PHASE_FILE}"), name.as_bytes(), 0o600, None);
        self.say(format!("== {name}: {what}"));
        let result = act();
        let took = self.machine.elapsed().saturating_sub(start);
        let ending = match result {
            Ok(_) => "done",
            Err(_) => "failed",
        };
        self.say(format!("== {name}: {ending} after {}", seconds(took)));
        result
    }

    /// The phase entered last, by this process or one before it.
    pub fn last_phase(&self) -> String {
        self.memory
            .read_text(&format!("/{PHASE_FILE}"))
            .unwrap_or_else(|_| "start".to_owned())
    }

    /// All that was said so far.
    pub fn text(&self) -> Vec<u8> {
        self.memory.read(&format!("/{FILE}")).unwrap_or_default()
    }

    /// Copies the log so far to a mounted log drive and goes on writing there.
    pub fn use_drive(&self, mounted: Box<dyn Mounted>) -> std::io::Result<()> {
        let mut file = mounted.files().append(&format!("/{DRIVE_FILE}"), 0o644)?;
        file.line(String::from_utf8_lossy(&self.text()).trim_end())?;
        if let Ok(mut targets) = self.targets.lock() {
            targets.drive = Some(Drive { file, mounted });
        }
        Ok(())
    }

    /// Unmounts the log drive.
    pub fn close_drive(&self) {
        let drive = self.targets.lock().ok().and_then(|mut t| t.drive.take());
        let Some(Drive { file, mounted }) = drive else {
            return;
        };
        drop(file);
        if let Err(error) = mounted.close() {
            self.say(format!("unmounting the log drive: {error}"));
        }
    }
}

/// A duration as people read it.
pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..100 => format!("{:.1} s", time.as_secs_f64()),
        total => format!("{}:{:02} min", total / 60, total % 60),
    }
}
