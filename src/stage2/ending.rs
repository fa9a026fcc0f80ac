//! How stage 2 ends, and what people at the console are told of it.

use std::time::Duration;

use super::Work;
use super::log::{Log, seconds};
use super::machine::Machine;
use super::screen::Ended;
use super::stop::{Code, Stop};

/// How long a success stays on the consoles before the restart.
const SUCCESS_SHOWN: Duration = Duration::from_secs(3);

/// How long any other ending stays there.
const FAILURE_SHOWN: Duration = Duration::from_secs(10);

/// How stage 2 ended. Whatever it is, the machine is to be restarted.
#[derive(Debug)]
pub enum Ending {
    /// The new system is on the disk.
    Migrated,
    /// All was well up to the first write, which was not wanted.
    Pretended,
    /// Something was wrong before the first write, or with a disk beside that of the old system.
    Stopped(Stop),
}

impl Ending {
    pub(super) fn stop(&self) -> Option<&Stop> {
        match self {
            Ending::Stopped(stop) => Some(stop),
            Ending::Migrated | Ending::Pretended => None,
        }
    }
}

/// What the machine starts after a stop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The old system: nothing else can start.
    OldSystem,
    /// That, or this stage once more, which starts a disk whose flash was cut off. Who has seen the
    /// disk knows which.
    AsTheDiskIs,
    /// The old system, where the boot loader starts this stage only once, or else this stage: the boot
    /// configuration could not be put back.
    AsTheLoaderDoes,
}

impl Next {
    /// What starts after an ending, which may be a stop.
    pub(super) fn after(work: &Work, stop: Option<&Stop>) -> Next {
        let unseen = stop.is_some_and(|stop| {
            matches!(
                stop.code,
                Code::DiskNotFound | Code::DiskAmbiguous | Code::Fault
            )
        });
        if unseen && work.handover.resume.is_some() {
            Next::AsTheDiskIs
        } else if work.still_armed.get() {
            Next::AsTheLoaderDoes
        } else {
            Next::OldSystem
        }
    }
}

/// What is said where the boot configuration could not be put back.
const STILL_ARMED: &str = "** The boot configuration could not be put back. The machine restarts: into the \
                           old system, where its boot loader starts this stage only once, or into this \
                           stage again, until somebody puts the files right that are named above.";

/// Says how it ended, and gives people time to read it.
pub(super) fn conclude(machine: &dyn Machine, log: &Log, ending: &Ending, next: Next) {
    let time = seconds(machine.elapsed());
    let text = match ending {
        Ending::Migrated => format!("** done after {time}: the new system starts"),
        Ending::Pretended if next == Next::AsTheLoaderDoes => {
            format!("** pretended for {time}, nothing was written\n{STILL_ARMED}")
        }
        Ending::Pretended => {
            format!("** pretended for {time}, nothing was written: the old system starts again")
        }
        Ending::Stopped(stop) => match next {
            Next::OldSystem => format!("** {stop}\n** The old system starts again."),
            Next::AsTheDiskIs => format!(
                "** {stop}\n** The machine restarts: into the old system or, where a flash of the \
                 disk was cut off, into this stage again."
            ),
            Next::AsTheLoaderDoes => format!("** {stop}\n{STILL_ARMED}"),
        },
    };
    log.say_disk_errors();
    text.lines().for_each(|line| log.tell(line));
    log.show_ending(match ending {
        Ending::Migrated => Ended::Migrated,
        Ending::Pretended => Ended::Returned,
        Ending::Stopped(_) => match next {
            Next::OldSystem => Ended::Returned,
            Next::AsTheDiskIs | Next::AsTheLoaderDoes => Ended::Restarted,
        },
    });
    log.close_drive();
    machine.sleep(match ending {
        Ending::Stopped(_) => FAILURE_SHOWN,
        Ending::Migrated | Ending::Pretended => SUCCESS_SHOWN,
    });
}
