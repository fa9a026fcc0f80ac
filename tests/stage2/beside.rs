//! Flashes of another disk than the one with the old system (FLASH_TO): that one stays whole, is told
//! of everything, and comes back when the flash can't be ended.

use std::fs;

use balena_migrate::handover::{Firmware, LogDrive, OldSystem, Place};
use balena_migrate::report::Outcome;
use balena_migrate::stage2::{Ending, overwrite, resume};

use crate::machine::OURS;
use crate::world::World;

const MIB: u64 = 1 << 20;

/// The old disk is as it was.
fn old_disk_is_whole(world: &World) {
    let old = World::new().before;
    let now = fs::read(world.dir.path().join("sdb.img")).unwrap();
    assert!(now == old, "the old system's disk has changed");
}

/// The image and the backup are read where they are.
fn read_in_place(world: &mut World) {
    let handover = &mut world.handover;
    let files = [Some(&mut handover.payload.file), handover.backup.as_mut()];
    for file in files.into_iter().flatten() {
        let Place::Memory(at) = &file.place else {
            panic!("{:?}", file.place);
        };
        file.place = Place::Disk(at.clone());
    }
}

/// Stage 2 gives up, tells why, and leaves nothing that starts.
fn is_given_up(world: &World, ending: Result<Ending, String>) {
    let Ok(Ending::Stopped(stop)) = &ending else {
        panic!("{ending:?}\n{}", world.machine.shown());
    };
    assert_eq!(stop.code.name(), "disk-write", "{stop}");
    let Outcome::Failed { disk, code, reason } = world.report().outcome else {
        panic!("{:?}", world.report());
    };
    assert!(disk.starts_with("sda: 0.0 GB"), "{disk}");
    assert_eq!(code, "disk-write");
    assert!(reason.contains("6 tries failed, the last: "), "{reason}");
    assert!(!overwrite::is_marked(&world.machine));
    let shown = world.machine.shown();
    assert!(shown.contains("** The old system starts again."), "{shown}");
    assert!(!shown.contains("leave the machine on"), "{shown}");
    world.boot_is_restored();
    old_disk_is_whole(world);
}

#[test]
fn the_whole_road_leaves_the_old_system_whole_and_tells_it() {
    for in_place in [false, true] {
        let mut world = World::new().beside();
        if in_place {
            read_in_place(&mut world);
            world.machine.memory = world.handover.memory_reserve;
        }
        world.migrates();
        world.boot_is_restored();
        old_disk_is_whole(&world);
        let Outcome::Migrated { disk } = world.report().outcome else {
            panic!("{:?}", world.report());
        };
        assert!(disk.starts_with("sda: "), "{disk}");
        let shown = world.machine.shown();
        assert!(shown.contains("first in its boot order"), "{shown}");
        assert_eq!(shown.contains("\nstore\n"), !in_place);
    }
}

#[test]
fn uefi_firmware_has_an_entry_and_nothing_is_said_of_the_order() {
    let mut world = World::new().beside();
    world.handover.firmware = Firmware::Efi;
    world.migrates();
    assert!(!world.machine.shown().contains("boot order"));
}

#[test]
fn a_rehearsal_writes_to_neither_disk() {
    let mut world = World::new().beside();
    world.handover.pretend = true;
    assert!(matches!(world.run(), Ok(Ending::Pretended)));
    world.is_untouched();
    old_disk_is_whole(&world);
    assert_eq!(world.report().outcome, Outcome::Pretended);
}

#[test]
fn write_errors_that_pass_do_not_matter() {
    let world = World::new().beside();
    world.machine.faults.lock().unwrap().write_error = Some((5 * MIB, 2));
    world.migrates();
    old_disk_is_whole(&world);
}

#[test]
fn a_disk_that_never_takes_the_image_is_given_up() {
    for at in [0, 5 * MIB] {
        let world = World::new().beside();
        world.machine.faults.lock().unwrap().write_error = Some((at, u32::MAX));
        let ending = world.run();
        is_given_up(&world, ending);
        assert!(world.disk()[510..512] != [0x55, 0xaa], "a partition table");
    }
}

#[test]
fn a_new_system_that_never_keeps_its_files_is_given_up() {
    let world = World::new().beside();
    world.machine.faults.lock().unwrap().emptied = (OURS, u32::MAX);
    let ending = world.run();
    is_given_up(&world, ending);
    assert!(world.disk()[510..512] != [0x55, 0xaa], "a partition table");
}

#[test]
fn a_first_sector_that_is_never_taken_is_given_up() {
    let world = World::new().beside();
    world.machine.faults.lock().unwrap().first_sector_error = u32::MAX;
    let ending = world.run();
    is_given_up(&world, ending);
}

#[test]
fn a_flash_that_is_cut_off_is_in_the_report() {
    let world = World::new().beside();
    world.machine.faults.lock().unwrap().write_panic = Some(5 * MIB);
    assert_eq!(world.run().unwrap_err(), "a fault while writing");
    // Should the power go now, this is what the old system reads.
    let Outcome::Overwriting { disk } = world.report().outcome else {
        panic!("{:?}", world.report());
    };
    assert!(disk.starts_with("sda: "), "{disk}");
    let ending = world.attempt(|| resume(&world.machine));
    assert!(matches!(ending, Ok(Ending::Migrated)), "{ending:?}");
    world.is_migrated();
    old_disk_is_whole(&world);
}

#[test]
fn processes_that_die_again_and_again_are_given_up() {
    let world = World::new().beside();
    let panics = || world.machine.faults.lock().unwrap().write_panic = Some(5 * MIB);
    panics();
    assert_eq!(world.run().unwrap_err(), "a fault while writing");
    for _ in 0..5 {
        panics();
        let ending = world.attempt(|| resume(&world.machine));
        assert_eq!(ending.unwrap_err(), "a fault while writing");
    }
    let ending = world.attempt(|| resume(&world.machine));
    is_given_up(&world, ending);
}

#[test]
fn the_disk_of_the_old_system_is_never_the_one() {
    let mut world = World::new();
    let OldSystem::Overwritten(fs) = world.handover.disk.old_system.clone() else {
        panic!("an ordinary world");
    };
    world.handover.disk.old_system = OldSystem::Stays(fs);
    world.stops_with("disk-not-found");
    let said = world.machine.shown();
    assert!(said.contains("the old system is on it"), "{said}");
}

#[test]
fn a_disk_that_has_a_partition_table_now_is_another_one() {
    let mut world = World::new().beside();
    let table = World::new().before[..512].to_vec();
    world.lay(0, &table);
    world.stops_with("disk-not-found");
    let said = world.machine.shown();
    assert!(said.contains("MBR cafef00d instead of none"), "{said}");
}

#[test]
fn which_of_two_copies_is_the_old_system_nobody_knows() {
    let mut world = World::new().beside();
    let copy = world.dir.path().join("sdc.img");
    fs::write(&copy, World::new().before).unwrap();
    world.machine.add_disk("sdc", copy, Some("S9"));
    let ending = world.run();
    let Ok(Ending::Stopped(stop)) = &ending else {
        panic!("{ending:?}\n{}", world.machine.shown());
    };
    assert!(
        stop.reason().contains("more than one file system"),
        "{stop}"
    );
    world.is_untouched();
    old_disk_is_whole(&world);
}

/// The log goes to the file system that the image is copied from.
#[test]
fn the_log_drive_can_be_on_the_old_disk() {
    let mut world = World::new().beside();
    let OldSystem::Stays(fs) = world.handover.disk.old_system.clone() else {
        panic!("a world beside");
    };
    world.handover.log_drive = Some(LogDrive { fs });
    world.migrates();
    let log = world.old("migrate.log").expect("a log");
    let log = String::from_utf8(log).unwrap();
    assert!(log.contains("commit: done"), "{log}");
    old_disk_is_whole(&world);
}
