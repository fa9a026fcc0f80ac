//! A few units first, and an end when too many fail: a bad image does not take the fleet.
//!
//! Only units whose migration was begun count: a device that can't be reached, or does not pass its
//! checks, says nothing of the image.

use anyhow::Result;

use crate::fleet::store::{Entry, State};
use crate::fleet::unit::field;

use super::Shared;

/// How many first, and how many may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// So many units are begun before what becomes of them is known.
    pub first: usize,
    /// The workers end when more of the units that came to an end failed.
    pub percent: u32,
}

/// Units by what counts for a canary.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Held, or begun and not at an end.
    open: usize,
    /// Begun, and online.
    done: usize,
    /// Begun, and failed.
    failed: usize,
}

/// Whether another unit may be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Not before others came to an end.
    Closed,
    /// None may any more, and why.
    Halted(String),
}

impl Shared<'_> {
    /// Judges by one look at all units: what ended between two looks could open the gate that it has to
    /// shut.
    pub(super) fn gate(&self) -> Result<Gate> {
        match self.work.canary {
            None => Ok(Gate::Open),
            Some(canary) => Ok(gate(canary, count(&self.store.all()?))),
        }
    }
}

fn count(entries: &[Entry]) -> Counts {
    let mut counts = Counts::default();
    for entry in entries {
        let begun = entry.unit.number(field::ATTEMPTS).unwrap_or(0) > 0;
        match entry.state {
            State::Tmp => counts.open += 1,
            _ if !begun => {}
            State::Done => counts.done += 1,
            State::Fail => counts.failed += 1,
            State::Units | State::Process => counts.open += 1,
        }
    }
    counts
}

fn gate(canary: Canary, counts: Counts) -> Gate {
    let ended = counts.done + counts.failed;
    if counts.failed * 100 > canary.percent as usize * ended.max(canary.first) {
        return Gate::Halted(format!(
            "{} of {ended} migrated units failed, more than {} %: no further one is begun; see \
             `migdb list --state fail`",
            counts.failed, canary.percent
        ));
    }
    match ended >= canary.first || ended + counts.open < canary.first {
        true => Gate::Open,
        false => Gate::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: Canary = Canary {
        first: 10,
        percent: 20,
    };

    fn counts(open: usize, done: usize, failed: usize) -> Counts {
        Counts { open, done, failed }
    }

    #[test]
    fn the_rest_waits_for_the_first() {
        let gate = |open, done, failed| gate(CANARY, counts(open, done, failed));
        assert_eq!(gate(9, 0, 0), Gate::Open);
        assert_eq!(gate(10, 0, 0), Gate::Closed);
        assert_eq!(gate(1, 8, 1), Gate::Closed);
        assert_eq!(gate(0, 8, 2), Gate::Open);
        assert_eq!(gate(500, 10, 0), Gate::Open);
    }

    #[test]
    fn too_many_failures_halt_also_later() {
        let halts = |open, done, failed| {
            matches!(gate(CANARY, counts(open, done, failed)), Gate::Halted(_))
        };
        assert!(!halts(8, 0, 2), "2 of 10 are 20 %");
        assert!(halts(7, 0, 3));
        assert!(!halts(0, 85, 15));
        assert!(halts(0, 79, 21));
    }
}
