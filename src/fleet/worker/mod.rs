//! Workers: any number of jobs in a process, any number of processes at a store.
//!
//! One thread hands out units to the jobs and waits when there is none; `migrate` and `check` are
//! what a job does with one. The first SIGINT, or `migdb stop`, lets all jobs end what they have in
//! hand; the second one ends the process, and its units come back by their leases.

mod canary;
mod check;
mod migrate;
mod way;

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::sys::{Sys, interrupt};

use super::backend::Backend;
use super::material::Material;
use super::moment::Moment;
use super::settings::{MIG_MIN_AGE, Settings};
use super::store::{Claim, Claimed, State, Store, lease};
use super::throttle::Throttle;
use super::unit::{Status, Unit, field};

pub use canary::Canary;
use canary::Gate;

/// What a process of workers does.
#[derive(Debug, Clone)]
pub struct Work {
    /// Units at a time.
    pub jobs: usize,
    /// Migrate waiting units.
    pub migrate: bool,
    /// See whether migrated units are online.
    pub check: bool,
    /// Only look whether units could be migrated.
    pub plan_only: bool,
    /// End when no unit is left to do.
    pub until_empty: bool,
    /// A few first.
    pub canary: Option<Canary>,
    /// An absolute folder.
    pub logs: String,
}

/// Why the workers ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// No unit is left.
    Empty,
    /// By a signal or `migdb stop`.
    Stopped,
    /// Too many units failed.
    Halted(String),
}

/// What came of a unit with [`Work::plan_only`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Planned {
    /// The unit.
    pub unit: String,
    /// A stable word: `ready`, or why not.
    pub code: String,
    /// What is to be known.
    pub message: String,
}

/// What all jobs of a process share.
pub struct Shared<'a> {
    sys: &'a Sys,
    store: &'a dyn Store,
    settings: &'a Settings,
    backend: &'a dyn Backend,
    work: &'a Work,
    throttle: Option<Throttle>,
    materials: Mutex<HashMap<Source, Arc<Material>>>,
    held: Mutex<HashSet<String>>,
    /// Claims that could not be let go.
    dropped: Mutex<HashSet<String>>,
    planned: Mutex<Vec<Planned>>,
}

/// How often what the dead held is looked for.
const RECOVER: Duration = Duration::from_secs(30);

/// Longer than any wait for a unit.
const LONG: Duration = Duration::from_secs(3600);

/// What a job is to do with a unit.
#[derive(Debug, Clone, Copy)]
enum Task {
    Migrate,
    Check,
}

/// What the one who hands out units found.
enum Next {
    Unit(Task, Box<Claim>),
    /// None yet.
    Later(Duration),
    Empty,
    /// None any more, and why.
    Halted(String),
}

impl<'a> Shared<'a> {
    /// `rate` is the limit of all transfers in bytes a second.
    pub fn new(
        sys: &'a Sys,
        store: &'a dyn Store,
        settings: &'a Settings,
        backend: &'a dyn Backend,
        work: &'a Work,
        rate: Option<u64>,
    ) -> Shared<'a> {
        Shared {
            sys,
            store,
            settings,
            backend,
            work,
            throttle: rate.map(Throttle::new),
            materials: Mutex::default(),
            held: Mutex::default(),
            dropped: Mutex::default(),
            planned: Mutex::default(),
        }
    }

    /// Works until there is a reason to end.
    pub fn run(&self) -> Result<Ended> {
        if self.store.stop_asked()? {
            return Err(anyhow!(
                "workers are asked to stop; wait for that, or take it back with `migdb stop --cancel`"
            ));
        }
        let note = self.store.enlist("jobs")?;
        let over = (Mutex::new(false), Condvar::new());
        let ended = thread::scope(|scope| {
            let beat = scope.spawn(|| self.beat(&note, &over));
            let ended = thread::scope(|jobs| self.hand_out(jobs));
            *lock(&over.0) = true;
            over.1.notify_all();
            // A heart that panicked is told of by its own message.
            let _ = beat.join();
            ended
        });
        self.give_back();
        self.store.leave(&note)?;
        ended
    }

    /// What was found with [`Work::plan_only`], by unit.
    pub fn planned(&self) -> Vec<Planned> {
        let mut planned = lock(&self.planned).clone();
        planned.sort();
        planned
    }

    fn hand_out<'scope>(&'scope self, jobs: &'scope thread::Scope<'scope, '_>) -> Result<Ended> {
        let (done, free) = mpsc::channel();
        for _ in 0..self.work.jobs {
            done.send(()).context("starting the jobs")?;
        }
        let mut recovered: Option<Instant> = None;
        loop {
            free.recv().context("waiting for a job")?;
            if interrupt::caught() || self.store.stop_asked()? {
                return Ok(Ended::Stopped);
            }
            if recovered.is_none_or(|time| time.elapsed() > RECOVER) {
                self.give_back();
                self.store.recover()?;
                recovered = Some(Instant::now());
            }
            let wait = match self.next()? {
                Next::Unit(task, claim) => {
                    lock(&self.held).insert(claim.name().to_owned());
                    let done = done.clone();
                    jobs.spawn(move || self.job(task, *claim, &done));
                    continue;
                }
                Next::Halted(reason) => return Ok(Ended::Halted(reason)),
                Next::Later(time) => time,
                Next::Empty if self.work.until_empty && self.has_none() => return Ok(Ended::Empty),
                Next::Empty => LONG,
            };
            self.store.wait(wait.min(RECOVER))?;
            done.send(()).context("keeping a job")?;
        }
    }

    /// Looks for a unit, migrated ones first: they are nearly done.
    fn next(&self) -> Result<Next> {
        // Who only looks does not wait for a pause to end.
        let now = match self.work.plan_only {
            true => Moment(i64::MAX),
            false => Moment::now(),
        };
        let mut later: Option<Moment> = None;
        let mut note = |time: Moment| later = Some(later.map_or(time, |known| known.min(time)));
        if self.work.check {
            match self.store.claim(State::Process, now, &|_| true)? {
                Claimed::Unit(claim) => return Ok(Next::Unit(Task::Check, Box::new(claim))),
                Claimed::Later(time) => note(time),
                Claimed::Empty => {}
            }
        }
        let gate = match self.work.migrate {
            true => self.gate()?,
            false => Gate::Closed,
        };
        match gate {
            Gate::Halted(reason) => return Ok(Next::Halted(reason)),
            Gate::Closed if self.work.migrate => return Ok(Next::Later(RECOVER)),
            Gate::Closed => {}
            Gate::Open => match self
                .store
                .claim(State::Units, now, &|unit| self.wants(unit, now))?
            {
                Claimed::Unit(claim) => return Ok(Next::Unit(Task::Migrate, Box::new(claim))),
                Claimed::Later(time) => note(time),
                Claimed::Empty => {}
            },
        }
        Ok(match later {
            Some(time) => Next::Later(time.since(now).max(Duration::from_secs(1))),
            None => Next::Empty,
        })
    }

    /// Whether a unit is old enough, and was not looked at by this process when that only looks.
    fn wants(&self, unit: &Unit, now: Moment) -> bool {
        let seen = || {
            lock(&self.planned)
                .iter()
                .any(|seen| seen.unit == unit.id())
        };
        if self.work.plan_only && (unit.status() != Status::Init || seen()) {
            return false;
        }
        let age = Duration::from_secs(self.settings.number(&MIG_MIN_AGE).into());
        unit.moment(field::CREATED)
            .is_none_or(|created| created.after(age) <= now)
    }

    fn job(&self, task: Task, claim: Claim, done: &Sender<()>) {
        let name = claim.name().to_owned();
        let id = claim.unit.id().to_owned();
        let ended = match task {
            Task::Migrate => self.migrate(claim),
            Task::Check => self.check(claim),
        };
        if let Err(error) = ended {
            log::error!("{id}: {error:#}");
            lock(&self.dropped).insert(name.clone());
        }
        lock(&self.held).remove(&name);
        self.store.poke();
        // Nobody listens any more when the workers end.
        let _ = done.send(());
    }

    /// Whether this process has no unit, not even one that it can't let go.
    fn has_none(&self) -> bool {
        lock(&self.held).is_empty() && lock(&self.dropped).is_empty()
    }

    /// Lets units go whose job could not: nobody else would, while this process lives.
    fn give_back(&self) {
        lock(&self.dropped).retain(|name| match self.store.give_back(name) {
            Ok(()) => false,
            Err(error) => {
                log::error!("{error:#}");
                true
            }
        });
    }

    /// Says that this worker, and who holds the units in hand, is alive.
    fn beat(&self, note: &str, (over, changed): &(Mutex<bool>, Condvar)) {
        let mut is_over = lock(over);
        while !*is_over {
            let waited = changed.wait_timeout(is_over, lease::BEAT);
            is_over = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            let names: Vec<String> = lock(&self.held).iter().cloned().collect();
            for name in names.iter().map(String::as_str).chain([note]) {
                if let Err(error) = self.store.renew(name) {
                    log::debug!("{error:#}");
                }
            }
        }
    }

    /// The folder or archive of that name, read once in a process.
    fn material(&self, source: &Source) -> Result<Arc<Material>> {
        // Under the lock, so that only one reads it.
        let mut materials = lock(&self.materials);
        if let Some(material) = materials.get(source) {
            return Ok(material.clone());
        }
        let material = Arc::new(match source {
            Source::Folder(path) => Material::read(self.sys, path)?,
            Source::Archive(path) => Material::unpack(self.sys, path)?,
        });
        materials.insert(source.clone(), material.clone());
        Ok(material)
    }
}

/// Where the folder migratecfg comes from, an absolute path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    Folder(String),
    Archive(String),
}

/// What a panicking thread left behind is whole: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
