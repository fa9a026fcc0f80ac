//! Where the image and the backup wait while the disk is overwritten, if not in memory.

use std::fs;
use std::time::Duration;

use balena_migrate::handover::{Extent, FilePath, FsIdentity, LogDrive, Place};
use balena_migrate::stage2::{Ending, overwrite, resume};

use crate::filesystem::{label, pack};
use crate::tail::{INITRAMFS, RECORD};
use crate::world::{OLD_ROOT_UUID, World};

const MIB: u64 = 1 << 20;
const STICK_UUID: &str = "99999999-8888-7777-6666-555555555555";

/// Makes a world a wrong one.
type Change = fn(&mut World);

fn extents(place: &mut Place) -> &mut Vec<Extent> {
    match place {
        Place::Extents(extents) => extents,
        other => panic!("{other:?}"),
    }
}

/// A world whose image and backup are on another disk.
fn on_a_stick() -> World {
    let mut world = World::new();
    let dir = world.dir.path().to_owned();
    let empty = tempfile::tempdir().unwrap();
    let like = label("ext4", STICK_UUID, "stick");
    fs::write(dir.join("sdb.img"), pack(empty.path(), &like, 4 * MIB)).unwrap();
    fs::create_dir_all(dir.join("stick/user")).unwrap();
    fs::rename(
        dir.join("old/home/user/image"),
        dir.join("stick/user/image"),
    )
    .unwrap();
    fs::copy(
        dir.join("old/home/user/backup.tgz"),
        dir.join("stick/user/backup.tgz"),
    )
    .unwrap();
    let medium = dir.join("sdb.img");
    world.machine.add_disk("sdb", medium, None);
    let stick = (STICK_UUID.to_owned(), dir.join("stick"));
    world.machine.folders.extend([stick]);
    let at = |path: &str| {
        Place::Disk(FilePath {
            fs: stick_fs(),
            path: path.to_owned(),
        })
    };
    world.handover.payload.file.place = at("/user/image");
    world.handover.backup.as_mut().unwrap().place = at("/user/backup.tgz");
    world
}

fn stick_fs() -> FsIdentity {
    FsIdentity {
        uuid: STICK_UUID.to_owned(),
        fs_type: "ext4".to_owned(),
    }
}

#[test]
fn from_extents_the_whole_road_takes_no_memory_for_files() {
    let mut world = World::in_extents();
    world.machine.memory = world.handover.memory_reserve;
    world.migrates();
    let shown = world.machine.shown();
    assert!(!shown.contains("\nstore\n"), "{shown}");
    assert!(shown.contains("(0 MiB for files"), "{shown}");
    assert!(shown.contains("memory: 40 MiB at most"), "{shown}");
}

#[test]
fn from_another_disk_the_whole_road_takes_no_memory_for_files() {
    let mut world = on_a_stick();
    world.machine.memory = world.handover.memory_reserve;
    world.migrates();
    assert!(!world.machine.shown().contains("\nstore\n"));
}

#[test]
fn only_the_files_in_memory_count_for_it() {
    let mut world = World::in_extents();
    let backup = World::new().handover.backup.unwrap();
    let needed = backup.bytes + world.handover.memory_reserve;
    world.handover.backup = Some(backup);
    world.machine.memory = needed - 1;
    world.stops_with("memory");
    world.machine.memory = needed;
    world.migrates();
    assert!(world.machine.shown().contains("\nstore\n"));
}

#[test]
fn short_reads_of_extents_are_completed() {
    let world = World::in_extents();
    world.machine.faults.lock().unwrap().short = true;
    world.migrates();
}

#[test]
fn damage_in_an_extent_stops_it() {
    // The first is in the gzip header: it unpacks as before, only the hash of the file tells.
    for (place, code) in [(17 * MIB + 4, "payload-hash"), (12 * MIB, "payload-hash")] {
        let mut world = World::in_extents();
        let byte = world.before[place as usize] ^ 1;
        world.lay(place, &[byte]);
        world.stops_with(code);
    }
    let mut world = World::in_extents();
    let byte = world.before[11 * MIB as usize] ^ 1;
    world.lay(11 * MIB, &[byte]);
    world.stops_with("backup-hash");
}

#[test]
fn extents_in_the_wrong_order_stop_it() {
    let mut world = World::in_extents();
    extents(&mut world.handover.payload.file.place).swap(0, 1);
    world.stops_with("payload-hash");
}

#[test]
fn extents_that_the_flash_would_touch_stop_it() {
    let wrong: [(&str, Change); 8] = [
        ("in the image", |world| {
            extents(&mut world.handover.payload.file.place)[0].start = 9 * MIB;
        }),
        ("in the last sector of the image", |world| {
            extents(&mut world.handover.payload.file.place)[0].start = 9 * MIB + 1024;
        }),
        ("where the data partition grows to", |world| {
            world.handover.payload.image.data_end = Some(12 * MIB + 512);
        }),
        ("in the last MiB", |world| {
            extents(&mut world.handover.payload.file.place)[0].start = 23 * MIB - 4096;
        }),
        ("behind the disk", |world| {
            extents(&mut world.handover.payload.file.place)[0].start = u64::MAX - 511;
        }),
        ("not in whole sectors", |world| {
            extents(&mut world.handover.payload.file.place)[0].start += 256;
        }),
        ("on the backup", |world| {
            extents(&mut world.handover.payload.file.place)[0].start = 11 * MIB + 512;
        }),
        ("too small", |world| {
            extents(&mut world.handover.payload.file.place).pop();
        }),
    ];
    for (what, make_wrong) in wrong {
        let mut world = World::in_extents();
        make_wrong(&mut world);
        println!("{what}");
        world.stops_with("payload-extents");
    }
}

#[test]
fn what_starts_stage_2_again_must_lie_out_of_the_way_too() {
    let wrong: [Change; 3] = [
        |world| world.handover.resume.as_mut().unwrap().secrets[0].start = MIB,
        |world| extents(&mut world.handover.payload.file.place)[0].start = RECORD + 4096,
        |world| extents(&mut world.handover.payload.file.place)[0].start = INITRAMFS + 4096,
    ];
    for make_wrong in wrong {
        let mut world = World::resumable();
        make_wrong(&mut world);
        world.stops_with("payload-extents");
    }
}

#[test]
fn a_disk_that_shows_up_while_it_is_looked_for() {
    let world = on_a_stick();
    world.machine.faults.lock().unwrap().second_disk_after = Duration::from_secs(20);
    world.migrates();
}

#[test]
fn a_disk_that_is_not_there() {
    let world = on_a_stick();
    world.machine.faults.lock().unwrap().second_disk_after = Duration::from_secs(600);
    world.stops_with("payload-missing");
    assert!(world.old_log().contains("no file system has the UUID"));
}

#[test]
fn a_file_on_another_disk_that_is_on_the_disk_to_overwrite() {
    let mut world = World::new();
    let Place::Memory(at) = world.handover.payload.file.place.clone() else {
        panic!("it is to wait in memory");
    };
    assert_eq!(at.fs.uuid, OLD_ROOT_UUID);
    world.handover.payload.file.place = Place::Disk(at);
    world.stops_with("payload-missing");
    assert!(world.old_log().contains("on the disk to be overwritten"));
}

#[test]
fn a_changed_file_on_another_disk() {
    let world = on_a_stick();
    let path = world.dir.path().join("stick/user/image");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4] ^= 1;
    fs::write(path, bytes).unwrap();
    world.stops_with("payload-hash");
}

#[test]
fn the_log_may_go_to_where_the_image_is() {
    let mut world = on_a_stick();
    world.handover.log_drive = Some(LogDrive { fs: stick_fs() });
    world.migrates();
    let log = fs::read_to_string(world.dir.path().join("stick/migrate.log")).unwrap();
    assert!(log.contains("the new system starts"), "{log}");
}

#[test]
fn a_process_that_dies_while_writing_leaves_files_that_the_next_one_finds() {
    for world in [World::in_extents(), on_a_stick(), World::resumable()] {
        world.machine.faults.lock().unwrap().write_panic = Some(5 * MIB);
        assert_eq!(world.run().unwrap_err(), "a fault while writing");
        assert!(overwrite::is_marked(&world.machine));
        let ending = world.attempt(|| resume(&world.machine));
        assert!(matches!(ending, Ok(Ending::Migrated)), "{ending:?}");
        world.is_migrated();
    }
}
