//! What stage 2 says: to every console, to a file in memory, and to the log drive if there is one.
//!
//! The file in memory always has every step, whatever is shown: it goes to the old system with the
//! report, or into the new system.

use std::fmt::Display;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::disk_errors;
use super::machine::{Machine, Mounted};
use super::progress::Meter;
use super::screen::{Ended, Screen};
use crate::handover::LogLevel;
use crate::report::KERNEL_MARK;
use crate::sys::Sys;
use crate::sys::files::Appender;

/// The log in the memory folder.
pub const FILE: &str = "stage2.log";

/// The name of the phase entered last, in the memory folder.
const PHASE_FILE: &str = "phase";

/// In the memory folder: the number of the first message of the kernel that was not looked at yet.
const SEEN_FILE: &str = "kernel-seen";

/// The log on the log drive, by the name that the shell tool gave it; later runs append to it.
const DRIVE_FILE: &str = "migrate.log";

/// Between two pictures of the screen, unless a phase begins or something waits.
const BETWEEN_PICTURES: Duration = Duration::from_millis(500);

/// Messages of the kernel that are kept at one time: a dying disk brings forth thousands.
const KERNEL_LINES: usize = 20;

/// The log of stage 2. Never give it contents of files: they may be secrets.
pub struct Log<'a> {
    machine: &'a dyn Machine,
    memory: Sys,
    targets: Mutex<Targets>,
}

struct Targets {
    memory: Option<Appender>,
    drive: Option<Drive>,
    level: LogLevel,
    screen: Option<Screen>,
    drawn_at: Duration,
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
            level: LogLevel::Info,
            screen: None,
            drawn_at: Duration::ZERO,
        });
        Log {
            machine,
            memory,
            targets,
        }
    }

    /// How much is shown from now on.
    pub fn set_level(&self, level: LogLevel) {
        self.targets().level = level;
    }

    /// Says a step, on the consoles only if that much is to be shown.
    pub fn say(&self, text: impl Display) {
        self.line(LogLevel::Info, text);
    }

    /// Says what everybody must see: a warning, or how it ended.
    pub fn tell(&self, text: impl Display) {
        self.line(LogLevel::Error, text);
    }

    /// Says what only somebody wants to know who looks for a fault.
    pub fn detail(&self, text: impl Display) {
        if self.targets().level >= LogLevel::Debug {
            self.line(LogLevel::Debug, text);
        }
    }

    fn line(&self, level: LogLevel, text: impl Display) {
        let line = format!("[{:8.1}] {text}", self.machine.elapsed().as_secs_f64());
        let mut targets = self.targets();
        if level <= targets.level {
            self.machine.show(&line);
            targets.on_screen(|screen| screen.said(&line));
        }
        if let Some(memory) = &mut targets.memory {
            let _ = memory.line(&line);
        }
        let drive = targets.drive.as_mut();
        let lost = drive.and_then(|drive| drive.file.line(&line).err());
        if let Some(error) = lost {
            targets.drive = None;
            let line = format!("the log drive failed and is given up: {error}");
            self.machine.show(&line);
            targets.on_screen(|screen| screen.said(&line));
            if let Some(memory) = &mut targets.memory {
                let _ = memory.line(&line);
            }
        }
        self.draw_now_and_then(&mut targets);
    }

    /// Shows a line on the consoles only: progress.
    pub fn show(&self, text: impl Display) {
        let line = format!("[{:8.1}] {text}", self.machine.elapsed().as_secs_f64());
        if self.targets().level >= LogLevel::Info {
            self.machine.show(&line);
        }
    }

    /// Shows on the screens how far a piece of work is.
    pub fn measure(&self, meter: &Meter) {
        let mut targets = self.targets();
        targets.on_screen(|screen| screen.measure(Some(meter.clone())));
        self.draw_now_and_then(&mut targets);
    }

    /// From now on screens show `screen`, which this keeps up to date.
    pub fn begin_screen(&self, screen: Screen) {
        self.targets().screen = Some(screen);
        self.draw();
    }

    /// The disk to overwrite, for a person.
    pub fn show_disk(&self, disk: &str) {
        self.targets().on_screen(|screen| screen.disk(disk));
    }

    /// Shows that the disk is overwritten from now on.
    pub fn show_torn(&self) {
        self.targets().on_screen(Screen::tear);
    }

    /// Shows how it ended.
    pub fn show_ending(&self, ended: Ended) {
        self.targets().on_screen(|screen| screen.end(ended));
        self.draw();
    }

    /// Draws what is known now: before a wait, so that nobody misses what was said last.
    pub fn draw(&self) {
        let mut targets = self.targets();
        let now = self.machine.elapsed();
        if let Some(screen) = &targets.screen {
            self.machine.draw(&screen.lines(now));
            targets.drawn_at = now;
        }
    }

    fn draw_now_and_then(&self, targets: &mut Targets) {
        let now = self.machine.elapsed();
        if let Some(screen) = &targets.screen
            && now.saturating_sub(targets.drawn_at) >= BETWEEN_PICTURES
        {
            self.machine.draw(&screen.lines(now));
            targets.drawn_at = now;
        }
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
        self.targets().on_screen(|screen| screen.enter(name));
        self.tell(format!("== {name}: {what}"));
        self.draw();
        let result = act();
        let took = self.machine.elapsed().saturating_sub(start);
        let ending = match result {
            Ok(_) => "done",
            Err(_) => "failed",
        };
        self.say_disk_errors();
        self.targets().on_screen(|screen| screen.measure(None));
        self.tell(format!("== {name}: {ending} after {}", seconds(took)));
        self.draw();
        result
    }

    /// The phase entered last, by this process or one before it.
    pub fn last_phase(&self) -> String {
        self.memory
            .read_text(&format!("/{PHASE_FILE}"))
            .unwrap_or_else(|_| "start".to_owned())
    }

    /// Says what the kernel has told of disks in trouble since it was looked at last.
    pub fn say_disk_errors(&self) {
        let Ok(messages) = self.machine.kernel_log() else {
            return;
        };
        let seen = format!("/{SEEN_FILE}");
        let from = self.memory.read_text(&seen).ok();
        let from: u64 = from.and_then(|text| text.parse().ok()).unwrap_or(0);
        if let Some(last) = messages.last() {
            // Not kept, the messages are said twice.
            let next = (last.number + 1).to_string();
            let _ = self.memory.write_whole(&seen, next.as_bytes(), 0o600, None);
        }
        let new = messages.iter().filter(|message| message.number >= from);
        let errors: Vec<_> = new.filter(|message| disk_errors::is_one(message)).collect();
        for message in errors.iter().take(KERNEL_LINES) {
            self.say(format!("{KERNEL_MARK}{message}"));
        }
        if errors.len() > KERNEL_LINES {
            let more = errors.len() - KERNEL_LINES;
            self.say(format!("{KERNEL_MARK}{more} more of this kind"));
        }
    }

    /// All that was said so far.
    pub fn text(&self) -> Vec<u8> {
        self.memory.read(&format!("/{FILE}")).unwrap_or_default()
    }

    /// Copies the log so far to a mounted log drive and goes on writing there. What a process
    /// before this one wrote there is not written twice.
    pub fn use_drive(&self, mounted: Box<dyn Mounted>) -> io::Result<()> {
        let path = format!("/{DRIVE_FILE}");
        let files = mounted.files();
        let there = files.read(&path).unwrap_or_default();
        let text = self.text();
        let mut file = files.append(&path, 0o644)?;
        let missing = String::from_utf8_lossy(missing_from(&there, &text)).into_owned();
        if !missing.is_empty() {
            file.line(missing.trim_end())?;
        }
        self.targets().drive = Some(Drive { file, mounted });
        Ok(())
    }

    /// Whether the log goes to a log drive too.
    pub fn has_drive(&self) -> bool {
        self.targets().drive.is_some()
    }

    /// Unmounts the log drive.
    pub fn close_drive(&self) {
        let drive = self.targets().drive.take();
        let Some(Drive { file, mounted }) = drive else {
            return;
        };
        drop(file);
        if let Err(error) = mounted.close() {
            self.tell(format!("unmounting the log drive: {error}"));
        }
    }

    fn targets(&self) -> MutexGuard<'_, Targets> {
        // A panic in the middle of a line has torn that line and nothing else.
        self.targets
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Targets {
    fn on_screen(&mut self, act: impl FnOnce(&mut Screen)) {
        if let Some(screen) = &mut self.screen {
            act(screen);
        }
    }
}

/// What of `text` the file `there` does not end with, in whole lines.
fn missing_from<'a>(there: &[u8], text: &'a [u8]) -> &'a [u8] {
    let mut ends = (1..=text.len()).rev().filter(|end| text[end - 1] == b'\n');
    let known = ends.find(|end| there.ends_with(&text[..*end]));
    &text[known.unwrap_or(0)..]
}

/// The last whole lines of `text` that are no more than `most` bytes.
pub fn end_of(text: &[u8], most: usize) -> &[u8] {
    let Some(cut) = text.len().checked_sub(most + 1) else {
        return text;
    };
    let line = text[cut..].iter().position(|byte| *byte == b'\n');
    line.map_or(&[], |at| &text[cut + at + 1..])
}

/// A duration as people read it.
pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..100 => format!("{:.1} s", time.as_secs_f64()),
        total => format!("{}:{:02} min", total / 60, total % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_whole_lines() {
        let end = |most| end_of(b"one\ntwo\nthree\n", most);
        assert_eq!(end(14), b"one\ntwo\nthree\n");
        assert_eq!(end(13), b"two\nthree\n");
        assert_eq!(end(10), b"two\nthree\n");
        assert_eq!(end(9), b"three\n");
        assert_eq!(end(5), b"");
        assert_eq!(end(0), b"");
    }

    #[test]
    fn only_what_a_drive_does_not_have_is_copied_to_it() {
        let missing = |there: &str, text: &'static str| {
            let missing = missing_from(there.as_bytes(), text.as_bytes());
            String::from_utf8(missing.to_vec()).unwrap()
        };
        assert_eq!(missing("", "a\nb\n"), "a\nb\n");
        assert_eq!(missing("an earlier run\n", "a\nb\n"), "a\nb\n");
        assert_eq!(missing("an earlier run\na\n", "a\nb\n"), "b\n");
        assert_eq!(missing("an earlier run\na\nb\n", "a\nb\n"), "");
    }
}
