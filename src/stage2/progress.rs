//! How far a long piece of work is: percent, speed and time left, now and then.

use std::fmt;
use std::time::Duration;

use super::log::{Log, seconds};
use super::machine::Machine;

/// Shown at least this often while work goes on.
const EVERY: Duration = Duration::from_secs(2);

/// Shown also when this much more is done,
const STEP_PERCENT: u64 = 5;

/// but not more often than this. Screens are drawn as often.
const AT_MOST_EVERY: Duration = Duration::from_millis(500);

/// The progress of one piece of work.
pub struct Progress<'a> {
    machine: &'a dyn Machine,
    log: &'a Log<'a>,
    meter: Meter,
    start: Duration,
    measured_at: Duration,
    shown_at: Duration,
    shown_percent: u64,
}

impl<'a> Progress<'a> {
    /// Begins `what`, of `total` bytes.
    pub fn new(machine: &'a dyn Machine, log: &'a Log<'a>, what: &str, total: u64) -> Progress<'a> {
        let now = machine.elapsed();
        Progress {
            machine,
            log,
            meter: Meter {
                what: what.to_owned(),
                done: 0,
                total,
                time: Duration::ZERO,
            },
            start: now,
            measured_at: now,
            shown_at: now,
            shown_percent: 0,
        }
    }

    /// `bytes` more are done.
    pub fn add(&mut self, bytes: usize) {
        self.meter.done += bytes as u64;
        let now = self.machine.elapsed();
        if now.saturating_sub(self.measured_at) < AT_MOST_EVERY {
            return;
        }
        self.measured_at = now;
        self.meter.time = now.saturating_sub(self.start);
        self.log.measure(&self.meter);
        let since = now.saturating_sub(self.shown_at);
        let percent = self.meter.percent();
        if since >= EVERY || percent >= self.shown_percent + STEP_PERCENT {
            self.shown_at = now;
            self.shown_percent = percent;
            self.log.show(&self.meter);
        }
    }

    /// All is done: says how long it took.
    pub fn finish(mut self) {
        self.meter.time = self.machine.elapsed().saturating_sub(self.start);
        self.log.say(format!(
            "{}: {} in {}, {:.1} MB/s",
            self.meter.what,
            mib(self.meter.done),
            seconds(self.meter.time),
            self.meter.speed()
        ));
    }
}

/// How far a piece of work is.
#[derive(Debug, Clone)]
pub struct Meter {
    /// What is done.
    pub what: String,
    /// Bytes that are done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Since it was begun.
    pub time: Duration,
}

impl Meter {
    /// How much of a hundred is done.
    pub fn percent(&self) -> u64 {
        let percent = self.done.saturating_mul(100).checked_div(self.total);
        percent.unwrap_or(100)
    }

    /// In millions of bytes a second.
    pub fn speed(&self) -> f64 {
        // A clock that stood still must not make it infinite.
        self.done as f64 / 1e6 / self.time.as_secs_f64().max(0.001)
    }

    /// What is done, of how much.
    pub fn amount(&self) -> String {
        format!("{} of {}", mib(self.done), mib(self.total))
    }

    /// Minutes and seconds that are left if it goes on like this.
    pub fn left(&self) -> String {
        if self.done == 0 {
            return "?".to_owned();
        }
        let undone = self.total.saturating_sub(self.done) as f64;
        let left = self.time.as_secs_f64() * undone / self.done as f64;
        format!("{}:{:02}", left as u64 / 60, left as u64 % 60)
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {:3} %, {}, {:.1} MB/s, {} left",
            self.what,
            self.percent(),
            self.amount(),
            self.speed(),
            self.left()
        )
    }
}

/// Bytes in MiB, rounded.
pub fn mib(bytes: u64) -> String {
    format!("{} MiB", (bytes + (1 << 19)) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_percent_amount_speed_and_time_left() {
        let mut meter = Meter {
            what: "writing the image".to_owned(),
            done: 50 << 20,
            total: 200 << 20,
            time: Duration::from_secs(25),
        };
        assert_eq!(
            meter.to_string(),
            "writing the image:  25 %, 50 MiB of 200 MiB, 2.1 MB/s, 1:15 left"
        );
        (meter.done, meter.total) = (0, 0);
        assert_eq!(meter.percent(), 100, "nothing to do is all done");
    }
}
