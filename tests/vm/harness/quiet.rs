//! How long a machine says nothing, and when that is too long.
//!
//! Time is counted in pieces that were really waited for: a host that stood still for minutes, or whose clock
//! has jumped, has not waited.

use std::time::Duration;

/// How long a machine may stay silent before the bench gives up on it.
///
/// Silence and not total time: the same boot takes 20 s on an idle host and 90 s on a busy one, the standard
/// kernel's four times as long, and it says nothing.
pub const PATIENCE: Duration = Duration::from_secs(400);

/// One piece of waiting for the console.
pub const SLICE: Duration = Duration::from_secs(10);

/// When the machine is nudged, and how often again: emulated processors have been seen to sleep on though
/// something had happened, and look anew when they are stopped and go on.
const NUDGE: Duration = Duration::from_secs(120);

/// A silence.
#[derive(Default)]
pub struct Quiet {
    waited: Duration,
    nudged: Duration,
    heard: usize,
}

impl Quiet {
    /// Adds a piece in which nothing came. `heard` is how much was said so far: when that has grown, the
    /// silence began anew.
    pub fn add(&mut self, piece: Duration, heard: usize) {
        if heard != self.heard {
            *self = Quiet {
                heard,
                ..Quiet::default()
            };
        }
        self.waited += piece;
    }

    /// Nobody waits any longer.
    pub fn is_too_long(&self) -> bool {
        self.waited >= PATIENCE
    }

    /// Whether it is time for a nudge, once for each time.
    pub fn wants_a_nudge(&mut self) -> bool {
        let due = self.waited >= self.nudged + NUDGE;
        if due {
            self.nudged += NUDGE;
        }
        due
    }
}

#[test]
fn only_silence_that_was_waited_for_counts() {
    let mut quiet = Quiet::default();
    let mut nudges = 0;
    for piece in 1..=40 {
        quiet.add(SLICE, 7);
        nudges += u32::from(quiet.wants_a_nudge());
        assert_eq!(quiet.is_too_long(), piece >= 40, "{piece}");
    }
    assert_eq!(nudges, 3);
    quiet.add(SLICE, 8);
    assert!(!quiet.is_too_long() && !quiet.wants_a_nudge());
}
