//! One unit's migration: reach it, bring the folder there, let it check itself, and only then make it
//! known to the backend and give the order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::config::path;
use crate::fleet::device::{CONFIG_JSON, Device, Finding};
use crate::fleet::facts::{self, Facts, Rights};
use crate::fleet::log::UnitLog;
use crate::fleet::moment::Moment;
use crate::fleet::settings::{
    MIG_CFG_ARCHIVE, MIG_CFG_DIR, MIG_DURATION, MIG_EXEC_TIMEOUT, MIG_TX_TIMEOUT, Setting,
    check_unit,
};
use crate::fleet::ssh::{Ssh, Target};
use crate::fleet::store::Claim;
use crate::fleet::transfer::{self, Plan};
use crate::fleet::unit::{self, field};
use crate::run_state::RunState;

use super::way::{Halt, Way};
use super::{Planned, Shared, Source, lock};

/// How long the first answer of a device may take, with the sum over a large image that is there.
const FACTS: Duration = Duration::from_secs(600);

/// How often progress is noted in the unit.
const NOTED: Duration = Duration::from_secs(5);

/// What balenaOS calls itself in its os-release.
const BALENA_OS: &str = "balena-os";

impl Shared<'_> {
    /// Takes a waiting unit as far as it goes, and lets it go.
    pub(super) fn migrate(&self, claim: Claim) -> Result<()> {
        let log = UnitLog::open(self.sys, &self.work.logs, claim.unit.id());
        let mut way = Way {
            store: self.store,
            claim,
            log,
        };
        let path = way.log.path().to_owned();
        way.unit().set(field::LOG, &path);
        let ended = self.walk(&mut way);
        if self.work.plan_only {
            return self.note_plan(way, ended);
        }
        match ended {
            Ok(()) => way.release(),
            Err(halt) => way.halt(halt, self.settings),
        }
    }

    fn walk(&self, way: &mut Way<'_>) -> Result<(), Halt> {
        if let Some(wrong) = check_unit(way.unit()).first() {
            return Err(Halt::fail("settings", wrong.to_string()));
        }
        let target =
            Target::of(way.unit(), self.settings).map_err(|why| Halt::fail("settings", why))?;
        way.phase("connect", &format!("connecting to {}", target.host))?;
        let ssh = Ssh::new(self.sys, target)?;
        let facts = match self.facts(&ssh) {
            // It may be in its reboot already, and is looked for from now on.
            Err(Halt::Unreachable(why)) if way.unit().status() == unit::Status::Ordered => {
                way.log
                    .say("connect", &format!("{why}; it was told to migrate"));
                return self.migrated(way);
            }
            facts => facts?,
        };
        let was_told = way.unit().number(field::ATTEMPTS).unwrap_or(0) > 0;
        if facts.os == BALENA_OS && was_told && !self.work.plan_only {
            way.log.say("connect", "it was told to migrate, and did");
            return self.migrated(way);
        }
        check_facts(&facts, &ssh)?;
        let device = Device {
            ssh: &ssh,
            rights: facts.rights,
            limit: self.time(&MIG_EXEC_TIMEOUT),
        };
        let was_ordered = way.unit().status() == unit::Status::Ordered;
        if was_ordered && self.is_armed(way, &device)? {
            return self.migrated(way);
        }
        self.transfer(way, &ssh, &facts)?;
        if self.undo_earlier(way, &device, was_ordered)? {
            return self.migrated(way);
        }
        way.phase("check", "the device checks itself")?;
        let warnings = device.plan(&mut way.log)??;
        note_warnings(way, warnings);
        match self.work.plan_only {
            true => Ok(()),
            false => self.order(way, &device),
        }
    }

    fn facts(&self, ssh: &Ssh) -> Result<Facts, Halt> {
        let (answer, said) = ssh.script("the first look", facts::SCRIPT, FACTS)?;
        facts::parse(&said).ok_or_else(|| {
            let complaint = answer
                .complaint()
                .unwrap_or("it says nothing more")
                .to_owned();
            Halt::fail(
                "no-shell",
                format!("its user has no shell that runs sh: {complaint}"),
            )
        })
    }

    /// Whether a unit that was told to migrate, by a worker that did not hear the answer, is armed.
    fn is_armed(&self, way: &mut Way<'_>, device: &Device<'_>) -> Result<bool, Halt> {
        way.phase("ask", "it was told to migrate; asking whether it will")?;
        match device.status(&mut way.log)?? {
            (RunState::Armed, _) => Ok(true),
            (RunState::Running, message) => Err(self.busy(way, message)),
            _ => {
                way.unit().set_status(unit::Status::Init, Moment::now());
                Ok(false)
            }
        }
    }

    /// Another run is at work on a device that was told to migrate: it is asked again later.
    fn busy(&self, way: &mut Way<'_>, message: String) -> Halt {
        let now = Moment::now();
        let since = way.unit().moment(field::STATUS_SINCE).unwrap_or(now);
        match now.since(since) > self.time(&MIG_EXEC_TIMEOUT) {
            true => Halt::fail("running", message),
            false => Halt::Busy(message.trim_end().to_owned()),
        }
    }

    fn transfer(&self, way: &mut Way<'_>, ssh: &Ssh, facts: &Facts) -> Result<(), Halt> {
        let source = self.source(way)?;
        let material = self
            .material(&source)
            .map_err(|error| Halt::fail("here", format!("{error:#}")))?;
        let files = material.files_for(&facts.machine).ok_or_else(|| {
            let what = format!(
                "the folder migratecfg has no balena-migrate for {}; add one as balena-migrate-ARCH",
                facts.machine
            );
            Halt::fail("no-executable", what)
        })?;
        let plan = Plan::new(self.sys, &files, facts)?;
        if plan.is_empty() {
            way.log.say("transfer", "everything is there already");
            return Ok(());
        }
        let total = plan.bytes();
        way.phase("transfer", &format!("sending {total} bytes"))?;
        let mut done = 0;
        let mut noted = Instant::now();
        let claim = &mut way.claim;
        let store = way.store;
        plan.send(
            self.sys,
            ssh,
            self.time(&MIG_TX_TIMEOUT),
            self.throttle.as_ref(),
            &mut |bytes| {
                done += bytes;
                if noted.elapsed() > NOTED {
                    noted = Instant::now();
                    claim
                        .unit
                        .set(field::PERCENT, &(done * 100 / total.max(1)).to_string());
                    if let Err(error) = store.save(claim) {
                        log::debug!("{error:#}");
                    }
                }
            },
        )?;
        Ok(())
    }

    /// The folder migratecfg for a unit, or the archive of one.
    fn source(&self, way: &Way<'_>) -> Result<Source, Halt> {
        let cwd = self
            .sys
            .current_dir()
            .context("finding the current folder")?;
        let unit = &way.claim.unit;
        let named = |setting| Some(path::absolute(&cwd, &self.settings.of(unit, setting)?));
        named(&MIG_CFG_DIR)
            .map(Source::Folder)
            .or_else(|| named(&MIG_CFG_ARCHIVE).map(Source::Archive))
            .ok_or_else(|| {
                let what = "it has no folder migratecfg; give one with --cfg-dir or --cfg-tgz";
                Halt::fail("settings", what)
            })
    }

    /// A run that was cut off, or came back, is taken back before the next. `true` when there is no
    /// next: an order that an earlier worker sent has come only now.
    fn undo_earlier(
        &self,
        way: &mut Way<'_>,
        device: &Device<'_>,
        was_ordered: bool,
    ) -> Result<bool, Halt> {
        match device.status(&mut way.log)?? {
            (RunState::Idle, _) => Ok(false),
            (RunState::Armed, _) if was_ordered => Ok(true),
            (RunState::Running, message) if was_ordered => {
                way.unit().set_status(unit::Status::Ordered, Moment::now());
                Err(self.busy(way, message))
            }
            (RunState::Armed | RunState::Running, message) => {
                Err(Halt::fail("earlier-run", message))
            }
            (RunState::Interrupted | RunState::Prepared | RunState::Returned, message) => {
                if self.work.plan_only {
                    return Err(Halt::fail("earlier-run", message));
                }
                way.phase("undo", message.trim_end())?;
                device.undo(&mut way.log)??;
                Ok(false)
            }
        }
    }

    /// The point from which on the device may be another one.
    fn order(&self, way: &mut Way<'_>, device: &Device<'_>) -> Result<(), Halt> {
        if way.unit().get(field::DEVICE).is_none()
            && let Some(uuid) = self.backend.new_device()?
        {
            way.unit().set(field::DEVICE, &uuid);
        }
        way.phase("enrol", "making it known to the backend")?;
        let config = self.backend.enrol(way.unit(), self.settings)?;
        if let Some(config) = &config {
            transfer::send_bytes(device.ssh, CONFIG_JSON, config.expose(), device.limit)?;
        }
        way.unit().count(field::ATTEMPTS);
        way.unit().set_status(unit::Status::Ordered, Moment::now());
        way.phase("run", "telling it to migrate")?;
        match device.run(config.is_some(), &mut way.log)? {
            Ok(warnings) => {
                note_warnings(way, warnings);
                self.migrated(way)
            }
            // The order of an earlier worker was faster; it stays ordered, and is asked.
            Err(refusal) if ["running", "earlier-run"].contains(&refusal.code.as_str()) => {
                Err(self.busy(way, refusal.message))
            }
            Err(refusal) => {
                way.unit().set_status(unit::Status::Init, Moment::now());
                Err(refusal.into())
            }
        }
    }

    /// From now on it is looked for in the backend.
    fn migrated(&self, way: &mut Way<'_>) -> Result<(), Halt> {
        let now = Moment::now();
        let due = now.after(self.time(&MIG_DURATION));
        way.unit().set_status(unit::Status::Migrated, now);
        way.unit().set(field::DUE, &due.0.to_string());
        way.unit().clear(&[field::TRANSFER_FAILED]);
        way.log.say("run", "it migrates");
        Ok(())
    }

    /// Notes whether the unit could be migrated, and puts it back as it was.
    fn note_plan(&self, mut way: Way<'_>, ended: Result<(), Halt>) -> Result<()> {
        let (code, message) = match ended {
            Ok(()) => ("ready".to_owned(), String::new()),
            Err(Halt::Fail { code, message }) => (code, message),
            Err(Halt::Unreachable(message)) => ("no-connection".to_owned(), message),
            Err(Halt::Busy(message)) => ("running".to_owned(), message),
            Err(Halt::Backend { message, .. }) => ("backend".to_owned(), message),
            Err(Halt::Store(error)) => return Err(error),
        };
        way.log.say("plan", &format!("{code} {message}"));
        let unit = way.unit().id().to_owned();
        // Before it is released, or this process would take it again.
        lock(&self.planned).push(Planned {
            unit,
            code,
            message,
        });
        way.release()
    }

    /// A setting in seconds.
    pub(super) fn time(&self, setting: &Setting) -> Duration {
        Duration::from_secs(self.settings.number(setting).into())
    }
}

fn note_warnings(way: &mut Way<'_>, warnings: Vec<Finding>) {
    for warning in warnings
        .iter()
        .filter(|finding| finding.severity == "warning")
    {
        let text = format!("{}: {}; {}", warning.code, warning.what, warning.remedy);
        way.log.say("warning", &text);
    }
}

/// What would stop the migration anyway.
fn check_facts(facts: &Facts, ssh: &Ssh) -> Result<(), Halt> {
    if facts.os == BALENA_OS {
        return Err(Halt::fail("balena-os", "it runs balenaOS already"));
    }
    match facts.rights {
        Rights::Root | Rights::Sudo => Ok(()),
        Rights::Password if ssh.password().is_some() => Ok(()),
        Rights::Password => Err(Halt::fail(
            "no-root",
            "its sudo asks for a password; give it with --passwd or MIG_SSH_PASSWD",
        )),
        Rights::None => Err(Halt::fail(
            "no-root",
            "its user is not root, and there is no sudo",
        )),
    }
}
