//! What people are told: the log and its copies, the screen, the kernel's messages, the end of
//! all tries.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use balena_migrate::handover::{FsIdentity, LogDrive, LogLevel, Power};
use balena_migrate::stage2::{Ending, resume};
use balena_migrate::superblock::Superblock;

use crate::filesystem::pack;
use crate::machine::OURS;
use crate::world::World;

const MIB: u64 = 1 << 20;

/// What a disk that fails makes the kernel say.
const TROUBLE: &str = "I/O error, dev sda, sector 10240 op 0x1:(WRITE)";

/// Adds a second disk for the log; says where its files are.
fn with_log_drive(world: &mut World) -> PathBuf {
    let uuid = "99999999-8888-7777-6666-555555555555";
    let fs_type = "ext4";
    let empty = tempfile::tempdir().unwrap();
    let like = Superblock {
        fs_type,
        uuid: uuid.into(),
        label: "logs".into(),
    };
    let medium = world.dir.path().join("sdb.img");
    fs::write(&medium, pack(empty.path(), &like, 4 << 20)).unwrap();
    world.machine.add_disk("sdb", medium, None);
    let folder = world.dir.path().join("logs");
    fs::create_dir(&folder).unwrap();
    world.machine.folders.insert(uuid.into(), folder.clone());
    let fs = FsIdentity {
        uuid: uuid.into(),
        fs_type: fs_type.into(),
    };
    world.handover.log_drive = Some(LogDrive { fs });
    folder
}

fn is_switched_off(world: &World) -> bool {
    world.run().unwrap_err() == "the machine is switched off"
}

#[test]
fn the_log_drive_gets_the_log() {
    let mut world = World::new();
    let folder = with_log_drive(&mut world);
    world.migrates();
    let log = fs::read_to_string(folder.join("migrate.log")).unwrap();
    assert!(log.contains("waiting for the disk"), "{log}");
    assert!(log.contains("the new system starts"), "{log}");
}

#[test]
fn the_log_drive_is_taken_up_again_after_the_death_of_a_process() {
    let mut world = World::new();
    let folder = with_log_drive(&mut world);
    world.machine.faults.lock().unwrap().write_panic = Some(5 * MIB);
    assert_eq!(world.run().unwrap_err(), "a fault while writing");
    let ending = world.attempt(|| resume(&world.machine));
    assert!(matches!(ending, Ok(Ending::Migrated)), "{ending:?}");
    let log = fs::read_to_string(folder.join("migrate.log")).unwrap();
    assert!(log.contains("the new system starts"), "{log}");
    assert_eq!(log.matches("== find: waiting").count(), 1, "{log}");
    assert_eq!(log.matches("== overwrite: writing").count(), 2, "{log}");
    let events = world.machine.events.lock().unwrap();
    assert!(events.contains(&"unmount all of sdb".to_owned()));
}

#[test]
fn a_missing_log_drive_stops_nothing() {
    let mut world = World::new();
    let fs = FsIdentity {
        uuid: "1234-5678".into(),
        fs_type: "vfat".into(),
    };
    world.handover.log_drive = Some(LogDrive { fs });
    world.migrates();
    assert!(world.machine.shown().contains("no log drive"));
}

#[test]
fn a_disk_that_is_never_written_has_the_machine_switched_off_only_where_that_is_wanted() {
    for (power, switched_off) in [(Power::Hold, false), (Power::Off, true)] {
        let mut world = World::new();
        world.handover.power = power;
        world.machine.patience = Duration::from_secs(2 * 60 * 60);
        world.machine.faults.lock().unwrap().write_error = Some((5 * MIB, u32::MAX));
        assert_eq!(is_switched_off(&world), switched_off);
        let shown = world.machine.shown();
        assert_eq!(shown.contains("POWER=off"), switched_off, "{shown}");
    }
}

#[test]
fn the_machine_is_not_switched_off_within_the_first_hour() {
    let mut world = World::new();
    world.handover.power = Power::Off;
    world.machine.patience = Duration::from_secs(60 * 60);
    world.machine.faults.lock().unwrap().write_error = Some((5 * MIB, u32::MAX));
    assert!(!is_switched_off(&world));
}

#[test]
fn failures_of_a_process_that_died_count() {
    let mut world = World::new();
    world.handover.power = Power::Off;
    let hour = Duration::from_secs(60 * 60);
    world.machine.patience = hour;
    world.machine.faults.lock().unwrap().write_error = Some((5 * MIB, u32::MAX));
    assert_eq!(world.run().unwrap_err(), "it waits for ever");
    world.machine.patience = 2 * hour;
    let ending = world.attempt(|| resume(&world.machine));
    assert_eq!(ending.unwrap_err(), "the machine is switched off");
    let shown = world.machine.shown();
    let resumed = shown.rsplit("== secure").next().unwrap_or_default();
    assert!(resumed.matches("failed: ").count() < 4, "{resumed}");
}

#[test]
fn what_the_kernel_says_of_a_disk_in_trouble_is_in_the_log_once() {
    let mut world = World::new();
    let folder = with_log_drive(&mut world);
    {
        let mut kernel = world.machine.kernel.lock().unwrap();
        kernel.push((3, TROUBLE.to_owned()));
        kernel.push((4, "usb 1-1: nothing to do with disks".to_owned()));
    }
    world.migrates();
    let log = fs::read_to_string(folder.join("migrate.log")).unwrap();
    let line = format!("kernel: [    0.001000] {TROUBLE}\n");
    assert_eq!(log.matches(&line).count(), 1, "{log}");
    assert!(!log.contains("nothing to do with disks"), "{log}");
}

#[test]
fn what_the_kernel_says_while_the_disk_is_held_is_shown_before_the_reason() {
    let world = World::new();
    let dying = (0..1000).map(|number| (3, format!("{TROUBLE} {number}")));
    world.machine.kernel.lock().unwrap().extend(dying);
    world.machine.faults.lock().unwrap().write_error = Some((5 * MIB, 1));
    world.machine.faults.lock().unwrap().modules_fail = true;
    world.migrates();
    let shown = world.machine.shown();
    let trouble = shown.find(TROUBLE).expect(&shown);
    assert!(trouble < shown.find("try 1 failed").expect(&shown));
    assert_eq!(shown.matches(TROUBLE).count(), 20, "{shown}");
    assert!(shown.contains("980 more of this kind"), "{shown}");
}

#[test]
fn the_log_level_says_what_is_shown_and_the_log_has_the_steps_all_the_same() {
    let shown = |level| {
        let mut world = World::new();
        world.handover.log_level = level;
        world.handover.pretend = true;
        assert!(matches!(world.run(), Ok(Ending::Pretended)));
        (world.machine.shown(), world.old_log())
    };
    let (warn, log) = shown(LogLevel::Warn);
    assert!(warn.contains("== secure: done"), "{warn}");
    assert!(warn.contains("the old system starts again"), "{warn}");
    assert!(!warn.contains("copying the image"), "{warn}");
    assert!(log.contains("copying the image"), "{log}");
    assert!(!log.contains("mounting /dev/sda1"), "{log}");
    let (info, _) = shown(LogLevel::Info);
    assert!(info.contains("copying the image"), "{info}");
    assert!(!info.contains("mounting /dev/sda1"), "{info}");
    let (debug, log) = shown(LogLevel::Debug);
    assert!(debug.contains("mounting /dev/sda1"), "{debug}");
    assert!(log.contains("mounting /dev/sda1"), "{log}");
}

#[test]
fn the_screen_tells_the_state_from_the_start_to_the_end() {
    let world = World::new();
    world.machine.faults.lock().unwrap().write_error = Some((5 * MIB, 2));
    world.migrates();
    let pictures = world.machine.pictures.lock().unwrap();
    let pictures: Vec<String> = pictures.iter().map(|lines| lines.join("\n")).collect();
    assert!(
        pictures[0].contains("machine  old-server"),
        "{}",
        pictures[0]
    );
    let held = pictures.iter().find(|shown| shown.contains("try 1 failed"));
    let held = held.expect("what is waited for is on the screen");
    assert!(
        held.contains("\n  ** The disk is overwritten now"),
        "{held}"
    );
    assert!(held.contains("disk     sda: 0.0 GB"), "{held}");
    assert!(held.contains("[>] write the image"), "{held}");
    // The second wait, of 20 seconds, from the 11th on: the picture is mended in the middle of it.
    let mut headings = pictures.iter().filter_map(|shown| shown.lines().next());
    assert!(headings.any(|heading| heading.ends_with("0:00:21")));
    let last = pictures.last().expect("there is one");
    assert!(last.contains("starts now"), "{last}");
    assert!(last.contains("the new system starts"), "{last}");
    assert!(!last.contains("[ ]"), "{last}");
}

#[test]
fn the_screen_says_why_the_old_system_comes_back() {
    let mut world = World::new();
    world.handover.payload.image.sha256 = "0".repeat(64);
    world.stops_with("payload-damaged");
    let pictures = world.machine.pictures.lock().unwrap();
    let last = pictures.last().expect("there is one").join("\n");
    assert!(last.contains("payload-damaged"), "{last}");
    assert!(last.contains("The old system is as it was"), "{last}");
    assert!(last.contains("[x] find the disk"), "{last}");
    assert!(last.contains("[ ] secure and verify"), "{last}");
}

/// The contents that stage 1 packed may be keys and passwords.
#[test]
fn no_secret_is_ever_shown_or_kept() {
    let mut world = World::new();
    let folder = with_log_drive(&mut world);
    world.handover.log_level = LogLevel::Trace;
    world.machine.faults.lock().unwrap().emptied = (OURS, 1);
    world.machine.faults.lock().unwrap().write_error = Some((5 * MIB, 1));
    world.migrates();
    let pictures = world.machine.pictures.lock().unwrap().concat().concat();
    let drive = fs::read_to_string(folder.join("migrate.log")).unwrap();
    let mut told = vec![world.machine.shown(), pictures, drive, world.old_log()];
    for entry in fs::read_dir(world.dir.path().join("memory")).unwrap() {
        told.push(fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    for text in told {
        for secret in [
            "very-secret",
            "apiKey",
            "[connection]",
            "id=home",
            "as it was\n",
        ] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}
