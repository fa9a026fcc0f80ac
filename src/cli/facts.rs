//! `balena-migrate facts`: the host snapshot as JSON, for bug reports and as a test fixture.

use anyhow::Context;

use super::{Exit, Failure, screen};
use crate::host::{self, Host};
use crate::sys::Sys;

/// `balena-migrate facts`.
pub fn facts(sys: &Sys) -> Result<Exit, Failure> {
    let mut host = host::collect::collect(sys).context("looking at this machine")?;
    remove_secrets(&mut host);
    let text = serde_json::to_string_pretty(&host).context("writing the facts")?;
    screen::print(&format!("{text}\n"))?;
    Ok(Exit::Done)
}

/// Password hashes may stand in GRUB's configuration (GNU GRUB manual, "Authentication").
fn remove_secrets(host: &mut Host) {
    let Some(grub) = &mut host.grub else {
        return;
    };
    for file in [&mut grub.custom_cfg, &mut grub.grub_cfg]
        .into_iter()
        .flatten()
    {
        let lines = file.text.lines().map(|line| match line.find("password") {
            Some(at) => format!("{}password (left out)\n", &line[..at]),
            None => format!("{line}\n"),
        });
        file.text = lines.collect();
    }
}
