//! Units in PostgreSQL: for workers on many hosts. The states and leases are those of the folders.
//!
//! A worker takes a unit by one statement, past the rows that others are just taking (FOR UPDATE SKIP
//! LOCKED). Who waits is told by NOTIFY. The server may go away for a while: what was asked is asked
//! again then, so each statement is one that may be made twice.

mod moving;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use super::address::Address;
use super::directory::suffix;
use super::lease::{self, Holder, Lease};
use super::{AddError, Claim, Claimed, Entry, State, Store, home};
use crate::fleet::moment::Moment;
use crate::fleet::unit::Unit;
use crate::sys::Sys;
use crate::sys::postgres::{Fault, Listener, Login, Server};
use crate::sys::watch::Watch;

const TABLES: &str = include_str!("postgres/tables.sql");

/// Of the tables; one that is not known was made by a later version.
const VERSION: i32 = 1;

/// Held by who adds or moves units.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7165728923)";

/// Units that are looked at together.
const PAGE: i64 = 50;

/// A database of units.
pub struct Postgres {
    server: Server,
    login: Login,
    shown: String,
    holder: Holder,
    watch: Arc<Watch>,
    /// Begun when something is waited for.
    listener: OnceLock<Listener>,
}

/// What somebody holds, or held.
struct Leased {
    name: String,
    lease: Lease,
    /// Time since the holder's last word.
    silent: Duration,
    /// Of a unit.
    text: String,
}

impl Leased {
    fn lives(&self, asking: &Holder) -> bool {
        self.lease.holder.lives(asking, self.silent)
    }
}

/// What came of the wish to add units.
enum Added {
    All,
    /// Rows `id, state` of what is there already.
    Not(Vec<Row>),
    Moving,
}

impl Postgres {
    /// Opens the store at an address. With `create` its tables are made when they are not there.
    ///
    /// # Errors
    ///
    /// Also when there are none.
    pub fn open(address: &Address, create: bool) -> Result<Postgres> {
        let Address { login, shown } = address.clone();
        let server = Server::connect(login.clone()).with_context(|| format!("opening {shown}"))?;
        let store = Postgres {
            server,
            login,
            holder: Holder::this().context("finding out who this process is")?,
            watch: Arc::new(Sys::new("/").watch(&[]).context("preparing to wait")?),
            listener: OnceLock::new(),
            shown,
        };
        match (store.version()?, create) {
            (Some(VERSION), _) => Ok(store),
            (None, true) => store.create().map(|()| store),
            (None, false) => Err(anyhow!(
                "there is no fleet in {}; add a unit first, or name another base with --base or MIG_DB_DIR",
                store.shown
            )),
            (Some(other), _) => Err(anyhow!(
                "the tables in {} are of version {other}, and this program knows version {VERSION}; use the \
                 program that made them",
                store.shown
            )),
        }
    }

    fn version(&self) -> Result<Option<i32>> {
        self.run("looking for tables", async |client, _| {
            let there = "SELECT to_regclass('migdb_store') IS NOT NULL";
            let there: bool = client.query_typed_one(there, &[]).await?.get(0);
            match there {
                true => {
                    let version = "SELECT version FROM migdb_store";
                    let row = client.query_typed_opt(version, &[]).await?;
                    Ok(row.map(|row| row.get(0)))
                }
                false => Ok(None),
            }
        })
    }

    fn create(&self) -> Result<()> {
        let identity: String = std::iter::repeat_with(|| fastrand::digit(16))
            .take(32)
            .collect();
        self.run("making tables", async |client, _| {
            let work = client.transaction().await?;
            work.batch_execute(LOCK).await?;
            work.batch_execute(TABLES).await?;
            let row = "INSERT INTO migdb_store (version, identity) VALUES ($1, $2) \
                       ON CONFLICT DO NOTHING";
            work.execute_typed(row, &[(&VERSION, Type::INT4), (&identity, Type::TEXT)])
                .await?;
            work.commit().await
        })
    }

    fn run<T>(
        &self,
        what: &str,
        work: impl AsyncFn(&mut Client, bool) -> Result<T, Error>,
    ) -> Result<T> {
        let done: Result<T, Fault> = self.server.run(work);
        done.with_context(|| format!("{what} in {}", self.shown))
    }

    /// A row `name, text` as a unit; what is none is told of, and passed over.
    fn unit(&self, row: &Row) -> Option<Unit> {
        let (name, text): (&str, &str) = (row.get("name"), row.get("text"));
        Unit::parse(text)
            .inspect_err(|error| log::warn!("{}: {name}: {error}; it is left alone", self.shown))
            .ok()
    }

    /// Names of the next units of a state that are due by `now`, or not before, and the first of them
    /// that is wanted. `after` is the last one of the page before.
    fn page(
        &self,
        from: State,
        after: &(i64, String),
        due: Option<Moment>,
    ) -> Result<Vec<(i64, String, Option<Unit>)>> {
        let until = due.map_or(i64::MAX, |now| now.0);
        let rows = self.run("looking for a unit", async |client, _| {
            let page = "SELECT name, text, due FROM migdb_units \
                        WHERE state = $1 AND due <= $2 AND (due, name) > ($3, $4) \
                        ORDER BY due, name LIMIT $5";
            client
                .query_typed(
                    page,
                    &[
                        (&from.name(), Type::TEXT),
                        (&until, Type::INT8),
                        (&after.0, Type::INT8),
                        (&after.1, Type::TEXT),
                        (&PAGE, Type::INT8),
                    ],
                )
                .await
        })?;
        let row = |row: &Row| (row.get("due"), row.get("name"), self.unit(row));
        Ok(rows.iter().map(row).collect())
    }

    /// Takes one of several units; `None` when others were faster.
    fn take(&self, from: State, names: &[String], now: Moment) -> Result<Option<Claim>> {
        // Which one it will be is not known yet: the lease goes by the process alone.
        let lease = self.holder.sign("unit", Moment::now());
        let row = self.run("taking a unit", async |client, again| {
            let taken = "SELECT name, text FROM migdb_units WHERE state = 'tmp' AND lease = $1";
            if again
                && let Some(row) = client
                    .query_typed_opt(taken, &[(&lease, Type::TEXT)])
                    .await?
            {
                return Ok(Some(row));
            }
            let take = "UPDATE migdb_units SET state = 'tmp', lease = $1, beat = now() \
                        WHERE name = (SELECT name FROM migdb_units \
                            WHERE name = ANY($2) AND state = $3 AND due <= $4 \
                            ORDER BY due, name LIMIT 1 FOR UPDATE SKIP LOCKED) \
                        RETURNING name, text";
            client
                .query_typed_opt(
                    take,
                    &[
                        (&lease, Type::TEXT),
                        (&names, Type::TEXT_ARRAY),
                        (&from.name(), Type::TEXT),
                        (&now.0, Type::INT8),
                    ],
                )
                .await
        })?;
        let claim = |row: Row| {
            Some(Claim {
                unit: self.unit(&row)?,
                name: lease,
            })
        };
        Ok(row.and_then(claim))
    }

    /// When the first unit that is wanted will be due.
    fn next_due(
        &self,
        from: State,
        now: Moment,
        wanted: &dyn Fn(&Unit) -> bool,
    ) -> Result<Claimed> {
        let mut after = (now.0, "\u{10FFFF}".to_owned());
        loop {
            let page = self.page(from, &after, None)?;
            let is_wanted = |unit: &Option<Unit>| unit.as_ref().is_some_and(wanted);
            if let Some((due, ..)) = page.iter().find(|(_, _, unit)| is_wanted(unit)) {
                return Ok(Claimed::Later(Moment(*due)));
            }
            match page.last() {
                Some((due, name, _)) => after = (*due, name.clone()),
                None => return Ok(Claimed::Empty),
            }
        }
    }

    /// Writes a unit that is held into `state`; tmp keeps it.
    fn write(&self, claim: &Claim, state: State) -> Result<()> {
        let (text, due) = (claim.unit.text(), claim.unit.due().0);
        let lease = (state == State::Tmp).then_some(&claim.name);
        let written = self.run("writing a unit", async |client, again| {
            let write = "UPDATE migdb_units SET state = $2, text = $3, due = $4, lease = $5, \
                             beat = CASE WHEN $5 IS NULL THEN NULL ELSE now() END \
                         WHERE lease = $1 AND state = 'tmp'";
            let work = client.transaction().await?;
            let written = work
                .execute_typed(
                    write,
                    &[
                        (&claim.name, Type::TEXT),
                        (&state.name(), Type::TEXT),
                        (&text, Type::TEXT),
                        (&due, Type::INT8),
                        (&lease, Type::TEXT),
                    ],
                )
                .await?;
            if lease.is_none() {
                work.batch_execute("NOTIFY migdb").await?;
            }
            work.commit().await?;
            // Let go already, when the answer to the first time was lost.
            Ok(written > 0 || (again && lease.is_none()))
        })?;
        match written {
            true => Ok(()),
            false => Err(super::taken_away(claim)),
        }
    }

    /// What a query of `lease, silent` in seconds gives, and `text` where it is of units.
    fn leased(&self, query: &str) -> Result<Vec<Leased>> {
        let rows = self.run("looking at workers", async |client, _| {
            client.query_typed(query, &[]).await
        })?;
        let read = |row: &Row| {
            let name: &str = row.get("lease");
            let (_, lease) = lease::read(name)?;
            Some(Leased {
                name: name.to_owned(),
                lease,
                silent: Duration::from_secs_f64(row.get::<_, f64>("silent").max(0.0)),
                text: row.try_get("text").unwrap_or_default(),
            })
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    fn held(&self) -> Result<Vec<Leased>> {
        self.leased(
            "SELECT text, lease, extract(epoch FROM now() - beat)::float8 AS silent \
             FROM migdb_units WHERE lease IS NOT NULL AND state = 'tmp'",
        )
    }

    fn notes(&self) -> Result<Vec<Leased>> {
        self.leased(
            "SELECT note AS lease, extract(epoch FROM now() - beat)::float8 AS silent \
             FROM migdb_workers",
        )
    }

    /// Lets a unit go that nobody works on any more, as it is; gives its id if it still was so.
    fn send_home(&self, held: &Leased) -> Result<Option<String>> {
        let unit = match Unit::parse(&held.text) {
            Ok(unit) => unit,
            Err(error) => {
                log::warn!("{}: {}: {error}; it is left alone", self.shown, held.name);
                return Ok(None);
            }
        };
        let state = home(&unit).name();
        let sent = self.run("letting a unit go", async |client, _| {
            // Its text is looked at again: a holder that was only slow may have written.
            let send = "UPDATE migdb_units SET state = $3, lease = NULL, beat = NULL, due = $4 \
                        WHERE lease = $1 AND text = $2 AND state = 'tmp'";
            let values: [(&(dyn ToSql + Sync), Type); 4] = [
                (&held.name, Type::TEXT),
                (&held.text, Type::TEXT),
                (&state, Type::TEXT),
                (&unit.due().0, Type::INT8),
            ];
            let work = client.transaction().await?;
            let sent = work.execute_typed(send, &values).await?;
            work.batch_execute("NOTIFY migdb").await?;
            work.commit().await?;
            Ok(sent)
        })?;
        Ok((sent > 0).then(|| unit.id().to_owned()))
    }
}

impl Store for Postgres {
    fn add(&self, units: &[Unit]) -> Result<(), AddError> {
        let ids: Vec<&str> = units.iter().map(Unit::id).collect();
        let names: Vec<String> = ids
            .iter()
            .map(|id| format!("unit-{id}-{}", suffix()))
            .collect();
        let texts: Vec<String> = units.iter().map(Unit::text).collect();
        let dues: Vec<i64> = units.iter().map(|unit| unit.due().0).collect();
        let added = self.run("adding units", async |client, again| {
            let work = client.transaction().await?;
            work.batch_execute(LOCK).await?;
            let moving = "SELECT leaving IS NOT NULL OR arriving IS NOT NULL FROM migdb_store";
            if work.query_typed_one(moving, &[]).await?.get(0) {
                return Ok(Added::Moving);
            }
            let ours = "SELECT count(*) FROM migdb_units WHERE name = ANY($1)";
            let ours = work
                .query_typed_one(ours, &[(&names, Type::TEXT_ARRAY)])
                .await?;
            if again && ours.get::<_, i64>(0) == names.len() as i64 {
                return Ok(Added::All);
            }
            let there = "SELECT id, state FROM migdb_units WHERE id = ANY($1)";
            let there = work.query_typed(there, &[(&ids, Type::TEXT_ARRAY)]).await?;
            if !there.is_empty() {
                return Ok(Added::Not(there));
            }
            let insert = "INSERT INTO migdb_units (name, id, state, due, text) \
                          SELECT name, id, 'units', due, text \
                          FROM unnest($1, $2, $3, $4) AS new (name, id, due, text)";
            let values: [(&(dyn ToSql + Sync), Type); 4] = [
                (&names, Type::TEXT_ARRAY),
                (&ids, Type::TEXT_ARRAY),
                (&dues, Type::INT8_ARRAY),
                (&texts, Type::TEXT_ARRAY),
            ];
            work.execute_typed(insert, &values).await?;
            work.batch_execute("NOTIFY migdb").await?;
            work.commit().await?;
            Ok(Added::All)
        })?;
        let there = match added {
            Added::All => return Ok(()),
            Added::Moving => return Err(AddError::Moving),
            Added::Not(there) => there,
        };
        let read = |row: &Row| Some((row.get(0), State::named(row.get(1))?));
        Err(AddError::Duplicates(
            there.iter().filter_map(read).collect(),
        ))
    }

    fn all(&self) -> Result<Vec<Entry>> {
        let rows = self.run("reading units", async |client, _| {
            let all = "SELECT name, state, text, lease FROM migdb_units ORDER BY id COLLATE \"C\"";
            client.query_typed(all, &[]).await
        })?;
        let entry = |row: &Row| {
            let state = State::named(row.get("state"))?;
            let lease: Option<&str> = row.get("lease");
            Some(Entry {
                state,
                unit: self.unit(row)?,
                holder: (state == State::Tmp).then(|| {
                    super::holder_in_words(lease.and_then(lease::read).map(|(_, lease)| lease))
                }),
            })
        };
        Ok(rows.iter().filter_map(entry).collect())
    }

    fn claim(&self, from: State, now: Moment, wanted: &dyn Fn(&Unit) -> bool) -> Result<Claimed> {
        let mut after = (i64::MIN, String::new());
        loop {
            let page = self.page(from, &after, Some(now))?;
            let Some((due, name, _)) = page.last() else {
                return self.next_due(from, now, wanted);
            };
            after = (*due, name.clone());
            let is_wanted = |unit: Option<Unit>| unit.is_some_and(|unit| wanted(&unit));
            let names: Vec<String> = page
                .into_iter()
                .filter_map(|(_, name, unit)| is_wanted(unit).then_some(name))
                .collect();
            if !names.is_empty()
                && let Some(claim) = self.take(from, &names, now)?
            {
                return Ok(Claimed::Unit(claim));
            }
        }
    }

    fn save(&self, claim: &Claim) -> Result<()> {
        self.write(claim, State::Tmp)
    }

    fn release(&self, claim: Claim) -> Result<()> {
        self.write(&claim, home(&claim.unit))
    }

    fn give_back(&self, name: &str) -> Result<()> {
        let held = self.held()?;
        match held.iter().find(|held| held.name == name) {
            Some(held) => self.send_home(held).map(drop),
            None => Ok(()),
        }
    }

    fn renew(&self, name: &str) -> Result<()> {
        let renewed = self.run("renewing a lease", async |client, _| {
            let beat = "WITH unit AS (UPDATE migdb_units SET beat = now() \
                                      WHERE lease = $1 AND state = 'tmp' RETURNING 1), \
                             worker AS (UPDATE migdb_workers SET beat = now() \
                                        WHERE note = $1 RETURNING 1) \
                        SELECT FROM unit UNION ALL SELECT FROM worker";
            client.query_typed(beat, &[(&name, Type::TEXT)]).await
        })?;
        match renewed.is_empty() {
            true => Err(anyhow!("the lease {name} is gone")),
            false => Ok(()),
        }
    }

    fn wait(&self, limit: Duration) -> Result<()> {
        if self.listener.get().is_none() {
            let watch = self.watch.clone();
            let listener = Listener::start(&self.login, "migdb", move || watch.poke())
                .context("beginning to listen")?;
            // Another thread's is as good.
            let _ = self.listener.set(listener);
        }
        self.watch.wait(limit).context("waiting for a unit")
    }

    fn poke(&self) {
        self.watch.poke();
    }

    fn recover(&self) -> Result<Vec<String>> {
        let mut back = Vec::new();
        for held in self.held()? {
            if held.lives(&self.holder) {
                continue;
            }
            // The lease is that of one claim: only one can take it away, and only from the dead.
            if let Some(id) = self.send_home(&held)? {
                super::say_back(&id, &held.lease);
                back.push(id);
            }
        }
        for note in self.notes()? {
            if !note.lives(&self.holder) {
                self.leave(&note.name)?;
            }
        }
        Ok(back)
    }

    fn enlist(&self, what: &str) -> Result<String> {
        let note = self.holder.sign(&format!("worker-{what}"), Moment::now());
        self.run("noting that a worker runs", async |client, _| {
            let enlist = "INSERT INTO migdb_workers VALUES ($1, now()) ON CONFLICT DO NOTHING";
            client.execute_typed(enlist, &[(&note, Type::TEXT)]).await
        })?;
        Ok(note)
    }

    fn leave(&self, note: &str) -> Result<()> {
        self.run("noting that a worker ended", async |client, _| {
            let leave = "DELETE FROM migdb_workers WHERE note = $1";
            client.execute_typed(leave, &[(&note, Type::TEXT)]).await?;
            client.batch_execute("NOTIFY migdb").await
        })
    }

    fn workers(&self) -> Result<Vec<String>> {
        let notes = self.notes()?;
        let living = notes.iter().filter(|note| note.lives(&self.holder));
        Ok(living.map(|note| note.lease.holder.describe()).collect())
    }

    fn ask_to_stop(&self) -> Result<()> {
        self.set_stop(true).context("asking the workers to stop")
    }

    fn stop_asked(&self) -> Result<bool> {
        self.run("looking for a stop", async |client, _| {
            let stop = "SELECT stop FROM migdb_store";
            Ok(client.query_typed_one(stop, &[]).await?.get(0))
        })
    }

    fn take_back_stop(&self) -> Result<()> {
        self.set_stop(false)
            .context("taking back that workers stop")
    }
}

impl Postgres {
    fn set_stop(&self, stop: bool) -> Result<()> {
        self.run("writing", async |client, _| {
            let set = "UPDATE migdb_store SET stop = $1";
            client.execute_typed(set, &[(&stop, Type::BOOL)]).await?;
            client.batch_execute("NOTIFY migdb").await
        })
    }
}
