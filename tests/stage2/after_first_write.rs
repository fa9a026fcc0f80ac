//! Whatever goes wrong after the first write: it goes on until the new system is there.

use balena_migrate::stage2::{Ending, overwrite, resume};

use crate::machine::OURS;
use crate::world::World;

const MIB: u64 = 1 << 20;

#[test]
fn a_write_error_is_retried() {
    for place in [0, 5 * MIB, 9 * MIB, 23 * MIB + 512] {
        let world = World::new();
        world.machine.faults.lock().unwrap().write_error = Some((place, 2));
        world.migrates();
        assert!(world.machine.shown().contains("try 1 failed"));
    }
}

#[test]
fn a_torn_write_that_the_page_cache_hides_is_found_by_reading_back() {
    for place in [100_000, 4 * MIB, 9 * MIB] {
        let world = World::new();
        world.machine.faults.lock().unwrap().torn_write = Some((place, 1));
        // The first write at the start is the wipe; tear the one of the image.
        if place < MIB {
            world.machine.faults.lock().unwrap().torn_write = Some((place, 2));
        }
        world.migrates();
        let shown = world.machine.shown();
        assert!(shown.contains("the disk did not keep the image"), "{shown}");
    }
}

#[test]
fn a_read_error_while_reading_back_is_retried() {
    let world = World::new();
    world.machine.faults.lock().unwrap().read_error = Some((6 * MIB, 1));
    world.migrates();
}

#[test]
fn a_disk_that_never_takes_the_image_is_held_and_never_restarted_into() {
    let world = World::new();
    world.machine.faults.lock().unwrap().write_error = Some((5 * MIB, u32::MAX));
    let ending = world.run();
    assert_eq!(ending.unwrap_err(), "it waits for ever");
    let shown = world.machine.shown();
    assert!(shown.contains("leave the machine on"), "{shown}");
    assert!(shown.contains("Input/output error"), "{shown}");
}

#[test]
fn old_partitions_that_are_in_use_for_a_while() {
    let world = World::new();
    world.machine.faults.lock().unwrap().partitions_busy = 5;
    world.migrates();
}

#[test]
fn a_first_sector_that_is_not_taken_or_not_kept_is_written_again() {
    for torn in [false, true] {
        let world = World::new();
        {
            let mut faults = world.machine.faults.lock().unwrap();
            match torn {
                false => faults.first_sector_error = 2,
                // The first write there is the wipe.
                true => faults.torn_write = Some((300, 2)),
            }
        }
        world.migrates();
        let shown = world.machine.shown();
        let (_, after) = shown.split_once("== finish: done").unwrap();
        assert!(after.contains("first sector"), "{shown}");
    }
}

#[test]
fn files_that_the_new_system_did_not_keep_are_written_again() {
    let world = World::new();
    world.machine.faults.lock().unwrap().emptied = (OURS, 1);
    world.migrates();
    assert!(world.machine.shown().contains("did not keep /config.json"));
}

#[test]
fn a_network_file_that_the_new_system_did_not_keep_is_written_again() {
    let world = World::new();
    world.machine.faults.lock().unwrap().emptied = (&["system-connections/wifi"], 1);
    world.migrates();
    let shown = world.machine.shown();
    assert!(
        shown.contains("did not keep /system-connections/wifi"),
        "{shown}"
    );
    assert_eq!(shown.matches("== overwrite: done").count(), 1, "{shown}");
}

#[test]
fn a_damaged_file_of_the_image_is_noticed_and_written_anew() {
    let world = World::new();
    world.machine.faults.lock().unwrap().damaged = 1;
    world.migrates();
    let shown = world.machine.shown();
    assert!(shown.contains("did not keep /os-release"), "{shown}");
    assert_eq!(shown.matches("== overwrite: done").count(), 2, "{shown}");
}

#[test]
fn a_new_system_that_keeps_no_files_is_written_anew() {
    let world = World::new();
    world.machine.faults.lock().unwrap().emptied = (OURS, 6);
    world.migrates();
    let shown = world.machine.shown();
    assert_eq!(shown.matches("== overwrite: done").count(), 2, "{shown}");
}

#[test]
fn a_process_that_dies_while_writing_is_followed_by_one_that_goes_on() {
    // The old system is gone then, with what was copied from it.
    for world in [World::new(), World::new().with_files_aside()] {
        world.machine.faults.lock().unwrap().write_panic = Some(5 * MIB);
        assert_eq!(world.run().unwrap_err(), "a fault while writing");
        assert!(overwrite::is_marked(&world.machine));
        let ending = world.attempt(|| resume(&world.machine));
        assert!(matches!(ending, Ok(Ending::Migrated)), "{ending:?}");
        world.is_migrated();
        assert!(!overwrite::is_marked(&world.machine));
    }
}
