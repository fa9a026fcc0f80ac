//! The power is cut, at every write that there is: what the next boot finds is the old system, a
//! flash that goes on, or the new system.

use std::thread;
use std::time::Duration;

use balena_migrate::handover::Firmware;
use balena_migrate::resume::{Record, State};
use balena_migrate::stage2::{Ending, explain, overwrite, resume};

use crate::power::{Cut, Loss};
use crate::tail::{INITRAMFS, RECORD, boot_code};
use crate::world::{OLD_ROOT_UUID, World};

const MIB: u64 = 1 << 20;

/// What a machine finds when it is switched on.
#[derive(Debug, PartialEq, Clone, Copy)]
enum Boot {
    Old,
    Stage2,
    New,
}

fn boot(world: &World) -> Boot {
    let disk = world.disk();
    let mut new = world.first_sector().to_vec();
    if world.handover.firmware == Firmware::Efi {
        new[..446].fill(0);
    }
    if disk[..512] == new {
        world.is_migrated();
        return Boot::New;
    }
    let resume = world.handover.resume.as_ref().unwrap();
    let first = resume.first_sector().unwrap();
    if disk.starts_with(&first) {
        let end = first.len();
        assert!(
            disk[end..512] == world.before[end..512],
            "the old partition table"
        );
        return Boot::Stage2;
    }
    let record = RECORD as usize;
    assert!(disk[..record] == world.before[..record], "the old system");
    Boot::Old
}

/// Runs stage 2 until the power is cut; false when it has ended before.
fn is_cut(world: &mut World, cut: Cut) -> bool {
    world.machine.power.plan(cut);
    let ending = world.run();
    let is_off = world.machine.power.is_off();
    assert!(
        is_off || matches!(ending, Ok(Ending::Migrated)),
        "{ending:?}\n{}",
        world.machine.shown()
    );
    is_off
}

/// The flash that was cut off goes on to its end.
fn goes_on(world: &mut World) {
    world.switch_on();
    world.migrates();
    let shown = world.machine.shown();
    assert!(
        shown.contains("A flash of this disk was cut off"),
        "{shown}"
    );
    assert!(
        !shown.contains(&format!("mount {OLD_ROOT_UUID}")),
        "what is left of the old system is not touched: {shown}"
    );
}

fn writes(make: fn() -> World) -> u32 {
    let world = make();
    world.migrates();
    world.machine.power.writes()
}

/// Cuts the power at each write, in these ways in turn, and says what the next boot finds.
fn cut_everywhere(make: fn() -> World, ways: [(usize, Loss); 2]) -> Vec<Boot> {
    let cut_once = |write: u32| {
        let (percent, loss) = ways[write as usize % 2];
        let cut = Cut {
            write,
            percent,
            loss,
        };
        let mut world = make();
        assert!(is_cut(&mut world, cut), "{cut:?}");
        let found = boot(&world);
        println!("{cut:?}: {found:?}");
        if found == Boot::Stage2 {
            goes_on(&mut world);
        }
        found
    };
    (1..=writes(make)).map(cut_once).collect()
}

#[test]
fn whenever_the_power_is_cut_the_machine_ends_as_it_began_or_with_the_new_system() {
    let plain = [(0, Loss::Nothing), (50, Loss::All)];
    let worse = [(50, Loss::EverySecond), (50, Loss::Nothing)];
    let seen = thread::scope(|scope| {
        let machines: [(fn() -> World, _); 4] = [
            (World::resumable, plain),
            (World::resumable, worse),
            (World::resumable_by_uefi, worse),
            (World::resumable_on_a_board, worse),
        ];
        let threads = machines.map(|(make, ways)| scope.spawn(move || cut_everywhere(make, ways)));
        threads.map(|thread| thread.join().unwrap())
    });
    for seen in seen {
        for boot in [Boot::Old, Boot::Stage2, Boot::New] {
            assert!(seen.contains(&boot), "{boot:?} was never seen: {seen:?}");
        }
        assert!(seen.is_sorted_by_key(|boot| *boot as u8), "{seen:?}");
    }
}

#[test]
fn the_power_is_cut_again_and_again() {
    let all = writes(World::resumable);
    for step in [3, 5, 7] {
        let mut world = World::resumable();
        let mut cuts = 0;
        for write in (4..).step_by(step) {
            let loss = Loss::EverySecond;
            let cut = Cut {
                write,
                percent: 70,
                loss,
            };
            if !is_cut(&mut world, cut) {
                break;
            }
            cuts += 1;
            assert!(write <= 2 * all, "it gets nowhere");
            match boot(&world) {
                Boot::Stage2 => world.switch_on(),
                Boot::New => break,
                Boot::Old => panic!("it is gone"),
            }
        }
        assert!(cuts > 1);
        world.is_migrated();
    }
}

#[test]
fn what_is_overwritten_in_part_is_never_mounted() {
    let mut world = World::resumable();
    world.tear();
    goes_on(&mut world);
}

#[test]
fn a_torn_disk_without_its_record_is_flashed_from_the_start() {
    let mut world = World::resumable();
    world.tear();
    world.lay(RECORD, &vec![0x5a; 128 << 10]);
    goes_on(&mut world);
    assert!(world.machine.shown().contains("the flash begins anew"));
}

#[test]
fn a_disk_that_kept_the_first_sector_but_not_the_record() {
    let mut world = World::resumable();
    world.lay(0, &boot_code());
    goes_on(&mut world);
}

#[test]
fn a_record_without_the_first_sector_is_the_old_system() {
    let mut world = World::resumable();
    world.lay_record(1, State::Overwriting { verified: 5 * MIB });
    world.stops_with("resume-record");
}

#[test]
fn a_resumed_flash_that_fails_is_held_and_never_restarted_into() {
    let mut world = World::resumable();
    world.tear();
    // The image is damaged.
    let byte = world.before[12 * MIB as usize] ^ 1;
    world.lay(12 * MIB, &[byte]);
    world.switch_on();
    assert_eq!(world.run().unwrap_err(), "it waits for ever");
    assert!(overwrite::is_marked(&world.machine));
    let byte = world.before[12 * MIB as usize] ^ 1;
    world.lay(12 * MIB, &[byte]);
    world.switch_on();
    world.migrates();
}

#[test]
fn a_process_that_dies_in_a_resumed_flash_is_followed_by_one_that_goes_on() {
    let mut world = World::resumable();
    world.tear();
    world.switch_on();
    world.machine.faults.lock().unwrap().write_panic = Some(5 * MIB);
    assert_eq!(world.run().unwrap_err(), "a fault while writing");
    assert!(overwrite::is_marked(&world.machine));
    let ending = world.attempt(|| resume(&world.machine));
    assert!(matches!(ending, Ok(Ending::Migrated)), "{ending:?}");
    world.is_migrated();
}

#[test]
fn a_fault_of_ours_before_the_torn_disk_is_known_touches_nothing() {
    let mut world = World::resumable();
    world.tear();
    world.switch_on();
    world.machine.faults.lock().unwrap().modules_panic = true;
    assert_eq!(world.run().unwrap_err(), "a fault while loading a module");
    assert!(!overwrite::is_marked(&world.machine));
    let ending = world.attempt(|| explain(&world.machine, "was ended by SIGABRT"));
    assert!(matches!(ending, Ok(Ending::Stopped(_))));
    world.is_untouched();
    let shown = world.machine.shown();
    assert!(!shown.contains("writable"), "{shown}");
    assert!(!shown.contains("The old system starts"), "{shown}");
    assert!(shown.contains("into this stage again"), "{shown}");
}

#[test]
fn a_torn_disk_that_is_not_found_is_not_called_the_old_system() {
    let mut world = World::resumable();
    world.tear();
    world.switch_on();
    world.machine.faults.lock().unwrap().disks_after = Duration::MAX;
    let ending = world.run();
    assert!(matches!(ending, Ok(Ending::Stopped(_))), "{ending:?}");
    let shown = world.machine.shown();
    assert!(!shown.contains("old system starts"), "{shown}");
    assert!(!shown.contains("before the first write"), "{shown}");
    assert!(shown.contains("into this stage again"), "{shown}");
}

#[test]
fn without_what_resumes_a_flash_the_old_system_starts() {
    let world = World::new();
    world.machine.faults.lock().unwrap().disks_after = Duration::MAX;
    let ending = world.run();
    assert!(matches!(ending, Ok(Ending::Stopped(_))), "{ending:?}");
    let shown = world.machine.shown();
    assert!(shown.contains("** The old system starts again."), "{shown}");
}

#[test]
fn boot_files_that_are_damaged_stop_it() {
    for place in [21 * MIB, INITRAMFS + 199_999] {
        let mut world = World::resumable();
        let byte = world.before[place as usize] ^ 1;
        world.lay(place, &[byte]);
        world.stops_with("resume-record");
    }
}

#[test]
fn no_record_or_one_of_another_run_stops_it() {
    let mut world = World::resumable();
    world.lay(RECORD, &[0; 512]);
    world.stops_with("resume-record");
    let mut world = World::resumable();
    world.handover.run_id = "run-2".to_owned();
    world.stops_with("resume-record");
}

#[test]
fn a_file_in_memory_would_be_lost_with_the_power() {
    let mut world = World::resumable();
    world.handover.backup = World::new().handover.backup;
    world.stops_with("resume-record");
}

#[test]
fn pretending_leaves_the_first_sector_and_the_record_alone() {
    let mut world = World::resumable();
    world.handover.pretend = true;
    assert!(matches!(world.run(), Ok(Ending::Pretended)));
    world.is_untouched();
}

#[test]
fn a_first_sector_that_the_disk_refuses_leaves_the_old_system() {
    let world = World::resumable();
    world.machine.faults.lock().unwrap().first_sector_error = 1;
    let ending = world.run();
    let Ok(Ending::Stopped(stop)) = &ending else {
        panic!("{ending:?}\n{}", world.machine.shown());
    };
    assert_eq!(stop.code.name(), "resume-record");
    assert_eq!(boot(&world), Boot::Old);
    assert!(!overwrite::is_marked(&world.machine));
    assert!(world.old_log().contains("writing the first sector"));
    let shown = world.machine.shown();
    assert!(!shown.contains("is overwritten now"), "{shown}");
    let pictures = world.machine.pictures.lock().unwrap();
    let mut lines = pictures.iter().flatten();
    assert!(!lines.any(|line| line.contains("is overwritten now")));
}

#[test]
fn the_secrets_behind_the_image_are_wiped_once_it_starts() {
    let world = World::resumable();
    world.migrates();
    let disk = world.disk();
    let initramfs = &disk[INITRAMFS as usize..][..200_000];
    assert!(initramfs.iter().all(|byte| *byte == 0));
    let events = world.machine.events.lock().unwrap();
    let at = |text: &str| events.iter().rposition(|event| event == text).unwrap();
    assert!(at(&format!("write {INITRAMFS}")) > at("write 0"));
    let record = &disk[RECORD as usize..][..128 << 10];
    assert!(Record::read(record).is_some());
}
