//! How far a long piece of work is: percent, speed and time left, now and then.

use std::time::Duration;

use super::log::{Log, seconds};
use super::machine::Machine;

/// Shown at least this often while work goes on.
const EVERY: Duration = Duration::from_secs(2);

/// Shown also when this much more is done,
const STEP_PERCENT: u64 = 5;

/// but not more often than this.
const AT_MOST_EVERY: Duration = Duration::from_millis(500);

/// The progress of one piece of work.
pub struct Progress<'a> {
    machine: &'a dyn Machine,
    log: &'a Log<'a>,
    what: String,
    total: u64,
    done: u64,
    start: Duration,
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
            what: what.to_owned(),
            total,
            done: 0,
            start: now,
            shown_at: now,
            shown_percent: 0,
        }
    }

    /// `bytes` more are done.
    pub fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        let now = self.machine.elapsed();
        let since = now.saturating_sub(self.shown_at);
        let percent = percent(self.done, self.total);
        let stepped = percent >= self.shown_percent + STEP_PERCENT && since >= AT_MOST_EVERY;
        if since >= EVERY || stepped {
            self.shown_at = now;
            self.shown_percent = percent;
            let time = now.saturating_sub(self.start);
            self.log
                .show(describe(&self.what, self.done, self.total, time));
        }
    }

    /// All is done: says how long it took.
    pub fn finish(self) {
        let time = self.machine.elapsed().saturating_sub(self.start);
        self.log.say(format!(
            "{}: {} in {}, {:.1} MB/s",
            self.what,
            mib(self.done),
            seconds(time),
            megabytes_per_second(self.done, time)
        ));
    }
}

fn describe(what: &str, done: u64, total: u64, time: Duration) -> String {
    let left = match done {
        0 => "?".to_owned(),
        _ => {
            let left = time.as_secs_f64() * total.saturating_sub(done) as f64 / done as f64;
            format!("{}:{:02}", left as u64 / 60, left as u64 % 60)
        }
    };
    format!(
        "{what}: {:3} %, {} of {}, {:.1} MB/s, {left} left",
        percent(done, total),
        mib(done),
        mib(total),
        megabytes_per_second(done, time)
    )
}

fn percent(done: u64, total: u64) -> u64 {
    (done.saturating_mul(100)).checked_div(total).unwrap_or(100)
}

/// Bytes in MiB, rounded.
pub fn mib(bytes: u64) -> String {
    format!("{} MiB", (bytes + (1 << 19)) >> 20)
}

fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    // A clock that stood still must not make it infinite.
    bytes as f64 / 1e6 / time.as_secs_f64().max(0.001)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_percent_amount_speed_and_time_left() {
        let line = describe(
            "writing the image",
            50 << 20,
            200 << 20,
            Duration::from_secs(25),
        );
        assert_eq!(
            line,
            "writing the image:  25 %, 50 MiB of 200 MiB, 2.1 MB/s, 1:15 left"
        );
    }

    #[test]
    fn nothing_to_do_is_all_done() {
        assert_eq!(percent(0, 0), 100);
    }
}
