//! 32-bit PCs, and the 32-bit executable.

use std::time::Instant;

use crate::harness::board::{Board, Processor};
use crate::harness::guest::{Guest, Root, Tree};
use crate::harness::matrix::Row;
use crate::harness::migratecfg::PLACE;
use crate::harness::outcome::{NewSystem, Outcome};
use crate::harness::{Machine, Migratecfg, OsImage, Vm, cache, exe};
use crate::scenarios::{OLD_TREE, RUN, assert_same_tree};

const GUEST: Guest = Guest {
    tree: Tree::I686,
    root: Root::Mbr,
};

/// The 32-bit machine. Its kernel boots slowly, and is to be seen doing so: the bench gives silent
/// machines up.
fn machine(name: &str) -> Machine {
    const CFG: &str = "/boot/grub/grub.cfg";
    let machine = Machine::of(name, GUEST, Board::default());
    let cfg = machine
        .disk()
        .ext4_file(1, CFG)
        .expect("GRUB's file is there");
    let cfg = String::from_utf8(cfg).expect("GRUB's file is text");
    let talking = cfg.replace(" quiet", "");
    machine.disk().write_ext4_file(1, CFG, talking.as_bytes());
    machine
}

/// A machine that is up, with the folder and the 32-bit executable on it, and what it says of itself
/// among the logs.
fn up(name: &str, machine: Machine, cfg: &Migratecfg) -> Vm {
    let mut vm = machine.start();
    vm.wait_agent();
    cfg.send_to(&mut vm);
    let facts = vm.must(&format!("cd {PLACE} && ./balena-migrate facts"));
    let path = cache::subdir("logs").join(format!("{name}-facts.json"));
    std::fs::write(path, facts).expect("keeping the facts");
    vm.must("sync");
    vm
}

fn folder(image: &OsImage) -> Migratecfg {
    Migratecfg::with_program(image, exe::for_i686())
}

/// A line of the table, of a machine that is up.
fn row(vm: &mut Vm, machine: &str, since: Instant) -> Row {
    let image = OsImage::get().slug();
    Row::of(vm, machine, "BIOS", Root::Mbr, image, since)
}

fn migrates(mut vm: Vm, cfg: &Migratecfg) {
    vm.must(&format!("cd {PLACE} && {RUN} -r 3"));
    vm.wait_for("balena-migrate, stage 2");
    let (_, outcome) = vm.outcome(&NewSystem::ordinary(cfg), true);
    assert_eq!(outcome, Outcome::ResumedToTheEnd);
}

/// A 32-bit kernel leaves 64 bits of its processor unused; the new system does not.
#[test]
#[ignore = "long: a machine of its own"]
fn a_32_bit_system_on_a_64_bit_processor() {
    let cfg = folder(&OsImage::get());
    let machine = machine("i686");
    let start = Instant::now();
    let mut vm = up("i686", machine, &cfg);
    let row = row(&mut vm, "Debian 12, 32 bits, 64-bit processor", start);
    assert_eq!(vm.must("uname -m").trim(), "i686");
    migrates(vm, &cfg);
    row.add("migrated");
}

/// Nothing of a 64-bit image would run.
#[test]
#[ignore = "long: a machine of its own"]
fn a_processor_without_64_bits() {
    let cfg = folder(&OsImage::get());
    let machine = machine("i686-only").with(Processor::Bits32);
    let start = Instant::now();
    let mut vm = up("i686-only", machine, &cfg);
    let row = row(&mut vm, "Debian 12, 32 bits, no 64-bit processor", start);
    let before = vm.must(OLD_TREE);
    let said = vm.agent(&format!("cd {PLACE} && {RUN}"));
    assert_eq!(said.code, 3, "{}", said.text);
    let errors = said.text.lines().filter(|line| line.starts_with("error["));
    let errors: Vec<&str> = errors.collect();
    assert_eq!(errors.len(), 1, "{}", said.text);
    assert!(
        errors[0].starts_with("error[image-device]"),
        "{}",
        said.text
    );
    assert!(said.text.contains("no 64-bit mode"), "{}", said.text);
    assert_same_tree(&before, &vm.must(OLD_TREE));
    vm.must("test ! -e /var/lib/balena-migrate");
    row.add("refused: image-device");
}

/// The kernel that starts stage 2 is the one that ran stage 1: it runs the 32-bit executable again.
#[test]
#[ignore = "long: a machine of its own"]
fn a_64_bit_kernel_runs_the_32_bit_executable() {
    let cfg = folder(&OsImage::get());
    let machine = Machine::running_guest("i686-executable");
    let start = Instant::now();
    let mut vm = up("i686-executable", machine, &cfg);
    let row = row(&mut vm, "Debian 12, 32-bit executable", start);
    migrates(vm, &cfg);
    row.add("migrated");
}
