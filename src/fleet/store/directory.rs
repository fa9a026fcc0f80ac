//! Units as files: the folder `db` with one folder a state, as the older tools have it.
//!
//! A unit moves by rename(2), which only one of several can do; in `tmp` its name says who holds it
//! ([`super::lease`]). A lock on `db/.lock`, shared by those who move units, lets [`Store::add`] and
//! [`Store::all`] see every unit once; where a file system has no locks, they may miss one that
//! moves just then, and who was silent for long may still write a unit that was taken away.

mod moving;

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};

use super::lease::{self, Holder, Lease};
use super::{AddError, Claim, Claimed, Entry, State, Store, home};
use crate::fleet::moment::Moment;
use crate::fleet::unit::Unit;
use crate::sys::Sys;
use crate::sys::files::{self, Lock};
use crate::sys::watch::Watch;

/// What the older tools call it.
const STOP: &str = "/db/tmp/migdb-stop";

const LOCK: &str = "/db/.lock";

/// Only the operator's: passwords are in there.
const FOLDER: u32 = 0o700;
const FILE: u32 = 0o600;

/// A folder of units.
pub struct Directory {
    sys: Sys,
    base: String,
    holder: Holder,
    watch: Watch,
}

/// Which lock on `db/.lock`.
enum Hold {
    /// Units move.
    Moving,
    /// Nobody else moves any.
    Still,
}

impl Directory {
    /// Opens the store in `base`, an absolute folder. `db` is made when it is not there.
    pub fn open(base: &str) -> Result<Directory> {
        let sys = Sys::new(base);
        for folder in [
            "/db",
            "/db/units",
            "/db/process",
            "/db/done",
            "/db/fail",
            "/db/tmp",
            "/db/log",
        ] {
            match sys.make_dir(folder, FOLDER) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("making {base}{folder}"));
                }
                _ => {}
            }
        }
        let holder = Holder::this().context("finding out who this process is")?;
        let watch = sys
            .watch(&[
                "/db/units",
                "/db/process",
                "/db/done",
                "/db/fail",
                "/db/tmp",
            ])
            .with_context(|| format!("watching {base}/db"))?;
        Ok(Directory {
            sys,
            watch,
            base: base.to_owned(),
            holder,
        })
    }

    /// Waits for the lock. A file system without locks has none to wait for.
    fn hold(&self, how: Hold) -> Result<Option<Lock>> {
        let lock = match how {
            Hold::Moving => self.sys.lock_shared(LOCK),
            Hold::Still => self.sys.lock_alone(LOCK),
        };
        match lock {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOLCK) => Ok(None),
            lock => lock
                .map(Some)
                .with_context(|| format!("locking {}{LOCK}", self.base)),
        }
    }

    /// Names of unit files in a state.
    fn names(&self, state: State) -> Result<Vec<String>> {
        let folder = format!("/db/{}", state.name());
        let names = self
            .sys
            .list(&folder)
            .with_context(|| format!("reading {}{folder}", self.base))?;
        let is_unit = |name: &String| name.starts_with("unit-") || name.starts_with("fail-");
        Ok(names.into_iter().filter(is_unit).collect())
    }

    /// Reads a unit file; `None` when it is there no more.
    fn read(&self, path: &str) -> Result<Option<Unit>> {
        let text = match self.sys.read_text(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}{path}", self.base));
            }
        };
        let unit = Unit::parse(&text).map_err(|error| anyhow!("{}{path}: {error}", self.base))?;
        Ok(Some(unit))
    }

    /// As [`Directory::read`]; a file that is no unit is told of, and passed over.
    fn read_or_warn(&self, path: &str) -> Option<Unit> {
        self.read(path).unwrap_or_else(|error| {
            log::warn!("{error:#}; it is left alone");
            None
        })
    }

    /// Takes the file `name` of `from`; `None` when somebody was faster.
    fn take(&self, from: State, name: &str) -> Result<Option<Claim>> {
        let _moving = self.hold(Hold::Moving)?;
        let held = self.holder.sign(&plain(name), Moment::now());
        let path = format!("/db/tmp/{held}");
        match self
            .sys
            .rename(&format!("/db/{}/{name}", from.name()), &path)
        {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("taking {name}")),
        }
        // What was read before may have been changed by another holder in between.
        let unit = self.read(&path)?;
        Ok(unit.map(|unit| Claim { unit, name: held }))
    }

    /// Moves a file of tmp to where its unit belongs; `false` when it was there no more. To be called
    /// under the lock.
    fn send_home(&self, held: &str, unit: &Unit) -> Result<bool> {
        let state = home(unit);
        let to = format!("/db/{}/{}", state.name(), name_in(state, &plain(held)));
        match self.sys.rename(&format!("/db/tmp/{held}"), &to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("moving {held} to {to}")),
        }
    }

    /// Time since the last word of the holder of a file in tmp.
    fn silence(&self, name: &str, lease: &Lease) -> Duration {
        let written = self.sys.modified(&format!("/db/tmp/{name}"));
        let last = written.map_or(lease.since, |time| Moment::from(time).max(lease.since));
        Moment::now().since(last)
    }

    /// Files of tmp that are held, or were, with their leases.
    fn leased(&self, prefix: &str) -> Result<Vec<(String, Lease)>> {
        let names = self.sys.list("/db/tmp").context("reading db/tmp")?;
        let leased = names.into_iter().filter(|name| name.starts_with(prefix));
        Ok(leased
            .filter_map(|name| {
                let (_, lease) = lease::read(&name)?;
                Some((name, lease))
            })
            .collect())
    }

    fn lives(&self, name: &str, lease: &Lease) -> bool {
        lease.holder.lives(&self.holder, self.silence(name, lease))
    }

    /// Writes a unit that is held. To be called under the lock.
    fn write(&self, claim: &Claim) -> Result<()> {
        self.still_held(claim)?;
        let path = format!("/db/tmp/{}", claim.name);
        self.sys
            .write_whole(&path, claim.unit.text().as_bytes(), FILE, None)
            .with_context(|| format!("writing {}{path}", self.base))
    }

    fn still_held(&self, claim: &Claim) -> Result<()> {
        match self.sys.exists(&format!("/db/tmp/{}", claim.name)) {
            true => Ok(()),
            false => Err(super::taken_away(claim)),
        }
    }
}

impl Store for Directory {
    fn add(&self, units: &[Unit]) -> Result<(), AddError> {
        let _still = self.hold(Hold::Still)?;
        if self.is_moving() {
            return Err(AddError::Moving);
        }
        let mut there: BTreeMap<String, State> = BTreeMap::new();
        for state in State::ALL {
            for name in self.names(state)? {
                if let Some(unit) = self.read_or_warn(&format!("/db/{}/{name}", state.name())) {
                    there.entry(unit.id().to_owned()).or_insert(state);
                }
            }
        }
        let known = |unit: &Unit| Some((unit.id().to_owned(), *there.get(unit.id())?));
        let duplicates: Vec<_> = units.iter().filter_map(known).collect();
        if !duplicates.is_empty() {
            return Err(AddError::Duplicates(duplicates));
        }
        self.forget_half_added()?;
        for unit in units {
            let name = format!("unit-{}-{}", unit.id(), suffix());
            let path = format!("/db/units/{name}");
            self.sys
                .write_whole(&path, unit.text().as_bytes(), FILE, None)
                .with_context(|| format!("writing {}{path}", self.base))?;
        }
        Ok(())
    }

    fn all(&self) -> Result<Vec<Entry>> {
        let _still = self.hold(Hold::Still)?;
        let mut entries = Vec::new();
        for state in State::ALL {
            for name in self.names(state)? {
                let path = format!("/db/{}/{name}", state.name());
                let Some(unit) = self.read_or_warn(&path) else {
                    continue;
                };
                let lease = || lease::read(&name).map(|(_, lease)| lease);
                let holder = (state == State::Tmp).then(|| super::holder_in_words(lease()));
                entries.push(Entry {
                    state,
                    unit,
                    holder,
                });
            }
        }
        entries.sort_by(|a, b| a.unit.id().cmp(b.unit.id()));
        Ok(entries)
    }

    fn claim(&self, from: State, now: Moment, wanted: &dyn Fn(&Unit) -> bool) -> Result<Claimed> {
        let mut names = self.names(from)?;
        // Workers that start at different units seldom meet.
        fastrand::shuffle(&mut names);
        let mut next: Option<Moment> = None;
        for name in names {
            let path = format!("/db/{}/{name}", from.name());
            let Some(unit) = self.read_or_warn(&path).filter(|unit| wanted(unit)) else {
                continue;
            };
            if unit.due() > now {
                next = Some(next.map_or(unit.due(), |next| next.min(unit.due())));
                continue;
            }
            if let Some(claim) = self.take(from, &name)? {
                return Ok(Claimed::Unit(claim));
            }
        }
        Ok(next.map_or(Claimed::Empty, Claimed::Later))
    }

    fn save(&self, claim: &Claim) -> Result<()> {
        let _moving = self.hold(Hold::Moving)?;
        self.write(claim)
    }

    fn release(&self, claim: Claim) -> Result<()> {
        let _moving = self.hold(Hold::Moving)?;
        self.write(&claim)?;
        match self.send_home(&claim.name, &claim.unit)? {
            true => Ok(()),
            false => self.still_held(&claim),
        }
    }

    fn give_back(&self, name: &str) -> Result<()> {
        let _moving = self.hold(Hold::Moving)?;
        match self.read(&format!("/db/tmp/{name}"))? {
            Some(unit) => self.send_home(name, &unit).map(drop),
            None => Ok(()),
        }
    }

    fn renew(&self, name: &str) -> Result<()> {
        self.sys
            .touch(&format!("/db/tmp/{name}"), SystemTime::now())
            .with_context(|| format!("renewing the lease {name}"))
    }

    fn wait(&self, limit: Duration) -> Result<()> {
        /// Of a network file system, another machine's changes are not told.
        const AT_MOST: Duration = Duration::from_secs(30);
        self.watch
            .wait(limit.min(AT_MOST))
            .context("waiting for a unit")
    }

    fn poke(&self) {
        self.watch.poke();
    }

    fn recover(&self) -> Result<Vec<String>> {
        let mut back = Vec::new();
        for (name, lease) in self.leased("unit-")? {
            if self.lives(&name, &lease) {
                continue;
            }
            // Not while it is written: a holder that was only slow may have woken.
            let _still = self.hold(Hold::Still)?;
            if self.lives(&name, &lease) {
                continue;
            }
            // The name is that of one claim: only one can take it away, and only from the dead.
            if let Some(unit) = self.read_or_warn(&format!("/db/tmp/{name}"))
                && self.send_home(&name, &unit)?
            {
                super::say_back(unit.id(), &lease);
                back.push(unit.id().to_owned());
            }
        }
        for (name, lease) in self.leased("worker-")? {
            if !self.lives(&name, &lease) {
                self.leave(&name)?;
            }
        }
        self.forget_half_written()?;
        Ok(back)
    }

    fn enlist(&self, what: &str) -> Result<String> {
        let note = self.holder.sign(&format!("worker-{what}"), Moment::now());
        self.sys
            .write_whole(&format!("/db/tmp/{note}"), b"", FILE, None)
            .context("noting that a worker runs")?;
        Ok(note)
    }

    fn leave(&self, note: &str) -> Result<()> {
        self.remove("/db/tmp", note)
    }

    fn workers(&self) -> Result<Vec<String>> {
        let notes = self.leased("worker-")?;
        let living = notes.iter().filter(|(name, lease)| self.lives(name, lease));
        Ok(living.map(|(_, lease)| lease.holder.describe()).collect())
    }

    fn ask_to_stop(&self) -> Result<()> {
        self.sys
            .write_whole(STOP, b"", FILE, None)
            .context("asking the workers to stop")
    }

    fn stop_asked(&self) -> Result<bool> {
        Ok(self.sys.exists(STOP))
    }

    fn take_back_stop(&self) -> Result<()> {
        self.sys
            .remove_file(STOP)
            .context("taking back that workers stop")
    }
}

impl Directory {
    /// Removes what workers left that died while they wrote.
    fn forget_half_written(&self) -> Result<()> {
        for name in self.sys.list("/db/tmp").context("reading db/tmp")? {
            let Some((_, lease)) = files::meant_by(&name).and_then(lease::read) else {
                continue;
            };
            if !self.lives(&name, &lease) {
                self.remove("/db/tmp", &name)?;
            }
        }
        Ok(())
    }

    /// Removes what an `add` left that was cut off. Nobody else writes in `units`, and only one at a
    /// time adds.
    fn forget_half_added(&self) -> Result<()> {
        for name in self.sys.list("/db/units").context("reading db/units")? {
            if files::meant_by(&name).is_some() {
                self.remove("/db/units", &name)?;
            }
        }
        Ok(())
    }

    fn remove(&self, folder: &str, name: &str) -> Result<()> {
        self.sys
            .remove_file(&format!("{folder}/{name}"))
            .with_context(|| format!("removing {name}"))
    }
}

/// The name of a unit file in a state. The older tools look for another one in `fail`.
fn name_in(state: State, plain: &str) -> String {
    match (state, plain.strip_prefix("unit-")) {
        (State::Fail, Some(rest)) => format!("fail-{rest}"),
        _ => plain.to_owned(),
    }
}

/// The name of a unit file outside of tmp and fail.
pub(super) fn plain(name: &str) -> String {
    let base = lease::read(name).map_or(name, |(base, _)| base);
    match base.strip_prefix("fail-") {
        Some(rest) => format!("unit-{rest}"),
        None => base.to_owned(),
    }
}

/// Three random letters or digits, as mktemp(1) made them for the older tools.
pub(super) fn suffix() -> String {
    std::iter::repeat_with(fastrand::alphanumeric)
        .take(3)
        .collect()
}
