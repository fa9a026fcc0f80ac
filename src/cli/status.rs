//! `balena-migrate status`: what is armed, or how the last run ended, and what to do now.

use std::io;

use anyhow::{Context, anyhow};
use serde_json::json;

use super::{Exit, Failure, lock, one_shot, screen};
use crate::engine::journal::{Begin, Journal};
use crate::report::{self, Outcome, Report};
use crate::run_state::RunState;
use crate::sys::Sys;

/// `balena-migrate status`.
pub fn status(sys: &Sys, as_json: bool) -> Result<Exit, Failure> {
    let (state, text) = told(sys)?;
    match as_json {
        true => screen::print(&format!("{}\n", json!({"state": state, "message": text})))?,
        false => screen::print(&text)?,
    }
    Ok(Exit::Done)
}

fn told(sys: &Sys) -> Result<(RunState, String), Failure> {
    if lock::is_held(sys) {
        let text = "balena-migrate is at work on this machine, with a run or an undo.\n";
        return Ok((RunState::Running, text.to_owned()));
    }
    match Journal::read(sys) {
        Ok(Some(journal)) => Ok((at_rest(sys, &journal)?, describe(sys, &journal)?)),
        Ok(None) => Ok((
            RunState::Idle,
            "No migration is prepared or armed on this machine.\n".to_owned(),
        )),
        Err(error) if is_denied(&error) => Err(Failure(
            Exit::Refused,
            anyhow!("only root can read the journal; run it with sudo"),
        )),
        Err(error) => Err(error.into()),
    }
}

/// What the journal of a run tells while nobody is at work.
fn at_rest(sys: &Sys, journal: &Journal) -> Result<RunState, Failure> {
    let Some(begin) = journal.begin().filter(|_| !journal.is_undone()) else {
        return Ok(RunState::Interrupted);
    };
    Ok(match journal.complete() {
        None => RunState::Interrupted,
        Some(false) => RunState::Prepared,
        Some(true) if boot_id(sys)? == begin.boot_id => RunState::Armed,
        Some(true) => RunState::Returned,
    })
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
    Ok(match (at_rest(sys, journal)?, journal.begin()) {
        (RunState::Prepared, _) => "A migration is prepared but not armed (NO_SETUP).\n\
                        `balena-migrate undo` removes what was made.\n"
            .to_owned(),
        (RunState::Armed, begin) => format!(
            "A migration is armed. {} starts stage 2.\n`balena-migrate undo` takes everything back.\n",
            one_shot::trigger(begin.and_then(|begin| begin.one_shot.as_ref()))
        ),
        (RunState::Returned, Some(begin)) => after_reboot(sys, begin)?,
        (RunState::Idle | RunState::Running | RunState::Interrupted | RunState::Returned, _) => {
            interrupted()
        }
    })
}

fn interrupted() -> String {
    "A run of balena-migrate was cut off in the middle.\n\
     `balena-migrate undo` takes back what it did.\n"
        .to_owned()
}

/// The machine was armed in an earlier boot, and this is the old system again.
fn after_reboot(sys: &Sys, begin: &Begin) -> Result<String, Failure> {
    let log = format!("{}/{}", begin.report, report::LOG_FILE);
    let mut text = match read_report(sys, begin)? {
        Some(report) => {
            let mut text = in_words(&report);
            text.push_str(&when(sys, begin, &report));
            text.push_str(&disk_errors(&sys.read(&log).unwrap_or_default()));
            text
        }
        None => match &begin.one_shot {
            Some(one_shot) => one_shot::without_report(sys, one_shot),
            None => "A migration was armed, and stage 2 left no report: it could not reach this file \
                     system, or was never started.\nLook at the console or at LOG_DRIVE. The old system \
                     is whole.\n"
                .to_owned(),
        },
    };
    if sys.exists(&log) {
        text.push_str(&format!("The log of stage 2 is {log}\n"));
    }
    text.push_str("`balena-migrate undo` removes what is left of the run.\n");
    Ok(text)
}

/// What stage 2 left, if it belongs to this run.
fn read_report(sys: &Sys, begin: &Begin) -> Result<Option<Report>, Failure> {
    let path = format!("{}/{}", begin.report, report::FILE);
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

/// When stage 2 left its report, by the clock that it had: some machines have none without a network.
fn when(sys: &Sys, begin: &Begin, report: &Report) -> String {
    /// 2020: no machine ran this before.
    const CREDIBLE: i64 = 1_577_836_800;
    let written = sys
        .modified(&format!("{}/{}", begin.report, report::FILE))
        .ok();
    let time = written.and_then(|time| jiff::Timestamp::try_from(time).ok());
    match time.filter(|time| time.as_second() >= CREDIBLE) {
        Some(time) => format!(
            "That was at {}, {:.0} seconds after it was started.\n",
            time.strftime("%Y-%m-%d %H:%M:%S UTC"),
            report.seconds
        ),
        None => format!(
            "That was {:.0} seconds after it was started.\n",
            report.seconds
        ),
    }
}

/// What the kernel said of disks in trouble, from the log of stage 2.
fn disk_errors(log: &[u8]) -> String {
    /// More are in the log.
    const SHOWN: usize = 10;
    let log = String::from_utf8_lossy(log);
    let steps = log.lines().take_while(|line| *line != report::KERNEL_LOG);
    let errors: Vec<&str> = steps
        .filter_map(|line| line.split_once("] ")?.1.strip_prefix(report::KERNEL_MARK))
        .collect();
    let mut text = String::new();
    if !errors.is_empty() {
        text.push_str("In stage 2 the kernel told of disks in trouble:\n");
    }
    for error in errors.iter().take(SHOWN) {
        text.push_str(&format!("  {error}\n"));
    }
    if errors.len() > SHOWN {
        text.push_str(&format!("  and {} more\n", errors.len() - SHOWN));
    }
    text
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
        Outcome::Overwriting { disk } => format!(
            "Stage 2 was cut off while it overwrote another disk: power was lost, or the machine \
             stopped.\nTake what is on that disk for torn: {disk}\nThis old system is whole. Run \
             balena-migrate again to overwrite that disk from its start.\n"
        ),
        Outcome::Failed { disk, code, reason } => format!(
            "Stage 2 could not overwrite another disk and gave it up. That disk has no system now: \
             {disk}\nThis old system is whole.\n{code}: {reason}\n"
        ),
        Outcome::Migrated { disk } => format!(
            "The new system is on another disk, complete: {disk}\nThis old system was started again \
             all the same. Put that disk first in the boot order of the firmware.\n"
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::engine::journal::{DIR, JournalWriter, Record};

    fn begin() -> Begin {
        Begin {
            run_id: "run-1".to_owned(),
            home: "/mig".to_owned(),
            boot_id: "boot-1".to_owned(),
            one_shot: None,
            report: DIR.to_owned(),
        }
    }

    #[test]
    fn each_state_has_its_word() {
        let word = |records: &[Record], boot: &str| {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("var/lib")).unwrap();
            std::fs::create_dir_all(root.path().join("proc/sys/kernel/random")).unwrap();
            std::fs::write(root.path().join("proc/sys/kernel/random/boot_id"), boot).unwrap();
            let sys = Sys::new(root.path());
            if let [Record::Begin(begin), rest @ ..] = records {
                let mut writer = JournalWriter::start(&sys, begin.clone()).unwrap();
                rest.iter()
                    .for_each(|record| writer.append(record).unwrap());
            }
            let (state, _) = told(&sys).map_err(|failure| failure.1).unwrap();
            json!(state).as_str().unwrap().to_owned()
        };
        let complete = |armed| [Record::Begin(begin()), Record::Complete { armed }];
        assert_eq!(word(&[], "boot-1"), "idle");
        assert_eq!(word(&complete(true)[..1], "boot-1"), "interrupted");
        assert_eq!(word(&complete(false), "boot-1"), "prepared");
        assert_eq!(word(&complete(true), "boot-1"), "armed");
        assert_eq!(word(&complete(true), "boot-2"), "returned");
    }

    #[test]
    fn a_run_that_is_at_work_is_not_taken_for_one_that_was_cut_off() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["run", "var/lib"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let sys = Sys::new(root.path());
        let state = || told(&sys).map_err(|failure| failure.1).unwrap().0;
        let _writer = JournalWriter::start(&sys, begin()).unwrap();
        let lock = lock::take(&sys).map_err(|failure| failure.1).unwrap();
        assert_eq!(state(), RunState::Running);
        drop(lock);
        assert_eq!(state(), RunState::Interrupted);
    }

    /// What is said of a report that was written `seconds` after 1970.
    fn said(outcome: Outcome, log: &str, seconds: u64) -> String {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(&DIR[1..]);
        std::fs::create_dir_all(&folder).unwrap();
        let report = Report {
            run_id: "run-1".to_owned(),
            outcome,
            seconds: 42.3,
        };
        let path = folder.join(report::FILE);
        std::fs::write(&path, serde_json::to_vec(&report).unwrap()).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
        std::fs::write(folder.join(report::LOG_FILE), log).unwrap();
        after_reboot(&Sys::new(root.path()), &begin())
            .map_err(|failure| failure.1)
            .unwrap()
    }

    fn stopped() -> Outcome {
        Outcome::Stopped {
            phase: "secure".to_owned(),
            code: "payload-hash".to_owned(),
            reason: "the image is another one. Get it anew.".to_owned(),
        }
    }

    const LOG: &str = "[     1.0] == secure: verifying\n\
        [     1.5] kernel: [    7.200000] I/O error, dev sda, sector 9\n\
        [     2.0] == secure: failed after 1.0 s\n\
        \n-- the kernel's log --\n\
        [    8.000000] kernel: not said by stage 2\n";

    #[test]
    fn a_stop_is_told_with_its_reason_its_time_and_what_the_kernel_said() {
        assert_eq!(
            said(stopped(), LOG, 1_784_000_000),
            "Stage 2 stopped in the phase \"secure\", before anything was written. The old system is \
             whole.\npayload-hash: the image is another one. Get it anew.\n\
             That was at 2026-07-14 03:33:20 UTC, 42 seconds after it was started.\n\
             In stage 2 the kernel told of disks in trouble:\n  \
             [    7.200000] I/O error, dev sda, sector 9\n\
             The log of stage 2 is /var/lib/balena-migrate/stage2.log\n\
             `balena-migrate undo` removes what is left of the run.\n"
        );
    }

    #[test]
    fn what_came_of_another_disk_is_told() {
        let disk = || "sdb: 8.0 GB (8000000000 bytes), serial S2".to_owned();
        for (outcome, wanted) in [
            (
                Outcome::Overwriting { disk: disk() },
                "Stage 2 was cut off while it overwrote another disk: power was lost, or the machine \
                 stopped.\nTake what is on that disk for torn: sdb: 8.0 GB (8000000000 bytes), \
                 serial S2\nThis old system is whole.",
            ),
            (
                Outcome::Failed {
                    disk: disk(),
                    code: "disk-write".to_owned(),
                    reason: "6 tries failed".to_owned(),
                },
                "gave it up. That disk has no system now: sdb: 8.0 GB (8000000000 bytes), serial S2\n\
                 This old system is whole.\ndisk-write: 6 tries failed\n",
            ),
            (
                Outcome::Migrated { disk: disk() },
                "The new system is on another disk, complete: sdb: 8.0 GB (8000000000 bytes), serial \
                 S2\nThis old system was started again all the same.",
            ),
        ] {
            let said = said(outcome, "", 0);
            assert!(said.contains(wanted), "{said}");
        }
    }

    #[test]
    fn a_clock_that_was_never_set_is_not_believed() {
        let said = said(Outcome::Pretended, "", 1000);
        assert!(said.contains("That was 42 seconds after"), "{said}");
        assert!(!said.contains("trouble"), "{said}");
    }

    #[test]
    fn a_dying_disk_does_not_fill_the_page() {
        let log = "[     1.5] kernel: [    7.2] I/O error\n".repeat(25);
        let said = said(stopped(), &log, 0);
        assert_eq!(said.matches("I/O error").count(), 10, "{said}");
        assert!(said.contains("  and 15 more\n"), "{said}");
    }
}
