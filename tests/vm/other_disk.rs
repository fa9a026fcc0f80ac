//! FLASH_TO another disk than the one that the machine boots from: the old system stays whole beside
//! the new one, is told of it, and comes back where the flash can't be ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::board::Board;
use crate::harness::guest::{Guest, Root, Tree};
use crate::harness::machine::new_disk;
use crate::harness::matrix::Row;
use crate::harness::medium::Fault;
use crate::harness::migratecfg::PLACE;
use crate::harness::outcome::{NewSystem, Outcome};
use crate::harness::{Disk, Machine, Migratecfg, OsImage, Vm};
use crate::scenarios::{OLD_TREE, RUN, assert_same_tree};

/// The size of the new disk.
const MIB: u64 = 1536;

/// Debian 12 with the standard kernel.
const STANDARD: Guest = Guest {
    tree: Tree::Standard,
    root: Root::Ext4,
};

fn settings(image: &OsImage) -> Migratecfg {
    Migratecfg::new(image).setting("FLASH_TO", "/dev/vdb")
}

/// The usual guest, with the folder and a new disk that was put in while it ran; and that disk.
fn plugged(name: &str, cfg: &Migratecfg) -> (Vm, PathBuf) {
    let machine = Machine::running_guest(name);
    let disk = machine.dir().join("new.raw");
    new_disk(&disk, MIB);
    let mut vm = machine.start();
    cfg.send_to(&mut vm);
    vm.plug(&disk, "BENCH-NEW");
    vm.must(
        "for i in $(seq 100); do [ -b /dev/vdb ] && break; sleep 0.2; done; sync; test -b /dev/vdb",
    );
    (vm, disk)
}

/// The guest with the standard kernel and the folder, on a machine that has a new disk too.
fn up(machine: Machine, cfg: &Migratecfg) -> Vm {
    let mut vm = machine.start();
    vm.wait_agent();
    cfg.send_to(&mut vm);
    vm.must("sync");
    vm
}

/// Stage 1 arms the machine, which restarts.
#[track_caller]
fn arm(vm: &mut Vm) -> String {
    vm.must(&format!("cd {PLACE} && {RUN} -r 3"))
}

/// What `status` says, in one line.
#[track_caller]
fn status(vm: &mut Vm) -> String {
    let said = vm.must(&format!("cd {PLACE} && ./balena-migrate status"));
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Nothing is taken from the running system.
#[track_caller]
fn is_refused_while_in_use(vm: &mut Vm) {
    for (takes, use_of, lets_go) in [
        (
            "mkswap -q /dev/vdb && swapon /dev/vdb",
            "vdb takes swap",
            "swapoff /dev/vdb",
        ),
        (
            "mkfs.ext2 -q -F /dev/vdb && mount /dev/vdb /mnt",
            "vdb is mounted at /mnt",
            "umount /mnt",
        ),
    ] {
        vm.must(takes);
        let said = vm.agent(&format!("cd {PLACE} && {RUN}"));
        assert_eq!(said.code, 3, "{}", said.text);
        assert!(said.text.contains("error[flash-to]"), "{}", said.text);
        assert!(said.text.contains(use_of), "{}", said.text);
        vm.must(&format!("{lets_go} && wipefs -q -a /dev/vdb"));
    }
}

/// An undo leaves nothing of the run in the old system.
#[track_caller]
fn undo(vm: &mut Vm, before: &str) {
    vm.must(&format!("cd {PLACE} && ./balena-migrate undo"));
    assert_same_tree(before, &vm.must(OLD_TREE));
    let left = vm.must(
        "find / -xdev -name '*balena-migrate*' -not -path '/root/*' -not -path '/proc/*'; \
         find /boot -name '*balena*'",
    );
    assert_eq!(left, "", "an undo has left something");
}

/// Nothing starts from there.
#[track_caller]
fn is_torn(disk: &Path) {
    let first = Disk::new(disk).bytes(0, 512);
    assert!(first[510..] != [0x55, 0xaa], "a boot sector");
}

/// A line of the table, of a machine that is up.
fn row(vm: &mut Vm, machine: &str, firmware: &str, root: Root, since: Instant) -> Row {
    let machine = format!("Debian 12, {machine}");
    Row::of(vm, &machine, firmware, root, OsImage::get().slug(), since)
}

/// A BIOS that goes on to start the old disk: the old system comes back and says where the new one is.
/// With the other disk first in its order, it starts that, beside the old one.
#[test]
fn a_bios_starts_the_disk_that_is_first_in_its_order() {
    let cfg = settings(&OsImage::get());
    let start = Instant::now();
    let (mut vm, disk) = plugged("other-bios", &cfg);
    let row = row(&mut vm, "to a second disk", "BIOS", Root::Mbr, start);
    let before = vm.must(OLD_TREE);
    is_refused_while_in_use(&mut vm);
    let said = arm(&mut vm);
    assert!(said.contains("warning[flash-to-boot]"), "{said}");
    vm.wait_for("balena-migrate, stage 2");
    vm.wait_for("the BIOS starts the one that");
    vm.wait_reboot();
    vm.wait_agent();
    let said = status(&mut vm);
    assert!(
        said.contains("The new system is on another disk, complete: vdb"),
        "{said}"
    );
    undo(&mut vm, &before);
    vm.must("sync");
    let machine = vm.power_cut().starting_from(&disk);
    let (_, outcome) = machine.start().outcome(&NewSystem::ordinary(&cfg), true);
    assert_eq!(outcome, Outcome::New);
    row.add("migrated, the old system kept");
}

/// UEFI firmware starts the new system by its entry. Without that disk it starts the old one again.
#[test]
#[ignore = "long: a machine of its own"]
fn uefi_firmware_starts_the_new_system_from_another_disk() {
    let image = OsImage::with_standard_kernel();
    let cfg = settings(&image);
    let start = Instant::now();
    let machine = Machine::of("other-uefi", STANDARD, Board::UEFI).with_new_disk(MIB);
    let mut vm = up(machine, &cfg);
    let row = row(&mut vm, "to a second disk", "UEFI", Root::Ext4, start);
    let before = vm.must(OLD_TREE);
    let said = arm(&mut vm);
    assert!(!said.contains("flash-to-boot"), "{said}");
    vm.wait_for("balena-migrate, stage 2");
    let facts = NewSystem::of(vec![
        format!("NEWOS: config.json {}", cfg.config_json_sha256()),
        "NEWOS: keyfile resin-wifi-01 ".to_owned(),
        "NEWOS: keyfile resin-wifi-02 ".to_owned(),
        "NEWOS: fingerprint ok 10".to_owned(),
        "\"resinOS\" from".to_owned(),
    ]);
    let (machine, outcome) = vm.outcome(&facts, true);
    assert_eq!(outcome, Outcome::ResumedToTheEnd);
    let mut vm = machine.without_last_disk().start();
    vm.wait_agent();
    let said = status(&mut vm);
    assert!(said.contains("on another disk, complete: vdb"), "{said}");
    undo(&mut vm, &before);
    row.add("migrated, the old system kept");
}

/// The power is cut in the midst of the flash.
#[test]
#[ignore = "long: the whole road is the usual one"]
fn a_power_cut_brings_the_old_system_back() {
    let cfg = settings(&OsImage::get());
    let start = Instant::now();
    let (mut vm, disk) = plugged("other-cut", &cfg);
    let row = row(&mut vm, "to a second disk", "BIOS", Root::Mbr, start);
    let before = vm.must(OLD_TREE);
    arm(&mut vm);
    vm.wait_for("balena-migrate, stage 2");
    vm.wait_for("== overwrite: ");
    std::thread::sleep(Duration::from_secs(2));
    let machine = vm.power_cut();
    is_torn(&disk);
    let mut vm = machine.start();
    vm.wait_agent();
    let said = status(&mut vm);
    assert!(
        said.contains("cut off while it overwrote another disk"),
        "{said}"
    );
    undo(&mut vm, &before);
    row.add("power cut in the flash: the old system, undone without a trace");
}

/// The new disk does not take the image: after some minutes the old system comes back.
#[test]
#[ignore = "long: it tries for five minutes"]
fn a_disk_that_takes_nothing_brings_the_old_system_back() {
    let image = OsImage::with_standard_kernel();
    let cfg = settings(&image);
    let start = Instant::now();
    // In the boot code of resin-boot, which is no zeros: those are made by a command that no fault hits.
    let sector = image.disk().partition(1).start / 512;
    let machine = Machine::of("other-fails", STANDARD, Board::UEFI)
        .with_new_disk(MIB)
        .failing_on_second(Fault::Write { sector, times: 0 });
    let disk = machine.dir().join("new.raw");
    let mut vm = up(machine, &cfg);
    let name = "to a second disk that takes nothing";
    let row = row(&mut vm, name, "UEFI", Root::Ext4, start);
    let before = vm.must(OLD_TREE);
    let entries = "cd /sys/firmware/efi/efivars && sha256sum Boot[0-9]* BootOrder*";
    let variables = vm.must(entries);
    arm(&mut vm);
    vm.wait_for("balena-migrate, stage 2");
    vm.wait_for("** given up: disk-write");
    vm.wait_reboot();
    vm.wait_agent();
    let said = status(&mut vm);
    assert!(
        said.contains("could not overwrite another disk and gave it up"),
        "{said}"
    );
    assert!(said.contains("disk-write: 6 tries failed"), "{said}");
    undo(&mut vm, &before);
    assert_eq!(vm.must(entries), variables, "an undo has left something");
    is_torn(&disk);
    assert!(fs::metadata(&disk).is_ok_and(|disk| disk.len() == MIB << 20));
    row.add("given up: the old system, undone without a trace");
}
