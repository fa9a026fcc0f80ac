//! After a failure behind the first write: it is said, waited for, and tried again. The machine is
//! never restarted then, since it may find no system; at most it is switched off (POWER). Only where
//! the old system is on another disk, there is an end to it.

use std::time::Duration;

use anyhow::anyhow;
use serde::{Deserialize, Serialize};

use super::Work;
use super::log::{Log, seconds};
use super::machine::Machine;
use super::stop::{Code, OrStop, Stop};
use crate::handover::Power;
use crate::sys::Sys;

/// Tries after which it is likely that only a person can help.
const QUICK_TRIES: u32 = 4;

/// Before it is switched off, so many tries have failed,
const TRIES_TO_OFF: u32 = 8;

/// and so much time has passed since the first failure.
const TIME_TO_OFF: Duration = Duration::from_secs(60 * 60);

/// Where the old system is on another disk, it starts again once so many tries have failed, within
/// five minutes and what the tries take.
const TRIES_BESIDE: u32 = 6;

/// How often a screen is drawn during a wait: the kernel writes its errors over the picture.
const REDRAW: Duration = Duration::from_secs(10);

/// In the memory folder: [`Failures`] as JSON.
const FILE: &str = "/failures";

/// What failed since the first write, also in a process before this one.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Failures {
    /// When the first one was, in seconds since the start of stage 2.
    first: u64,
    /// How many there were.
    count: u32,
}

/// Says what failed, and waits; or switches the machine off where that is wanted and it is time.
///
/// # Errors
///
/// When it is to be given up, and the old system is whole on another disk.
pub fn hold(work: &Work, tries: u32, error: &anyhow::Error) -> Result<(), Stop> {
    let failures = count(work.machine);
    if work.handover.disk.old_system.stays() {
        return hold_beside(work, failures.count, error);
    }
    let time = since(work.machine, failures);
    if work.handover.power == Power::Off && failures.count >= TRIES_TO_OFF && time >= TIME_TO_OFF {
        switch_off(work, failures, time, error);
    }
    wait(work.machine, work.log, tries, error);
    Ok(())
}

/// The same where the old system is on another disk.
fn hold_beside(work: &Work, failures: u32, error: &anyhow::Error) -> Result<(), Stop> {
    if failures >= TRIES_BESIDE {
        return Err(anyhow!("{failures} tries failed, the last: {error:#}"))
            .or_stop(Code::DiskWrite);
    }
    work.log.say_disk_errors();
    pause(work.machine, work.log, failures, error);
    Ok(())
}

/// Says what failed, and waits; longer each time, up to five minutes.
pub fn wait(machine: &dyn Machine, log: &Log, tries: u32, error: &anyhow::Error) {
    log.say_disk_errors();
    if tries >= QUICK_TRIES {
        log.tell(
            "** The disk is overwritten in part: leave the machine on. It is tried again and again.",
        );
    }
    pause(machine, log, tries, error);
}

fn pause(machine: &dyn Machine, log: &Log, tries: u32, error: &anyhow::Error) {
    let pause = Duration::from_secs(300.min(5 << tries.min(6)));
    log.tell(format!(
        "** try {tries} failed: {error:#}; next try in {} s",
        pause.as_secs()
    ));
    let mut left = pause;
    while !left.is_zero() {
        log.draw();
        let now = left.min(REDRAW);
        machine.sleep(now);
        left -= now;
    }
}

/// Forgets what failed: all is well now.
pub fn forget(machine: &dyn Machine) {
    let _ = Sys::new(machine.memory_dir()).remove_file(FILE);
}

/// Counts one more failure.
fn count(machine: &dyn Machine) -> Failures {
    let memory = Sys::new(machine.memory_dir());
    let before = memory.read(FILE).ok();
    let before: Option<Failures> = before.and_then(|text| serde_json::from_slice(&text).ok());
    let now = match before {
        Some(Failures { first, count }) => Failures {
            first,
            count: count + 1,
        },
        None => Failures {
            first: machine.elapsed().as_secs(),
            count: 1,
        },
    };
    // Not kept, the count begins anew: the machine stays on for longer.
    if let Ok(text) = serde_json::to_vec(&now) {
        let _ = memory.write_whole(FILE, &text, 0o600, None);
    }
    now
}

fn since(machine: &dyn Machine, failures: Failures) -> Duration {
    machine
        .elapsed()
        .saturating_sub(Duration::from_secs(failures.first))
}

/// Returns only when the machine can't be switched off.
fn switch_off(work: &Work, failures: Failures, time: Duration, error: &anyhow::Error) {
    work.log.say_disk_errors();
    work.log.tell(format!(
        "** {} tries failed within {}, and POWER=off: the machine is switched off. Its disk is \
         overwritten in part. The last failure: {error:#}",
        failures.count,
        seconds(time)
    ));
    work.log.draw();
    work.log.close_drive();
    let Err(error) = work.machine.power_off();
    work.log.tell(format!("switching the machine off: {error}"));
}
