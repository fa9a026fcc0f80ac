//! Workers that are killed at any moment: no unit is lost, none is migrated twice.
//!
//! The worker is a stand-in, this test program itself: it takes units and does with them what a
//! worker does, in the same order, on devices that are files. A device notes each order that it gets.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use balena_migrate::fleet::moment::Moment;
use balena_migrate::fleet::store::{Claim, State, Store};
use balena_migrate::fleet::unit::Status;

use crate::bed::{Bed, open, over_both};
use crate::fleet::{claim, unit};

over_both! {
    two_hundred_kills_lose_no_unit_and_migrate_none_twice
}

const KILLS: usize = 200;
const WORKERS: usize = 3;
/// Variables of the stand-in: the store, and the folder of the devices.
const BASE: &str = "MIGDB_TEST_BASE";
const DEVICES: &str = "MIGDB_TEST_DEVICES";

/// Not a test: the worker of [`two_hundred_kills_lose_no_unit_and_migrate_none_twice`], in a process of its own.
#[test]
#[ignore = "started by another test"]
fn worker() {
    let (Ok(base), Some(devices)) = (std::env::var(BASE), std::env::var_os(DEVICES)) else {
        return;
    };
    let store = open(&base);
    let store = store.as_ref();
    loop {
        store.recover().unwrap();
        if let Some(held) = claim(store, State::Process) {
            finish(store, held);
        } else if let Some(held) = claim(store, State::Units) {
            migrate(store, held, Path::new(&devices));
        } else {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn migrate(store: &dyn Store, mut held: Claim, devices: &Path) {
    // A unit that comes back may have been ordered: then the device knows.
    if held.unit.status() == Status::Init {
        held.unit.set_status(Status::Ordered, Moment::now());
        store.save(&held).unwrap();
    }
    if orders(devices, held.unit.id()) == 0 {
        order(devices, held.unit.id());
    }
    std::thread::sleep(Duration::from_millis(2));
    held.unit.set_status(Status::Migrated, Moment::now());
    store.release(held).unwrap();
}

/// The device notes an order: with a name that only one process can make.
fn order(devices: &Path, id: &str) {
    let file = |n: usize| devices.join(format!("{id}.{n}"));
    let noted = |n: &usize| File::create_new(file(*n)).is_ok();
    (1..9).find(noted).unwrap();
}

fn orders(devices: &Path, id: &str) -> usize {
    let noted = |n: &usize| devices.join(format!("{id}.{n}")).exists();
    (1..9).filter(noted).count()
}

fn finish(store: &dyn Store, mut held: Claim) {
    std::thread::sleep(Duration::from_millis(1));
    held.unit.set_status(Status::Done, Moment::now());
    store.release(held).unwrap();
}

struct Workers {
    base: String,
    devices: std::path::PathBuf,
    running: Vec<Child>,
}

impl Workers {
    fn start(&mut self) {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::worker", "--ignored"])
            .env(BASE, &self.base)
            .env(DEVICES, &self.devices)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.running.push(child);
    }

    fn kill(&mut self, which: usize) {
        let mut child = self.running.remove(which);
        assert_eq!(child.try_wait().unwrap(), None, "a worker ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn two_hundred_kills_lose_no_unit_and_migrate_none_twice(bed: &Bed) {
    let devices = bed.fleet.path().join("devices");
    fs::create_dir(&devices).unwrap();
    let store = bed.open();
    let count = |state| {
        let all = store.all().unwrap();
        all.iter().filter(|entry| entry.state == state).count()
    };
    let mut random = fastrand::Rng::with_seed(7);
    let mut workers = Workers {
        base: bed.base(),
        devices: devices.clone(),
        running: Vec::new(),
    };
    let mut added = 0;
    for _ in 0..WORKERS {
        workers.start();
    }
    for _ in 0..KILLS {
        if count(State::Units) < 10 {
            let more: Vec<_> = (added..added + 20)
                .map(|n| unit(&format!("u{n}")))
                .collect();
            store.add(&more).unwrap();
            added += more.len();
        }
        std::thread::sleep(Duration::from_millis(random.u64(5..60)));
        workers.kill(random.usize(..WORKERS));
        workers.start();
    }
    let patience = Instant::now() + Duration::from_secs(120);
    while count(State::Done) < added && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(workers);
    store.recover().unwrap();
    let mut states: BTreeMap<String, Vec<State>> = BTreeMap::new();
    for entry in store.all().unwrap() {
        let id = entry.unit.id().to_owned();
        states.entry(id).or_default().push(entry.state);
    }
    assert_eq!(states.len(), added);
    for (id, states) in states {
        assert_eq!(states, [State::Done], "{id}");
        assert_eq!(orders(&devices, &id), 1, "{id}");
    }
}
