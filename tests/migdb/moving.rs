//! All units into another store and back, cut off at every step.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, anyhow};
use balena_migrate::fleet::moment::Moment;
use balena_migrate::fleet::store::moving::{Movable, MoveError, Parcel, Role, Side, move_all};
use balena_migrate::fleet::store::{AddError, Claim, Claimed, Entry, State, Store};
use balena_migrate::fleet::unit::{Status, Unit};

use crate::bed::{Bed, states};
use crate::fleet::{claim, unit};

/// A store that does so many steps of a move, and then fails as if it was cut off.
struct CutOff<'a> {
    store: &'a dyn Movable,
    left: &'a Mutex<usize>,
}

impl CutOff<'_> {
    fn step(&self) -> Result<()> {
        let mut left = self.left.lock().unwrap();
        *left = left.checked_sub(1).ok_or_else(|| anyhow!("cut off"))?;
        Ok(())
    }
}

impl Movable for CutOff<'_> {
    fn side(&self) -> Result<Side> {
        self.store.side()
    }
    fn moving(&self, role: Role) -> Result<Option<Side>> {
        self.store.moving(role)
    }
    fn note_moving(&self, role: Role, other: Option<&Side>) -> Result<()> {
        self.step()?;
        self.store.note_moving(role, other)
    }
    fn set_aside(&self) -> Result<()> {
        self.step()?;
        self.store.set_aside()
    }
    fn aside(&self) -> Result<Vec<Parcel>> {
        self.store.aside()
    }
    /// Also in the middle: half of them.
    fn take_in(&self, parcels: &[Parcel]) -> Result<()> {
        if self.step().is_err() {
            self.store.take_in(&parcels[..parcels.len() / 2])?;
            return Err(anyhow!("cut off"));
        }
        self.store.take_in(parcels)
    }
    fn clear_aside(&self) -> Result<()> {
        self.step()?;
        self.store.clear_aside()
    }
}

impl Store for CutOff<'_> {
    fn add(&self, units: &[Unit]) -> Result<(), AddError> {
        self.store.add(units)
    }
    fn all(&self) -> Result<Vec<Entry>> {
        self.store.all()
    }
    fn claim(&self, from: State, now: Moment, wanted: &dyn Fn(&Unit) -> bool) -> Result<Claimed> {
        self.store.claim(from, now, wanted)
    }
    fn save(&self, claim: &Claim) -> Result<()> {
        self.store.save(claim)
    }
    fn release(&self, claim: Claim) -> Result<()> {
        self.store.release(claim)
    }
    fn give_back(&self, name: &str) -> Result<()> {
        self.store.give_back(name)
    }
    fn renew(&self, name: &str) -> Result<()> {
        self.store.renew(name)
    }
    fn wait(&self, limit: Duration) -> Result<()> {
        self.store.wait(limit)
    }
    fn poke(&self) {
        self.store.poke();
    }
    fn recover(&self) -> Result<Vec<String>> {
        self.store.recover()
    }
    fn enlist(&self, what: &str) -> Result<String> {
        self.store.enlist(what)
    }
    fn leave(&self, note: &str) -> Result<()> {
        self.store.leave(note)
    }
    fn workers(&self) -> Result<Vec<String>> {
        self.store.workers()
    }
    fn ask_to_stop(&self) -> Result<()> {
        self.store.ask_to_stop()
    }
    fn stop_asked(&self) -> Result<bool> {
        self.store.stop_asked()
    }
    fn take_back_stop(&self) -> Result<()> {
        self.store.take_back_stop()
    }
}

/// A unit in each state but tmp, with what is hard to keep in its text.
fn fill(store: &dyn Store) {
    let mut units = ["waits", "migrated", "failed", "done"].map(unit);
    units[0].set("MIG_SSH_PASSWD", "it's $HOME `x` \\ \"q\"\nline, ä");
    store.add(&units).unwrap();
    while let Some(mut held) = claim(store, State::Units) {
        match held.unit.id() {
            "migrated" => held.unit.set_status(Status::Migrated, Moment::now()),
            "failed" => held.unit.fail("x", "y", Moment::now()),
            "done" => held.unit.set_status(Status::Done, Moment::now()),
            _ => {
                let later = Moment::now().after(Duration::from_secs(999));
                held.unit.set("DUE_TS", &later.0.to_string());
            }
        }
        store.release(held).unwrap();
    }
}

/// Names and content of a folder's unit files.
fn files(bed: &Bed) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for state in State::ALL {
        for name in bed.fleet.names(state.name()) {
            let name = format!("{}/{name}", state.name());
            let text = fs::read_to_string(bed.fleet.path().join("db").join(&name)).unwrap();
            files.insert(name, text);
        }
    }
    files
}

#[test]
fn a_folder_is_the_same_after_its_way_through_a_database() {
    let (folder, database) = (Bed::folder(), Bed::postgres());
    let (here, there) = (folder.open(), database.open());
    fill(here.as_ref());
    // As older tools write, and what one of them left behind.
    folder.fleet.write(
        "db/units/unit-old-Ab1",
        "UNIT_ID=\"old\"\nSTATUS=\"INIT\"\nSTATUS=\"INIT\"\n",
    );
    folder.fleet.write("db/tmp/unit-left-Ab2", "UNIT_ID=left\n");
    folder
        .fleet
        .write("db/done/unit-twice-Ab3", "UNIT_ID=twice\n");
    let before = files(&folder);
    let was = states(here.as_ref());

    assert_eq!(move_all(here.as_ref(), there.as_ref()).unwrap(), 7);
    assert_eq!(states(there.as_ref()), was);
    assert_eq!(states(here.as_ref()), []);
    let held = claim(there.as_ref(), State::Units).unwrap();
    assert_eq!(held.unit.id(), "old", "the other one is not due");
    there.give_back(held.name()).unwrap();

    assert_eq!(move_all(there.as_ref(), here.as_ref()).unwrap(), 7);
    assert_eq!(states(there.as_ref()), []);
    assert_eq!(files(&folder), before);
    assert!(!folder.fleet.path().join("db/aside").exists());
}

/// What changes a store, in one move.
const STEPS: usize = 7;

/// Where it is cut off, no unit can be taken in both stores, and the same call ends it.
fn cut_at_each_step(from: impl Fn() -> Bed, to: impl Fn() -> Bed) {
    for cut in 0..=STEPS {
        let (from, to) = (from(), to());
        let (here, there) = (from.open(), to.open());
        fill(here.as_ref());
        let was = states(here.as_ref());
        let left = Mutex::new(cut);
        let cut_here = CutOff {
            store: here.as_ref(),
            left: &left,
        };
        let cut_there = CutOff {
            store: there.as_ref(),
            left: &left,
        };
        let done = move_all(&cut_here, &cut_there);
        if cut == STEPS {
            assert_eq!(done.unwrap(), 4, "there are no more steps");
            assert_eq!(states(there.as_ref()), was);
            continue;
        }
        assert!(done.is_err(), "{cut}");
        let mut both = states(here.as_ref());
        both.extend(states(there.as_ref()));
        both.sort();
        both.windows(2)
            .for_each(|two| assert_ne!(two[0].0, two[1].0, "{cut}"));
        if cut > 0 {
            let error = there.add(&[unit("new")]).unwrap_err();
            assert!(matches!(error, AddError::Moving), "{cut}: {error}");
        }
        // Workers of the new store may have begun.
        let gone_on = claim(there.as_ref(), State::Process).map(|mut held| {
            held.unit.set_status(Status::Done, Moment::now());
            there.release(held).unwrap();
        });
        // Nor does any go back before that.
        if cut > 1 {
            let back = move_all(there.as_ref(), here.as_ref());
            assert!(matches!(back, Err(MoveError::Other { .. })), "{cut}");
        }

        move_all(here.as_ref(), there.as_ref()).unwrap();
        let mut wanted = was;
        if gone_on.is_some() {
            wanted.iter_mut().for_each(|(id, state)| {
                if id == "migrated" {
                    *state = State::Done;
                }
            });
        }
        assert_eq!(states(there.as_ref()), wanted, "{cut}");
        assert_eq!(states(here.as_ref()), [], "{cut}");
        there.add(&[unit("new")]).unwrap();
        here.add(&[unit("waits")]).unwrap();
    }
}

#[test]
fn a_move_into_a_database_goes_on_where_it_was_cut_off() {
    cut_at_each_step(Bed::folder, Bed::postgres);
}

#[test]
fn a_move_out_of_a_database_goes_on_where_it_was_cut_off() {
    cut_at_each_step(Bed::postgres, Bed::folder);
}

#[test]
fn what_is_held_or_there_already_is_not_moved() {
    for (from, to) in [
        (Bed::folder(), Bed::postgres()),
        (Bed::postgres(), Bed::folder()),
    ] {
        let (here, there) = (from.open(), to.open());
        here.add(&[unit("a"), unit("b")]).unwrap();
        let held = claim(here.as_ref(), State::Units).unwrap();
        let error = move_all(here.as_ref(), there.as_ref()).unwrap_err();
        assert!(error.to_string().contains("migdb stop"), "{error}");
        here.release(held).unwrap();

        let note = here.enlist("jobs").unwrap();
        let error = move_all(here.as_ref(), there.as_ref()).unwrap_err();
        assert!(error.to_string().contains("migdb stop"), "{error}");
        here.leave(&note).unwrap();

        there.add(&[unit("a")]).unwrap();
        let error = move_all(here.as_ref(), there.as_ref()).unwrap_err();
        assert!(
            matches!(&error, MoveError::Duplicates(ids) if ids == &["a"]),
            "{error}"
        );

        assert!(matches!(
            move_all(here.as_ref(), from.open().as_ref()).unwrap_err(),
            MoveError::Same(_)
        ));
        // Nothing of all that is left.
        assert_eq!(states(here.as_ref()).len(), 2);
        here.add(&[unit("c")]).unwrap();
        there.add(&[unit("d")]).unwrap();
    }
}
