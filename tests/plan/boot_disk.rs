//! That the firmware starts the disk that is overwritten, and not what is left on another one.

use balena_migrate::finding::{Severity, stops};
use balena_migrate::host::uefi::Access;
use balena_migrate::host::{BootCode, BootSector};

use super::{Case, case, handover};

/// What is said of it.
fn said(case: &Case) -> Option<(Severity, String)> {
    let found = case.findings().into_iter();
    let mut found = found.filter(|finding| finding.code == "boot-disk");
    let first = found.next()?;
    assert!(found.next().is_none());
    Some((first.severity, first.to_string()))
}

impl Case {
    fn boots(&mut self, disk: usize, code: BootCode, signature: &str) {
        self.host.disks[disk].boot_sector = Some(BootSector {
            code,
            signature: (!signature.is_empty()).then(|| signature.to_owned()),
        });
    }

    /// Both disks have GRUB, and the BIOS has told which is its first.
    fn bios_starts(&mut self, first: &str) {
        self.boots(0, BootCode::Grub, "0000000a");
        self.host.firmware.bios_disk = Some(first.to_owned());
    }

    /// The EFI system partition on a disk of its own.
    fn with_esp_elsewhere(&mut self, variables: Access) {
        let mut disk = self.host.disks[0].clone();
        disk.name = "sdz".into();
        let esp = self.uefi().esp.clone().unwrap();
        self.host.disks[0]
            .partitions
            .retain(|part| part.name != esp);
        disk.partitions.retain(|part| part.name == esp);
        self.host.disks.push(disk);
        self.uefi().variables = variables;
    }
}

/// sda has data, sdb is overwritten.
#[test]
fn what_a_bios_may_start_on_another_disk_is_said() {
    type Row = (&'static str, fn(&mut Case), Option<&'static str>);
    let rows: &[Row] = &[
        ("a disk with data", |_| (), None),
        (
            "one that was partitioned by parted, or for Windows",
            |c| c.boots(0, BootCode::Other, "0000000a"),
            None,
        ),
        (
            "GRUB on both",
            |c| c.boots(0, BootCode::Grub, ""),
            Some(
                "sdb, which is overwritten, and sda have boot code: the BIOS may have started the old system \
                 from sda, and would go on to; take sda out of the machine",
            ),
        ),
        (
            "none is GRUB's",
            |c| {
                c.boots(0, BootCode::Other, "");
                c.boots(1, BootCode::Other, "");
            },
            Some("sdb, which is overwritten, and sda have boot code"),
        ),
        (
            "only one is, though not GRUB's",
            |c| c.boots(1, BootCode::Other, ""),
            None,
        ),
        (
            "Debian's installer has put it on the first disk",
            |c| {
                c.boots(0, BootCode::Grub, "0000000a");
                c.boots(1, BootCode::None, "");
            },
            Some(
                "sdb, which is overwritten, has no boot code in its first sector: the BIOS has started sda",
            ),
        ),
        (
            "no disk has any",
            |c| c.boots(1, BootCode::None, ""),
            Some("no disk has any, so that nobody can say what the BIOS starts"),
        ),
        (
            "the BIOS starts the one that is overwritten",
            |c| c.bios_starts("552091cc"),
            None,
        ),
        (
            "it starts the other one",
            |c| c.bios_starts("0000000a"),
            Some(
                "the BIOS starts sda, and sdb is overwritten: what is left there leads to the old system; \
                 put /boot and GRUB on sdb too (grub-install /dev/sdb)",
            ),
        ),
        (
            "its first has nothing to start",
            |c| {
                c.bios_starts("0000000a");
                c.boots(0, BootCode::None, "0000000a");
            },
            None,
        ),
        (
            "it says a name that nothing has",
            |c| c.bios_starts("0000000b"),
            Some("and would go on to; take sda out of the machine"),
        ),
        (
            "it says a name that both have",
            |c| {
                c.bios_starts("552091cc");
                c.boots(0, BootCode::Grub, "552091cc");
            },
            Some("and would go on to; take sda out of the machine"),
        ),
        (
            "GRUB says that the kernel was on the first disk",
            |c| {
                c.boots(0, BootCode::Grub, "");
                c.host.kernel.cmdline = "BOOT_IMAGE=(hd0,msdos1)/boot/vmlinuz ro".into();
            },
            None,
        ),
        (
            "GRUB says that the kernel was on the second disk",
            |c| {
                c.boots(0, BootCode::Grub, "");
                c.host.kernel.cmdline = "BOOT_IMAGE=(hd1,msdos1)/boot/vmlinuz ro".into();
            },
            Some("sdb, which is overwritten, and sda have boot code"),
        ),
        (
            "the same, where the first disk has nothing to start",
            |c| c.host.kernel.cmdline = "BOOT_IMAGE=(hd1,msdos1)/boot/vmlinuz ro".into(),
            None,
        ),
        (
            "/boot is on the other disk",
            |c| {
                let mut boot = c.mounted("/srv/videos").clone();
                boot.point = "/boot".into();
                c.host.mounts.push(boot);
            },
            Some("/boot/grub is on sda, and sdb is overwritten"),
        ),
        (
            "nothing is known of the disks",
            |c| {
                c.host
                    .disks
                    .iter_mut()
                    .for_each(|disk| disk.boot_sector = None)
            },
            None,
        ),
        (
            "the old system stays",
            |c| {
                c.bios_starts("552091cc");
                c.flash_to("sda");
            },
            None,
        ),
    ];
    for (name, change, wanted) in rows {
        let mut case = case("debian-13-bios-two-disks");
        change(&mut case);
        match (said(&case), wanted) {
            (None, None) => {}
            (Some((Severity::Error, text)), Some(wanted)) => {
                assert!(text.contains(wanted), "{name}: {text}");
            }
            (other, _) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn firmware_that_starts_another_disk_must_take_an_entry() {
    let mut case = case("debian-12-uefi");
    assert_eq!(said(&case), None);
    case.with_esp_elsewhere(Access::Writable);
    let (severity, text) = said(&case).unwrap();
    assert_eq!(severity, Severity::Warning, "{text}");
    let wanted = "the firmware has started this machine from nvme0n1p1, and nvme0n1 is overwritten: it goes on \
                  to start the old loader there should it ever lose its entry";
    assert!(text.starts_with(wanted), "{text}");
    assert!(handover(&case.plan()).efi.as_ref().unwrap().needs_entry);
    for variables in [Access::ReadOnly, Access::NotMounted] {
        case.uefi().variables = variables;
        let (severity, text) = said(&case).unwrap();
        assert_eq!(severity, Severity::Error, "{text}");
        assert!(text.contains("unless it gets an entry"), "{text}");
        assert!(text.contains("the variables of the firmware are"), "{text}");
    }
    // Beside an old system that stays, its loader is what comes back.
    case.host.disks.truncate(1);
    case.host.disks.push(super::other_disk::new_disk("sdz"));
    case.flash_to("sdz");
    assert_eq!(said(&case), None);
    assert!(!stops(&case.findings()));
}

#[test]
fn a_second_loader_matters_where_the_firmware_takes_no_entry() {
    let mut case = case("debian-12-uefi");
    case.uefi().esps = vec!["nvme0n1p1".into(), "sdz1".into()];
    assert_eq!(said(&case), None);
    case.uefi().variables = Access::NotMounted;
    let (_, text) = said(&case).unwrap();
    assert!(
        text.starts_with("sdz1 is an EFI system partition"),
        "{text}"
    );
    case.uefi().esps.pop();
    assert_eq!(said(&case), None);
    case.uefi().esp = None;
    assert_eq!(said(&case), None);
    case.host.disks.push(super::other_disk::new_disk("sdz"));
    let (_, text) = said(&case).unwrap();
    assert!(text.starts_with("nobody can say from where"), "{text}");
}
