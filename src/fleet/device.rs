//! balena-migrate on a device: its verbs by ssh, and what their JSON and exit codes say.
//!
//! The texts that it writes are for the log; what happened is never guessed from them.

use std::time::Duration;

use serde::Deserialize;

use crate::config::shell::quote;
use crate::run_state::RunState;

use super::facts::{FOLDER, Rights};
use super::log::UnitLog;
use super::ssh::{Ssh, SshError};

/// The name of the unit's config.json in the folder there, as the older tools have it.
pub const CONFIG_JSON: &str = "balena-migrate-config.json";

/// Seconds from the order to the device's reboot, in which it says goodbye.
const REBOOT: &str = "10";

/// A finding of stage 1.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Finding {
    /// A stable word.
    pub code: String,
    /// `error` or `warning`.
    pub severity: String,
    /// What is so.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// Why a verb did not do it; nothing is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A stable word.
    pub code: String,
    /// Why.
    pub message: String,
}

/// What came of a verb, if the device could be asked at all.
pub type Answered<T> = Result<Result<T, Refusal>, SshError>;

/// A device with the folder on it.
pub struct Device<'a> {
    /// How it is called.
    pub ssh: &'a Ssh,
    /// How its user becomes root.
    pub rights: Rights,
    /// For each call.
    pub limit: Duration,
}

#[derive(Deserialize)]
struct Planned {
    #[serde(default)]
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Ran {
    outcome: String,
    #[serde(default)]
    findings: Vec<Finding>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Told {
    state: RunState,
    message: String,
}

/// An exit code and the JSON beside it.
struct Said {
    code: i32,
    json: String,
    complaint: Option<String>,
}

impl Device<'_> {
    /// The checks: nothing is changed there. What it gives is worth knowing.
    pub fn plan(&self, log: &mut UnitLog) -> Answered<Vec<Finding>> {
        let said = self.call("plan", "plan --json", log)?;
        let planned = serde_json::from_str::<Planned>(&said.json);
        Ok(match (said.code, planned) {
            (0, Ok(planned)) => Ok(planned.findings),
            (3, Ok(planned)) => Err(refused("refused", &planned.findings, None)),
            _ => Err(said.odd("plan")),
        })
    }

    /// Migrates it: when this is good the device is armed, and reboots by itself.
    pub fn run(&self, with_config: bool, log: &mut UnitLog) -> Answered<Vec<Finding>> {
        let config = match with_config {
            true => format!(" --balena-cfg {}", quote(CONFIG_JSON)),
            false => String::new(),
        };
        let words = format!("run --json --yes --reboot {REBOOT}{config}");
        let said = self.call("run", &words, log)?;
        let ran = serde_json::from_str::<Ran>(&said.json);
        Ok(match (said.code, ran) {
            (0, Ok(ran)) if ran.outcome == "armed" => Ok(ran.findings),
            (_, Ok(ran)) => Err(refused(&ran.outcome, &ran.findings, ran.message)),
            (_, Err(_)) => Err(said.odd("run")),
        })
    }

    /// Whether it is armed, and what became of the last run, also in words.
    pub fn status(&self, log: &mut UnitLog) -> Answered<(RunState, String)> {
        let said = self.call("status", "status --json", log)?;
        Ok(
            match (said.code, serde_json::from_str::<Told>(&said.json)) {
                (0, Ok(told)) => Ok((told.state, told.message)),
                _ => Err(said.odd("status")),
            },
        )
    }

    /// Takes back whatever an earlier run left.
    pub fn undo(&self, log: &mut UnitLog) -> Answered<()> {
        let said = self.call("undo", "undo", log)?;
        Ok(match said.code {
            0 => Ok(()),
            _ => Err(said.odd("undo")),
        })
    }

    fn call(&self, what: &str, words: &str, log: &mut UnitLog) -> Result<Said, SshError> {
        let command = format!("cd {FOLDER} && exec ./balena-migrate {words}");
        let mut output = Vec::new();
        let heard = &mut |bytes: &[u8]| output.extend_from_slice(bytes);
        let answer = self.ssh.run_as_root(
            self.rights,
            &format!("balena-migrate {what}"),
            &command,
            self.limit,
            heard,
        )?;
        for line in answer.errors.lines() {
            log.note(what, line);
        }
        let json = String::from_utf8_lossy(&output).into_owned();
        log.note(
            what,
            &format!(
                "exit code {}: {}",
                answer.code.unwrap_or(-1),
                json.trim_end()
            ),
        );
        Ok(Said {
            code: answer.code.unwrap_or(-1),
            complaint: answer.complaint().map(str::to_owned),
            json,
        })
    }
}

impl Said {
    /// What an answer means that is not as promised.
    fn odd(&self, verb: &str) -> Refusal {
        let code = match self.code {
            1 => "fault",
            2 => "usage",
            4 => "undo-incomplete",
            _ => "balena-migrate",
        };
        let complaint = self.complaint.as_deref().unwrap_or("it says nothing more");
        Refusal {
            code: code.to_owned(),
            message: format!(
                "`balena-migrate {verb}` ended with code {}: {complaint}",
                self.code
            ),
        }
    }
}

/// The first error names the reason; all of them tell.
fn refused(outcome: &str, findings: &[Finding], message: Option<String>) -> Refusal {
    let errors: Vec<&Finding> = findings.iter().filter(|f| f.severity == "error").collect();
    let told: Vec<String> = errors
        .iter()
        .map(|finding| format!("{}: {}; {}", finding.code, finding.what, finding.remedy))
        .chain(message)
        .collect();
    Refusal {
        code: errors
            .first()
            .map_or(outcome, |first| &first.code)
            .to_owned(),
        message: match told.is_empty() {
            true => format!("balena-migrate ended with `{outcome}`"),
            false => told.join(" / "),
        },
    }
}
