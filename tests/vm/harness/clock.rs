//! Measures the phases of a scenario.

use std::fmt;
use std::time::{Duration, Instant};

/// A stopwatch that is told when the next phase begins.
pub struct Clock {
    done: Vec<(String, Duration)>,
    current: (String, Instant),
}

impl Clock {
    pub fn start(phase: &str) -> Self {
        Clock {
            done: Vec::new(),
            current: (phase.to_owned(), Instant::now()),
        }
    }

    /// Ends the current phase and begins another.
    pub fn next(&mut self, phase: &str) {
        let now = Instant::now();
        let (name, since) = std::mem::replace(&mut self.current, (phase.to_owned(), now));
        self.done.push((name, now - since));
    }

    /// Ends the current phase and returns them all.
    pub fn stop(self) -> Phases {
        let mut done = self.done;
        done.push((self.current.0, self.current.1.elapsed()));
        Phases(done)
    }
}

/// Finished phases; displays as a table with the sum.
pub struct Phases(Vec<(String, Duration)>);

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, took) in &self.0 {
            writeln!(f, "{:7.1} s  {name}", took.as_secs_f32())?;
        }
        let all: Duration = self.0.iter().map(|(_, took)| *took).sum();
        write!(f, "{:7.1} s  in all", all.as_secs_f32())
    }
}
