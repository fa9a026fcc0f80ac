//! One `run` or `undo` at a time.

use std::io;
use std::time::Duration;

use anyhow::anyhow;

use super::{Exit, Failure};
use crate::sys::Sys;
use crate::sys::files::Lock;

const PATH: &str = "/run/balena-migrate.lock";

/// Another one is at work.
#[derive(Debug, thiserror::Error)]
#[error("another balena-migrate is running (it holds {PATH}); wait for it")]
pub struct Busy;

/// Two runs at once would take each other's files for those of the old system.
pub fn take(sys: &Sys) -> Result<Lock, Failure> {
    // Who asks by `is_held` has it for a moment.
    const TRIES: u32 = 10;
    for n in 0..TRIES {
        match sys.lock(PATH) {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) if n + 1 < TRIES => sys.sleep(Duration::from_millis(50)),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Failure(
                    Exit::Refused,
                    anyhow!("this was not started by root; run it with sudo"),
                ));
            }
            Err(error) => {
                return Err(anyhow::Error::new(error)
                    .context(format!("locking {PATH}"))
                    .into());
            }
        }
    }
    Err(Failure(Exit::Refused, Busy.into()))
}

/// Whether a run or an undo is at work. Only root can tell.
pub fn is_held(sys: &Sys) -> bool {
    sys.exists(PATH) && matches!(sys.lock(PATH), Ok(None))
}
