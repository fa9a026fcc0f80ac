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
        let (mut vm, row) = self.up(build(self.machine()), &cfg);
        let folder = prepare(&mut vm);
        // Before the road of no return: what arms it can be taken back.
        let before = vm.must(OLD_TREE);
        vm.must(&format!("cd {folder} && {RUN}"));
        undo_leaves_nothing(&mut vm, &folder, &before);
        vm.must(&format!("cd {folder} && {RUN} -r 3"));
        vm.wait_for("balena-migrate, stage 2");
        let (_, outcome) = vm.outcome(&self.facts(&cfg), true);
        assert_eq!(outcome, Outcome::ResumedToTheEnd);
        row.add("armed, undone without a trace; migrated");
    }

    /// The firmware starts stage 2 by `entry`, or as it has started the old system, and then the entry of
    /// the new system.
    #[track_caller]
    fn migrates_by_firmware(self, entry: Option<&str>) {
        let cfg = Migratecfg::new(&self.image);
        let (vm, row) = self.up(self.machine(), &cfg);
        self.migrates_by_firmware_on(vm, row, &cfg, entry);
    }

    /// The same of a machine that is up.
    #[track_caller]
    fn migrates_by_firmware_on(self, mut vm: Vm, row: Row, cfg: &Migratecfg, entry: Option<&str>) {
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
        row.add("migrated");
    }

    /// Stage 1 says each of `codes` and nothing else that is an error, and changes nothing.
    #[track_caller]
    fn stage_1_refuses(self, codes: &[&str]) {
        let cfg = Migratecfg::new(&self.image);
        let (mut vm, row) = self.up(self.machine(), &cfg);
        is_refused(&mut vm, codes);
        row.add(&format!("refused: {}", codes.join(", ")));
    }

    /// A rehearsal comes back, tells of it, and an undo leaves nothing.
    #[track_caller]
    fn comes_back(self) {
        let cfg = Migratecfg::new(&self.image);
        let (mut vm, row) = self.up(self.machine(), &cfg);
        let before = vm.must(OLD_TREE);
        vm.must(&format!("cd {PLACE} && {RUN} --pretend -r 3"));
        vm.wait_reboot();
        vm.wait_for("balena-migrate, stage 2");
        vm.wait_reboot();
        vm.wait_agent();
        let status = vm.must(&format!("cd {PLACE} && ./balena-migrate status"));
        assert!(status.contains("rehearsal succeeded"), "status: {status}");
        undo_leaves_nothing(&mut vm, PLACE, &before);
        vm.must(&format!("test -s {PLACE}/balena-migrate-stage2.log"));
        row.add("rehearsed, came back, undone without a trace");
    }

    /// The machine with the folder on it, and what it says of itself among the logs.
    #[track_caller]
    fn up(&self, machine: Machine, cfg: &Migratecfg) -> (Vm, Row) {
        let since = Instant::now();
        let mut vm = machine.start();
        vm.wait_agent();
        let firmware = match self.board.firmware {
            Firmware::Bios => "BIOS",
            Firmware::Uefi => "UEFI",
        };
        let (root, image) = (self.guest.root, self.image.slug());
        let row = Row::of(&mut vm, self.machine, firmware, root, image, since);
        cfg.send_to(&mut vm);
        let facts = vm.must(&format!("cd {PLACE} && ./balena-migrate facts"));
        let path = cache::subdir("logs").join(format!("{}-facts.json", self.name));
        std::fs::write(path, facts).expect("keeping the facts");
        let plan = vm.agent(&format!("cd {PLACE} && ./balena-migrate plan"));
        let path = cache::subdir("logs").join(format!("{}-plan.txt", self.name));
        std::fs::write(path, plan.text).expect("keeping the plan");
        vm.must("sync");
        (vm, row)
    }
}

/// Stage 1 says each of `codes` and nothing else that is an error, and changes nothing.
#[track_caller]
fn is_refused(vm: &mut Vm, codes: &[&str]) {
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
}

/// An undo by the program in `folder` leaves the old system as it was.
#[track_caller]
fn undo_leaves_nothing(vm: &mut Vm, folder: &str, before: &str) {
    vm.must(&format!("cd {folder} && ./balena-migrate undo"));
    assert_same_tree(before, &vm.must(OLD_TREE));
    let left = vm.must(
        "find / -xdev -name '*balena-migrate*' -not -path '/root/*' -not -path '/proc/*'; \
         find /boot -name '*balena*'",
    );
    assert_eq!(left, "", "an undo has left something");
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

/// Stage 2 comes back from machines whose / it can't mount, with word of it on /boot.
#[test]
#[ignore = "long: a machine of its own"]
fn a_rehearsal_on_a_thin_volume() {
    Case::standard("thin-rehearsal", "Debian 12", Root::Thin, BIOS).comes_back();
}

/// The same where it has no key.
#[test]
#[ignore = "long: a machine of its own"]
fn a_rehearsal_on_an_encrypted_root() {
    encrypted("crypt-rehearsal", "Debian 12").comes_back();
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
    let (mut vm, row) = case.up(case.machine(), &cfg);
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
    row.add("power cuts: the old system, or stage 2 as armed");
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
    let (mut vm, row) = case.up(case.machine(), &cfg);
    vm.must(FORGET_NEXT_ENTRY);
    case.migrates_by_firmware_on(vm, row, &cfg, Some("balena-migrate"));
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

/// It comes back there, with word of it on / or on the EFI system partition.
#[test]
#[ignore = "long: a machine of its own"]
fn a_rehearsal_by_boot_next_on_btrfs() {
    let name = "Debian 12, BootNext";
    Case::standard("uefi-btrfs-rehearsal", name, Root::Btrfs, Board::UEFI).comes_back();
}

/// The same in a logical volume with /boot in it.
#[test]
#[ignore = "long: a machine of its own"]
fn a_rehearsal_by_boot_next_in_a_logical_volume() {
    let name = "Debian 12, BootNext";
    Case::standard("uefi-lvm-all-rehearsal", name, Root::LvmAll, Board::UEFI).comes_back();
}

/// Armed and undone, and after a rehearsal: the variables are as they were.
#[test]
fn boot_next_leaves_no_variables() {
    let case = Case::standard("uefi-undo", "Debian 12, BootNext", Root::Ext4, Board::UEFI);
    let cfg = Migratecfg::new(&case.image);
    let (mut vm, row) = case.up(case.machine(), &cfg);
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
    row.add("rehearsed, came back, undone without a trace");
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
    let (mut vm, row) = case.up(case.machine(), &cfg);
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
    case.migrates_by_firmware_on(vm, row, &cfg, None);
}

/// What UEFI firmware can't be left without, a BIOS can't start.
#[test]
#[ignore = "long: a machine of its own"]
fn an_image_for_uefi_on_a_bios() {
    Case::standard("gpt-on-bios", "Debian 12", Root::Ext4, BIOS)
        .image(OsImage::gpt())
        .stage_1_refuses(&["image-firmware"]);
}

/// Where GRUB does not source custom.cfg its entry is in grub.cfg, which comes back byte by byte: what people
/// have changed in it too.
#[test]
#[ignore = "long: two boots beside the usual ones"]
fn an_entry_in_grub_cfg_leaves_nothing() {
    const CFG: &str = "/boot/grub/grub.cfg";
    let name = "Debian 12, without 41_custom";
    let case = Case::standard("grub-cfg", name, Root::Ext4, BIOS);
    let cfg = Migratecfg::new(&case.image);
    let (mut vm, row) = case.up(case.machine(), &cfg);
    vm.must(&format!(
        "chmod -x /etc/grub.d/41_custom && update-grub && ! grep -q custom.cfg {CFG} && \
         printf '# by hand' >> {CFG} && sync"
    ));
    let before = vm.must(OLD_TREE);
    vm.must(&format!("cd {PLACE} && {RUN}"));
    vm.must(&format!("grep -q 'BEGIN balena-migrate' {CFG}"));
    undo_leaves_nothing(&mut vm, PLACE, &before);
    let sum = vm.must(&format!("sha256sum {CFG} && stat -c '%a %u %g' {CFG}"));
    vm.must(&format!("cd {PLACE} && {RUN} --pretend -r 3"));
    vm.wait_reboot();
    vm.wait_for("balena-migrate, stage 2");
    vm.wait_reboot();
    vm.wait_agent();
    let now = vm.must(&format!("sha256sum {CFG} && stat -c '%a %u %g' {CFG}"));
    assert_eq!(now, sum, "stage 2 has left something");
    undo_leaves_nothing(&mut vm, PLACE, &before);
    row.add("armed, undone; rehearsed, came back, undone without a trace");
}

/// What a BIOS may go on to start on another disk would look for the old system: GRUB in the first sector, alone or
/// beside another one, and /boot.
#[test]
#[ignore = "long: a machine of its own"]
fn a_bios_that_may_start_another_disk() {
    let guest = Guest {
        tree: Tree::Standard,
        root: Root::Mbr,
    };
    let case = Case {
        guest,
        ..Case::standard(
            "boot-disk",
            "Debian 12, a second disk with GRUB",
            Root::Mbr,
            BIOS,
        )
    };
    let cfg = Migratecfg::new(&case.image);
    let (mut vm, row) = case.up(case.machine().with_new_disk(400), &cfg);
    let plan = format!("cd {PLACE} && ./balena-migrate plan");
    vm.must("echo ',' | sfdisk -q /dev/vdb && udevadm settle");
    // A disk that was only partitioned is none that starts.
    vm.must(&plan);
    vm.must("dd if=/dev/vda of=/dev/vdb bs=440 count=1 conv=notrunc && sync");
    is_refused(&mut vm, &["boot-disk"]);
    vm.must("dd if=/dev/zero of=/dev/vda bs=440 count=1 conv=notrunc && sync");
    is_refused(&mut vm, &["boot-disk"]);
    vm.must("dd if=/dev/vdb of=/dev/vda bs=440 count=1 conv=notrunc && sync");
    vm.must("dd if=/dev/zero of=/dev/vdb bs=440 count=1 conv=notrunc && sync");
    vm.must(&plan);
    vm.must(
        "mkfs.ext4 -q -F /dev/vdb1 && mount /dev/vdb1 /mnt && cp -a /boot/. /mnt/ && umount /mnt && \
         mount /dev/vdb1 /boot",
    );
    is_refused(&mut vm, &["boot-disk"]);
    row.add("refused: boot-disk");
}

/// An array can stay, where a third disk is overwritten: what stage 2 needs is on a stick and on the EFI system
/// partition.
#[test]
#[ignore = "long: a machine of its own"]
fn an_array_beside_a_third_disk() {
    let name = "Debian 12, BootNext, to a third disk, image on a stick";
    let case = Case::standard("uefi-raid1", name, Root::Raid1, Board::UEFI);
    let cfg = Migratecfg::new(&case.image).setting("FLASH_TO", "/dev/vdc");
    let machine = case.machine().with_new_disk(1536);
    let (mut vm, row) = case.up(machine, &cfg);
    // The bench copies one half to the other, with all that has names.
    vm.must(
        "umount /boot/efi && mkfs.vfat -F 32 -i 0BADC0DE /dev/vdb2 && mount /dev/vda2 /boot/efi && \
         sfdisk -q --no-reread --no-tell-kernel --part-uuid /dev/vdb 2 \
           $(cat /proc/sys/kernel/random/uuid) && sync",
    );
    let before = vm.must(OLD_TREE);
    let folder = copy_to_a_stick(&mut vm);
    vm.must(&format!("cd {folder} && {RUN}"));
    undo_leaves_nothing(&mut vm, &folder, &before);
    vm.must(&format!("cd {folder} && {RUN} -r 3"));
    vm.wait_for("balena-migrate, stage 2");
    let (_, outcome) = vm.outcome(&case.facts(&cfg), true);
    assert_eq!(outcome, Outcome::ResumedToTheEnd);
    row.add("armed, undone without a trace; migrated, the old system kept");
}
