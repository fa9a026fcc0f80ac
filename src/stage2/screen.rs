//! What a screen shows: who comes in late sees where the migration is, how long it still takes, and
//! whether the machine may be switched off.
//!
//! Pure: [`Screen`] is what is known, [`Screen::lines`] the picture of it. The log keeps one and has
//! the machine draw it.

use std::collections::VecDeque;
use std::time::Duration;

use super::progress::Meter;

/// Rows of a picture: those of the smallest screen, VGA text.
pub const ROWS: usize = 25;

/// Letters of a row. One less than a screen has, since the last one can make it scroll.
pub const COLUMNS: usize = 79;

/// Letters of the bar.
const BAR: usize = 36;

/// Lines of the log that are kept: each has one row at least.
const RECENT: usize = ROWS;

/// The phases in order, as a person reads them. The name is that of the log.
const PHASES: [(&str, &str); 7] = [
    ("find", "find the disk"),
    ("secure", "secure and verify the image"),
    ("let_go", "let go of the disk"),
    ("rearm", "prepare for a power cut"),
    ("overwrite", "write the image to the disk, read it back"),
    ("finish", "put the files into the new system"),
    ("commit", "make the new system start"),
];

/// What is known to be shown.
pub struct Screen {
    machine: String,
    disk: String,
    /// The phase that runs, and all before it are done.
    current: Option<usize>,
    /// The disk is overwritten, perhaps in part.
    torn: bool,
    ending: Option<Ended>,
    meter: Option<Meter>,
    recent: VecDeque<String>,
}

/// How it ended, for the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The new system is there.
    Migrated,
    /// The old system starts again.
    Returned,
    /// The old system or this stage starts again.
    Restarted,
}

impl Screen {
    /// For the machine of that name.
    pub fn new(machine: &str) -> Screen {
        Screen {
            machine: machine.to_owned(),
            disk: "not found yet".to_owned(),
            current: None,
            torn: false,
            ending: None,
            meter: None,
            recent: VecDeque::new(),
        }
    }

    /// The disk to overwrite is known.
    pub fn disk(&mut self, disk: &str) {
        self.disk = disk.to_owned();
    }

    /// A phase begins; one that is not shown changes nothing.
    pub fn enter(&mut self, phase: &str) {
        self.meter = None;
        let found = PHASES.iter().position(|(name, _)| *name == phase);
        self.current = found.or(self.current);
    }

    /// From now on the disk is overwritten.
    pub fn tear(&mut self) {
        self.torn = true;
    }

    /// How far the work is, or that there is none which can be measured.
    pub fn measure(&mut self, meter: Option<Meter>) {
        self.meter = meter;
    }

    /// A line of the log.
    pub fn said(&mut self, line: &str) {
        self.recent.push_back(line.to_owned());
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// It is over.
    pub fn end(&mut self, ended: Ended) {
        self.meter = None;
        self.ending = Some(ended);
    }

    /// The picture, `time` after the start: [`ROWS`] rows of printable ASCII, none longer than
    /// [`COLUMNS`].
    pub fn lines(&self, time: Duration) -> Vec<String> {
        let mut lines = vec![heading(time), "=".repeat(COLUMNS)];
        lines.push(format!("  machine  {}", self.machine));
        lines.push(format!("  disk     {}", self.disk));
        lines.push(String::new());
        lines.extend(self.phase_lines());
        lines.push(String::new());
        if let Some(meter) = &self.meter {
            lines.extend(bar(meter));
            lines.push(String::new());
        }
        lines.extend(self.advice().map(|text| format!("  {text}")));
        lines.push("-".repeat(COLUMNS));
        let room = ROWS.saturating_sub(lines.len());
        lines.extend(self.recent_rows(room));
        lines.resize(ROWS, String::new());
        lines.iter().map(|line| printable(line)).collect()
    }

    fn phase_lines(&self) -> impl Iterator<Item = String> {
        let now = self.current;
        let mark = move |index: usize| match (self.ending, now) {
            (Some(Ended::Migrated), _) => 'x',
            (None, Some(now)) if index == now => '>',
            (_, Some(now)) if index < now => 'x',
            _ => ' ',
        };
        let phases = PHASES.iter().enumerate();
        phases.map(move |(index, (_, what))| format!("  [{}] {what}", mark(index)))
    }

    /// What whoever stands there has to know: three rows.
    fn advice(&self) -> [&'static str; 3] {
        match self.ending {
            Some(Ended::Migrated) => ["", "The new system is on the disk and starts now.", ""],
            Some(Ended::Returned) => ["", "The old system is as it was and starts again.", ""],
            Some(Ended::Restarted) => ["", "The machine starts again now.", ""],
            None if self.torn => [
                "******************************************************************",
                "** The disk is overwritten now: DO NOT SWITCH THE MACHINE OFF.  **",
                "******************************************************************",
            ],
            None => [
                "",
                "Nothing is overwritten yet: any failure brings the old system back.",
                "",
            ],
        }
    }

    /// The last lines of the log, in `room` rows.
    fn recent_rows(&self, room: usize) -> Vec<String> {
        // The text of a line stands behind its time.
        let options = textwrap::Options::new(COLUMNS).subsequent_indent("           ");
        let wrapped = self.recent.iter().map(|line| printable_letters(line));
        let rows: Vec<String> = wrapped
            .flat_map(|line| {
                let rows = textwrap::wrap(&line, &options);
                rows.into_iter().map(String::from).collect::<Vec<_>>()
            })
            .collect();
        rows[rows.len().saturating_sub(room)..].to_vec()
    }
}

fn heading(time: Duration) -> String {
    let (minutes, seconds) = (time.as_secs() / 60, time.as_secs() % 60);
    let time = format!("{}:{:02}:{seconds:02}", minutes / 60, minutes % 60);
    let title = "  balena-migrate: this machine moves to balenaOS";
    format!("{title}{time:>width$}", width = COLUMNS - title.len())
}

/// Two rows: what is done, and how far it is.
fn bar(meter: &Meter) -> [String; 2] {
    let percent = meter.percent();
    let full = BAR * percent.min(100) as usize / 100;
    [
        format!("  {}: {}", meter.what, meter.amount()),
        format!(
            "  [{}{}] {percent:3} %  {:.1} MB/s  {} left",
            "#".repeat(full),
            ".".repeat(BAR - full),
            meter.speed(),
            meter.left()
        ),
    ]
}

/// A row without anything that a terminal would take for a command, cut to its width.
fn printable(line: &str) -> String {
    let line = printable_letters(line);
    line[..line.len().min(COLUMNS)].trim_end().to_owned()
}

fn printable_letters(line: &str) -> String {
    line.chars()
        .map(|letter| match letter {
            ' '..='~' => letter,
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flashing() -> Screen {
        let mut screen = Screen::new("shop-17");
        screen.disk("sda: 8.0 GB, serial S1");
        for phase in ["find", "secure", "let_go", "rearm", "overwrite"] {
            screen.enter(phase);
        }
        screen.tear();
        screen.measure(Some(Meter {
            what: "writing the image".to_owned(),
            done: 512 << 20,
            total: 2048 << 20,
            time: Duration::from_secs(20),
        }));
        screen
    }

    #[test]
    fn who_comes_in_late_sees_everything() {
        let mut screen = flashing();
        screen.said("[     1.0] == find: done after 0.5 s");
        screen.said(
            "[    75.0] ** try 4 failed: writing the image: Input/output error (os error 5); next \
             try in 160 s",
        );
        let shown = screen.lines(Duration::from_secs(75)).join("\n");
        let wanted = "  \
  balena-migrate: this machine moves to balenaOS                        0:01:15
===============================================================================
  machine  shop-17
  disk     sda: 8.0 GB, serial S1

  [x] find the disk
  [x] secure and verify the image
  [x] let go of the disk
  [x] prepare for a power cut
  [>] write the image to the disk, read it back
  [ ] put the files into the new system
  [ ] make the new system start

  writing the image: 512 MiB of 2048 MiB
  [#########...........................]  25 %  26.8 MB/s  1:00 left

  ******************************************************************
  ** The disk is overwritten now: DO NOT SWITCH THE MACHINE OFF.  **
  ******************************************************************
-------------------------------------------------------------------------------
[     1.0] == find: done after 0.5 s
[    75.0] ** try 4 failed: writing the image: Input/output error (os error 5);
           next try in 160 s

";
        assert_eq!(shown.trim_start(), wanted.trim_start());
    }

    #[test]
    fn a_picture_never_scrolls_a_screen_of_80_by_25() {
        let mut screen = flashing();
        for _ in 0..100 {
            screen.said(&"an endless line of the log ".repeat(20));
        }
        screen.disk(&"x".repeat(300));
        let lines = screen.lines(Duration::MAX);
        assert_eq!(lines.len(), ROWS);
        assert!(lines.iter().all(|line| line.len() <= COLUMNS));
    }

    #[test]
    fn nothing_that_was_said_can_command_the_terminal() {
        let mut screen = flashing();
        screen.disk("sda: 8 GB, serial \u{1b}[2J\u{7}\u{e9}\n");
        screen.said("\u{9b}31m\u{1b}c");
        let shown = screen.lines(Duration::ZERO).concat();
        assert!(shown.chars().all(|letter| (' '..='~').contains(&letter)));
    }

    #[test]
    fn the_machine_may_be_switched_off_before_the_first_write_and_at_the_end() {
        let warns = |screen: &Screen| {
            let shown = screen.lines(Duration::ZERO).concat();
            shown.contains("DO NOT SWITCH")
        };
        let mut screen = Screen::new("shop-17");
        assert!(!warns(&screen));
        for phase in ["find", "secure", "let_go"] {
            screen.enter(phase);
            assert!(!warns(&screen), "{phase}");
        }
        screen.tear();
        for phase in ["rearm", "overwrite", "finish", "secure", "commit"] {
            screen.enter(phase);
            assert!(warns(&screen), "{phase}");
        }
        screen.end(Ended::Migrated);
        assert!(!warns(&screen));
    }

    #[test]
    fn going_back_a_phase_takes_its_mark_back() {
        let mut screen = flashing();
        screen.enter("finish");
        screen.enter("overwrite");
        let shown = screen.lines(Duration::ZERO);
        assert!(shown.contains(&"  [>] write the image to the disk, read it back".to_owned()));
        assert!(shown.contains(&"  [ ] put the files into the new system".to_owned()));
    }
}
