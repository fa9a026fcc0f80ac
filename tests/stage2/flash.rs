//! How the image gets onto the disk: in segments that are read back, from where a record says, with
//! zeros that the disk makes itself.

use balena_migrate::resume::State;
use balena_migrate::stage2::{Ending, resume};

use crate::filesystem::noise;
use crate::machine::{OURS, Zeros};
use crate::world::World;

const MIB: u64 = 1 << 20;

/// Places that were written, in order.
fn writes(world: &World) -> Vec<u64> {
    let events = world.machine.events.lock().unwrap();
    let places = events
        .iter()
        .filter_map(|event| event.strip_prefix("write "));
    places.map(|place| place.parse().unwrap()).collect()
}

/// Where in the events the text comes first.
fn at(world: &World, text: &str) -> usize {
    let events = world.machine.events.lock().unwrap();
    let found = events.iter().position(|event| event.contains(text));
    found.unwrap_or_else(|| panic!("{text} is not in {}", events.join("\n")))
}

#[test]
fn a_torn_write_in_the_middle_is_found_and_only_from_there_on_it_is_written_again() {
    let world = World::new().with_record();
    world.machine.faults.lock().unwrap().torn_write = Some((5 * MIB, 1));
    world.migrates();
    let shown = world.machine.shown();
    assert!(
        shown.contains("bytes at 4194304 read back differently"),
        "{shown}"
    );
    let first = |place: u64| writes(&world).iter().filter(|at| **at == place).count();
    assert_eq!((first(512), first(4 * MIB)), (1, 2), "{shown}");
}

#[test]
fn an_error_while_reading_back_in_the_middle_is_retried_from_there() {
    let world = World::new().with_record();
    world.machine.faults.lock().unwrap().read_error = Some((6 * MIB, 1));
    world.migrates();
    let shown = world.machine.shown();
    assert!(
        shown.contains("reading back at 4194304: Input/output"),
        "{shown}"
    );
    let first = |place: u64| writes(&world).iter().filter(|at| **at == place).count();
    assert_eq!((first(512), first(4 * MIB)), (1, 2), "{shown}");
}

#[test]
fn what_a_record_says_is_verified_stays_untouched() {
    const MARK: u64 = MIB / 2;
    let world = World::new().with_record();
    world.machine.faults.lock().unwrap().write_panic = Some(5 * MIB);
    assert_eq!(world.run().unwrap_err(), "a fault while writing");
    let disk = world.disk();
    let was = &disk[MARK as usize..][..512];
    world.change_disk(MARK, &[0xee; 512]);
    let verified = 4 * MIB;
    world.set_record(100, State::Overwriting { verified });
    let ending = world.attempt(|| resume(&world.machine));
    assert!(matches!(ending, Ok(Ending::Migrated)), "{ending:?}");
    assert_eq!(world.disk()[MARK as usize..][..512], [0xee; 512]);
    world.change_disk(MARK, was);
    world.is_migrated();
}

#[test]
fn the_start_of_the_disk_is_not_wiped_when_a_torn_flash_goes_on() {
    let world = World::new().with_record();
    world.migrates();
    let shown = world.machine.shown();
    let flash = at(&world, "write 512");
    let events = world.machine.events.lock().unwrap();
    let begun = events
        .iter()
        .position(|event| event.contains("== overwrite"))
        .unwrap();
    assert!(
        !events[begun..flash].contains(&"write 0".to_owned()),
        "{shown}"
    );
}

#[test]
fn the_record_says_in_the_end_that_all_is_verified() {
    let world = World::new().with_record();
    world.migrates();
    let verified = world.handover.payload.image.bytes;
    assert_eq!(world.record(), State::Overwriting { verified });
}

#[test]
fn a_new_system_that_keeps_no_files_is_written_anew_in_spite_of_its_record() {
    let world = World::new().with_record();
    world.machine.faults.lock().unwrap().emptied = (OURS, 6);
    world.migrates();
    let from_the_start = writes(&world).iter().filter(|at| **at == 512).count();
    assert_eq!(from_the_start, 2, "{}", world.machine.shown());
}

#[test]
fn an_image_that_is_another_one_when_it_is_written_leaves_no_trace() {
    for record in [false, true] {
        let mut world = World::with_packed_image(|from, to| {
            std::fs::copy(from, to).unwrap();
        });
        if record {
            world = world.with_record();
        }
        world.flip_payload();
        world.migrates();
        let shown = world.machine.shown();
        assert!(
            shown.contains("try 1 failed: unpacking the image: the image has changed: the "),
            "{shown}"
        );
    }
}

#[test]
fn zeros_are_left_to_a_disk_that_makes_them() {
    let world = World::new();
    world.machine.faults.lock().unwrap().zeros = Zeros::Made;
    world.migrates();
    at(&world, "zeros ");
}

#[test]
fn zeros_are_written_where_the_disk_makes_none() {
    const EINVAL: i32 = 22;
    const EOPNOTSUPP: i32 = 95;
    const EREMOTEIO: i32 = 121;
    for error in [EINVAL, EOPNOTSUPP, EREMOTEIO] {
        let world = World::new();
        world.machine.faults.lock().unwrap().zeros = Zeros::Failed(error);
        world.migrates();
        let shown = world.machine.shown();
        assert_eq!(shown.matches("no zeros").count(), 1, "{shown}");
        assert!(!shown.contains("try 1 failed"), "{shown}");
    }
}

#[test]
fn a_disk_that_only_says_that_it_made_zeros_gets_them_written() {
    let world = World::new();
    // Something of the old system where the image has zeros.
    world.change_disk(7 * MIB, &noise(MIB as usize, 29));
    world.machine.faults.lock().unwrap().zeros = Zeros::Pretended;
    world.migrates();
    let shown = world.machine.shown();
    assert!(shown.contains("read back differently"), "{shown}");
    assert_eq!(shown.matches("try 1 failed").count(), 1, "{shown}");
    assert!(!shown.contains("try 2 failed"), "{shown}");
}

#[test]
fn a_disk_with_sectors_of_4096_bytes_gets_whole_ones() {
    let mut world = World::new();
    world.handover.disk.sector_bytes = 4096;
    world.machine.disks.lock().unwrap()[0].disk.sector_bytes = 4096;
    world.migrates();
    let places = writes(&world);
    assert!(places.iter().all(|place| place % 4096 == 0));
    // The start is wiped first, and the whole first sector of the image comes last.
    let at_start: Vec<usize> = (0..places.len()).filter(|n| places[*n] == 0).collect();
    assert_eq!(at_start, [0, places.len() - 1]);
}
