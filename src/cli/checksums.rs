//! `balena-migrate checksums`: the list of checksums that stage 1 verifies, for a HOME_DIR that will be
//! copied to many machines.

use anyhow::Context;

use super::plan::load;
use super::{Exit, Failure, Options, screen};
use crate::checksums::{self, SHA256_LIST};
use crate::sys::Sys;

/// `balena-migrate checksums`.
pub fn checksums(sys: &Sys, options: &Options) -> Result<Exit, Failure> {
    let config = load(sys, options)?;
    let home = &config.home_dir.0;
    let count =
        checksums::write(sys, home).with_context(|| format!("writing {SHA256_LIST} in {home}"))?;
    screen::print(&format!(
        "{SHA256_LIST} in {home} has the checksums of {count} files.\n"
    ))?;
    Ok(Exit::Done)
}
