//! `balena-migrate status`: what is armed, or how the last run ended, and what to do now.

use std::io;

use anyhow::{Context, anyhow};

use super::{Exit, Failure, screen};
use crate::boot::{grub, grubenv};
use crate::engine::journal::{Begin, DIR, Journal};
use crate::report::{self, Outcome, Report};
use crate::sys::Sys;

/// `balena-migrate status`.
pub fn status(sys: &Sys) -> Result<Exit, Failure> {
    let text = match Journal::read(sys) {
        Ok(Some(journal)) => describe(sys, &journal)?,
        Ok(None) => "No migration is prepared or armed on this machine.\n".to_owned(),
        Err(error) if is_denied(&error) => {
            return Err(Failure(
                Exit::Refused,
                anyhow!("only root can read the journal; run it with sudo"),
            ));
        }
        Err(error) => return Err(error.into()),
    };
    screen::print(&text)?;
    Ok(Exit::Done)
}

fn is_denied(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Which boot of this machine it is.
pub fn boot_id(sys: &Sys) -> Result<String, Failure> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = sys
        .read_text(path)
        .with_context(|| format!("reading {path}"))?;
    Ok(id.trim().to_owned())
}

/// A run in words, from its journal and what stage 2 left.
pub fn describe(sys: &Sys, journal: &Journal) -> Result<String, Failure> {
    let Some(begin) = journal.begin() else {
        return Ok(interrupted());
    };
    Ok(match journal.complete() {
        _ if journal.is_undone() => interrupted(),
        None => interrupted(),
        Some(false) => "A migration is prepared but not armed (NO_SETUP).\n\
                        `balena-migrate undo` removes what was made.\n"
            .to_owned(),
        Some(true) if boot_id(sys)? == begin.boot_id => {
            "A migration is armed: the next boot starts stage 2.\n\
             `balena-migrate undo` takes everything back.\n"
                .to_owned()
        }
        Some(true) => after_reboot(sys, begin)?,
    })
}

fn interrupted() -> String {
    "A run of balena-migrate was cut off in the middle.\n\
     `balena-migrate undo` takes back what it did.\n"
        .to_owned()
}

/// The machine was armed in an earlier boot, and this is the old system again.
fn after_reboot(sys: &Sys, begin: &Begin) -> Result<String, Failure> {
    let mut text = match read_report(sys, begin)? {
        Some(report) => in_words(&report),
        None => without_report(sys, begin),
    };
    let log = format!("{DIR}/{}", report::LOG_FILE);
    if sys.exists(&log) {
        text.push_str(&format!("The log of stage 2 is {log}\n"));
    }
    text.push_str("`balena-migrate undo` removes what is left of the run.\n");
    Ok(text)
}

/// What stage 2 left, if it belongs to this run.
fn read_report(sys: &Sys, begin: &Begin) -> Result<Option<Report>, Failure> {
    let path = format!("{DIR}/{}", report::FILE);
    let bytes = match sys.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(anyhow::Error::new(error)
                .context(format!("reading {path}"))
                .into());
        }
    };
    let report: Report =
        serde_json::from_slice(&bytes).with_context(|| format!("reading {path}"))?;
    Ok(Some(report).filter(|report| report.run_id == begin.run_id))
}

fn in_words(report: &Report) -> String {
    match &report.outcome {
        Outcome::Running { phase } => format!(
            "Stage 2 was started and ended without a word in the phase \"{phase}\", before \
             anything was written:\npower was lost, or the machine stopped. The old system is \
             whole.\n"
        ),
        Outcome::Pretended => format!(
            "The rehearsal succeeded: stage 2 did everything up to the first write in {:.0} \
             seconds\nand came back. The old system is whole.\n",
            report.seconds
        ),
        Outcome::Stopped {
            phase,
            code,
            reason,
        } => format!(
            "Stage 2 stopped in the phase \"{phase}\", before anything was written. The old \
             system is whole.\n{code}: {reason}\n"
        ),
    }
}

/// Stage 2 left nothing: grubenv tells whether it was started at all.
fn without_report(sys: &Sys, begin: &Begin) -> String {
    let pending = begin
        .grubenv
        .as_ref()
        .and_then(|path| sys.read_text(path).ok())
        .is_some_and(|block| grubenv::get(&block, "next_entry") == Some(grub::ENTRY_ID));
    match pending {
        true => "A migration was armed, and the machine was booted without its boot loader \
                 taking the one-shot entry.\nIt may still take it at the next boot.\n"
            .to_owned(),
        false => {
            "A migration was armed, the boot loader took the one-shot entry, and stage 2 left \
                  no report:\nit could not reach this file system, or was never started. Look at \
                  the console or at LOG_DRIVE. The old system is whole.\n"
                .to_owned()
        }
    }
}
