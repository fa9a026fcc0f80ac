//! Stage 2: everything from the kernel's start of `/init` in our initramfs to the restart into
//! the new system, or back into the old one.
//!
//! [`main`] is PID 1 ([`init`]); [`run`] is the job, in phases that are made only from the one
//! before: [`find`] → [`secure`] → [`let_go`] → [`rearm`] → [`overwrite`] → [`finish`] →
//! [`commit`]. Up to `rearm` every failure is a [`Stop`] and means the old system; from `overwrite`
//! on there is no failure, only further tries, and after a power cut [`find`] sees a disk that leads
//! there at once. Where the old system stays on another disk, it is also what a power cut leads to,
//! and what comes back when all tries have failed.
//!
//! It knows the hand-over and what it measures, runs no other program, and reaches the kernel
//! only through [`Machine`].

pub mod beside;
pub mod boot_ways;
pub mod commit;
pub mod disk_errors;
pub mod efi;
mod ending;
pub mod find;
pub mod finish;
pub mod first_sector;
pub mod flash;
pub mod grow;
pub mod hold;
pub mod image;
pub mod init;
pub mod kernel;
pub mod let_go;
pub mod log;
pub mod machine;
pub mod old_system;
pub mod overwrite;
pub mod progress;
pub mod read_back;
pub mod rearm;
pub mod record;
pub mod screen;
pub mod secrets;
pub mod secure;
pub mod stop;
pub mod stream;

use std::cell::Cell;

use anyhow::{Context, anyhow};

use self::commit::Done;
use self::ending::{Next, conclude};
use self::find::{Found, Seen};
use self::finish::Unfinished;
use self::let_go::Free;
use self::log::Log;
use self::machine::{Disk, Machine};
use self::progress::mib;
use self::rearm::Rearmed;
use self::screen::Screen;
use self::stop::{Code, OrStop, Stop};
use crate::handover::{self, Handover};
use crate::report::Outcome;
use crate::sys::Sys;

pub use self::ending::Ending;
pub use self::init::main;

/// What a person at the console sees first.
const BANNER: [&str; 3] = [
    "-- balena-migrate, stage 2 ---------------------------------------",
    "-- This machine moves to balenaOS. Up to the first write to its --",
    "-- disk, any failure brings the old system back.                --",
];

/// What a person at the console sees at the point of no return.
const WARNING: [&str; 3] = [
    "******************************************************************",
    "** The disk is overwritten now: DO NOT SWITCH THE MACHINE OFF.  **",
    "******************************************************************",
];

/// What a person at the console sees when a flash goes on that was cut off.
const TORN: [&str; 3] = [
    "-- A flash of this disk was cut off, perhaps by a loss of power. --",
    "-- It goes on now; the old system is gone, the new one is not   --",
    "-- there yet.                                                   --",
];

/// What all phases work with.
pub struct Work<'a> {
    /// What stage 1 handed over.
    pub handover: &'a Handover,
    /// The machine.
    pub machine: &'a dyn Machine,
    /// Where everything is said.
    pub log: &'a Log<'a>,
    /// What starts this stage at every boot could not be put back.
    pub still_armed: Cell<bool>,
}

impl<'a> Work<'a> {
    /// What there is at the start.
    pub fn new(handover: &'a Handover, machine: &'a dyn Machine, log: &'a Log<'a>) -> Self {
        Work {
            handover,
            machine,
            log,
            still_armed: Cell::new(false),
        }
    }
}

/// Does the job.
pub fn run(machine: &dyn Machine) -> Ending {
    let log = Log::open(machine);
    for line in BANNER {
        log.say(line);
    }
    let (ending, next) = match read_handover(machine) {
        Err(stop) => (Ending::Stopped(stop), Next::OldSystem),
        Ok(handover) => {
            show_as_asked(&log, &handover);
            let work = Work::new(&handover, machine, &log);
            let ending = migrate(&work);
            let next = Next::after(&work, ending.stop());
            (ending, next)
        }
    };
    conclude(machine, &log, &ending, next);
    ending
}

/// From now on the consoles show what the hand-over asks for, and screens a picture.
fn show_as_asked(log: &Log, handover: &Handover) {
    log.set_level(handover.log_level);
    log.begin_screen(Screen::new(&handover.machine));
}

fn read_handover(machine: &dyn Machine) -> Result<Handover, Stop> {
    let bytes = Sys::new(machine.initramfs())
        .read(handover::PATH)
        .with_context(|| format!("reading {}", handover::PATH))
        .or_stop(Code::Handover)?;
    Handover::parse(&bytes).or_stop(Code::Handover)
}

fn migrate(work: &Work) -> Ending {
    load_modules(work);
    let seen = work
        .log
        .phase("find", "waiting for the disk", || find::disk(work));
    match seen {
        Ok(Seen::Torn(disk)) => go_on(work, &disk),
        Ok(Seen::Whole(found)) => {
            let disk = found.disk.clone();
            begin(work, Ok(found), Some(&disk))
        }
        Err(stop) => begin(work, Err(stop), None),
    }
}

/// The job, as long as the old system is there. `disk` is the one that was `found`.
fn begin(work: &Work, found: Result<Found, Stop>, disk: Option<&Disk>) -> Ending {
    // Also when the disk is not what it should be: its file systems may be there all the same.
    old_system::restore(work, disk);
    let rearmed = prepare(work, found, disk).and_then(|free| match work.handover.pretend {
        true => Ok(None),
        false => arm(work, free).map(Some),
    });
    if work.still_armed.get() && !matches!(rearmed, Ok(Some(_))) {
        // What it failed by may have passed: all depends on it now.
        old_system::restore(work, disk);
    }
    match rearmed {
        Ok(Some(rearmed)) => {
            beside::tell_start(work, disk);
            ended(work, disk, replace(work, rearmed))
        }
        Ok(None) => {
            old_system::report(work, disk, Outcome::Pretended);
            Ending::Pretended
        }
        Err(stop) => {
            tell_stop(work, disk, &stop);
            Ending::Stopped(stop)
        }
    }
}

/// All before the point of no return.
fn prepare(work: &Work, found: Result<Found, Stop>, disk: Option<&Disk>) -> Result<Free, Stop> {
    let running = Outcome::Running {
        phase: "secure".to_owned(),
    };
    old_system::report(work, disk, running);
    find::log_drive(work, disk);
    let found = found?;
    let secured = work
        .log
        .phase("secure", "verifying the image and all else", || {
            secure::secure(work, found)
        })?;
    work.log.phase("let_go", "letting go of the disk", || {
        let_go::let_go(work, secured)
    })
}

/// The point of no return, where it is one of its own.
fn arm(work: &Work, free: Free) -> Result<Rearmed, Stop> {
    let rearmed = work.log.phase("rearm", "preparing for a power cut", || {
        rearm::rearm(work, free)
    })?;
    warn(work, &WARNING);
    Ok(rearmed)
}

/// Tells those who stand there what not to do.
fn warn(work: &Work, lines: &[&str]) {
    work.log.show_torn();
    for line in lines {
        work.log.tell(line);
    }
}

/// All from the first write on.
fn replace(work: &Work, mut rearmed: Rearmed) -> Result<Done, Stop> {
    loop {
        let what = "writing the image to the disk";
        let flashed = work
            .log
            .phase("overwrite", what, || overwrite::overwrite(work, rearmed))?;
        let what = "putting the files into the new system";
        match work
            .log
            .phase("finish", what, || finish::finish(work, flashed))
        {
            Ok(filled) => {
                let what = "making the new system start";
                return work
                    .log
                    .phase("commit", what, || commit::commit(work, filled));
            }
            Err(Unfinished::Anew(again)) => rearmed = *again,
            Err(Unfinished::Stopped(stop)) => return Err(stop),
        }
    }
}

/// What has come of `disk` is settled, and told where there is an old system to tell.
fn ended(work: &Work, disk: Option<&Disk>, replaced: Result<Done, Stop>) -> Ending {
    match replaced {
        Ok(done) => {
            finished(work, done);
            beside::tell_success(work, disk);
            Ending::Migrated
        }
        Err(stop) => {
            beside::give_up(work, disk, &stop);
            Ending::Stopped(stop)
        }
    }
}

/// Goes on with a flash that was cut off: the boot code in the first sector has started this. There
/// is no old system to go back to.
fn go_on(work: &Work, disk: &Disk) -> Ending {
    work.log.show_disk(&find::describe(disk));
    warn(work, &TORN);
    warn(work, &WARNING);
    if let Err(error) = overwrite::mark(work.machine, disk) {
        // Should this process die now, the machine restarts and comes here again.
        work.log.tell(format!("{error:#}"));
    }
    find::log_drive(work, Some(disk));
    let mut tries = 0;
    let replaced = loop {
        match take_up(work, disk) {
            Ok(rearmed) => break replace(work, rearmed),
            Err(error) => {
                tries += 1;
                if let Err(stop) = hold::hold(work, tries, &error) {
                    break Err(stop);
                }
            }
        }
    };
    ended(work, Some(disk), replaced)
}

/// Secures again what the flash needs, on a disk that is overwritten in part.
fn take_up(work: &Work, disk: &Disk) -> anyhow::Result<Rearmed> {
    let secured = work
        .log
        .phase("secure", "verifying the image and all else again", || {
            secure::secure_again(work, disk.clone())
        })
        .map_err(|stop| stop.cause)?;
    work.log.phase("rearm", "preparing for a power cut", || {
        rearm::rearm_again(work, secured)
    })
}

fn load_modules(work: &Work) {
    let mut loaded = 0;
    for module in &work.handover.modules {
        let path = work
            .machine
            .initramfs()
            .join(module.trim_start_matches('/'));
        match work.machine.load_module(&path) {
            Ok(()) => {
                loaded += 1;
                work.log.detail(format!("loaded {module}"));
            }
            // Whether it was needed shows when the disk is looked for.
            Err(error) => work.log.tell(format!("loading {module}: {error}")),
        }
    }
    let all = work.handover.modules.len();
    work.log
        .say(format!("{loaded} of {all} modules are loaded"));
}

/// Says why it stops, and leaves that for the old system.
fn tell_stop(work: &Work, disk: Option<&Disk>, stop: &Stop) {
    work.log.say_disk_errors();
    let when = match Next::after(work, Some(stop)) {
        Next::OldSystem | Next::AsTheLoaderDoes => "stopped before the first write",
        Next::AsTheDiskIs => "stopped",
    };
    work.log.tell(format!("** {when}: {stop}"));
    let outcome = Outcome::Stopped {
        phase: work.log.last_phase(),
        code: stop.code.name().to_owned(),
        reason: stop.reason(),
    };
    old_system::report(work, disk, outcome);
}

/// Goes on after the process that overwrote the disk has died: what it secured is still there.
pub fn resume(machine: &dyn Machine) -> Ending {
    let log = Log::open(machine);
    let mut tries = 0;
    let handover = loop {
        match read_handover(machine) {
            Ok(handover) => break handover,
            Err(stop) => {
                tries += 1;
                hold::wait(machine, &log, tries, &stop.cause);
            }
        }
    };
    let work = Work::new(&handover, machine, &log);
    show_as_asked(&log, &handover);
    let ending = match beside::count_death(&work) {
        Ok(()) => resumed(&work),
        Err(stop) => ended(&work, overwrite::marked(machine).ok().as_ref(), Err(stop)),
    };
    conclude(machine, &log, &ending, Next::OldSystem);
    ending
}

fn resumed(work: &Work) -> Ending {
    let mut tries = 0;
    loop {
        let error = match try_resume(work) {
            Ok(ending) => return ending,
            Err(error) => error,
        };
        tries += 1;
        if let Err(stop) = hold::hold(work, tries, &error) {
            let disk = overwrite::marked(work.machine).ok();
            return ended(work, disk.as_ref(), Err(stop));
        }
    }
}

fn try_resume(work: &Work) -> anyhow::Result<Ending> {
    let disk = overwrite::marked(work.machine)?;
    work.log.show_disk(&find::describe(&disk));
    work.log.show_torn();
    find::log_drive_again(work, &disk);
    let rearmed = take_up(work, &disk)?;
    Ok(ended(work, Some(&disk), replace(work, rearmed)))
}

/// From here on the death of this process is no reason to overwrite the disk again: the new system
/// starts, and what started this stage may go.
fn finished(work: &Work, _done: Done) {
    let disk = overwrite::marked(work.machine);
    overwrite::unmark(work.machine);
    hold::forget(work.machine);
    match disk {
        Ok(disk) => {
            efi::settle(work, &disk);
            secrets::wipe(work, &disk);
        }
        Err(error) => work.log.say(format!("{error:#}")),
    }
    if let Ok(peak) = work.machine.memory_peak() {
        work.log.say(format!(
            "memory: {} at most for this process, {} for files",
            mib(peak.process),
            mib(peak.files)
        ));
    }
}

/// Tells the old system that stage 2 itself failed, after the process that did the job has died.
pub fn explain(machine: &dyn Machine, how: &str) -> Ending {
    let log = Log::open(machine);
    let stop = Stop {
        code: Code::Fault,
        cause: anyhow!("stage 2 {how} in the phase {}", log.last_phase()),
    };
    let mut next = Next::OldSystem;
    if let Ok(handover) = read_handover(machine) {
        let work = Work::new(&handover, machine, &log);
        for disk in machine.disks().unwrap_or_default() {
            if let Err(error) = machine.unmount_all(&disk) {
                log.tell(format!("unmounting all of {}: {error}", disk.name));
            }
        }
        // The child may have died of a lack of memory.
        if secure::is_in_memory(&handover)
            && let Err(error) = machine.find_store().and_then(|store| store.close())
        {
            log.tell(format!("giving up what was in memory: {error}"));
        }
        old_system::restore(&work, None);
        next = Next::after(&work, Some(&stop));
        tell_stop(&work, None, &stop);
        find::log_drive(&work, None);
    }
    let ending = Ending::Stopped(stop);
    conclude(machine, &log, &ending, next);
    ending
}
