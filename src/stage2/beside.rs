//! An old system on another disk than the one that is overwritten (FLASH_TO): it can be told of what
//! comes after the first write too, and it starts again when the flash is given up.

use anyhow::anyhow;

use super::machine::Disk;
use super::stop::Stop;
use super::{Work, find, hold, old_system, overwrite};
use crate::handover::Firmware;
use crate::report::Outcome;

/// Just before the first write: should the power be lost, the old system starts and reads this.
pub fn tell_start(work: &Work, disk: Option<&Disk>) {
    if stays(work) {
        let disk_in_words = name(disk);
        let outcome = Outcome::Overwriting {
            disk: disk_in_words,
        };
        old_system::report(work, disk, outcome);
    }
}

/// The new system is complete.
pub fn tell_success(work: &Work, disk: Option<&Disk>) {
    if !stays(work) {
        return;
    }
    if work.handover.firmware == Firmware::Bios {
        work.log.tell(format!(
            "** The new system is on {}, and the old one on another disk: the BIOS starts the one that \
             is first in its boot order.",
            name(disk)
        ));
    }
    let outcome = Outcome::Migrated { disk: name(disk) };
    old_system::report(work, disk, outcome);
}

/// The disk can't be overwritten: the old system starts again.
pub fn give_up(work: &Work, disk: Option<&Disk>, stop: &Stop) {
    overwrite::unmark(work.machine);
    hold::forget(work.machine);
    work.log.say_disk_errors();
    work.log.tell(format!("** given up: {stop}"));
    let outcome = Outcome::Failed {
        disk: name(disk),
        code: stop.code.name().to_owned(),
        reason: stop.reason(),
    };
    old_system::report(work, disk, outcome);
}

/// The death of the process that overwrote the disk is a try that failed.
///
/// # Errors
///
/// When it is to be given up.
pub fn count_death(work: &Work) -> Result<(), Stop> {
    match stays(work) {
        true => hold::hold(work, 1, &anyhow!("stage 2 died")),
        false => Ok(()),
    }
}

fn stays(work: &Work) -> bool {
    work.handover.disk.old_system.stays()
}

fn name(disk: Option<&Disk>) -> String {
    disk.map_or("the disk".to_owned(), find::describe)
}
