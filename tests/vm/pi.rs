//! Raspberry Pis. The firmware is a stand-in ([`crate::harness::pi::firmware`]); kernels, cards and both stages
//! are real.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::harness::guest::{Guest, Root, Tree};
use crate::harness::matrix::Row;
use crate::harness::migratecfg::PLACE;
use crate::harness::pi::{Model, PI_2, PI_3};
use crate::harness::{Machine, Migratecfg, OsImage, Vm, exe, tool};
use crate::scenarios::{RUN, assert_same_tree};

/// A board, and what runs on it.
struct Kind {
    name: &'static str,
    model: &'static Model,
    tree: Tree,
    slug: &'static str,
    program: fn() -> &'static Path,
}

const PI_3_64: Kind = Kind {
    name: "Raspberry Pi 3 B, 64 bits",
    model: &PI_3,
    tree: Tree::Pi3,
    slug: "raspberrypi3-64",
    program: exe::for_aarch64,
};

const PI_2_32: Kind = Kind {
    name: "Raspberry Pi 2 B, 32 bits",
    model: &PI_2,
    tree: Tree::Pi2,
    slug: "raspberry-pi2",
    program: exe::for_armv7,
};

impl Kind {
    fn machine(&self, name: &str) -> Machine {
        let guest = Guest {
            tree: self.tree,
            root: Root::Card,
        };
        Machine::pi(name, self.model, guest)
    }

    fn image(&self) -> OsImage {
        OsImage::for_pi(self.tree, self.slug)
    }

    fn folder(&self) -> Migratecfg {
        Migratecfg::with_program(&self.image(), (self.program)())
    }

    /// A line of the table, of such a board that is up.
    fn row(&self, scene: &mut Scene, since: Instant) -> Row {
        let firmware = scene.way.file();
        let vm = &mut scene.vm;
        Row::of(vm, self.name, firmware, Root::Card, self.slug, since)
    }
}

/// The old system's files that a migration may touch, by content and mode.
const OLD_TREE: &str = "find /boot /etc -type f | sort | while read -r f; do \
                        stat -c '%A %u %g %s %n' \"$f\"; sha256sum \"$f\"; done";

/// The partitions of the card.
const BOOT: u32 = 1;
const ROOT: u32 = 2;

/// How stage 2 is started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ConfigTxt,
    Tryboot,
}

impl Way {
    /// The file that the firmware starts stage 2 by.
    fn file(self) -> &'static str {
        match self {
            Way::ConfigTxt => "config.txt",
            Way::Tryboot => "tryboot.txt",
        }
    }
}

/// A board with the folder on its card, and what its old system's tree was before.
struct Scene {
    vm: Vm,
    way: Way,
    before: String,
}

impl Scene {
    fn set(name: &str, kind: &Kind, cfg: &Migratecfg, way: Way) -> Scene {
        let machine = kind.machine(name);
        cfg.put_on(&machine, ROOT);
        let mut vm = up(machine, way);
        vm.must(&format!(
            "cd {PLACE} && chmod 755 balena-migrate *.sh; sync"
        ));
        let before = vm.must(OLD_TREE);
        Scene { vm, way, before }
    }

    /// Runs the program with these words in the folder, and wants it to end with `code`.
    #[track_caller]
    fn run(&mut self, words: &str, code: i32) -> String {
        let said = self.vm.agent(&format!("cd {PLACE} && {words}"));
        if said.code != code {
            let why = format!("'{words}' ended with {}:\n{}", said.code, said.text);
            self.vm.give_up(&why);
        }
        said.text
    }

    /// Goes through the reboot of the old system into stage 2.
    #[track_caller]
    fn into_stage_2(self) -> Scene {
        let vm = restarted(self.vm);
        let read = format!("read {} of partition 1", self.way.file());
        assert_eq!(vm.firmware_said()[0], read);
        Scene { vm, ..self }
    }

    /// Goes through the return of stage 2, and the boot of the old system.
    #[track_caller]
    fn come_back(self) -> Scene {
        let mut vm = restarted(self.vm);
        assert_eq!(vm.firmware_said()[0], "read config.txt of partition 1");
        is_up(&mut vm, self.way);
        Scene { vm, ..self }
    }

    /// The old system runs as it was, and `undo` leaves nothing behind.
    #[track_caller]
    fn undo_leaves_the_old_system(&mut self) {
        self.run("./balena-migrate undo", 0);
        assert_same_tree(&self.before, &self.vm.must(OLD_TREE));
        let status = self.run("./balena-migrate status", 0);
        assert!(status.contains("No migration"), "after undo: {status}");
        self.vm
            .must("test ! -e /balena-migrate.keep -a ! -e /var/lib/balena-migrate");
    }
}

/// Waits for the handing over to the firmware, and what that starts.
#[track_caller]
fn restarted(mut vm: Vm) -> Vm {
    vm.wait_reboot();
    vm.wait_off().start()
}

fn up(machine: Machine, way: Way) -> Vm {
    let mut vm = machine.start();
    is_up(&mut vm, way);
    vm
}

fn is_up(vm: &mut Vm, way: Way) {
    vm.wait_agent();
    if way == Way::Tryboot {
        // The kernel of the board's makers has it; that of the bench passes the argument on all the same.
        vm.must(": > /dev/vcio");
    }
}

/// The board becomes a balenaOS device, with all that it is to have and every byte of the image that nobody
/// needed to change.
fn migrates(name: &str, kind: &Kind, way: Way) {
    let image = kind.image();
    let cfg = kind.folder().backing_up();
    let start = Instant::now();
    let mut scene = Scene::set(name, kind, &cfg, way);
    let row = kind.row(&mut scene, start);
    let said = scene.run(&format!("{RUN} -r 3"), 0);
    assert!(said.contains(way.file()), "{said}");
    let mut vm = scene.into_stage_2().vm;
    vm.wait_for("balena-migrate, stage 2");
    becomes_a_balenaos_device(vm, &image, &cfg);
    row.add("migrated");
}

/// Stage 2 goes to its end, and the new system finds all that it is to have.
#[track_caller]
fn becomes_a_balenaos_device(mut vm: Vm, image: &OsImage, cfg: &Migratecfg) {
    vm.wait_reboot();
    let machine = vm.wait_off();
    for (number, sha256) in image.partition_sha256() {
        // Files were put into resin-boot and resin-data; 4 is the extended partition around both.
        if matches!(number, 2 | 3 | 5) {
            let found = machine.disk().partition_sha256(number);
            assert_eq!(found, sha256, "partition {number} differs");
        }
    }
    let mut vm = machine.start();
    vm.wait_for("NEWOS: done");
    let report = vm.console();
    for line in [
        format!("NEWOS: config.json {}", cfg.config_json_sha256()),
        "NEWOS: keyfile resin-wifi-01 ".to_owned(),
        "NEWOS: keyfile resin-wifi-02 ".to_owned(),
        "NEWOS: fingerprint ok ".to_owned(),
        " data/greeting ".to_owned(),
        "NEWOS: log migrate.log ".to_owned(),
    ] {
        assert!(
            report.contains(&line),
            "the new system does not say '{line}'"
        );
    }
    vm.wait_off();
}

#[test]
fn a_64_bit_board_by_config_txt() {
    migrates("pi-config-txt", &PI_3_64, Way::ConfigTxt);
}

#[test]
#[ignore = "long: a board starts three times"]
fn a_64_bit_board_by_tryboot() {
    migrates("pi-tryboot", &PI_3_64, Way::Tryboot);
}

#[test]
#[ignore = "long: a machine and an executable of its own"]
fn a_32_bit_board_by_config_txt() {
    migrates("pi-32-bits", &PI_2_32, Way::ConfigTxt);
}

/// Power is lost while the card is overwritten: what is behind the new system starts stage 2 again, with the
/// files for the new system, and the flash goes on.
#[test]
#[ignore = "long: a board starts four times"]
fn a_power_cut_in_the_flash() {
    let (kind, way) = (&PI_3_64, Way::Tryboot);
    let image = kind.image();
    let cfg = kind.folder().backing_up();
    let start = Instant::now();
    let mut scene = Scene::set("pi-flash-cut", kind, &cfg, way);
    let row = kind.row(&mut scene, start);
    let said = scene.run("./balena-migrate plan", 0);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert!(words.join(" ").contains("or the flash goes on"), "{said}");
    scene.run(&format!("{RUN} -r 3"), 0);
    let mut vm = scene.into_stage_2().vm;
    vm.wait_for("writing the image:");
    let mut vm = vm.power_cut().start();
    assert_eq!(vm.firmware_said()[0], "read config.txt of partition 1");
    vm.wait_for("A flash of this disk was cut off");
    becomes_a_balenaos_device(vm, &image, &cfg);
    row.add("power cut in the flash: migrated");
}

/// A rehearsal comes back, and says that it did.
fn rehearses(name: &str, way: Way) {
    let start = Instant::now();
    let mut scene = Scene::set(name, &PI_3_64, &PI_3_64.folder(), way);
    let row = PI_3_64.row(&mut scene, start);
    scene.run(&format!("{RUN} --pretend -r 3"), 0);
    let mut scene = scene.into_stage_2().come_back();
    let status = scene.run("./balena-migrate status", 0);
    assert!(status.contains("rehearsal succeeded"), "status: {status}");
    scene.undo_leaves_the_old_system();
    row.add("rehearsed, came back, undone without a trace");
}

#[test]
#[ignore = "long: a board starts three times"]
fn a_rehearsal_by_config_txt() {
    rehearses("pi-rehearsal", Way::ConfigTxt);
}

#[test]
#[ignore = "long: a board starts three times"]
fn a_rehearsal_by_tryboot() {
    rehearses("pi-rehearsal-tryboot", Way::Tryboot);
}

/// An image that is damaged after stage 1 has looked at it is never written, and config.txt is back before
/// the old system starts: without that, stage 2 would start for ever.
#[test]
#[ignore = "long: a board starts three times"]
fn a_payload_damaged_between_the_stages_comes_back_with_the_reason() {
    let image = PI_3_64.image();
    let cfg = PI_3_64.folder();
    let start = Instant::now();
    let mut scene = Scene::set("pi-damaged-payload", &PI_3_64, &cfg, Way::ConfigTxt);
    let row = PI_3_64.row(&mut scene, start);
    let before = scene.vm.must("cat /boot/firmware/config.txt");
    scene.run(RUN, 0);
    let middle = image.gz_bytes() / 2;
    scene.vm.must(&format!(
        "kept=$(ls /balena-migrate.keep/*/payload.* {PLACE}/balena.img.gz | head -n 1) && \
         printf x | dd of=$kept bs=1 seek={middle} conv=notrunc && sync"
    ));
    // By its path: BusyBox's shell takes BusyBox's own, which is for its own init.
    scene.vm.begin_on_console("/sbin/reboot");
    let mut scene = scene.into_stage_2().come_back();
    assert_eq!(scene.vm.must("cat /boot/firmware/config.txt"), before);
    let status = scene.run("./balena-migrate status", 0);
    assert!(
        status.contains("before anything was written"),
        "status: {status}"
    );
    assert!(
        status.contains("the image"),
        "status does not name the file: {status}"
    );
    scene.undo_leaves_the_old_system();
    row.add("damaged image: the old system, undone without a trace");
}

/// Power is lost in stage 2 before the first write: the old system boots.
fn survives_a_power_cut(name: &str, way: Way) {
    let start = Instant::now();
    let mut scene = Scene::set(name, &PI_3_64, &PI_3_64.folder(), way);
    let row = PI_3_64.row(&mut scene, start);
    scene.run(&format!("{RUN} -r 3"), 0);
    let mut scene = scene.into_stage_2();
    scene.vm.wait_for("secure");
    let mut vm = scene.vm.power_cut().start();
    assert_eq!(vm.firmware_said()[0], "read config.txt of partition 1");
    is_up(&mut vm, way);
    let mut scene = Scene { vm, ..scene };
    let status = scene.run("./balena-migrate status", 0);
    assert!(status.contains("power was lost"), "status: {status}");
    scene.undo_leaves_the_old_system();
    row.add("power cut before the first write: the old system, undone without a trace");
}

#[test]
#[ignore = "long: a board starts three times"]
fn a_power_cut_before_the_first_write_by_config_txt() {
    survives_a_power_cut("pi-power-cut", Way::ConfigTxt);
}

#[test]
#[ignore = "long: a board starts three times"]
fn a_power_cut_before_the_first_write_by_tryboot() {
    survives_a_power_cut("pi-power-cut-tryboot", Way::Tryboot);
}

/// A boot that is not asked for by name does not start stage 2 by tryboot.txt: the power was lost before.
#[test]
#[ignore = "long: a board starts twice"]
fn a_power_cut_after_arming_starts_the_old_system_by_tryboot() {
    let start = Instant::now();
    let mut scene = Scene::set("pi-not-asked", &PI_3_64, &PI_3_64.folder(), Way::Tryboot);
    let row = PI_3_64.row(&mut scene, start);
    scene.run(RUN, 0);
    let mut vm = scene.vm.power_cut().start();
    is_up(&mut vm, Way::Tryboot);
    let mut scene = Scene { vm, ..scene };
    let status = scene.run("./balena-migrate status", 0);
    assert!(
        status.contains("stage 2 was not started"),
        "status: {status}"
    );
    scene.undo_leaves_the_old_system();
    row.add("power cut after arming: the old system, undone without a trace");
}

/// The files of the boot partition are everybody's to read: no secret is among them.
#[test]
#[ignore = "long: a board of its own"]
fn the_boot_partition_has_no_secrets() {
    let mut scene = Scene::set("pi-secrets", &PI_3_64, &PI_3_64.folder(), Way::ConfigTxt);
    scene.run(RUN, 0);
    let modes = scene
        .vm
        .must("stat -c %a:%u /var/lib/balena-migrate/install-*");
    assert_eq!(modes, "600:0\n600:0\n600:0\n");
    let machine = scene.vm.power_cut();
    let boot = machine.disk().partition(BOOT);
    let packed = machine.disk().fat_file(BOOT, "balena-migrate.img");
    for bytes in [
        machine.disk().bytes(boot.start, boot.size),
        unpacked(&machine, &packed.expect("the initramfs is there")),
    ] {
        for secret in [
            "correct horse battery",
            "3f2a1c0d9e8b7a6f",
            "not-a-real-key",
        ] {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "on the boot partition: {secret}");
        }
    }
}

/// An initramfs without its compression.
fn unpacked(machine: &Machine, packed: &[u8]) -> Vec<u8> {
    let path = machine.dir().join("packed");
    std::fs::write(&path, packed).expect("writing the initramfs");
    let script =
        "for tool in zstd xz gzip; do $tool -dc < \"$0\" 2> /dev/null && exit; done; exit 1";
    tool::run_bytes(Command::new("sh").args(["-c", script]).arg(&path))
}
