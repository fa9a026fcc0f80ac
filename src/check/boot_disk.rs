//! Checks that the firmware starts the disk that is overwritten: what is left on another one leads to
//! an old system that is no more. Boards have checks of their own with their boot loaders.

use super::Subject;
use crate::boot::esp;
use crate::device_node;
use crate::finding::Finding;
use crate::handover::Firmware;
use crate::host::{BootCode, Disk, Host};

/// What starts after the flash is the new system. With the old one on another disk nothing is lost.
pub fn boot_disk(subject: &Subject) -> Vec<Finding> {
    let host = subject.host;
    let Some(target) = subject.target().filter(|disk| !host.stays_beside(disk)) else {
        return Vec::new();
    };
    let found = match host.firmware.kind() {
        Firmware::Bios => by_bios(host, target),
        Firmware::Efi => by_uefi(host, target),
        Firmware::Board => None,
    };
    found.into_iter().collect()
}

/// A BIOS starts one disk after the other until one has boot code, in an order that only its own set-up
/// changes.
fn by_bios(host: &Host, target: &Disk) -> Option<Finding> {
    let name = &target.name;
    let here = format!(
        "put /boot and GRUB on {name} too (grub-install {}), and {name} first in the BIOS's boot order",
        device_node::of(name)
    );
    if let Some(finding) = grub_elsewhere(host, target, &here) {
        return Some(finding);
    }
    let others = host.disks.iter().filter(|disk| disk.name != *name);
    let starting: Vec<&Disk> = others.filter(|disk| code(disk).is_some()).collect();
    let first = first_disk(host, target).filter(|first| code(first).is_some());
    match first {
        Some(first) if first.name == *name => return None,
        Some(first) => {
            return Some(Finding::error(
                "boot-disk",
                format!(
                    "the BIOS starts {}, and {name} is overwritten: what is left there leads to the old system",
                    first.name
                ),
                here,
            ));
        }
        // Nobody knows, or the BIOS goes on to the next.
        None => {}
    }
    let rivals: Vec<&Disk> = match target.boot_sector.as_ref()?.code {
        BootCode::None => return Some(no_code(target, &starting, here)),
        // GRUB has started this system: code that is not GRUB's has not.
        BootCode::Grub => {
            let is_grub = |disk: &&Disk| code(disk) == Some(BootCode::Grub);
            starting.into_iter().filter(is_grub).collect()
        }
        BootCode::Other => starting,
    };
    (!rivals.is_empty()).then(|| ambiguous(target, &rivals))
}

/// GRUB's files are on another disk: then so is what has started them, or it leads there.
fn grub_elsewhere(host: &Host, target: &Disk, remedy: &str) -> Option<Finding> {
    let dir = &host.grub.as_ref()?.dir;
    let mount = host.mount_of(dir)?;
    // What is on no disk GRUB can't write to, which another check says.
    (!mount.disks.is_empty() && mount.disks != [target.name.clone()]).then(|| {
        Finding::error(
            "boot-disk",
            format!(
                "{dir} is on {}, and {} is overwritten: GRUB would go on to start from there, and \
                 look for the old system",
                mount.disks.join(" and "),
                target.name
            ),
            remedy,
        )
    })
}

/// The target has nothing that a BIOS could have started.
fn no_code(target: &Disk, starting: &[&Disk], remedy: String) -> Finding {
    let started = match starting {
        [] => "no disk has any, so that nobody can say what the BIOS starts".to_owned(),
        others => format!(
            "the BIOS has started {}, and what is left there leads to the old system",
            names(others)
        ),
    };
    Finding::error(
        "boot-disk",
        format!(
            "{}, which is overwritten, has no boot code in its first sector: {started}",
            target.name
        ),
        remedy,
    )
}

/// More than one disk may be what the BIOS starts.
fn ambiguous(target: &Disk, rivals: &[&Disk]) -> Finding {
    let (name, rivals) = (&target.name, names(rivals));
    Finding::error(
        "boot-disk",
        format!(
            "{name}, which is overwritten, and {rivals} have boot code: the BIOS may have started the old \
             system from {rivals}, and would go on to"
        ),
        format!(
            "take {rivals} out of the machine; or, where the BIOS is sure to start {name}, clear the boot code \
             beside it: dd if=/dev/zero of=/dev/DISK bs=440 count=1 (partitions stay)"
        ),
    )
}

fn names(disks: &[&Disk]) -> String {
    let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
    names.join(" and ")
}

/// The boot code of a disk, where it has any.
fn code(disk: &Disk) -> Option<BootCode> {
    let code = disk.boot_sector.as_ref()?.code;
    (code != BootCode::None).then_some(code)
}

/// The disk that the BIOS calls its first.
fn first_disk<'a>(host: &'a Host, target: &'a Disk) -> Option<&'a Disk> {
    by_signature(host).or_else(|| is_first_for_grub(host).then_some(target))
}

/// The one that alone answers to the signature that the kernel was told.
fn by_signature(host: &Host) -> Option<&Disk> {
    let wanted = host.firmware.bios_disk.as_ref()?;
    let is_it = |disk: &&Disk| {
        let sector = disk.boot_sector.as_ref();
        sector.and_then(|sector| sector.signature.as_ref()) == Some(wanted)
    };
    let mut disks = host.disks.iter().filter(is_it);
    disks.next().filter(|_| disks.next().is_none())
}

/// Whether GRUB has loaded the kernel, which is on the target with GRUB's files, from the BIOS's first disk: the
/// GRUBs of Fedora, RHEL and openSUSE tell the kernel.
fn is_first_for_grub(host: &Host) -> bool {
    let mut words = host.kernel.cmdline.split_whitespace();
    words.any(|word| word.starts_with("BOOT_IMAGE=(hd0,"))
}

/// UEFI firmware starts the entries in their order, and a disk without one only where none of them can be
/// started.
fn by_uefi(host: &Host, target: &Disk) -> Option<Finding> {
    let uefi = host.firmware.uefi.as_ref()?;
    let is_here = |esp: &&String| target.partitions.iter().any(|part| part.name == **esp);
    let other = uefi.esps.iter().find(|esp| !is_here(esp));
    let variables = esp::check_variables(uefi);
    let name = &target.name;
    let left = match (host.esp_beside(target), other, &variables) {
        (Some(esp), ..) => format!(
            "the firmware has started this machine from {esp}, and {name} is overwritten: it goes on to \
             start the old loader there"
        ),
        (None, Some(esp), Some(_)) => format!(
            "{esp} is an EFI system partition beside those of {name}, which is overwritten: the firmware \
             starts that one"
        ),
        (None, None, Some(_)) if uefi.esp.is_none() && host.disks.len() > 1 => format!(
            "nobody can say from where the firmware has started this machine, and {name} is overwritten: \
             it goes on to start from there"
        ),
        _ => return None,
    };
    Some(match variables {
        Some(why) => Finding::error(
            "boot-disk",
            format!(
                "{left} unless it gets an entry for the new system, and {}",
                why.what
            ),
            why.remedy,
        ),
        None => Finding::warning(
            "boot-disk",
            format!("{left} should it ever lose its entry for the new system, which comes first"),
            "put the whole system on one disk, or rehearse, if the firmware is known to lose entries",
        ),
    })
}
