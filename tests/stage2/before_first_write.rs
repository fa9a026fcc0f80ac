//! Whatever is wrong before the first write: the disk is untouched, the old system is told.

use std::fs;
use std::path::Path;
use std::time::Duration;

use balena_migrate::handover::{Install, Target};
use balena_migrate::report::Outcome;
use balena_migrate::stage2::{Ending, explain, overwrite};

use crate::world::World;

const IMAGE: &str = "home/user/image";
const BACKUP: &str = "home/user/backup.tgz";

#[test]
fn a_changed_image_file() {
    let world = World::new();
    // In the gzip header: it unpacks as before, only the hash of the file tells.
    world.change_old(IMAGE, |bytes| bytes[4] ^= 1);
    world.stops_with("payload-hash");
}

#[test]
fn a_truncated_image_file() {
    let world = World::new();
    world.change_old(IMAGE, |bytes| bytes.truncate(bytes.len() / 2));
    world.stops_with("payload-hash");
}

#[test]
fn an_image_file_that_was_damaged_before_stage_1_hashed_it() {
    let mut world = World::new();
    world.change_old(IMAGE, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    });
    let bytes = world.old(IMAGE).unwrap();
    world.handover.payload.file.sha256 = balena_migrate::payload::digest::sha256_hex(&bytes);
    world.stops_with("payload-damaged");
}

#[test]
fn an_image_that_unpacks_to_something_else() {
    let mut world = World::new();
    world.handover.payload.image.sha256 = "0".repeat(64);
    world.stops_with("payload-damaged");
}

#[test]
fn no_image_file() {
    let world = World::new();
    fs::remove_file(world.dir.path().join("old").join(IMAGE)).unwrap();
    world.stops_with("payload-missing");
}

#[test]
fn a_changed_backup() {
    let world = World::new();
    world.change_old(BACKUP, |bytes| bytes[50_000] ^= 1);
    world.stops_with("backup-hash");
}

#[test]
fn a_backup_too_large_for_the_data_partition() {
    let mut world = World::new();
    let large = crate::filesystem::noise(5 << 20, 13);
    world.set_backup(&large);
    world.stops_with("backup-size");
    // Also when it is to grow, but not enough.
    world.handover.payload.image.data_end = Some(11 << 20);
    let larger = crate::filesystem::noise(8 << 20, 13);
    world.set_backup(&larger);
    world.stops_with("backup-size");
}

#[test]
fn a_data_partition_that_is_to_end_beyond_the_disk() {
    let mut world = World::new();
    world.handover.payload.image.data_end = Some(24 << 20);
    world.stops_with("image-size");
}

#[test]
fn an_array_on_the_disk_is_taken_away() {
    let world = World::new();
    world.machine.faults.lock().unwrap().held = 1;
    world.migrates();
    let shown = world.machine.shown();
    assert!(shown.contains("md127 is taken away"), "{shown}");
}

#[test]
fn a_damaged_file_for_the_new_system() {
    let world = World::new();
    fs::write(
        world.dir.path().join("initramfs/files/wifi"),
        "[connection]\nid=hole\n",
    )
    .unwrap();
    world.stops_with("install-file");
}

#[test]
fn a_missing_file_for_the_new_system() {
    let mut world = World::new();
    world.handover.install.push(Install {
        content: "/files/none".to_owned(),
        from: None,
        partition: Target::Data,
        path: "/none".to_owned(),
        bytes: 0,
        sha256: String::new(),
    });
    world.stops_with("install-file");
}

#[test]
fn a_file_for_the_new_system_that_waits_on_the_old_one() {
    World::new().with_files_aside().migrates();
    let path = "var/lib/balena-migrate/install-1";
    let world = World::new().with_files_aside();
    world.change_old(path, |bytes| bytes[0] = b'x');
    world.stops_with("install-file");
    let world = World::new().with_files_aside();
    world.change_old(path, |bytes| bytes.push(b'x'));
    world.stops_with("install-file");
    let mut world = World::new().with_files_aside();
    world.handover.install[1].from.as_mut().unwrap().path = "/none".to_owned();
    world.stops_with("install-file");
}

#[test]
fn too_little_memory() {
    let mut world = World::new();
    let backup = world.handover.backup.as_ref().unwrap().bytes;
    let needed = world.handover.payload.file.bytes + backup + world.handover.memory_reserve;
    world.machine.memory = needed - 1;
    world.stops_with("memory");
    world.machine.memory = needed;
    world.migrates();
}

#[test]
fn an_image_larger_than_the_disk() {
    let mut world = World::new();
    world.handover.payload.image.bytes = 25 << 20;
    world.stops_with("image-size");
}

#[test]
fn an_image_without_the_label() {
    let mut world = World::new();
    world.handover.payload.image.data.label = "resin-state".to_owned();
    world.stops_with("image-layout");
}

#[test]
fn a_disk_with_another_serial() {
    let mut world = World::new();
    world.handover.disk.serial = Some("S2".to_owned());
    world.stops_with("disk-not-found");
    assert!(world.old_log().contains("serial S1 instead of S2"));
}

#[test]
fn a_disk_of_another_size() {
    let mut world = World::new();
    world.handover.disk.bytes += 512;
    world.stops_with("disk-not-found");
}

#[test]
fn a_disk_with_another_partition_table() {
    let mut world = World::new();
    world.handover.disk.table = Some(balena_migrate::handover::TableIdentity::Mbr(
        "12345678".into(),
    ));
    world.stops_with("disk-not-found");
}

#[test]
fn a_copy_of_the_disk_that_nothing_tells_apart() {
    let mut world = World::new();
    let copy = world.copy_of_disk("sdb");
    world.machine.add_disk("sdb", copy, Some("S1"));
    let ending = world.run();
    let Ok(Ending::Stopped(stop)) = &ending else {
        panic!("{ending:?}");
    };
    assert_eq!(stop.code.name(), "disk-ambiguous");
    world.is_untouched();
}

#[test]
fn a_copy_of_the_disk_with_another_serial_is_left_alone() {
    let mut world = World::new();
    let copy = world.copy_of_disk("sdb");
    let before = fs::read(&copy).unwrap();
    world.machine.add_disk("sdb", copy.clone(), Some("S2"));
    world.migrates();
    assert!(fs::read(copy).unwrap() == before);
}

#[test]
fn a_disk_that_shows_up_late_is_waited_for() {
    let world = World::new();
    world.machine.faults.lock().unwrap().disks_after = Duration::from_secs(40);
    world.migrates();
}

#[test]
fn no_disk_at_all() {
    let world = World::new();
    {
        let mut faults = world.machine.faults.lock().unwrap();
        faults.disks_after = Duration::from_secs(7000);
        faults.modules_fail = true;
    }
    let ending = world.run();
    let Ok(Ending::Stopped(stop)) = &ending else {
        panic!("{ending:?}");
    };
    assert_eq!(stop.code.name(), "disk-not-found");
    assert!(world.machine.shown().contains("loading /modules/ext4.ko"));
    world.is_untouched();
}

#[test]
fn a_disk_that_something_holds() {
    let world = World::new();
    world.machine.faults.lock().unwrap().busy = 1000;
    world.stops_with("disk-busy");
}

#[test]
fn a_disk_that_has_less_room_than_it_says() {
    let world = World::new();
    let end = world.disk().len() as u64;
    world.machine.faults.lock().unwrap().read_error = Some((end - 4096, 1));
    world.stops_with("disk-end");
}

#[test]
fn a_disk_that_is_held_for_a_moment() {
    let world = World::new();
    world.machine.faults.lock().unwrap().busy = 3;
    world.migrates();
}

#[test]
fn a_handover_that_is_none() {
    let world = World::new();
    let path = world.dir.path().join("initramfs/etc");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("balena-migrate-stage2.conf"), "{}").unwrap();
    let ending = balena_migrate::stage2::run(&world.machine);
    let Ending::Stopped(stop) = &ending else {
        panic!("{ending:?}");
    };
    assert_eq!(stop.code.name(), "handover");
    world.is_untouched();
}

#[test]
fn a_fault_of_ours_is_told_to_the_old_system() {
    let world = World::new();
    world.machine.faults.lock().unwrap().mount_panic = true;
    assert_eq!(world.run().unwrap_err(), "a fault in a mount");
    assert!(!overwrite::is_marked(&world.machine));
    world.machine.faults.lock().unwrap().mount_panic = false;
    let ending = world.attempt(|| explain(&world.machine, "was ended by SIGABRT"));
    assert!(matches!(ending, Ok(Ending::Stopped(_))));
    world.is_untouched();
    world.boot_is_restored();
    let Outcome::Stopped { code, reason, .. } = world.report().outcome else {
        panic!("{:?}", world.report());
    };
    assert_eq!(code, "fault");
    assert!(reason.contains("SIGABRT"), "{reason}");
}

#[test]
fn an_old_boot_file_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let restored = |change: fn(&Path)| {
        let mut world = World::new();
        world.handover.pretend = true;
        let path = world.dir.path().join("old/boot/grub/grubenv");
        change(&path);
        world.run().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"as it was");
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    };
    // As Fedora has it.
    let private =
        |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(restored(private), 0o600);
    let gone = |path: &Path| fs::remove_file(path).unwrap();
    assert_eq!(restored(gone), 0o640);
}

#[test]
fn a_running_report_is_left_before_anything_can_go_wrong() {
    let world = World::new();
    world.machine.faults.lock().unwrap().write_panic = Some(0);
    assert_eq!(world.run().unwrap_err(), "a fault while writing");
    assert!(matches!(world.report().outcome, Outcome::Running { .. }));
}
