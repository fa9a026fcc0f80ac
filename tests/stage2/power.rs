//! The power of the machine, which can be cut at any write to its disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SECTOR: usize = 512;

/// What a power cut does to what was written but not flushed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Loss {
    /// Nothing: the disk has no cache.
    #[default]
    Nothing,
    /// All of it is lost.
    All,
    /// Every second write of it is lost: a cache keeps no order.
    EverySecond,
}

/// When the power is cut, and how.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// In the middle of this write to the disk, counted from 1.
    pub write: u32,
    /// How much of that write is on the disk, in whole sectors; of one sector, all or nothing.
    pub percent: usize,
    pub loss: Loss,
}

/// The power.
#[derive(Default)]
pub struct Power(Mutex<State>);

#[derive(Default)]
struct State {
    cut: Option<Cut>,
    off: bool,
    writes: u32,
    /// Where was written since the last flush, and what was there before.
    unflushed: Vec<(u64, Vec<u8>)>,
}

impl Power {
    pub fn plan(&self, cut: Cut) {
        self.state().cut = Some(cut);
    }

    /// Writes so far.
    pub fn writes(&self) -> u32 {
        self.state().writes
    }

    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// Nothing works without power.
    pub fn check(&self) {
        assert!(!self.is_off(), "the power is off");
    }

    /// Writes to the disk; ends here when the power is cut now.
    pub fn write(&self, medium: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check();
        let mut state = self.state();
        state.writes += 1;
        let cut = state.cut.filter(|cut| cut.write == state.writes);
        let kept = match cut {
            Some(cut) => bytes.len() / SECTOR * cut.percent / 100 * SECTOR,
            None => bytes.len(),
        };
        let mut before = vec![0; kept];
        medium.read_exact_at(&mut before, offset)?;
        medium.write_all_at(&bytes[..kept], offset)?;
        state.unflushed.push((offset, before));
        let Some(cut) = cut else { return Ok(()) };
        let mut unflushed: Vec<_> = state.unflushed.drain(..).enumerate().collect();
        unflushed.retain(|(index, _)| match cut.loss {
            Loss::Nothing => false,
            Loss::All => true,
            Loss::EverySecond => index % 2 == 0,
        });
        for (_, (offset, before)) in unflushed.into_iter().rev() {
            medium.write_all_at(&before, offset)?;
        }
        state.off = true;
        drop(state);
        // Hundreds of backtraces would take longer than all else.
        resume_unwind(Box::new("the power is cut"));
    }

    /// All that was written stays.
    pub fn flush(&self) {
        self.check();
        self.state().unflushed.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
