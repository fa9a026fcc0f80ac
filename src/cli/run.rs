//! `balena-migrate run`: THE JOB of stage 1. Look, say everything, ask once, prepare, arm.

use std::time::Duration;

use anyhow::{Context, anyhow};

use super::plan::{Looked, look, show, without_room};
use super::{Exit, Failure, Options, lock, one_shot, screen, status, undo};
use crate::config::Config;
use crate::config::kind::word::PayloadPlace;
use crate::engine::journal::{Begin, Journal};
use crate::engine::{self, ApplyError};
use crate::material::DiskTests;
use crate::plan::Plan;
use crate::step::OneShot;
use crate::sys::Sys;
use crate::sys::identity::EXECUTABLE;
use crate::sys::interrupt;

/// `balena-migrate run`.
pub fn run(sys: &Sys, options: &Options) -> Result<Exit, Failure> {
    let _only_one = lock::take(sys)?;
    if let Some(exit) = settle_earlier_run(sys)? {
        return Ok(exit);
    }
    let mut looked = look(sys, options, DiskTests::Allowed)?;
    loop {
        show(&looked)?;
        let Some(plan) = &looked.plan else {
            return Ok(Exit::Refused);
        };
        if !consent(options, &looked)? {
            screen::print("Nothing was changed.\n")?;
            return Ok(Exit::Usage);
        }
        match apply(sys, plan, &looked)? {
            Applied::All => {
                announce(&looked.config, plan)?;
                schedule_reboot(sys, &looked, plan)?;
                return Ok(Exit::Done);
            }
            Applied::NoRoom(reason) => {
                screen::print(&format!(
                    "\nEverything was taken back: {reason}.\nThis is the plan without that:\n\n"
                ))?;
                looked = without_room(sys, looked, reason)?;
            }
        }
    }
}

/// What came of a plan.
pub(super) enum Applied {
    /// All is done.
    All,
    /// All is taken back, since the disk has no room behind the new system; another plan may do
    /// without.
    NoRoom(String),
}

/// A run that is armed, cut off or returned must be undone before the next: says so and offers it.
fn settle_earlier_run(sys: &Sys) -> Result<Option<Exit>, Failure> {
    let Some(journal) = Journal::read(sys)? else {
        return Ok(None);
    };
    screen::print(&status::describe(sys, &journal)?)?;
    if !screen::somebody_is_there() {
        screen::print("Run `balena-migrate undo` first.\n")?;
        return Ok(Some(Exit::Refused));
    }
    if !screen::ask("Undo the earlier run now and start afresh?").context("asking")? {
        return Ok(Some(Exit::Refused));
    }
    match undo::take_back(sys)? {
        Exit::Done => Ok(None),
        exit => Ok(Some(exit)),
    }
}

/// The one question. Without a terminal, `--yes` or DO_REBOOT is the answer.
fn consent(options: &Options, looked: &Looked) -> Result<bool, Failure> {
    if options.yes {
        return Ok(true);
    }
    if screen::somebody_is_there() {
        return Ok(screen::ask("Go on?").context("asking")?);
    }
    if looked.config.do_reboot.value.is_some() {
        return Ok(true);
    }
    Err(Failure(
        Exit::Usage,
        anyhow!("there is no terminal to ask on; say --yes, or set DO_REBOOT"),
    ))
}

/// Carries the plan out, or takes all of it back.
pub(super) fn apply(sys: &Sys, plan: &Plan, looked: &Looked) -> Result<Applied, Failure> {
    interrupt::catch().context("preparing for signals")?;
    let changing = sys.gated(interrupt::gate());
    let begin = Begin {
        run_id: looked.run_id.clone(),
        home: looked.config.home_dir.0.clone(),
        boot_id: status::boot_id(sys)?,
        one_shot: plan.one_shot.clone(),
        report: plan.report.clone(),
    };
    let steps = plan.work.steps.len();
    let applied = engine::apply(sys, &changing, &plan.work, begin, &mut |number, what| {
        log::info!("step {} of {steps}: {what}", number + 1);
    });
    let Err(error) = applied else {
        return Ok(Applied::All);
    };
    if let Some(no_room) = error.no_room()
        && *looked.config.payload != PayloadPlace::Extents
    {
        return Ok(Applied::NoRoom(no_room.reason()));
    }
    Err(match error {
        ApplyError::Undone(_) => Failure(Exit::Fault, error.into()),
        ApplyError::UndoIncomplete { .. } => Failure(Exit::UndoIncomplete, error.into()),
    })
}

/// The last words; the fleet tools of old look for the beginnings of these lines.
fn announce(config: &Config, plan: &Plan) -> Result<(), Failure> {
    if !plan.work.armed {
        return screen::print(
            "Everything is prepared and the boot configuration is as it was (NO_SETUP).\n\
             `balena-migrate undo` removes what was made.\n",
        );
    }
    match config.do_reboot.value {
        None => screen::print(&format!(
            "migration successful, please reboot system\n\
             {} starts stage 2. `balena-migrate undo` takes everything back until then.
",
            one_shot::trigger(plan.one_shot.as_ref())
        )),
        Some(reboot) => screen::print(&format!(
            "migration successful, rebooting system in {0} seconds
\
             `balena-migrate undo` takes everything back until then.
",
            reboot.seconds
        )),
    }
}

/// The reboot that DO_REBOOT asks for, once the machine is armed. It is left to a process of its own, so
/// that whoever called this one over a network gets its exit code before the network goes.
pub(super) fn schedule_reboot(sys: &Sys, looked: &Looked, plan: &Plan) -> Result<(), Failure> {
    let Some(reboot) = looked.config.do_reboot.value.filter(|_| plan.work.armed) else {
        return Ok(());
    };
    let words = ["reboot-when-due", "--run-id", &looked.run_id, "--after"];
    let mut argv = vec![EXECUTABLE.to_owned()];
    argv.extend(words.map(str::to_owned));
    argv.push(reboot.seconds.to_string());
    Ok(sys.spawn_detached(&argv).context("scheduling the reboot")?)
}

/// Waits, and reboots if the run is still armed.
pub fn reboot_when_due(sys: &Sys, run_id: &str, after: u64) -> Result<Exit, Failure> {
    sys.sleep(Duration::from_secs(after));
    let journal = Journal::read(sys)?;
    let armed = journal
        .as_ref()
        .filter(|journal| journal.complete() == Some(true) && !journal.is_undone())
        .and_then(Journal::begin)
        .filter(|begin| begin.run_id == run_id);
    if let Some(begin) = armed {
        let one_shot = begin.one_shot.as_ref();
        sys.ask_for_reboot(one_shot.and_then(OneShot::reboot_argument))
            .context("rebooting")?;
    }
    Ok(Exit::Done)
}
