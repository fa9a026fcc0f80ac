//! The machines: what each kind of x86 machine becomes.
//!
//! Every scenario ends in one of two ways: the machine is migrated, or it is refused with the
//! reason before anything is changed. Each adds a line to the table of [`Row`].

use std::time::Instant;

use crate::harness::board::{Board, Bus, Firmware};
use crate::harness::guest::{Guest, Root, Tree};
use crate::harness::matrix::Row;
use crate::harness::migratecfg::PLACE;
use crate::harness::outcome::{NewSystem, Outcome};
use crate::harness::{Machine, Migratecfg, OsImage, Vm, cache};
use crate::scenarios::{OLD_TREE, RUN, assert_same_tree};

/// A machine, and the image that it is to be overwritten with.
struct Case {
    name: &'static str,
    /// For the table.
    machine: &'static str,
    guest: Guest,
    board: Board,
    image: OsImage,
}

impl Case {
    /// Debian 12 with the standard kernel.
    fn standard(name: &'static str, machine: &'static str, root: Root, board: Board) -> Case {
        Case {
            name,
            machine,
            guest: Guest {
                tree: Tree::Standard,
                root,
            },
            board,
            image: OsImage::with_standard_kernel(),
        }
    }

    /// As most people have it, of another release.
    fn release(name: &'static str, machine: &'static str, tree: Tree) -> Case {
        Case {
            name,
            machine,
            guest: Guest {
                tree,
                root: Root::Mbr,
            },
            board: BIOS,
            image: OsImage::get(),
        }
    }

    fn image(self, image: OsImage) -> Case {
        Case { image, ..self }
    }

    fn machine(&self) -> Machine {
        Machine::of(self.name, self.guest, self.board)
    }

    /// The new system's files, as they have to be.
    fn facts(&self, cfg: &Migratecfg) -> NewSystem {
        // Of the ways to boot, the image's file for this firmware stays: GRUB's configuration, or that
        // and GRUB itself.
        let files = match self.board.firmware {
            Firmware::Bios => 9,
            Firmware::Uefi => 10,
        };
        let mut facts = vec![
            format!("NEWOS: config.json {}", cfg.config_json_sha256()),
            "NEWOS: keyfile resin-wifi-01 ".to_owned(),
            "NEWOS: keyfile resin-wifi-02 ".to_owned(),
            format!("NEWOS: fingerprint ok {files}"),
            "NEWOS: log migrate.log ".to_owned(),
        ];
        if self.board.firmware == Firmware::Uefi {
            // By its own entry, and not because it is the only disk.
            facts.push("\"resinOS\" from".to_owned());
        }
        NewSystem::of(facts)
    }

    fn row(&self, outcome: &str, since: Instant) {
        Row {
            machine: self.machine.to_owned(),
            firmware: match self.board.firmware {
                Firmware::Bios => "BIOS",
                Firmware::Uefi => "UEFI",
            }
            .to_owned(),
            root: self.guest.root.in_words().to_owned(),
            image: self.image.slug().to_owned(),
            outcome: outcome.to_owned(),
            took: since.elapsed(),
        }
        .add();
    }

    #[track_caller]
    fn migrates(self) {
        self.migrates_with(|machine| machine, |_| PLACE.to_owned());
    }

    /// `build` changes the machine before it is switched on; `prepare` gets it running with the folder
    /// on it, and says where that is.
    #[track_caller]
    fn migrates_with(
        self,
        build: impl FnOnce(Machine) -> Machine,
        prepare: impl FnOnce(&mut Vm) -> String,
    ) {
        let cfg = Migratecfg::new(&self.image);
        let machine = build(self.machine());
        let start = Instant::now();
        let mut vm = self.up(machine, &cfg);
        let folder = prepare(&mut vm);
        vm.must(&format!("cd {folder} && {RUN} -r 3"));
        vm.wait_for("balena-migrate, stage 2");
        let (_, outcome) = vm.outcome(&self.facts(&cfg), true);
        assert_eq!(outcome, Outcome::ResumedToTheEnd);
        self.row("migrated", start);
    }

    /// The firmware starts stage 2 by `entry`, or as it has started the old system, and then the entry of
    /// the new system.
    #[track_caller]
    fn migrates_by_firmware(self, entry: Option<&str>) {
        let cfg = Migratecfg::new(&self.image);
        let vm = self.up(self.machine(), &cfg);
        self.migrates_by_firmware_on(vm, &cfg, entry);
    }

    /// The same of a machine that is up.
    #[track_caller]
    fn migrates_by_firmware_on(self, mut vm: Vm, cfg: &Migratecfg, entry: Option<&str>) {
        let start = Instant::now();
        let old = vm.wait_for(STARTS);
        vm.must(&format!("cd {PLACE} && {RUN} -r 3"));
        let line = vm.wait_for(STARTS);
        match entry {
            Some(entry) => assert!(line.contains(&format!("\"{entry}\"")), "{line}"),
            None => assert_eq!(line, old),
        }
        vm.wait_for("balena-migrate, stage 2");
        let line = vm.wait_for(STARTS);
        assert!(line.contains("\"resinOS\""), "{line}");
        let (_, outcome) = vm.outcome(&self.facts(cfg), true);
        assert_eq!(outcome, Outcome::ResumedToTheEnd);
        self.row("migrated", start);
    }

    /// Stage 1 says each of `codes` and nothing else that is an error, and changes nothing.
    #[track_caller]
    fn stage_1_refuses(self, codes: &[&str]) {
        let cfg = Migratecfg::new(&self.image);
        let machine = self.machine();
        let start = Instant::now();
        let mut vm = self.up(machine, &cfg);
        let before = vm.must(OLD_TREE);
        let said = vm.agent(&format!("cd {PLACE} && {RUN}"));
        assert_eq!(said.code, 3, "{}", said.text);
        let errors: Vec<&str> = said
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("error[")?.split_once(']'))
            .map(|(code, _)| code)
            .collect();
        assert_eq!(errors, codes, "{}", said.text);
        assert_same_tree(&before, &vm.must(OLD_TREE));
        vm.must("test ! -e /var/lib/balena-migrate");
        self.row(&format!("refused: {}", codes.join(", ")), start);
    }

    /// A rehearsal comes back, tells of it, and an undo leaves nothing.
    #[track_caller]
    fn comes_back(self) {
        let cfg = Migratecfg::new(&self.image);
        let machine = self.machine();
        let start = Instant::now();
        let mut vm = self.up(machine, &cfg);
        let before = vm.must(OLD_TREE);
        vm.must(&format!("cd {PLACE} && {RUN} --pretend -r 3"));
        vm.wait_reboot();
        vm.wait_for("balena-migrate, stage 2");
        vm.wait_reboot();
        vm.wait_agent();
        let status = vm.must(&format!("cd {PLACE} && ./balena-migrate status"));
        assert!(status.contains("rehearsal succeeded"), "status: {status}");
        vm.must(&format!("cd {PLACE} && ./balena-migrate undo"));
        vm.must(&format!("test -s {PLACE}/balena-migrate-stage2.log"));
        assert_same_tree(&before, &vm.must(OLD_TREE));
        let left = vm.must("find / -xdev -name '*balena-migrate*' -not -path '/root/*' -not -path '/proc/*'; find /boot -name '*balena*'");
        assert_eq!(left, "", "an undo has left something");
        self.row("rehearsed, undone", start);
    }

    /// The machine with the folder on it, and what it says of itself among the logs.
    #[track_caller]
    fn up(&self, machine: Machine, cfg: &Migratecfg) -> Vm {
        let mut vm = machine.start();
        vm.wait_agent();
        cfg.send_to(&mut vm);
        let facts = vm.must(&format!("cd {PLACE} && ./balena-migrate facts"));
        let path = cache::subdir("logs").join(format!("{}-facts.json", self.name));
        std::fs::write(path, facts).expect("keeping the facts");
        let plan = vm.agent(&format!("cd {PLACE} && ./balena-migrate plan"));
        let path = cache::subdir("logs").join(format!("{}-plan.txt", self.name));
        std::fs::write(path, plan.text).expect("keeping the plan");
        vm.must("sync");
        vm
    }
}

const BIOS: Board = Board {
    firmware: Firmware::Bios,
    bus: Bus::Virtio,
};

/// The bench's own: GRUB of the old guest starts by OVMF, and the firmware keeps its variables.
#[test]
#[ignore = "long: a machine of its own"]
fn a_guest_boots_by_uefi_firmware_that_keeps_its_variables() {
    let guest = Guest {
        tree: Tree::Standard,
        root: Root::Ext4,
    };
    let mut vm = Machine::of("uefi-boots", guest, Board::UEFI).start();
    vm.wait_agent();
    vm.must("test -d /sys/firmware/efi/efivars && findmnt /boot/efi");
    let cmdline = vm.must("cat /proc/cmdline");
    assert!(cmdline.contains("BOOT_IMAGE=/boot/vmlinuz-"), "{cmdline}");
    let said = vm.must(
        "efibootmgr --create --disk /dev/vda --part 2 --label bench --loader '\\EFI\\debian\\grubx64.efi'",
    );
    assert!(said.contains("bench"), "{said}");
    let mut vm = vm.power_cut().start();
    let line = vm.wait_for("BdsDxe: starting");
    assert!(line.contains("bench"), "{line}");
    vm.wait_agent();
}

/// The bench's own: both images of the tests start by OVMF.
#[test]
fn the_images_boot_by_uefi_firmware() {
    for (name, image) in [("uefi-mbr", OsImage::get()), ("uefi-gpt", OsImage::gpt())] {
        let mut vm = Machine::with_image(name, image.raw())
            .on(Board::UEFI)
            .start();
        vm.wait_for("NEWOS: booted");
        vm.wait_for("NEWOS: done");
    }
}

/// /boot on a partition of its own, on SATA.
#[test]
#[ignore = "long: a machine of its own"]
fn a_separate_boot_on_sata() {
    let sata = Board {
        bus: Bus::Sata,
        ..BIOS
    };
    Case::standard("boot-sata", "Debian 12, SATA", Root::Boot, sata).migrates();
}

/// / in a logical volume, on SCSI. The image waits in the volume's part of the disk.
#[test]
#[ignore = "long: a machine of its own"]
fn a_logical_volume_on_scsi() {
    let scsi = Board {
        bus: Bus::Scsi,
        ..BIOS
    };
    Case::standard("lvm-scsi", "Debian 12, SCSI", Root::Lvm, scsi).migrates();
}

/// Stage 2 can't mount / there: it leaves word on /boot.
#[test]
#[ignore = "long: a machine of its own"]
fn a_rehearsal_on_a_logical_volume() {
    Case::standard("lvm-rehearsal", "Debian 12", Root::Lvm, BIOS).comes_back();
}

/// NVMe, behind a smaller disk.
#[test]
#[ignore = "long: a machine of its own"]
fn nvme_behind_a_smaller_disk() {
    let nvme = Board {
        bus: Bus::Nvme,
        ..BIOS
    };
    let name = "Debian 12, NVMe behind a smaller disk";
    let case = Case::standard("nvme", name, Root::Ext4, nvme);
    case.migrates_with(Machine::behind_a_small_disk, |_| PLACE.to_owned());
}

/// Nobody can tell where on the disk a file in a thin volume is, and stage 2 does not mount it: the
/// image waits in /boot, which has room for a small one.
#[test]
#[ignore = "long: a machine of its own"]
fn a_thin_volume_with_the_image_in_boot() {
    Case::standard("thin", "Debian 12", Root::Thin, BIOS).migrates();
}

/// With the folder on a stick it waits there.
#[test]
#[ignore = "long: a machine of its own"]
fn a_thin_volume_with_the_image_on_a_stick() {
    let name = "Debian 12, image on a stick";
    let case = Case::standard("thin-stick", name, Root::Thin, BIOS);
    case.migrates_with(|machine| machine, copy_to_a_stick);
}

/// Puts the folder on a stick, and returns its path there.
fn copy_to_a_stick(vm: &mut Vm) -> String {
    vm.plug_ext4("STICK", 256);
    vm.must(&format!(
        "mkdir -p /mnt/stick && mount LABEL=STICK /mnt/stick && cp -r {PLACE} /mnt/stick/"
    ));
    "/mnt/stick/migratecfg".to_owned()
}

/// / in dm-crypt, which its own initramfs opens.
fn encrypted(name: &'static str, machine: &'static str) -> Case {
    Case {
        guest: Guest {
            tree: Tree::Crypt,
            root: Root::Crypt,
        },
        ..Case::standard(name, machine, Root::Crypt, BIOS)
    }
}

/// Stage 2 has no key for what is in there: the image waits in /boot.
#[test]
#[ignore = "long: a machine of its own"]
fn an_encrypted_root_with_the_image_in_boot() {
    encrypted("crypt", "Debian 12").migrates();
}

/// With the folder on a stick it waits there.
#[test]
#[ignore = "long: a machine of its own"]
fn an_encrypted_root_with_the_image_on_a_stick() {
    let case = encrypted("crypt-stick", "Debian 12, image on a stick");
    case.migrates_with(|machine| machine, copy_to_a_stick);
}

/// GRUB can't clear its one-shot in a logical volume.
#[test]
#[ignore = "long: a machine of its own"]
fn a_logical_volume_without_boot_by_a_bios() {
    let case = Case::standard("lvm-all", "Debian 12", Root::LvmAll, BIOS);
    case.stage_1_refuses(&["grub-write"]);
}

/// An array lies on two disks, of which the new system would take one.
#[test]
#[ignore = "long: a machine of its own"]
fn an_array_by_a_bios() {
    let case = Case::standard("raid1", "Debian 12, two disks", Root::Raid1, BIOS);
    case.stage_1_refuses(&["disk", "grub-write"]);
}

/// GRUB can't clear its one-shot on btrfs.
#[test]
#[ignore = "long: a machine of its own"]
fn btrfs_by_a_bios() {
    Case::standard("btrfs", "Debian 12", Root::Btrfs, BIOS).stage_1_refuses(&["grub-write"]);
}

/// GRUB clears its one-shot on xfs, and stage 2 leaves its report there.
#[test]
#[ignore = "long: a machine of its own"]
fn xfs_by_a_bios() {
    Case::standard("xfs", "Debian 12", Root::Xfs, BIOS).migrates();
}

/// What GRUB reads of an xfs is what the old system has left in it when it goes down.
#[test]
#[ignore = "long: a machine of its own"]
fn a_rehearsal_on_xfs() {
    Case::standard("xfs-rehearsal", "Debian 12", Root::Xfs, BIOS).comes_back();
}

/// GRUB replays no journal, and xfs has its changes there for long: what GRUB finds is right all the same
/// when power goes in stage 2, after arming, and after an undo.
#[test]
#[ignore = "long: a machine of its own"]
fn power_cuts_on_xfs() {
    let case = Case::standard("xfs-cuts", "Debian 12", Root::Xfs, BIOS);
    let cfg = Migratecfg::new(&case.image);
    let start = Instant::now();
    let mut vm = case.up(case.machine(), &cfg);
    let before = vm.must(OLD_TREE);
    let status = format!("cd {PLACE} && ./balena-migrate status");
    let undo = format!("cd {PLACE} && ./balena-migrate undo");

    vm.must(&format!("cd {PLACE} && {RUN} -r 3"));
    vm.wait_for("balena-migrate, stage 2");
    vm.wait_for("secure");
    let mut vm = boots_the_old_system(vm);
    let said = vm.must(&status);
    assert!(said.contains("power was lost"), "status: {said}");
    vm.must(&undo);
    assert_same_tree(&before, &vm.must(OLD_TREE));

    vm.must(&format!("cd {PLACE} && {RUN} --pretend"));
    let mut vm = vm.power_cut().start();
    vm.wait_for("balena-migrate, stage 2");
    vm.wait_agent();
    let said = vm.must(&status);
    assert!(said.contains("rehearsal succeeded"), "status: {said}");
    vm.must(&undo);

    vm.must(&format!("cd {PLACE} && {RUN}"));
    vm.must(&undo);
    let mut vm = boots_the_old_system(vm);
    assert_same_tree(&before, &vm.must(OLD_TREE));
    case.row("power cuts: the old system, or stage 2 as armed", start);
}

/// Takes the power away and gives it back: the machine goes to the old system at once.
#[track_caller]
fn boots_the_old_system(vm: Vm) -> Vm {
    let mut vm = vm.power_cut().start();
    vm.wait_agent();
    let console = vm.console();
    assert!(!console.contains("balena-migrate, stage 2"), "{console}");
    vm
}

/// UEFI firmware and GRUB, to an image that has no boot code for a BIOS.
#[test]
#[ignore = "long: a machine of its own"]
fn uefi_by_grub_to_gpt() {
    Case::standard("uefi-gpt-image", "Debian 12", Root::Ext4, Board::UEFI)
        .image(OsImage::gpt())
        .migrates();
}

/// The same on UEFI firmware.
#[test]
#[ignore = "long: a machine of its own"]
fn xfs_by_uefi() {
    Case::standard("uefi-xfs", "Debian 12", Root::Xfs, Board::UEFI).migrates();
}

/// Images are made for sectors of 512 bytes.
#[test]
#[ignore = "long: a machine of its own"]
fn sectors_of_4096_bytes() {
    let case = Case::standard("sectors", "Debian 12", Root::Sectors, Board::UEFI);
    case.stage_1_refuses(&["image-sector-size"]);
}

/// The release before.
#[test]
#[ignore = "long: a machine of its own"]
fn debian_11() {
    Case::release("debian-11", "Debian 11, cloud kernel", Tree::Debian11).migrates();
}

/// The release after.
#[test]
#[ignore = "long: a machine of its own"]
fn debian_13() {
    Case::release("debian-13", "Debian 13, cloud kernel", Tree::Debian13).migrates();
}

/// What OVMF says before it starts an entry.
const STARTS: &str = "BdsDxe: starting";

/// Leaves a grub.cfg as people write them by hand.
const FORGET_NEXT_ENTRY: &str = "sed -i s/next_entry/nobody/ /boot/grub/grub.cfg && sync";

/// The firmware's own entries, and what they name.
const BOOT_VARIABLES: &str =
    "cd /sys/firmware/efi/efivars && sha256sum Boot[0-9]* BootOrder* && ls";

/// GRUB on UEFI firmware does as by a BIOS, and the new system has an entry of its own.
#[test]
fn grub_on_uefi_firmware() {
    let case = Case::standard("uefi-grub", "Debian 12, GRUB", Root::Ext4, Board::UEFI);
    case.migrates_by_firmware(None);
}

/// A grub.cfg that starts nothing just once: the firmware starts stage 2 itself.
#[test]
fn boot_next_beside_a_grub_that_starts_nothing_once() {
    let case = Case::standard("boot-next", "Debian 12, BootNext", Root::Ext4, Board::UEFI);
    let case = case.image(OsImage::gpt());
    let cfg = Migratecfg::new(&case.image);
    let mut vm = case.up(case.machine(), &cfg);
    vm.must(FORGET_NEXT_ENTRY);
    case.migrates_by_firmware_on(vm, &cfg, Some("balena-migrate"));
}

/// GRUB can't clear its one-shot on btrfs.
#[test]
#[ignore = "long: a machine of its own"]
fn boot_next_beside_btrfs() {
    let case = Case::standard(
        "uefi-btrfs",
        "Debian 12, BootNext",
        Root::Btrfs,
        Board::UEFI,
    );
    case.migrates_by_firmware(Some("balena-migrate"));
}

/// The same in a logical volume with /boot in it: stage 2 reaches the EFI system partition alone.
#[test]
#[ignore = "long: a machine of its own"]
fn boot_next_beside_a_logical_volume() {
    let case = Case::standard(
        "uefi-lvm-all",
        "Debian 12, BootNext",
        Root::LvmAll,
        Board::UEFI,
    );
    case.migrates_by_firmware(Some("balena-migrate"));
}

/// Armed and undone, and after a rehearsal: the variables are as they were.
#[test]
fn boot_next_leaves_no_variables() {
    let start = Instant::now();
    let case = Case::standard("uefi-undo", "Debian 12, BootNext", Root::Ext4, Board::UEFI);
    let cfg = Migratecfg::new(&case.image);
    let mut vm = case.up(case.machine(), &cfg);
    vm.must(FORGET_NEXT_ENTRY);
    let tree = vm.must(OLD_TREE);
    let variables = vm.must(BOOT_VARIABLES);
    vm.must(&format!("cd {PLACE} && {RUN}"));
    let armed = vm.must("efibootmgr");
    assert!(armed.contains("BootNext: "), "{armed}");
    assert!(armed.contains("balena-migrate"), "{armed}");
    vm.must(&format!("cd {PLACE} && ./balena-migrate undo"));
    assert_eq!(
        vm.must(BOOT_VARIABLES),
        variables,
        "an undo has left something"
    );
    assert_same_tree(&tree, &vm.must(OLD_TREE));
    vm.must(&format!("cd {PLACE} && {RUN} --pretend -r 3"));
    vm.wait_reboot();
    vm.wait_for("balena-migrate, stage 2");
    vm.wait_reboot();
    vm.wait_agent();
    let returned = vm.must(BOOT_VARIABLES);
    assert_eq!(returned, variables, "stage 2 has left something");
    vm.must("test ! -e /boot/efi/EFI/balena-migrate/initramfs.img");
    let status = vm.must(&format!("cd {PLACE} && ./balena-migrate status"));
    assert!(status.contains("rehearsal succeeded"), "status: {status}");
    vm.must(&format!("cd {PLACE} && ./balena-migrate undo"));
    assert_eq!(
        vm.must(BOOT_VARIABLES),
        variables,
        "an undo has left something"
    );
    assert_same_tree(&tree, &vm.must(OLD_TREE));
    case.row("rehearsed, undone", start);
}

/// systemd-boot in the place of GRUB, whose files are still there.
#[test]
#[ignore = "long: a machine of its own"]
fn systemd_boot() {
    const PROGRAM: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
    let case = Case::standard(
        "systemd-boot",
        "Debian 12, systemd-boot",
        Root::Ext4,
        Board::UEFI,
    );
    let cfg = Migratecfg::new(&case.image);
    let mut vm = case.up(case.machine(), &cfg);
    let folder = tempfile::tempdir().expect("making a directory");
    let to = folder.path().join("systemd-bootx64.efi");
    std::fs::copy(PROGRAM, to).expect("copying systemd-boot (util/test installs what is needed)");
    vm.send(folder.path(), "/run/loader");
    vm.must(
        "cd /boot/efi && mkdir -p EFI/systemd loader/entries && cp /run/loader/*.efi EFI/systemd/ && \
         cp /boot/vmlinuz-* linux && cp /boot/initrd.img-* initrd && \
         echo \"timeout 0\" > loader/loader.conf && \
         { echo title Debian; echo linux /linux; echo initrd /initrd; \
           echo options $(sed 's/BOOT_IMAGE=[^ ]* //' /proc/cmdline); } > loader/entries/debian.conf && \
         efibootmgr --create --disk /dev/vda --part 2 --label sd \
           --loader '\\EFI\\systemd\\systemd-bootx64.efi' && sync && df /boot/efi",
    );
    vm.wait_for(STARTS);
    vm.begin_on_console("systemctl reboot");
    vm.wait_reboot();
    vm.wait_agent();
    let cmdline = vm.must("cat /proc/cmdline");
    assert!(!cmdline.contains("BOOT_IMAGE="), "{cmdline}");
    let plan = vm.must(&format!("cd {PLACE} && ./balena-migrate plan"));
    assert!(plan.contains("LoaderEntryOneShot"), "{plan}");
    // The kernel makes this variable immutable.
    const ONE_SHOT: &str = "/sys/firmware/efi/efivars/LoaderEntryOneShot-*";
    vm.must(&format!("cd {PLACE} && {RUN}"));
    vm.must(&format!("lsattr {ONE_SHOT} | grep -e '^-*i'"));
    vm.must(&format!("cd {PLACE} && ./balena-migrate undo"));
    vm.must(&format!("! ls {ONE_SHOT} /boot/efi/EFI/balena-migrate"));
    case.migrates_by_firmware_on(vm, &cfg, None);
}

/// What UEFI firmware can't be left without, a BIOS can't start.
#[test]
#[ignore = "long: a machine of its own"]
fn an_image_for_uefi_on_a_bios() {
    Case::standard("gpt-on-bios", "Debian 12", Root::Ext4, BIOS)
        .image(OsImage::gpt())
        .stage_1_refuses(&["image-firmware"]);
}
