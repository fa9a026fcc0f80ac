//! Disks that fail, lie, shrink or are slow, and memory that hardly suffices: the old system comes
//! back, or the new one is complete, or the machine waits and says why.

use balena_migrate::place::Manifest;

use crate::harness::medium::Fault;
use crate::harness::migratecfg::PLACE;
use crate::harness::outcome::{NewSystem, Outcome};
use crate::harness::{Disk, Machine, Migratecfg, OsImage, Vm};
use crate::scenarios::RUN;

/// The size of the guest's own disk.
const SMALL: u64 = 1536 << 20;

/// A larger one, of which the old system does not use the end.
const LARGE: u64 = 2048 << 20;

/// A machine that is off, and starts stage 2 when it is switched on.
fn armed(machine: Machine, cfg: &Migratecfg) -> Machine {
    let mut vm = machine.start();
    vm.wait_agent();
    cfg.send_to(&mut vm);
    vm.must(&format!("cd {PLACE} && {RUN}"));
    vm.shut_down()
}

fn armed_guest(name: &str, cfg: &Migratecfg) -> Machine {
    armed(Machine::running_guest(name), cfg)
}

/// A running old system says why stage 2 came back.
#[track_caller]
fn assert_status(vm: &mut Vm, reason: &str) {
    let status = vm
        .agent(&format!("cd {PLACE} && ./balena-migrate status"))
        .text;
    assert!(
        status.contains("before anything was written") && status.contains(reason),
        "status does not tell of '{reason}': {status}"
    );
}

/// A sector in the midst of resin-rootA that is not zeros: the disk is told to make those by a
/// command of its own, which no fault hits.
fn sector_of_the_image(image: &OsImage) -> u64 {
    let root = image.disk().partition(2);
    let bytes = image.disk().bytes(root.start + (4 << 20), 16 << 20);
    let used = bytes
        .chunks(512)
        .position(|sector| sector.iter().any(|byte| *byte != 0))
        .expect("there are files in resin-rootA");
    (root.start + (4 << 20)) / 512 + used as u64
}

/// A sector of the disk in the middle of a file that is kept behind the new system.
fn kept_sector(disk: &Disk, name: &str) -> u64 {
    let manifest = disk
        .ext4_file(1, "/balena-migrate.keep/manifest.json")
        .expect("files are kept on the disk");
    let manifest: Manifest = serde_json::from_slice(&manifest).expect("it is a manifest");
    let file = &manifest.files[name];
    let mut left = file.bytes / 2;
    for extent in file.extents() {
        if left < extent.bytes {
            return (extent.start + left) / 512;
        }
        left -= extent.bytes;
    }
    panic!("{name} is shorter than the manifest says");
}

/// Writes fail, and succeed when they are tried again.
#[test]
fn a_write_error_that_heals_is_overcome() {
    let image = OsImage::get();
    let cfg = Migratecfg::new(&image);
    let fault = Fault::Write {
        sector: sector_of_the_image(&image),
        times: 2,
    };
    let machine = armed_guest("write-error-heals", &cfg).failing(fault);
    let mut vm = machine.start();
    vm.wait_for("try 1 failed");
    let (_, outcome) = vm.outcome(&NewSystem::ordinary(&cfg), true);
    assert_eq!(outcome, Outcome::ResumedToTheEnd);
}

/// A sector can't be written at all: the machine stays on, tries on and says why.
#[test]
#[ignore = "long: the tries are further and further apart"]
fn a_permanent_write_error_holds_the_machine_and_says_why() {
    let image = OsImage::get();
    let cfg = Migratecfg::new(&image);
    let fault = Fault::Write {
        sector: sector_of_the_image(&image),
        times: 0,
    };
    let machine = armed_guest("write-error-stays", &cfg).failing(fault);
    let mut vm = machine.start();
    vm.wait_for("in part: leave the machine on");
    let why = vm.wait_for(" failed: ");
    assert!(why.contains("Input/output error"), "{why}");
    assert!(!vm.console().contains("reboot:"), "it restarted");
}

/// The image can't be read any more in stage 2.
#[test]
fn a_read_error_in_the_image_brings_the_old_system_back() {
    let cfg = Migratecfg::new(&OsImage::get());
    let machine = armed_guest("read-error", &cfg);
    let sector = kept_sector(&machine.disk(), "payload");
    let mut vm = machine.failing(Fault::Read { sector, times: 0 }).start();
    vm.wait_for("balena-migrate, stage 2");
    vm.wait_agent();
    assert_status(&mut vm, "Input/output error");
}

/// A slow disk takes its time, and shows how far it is.
#[test]
#[ignore = "long: 4 MB/s"]
fn a_slow_disk_shows_its_progress_and_ends_well() {
    let cfg = Migratecfg::new(&OsImage::get());
    let mut vm = armed_guest("slow", &cfg).throttled(4 << 20).start();
    for _ in 0..5 {
        vm.wait_for(" %, ");
    }
    let (_, outcome) = vm.outcome(&NewSystem::ordinary(&cfg), true);
    assert_eq!(outcome, Outcome::ResumedToTheEnd);
}

/// Between the stages the disk is replaced by a smaller one with the same content.
#[test]
#[ignore = "long: stage 2 looks for the old disk for a minute"]
fn a_disk_that_shrank_is_not_overwritten() {
    let cfg = Migratecfg::new(&OsImage::get());
    let machine = armed(Machine::guest("shrunken").resized(LARGE), &cfg);
    let mut vm = machine.resized(SMALL).start();
    vm.wait_for("balena-migrate, stage 2");
    vm.wait_agent();
    assert_status(&mut vm, "size");
}

/// The last MiB of the disk is not there, whatever the disk says of its size.
#[test]
#[ignore = "long: the larger disk has to be booted twice"]
fn a_disk_that_lies_about_its_size_loses_nothing() {
    let cfg = Migratecfg::new(&OsImage::get());
    let end = LARGE / 512;
    let machine = armed(Machine::guest("lying").resized(LARGE), &cfg).failing(Fault::Beyond {
        sector: end - 2048,
        end,
    });
    let (_, outcome) = machine.start().outcome(&NewSystem::ordinary(&cfg), true);
    assert_eq!(outcome, Outcome::Old);
}

/// With less and less memory stage 1 refuses sooner or later; where it does not, stage 2 ends well.
#[test]
#[ignore = "long: a minute for each size"]
fn little_memory_is_refused_or_suffices() {
    let cfg = Migratecfg::new(&OsImage::get());
    let mut said = Vec::new();
    for mib in [256, 208, 176, 160, 144, 128] {
        let mut vm = Machine::guest(&format!("memory-{mib}")).memory(mib).start();
        vm.wait_agent();
        cfg.send_to(&mut vm);
        let run = vm.agent(&format!("cd {PLACE} && {RUN}"));
        let came = match run.code {
            0 => vm
                .shut_down()
                .start()
                .outcome(&NewSystem::ordinary(&cfg), true)
                .1
                .to_string(),
            3 if run.text.contains("memory") => "refused".to_owned(),
            code => panic!("with {mib} MiB it ended with {code}: {}", run.text),
        };
        println!("{mib} MiB: {came}");
        said.push((mib, came));
    }
    let bad = |came: &str| came.starts_with("LOST") || came.starts_with("held");
    assert!(!said.iter().any(|(_, came)| bad(came)), "{said:?}");
}
