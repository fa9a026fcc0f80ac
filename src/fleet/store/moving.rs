//! All units of a store go into another one, such as from a folder into PostgreSQL, and back.
//!
//! No unit can be taken in both stores at any moment, wherever this is cut off:
//!
//! 1. both stores note the move, and take no new units from then on;
//! 2. the units are set aside where they are: no worker finds them there;
//! 3. they are taken in by the other store, each once, since they keep their names;
//! 4. what was set aside is removed, then the notes.
//!
//! The same call again goes on from where the last one ended.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Entry, State, Store};

/// A store as the other side of a move knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Random, made with the store.
    pub identity: String,
    /// Where it is, for messages; without any password.
    pub shown: String,
}

/// What a store notes of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Its units leave.
    From,
    /// Units arrive.
    To,
}

/// A unit on its way, as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Of its file in the state `units`.
    pub name: String,
    /// Where it was, and will be.
    pub state: State,
    /// The text of its file.
    pub text: String,
}

/// A store whose units can be moved. Each method may be called again after it was cut off.
pub trait Movable: Store {
    /// The store itself.
    fn side(&self) -> Result<Side>;

    /// The other side of a move that is not over.
    fn moving(&self, role: Role) -> Result<Option<Side>>;

    /// Notes that a move begins, or that it is over.
    fn note_moving(&self, role: Role, other: Option<&Side>) -> Result<()>;

    /// Sets all units aside.
    ///
    /// # Errors
    ///
    /// When a worker runs or holds a unit; then it did nothing.
    fn set_aside(&self) -> Result<()>;

    /// What was set aside.
    fn aside(&self) -> Result<Vec<Parcel>>;

    /// Takes units in, those that it does not have by name.
    fn take_in(&self, parcels: &[Parcel]) -> Result<()>;

    /// Removes what was set aside.
    fn clear_aside(&self) -> Result<()>;
}

/// Why units are not moved; they are all where they were.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The two are one.
    #[error("{0} is both stores; name another one with --to")]
    Same(String),
    /// An earlier move of one of them goes elsewhere, or comes from elsewhere.
    #[error("an earlier move from {from} to {to} is not over; end that first, by `migdb move`")]
    Other {
        /// Where it began.
        from: String,
        /// Where it goes.
        to: String,
    },
    /// Units of these ids are in both.
    #[error("units {} are in both stores; nothing was moved: only one of them can be right", .0.join(", "))]
    Duplicates(Vec<String>),
    /// A store has a fault, or is in use.
    #[error(transparent)]
    Fault(#[from] anyhow::Error),
}

/// Moves all units, and gives how many there were.
pub fn move_all(from: &dyn Movable, to: &dyn Movable) -> Result<usize, MoveError> {
    let (here, there) = (from.side()?, to.side()?);
    if here.identity == there.identity {
        return Err(MoveError::Same(here.shown));
    }
    let goes_on = check_notes(from, to, &here, &there)?;
    // First where they go: a store that has its note is the only one that can be the target.
    to.note_moving(Role::To, Some(&here))?;
    from.note_moving(Role::From, Some(&there))?;
    from.recover()?;
    let aside = match set_aside(from, to) {
        Ok(()) => from.aside()?,
        Err(error) => {
            if !goes_on && from.aside()?.is_empty() {
                forget(from, to)?;
            }
            return Err(error);
        }
    };
    to.take_in(&aside)?;
    from.clear_aside()?;
    forget(from, to)?;
    Ok(aside.len())
}

/// Whether a move of the same two was cut off; those of others are in the way.
fn check_notes(
    from: &dyn Movable,
    to: &dyn Movable,
    here: &Side,
    there: &Side,
) -> Result<bool, MoveError> {
    let other = |from: &Side, to: &Side| MoveError::Other {
        from: from.shown.clone(),
        to: to.shown.clone(),
    };
    if let Some(source) = from.moving(Role::To)? {
        return Err(other(&source, here));
    }
    if let Some(target) = to.moving(Role::From)? {
        return Err(other(there, &target));
    }
    let (target, source) = (from.moving(Role::From)?, to.moving(Role::To)?);
    match (&target, &source) {
        (Some(target), _) if target.identity != there.identity => Err(other(here, target)),
        (_, Some(source)) if source.identity != here.identity => Err(other(source, there)),
        (target, source) => Ok(target.is_some() || source.is_some()),
    }
}

fn set_aside(from: &dyn Movable, to: &dyn Movable) -> Result<(), MoveError> {
    let id = |entry: &Entry| entry.unit.id().to_owned();
    let there: Vec<String> = to.all()?.iter().map(id).collect();
    let mut both: Vec<String> = from.all()?.iter().map(id).collect();
    both.retain(|id| there.contains(id));
    match both.is_empty() {
        true => Ok(from.set_aside()?),
        false => Err(MoveError::Duplicates(both)),
    }
}

fn forget(from: &dyn Movable, to: &dyn Movable) -> Result<()> {
    from.note_moving(Role::From, None)?;
    to.note_moving(Role::To, None)
}

/// Says why a store that is in use is not moved.
pub(super) fn in_use(who: &[String]) -> anyhow::Error {
    anyhow::anyhow!(
        "units are held, or may be, by {}; nothing was moved: end the workers with `migdb stop` first",
        who.join(", ")
    )
}
