//! What every kind of store keeps to: who gets units, where they go, and what comes back from the dead.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use balena_migrate::fleet::moment::Moment;
use balena_migrate::fleet::store::lease::SILENCE;
use balena_migrate::fleet::store::{AddError, Claimed, State};
use balena_migrate::fleet::unit::{Status, field};
use balena_migrate::sys::Sys;

use crate::bed::{Bed, over_both, states};
use crate::fleet::{claim, unit};

over_both! {
    a_unit_goes_its_way
    what_was_saved_is_read
    ids_are_refused_over_all_states_and_then_nothing_is_added
    units_that_are_not_due_wait_and_tell_until_when
    only_what_is_wanted_is_taken
    many_threads_get_each_unit_once
    what_the_living_hold_stays_theirs
    what_a_dead_process_held_comes_back
    what_a_silent_host_held_comes_back
    who_lost_a_unit_writes_it_no_more
    what_nobody_works_on_is_given_back
    a_wait_ends_when_a_unit_comes
    a_wait_ends_by_a_poke
    workers_are_known_while_they_run
}

fn a_unit_goes_its_way(bed: &Bed) {
    let store = bed.open();
    let is_in = |state| assert_eq!(states(store.as_ref()), [("pi-7".to_owned(), state)]);
    store.add(&[unit("pi-7")]).unwrap();
    is_in(State::Units);

    let mut held = claim(store.as_ref(), State::Units).unwrap();
    assert!(claim(store.as_ref(), State::Units).is_none(), "it is held");
    is_in(State::Tmp);
    let holder = store.all().unwrap().remove(0).holder.unwrap();
    assert!(holder.starts_with(&format!("process {} on ", std::process::id())));
    held.unit.set_status(Status::Migrated, Moment::now());
    store.release(held).unwrap();
    is_in(State::Process);

    let mut held = claim(store.as_ref(), State::Process).unwrap();
    held.unit.fail("lost", "it was not seen", Moment::now());
    store.release(held).unwrap();
    is_in(State::Fail);

    let mut held = claim(store.as_ref(), State::Fail).unwrap();
    held.unit.retry(false, Moment::now());
    store.release(held).unwrap();
    is_in(State::Process);

    let mut held = claim(store.as_ref(), State::Process).unwrap();
    held.unit.set_status(Status::Done, Moment::now());
    store.release(held).unwrap();
    is_in(State::Done);
    assert_eq!(store.all().unwrap()[0].holder, None);
}

fn what_was_saved_is_read(bed: &Bed) {
    let store = bed.open();
    store.add(&[unit("a")]).unwrap();
    let mut held = claim(store.as_ref(), State::Units).unwrap();
    held.unit
        .set("MIG_SSH_PASSWD", "it's $HOME `x` \\ \"q\"\nline");
    store.save(&held).unwrap();
    assert_eq!(bed.open().all().unwrap()[0].unit, held.unit);
    let unit = held.unit.clone();
    store.release(held).unwrap();
    assert_eq!(bed.open().all().unwrap()[0].unit, unit);
}

fn ids_are_refused_over_all_states_and_then_nothing_is_added(bed: &Bed) {
    let store = bed.open();
    let units = ["waits", "held", "migrated", "failed"].map(unit);
    store.add(&units).unwrap();
    let mut keep = Vec::new();
    while let Some(mut held) = claim(store.as_ref(), State::Units) {
        match held.unit.id() {
            "held" => {
                keep.push(held);
                continue;
            }
            "migrated" => held.unit.set_status(Status::Migrated, Moment::now()),
            "failed" => held.unit.fail("x", "y", Moment::now()),
            _ => held.unit.set(
                field::DUE,
                &Moment::now().after(Duration::from_secs(99)).0.to_string(),
            ),
        }
        store.release(held).unwrap();
    }
    for id in ["waits", "held", "migrated", "failed"] {
        let error = store.add(&[unit("new"), unit(id)]).unwrap_err();
        assert!(
            matches!(&error, AddError::Duplicates(found) if found[0].0 == id),
            "{error}"
        );
    }
    assert_eq!(store.all().unwrap().len(), 4);
}

fn units_that_are_not_due_wait_and_tell_until_when(bed: &Bed) {
    let store = bed.open();
    let mut later = unit("later");
    later.set(field::DUE, "5000");
    let mut latest = unit("latest");
    latest.set(field::DUE, "9000");
    store.add(&[latest, later]).unwrap();
    let at = |seconds| {
        store
            .claim(State::Units, Moment(seconds), &|_| true)
            .unwrap()
    };
    assert!(matches!(at(4999), Claimed::Later(Moment(5000))));
    assert!(matches!(at(5000), Claimed::Unit(claim) if claim.unit.id() == "later"));
    assert!(matches!(at(5000), Claimed::Later(Moment(9000))));
    let none = store.claim(State::Done, Moment(0), &|_| true).unwrap();
    assert!(matches!(none, Claimed::Empty));
}

/// Also when it comes after many others.
fn only_what_is_wanted_is_taken(bed: &Bed) {
    let store = bed.open();
    let mut units: Vec<_> = (0..120).map(|n| unit(&format!("u{n:03}"))).collect();
    units[118].set(field::DUE, "7000");
    store.add(&units).unwrap();
    let only = |id: &'static str| {
        store
            .claim(State::Units, Moment(6000), &move |unit| unit.id() == id)
            .unwrap()
    };
    assert!(matches!(only("u119"), Claimed::Unit(claim) if claim.unit.id() == "u119"));
    assert!(matches!(only("u119"), Claimed::Empty));
    assert!(matches!(only("u118"), Claimed::Later(Moment(7000))));
}

fn many_threads_get_each_unit_once(bed: &Bed) {
    let units: Vec<_> = (0..100).map(|n| unit(&format!("u{n}"))).collect();
    bed.open().add(&units).unwrap();
    let got: Vec<String> = std::thread::scope(|scope| {
        let worker = || {
            let store = bed.open();
            let mut got = Vec::new();
            while let Some(held) = claim(store.as_ref(), State::Units) {
                got.push(held.unit.id().to_owned());
            }
            got
        };
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    assert_eq!(got.len(), 100);
    assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), 100);
}

/// The name of this host in a lease, and that of another one.
fn from_here_to_elsewhere(lease: &str) -> String {
    let host = Sys::new("/").uname().unwrap().nodename;
    lease.replace(&format!("@{host}@"), "@elsewhere@")
}

fn what_the_living_hold_stays_theirs(bed: &Bed) {
    let store = bed.open();
    store.add(&[unit("a")]).unwrap();
    let held = claim(store.as_ref(), State::Units).unwrap();
    assert_eq!(store.recover().unwrap(), [] as [&str; 0]);
    store.save(&held).unwrap();
    // This very process is seen to live, however long it says nothing.
    bed.silent_for(SILENCE * 2);
    assert_eq!(store.recover().unwrap(), [] as [&str; 0]);
    store.renew(held.name()).unwrap();
    // Far away, and not silent for long.
    bed.held_by(from_here_to_elsewhere);
    assert_eq!(store.recover().unwrap(), [] as [&str; 0]);
}

fn what_a_dead_process_held_comes_back(bed: &Bed) {
    let store = bed.open();
    store.add(&[unit("a")]).unwrap();
    let mut held = claim(store.as_ref(), State::Units).unwrap();
    held.unit.set_status(Status::Migrated, Moment::now());
    store.save(&held).unwrap();
    bed.held_by(|lease| lease.replace(&format!("@{}@", std::process::id()), "@4194305@"));
    assert_eq!(store.recover().unwrap(), ["a"]);
    assert_eq!(states(store.as_ref()), [("a".to_owned(), State::Process)]);
}

fn what_a_silent_host_held_comes_back(bed: &Bed) {
    let store = bed.open();
    store.add(&[unit("a")]).unwrap();
    let _held = claim(store.as_ref(), State::Units).unwrap();
    let long_ago = Moment(Moment::now().0 - SILENCE.as_secs() as i64 - 5);
    bed.held_by(|lease| {
        let (rest, n) = lease.rsplit_once('-').unwrap();
        let (rest, _since) = rest.rsplit_once('-').unwrap();
        from_here_to_elsewhere(&format!("{rest}-{}-{n}", long_ago.0))
    });
    // Its last word was just now: the heartbeat is beside the lease.
    assert_eq!(store.recover().unwrap(), [] as [&str; 0]);
    bed.silent_for(SILENCE + Duration::from_secs(5));
    assert_eq!(store.recover().unwrap(), ["a"]);
    assert_eq!(states(store.as_ref()), [("a".to_owned(), State::Units)]);
}

fn who_lost_a_unit_writes_it_no_more(bed: &Bed) {
    let store = bed.open();
    store.add(&[unit("a")]).unwrap();
    let held = claim(store.as_ref(), State::Units).unwrap();
    bed.take_away();
    let error = store.save(&held).unwrap_err().to_string();
    assert!(
        error.starts_with("unit a was taken from this worker"),
        "{error}"
    );
    assert!(store.renew(held.name()).is_err());
    store.give_back(held.name()).unwrap();
    assert!(store.release(held).is_err());
    assert_eq!(states(store.as_ref()), [("a".to_owned(), State::Units)]);
}

fn what_nobody_works_on_is_given_back(bed: &Bed) {
    let store = bed.open();
    store.add(&[unit("a")]).unwrap();
    let mut held = claim(store.as_ref(), State::Units).unwrap();
    held.unit.set_status(Status::Migrated, Moment::now());
    store.save(&held).unwrap();
    held.unit.set_status(Status::Done, Moment::now());
    store.give_back(held.name()).unwrap();
    assert_eq!(
        states(store.as_ref()),
        [("a".to_owned(), State::Process)],
        "as it was saved"
    );
}

fn a_wait_ends_when_a_unit_comes(bed: &Bed) {
    let store = bed.open();
    let other = bed.open();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            other.add(&[unit("a")]).unwrap();
        });
        let began = Instant::now();
        // A wait may end without news; the unit is there then, or it is waited for again.
        let held = loop {
            if let Some(held) = claim(store.as_ref(), State::Units) {
                break held;
            }
            store.wait(Duration::from_secs(60)).unwrap();
        };
        assert!(began.elapsed() < Duration::from_secs(20));
        store.release(held).unwrap();
    });
}

fn a_wait_ends_by_a_poke(bed: &Bed) {
    let store = bed.open();
    let began = Instant::now();
    store.poke();
    store.wait(Duration::from_secs(60)).unwrap();
    // With nothing to hear, it lasts.
    let (mut waits, limit) = (0, Duration::from_secs(2));
    while began.elapsed() < limit {
        store.wait(limit).unwrap();
        waits += 1;
    }
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!(waits < 6, "it woke {waits} times for nothing");
}

fn workers_are_known_while_they_run(bed: &Bed) {
    let store = bed.open();
    let note = store.enlist("migrate").unwrap();
    assert_eq!(store.workers().unwrap().len(), 1);
    // Far away it is known by its word alone.
    bed.held_by(from_here_to_elsewhere);
    assert_eq!(store.workers().unwrap().len(), 1);
    store.renew(&from_here_to_elsewhere(&note)).unwrap();
    bed.held_by(|_| note.clone());
    bed.held_by(|note| note.replace(&format!("@{}@", std::process::id()), "@4194305@"));
    assert_eq!(
        store.workers().unwrap(),
        [] as [&str; 0],
        "no process has that number"
    );
    store.recover().unwrap();
    assert!(store.renew(&note).is_err());
    store.leave(&note).unwrap();
    assert!(!store.stop_asked().unwrap());
    store.ask_to_stop().unwrap();
    assert!(bed.open().stop_asked().unwrap());
    store.take_back_stop().unwrap();
    assert!(!store.stop_asked().unwrap());
}
