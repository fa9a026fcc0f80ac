//! Images without a boot loader, which get GRUB from stage 2 (GRUB_INSTALL).

use std::fs;
use std::time::Instant;

use crate::harness::board::Board;
use crate::harness::guest::{Guest, Root, Tree};
use crate::harness::matrix::Row;
use crate::harness::migratecfg::PLACE;
use crate::harness::outcome::{NewSystem, Outcome};
use crate::harness::{Machine, Migratecfg, OsImage};
use crate::scenarios::{RUN, Scene};

/// For the table.
const NAME: &str = "Debian 12, image without a boot loader";

/// A grub.cfg as extracted from a flasher image.
const GRUB_CFG: &str = "\
serial --unit=0 --speed=115200
terminal_output console serial
search --no-floppy --label --set=root resin-rootA
echo 'GRUB by GRUB_INSTALL'
linux /boot/bzImage console=tty0 console=ttyS0,115200 no_timer_check panic=30 quiet
initrd /boot/initrd.gz
boot
";

fn cfg() -> Migratecfg {
    Migratecfg::new(&OsImage::without_loader())
        .setting("GRUB_INSTALL", "TRUE")
        .setting("GRUB_CFG", "grub.cfg")
        .file("grub.cfg", GRUB_CFG.as_bytes())
}

/// The new system of such a folder, whose resin-boot has none of the files of GRUB in its fingerprint.
fn wanted(cfg: &Migratecfg) -> NewSystem {
    NewSystem::of(vec![
        "GRUB by GRUB_INSTALL".to_owned(),
        format!("NEWOS: config.json {}", cfg.config_json_sha256()),
        "NEWOS: keyfile resin-wifi-02 ".to_owned(),
        "NEWOS: fingerprint ok 8".to_owned(),
        "NEWOS: log migrate.log ".to_owned(),
    ])
}

/// By the images of the flasher.
#[test]
fn the_boot_images_of_the_flasher_start_the_new_system() {
    let kit = Tree::Plain.kit();
    let image = |name: &str| fs::read(kit.join(name)).expect("the kit has GRUB's images");
    let cfg = cfg()
        .setting("GRUB_BOOT_IMG", "boot.img")
        .setting("GRUB_CORE_IMG", "core.img")
        .file("boot.img", &image("boot.img"))
        .file("core.img", &image("core.img"));
    let mut scene = Scene::set("grub-flash", &cfg);
    let name = format!("{NAME}, GRUB of the flasher");
    let row = scene.row(&name, &OsImage::without_loader());
    scene.run(&format!("{RUN} -r 3"), 0);
    scene.vm.wait_for("balena-migrate, stage 2");
    let (_, outcome) = scene.vm.outcome(&wanted(&cfg), true);
    assert_eq!(outcome, Outcome::ResumedToTheEnd);
    row.add("migrated");
}

/// By the old system's own GRUB.
#[test]
#[ignore = "long: the images of the flasher are the usual way"]
fn the_grub_of_the_old_system_starts_the_new_one() {
    is_started_by_the_old_grub(Machine::guest("grub-install-bios"), "BIOS", Root::Mbr);
}

/// By the same, and the removable path of UEFI firmware.
#[test]
#[ignore = "long: a machine of its own"]
fn the_grub_of_the_old_system_starts_the_new_one_by_uefi() {
    let guest = Guest {
        tree: Tree::Standard,
        root: Root::Ext4,
    };
    let machine = Machine::of("grub-install-uefi", guest, Board::UEFI);
    is_started_by_the_old_grub(machine, "UEFI", Root::Ext4);
}

fn is_started_by_the_old_grub(machine: Machine, firmware: &str, root: Root) {
    let cfg = cfg();
    let since = Instant::now();
    let mut vm = machine.start();
    vm.wait_agent();
    let image = OsImage::without_loader().slug();
    let row = Row::of(&mut vm, NAME, firmware, root, image, since);
    cfg.send_to(&mut vm);
    vm.must(&format!("cd {PLACE} && {RUN} -r 3"));
    vm.wait_for("balena-migrate, stage 2");
    let (_, outcome) = vm.outcome(&wanted(&cfg), true);
    assert_eq!(outcome, Outcome::ResumedToTheEnd);
    row.add("migrated");
}
