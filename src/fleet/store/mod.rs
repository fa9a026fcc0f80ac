//! Where units are kept, and how a worker gets one for itself alone.
//!
//! A unit is in one [`State`]. To change it, take it with [`Store::claim`], note what happens with
//! [`Store::save`], and let it go with [`Store::release`], into the state that follows from what
//! its file says ([`home`]). What a dead worker held comes back by [`Store::recover`].

pub mod address;
pub mod directory;
pub mod lease;
pub mod moving;
pub mod postgres;

use std::time::Duration;

use anyhow::{Result, anyhow};

use super::moment::Moment;
use super::unit::{Status, Unit};

/// Where a unit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits for its migration.
    Units,
    /// It was told to migrate and was not seen online yet.
    Process,
    /// It was seen with the new system.
    Done,
    /// It was given up.
    Fail,
    /// A worker has it.
    Tmp,
}

impl State {
    /// All of them, in the order of the way.
    pub const ALL: [State; 5] = [
        State::Units,
        State::Tmp,
        State::Process,
        State::Done,
        State::Fail,
    ];

    /// The one of that name.
    pub fn named(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Its name, which is also that of its folder.
    pub fn name(self) -> &'static str {
        match self {
            State::Units => "units",
            State::Process => "process",
            State::Done => "done",
            State::Fail => "fail",
            State::Tmp => "tmp",
        }
    }
}

/// The state that a unit belongs in when nobody holds it.
pub fn home(unit: &Unit) -> State {
    match unit.status() {
        _ if unit.has_failed() => State::Fail,
        Status::Init | Status::Ordered => State::Units,
        Status::Migrated => State::Process,
        Status::Done => State::Done,
    }
}

/// A unit as it is kept.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it is.
    pub state: State,
    /// What it says.
    pub unit: Unit,
    /// Who has it, in words, when a worker does.
    pub holder: Option<String>,
}

/// What came of the wish for a unit.
#[derive(Debug)]
pub enum Claimed {
    /// One was due: it is the caller's.
    Unit(Claim),
    /// None is due; the next one will be then.
    Later(Moment),
    /// There is none in that state.
    Empty,
}

/// A unit that is the caller's alone, until it is released or the caller dies.
#[derive(Debug)]
pub struct Claim {
    /// The unit as it was read.
    pub unit: Unit,
    /// How the store knows it.
    name: String,
}

impl Claim {
    /// How the store knows it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Why units were not added: all of them, or none.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// Units of these ids are there already, in these states.
    #[error("{}", in_words(.0))]
    Duplicates(Vec<(String, State)>),
    /// Units are on their way into another store, or from one.
    #[error("a move of units is not over; nothing was added: say `migdb move` again, then add")]
    Moving,
    /// The store has a fault.
    #[error(transparent)]
    Fault(#[from] anyhow::Error),
}

fn in_words(duplicates: &[(String, State)]) -> String {
    let lines: Vec<String> = duplicates
        .iter()
        .map(|(id, state)| {
            format!(
                "unit {id} is there already, in {}; nothing was added: leave it out, or say \
                 --skip-existing",
                state.name()
            )
        })
        .collect();
    lines.join("\n")
}

/// Why a worker can't write a unit any more.
fn taken_away(claim: &Claim) -> anyhow::Error {
    anyhow!(
        "unit {} was taken from this worker: it was silent for longer than {} s",
        claim.unit.id(),
        lease::SILENCE.as_secs()
    )
}

/// Who has a unit of [`State::Tmp`] whose lease is that.
fn holder_in_words(lease: Option<lease::Lease>) -> String {
    lease.map_or_else(
        || "an older tool, or nobody".to_owned(),
        |lease| lease.holder.describe(),
    )
}

/// Tells of a unit that came back from the dead.
fn say_back(id: &str, lease: &lease::Lease) {
    log::warn!(
        "unit {id} is back from {}, which is dead",
        lease.holder.describe()
    );
}

/// A place for units that several processes share. All methods can be called from any thread.
pub trait Store: Send + Sync {
    /// Adds units to [`State::Units`], all or none.
    fn add(&self, units: &[Unit]) -> Result<(), AddError>;

    /// Every unit once, by id.
    fn all(&self) -> Result<Vec<Entry>>;

    /// Takes a unit of `from` that is due and that `wanted` says yes to.
    fn claim(&self, from: State, now: Moment, wanted: &dyn Fn(&Unit) -> bool) -> Result<Claimed>;

    /// Writes what a held unit says now.
    ///
    /// # Errors
    ///
    /// Also when it is not held any more: this process was taken for dead.
    fn save(&self, claim: &Claim) -> Result<()>;

    /// Writes what a held unit says, and lets it go into its [`home`].
    fn release(&self, claim: Claim) -> Result<()>;

    /// Lets the unit of a claim of this process go as it was saved last, when nobody works on it any
    /// more: [`Store::release`] failed. It is no error when the claim is gone.
    fn give_back(&self, name: &str) -> Result<()>;

    /// Says that the holder of the claim of that [`Claim::name`], or the worker of a note of
    /// [`Store::enlist`], is alive; to be called every [`lease::BEAT`].
    fn renew(&self, name: &str) -> Result<()>;

    /// Waits for a unit that comes into a state, for a stop, a signal, or the end of `limit`.
    fn wait(&self, limit: Duration) -> Result<()>;

    /// Ends a wait of this process, the next one if there is none.
    fn poke(&self);

    /// Lets go what dead workers held, and gives its ids.
    fn recover(&self) -> Result<Vec<String>>;

    /// Notes that a worker runs in this process, until the answer is given to [`Store::leave`].
    fn enlist(&self, what: &str) -> Result<String>;

    /// Takes a note of [`Store::enlist`] away.
    fn leave(&self, note: &str) -> Result<()>;

    /// The workers that run, in words.
    fn workers(&self) -> Result<Vec<String>>;

    /// Asks all workers to end what they have in hand and to take no more.
    fn ask_to_stop(&self) -> Result<()>;

    /// Whether that was asked.
    fn stop_asked(&self) -> Result<bool>;

    /// Takes it back.
    fn take_back_stop(&self) -> Result<()>;
}
