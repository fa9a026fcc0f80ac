//! `migdb stop`.

use std::time::Duration;

use super::{Common, Exit, Failure, open, print};
use crate::sys::Sys;

/// Options of `stop`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Take back an earlier stop that was cut off
    #[arg(long)]
    cancel: bool,
}

/// How often workers are looked at: the end of one may not be told.
const LOOK: Duration = Duration::from_secs(1);

/// Asks the workers to stop and waits until the last one did.
pub fn stop(sys: &Sys, common: &Common, options: &Options) -> Result<Exit, Failure> {
    let settings = common.settings(sys, Vec::new())?;
    let store = open(sys, &settings, false)?;
    if options.cancel {
        store.take_back_stop()?;
        return Ok(Exit::Done);
    }
    store.ask_to_stop()?;
    let mut said = 0;
    loop {
        let workers = store.workers()?;
        if workers.is_empty() {
            break;
        }
        if workers.len() != said {
            log::info!("waiting for {}", workers.join(", "));
            said = workers.len();
        }
        store.wait(LOOK)?;
    }
    store.take_back_stop()?;
    print("no worker runs\n")?;
    Ok(Exit::Done)
}
