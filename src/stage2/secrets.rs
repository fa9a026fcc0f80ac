//! Secrets that the old system's disk still has outside of the new system: wiped at the very end.

use anyhow::Context;

use super::Work;
use super::let_go::take;
use super::machine::{Disk, write_full};
use super::stream::{BLOCK, Block};
use crate::handover::Extent;

/// Wipes what started this stage, since it has the files for the new system in it. Best effort: the
/// new system is complete, and does without.
pub fn wipe(work: &Work, disk: &Disk) {
    let resume = work.handover.resume.as_ref();
    let secrets = resume.map_or(&[][..], |resume| &resume.secrets);
    if secrets.is_empty() {
        return;
    }
    match try_wipe(work, disk, secrets) {
        Ok(()) => work.log.say("what is secret behind the image is wiped"),
        Err(error) => work
            .log
            .say(format!("wiping what is secret behind the image: {error:#}")),
    }
}

fn try_wipe(work: &Work, disk: &Disk, secrets: &[Extent]) -> anyhow::Result<()> {
    let mut device = take(work, disk)?;
    let mut zeros = Block::new();
    for extent in secrets {
        let mut at = extent.start;
        while at < extent.end() {
            let now = (extent.end() - at).min(BLOCK as u64);
            write_full(&mut *device, &zeros.all()[..now as usize], at)
                .with_context(|| format!("at byte {at}"))?;
            at += now;
        }
    }
    device.sync().context("waiting for the disk")
}
