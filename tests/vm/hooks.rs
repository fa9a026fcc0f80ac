//! The initramfs by a tool of the distribution (INITRAMFS): it brings up the root and starts stage 2,
//! which then does all that it does without the tool.

use crate::harness::board::Board;
use crate::harness::guest::{Guest, Root, Tree};
use crate::harness::matrix::Row;
use crate::harness::outcome::{NewSystem, Outcome};
use crate::harness::{Machine, Migratecfg, OsImage, Vm};
use crate::scenarios::{RUN, Scene};

/// What says that the tool's initramfs has mounted the root before stage 2 began.
const INITRAMFS_TOOLS: &str = "Begin: Mounting root file system";
const DRACUT: &str = "sysroot.mount";

/// For the table.
fn row(scene: &mut Scene, tool: &str) -> Row {
    scene.row(&format!("Debian 12, INITRAMFS={tool}"), &OsImage::get())
}

fn folder(tool: &str) -> Migratecfg {
    Migratecfg::new(&OsImage::get()).setting("INITRAMFS", tool)
}

/// Debian 12 with dracut, as Fedora sets it: with the drivers of this machine only.
fn dracut_guest(name: &str) -> Vm {
    let guest = Guest {
        tree: Tree::Dracut,
        root: Root::Mbr,
    };
    let mut vm = Machine::of(name, guest, Board::default()).start();
    vm.wait_agent();
    vm.must("echo 'hostonly=yes' > /etc/dracut.conf.d/bench.conf");
    vm
}

/// Runs stage 1, and goes on until stage 2 begins behind what the tool does.
#[track_caller]
fn into_stage_2(scene: &mut Scene, words: &str, mounts: &str) {
    scene.run(&format!("{RUN} {words} -r 3"), 0);
    scene.vm.wait_reboot();
    scene.vm.wait_for(mounts);
    scene.vm.wait_for("balena-migrate, stage 2");
}

#[track_caller]
fn ends_in_the_new_system(vm: Vm, cfg: &Migratecfg) {
    let (_, outcome) = vm.outcome(&NewSystem::ordinary(cfg), true);
    assert_eq!(outcome, Outcome::ResumedToTheEnd);
}

/// An undo also leaves nothing of the tool's work.
#[track_caller]
fn undo_leaves_nothing(scene: &mut Scene) {
    scene.undo_leaves_the_old_system();
    let left = "find / -xdev -name '*balena-migrate*' -not -path '/root/*' -not -path '/proc/*'; \
                ls -A /var/tmp";
    let left = scene.vm.must(left);
    assert!(
        !left.contains("balena") && !left.contains("mkinitramfs"),
        "{left}"
    );
}

#[test]
fn initramfs_tools_start_stage_2() {
    let cfg = folder("initramfs-tools");
    let mut scene = Scene::set("hooks-initramfs-tools", &cfg);
    let row = row(&mut scene, "initramfs-tools");
    into_stage_2(&mut scene, "", INITRAMFS_TOOLS);
    ends_in_the_new_system(scene.vm, &cfg);
    row.add("migrated");
}

#[test]
#[ignore = "long: two boots through the tool's initramfs"]
fn a_rehearsal_by_initramfs_tools_comes_back() {
    let mut scene = Scene::set("hooks-rehearsal", &folder("initramfs-tools"));
    let row = row(&mut scene, "initramfs-tools");
    into_stage_2(&mut scene, "--pretend", INITRAMFS_TOOLS);
    scene.vm.wait_reboot();
    scene.vm.wait_agent();
    let status = scene.run("./balena-migrate status", 0);
    assert!(status.contains("rehearsal succeeded"), "status: {status}");
    undo_leaves_nothing(&mut scene);
    row.add("rehearsed, came back, undone without a trace");
}

/// The tool's initramfs can't mount a root that is overwritten: stage 2 starts without it.
#[test]
#[ignore = "long: the flash takes two runs"]
fn a_power_cut_in_the_flash_by_initramfs_tools_goes_on() {
    let cfg = folder("initramfs-tools");
    let mut scene = Scene::set("hooks-power-cut", &cfg);
    let row = row(&mut scene, "initramfs-tools");
    into_stage_2(&mut scene, "", INITRAMFS_TOOLS);
    scene.vm.wait_for("== overwrite: ");
    let mut vm = scene.vm.power_cut().start();
    vm.wait_for("A flash of this disk was cut off");
    ends_in_the_new_system(vm, &cfg);
    row.add("power cut in the flash: migrated");
}

#[test]
#[ignore = "long: a machine of its own"]
fn dracut_starts_stage_2() {
    let cfg = folder("dracut");
    let mut scene = Scene::on(dracut_guest("hooks-dracut"), &cfg);
    let row = row(&mut scene, "dracut");
    into_stage_2(&mut scene, "", DRACUT);
    ends_in_the_new_system(scene.vm, &cfg);
    row.add("migrated");
}

#[test]
#[ignore = "long: a machine of its own"]
fn a_payload_damaged_before_dracut_starts_stage_2_comes_back() {
    let image = OsImage::get();
    let mut scene = Scene::on(dracut_guest("hooks-dracut-damaged"), &folder("dracut"));
    let row = row(&mut scene, "dracut");
    scene.run(RUN, 0);
    scene.damage_payload(&image);
    scene.vm.begin_on_console("systemctl reboot");
    scene.come_back();
    let status = scene.run("./balena-migrate status", 0);
    assert!(
        status.contains("before anything was written"),
        "status: {status}"
    );
    undo_leaves_nothing(&mut scene);
    row.add("damaged image: the old system, undone without a trace");
}
