//! The scenarios: what people do with balena-migrate, and what happens to them.
//!
//! Wherever the disk has not been written to, the old system has to come back as it was, and
//! `status` has to tell what happened.

use std::time::Instant;

use crate::harness::guest::Root;
use crate::harness::matrix::Row;
use crate::harness::migratecfg::{PLACE, UUID};
use crate::harness::{Disk, Machine, Migratecfg, OsImage, Vm, cache};

/// The usual guest, for the table.
const USUAL: &str = "Debian 12";

/// Beginning of a stage-1 run's command.
pub const RUN: &str = "./balena-migrate --yes";

/// The old system's files and folders that a migration may touch, by content, mode and owner.
pub const OLD_TREE: &str = "t='/boot /etc /var/lib -path /var/lib/systemd -prune -o'; \
                        find $t \\( -type d -printf '%M %u %g %p\\n' \\) -o \
                        -printf '%M %u %g %s %p %l\\n' | sort; \
                        find $t -type f -print0 | sort -z | xargs -0 sha256sum";

/// A guest with the folder on it, the folder, and what the old system's tree was before.
pub struct Scene {
    pub vm: Vm,
    before: String,
    since: Instant,
}

impl Scene {
    pub fn set(name: &str, cfg: &Migratecfg) -> Scene {
        let since = Instant::now();
        let scene = Scene::on(Machine::running_guest(name).start(), cfg);
        Scene { since, ..scene }
    }

    /// On another machine that is up.
    pub fn on(mut vm: Vm, cfg: &Migratecfg) -> Scene {
        cfg.send_to(&mut vm);
        let before = vm.must(OLD_TREE);
        // A cut in the power is to lose what the program wrote and not what the bench did.
        vm.must("sync");
        let since = Instant::now();
        Scene { vm, before, since }
    }

    /// A line of the table: the usual guest, but for what `machine` says.
    pub fn row(&mut self, machine: &str, image: &OsImage) -> Row {
        let (vm, since) = (&mut self.vm, self.since);
        Row::of(vm, machine, "BIOS", Root::Mbr, image.slug(), since)
    }

    /// Runs the program with these words in the folder, and wants it to end with `code`.
    #[track_caller]
    pub fn run(&mut self, words: &str, code: i32) -> String {
        let said = self.vm.agent(&format!("cd {PLACE} && {words}"));
        if said.code != code {
            let why = format!(
                "'{words}' ended with {} and not {code}:\n{}",
                said.code, said.text
            );
            self.vm.give_up(&why);
        }
        said.text
    }

    /// Changes the image where it waits: one byte, in the middle, with the file's size and place as they
    /// were.
    #[track_caller]
    pub fn damage_payload(&mut self, image: &OsImage) {
        let middle = image.gz_bytes() / 2;
        self.vm.must(&format!(
            "kept=$(ls /balena-migrate.keep/*/payload.* {PLACE}/balena.img.gz | head -n 1) && \
             printf x | dd of=$kept bs=1 seek={middle} conv=notrunc && sync"
        ));
    }

    /// Goes through the reboot into stage 2, the return, and the boot of the old system.
    #[track_caller]
    pub fn come_back(&mut self) {
        self.vm.wait_reboot();
        self.vm.wait_reboot();
        self.vm.wait_agent();
    }

    /// Takes the power away, gives it back, and waits for the old system.
    #[track_caller]
    fn cut_and_boot(self) -> Scene {
        let mut vm = self.vm.power_cut().start();
        vm.wait_agent();
        Scene { vm, ..self }
    }

    /// The old system runs, `undo` leaves nothing behind, and the next boot is an ordinary one.
    #[track_caller]
    pub fn undo_leaves_the_old_system(&mut self) {
        self.run("./balena-migrate undo", 0);
        let after = self.vm.must(OLD_TREE);
        assert_same_tree(&self.before, &after);
        let status = self.run("./balena-migrate status", 0);
        assert!(status.contains("No migration"), "after undo: {status}");
        self.vm.must("test ! -e /balena-migrate.keep");
        let grub = self
            .vm
            .must("grub-editenv /boot/grub/grubenv list; ls /boot/grub");
        assert!(!grub.contains("next_entry=balena"), "still armed: {grub}");
        assert!(
            !grub.contains("custom.cfg"),
            "the menu entry is still there: {grub}"
        );
    }
}

#[track_caller]
pub fn assert_same_tree(before: &str, after: &str) {
    let lost: Vec<&str> = before.lines().filter(|l| !after.contains(l)).collect();
    let new: Vec<&str> = after.lines().filter(|l| !before.contains(l)).collect();
    assert!(
        before == after,
        "the old system's files differ\nlost: {lost:#?}\nnew: {new:#?}"
    );
}

/// A Debian machine becomes a balenaOS device that has its config.json, its networks, its backup
/// and the log, and every byte of the image that nobody needed to change.
#[test]
fn the_whole_road() {
    let image = OsImage::get();
    let cfg = Migratecfg::new(&image).backing_up();
    let mut scene = Scene::set("whole-road", &cfg);
    let row = scene.row(USUAL, &image);
    scene.run(&format!("{RUN} -r 3"), 0);
    let mut vm = scene.vm;
    vm.wait_reboot();
    // Only now is this reboot behind the machine.
    vm.wait_for("balena-migrate, stage 2");
    // Held between stage 2 and the new system, the disk shows what exactly was written.
    vm.stop_at_reboot();
    vm.wait_for("overwrite");
    vm.screenshot("stage-2");
    let machine = vm.wait_off();
    let disk = machine.disk();
    for (number, sha256) in image.partition_sha256() {
        // Files were put into resin-boot and resin-data; 4 is the extended partition around both.
        if matches!(number, 2 | 3 | 5) {
            assert_eq!(
                disk.partition_sha256(number),
                sha256,
                "partition {number} differs"
            );
        }
    }
    let first = image.disk().bytes(0, 1 << 20);
    assert!(
        disk.bytes(0, 1 << 20) == first,
        "the first MiB differs from the image's"
    );

    let mut vm = machine.start();
    vm.wait_for("NEWOS: booted");
    vm.wait_for("NEWOS: done");
    let report = vm.console();
    let machine = vm.wait_off();
    let disk = machine.disk();

    let has = |line: &str| {
        assert!(
            report.contains(line),
            "the new system does not say '{line}'"
        )
    };
    has(&format!("NEWOS: config.json {}", cfg.config_json_sha256()));
    has(&format!("NEWOS: uuid {UUID}"));
    has("NEWOS: keyfile resin-wifi-01 ");
    has("NEWOS: keyfile resin-wifi-02 ");
    has("NEWOS: fingerprint ok 9");
    // In which order tar found them is the old file system's affair.
    for entry in [" data/ ", " data/blob ", " data/greeting "] {
        has(entry);
    }
    has("NEWOS: log migrate.log ");

    let keyfiles = [1, 2].map(|n| {
        let path = format!("/system-connections/resin-wifi-0{n}");
        let bytes = disk.fat_file(1, &path).expect("the new system listed it");
        String::from_utf8(bytes).expect("a keyfile is text")
    });
    for (ssid, psk) in [
        ("Harbour Office", "correct horse battery"),
        (
            "workshop",
            "3f2a1c0d9e8b7a6f5e4d3c2b1a09f8e7d6c5b4a3928170f1e2d3c4b5a6978812",
        ),
    ] {
        let one = keyfiles
            .iter()
            .find(|k| k.contains(&format!("ssid={ssid}\n")));
        let one = one.unwrap_or_else(|| panic!("no keyfile for {ssid}: {keyfiles:?}"));
        assert!(
            one.contains(&format!("psk={psk}\n")),
            "another psk for {ssid}"
        );
    }
    row.add("migrated");
}

/// A rehearsal goes through stage 2 up to the first write, comes back, and says that it did.
#[test]
fn a_rehearsal_comes_back_and_leaves_its_log() {
    let cfg = Migratecfg::new(&OsImage::get())
        .setting("LOG_DRIVE", "/dev/vdb")
        .setting("MAX_BADBLOCKS", "0");
    let mut scene = Scene::set("rehearsal", &cfg);
    let row = scene.row(USUAL, &OsImage::get());
    let log_disk = scene.vm.plug_ext4("LOG", 16);
    scene.run(&format!("{RUN} --pretend -r 3"), 0);
    scene.come_back();
    let status = scene.run("./balena-migrate status", 0);
    assert!(status.contains("rehearsal succeeded"), "status: {status}");
    let log = scene.vm.must("cat /var/lib/balena-migrate/stage2.log");
    assert!(!log.is_empty(), "the log is empty");
    scene.undo_leaves_the_old_system();
    // The path of the disk ends with its machine.
    let _machine = scene.vm.power_cut();
    let kept = Disk::new(&log_disk)
        .whole_ext4_file("/migrate.log")
        .expect("a log on LOG_DRIVE");
    let kept = String::from_utf8_lossy(&kept);
    assert!(
        kept.contains("let_go"),
        "the log on LOG_DRIVE stops early: {kept}"
    );
    row.add("rehearsed, came back, undone without a trace");
}

/// An image that is damaged after stage 1 has looked at it is never written.
#[test]
fn a_payload_damaged_between_the_stages_comes_back_with_the_reason() {
    let image = OsImage::get();
    let cfg = Migratecfg::new(&image);
    let mut scene = Scene::set("damaged-payload", &cfg);
    let row = scene.row(USUAL, &image);
    scene.run(RUN, 0);
    scene.damage_payload(&image);
    scene.vm.begin_on_console("systemctl reboot");
    scene.come_back();
    let status = scene.run("./balena-migrate status", 0);
    assert!(
        status.contains("before anything was written"),
        "status: {status}"
    );
    assert!(
        status.contains("the image"),
        "status does not name the file: {status}"
    );
    scene.vm.must("test -s /var/lib/balena-migrate/stage2.log");
    scene.undo_leaves_the_old_system();
    row.add("damaged image: the old system, undone without a trace");
}

/// Power is lost in the middle of stage 1: the old system boots, and `undo` cleans up.
#[test]
fn a_power_cut_in_stage_1_loses_nothing() {
    let cfg = Migratecfg::new(&OsImage::get());
    let mut scene = Scene::set("cut-in-stage-1", &cfg);
    let row = scene.row(USUAL, &OsImage::get());
    scene.vm.begin_on_console(&format!("cd {PLACE} && {RUN}"));
    scene.vm.wait_for("step 3 of ");
    let mut scene = scene.cut_and_boot();
    let status = scene.run("./balena-migrate status", 0);
    assert!(status.contains("cut off"), "status: {status}");
    scene.undo_leaves_the_old_system();
    row.add("power cut in stage 1: the old system, undone without a trace");
}

/// Power is lost as soon as stage 1 says that it is done: the order is on the disk, and the next
/// boot carries it out.
#[test]
fn a_power_cut_after_arming_goes_on_with_stage_2() {
    let cfg = Migratecfg::new(&OsImage::get()).setting("NO_FLASH", "TRUE");
    let mut scene = Scene::set("cut-after-arming", &cfg);
    let row = scene.row(USUAL, &OsImage::get());
    scene.run(RUN, 0);
    let mut vm = scene.vm.power_cut().start();
    vm.wait_reboot();
    vm.wait_agent();
    let mut scene = Scene { vm, ..scene };
    let status = scene.run("./balena-migrate status", 0);
    assert!(status.contains("rehearsal succeeded"), "status: {status}");
    scene.undo_leaves_the_old_system();
    row.add("power cut after arming: stage 2; rehearsed, undone without a trace");
}

/// Power is lost in stage 2 before the first write: the old system boots, and says what it knows.
#[test]
fn a_power_cut_in_stage_2_before_the_first_write_comes_back() {
    let cfg = Migratecfg::new(&OsImage::get());
    let mut scene = Scene::set("cut-in-stage-2", &cfg);
    let row = scene.row(USUAL, &OsImage::get());
    scene.run(&format!("{RUN} -r 3"), 0);
    scene.vm.wait_reboot();
    scene.vm.wait_for("secure");
    let mut scene = scene.cut_and_boot();
    assert_eq!(scene.vm.must("hostname").trim(), "old-debian");
    let status = scene.run("./balena-migrate status", 0);
    assert!(status.contains("power was lost"), "status: {status}");
    scene.undo_leaves_the_old_system();
    row.add("power cut before the first write: the old system, undone without a trace");
}

/// The initramfs is gone when GRUB looks for it: nobody is there to choose from a menu, so GRUB has
/// to go back to the old system by itself.
#[test]
fn an_initramfs_that_vanished_brings_the_old_system_back() {
    let cfg = Migratecfg::new(&OsImage::get());
    let mut scene = Scene::set("no-initramfs", &cfg);
    let row = scene.row(USUAL, &OsImage::get());
    scene.run(RUN, 0);
    scene.vm.must("rm /boot/balena-migrate.img && sync");
    scene.vm.begin_on_console("systemctl reboot");
    scene.vm.wait_reboot();
    scene.vm.wait_for("stage 2 could not be started");
    scene.vm.wait_agent();
    let status = scene.run("./balena-migrate status", 0);
    assert!(
        status.contains("stage 2 has not reached this disk")
            && status.contains("/boot/balena-migrate.img is gone"),
        "status does not tell: {status}"
    );
    scene.undo_leaves_the_old_system();
    row.add("no initramfs: the old system, undone without a trace");
}

/// `undo` after arming leaves the tree as it was, and the next boot is an ordinary one.
#[test]
fn undo_after_arming_leaves_the_tree_as_it_was() {
    let cfg = Migratecfg::new(&OsImage::get());
    let mut scene = Scene::set("undo", &cfg);
    scene.run(RUN, 0);
    let status = scene.run("./balena-migrate status", 0);
    assert!(status.contains("armed"), "status: {status}");
    let again = scene.run(RUN, 3);
    assert!(again.contains("balena-migrate undo"), "again: {again}");
    let armed = scene.vm.must(OLD_TREE);
    assert!(
        armed != scene.before,
        "a run that changes nothing cannot be armed"
    );
    scene.undo_leaves_the_old_system();
}

/// Power is lost as soon as `undo` says that it is done: GRUB, which replays no journal of a file system,
/// has to see it all the same.
#[test]
fn a_power_cut_after_an_undo_boots_the_old_system() {
    let mut scene = Scene::set("cut-after-undo", &Migratecfg::new(&OsImage::get()));
    let row = scene.row(USUAL, &OsImage::get());
    scene.run(RUN, 0);
    scene.run("./balena-migrate undo", 0);
    let mut scene = scene.cut_and_boot();
    let console = scene.vm.console();
    assert!(!console.contains("balena-migrate, stage 2"), "{console}");
    scene.undo_leaves_the_old_system();
    row.add("power cut after an undo: the old system");
}

/// A signal in the middle of stage 1 takes back what was done until then.
#[test]
fn an_interrupted_run_takes_everything_back() {
    // The program is the script's parent: whoever interrupts it could not hit a better moment.
    let cfg = Migratecfg::new(&OsImage::get())
        .backup_script("tar -czf \"$1\" -C /home/user data && kill -INT $PPID");
    let mut scene = Scene::set("interrupted", &cfg);
    let out = scene.run(RUN, 1);
    assert!(out.contains("interrupted by SIGINT"), "it said: {out}");
    assert_same_tree(&scene.before, &scene.vm.must(OLD_TREE));
    scene.vm.must(&format!(
        "test ! -e {PLACE}/backup.tgz -a ! -e /var/lib/balena-migrate"
    ));
}

/// With somebody at the terminal it shows what it will do, asks once, and takes no for an answer.
#[test]
fn no_is_an_answer() {
    let cfg = Migratecfg::new(&OsImage::get());
    let mut scene = Scene::set("no", &cfg);
    let said = scene.run(
        "stty cols 80 2>/dev/null; echo n | script -qec ./balena-migrate /dev/null",
        2,
    );
    assert!(
        said.contains("EVERYTHING on this disk is overwritten"),
        "{said}"
    );
    assert!(said.contains("Go on? [y/N]"), "{said}");
    assert!(said.contains("Nothing was changed."), "{said}");
    assert_same_tree(&scene.before, &scene.vm.must(OLD_TREE));
    let without_terminal = scene.run("./balena-migrate", 2);
    assert!(without_terminal.contains("--yes"), "{without_terminal}");
}

/// A machine without the memory for stage 2 is refused before anything is done.
#[test]
fn too_little_memory_is_refused_in_stage_1() {
    let cfg = Migratecfg::new(&OsImage::get()).setting("MEM_MIN_FREE_S1", "1200000");
    let mut scene = Scene::set("little-memory", &cfg);
    let said = scene.run(RUN, 3);
    assert!(said.contains("memory"), "it does not say why: {said}");
    assert_same_tree(&scene.before, &scene.vm.must(OLD_TREE));
    scene.vm.must("test ! -e /var/lib/balena-migrate");
}

/// What `facts` prints can be put into a bug report: it has no secrets.
#[test]
fn facts_have_no_secrets() {
    let cfg = Migratecfg::new(&OsImage::get());
    let mut scene = Scene::set("facts", &cfg);
    let facts = scene.run("./balena-migrate facts", 0);
    // The fixture tests/hosts/debian-12-bios.json is a copy of this.
    std::fs::write(cache::subdir("logs").join("facts.json"), &facts).expect("keeping the facts");
    let parsed: serde_json::Value = serde_json::from_str(&facts).expect("facts are JSON");
    assert!(parsed.is_object());
    assert!(
        facts.contains("old-debian") || facts.contains("vda"),
        "not this machine: {facts}"
    );
    for secret in [
        "correct horse battery",
        "3f2a1c0d9e8b7a6f",
        "not-a-real-key",
    ] {
        assert!(
            !facts.contains(secret),
            "a secret is in the facts: {secret}"
        );
    }
}
