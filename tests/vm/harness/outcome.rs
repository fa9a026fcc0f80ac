//! What becomes of a machine that is switched on: watches it until that is certain.

use std::fmt;
use std::time::Duration;

use super::agent::{Mute, TURN};
use super::quiet::Quiet;
use super::{Machine, Migratecfg, Vm};

/// What the firmware or GRUB says when nothing more will happen.
const DEAD_ENDS: [&str; 7] = [
    // The boot code starts over and over when what it loads is no GRUB.
    "GRUB GRUB GRUB",
    "No bootable device",
    "UEFI Interactive Shell",
    "grub rescue>",
    "Minimal BASH-like line editing",
    "NEWOS: no resin-rootA",
    "end Kernel panic - not syncing: VFS",
];

/// A kernel that panics this often in a row will go on so.
const PANICS: usize = 3;

/// What becomes of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The old system is up.
    Old,
    /// The new system is up, with all that the migration is to leave in it.
    New,
    /// Stage 2 started by itself, and writes to the disk.
    Resumed,
    /// Stage 2 started by itself, and the new system is up, with all that it has to have.
    ResumedToTheEnd,
    /// Stage 2 is there and can't go on for the time being; it said why.
    Held(String),
    /// Nobody is there, or a new system that lacks something.
    Lost(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Old => write!(f, "old system"),
            Outcome::New => write!(f, "new system"),
            Outcome::Resumed => write!(f, "resumed"),
            Outcome::ResumedToTheEnd => write!(f, "resumed, then new system"),
            Outcome::Held(why) => write!(f, "held: {why}"),
            Outcome::Lost(why) => write!(f, "LOST: {why}"),
        }
    }
}

/// What the new system of a migration that nobody disturbed says of itself.
pub struct NewSystem(Vec<String>);

impl NewSystem {
    /// From the console of such a machine.
    pub fn as_in(console: &str) -> NewSystem {
        let lines = console.lines().map(str::trim);
        let facts = lines.filter(|line| line.starts_with("NEWOS: "));
        // How long the log is, and how much room is left, depends on the way.
        NewSystem(
            facts
                .filter(|line| !line.contains("data-free"))
                .map(|line| match line.split_once(" lines, the last: ") {
                    Some((log, _)) => log
                        .trim_end_matches(|c: char| c.is_ascii_digit())
                        .to_owned(),
                    None => line.to_owned(),
                })
                .collect(),
        )
    }

    /// After an ordinary migration by `cfg`.
    pub fn ordinary(cfg: &Migratecfg) -> NewSystem {
        NewSystem(vec![
            format!("NEWOS: config.json {}", cfg.config_json_sha256()),
            "NEWOS: keyfile resin-wifi-01 ".to_owned(),
            "NEWOS: keyfile resin-wifi-02 ".to_owned(),
            "NEWOS: fingerprint ok 9".to_owned(),
            "NEWOS: log migrate.log ".to_owned(),
        ])
    }

    /// And this line too.
    pub fn and(mut self, fact: String) -> NewSystem {
        self.0.push(fact);
        self
    }

    /// The facts, a line each.
    pub fn facts(&self) -> &[String] {
        &self.0
    }

    /// From [`NewSystem::facts`].
    pub fn of(facts: Vec<String>) -> NewSystem {
        NewSystem(facts)
    }

    fn judge(&self, console: &str) -> Option<String> {
        let missing: Vec<&str> = self
            .0
            .iter()
            .filter(|fact| !console.contains(*fact))
            .map(String::as_str)
            .collect();
        (!missing.is_empty()).then(|| format!("the new system does not say {missing:?}"))
    }
}

impl Vm {
    /// Watches the machine until it is certain what becomes of it, and takes its power away.
    ///
    /// `to_the_end` lets a stage 2 that goes on finish its work.
    pub fn outcome(mut self, wanted: &NewSystem, to_the_end: bool) -> (Machine, Outcome) {
        let mut quiet = Quiet::default();
        let outcome = loop {
            let said = self.console();
            if let Some(outcome) = told(&said, wanted, to_the_end) {
                break outcome;
            }
            // Waits for a second when nobody answers.
            match self.agent.ping() {
                Ok(()) => break Outcome::Old,
                Err(Mute::Silent) => {
                    if self.is_quiet_for_too_long(&mut quiet, TURN) {
                        let last = said.lines().rfind(|line| !line.trim().is_empty());
                        let last = last.unwrap_or("nothing").trim();
                        break Outcome::Lost(format!("silence; the last was: {last}"));
                    }
                }
                Err(Mute::Gone) => {
                    let outcome = told(&self.console(), wanted, to_the_end);
                    let off = || Outcome::Lost("the machine switched itself off".to_owned());
                    break outcome.unwrap_or_else(off);
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        (self.power_cut(), outcome)
    }
}

/// What the console says of it, if that is enough.
fn told(said: &str, wanted: &NewSystem, to_the_end: bool) -> Option<Outcome> {
    let stage_2 = said.contains("balena-migrate, stage 2");
    if said.contains("NEWOS: done") {
        return Some(match (wanted.judge(said), stage_2) {
            (Some(lacks), _) => Outcome::Lost(lacks),
            (None, true) => Outcome::ResumedToTheEnd,
            (None, false) => Outcome::New,
        });
    }
    if said.contains("in part: leave the machine on") {
        let why = said.lines().rfind(|line| line.contains("failed: "));
        return Some(Outcome::Held(why.unwrap_or_default().trim().to_owned()));
    }
    if let Some(dead) = DEAD_ENDS.iter().find(|text| said.contains(**text)) {
        return Some(Outcome::Lost((*dead).to_owned()));
    }
    // It says so on the screen and on the line, which are both this console.
    if said.matches("stage 2 could not be read").count() > 2 {
        let why = "GRUB can't read stage 2 from the disk, again and again";
        return Some(Outcome::Lost(why.to_owned()));
    }
    if said.matches("Kernel panic").count() >= PANICS {
        return Some(Outcome::Lost("the kernel panics".to_owned()));
    }
    (!to_the_end && said.contains("== overwrite: ")).then_some(Outcome::Resumed)
}
