//! Applies a plan, step by step, so that it can be taken back at any moment.
//!
//! For each step: foresee what takes it back (reads only, besides saving old files) → journal that
//! → act → journal that it is done. A failure or a signal walks the journal backwards at once;
//! after a crash `balena-migrate undo` does.

pub mod act;
mod by_tool;
mod core;
pub mod journal;
pub mod keep;
pub mod undo;

use anyhow::Result;

use crate::plan::Steps;
use crate::step::OneShot;
use crate::sys::Sys;
use journal::{Begin, JournalWriter, Record};
use keep::NoRoom;

/// Why a plan was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A step failed and everything was taken back.
    #[error("{0:#}; everything was taken back")]
    Undone(anyhow::Error),
    /// A step failed and not everything could be taken back.
    #[error("{cause:#}; and not everything could be taken back:\n{}", left.join("\n"))]
    UndoIncomplete {
        /// What failed first.
        cause: anyhow::Error,
        /// What could not be taken back.
        left: Vec<String>,
    },
}

impl ApplyError {
    /// Why the files can't be kept behind the new system, if it is that, and all was taken back.
    pub fn no_room(&self) -> Option<&NoRoom> {
        match self {
            ApplyError::Undone(cause) => cause.downcast_ref(),
            ApplyError::UndoIncomplete { .. } => None,
        }
    }
}

/// Does the `work` of a plan. `changing` is the machine with a gate that fails when the user interrupts;
/// `sys` is the same machine for the undo. `say` gets each step in words before it
/// is done, and how far a long one is.
pub fn apply(
    sys: &Sys,
    changing: &Sys,
    work: &Steps,
    begin: Begin,
    say: &mut dyn FnMut(usize, &str),
) -> Result<(), ApplyError> {
    let Err(cause) = apply_steps(changing, work, begin, say) else {
        return Ok(());
    };
    match undo::undo(sys) {
        Ok(done) if done.left.is_empty() => Err(ApplyError::Undone(cause)),
        Ok(done) => Err(ApplyError::UndoIncomplete {
            cause,
            left: done.left,
        }),
        Err(error) => Err(ApplyError::UndoIncomplete {
            cause,
            left: vec![format!("{error:#}")],
        }),
    }
}

/// The road forward; stops at the first error and leaves the rest to the journal.
fn apply_steps(
    sys: &Sys,
    work: &Steps,
    begin: Begin,
    say: &mut dyn FnMut(usize, &str),
) -> Result<()> {
    let one_shot = begin.one_shot.clone();
    let mut journal = JournalWriter::start(sys, begin)?;
    for (number, step) in work.steps.iter().enumerate() {
        let what = step.describe();
        say(number, &what);
        let undo = act::foresee(sys, number, step)?;
        journal.append(&Record::Foreseen {
            step: number,
            what,
            undo,
        })?;
        act::act(sys, step, &mut |how_far| say(number, how_far))?;
        journal.append(&Record::Done { step: number })?;
    }
    // What was renamed into place is durable by itself; tools of the distribution promise nothing.
    sys.sync();
    settle(sys, one_shot.as_ref());
    journal.append(&Record::Complete { armed: work.armed })
}

/// Lets the boot loader see what was done in its folder, also when power goes at once.
///
/// A failure is only logged: the file system does the same within half a minute.
fn settle(sys: &Sys, one_shot: Option<&OneShot>) {
    let Some(file) = one_shot.and_then(OneShot::file) else {
        return;
    };
    if let Err(error) = sys.settle(file) {
        log::warn!("bringing {file} to its place on the disk: {error}");
    }
}
