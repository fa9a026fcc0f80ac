//! `migdb retry`.

use std::collections::BTreeSet;

use anyhow::anyhow;

use super::{Common, Exit, Failure, open, print};
use crate::fleet::moment::Moment;
use crate::fleet::store::{Claimed, State, Store};
use crate::fleet::unit::{Unit, field};
use crate::sys::Sys;

/// Options of `retry`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The units
    #[arg(value_name = "UNIT_ID", required_unless_present_any = ["all", "code"])]
    ids: Vec<String>,

    /// All that failed
    #[arg(long, conflicts_with_all = ["ids", "code"])]
    all: bool,

    /// All that failed for this reason, as `list --json` names it
    #[arg(long, value_name = "FAIL_CODE", conflicts_with = "ids")]
    code: Option<String>,

    /// Migrate also devices that were told to migrate already
    #[arg(long)]
    from_scratch: bool,
}

/// Lets failed units go back to where they were.
pub fn retry(sys: &Sys, common: &Common, options: &Options) -> Result<Exit, Failure> {
    let settings = common.settings(sys, Vec::new())?;
    let store = open(sys, &settings, false)?;
    check(store.as_ref(), options)?;
    let now = Moment::now();
    let mut back = BTreeSet::new();
    // What fails again in the meantime is not for this call.
    let wanted = |unit: &Unit| {
        let early = unit
            .moment(field::FAILED)
            .is_none_or(|failed| failed <= now);
        early && options.mean(unit)
    };
    while let Claimed::Unit(mut claim) =
        store.claim(State::Fail, Moment(i64::MAX), &|unit| wanted(unit))?
    {
        claim.unit.retry(options.from_scratch, now);
        back.insert(claim.unit.id().to_owned());
        store.release(claim)?;
    }
    print(&format!("{} units get another chance\n", back.len()))?;
    Ok(Exit::Done)
}

impl Options {
    fn mean(&self, unit: &Unit) -> bool {
        match &self.code {
            Some(code) => unit.get(field::FAIL_CODE) == Some(code),
            None => self.all || self.ids.iter().any(|id| id == unit.id()),
        }
    }
}

/// All that were named must have failed.
fn check(store: &dyn Store, options: &Options) -> Result<(), Failure> {
    let entries = store.all()?;
    let mut wrong = Vec::new();
    for id in &options.ids {
        match entries.iter().find(|entry| entry.unit.id() == id) {
            Some(entry) if entry.state == State::Fail => {}
            Some(entry) => wrong.push(format!(
                "unit {id} has not failed, it is in {}; leave it out",
                entry.state.name()
            )),
            None => wrong.push(format!("there is no unit {id}; `migdb list` shows all")),
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure(Exit::Refused, anyhow!("{}", wrong.join("\n")))),
    }
}
