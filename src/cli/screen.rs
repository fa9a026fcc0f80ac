//! What a person sees and answers: standard output for the result, standard error for the way.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::{Exit, Failure};

/// Whether there is somebody to ask.
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Whether the result goes to somebody who wants colour (<https://no-color.org>).
pub fn has_colour() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

/// Asks a question whose answer is yes only if it is typed.
pub fn ask(question: &str) -> io::Result<bool> {
    print!("{question} [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

/// Prints the result of a verb. A reader that went away is no fault of ours.
pub fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure(
            Exit::Fault,
            anyhow::Error::new(error).context("writing to standard output"),
        )),
        _ => Ok(()),
    }
}

/// Shows how far the reading of a large file is, now and then.
pub struct Progress {
    what: &'static str,
    started: Instant,
    last: Instant,
    redraws: bool,
}

impl Progress {
    /// Starts to show the progress of `what`.
    pub fn new(what: &'static str) -> Progress {
        Progress {
            what,
            started: Instant::now(),
            last: Instant::now(),
            redraws: io::stderr().is_terminal(),
        }
    }

    /// Tells that `bytes` are done, of `total` where that is known.
    pub fn at(&mut self, bytes: u64, total: Option<u64>) {
        let pause = Duration::from_millis(if self.redraws { 200 } else { 10_000 });
        if self.last.elapsed() < pause {
            return;
        }
        self.last = Instant::now();
        let line = how_far(self.what, bytes, total, self.started.elapsed());
        if self.redraws {
            eprint!("\r{line}\x1b[K");
        } else {
            eprintln!("{line}");
        }
    }
}

/// How much is done, how fast, and how long it still takes.
fn how_far(what: &str, bytes: u64, total: Option<u64>, time: Duration) -> String {
    let seconds = time.as_secs_f64().max(0.001);
    let mib = bytes as f64 / f64::from(1 << 20);
    let speed = mib / seconds;
    let Some(total) = total.filter(|_| bytes > 0) else {
        return format!("{what}: {mib:.0} MiB, {speed:.0} MiB/s");
    };
    let percent = bytes.saturating_mul(100) / total.max(1);
    let left = (seconds * total.saturating_sub(bytes) as f64 / bytes as f64) as u64;
    let (hours, minutes, seconds) = (left / 3600, left / 60 % 60, left % 60);
    format!("{what}: {percent:3} %, {speed:.0} MiB/s, {hours}:{minutes:02}:{seconds:02} left")
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.redraws {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_long_it_still_takes_where_that_is_known() {
        let line = |total| how_far("reading", 3 << 30, total, Duration::from_secs(60));
        assert_eq!(line(None), "reading: 3072 MiB, 51 MiB/s");
        assert_eq!(
            line(Some(300 << 30)),
            "reading:   1 %, 51 MiB/s, 1:39:00 left"
        );
    }
}
