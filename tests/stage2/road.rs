//! The road when nothing is wrong.

use std::process::Command;

use balena_migrate::handover::Firmware;
use balena_migrate::report::Outcome;
use balena_migrate::stage2::Ending;

use crate::filesystem::noise;
use crate::machine::OURS;
use crate::world::World;

#[test]
fn the_whole_road() {
    let world = World::new();
    world.migrates();
}

#[test]
fn a_bios_needs_no_efi_folder_and_uefi_neither_grub_nor_boot_code() {
    for firmware in [Firmware::Bios, Firmware::Efi] {
        for data_end in [None, Some(20 << 20)] {
            let mut world = World::new();
            world.handover.firmware = firmware;
            world.handover.payload.image.data_end = data_end;
            // The files are put in twice.
            world.machine.faults.lock().unwrap().emptied = (OURS, 1);
            world.migrates();
            assert!(world.machine.shown().contains("try 1 failed"));
        }
    }
}

#[test]
fn a_log_that_can_t_be_left_does_not_matter() {
    let world = World::new();
    world.machine.faults.lock().unwrap().log_in_the_way = true;
    world.migrates();
    let shown = world.machine.shown();
    assert!(shown.contains("leaving the log on resin-data"), "{shown}");
    assert!(!shown.contains("try 1 failed"), "{shown}");
}

#[test]
fn a_boot_loader_goes_over_the_image_s_first_sectors() {
    World::new().with_new_grub().migrates();
    let world = World::new().with_new_grub();
    let damaged = world.dir.path().join("initramfs/files/overlay-1");
    std::fs::write(damaged, noise(40_000, 44)).unwrap();
    world.stops_with("install-file");
    world.is_untouched();
}

#[test]
fn short_reads_and_writes_are_completed() {
    let world = World::new();
    world.machine.faults.lock().unwrap().short = true;
    world.migrates();
}

#[test]
fn pretending_writes_nothing_to_the_disk_and_restores_the_boot_configuration() {
    let mut world = World::new();
    world.handover.pretend = true;
    assert!(matches!(world.run(), Ok(Ending::Pretended)));
    world.is_untouched();
    world.boot_is_restored();
    assert_eq!(world.report().outcome, Outcome::Pretended);
    assert_eq!(world.report().run_id, "run-1");
    assert!(world.old_log().contains("secure: done"));
    assert!(world.old_log().contains("the kernel was here"));
    let shown = world.machine.shown();
    assert!(shown.contains("exclusive /dev/sda"), "{shown}");
}

#[test]
fn the_boot_configuration_is_restored_before_anything_else() {
    let world = World::new();
    world.migrates();
    world.boot_is_restored();
    let events = world.machine.events.lock().unwrap();
    let at = |text: &str| {
        events
            .iter()
            .position(|event| event.contains(text))
            .unwrap()
    };
    assert!(at("boot configuration") < at("store"));
    assert!(at("store") < at("write 0"));
}

#[test]
fn a_backup_larger_than_the_data_partition_makes_it_grow() {
    let mut world = World::new();
    world.handover.payload.image.data_end = Some(20 << 20);
    world.set_backup(&noise(8 << 20, 17));
    world.migrates();
    let shown = world.machine.shown();
    assert!(
        shown.contains("resin-data has 17 MiB instead of 6 MiB"),
        "{shown}"
    );
}

#[test]
fn the_first_sector_is_the_last_write() {
    let world = World::new();
    world.migrates();
    let events = world.machine.events.lock().unwrap();
    let acts: Vec<&str> = events
        .iter()
        .map(String::as_str)
        .filter(|event| {
            ["write", "sync", "filled"]
                .iter()
                .any(|act| event.starts_with(act))
        })
        .collect();
    assert_eq!(
        acts.first(),
        Some(&"write 0"),
        "the old start is wiped first"
    );
    assert_eq!(acts.iter().filter(|act| **act == "write 0").count(), 2);
    let end = ["filled resin-boot", "filled resin-data", "write 0", "sync"];
    assert!(acts.ends_with(&end), "{acts:?}");
}

#[test]
fn an_image_of_any_format_goes_the_whole_road() {
    let commands = [
        "zip -q -j",
        "zip -q -j -0",
        "xz -1 -c",
        "bzip2 -c",
        "zstd -q -c",
        "cat",
    ];
    for command in commands {
        let world = World::with_packed_image(|from, to| {
            let (from, to) = (from.display(), to.display());
            let script = match command.starts_with("zip") {
                true => format!("{command} {to}.zip {from} && mv {to}.zip {to}"),
                false => format!("{command} {from} > {to}"),
            };
            let status = Command::new("sh").args(["-c", &script]).status().unwrap();
            assert!(status.success(), "{script}");
        });
        world.migrates();
    }
}
