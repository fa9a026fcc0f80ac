//! `balena-migrate run --json`: the same job without a person to talk to, and what came of it as one
//! line of JSON. The fleet tools go by that line and the exit code.

use serde_json::{Value, json};

use super::plan::{look, without_room};
use super::run::{Applied, apply, schedule_reboot};
use super::{Exit, Failure, Options, lock, screen, status};
use crate::engine::journal::Journal;
use crate::finding::Finding;
use crate::material::DiskTests;
use crate::sys::Sys;

/// What came of a run that reached its end.
struct Outcome {
    /// A stable word.
    word: &'static str,
    exit: Exit,
    findings: Vec<Finding>,
    /// Seconds to the reboot.
    reboot: Option<u64>,
    message: Option<String>,
}

/// Runs and prints.
pub fn run(sys: &Sys, options: &Options) -> Result<Exit, Failure> {
    let ended = attempt(sys, options);
    screen::print(&format!("{}\n", as_json(&ended)))?;
    ended.map(|outcome| outcome.exit)
}

fn attempt(sys: &Sys, options: &Options) -> Result<Outcome, Failure> {
    let _only_one = lock::take(sys)?;
    if let Some(journal) = Journal::read(sys)? {
        let message = status::describe(sys, &journal)?;
        return Ok(refused("earlier-run", Vec::new(), Some(message)));
    }
    let mut looked = look(sys, options, DiskTests::Allowed)?;
    loop {
        let Some(plan) = &looked.plan else {
            return Ok(refused("refused", looked.findings, None));
        };
        if !options.yes && looked.config.do_reboot.value.is_none() {
            let message = "with --json nothing is asked; say --yes, or set DO_REBOOT".to_owned();
            return Err(Failure(Exit::Usage, anyhow::Error::msg(message)));
        }
        match apply(sys, plan, &looked)? {
            Applied::All => {
                schedule_reboot(sys, &looked, plan)?;
                return Ok(Outcome {
                    word: if plan.work.armed { "armed" } else { "prepared" },
                    exit: Exit::Done,
                    reboot: looked.config.do_reboot.value.map(|reboot| reboot.seconds),
                    findings: looked.findings,
                    message: None,
                });
            }
            Applied::NoRoom(reason) => looked = without_room(sys, looked, reason)?,
        }
    }
}

fn refused(word: &'static str, findings: Vec<Finding>, message: Option<String>) -> Outcome {
    Outcome {
        word,
        exit: Exit::Refused,
        findings,
        reboot: None,
        message,
    }
}

fn as_json(ended: &Result<Outcome, Failure>) -> Value {
    match ended {
        Ok(outcome) => json!({
            "outcome": outcome.word,
            "exit": outcome.exit as u8,
            "findings": outcome.findings,
            "reboot": outcome.reboot,
            "message": outcome.message,
        }),
        Err(Failure(exit, error)) => json!({
            "outcome": word(*exit, error),
            "exit": *exit as u8,
            "findings": [],
            "reboot": null,
            "message": format!("{error:#}"),
        }),
    }
}

/// The outcome of a run that ended with an error.
fn word(exit: Exit, error: &anyhow::Error) -> &'static str {
    match exit {
        _ if error.is::<lock::Busy>() => "running",
        Exit::Done => "done",
        Exit::Fault => "fault",
        Exit::Usage => "usage",
        Exit::Refused => "refused",
        Exit::UndoIncomplete => "undo-incomplete",
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::engine::journal::{Begin, DIR, JournalWriter};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// What is said on a machine whose files are made by `make`, with the outcome's exit code.
    fn said(make: impl FnOnce(&Sys)) -> Value {
        let root = tempfile::tempdir().unwrap();
        for folder in ["run", "var/lib"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let sys = Sys::new(root.path());
        make(&sys);
        let options = Line::parse_from(["x", "--config", "none.conf", "--yes"]).options;
        as_json(&attempt(&sys, &options))
    }

    #[test]
    fn a_run_without_a_configuration_is_told_as_wrong_usage() {
        let said = said(|_| {});
        assert_eq!(said["outcome"], "usage");
        assert_eq!(said["exit"], 2);
        let message = said["message"].as_str().unwrap();
        assert!(
            message.starts_with("there is no configuration file"),
            "{message}"
        );
    }

    #[test]
    fn a_run_beside_another_says_so() {
        let mut held = None;
        let said = said(|sys| held = lock::take(sys).ok());
        assert_eq!(said["outcome"], "running");
        assert_eq!(said["exit"], 3);
    }

    #[test]
    fn an_earlier_run_is_not_touched() {
        let said = said(|sys| {
            let begin = Begin {
                run_id: "run-1".to_owned(),
                home: "/mig".to_owned(),
                boot_id: "boot-1".to_owned(),
                report: DIR.to_owned(),
                one_shot: None,
            };
            JournalWriter::start(sys, begin).unwrap();
        });
        assert_eq!(said["outcome"], "earlier-run");
        assert_eq!(said["exit"], 3);
        assert!(
            said["message"]
                .as_str()
                .unwrap()
                .contains("balena-migrate undo")
        );
    }
}
