//! A store of either kind, with what only a test does to one.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use balena_migrate::fleet::store::State;
use balena_migrate::fleet::store::address::Address;
use balena_migrate::fleet::store::directory::Directory;
use balena_migrate::fleet::store::moving::Movable;
use balena_migrate::fleet::store::postgres::Postgres;
use balena_migrate::sys::Sys;

use crate::cluster::{Database, cluster};
use crate::fleet::Fleet;

/// Makes a module of the named tests for each kind of store.
macro_rules! over_both {
    ($($name:ident)*) => {
        mod folder {
            $(#[test] fn $name() { super::$name(&$crate::bed::Bed::folder()); })*
        }
        mod postgres {
            $(#[test] fn $name() { super::$name(&$crate::bed::Bed::postgres()); })*
        }
    };
}
pub(crate) use over_both;

/// An empty store, gone at the end.
pub struct Bed {
    pub fleet: Fleet,
    database: Option<Database>,
}

/// Opens the store that a base names, as the program does.
pub fn open(base: &str) -> Box<dyn Movable> {
    match base.starts_with('/') {
        true => Box::new(Directory::open(base).unwrap()),
        false => {
            let address = Address::parse(&Sys::new("/"), base).unwrap();
            Box::new(Postgres::open(&address, true).unwrap())
        }
    }
}

impl Bed {
    pub fn folder() -> Bed {
        Bed {
            fleet: Fleet::new(),
            database: None,
        }
    }

    pub fn postgres() -> Bed {
        Bed {
            fleet: Fleet::new(),
            database: Some(cluster().database()),
        }
    }

    /// As --base has it.
    pub fn base(&self) -> String {
        match &self.database {
            None => self.fleet.path().to_str().unwrap().to_owned(),
            Some(database) => database.url.clone(),
        }
    }

    pub fn open(&self) -> Box<dyn Movable> {
        open(&self.base())
    }

    /// Statements for the database.
    pub fn sql(&self, statement: &str) -> String {
        let database = self.database.as_ref().expect("a folder has no database");
        cluster().sql(&database.name, statement)
    }

    /// Rewrites the only lease, as if another process had taken it.
    pub fn held_by(&self, change: impl Fn(&str) -> String) {
        match &self.database {
            None => {
                let tmp = self.fleet.path().join("db/tmp");
                let name = self.fleet.names("tmp").remove(0);
                fs::rename(tmp.join(&name), tmp.join(change(&name))).unwrap();
            }
            Some(_) => {
                let lease = self.sql(
                    "SELECT lease FROM migdb_units WHERE lease IS NOT NULL \
                     UNION ALL SELECT note FROM migdb_workers",
                );
                let new = change(lease.trim());
                self.sql(&format!(
                    "UPDATE migdb_units SET lease = '{new}' WHERE lease IS NOT NULL; \
                     UPDATE migdb_workers SET note = '{new}'"
                ));
            }
        }
    }

    /// The holder of the only lease says nothing for so long.
    pub fn silent_for(&self, time: Duration) {
        match &self.database {
            None => {
                let file = self
                    .fleet
                    .path()
                    .join("db/tmp")
                    .join(&self.fleet.names("tmp")[0]);
                set_modified(&file, SystemTime::now() - time);
            }
            Some(_) => {
                let back = format!("beat = now() - interval '{} s'", time.as_secs());
                self.sql(&format!(
                    "UPDATE migdb_units SET {back}; UPDATE migdb_workers SET {back}"
                ));
            }
        }
    }

    /// Takes the only unit that is held away from its holder.
    pub fn take_away(&self) {
        match &self.database {
            None => {
                let name = self.fleet.names("tmp").remove(0);
                let db = self.fleet.path().join("db");
                fs::rename(db.join("tmp").join(name), db.join("units/unit-a-xyz")).unwrap();
            }
            Some(_) => {
                self.sql("UPDATE migdb_units SET state = 'units', lease = NULL");
            }
        }
    }
}

fn set_modified(file: &Path, time: SystemTime) {
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_modified(time).unwrap();
}

/// Ids and states, by id.
pub fn states(store: &dyn Movable) -> Vec<(String, State)> {
    let all = store.all().unwrap();
    all.iter()
        .map(|entry| (entry.unit.id().to_owned(), entry.state))
        .collect()
}
