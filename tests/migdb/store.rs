//! Units in folders: their names, their modes, and what the older tools left.

use std::fs;

use balena_migrate::fleet::moment::Moment;
use balena_migrate::fleet::store::{State, Store};
use balena_migrate::fleet::unit::Status;

use crate::fleet::{Fleet, claim, unit};

#[test]
fn a_unit_goes_its_way_through_the_folders() {
    let fleet = Fleet::new();
    let store = fleet.open();
    store.add(&[unit("pi-7")]).unwrap();
    let name = fleet.names("units").remove(0);
    assert!(name.starts_with("unit-pi-7-") && name.len() == "unit-pi-7-".len() + 3);

    let mut held = claim(&store, State::Units).unwrap();
    assert!(claim(&store, State::Units).is_none(), "it is held");
    assert_eq!(fleet.names("units"), [] as [&str; 0]);
    held.unit.set_status(Status::Migrated, Moment::now());
    store.release(held).unwrap();
    assert_eq!(fleet.names("process"), [name.as_str()]);

    let mut held = claim(&store, State::Process).unwrap();
    held.unit.fail("lost", "it was not seen", Moment::now());
    store.release(held).unwrap();
    assert_eq!(fleet.names("fail"), [name.replace("unit-", "fail-")]);

    let mut held = claim(&store, State::Fail).unwrap();
    held.unit.retry(false, Moment::now());
    store.release(held).unwrap();
    assert_eq!(fleet.names("process"), [name.as_str()]);

    let mut held = claim(&store, State::Process).unwrap();
    held.unit.set_status(Status::Done, Moment::now());
    store.release(held).unwrap();
    assert_eq!(fleet.names("done"), [name]);
    assert_eq!(fleet.names("tmp"), [] as [&str; 0]);
}

#[test]
fn nobody_else_can_read_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let fleet = Fleet::new();
    let store = fleet.open();
    store.add(&[unit("a")]).unwrap();
    let held = claim(&store, State::Units).unwrap();
    store.save(&held).unwrap();
    let db = fleet.path().join("db");
    let file = db.join("tmp").join(&fleet.names("tmp")[0]);
    for (path, wanted) in [(db, 0o700), (file, 0o600)] {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, wanted, "{}", path.display());
    }
}

#[test]
fn old_unit_files_are_read_and_odd_ones_left_alone() {
    let fleet = Fleet::new();
    let store = fleet.open();
    fleet.write(
        "db/units/unit-old-Ab1",
        "UNIT_ID=\"old\"\nSTATUS=\"INIT\"\nCREATE_TS=\"1573000000\"\nMIG_SSH_HOST=\"10.0.0.7\"\n",
    );
    fleet.write(
        "db/fail/fail-gone-xY2",
        "UNIT_ID=\"gone\"\nSTATUS=\"MIGRATED\"\nFAIL_TS=1573000900\nFAIL_MSG=was not (seen) in time\n",
    );
    fleet.write("db/units/unit-broken-000", "UNIT_ID=\"broken\n");
    let all = store.all().unwrap();
    let all: Vec<(&str, State)> = all
        .iter()
        .map(|entry| (entry.unit.id(), entry.state))
        .collect();
    assert_eq!(all, [("gone", State::Fail), ("old", State::Units)]);
    let held = claim(&store, State::Units).unwrap();
    assert_eq!(held.unit.get("MIG_SSH_HOST"), Some("10.0.0.7"));
    store.release(held).unwrap();
    assert_eq!(fleet.names("units"), ["unit-broken-000", "unit-old-Ab1"]);
}
