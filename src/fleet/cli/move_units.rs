//! `migdb move`.

use anyhow::anyhow;

use super::{Base, Common, Exit, Failure, base, print};
use crate::fleet::settings::MIG_DB_TO;
use crate::fleet::store::moving::{MoveError, move_all};
use crate::sys::Sys;

/// Options of `move`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The other store, as --base names one; it is made when it is not there.
    /// Cut off, the same call goes on: no unit is lost, or is in both (MIG_DB_TO)
    #[arg(long, value_name = "BASE")]
    to: Option<String>,
}

/// Moves all units into another store.
pub fn move_units(sys: &Sys, common: &Common, options: &Options) -> Result<Exit, Failure> {
    let settings = common.settings(sys, vec![(MIG_DB_TO, options.to.clone())])?;
    let to = settings.shared(&MIG_DB_TO).ok_or_else(|| {
        let what = "name the other store with --to or MIG_DB_TO";
        Failure(Exit::Usage, anyhow!(what))
    })?;
    let to = Base::read(sys, &to)?;
    let from = base(sys, &settings)?.open(sys, false)?;
    let to = to.open(sys, true)?;
    let moved = move_all(from.as_ref(), to.as_ref()).map_err(|error| match error {
        MoveError::Fault(error) => Failure(Exit::Fault, error),
        error => Failure(Exit::Refused, error.into()),
    })?;
    print(&format!(
        "{moved} units were moved to {}\n",
        to.side()?.shown
    ))?;
    Ok(Exit::Done)
}
