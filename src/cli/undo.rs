//! `balena-migrate undo`: takes back whatever an earlier run did, also after a crash.

use super::{Exit, Failure, lock, screen};
use crate::engine;
use crate::sys::Sys;

/// `balena-migrate undo`.
pub fn undo(sys: &Sys) -> Result<Exit, Failure> {
    let _only_one = lock::take(sys)?;
    take_back(sys)
}

/// Takes back, and says what came of it.
pub fn take_back(sys: &Sys) -> Result<Exit, Failure> {
    let undone = engine::undo::undo(sys).map_err(|error| Failure(Exit::UndoIncomplete, error))?;
    if !undone.left.is_empty() {
        screen::print(&format!(
            "Not everything could be taken back:\n  {}\nPut these right, then run \
             `balena-migrate undo` again.\n",
            undone.left.join("\n  ")
        ))?;
        return Ok(Exit::UndoIncomplete);
    }
    screen::print(match undone.anything {
        true => "Everything was taken back; the machine is as it was before.\n",
        false => "There is nothing to undo.\n",
    })?;
    if let Some(log) = undone.log {
        screen::print(&format!("The log of stage 2 is in {log}\n"))?;
    }
    Ok(Exit::Done)
}
