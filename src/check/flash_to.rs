//! Checks of FLASH_TO: that it names a disk that may be overwritten, and what comes of a machine that
//! has two systems then.

use super::Subject;
use crate::finding::Finding;
use crate::handover::Firmware;
use crate::host::{Disk, Host};

/// Where FLASH_TO names another disk than the one that holds /, that is one whole disk which nothing
/// of the running system or of this run is on, and which stage 2 can tell from all others.
pub fn flash_to(subject: &Subject) -> Vec<Finding> {
    let Some(name) = subject.material.flash_to.as_deref() else {
        return Vec::new();
    };
    let problem = match subject.host.disk(name) {
        None => Some(no_disk(subject, name)),
        Some(disk) => other_disk(subject, disk),
    };
    problem
        .map(|(what, remedy)| Finding::error("flash-to", what, remedy))
        .into_iter()
        .collect()
}

fn no_disk(subject: &Subject, name: &str) -> (String, String) {
    let host = subject.host;
    let wanted = wanted(subject);
    if let Some((disk, _)) = host.partition(name) {
        return (
            format!("FLASH_TO={wanted} is a partition of {}", disk.name),
            format!(
                "a whole disk is overwritten: set FLASH_TO=/dev/{} if nothing on it is needed",
                disk.name
            ),
        );
    }
    let disks: Vec<&str> = host.disks.iter().map(|disk| disk.name.as_str()).collect();
    (
        format!("FLASH_TO={wanted} is no disk of this machine"),
        format!("its disks are: {}", disks.join(", ")),
    )
}

fn other_disk(subject: &Subject, disk: &Disk) -> Option<(String, String)> {
    let host = subject.host;
    let root = host.mount_of("/")?;
    if root.disks == [disk.name.clone()] {
        return None;
    }
    let wanted = wanted(subject);
    if root.disks.contains(&disk.name) {
        return Some((
            format!(
                "FLASH_TO={wanted} is one of the disks that / spans: {}",
                root.disks.join(", ")
            ),
            "name a disk that the running system does not use".to_owned(),
        ));
    }
    if let Some(path) = needed_on(subject, disk) {
        return Some((
            format!("{path} is on FLASH_TO={wanted}, the disk to overwrite"),
            "put the folder, with all that it names, on another disk".to_owned(),
        ));
    }
    let uses = host.uses_of(disk);
    if !uses.is_empty() {
        return Some((
            format!("FLASH_TO={wanted} is in use: {}", uses.join(", ")),
            "let go of it (umount, swapoff, vgchange -an, mdadm --stop), and take it out of \
             /etc/fstab, or the old system may wait for it at its next boot"
                .to_owned(),
        ));
    }
    if let Some(mount) = copied_to(host, disk) {
        return Some((
            format!("FLASH_TO={wanted} has a copy of the file system at {mount}"),
            format!(
                "take the copy away: wipefs -a on its partition of {}",
                disk.name
            ),
        ));
    }
    let is_known = disk.table.is_some() || disk.serial.is_some() || disk.wwid.is_some();
    (!is_known).then(|| {
        (
            format!(
                "FLASH_TO={wanted} has no partition table and no serial number: stage 2 could not \
                 tell it from another disk"
            ),
            format!("give it one: echo label: gpt | sfdisk /dev/{}", disk.name),
        )
    })
}

/// What FLASH_TO says.
fn wanted<'a>(subject: &Subject<'a>) -> &'a str {
    let wanted = subject.config.flash_to.value.as_ref();
    wanted.map_or("", |wanted| &wanted.0)
}

/// A file or folder of this run that is on `disk`.
fn needed_on<'a>(subject: &Subject<'a>, disk: &Disk) -> Option<&'a str> {
    let config = subject.config;
    [
        &config.home_dir.0,
        &config.image_name.0,
        &config.backup_file.0,
    ]
    .into_iter()
    .find(|path| {
        let mount = subject.host.mount_of(path);
        mount.is_some_and(|mount| mount.disks.contains(&disk.name))
    })
    .map(String::as_str)
}

/// The mount point of a file system of the running system that `disk` has a copy of: stage 2 knows
/// file systems by their UUIDs.
fn copied_to<'a>(host: &'a Host, disk: &Disk) -> Option<&'a str> {
    let parts = disk.partitions.iter().filter_map(|part| part.fs.as_ref());
    let uuids: Vec<&String> = parts.chain(&disk.fs).map(|fs| &fs.uuid).collect();
    let mut mounts = host.mounts.iter();
    mounts
        .find(|mount| {
            mount
                .uuid
                .as_ref()
                .is_some_and(|uuid| uuids.contains(&uuid))
        })
        .map(|mount| mount.point.as_str())
}

/// A BIOS or a board starts one disk before the other, and nobody here can say which.
pub fn boot_order(subject: &Subject) -> Vec<Finding> {
    let host = subject.host;
    let (Some(disk), Some(root), false) = (subject.target(), host.mount_of("/"), host.firmware.efi)
    else {
        return Vec::new();
    };
    if !host.stays_beside(disk) {
        return Vec::new();
    }
    let old = root.disks.join(" and ");
    let (firmware, order) = match host.firmware.kind() {
        Firmware::Bios | Firmware::Efi => ("BIOS", "the BIOS's boot order"),
        Firmware::Board => (
            "firmware of this board",
            "its boot order, or take the other one out",
        ),
    };
    vec![Finding::warning(
        "flash-to-boot",
        format!(
            "the {firmware} must start {}: the old system stays as it is on {old}, and is what starts \
             again if {old} is started first",
            disk.name
        ),
        format!(
            "put {} first in {order}, now or later; until then the old system comes back, \
             and its `balena-migrate status` says that the new one is there",
            disk.name
        ),
    )]
}
