//! FLASH_TO another disk than the one that holds /, and machines whose / is encrypted.

use balena_migrate::finding::{Finding, stops};
use balena_migrate::handover::{OldSystem, Place, TableIdentity};
use balena_migrate::host::{Disk, FileSystem, Partition};
use balena_migrate::place::Waits;
use balena_migrate::plan::text;
use balena_migrate::step::Step;

use super::{Case, case, everything, handover, is_golden};

const GIB: u64 = 1 << 30;

/// A disk without anything on it.
pub fn new_disk(name: &str) -> Disk {
    Disk {
        name: name.into(),
        bytes: 8 * GIB,
        sector_bytes: 512,
        removable: false,
        read_only: false,
        model: Some("QEMU HARDDISK".into()),
        serial: Some("NEW-1".into()),
        wwid: None,
        table: None,
        boot_sector: None,
        fs: None,
        partitions: Vec::new(),
        modules: vec!["virtio_blk".into()],
        network: None,
        holders: Vec::new(),
        claimed: false,
    }
}

impl Case {
    /// FLASH_TO, as the machine resolves it.
    pub fn flash_to(&mut self, name: &str) {
        self.set(&format!("FLASH_TO=/dev/{name}\n"));
        self.material.flash_to = Some(name.into());
    }

    /// A sound case with a second disk, to be overwritten.
    fn with_other_disk(host: &str, name: &str) -> Case {
        let mut case = case(host);
        case.host.disks.push(new_disk(name));
        case.flash_to(name);
        case
    }

    fn target(&mut self) -> &mut Disk {
        self.host.disks.last_mut().unwrap()
    }

    /// Gives the second disk a partition with a file system of that UUID.
    fn with_partition(&mut self, uuid: &str) {
        let fs = FileSystem {
            fs_type: "ext4".into(),
            uuid: uuid.into(),
            label: String::new(),
        };
        self.target().table = Some(TableIdentity::Mbr("0badcafe".into()));
        self.target().partitions.push(Partition {
            name: "vdb1".into(),
            number: 1,
            start: 1 << 20,
            bytes: GIB,
            fs: Some(fs),
        });
    }

    /// Lets something be mounted from the second disk.
    fn with_mount(&mut self, point: &str) {
        self.with_partition("6-6");
        let mut mount = self.host.mounts[0].clone();
        mount.point = point.into();
        mount.device_name = "vdb1".into();
        mount.disks = vec!["vdb".into()];
        mount.uuid = Some("6-6".into());
        self.host.mounts.push(mount);
    }
}

/// Which system it is does not matter here.
fn codes(findings: &[Finding]) -> Vec<&'static str> {
    let codes = findings.iter().map(|finding| finding.code);
    codes.filter(|code| *code != "os-untested").collect()
}

/// Findings and plan.
fn all_that_is_said(case: &Case) -> String {
    let findings = case.findings();
    let mut text = text::findings(&findings);
    if !stops(&findings) {
        text.push_str(&everything(&case.plan()));
    }
    text
}

#[test]
fn the_plans_for_another_disk() {
    let bios = Case::with_other_disk("debian-12-bios", "vdb");
    is_golden("debian-12-bios-flash-to", &all_that_is_said(&bios));
    let uefi = Case::with_other_disk("debian-12-uefi", "nvme1n1");
    is_golden("debian-12-uefi-flash-to", &all_that_is_said(&uefi));
    let lvm = Case::with_other_disk("ubuntu-24.04-bios-lvm", "sdb");
    is_golden("ubuntu-24.04-bios-lvm-flash-to", &all_that_is_said(&lvm));
}

/// The smaller disk, though it is the first, once nothing of the running system is on it.
#[test]
fn the_plan_for_the_smaller_of_two_disks() {
    let mut case = case("debian-13-bios-two-disks");
    case.flash_to("sda");
    assert_eq!(codes(&case.findings()), ["flash-to", "flash-to-boot"]);
    case.host.mounts.retain(|mount| mount.disks != ["sda"]);
    case.host.disks[0].claimed = false;
    is_golden(
        "debian-13-bios-two-disks-flash-to",
        &all_that_is_said(&case),
    );
}

#[test]
fn the_hand_over_is_about_the_other_disk_and_keeps_word_on_the_old_one() {
    let mut case = Case::with_other_disk("debian-12-uefi", "nvme1n1");
    let root = case.host.mount_of("/").unwrap().uuid.clone().unwrap();
    case.target().table = Some(TableIdentity::Gpt("12".into()));
    let plan = case.plan();
    let handover = handover(&plan);
    assert_eq!(handover.disk.serial.as_deref(), Some("NEW-1"));
    assert_eq!(handover.disk.bytes, 8 * GIB);
    assert_eq!(handover.disk.table, Some(TableIdentity::Gpt("12".into())));
    let OldSystem::Stays(fs) = &handover.disk.old_system else {
        panic!("{:?}", handover.disk.old_system);
    };
    assert_eq!(fs.uuid, root);
    assert_eq!(handover.report.fs.uuid, root);
    // The boot entries of the old system are not stale.
    let efi = handover.efi.as_ref().unwrap();
    assert!(efi.old_partitions.is_empty(), "{efi:?}");
    // The image waits where it is, and nothing has to be made for a power cut.
    assert!(matches!(handover.payload.file.place, Place::Disk(_)));
    assert_eq!(plan.summary.backup_waits_in, Some(Waits::Disk));
    assert!(handover.resume.is_none());
    assert_eq!(plan.summary.power_cut_is_fatal, None);
    let makes = |step: &Step| matches!(step, Step::BuildCore(_) | Step::Keep(_));
    assert!(!plan.work.steps.iter().any(makes));
}

/// What may be wrong with a FLASH_TO of a second disk, and the words that say it.
#[test]
fn what_may_not_be_overwritten_is_said() {
    type Row = (&'static str, fn(&mut Case), &'static str);
    let rows: &[Row] = &[
        (
            "no such disk",
            |c| c.flash_to("vdc"),
            "FLASH_TO=/dev/vdc is no disk of this machine; its disks are: vda, vdb",
        ),
        (
            "an area of an eMMC",
            |c| c.flash_to("mmcblk0boot0"),
            "FLASH_TO=/dev/mmcblk0boot0 is no disk of this machine",
        ),
        (
            "a partition",
            |c| {
                c.with_partition("6-6");
                c.flash_to("vdb1");
            },
            "FLASH_TO=/dev/vdb1 is a partition of vdb; a whole disk is overwritten: set \
             FLASH_TO=/dev/vdb if",
        ),
        (
            "a mounted partition",
            |c| c.with_mount("/srv"),
            "FLASH_TO=/dev/vdb is in use: vdb1 is mounted at /srv; let go of it (umount",
        ),
        (
            "a stick with the folder",
            |c| c.with_mount("/root/migratecfg"),
            "/root/migratecfg is on FLASH_TO=/dev/vdb, the disk to overwrite; put the folder",
        ),
        (
            "swap",
            |c| {
                c.with_partition("6-6");
                c.host.swaps = vec!["vdb1".into()];
            },
            "in use: vdb1 takes swap;",
        ),
        (
            "a member of an array, a physical volume",
            |c| c.target().holders = vec!["dm-3".into(), "md0".into()],
            "in use: dm-3 is built on it, md0 is built on it;",
        ),
        (
            "a pool of ZFS",
            |c| c.target().claimed = true,
            "in use: the kernel has given it to something",
        ),
        (
            "a copy of the disk of /",
            |c| {
                let root = c.host.mounts[0].uuid.clone().unwrap();
                c.with_partition(&root);
            },
            "FLASH_TO=/dev/vdb has a copy of the file system at /;",
        ),
        (
            "one that can't be told from others",
            |c| c.target().serial = None,
            "stage 2 could not tell it from another disk; give it one: echo label: gpt",
        ),
    ];
    for (name, change, wanted) in rows {
        let mut case = Case::with_other_disk("debian-12-bios", "vdb");
        change(&mut case);
        let findings = case.findings();
        let errors: Vec<&Finding> = findings
            .iter()
            .filter(|finding| stops(std::slice::from_ref(finding)))
            .collect();
        let [error] = errors.as_slice() else {
            panic!("{name}: {findings:#?}");
        };
        assert_eq!(error.code, "flash-to", "{name}");
        let said = error.to_string();
        assert!(said.contains(wanted), "{name}: {said}");
    }
}

#[test]
fn the_other_disk_is_checked_like_any() {
    let mut case = Case::with_other_disk("debian-12-bios", "vdb");
    case.target().bytes = 100 << 20;
    case.target().read_only = true;
    case.target().sector_bytes = 4096;
    assert_eq!(
        codes(&case.findings()),
        ["disk", "flash-to-boot", "image-size", "image-sector-size"]
    );
    let mut case = Case::with_other_disk("debian-12-bios", "vdb");
    case.with_partition("6-6");
    case.set("FLASH_TO=/dev/vdb\nLOG_DRIVE=/dev/vdb1\n");
    case.material.log_drive = Some("vdb1".into());
    assert_eq!(codes(&case.findings()), ["flash-to-boot", "log-drive"]);
    // Now the old system's disk can have it.
    case.material.log_drive = Some("vda1".into());
    assert_eq!(codes(&case.findings()), ["flash-to-boot"]);
}

/// The old system need not be on one disk, where another one is overwritten.
#[test]
fn an_array_beside_a_plain_boot_can_stay() {
    let mut case = Case::with_other_disk("ubuntu-24.04-bios-lvm", "sdz");
    case.host.disks.push(new_disk("sdb"));
    let root = case
        .host
        .mounts
        .iter_mut()
        .find(|m| m.point == "/")
        .unwrap();
    root.disks = vec!["sda".into(), "sdb".into()];
    // The image has to be where stage 2 can read it.
    assert_eq!(codes(&case.findings()), ["flash-to-boot", "payload-place"]);
    case.with_home_on_stick();
    assert_eq!(codes(&case.findings()), ["flash-to-boot"]);
    case.flash_to("sdb");
    assert!(codes(&case.findings()).contains(&"flash-to"));
}

impl Case {
    /// With an image of a size as they have: /boot lies in what it overwrites.
    fn with_large_image(mut self) -> Case {
        self.scan().image_bytes = 3 * GIB;
        self
    }
}

/// Nothing in an encrypted volume can be read by stage 2, which has no key: elsewhere it can.
#[test]
fn the_plans_of_an_encrypted_root() {
    for host in ["ubuntu-24.04-bios-luks", "debian-12-uefi-luks"] {
        let mut case = case(host).with_large_image();
        assert_eq!(codes(&case.findings()), ["encrypted", "payload-place"]);
        let said = all_that_is_said(&case);
        is_golden(&format!("{host}-refused"), &said);
        for place in ["memory", "disk", "extents"] {
            case.set(&format!("PAYLOAD={place}\n"));
            assert_eq!(codes(&case.findings()), ["encrypted", "payload-place"]);
        }
        case.set("");
        case.with_home_on_stick();
        assert_eq!(codes(&case.findings()), ["encrypted"]);
        is_golden(&format!("{host}-stick"), &all_that_is_said(&case));
    }
}

#[test]
fn beside_an_encrypted_root_an_image_in_a_plain_boot_waits_in_memory() {
    let mut case = case("ubuntu-24.04-bios-luks").with_large_image();
    let boot = case.host.mounts.iter().find(|m| m.point == "/boot");
    let mut folder = boot.unwrap().clone();
    folder.point = "/root/migratecfg".into();
    folder.subtree = "/migratecfg".into();
    case.host.mounts.push(folder);
    let plan = case.plan();
    assert_eq!(plan.summary.payload_waits_in, Waits::Memory);
    let fatal = plan.summary.power_cut_is_fatal.unwrap();
    assert!(fatal.contains("in memory"), "{fatal}");
}

/// Whoever has a board looks for no BIOS.
#[test]
fn what_starts_which_disk_has_its_name() {
    for (host, name) in [
        ("debian-12-bios", "the BIOS must start sdz: "),
        (
            "raspios-12-pi-4",
            "the firmware of this board must start sdz: ",
        ),
    ] {
        let case = Case::with_other_disk(host, "sdz");
        let said = case.findings().into_iter();
        let mut said = said.filter(|finding| finding.code == "flash-to-boot");
        let what = said.next().expect("it is said").what;
        assert!(what.starts_with(name), "{what}");
    }
}
