//! The variables of UEFI firmware: what stage 1 left goes, the new system gets an entry.

use balena_migrate::efi::load_option::{ACTIVE, HardDrive, LoadOption, Node, PartitionId};
use balena_migrate::efi::{self, Variable};
use balena_migrate::handover::{Efi, Firmware};
use balena_migrate::stage2::Ending;
use balena_migrate::stage2::machine::Machine;
use balena_migrate::sys::{Sys, efivars};

use crate::power::{Cut, Loss};
use crate::tail::{INITRAMFS, SIGNATURE};
use crate::world::World;

const OLD_GUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

fn entry(description: &str, id: Option<PartitionId>) -> LoadOption {
    let drive = id.map(|id| {
        Node::HardDrive(HardDrive {
            number: 1,
            start: 2048,
            sectors: 100,
            id,
        })
    });
    LoadOption {
        attributes: ACTIVE,
        description: description.to_owned(),
        path: drive
            .into_iter()
            .chain([Node::File("\\EFI\\x".to_owned())])
            .collect(),
        rest: Vec::new(),
        data: Vec::new(),
    }
}

fn number(number: u16) -> Variable {
    Variable::persistent(efi::numbers_value(&[number]))
}

/// A world on UEFI firmware that was armed by BootNext. The old system is entry 1, an entry of the
/// user's is 4, a stick is 5.
fn world() -> (World, Sys) {
    let mut world = World::new();
    let root = world.machine.dir.join("firmware");
    std::fs::create_dir_all(root.join(&efivars::DIR[1..])).unwrap();
    let sys = Sys::new(root);
    let old = PartitionId::Gpt(OLD_GUID.to_owned());
    let stick = PartitionId::Mbr("00000007".to_owned(), 2048);
    for (number, option) in [
        (1, entry("debian", Some(old.clone()))),
        (2, entry(efi::OUR_ENTRY, Some(old.clone()))),
        (4, entry("network", None)),
        (5, entry("stick", Some(stick))),
    ] {
        let variable = Variable::persistent(option.to_bytes());
        sys.write_efi(&efi::boot_entry(number), &variable).unwrap();
    }
    let order = Variable::persistent(efi::numbers_value(&[1, 5, 4]));
    sys.write_efi(&efi::boot_order(), &order).unwrap();
    world.handover.firmware = Firmware::Efi;
    world.handover.efi = Some(Efi {
        remove: vec![efi::boot_next(), efi::boot_entry(2)],
        old_partitions: vec![old],
        needs_entry: false,
    });
    (world, sys)
}

fn entries(sys: &Sys) -> Vec<u16> {
    let names = sys.efi_variables();
    names
        .iter()
        .filter_map(|name| efi::entry_number(name))
        .collect()
}

fn order(sys: &Sys) -> Vec<u16> {
    efi::numbers(&sys.read_efi(&efi::boot_order()).unwrap().unwrap().value)
}

#[test]
fn what_stage_1_left_goes_before_anything_can_fail() {
    let (mut world, sys) = world();
    // Firmware that does not remove it by itself.
    sys.write_efi(&efi::boot_next(), &number(2)).unwrap();
    world.handover.pretend = true;
    assert!(matches!(world.run(), Ok(Ending::Pretended)));
    assert_eq!(entries(&sys), [1, 4, 5]);
    assert_eq!(order(&sys), [1, 5, 4]);
    assert_eq!(sys.read_efi(&efi::boot_next()).unwrap(), None);
    let shown = world.machine.shown();
    assert!(
        shown.contains("the EFI variables of stage 1 are gone"),
        "{shown}"
    );
}

#[test]
fn what_stage_1_left_goes_also_where_the_disk_is_not_found() {
    let (mut world, sys) = world();
    world.handover.disk.bytes += 512;
    world.stops_with("disk-not-found");
    assert_eq!(entries(&sys), [1, 4, 5]);
}

#[test]
fn the_new_system_comes_first_and_what_is_no_more_goes() {
    let (world, sys) = world();
    world.migrates();
    assert_eq!(entries(&sys), [0, 4, 5]);
    assert_eq!(order(&sys), [0, 5, 4]);
    let new = sys.read_efi(&efi::boot_entry(0)).unwrap().unwrap();
    let new = LoadOption::parse(&new.value).unwrap();
    assert_eq!(new.description, "resinOS");
    assert_eq!(new.attributes, ACTIVE);
    assert_eq!(new.file(), Some("\\EFI\\BOOT\\BOOTX64.EFI"));
    let boot = &world.handover.payload.image.boot;
    let first = world.first_sector();
    let signature = u32::from_le_bytes(first[440..444].try_into().unwrap());
    // The vendor's installer clears the signature with the boot code on such machines.
    assert_ne!(signature, 0);
    let drive = HardDrive {
        number: 1,
        start: boot.start / 512,
        sectors: boot.bytes / 512,
        id: PartitionId::Mbr("00000000".to_owned(), boot.start / 512),
    };
    assert_eq!(new.partition(), Some(&drive));
}

#[test]
fn firmware_of_32_bits_gets_another_program() {
    let (world, sys) = world();
    sys.write_whole("/sys/firmware/efi/fw_platform_size", b"32\n", 0o644, None)
        .unwrap();
    world.migrates();
    let new = sys.read_efi(&efi::boot_entry(0)).unwrap().unwrap();
    let new = LoadOption::parse(&new.value).unwrap();
    assert_eq!(new.file(), Some("\\EFI\\BOOT\\BOOTIA32.EFI"));
}

#[test]
fn an_entry_that_is_right_already_is_used() {
    let (world, sys) = world();
    let boot = &world.handover.payload.image.boot;
    let mut same = entry("UEFI OS", None);
    same.path = vec![
        Node::HardDrive(HardDrive {
            number: 1,
            start: boot.start / 512,
            sectors: boot.bytes / 512,
            id: PartitionId::Mbr("00000000".to_owned(), boot.start / 512),
        }),
        Node::File("\\EFI\\BOOT\\BOOTX64.EFI".to_owned()),
    ];
    let same = Variable::persistent(same.to_bytes());
    sys.write_efi(&efi::boot_entry(7), &same).unwrap();
    world.migrates();
    assert_eq!(entries(&sys), [4, 5, 7]);
    assert_eq!(order(&sys), [7, 5, 4]);
}

#[test]
fn firmware_without_variables_does_not_stop_anything() {
    let (world, _) = world();
    std::fs::remove_dir_all(world.machine.dir.join("firmware")).unwrap();
    world.migrates();
    let shown = world.machine.shown();
    assert!(
        shown.contains("giving the new system a boot entry"),
        "{shown}"
    );
}

/// The entry of the new system is there before the disk leads to it, and that of stage 2 as long as it is needed.
#[test]
fn a_power_cut_at_the_last_sector_leaves_an_entry_for_the_new_system() {
    let last = {
        let world = World::resumable_by_uefi();
        world.migrates();
        let shown = world.machine.shown();
        let is_write = |line: &&str| line.starts_with("write ") || line.starts_with("filled ");
        let writes = shown.lines().filter(is_write);
        let first = writes.enumerate().filter(|(_, line)| *line == "write 0");
        first.last().unwrap().0 as u32 + 1
    };
    for (percent, starts) in [(0, "stage 2"), (100, "the new system")] {
        let mut world = World::resumable_by_uefi();
        let sys = world.machine.efi_variables().unwrap();
        world.machine.power.plan(Cut {
            write: last,
            percent,
            loss: Loss::Nothing,
        });
        assert!(world.run().is_err());
        assert_eq!(
            descriptions(&sys),
            [efi::NEW_ENTRY, efi::OUR_ENTRY],
            "{starts}"
        );
        let new = sys.read_efi(&efi::boot_entry(order(&sys)[0])).unwrap();
        let new = LoadOption::parse(&new.unwrap().value).unwrap();
        let boot = &world.handover.payload.image.boot;
        assert_eq!(new.partition().unwrap().start, boot.start / 512);
        if percent == 0 {
            world.switch_on();
            world.migrates();
            assert_eq!(descriptions(&sys), [efi::NEW_ENTRY]);
        }
    }
}

/// The new system is not restarted into before the firmware is told of it.
#[test]
fn an_entry_that_is_needed_is_tried_until_the_firmware_takes_it() {
    for needs_entry in [false, true] {
        let (mut world, sys) = world();
        world.handover.efi.as_mut().unwrap().needs_entry = needs_entry;
        // What stage 1 left goes and, where it is needed, a first entry is made; then the firmware fails.
        let first = 2 + u32::from(needs_entry);
        world.machine.faults.lock().unwrap().efi_fails = first..first + 2;
        world.migrates();
        let shown = world.machine.shown();
        let tries = shown.matches("giving the new system a boot entry").count();
        match needs_entry {
            true => {
                assert!(tries >= 2, "{shown}");
                assert_eq!(entries(&sys), [0, 4, 5]);
            }
            false => assert!(shown.contains("should find it without"), "{shown}"),
        }
    }
}

/// The firmware would go on to start the loader of the old system, which is on another disk.
#[test]
fn nothing_is_overwritten_where_the_firmware_takes_no_entry_that_it_needs() {
    let (mut world, sys) = world();
    world.handover.efi.as_mut().unwrap().needs_entry = true;
    // Firmware without room for it.
    let full = efivars::DIR[1..].to_owned();
    let taken = world.machine.dir.join("firmware").join(full);
    std::fs::create_dir(taken.join(efi::boot_entry(0))).unwrap();
    world.stops_with("efi-entry");
    std::fs::remove_dir(taken.join(efi::boot_entry(0))).unwrap();
    assert_eq!(entries(&sys), [1, 4, 5]);
    assert_eq!(order(&sys), [1, 5, 4]);
    let (mut world, sys) = self::world();
    world.handover.efi.as_mut().unwrap().needs_entry = true;
    world.migrates();
    assert_eq!(entries(&sys), [0, 4, 5]);
    assert_eq!(descriptions(&sys), [efi::NEW_ENTRY, "stick", "network"]);
}

fn descriptions(sys: &Sys) -> Vec<String> {
    let numbers = order(sys).into_iter();
    let entry = |number| sys.read_efi(&efi::boot_entry(number)).unwrap().unwrap();
    numbers
        .map(|number| LoadOption::parse(&entry(number).value).unwrap().description)
        .collect()
}

#[test]
fn the_firmware_is_told_of_stage_2_while_the_disk_is_overwritten_and_of_the_new_system_then() {
    let mut world = World::resumable_by_uefi();
    let sys = world.machine.efi_variables().unwrap();
    let old = Variable::persistent(entry("old", None).to_bytes());
    sys.write_efi(&efi::boot_entry(7), &old).unwrap();
    sys.write_efi(&efi::boot_order(), &number(7)).unwrap();
    world.machine.power.plan(Cut {
        write: 8,
        percent: 0,
        loss: Loss::Nothing,
    });
    assert!(world.run().is_err());
    assert_eq!(descriptions(&sys), [efi::OUR_ENTRY, "old"]);
    let ours = sys.read_efi(&efi::boot_entry(order(&sys)[0])).unwrap();
    let ours = LoadOption::parse(&ours.unwrap().value).unwrap();
    let drive = ours.partition().unwrap();
    let start = INITRAMFS / 512;
    assert_eq!((drive.start, drive.sectors), (start, (1 << 20) / 512));
    let id = PartitionId::Mbr(format!("{SIGNATURE:08x}"), start);
    assert_eq!(drive.id, id);
    assert_eq!(ours.file(), Some("\\EFI\\BOOT\\BOOTX64.EFI"));
    world.switch_on();
    world.migrates();
    assert_eq!(descriptions(&sys), [efi::NEW_ENTRY, "old"]);
    assert_eq!(entries(&sys).len(), 2);
}

#[test]
fn the_firmware_forgets_stage_2_where_the_first_sector_can_t_be_written() {
    let world = World::resumable_by_uefi();
    let sys = world.machine.efi_variables().unwrap();
    sys.write_efi(&efi::boot_order(), &number(7)).unwrap();
    world.machine.faults.lock().unwrap().write_error = Some((0, 1));
    assert!(matches!(world.run(), Ok(Ending::Stopped(_))));
    let shown = world.machine.shown();
    assert!(
        shown.contains("the firmware starts stage 2 first"),
        "{shown}"
    );
    assert_eq!(entries(&sys), [0u16; 0]);
    assert_eq!(order(&sys), [7]);
}
