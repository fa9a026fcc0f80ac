//! One `run` or `undo` at a time.

use std::io;

use anyhow::anyhow;

use super::{Exit, Failure};
use crate::sys::Sys;
use crate::sys::files::Lock;

/// Two runs at once would take each other's files for those of the old system.
pub fn take(sys: &Sys) -> Result<Lock, Failure> {
    let path = "/run/balena-migrate.lock";
    match sys.lock(path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(Failure(
            Exit::Refused,
            anyhow!("another balena-migrate is running (it holds {path}); wait for it"),
        )),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure(
            Exit::Refused,
            anyhow!("this was not started by root; run it with sudo"),
        )),
        Err(error) => Err(anyhow::Error::new(error)
            .context(format!("locking {path}"))
            .into()),
    }
}
