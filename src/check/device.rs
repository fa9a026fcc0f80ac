//! Checks of the machine itself: who asks, what it is, what it boots from.

use super::Subject;
use crate::config::kind::limit::Speed;
use crate::device;
use crate::finding::Finding;
use crate::host::{Disk, Host, Mount};

/// Only root can read disks and change the boot configuration.
pub fn root_user(subject: &Subject) -> Vec<Finding> {
    if subject.host.euid == 0 {
        return Vec::new();
    }
    vec![Finding::error(
        "root",
        "this was not started by root",
        "run it with sudo",
    )]
}

/// Stage 2 is this very executable, started by the running kernel: what runs now will run then, a
/// 32-bit executable on a 64-bit kernel of a PC too. Kernels for ARM may have been built without that.
pub fn architecture(subject: &Subject) -> Vec<Finding> {
    let host = subject.host;
    // As Rust names i686, and ARM with 32 bits.
    let executables: &[&str] = match host.machine.as_str() {
        _ if matches!(host.processor(), "x86_64" | "i686") => &["x86_64", "x86"],
        "aarch64" => &["aarch64"],
        "armv6l" | "armv7l" => &["arm"],
        _ => &[],
    };
    if executables.contains(&host.executable_arch.as_str()) {
        return Vec::new();
    }
    vec![Finding::error(
        "architecture",
        format!(
            "the kernel says {}, this executable is made for {}",
            host.machine, host.executable_arch
        ),
        "use the executable for this kernel: x86_64, i686, aarch64, armv7 or armv6",
    )]
}

/// A distribution that nobody has tried is worth a word.
pub fn distribution(subject: &Subject) -> Vec<Finding> {
    let os = &subject.host.os;
    if device::is_tested(os) || *subject.config.no_os_check {
        return Vec::new();
    }
    let name = match os.pretty_name.as_str() {
        "" => "a system without /etc/os-release",
        name => name,
    };
    vec![Finding::warning(
        "os-untested",
        format!("{name} is not among the systems that this version was tested on"),
        "rehearse with --pretend on one machine of this kind first",
    )]
}

/// The disk to overwrite must be one disk, and stage 2 must know it when it sees it.
pub fn disk(subject: &Subject) -> Vec<Finding> {
    let host = subject.host;
    let root = host.mount_of("/");
    let Some(root) = root.filter(|root| !root.device_name.is_empty()) else {
        return vec![no_device(root)];
    };
    let Some(disk) = subject.target() else {
        return no_disk(subject, root).into_iter().collect();
    };
    let mut findings = Vec::new();
    if disk.read_only {
        findings.push(Finding::error(
            "disk",
            format!("the disk {} is read-only", disk.name),
            "make it writable, or replace it",
        ));
    }
    if disk.table.is_none() && !host.stays_beside(disk) {
        findings.push(Finding::error(
            "disk",
            format!(
                "the disk {} has no partition table that is known here",
                disk.name
            ),
            "stage 2 names the disk by its MBR signature or GPT GUID, among others",
        ));
    }
    findings.extend(network(disk));
    if !host.stays_beside(disk) {
        findings.extend(multipath(host, root));
    }
    findings.extend(reach(host, disk));
    findings.extend(haven(host, disk));
    findings
}

/// Nobody knows what disks such a / is on.
fn no_device(root: Option<&Mount>) -> Finding {
    let what = match root.map(|root| root.fs_type.as_str()) {
        Some("zfs") => {
            "/ is on ZFS, which does not tell the kernel what disks its pool is on".to_owned()
        }
        Some(fs_type) => format!("/ is {fs_type}, which is not on a block device"),
        None => "the file system that holds / is not known".to_owned(),
    };
    let remedy = "run it on a machine whose system is on a disk with ext4, xfs or btrfs";
    Finding::error("disk", what, remedy)
}

/// A disk that only an initiator reaches: neither stage 2 nor balenaOS has one, whatever builds the initramfs.
fn network(disk: &Disk) -> Option<Finding> {
    let network = disk.network.as_ref()?;
    Some(over_network(&disk.name, network))
}

fn over_network(name: &str, how: &str) -> Finding {
    Finding::error(
        "disk-network",
        format!(
            "{name} is reached over a network ({how}), which stage 2 does not do, and balenaOS could not start \
             from it"
        ),
        "give the machine a disk of its own, and name that in FLASH_TO",
    )
}

/// Several ways to one disk are as many disks to stage 2 and to balenaOS, which put together none.
fn multipath(host: &Host, root: &Mount) -> Option<Finding> {
    host.is_multipath(&root.device_name).then(|| {
        Finding::error(
            "disk-multipath",
            "/ is on a disk that is reached in several ways (multipath): to stage 2 and to balenaOS each of them \
             is a disk of its own",
            "leave one way to it, and start the machine without multipath",
        )
    })
}

/// A 32-bit kernel counts the pages of a disk in 32 bits: behind that, stage 2 could not wipe what an
/// old partition table left.
fn reach(host: &Host, disk: &Disk) -> Option<Finding> {
    let reach = host.kernel.page_bytes << 32;
    (host.has_32_bit_kernel() && disk.bytes > reach).then(|| {
        Finding::error(
            "disk",
            format!(
                "the disk {} has {} TiB, of which a 32-bit kernel reaches {}",
                disk.name,
                disk.bytes >> 40,
                reach >> 40
            ),
            "start the machine with a 64-bit kernel",
        )
    })
}

/// What was encrypted is not in the new system, nor on the way there.
pub fn encrypted(subject: &Subject) -> Vec<Finding> {
    let host = subject.host;
    let root = host.mount_of("/");
    if !root.is_some_and(|root| host.is_encrypted(&root.device_name)) {
        return Vec::new();
    }
    vec![Finding::warning(
        "encrypted",
        "/ is encrypted, and balenaOS is not: what goes into it (config.json, the networks, the backup) \
         can be read there by whoever has the disk, and until the flash in /boot",
        "make sure that this may be so",
    )]
}

/// Why there is no disk to overwrite; of one that FLASH_TO names, another check says it.
fn no_disk(subject: &Subject, root: &Mount) -> Option<Finding> {
    if subject.material.flash_to.is_some() {
        return None;
    }
    if let Some(finding) = multipath(subject.host, root) {
        return Some(finding);
    }
    // What these are made of is on other machines.
    let mut remote = ["drbd", "nbd", "rbd"].iter();
    if let Some(how) = remote.find(|name| root.device_name.starts_with(**name)) {
        return Some(over_network(&root.device_name, how));
    }
    Some(match root.disks.as_slice() {
        [] | [_] => Finding::error(
            "disk",
            format!(
                "no disk was found under {}, which holds /",
                root.device_name
            ),
            "send the output of `balena-migrate facts` with your report",
        ),
        several => Finding::error(
            "disk",
            format!("/ spans more than one disk: {}", several.join(", ")),
            "this version overwrites one disk: put / on one, or name another disk in FLASH_TO",
        ),
    })
}

/// The disk takes data as fast as the user wants it to.
pub fn write_speed(subject: &Subject) -> Vec<Finding> {
    let speed = match &subject.material.write_speed {
        None => return Vec::new(),
        Some(Ok(speed)) => Speed(speed >> 10),
        Some(Err(reason)) => {
            return vec![Finding::warning(
                "write-speed",
                format!("the speed of the disk could not be measured: {reason}"),
                "make room on it, or leave MIN_WRITE_SPEED and WARN_WRITE_SPEED out",
            )];
        }
    };
    let what = |limit: Speed, name: &str| {
        format!(
            "the disk writes {} kB/s, less than {name}={}",
            speed.0, limit.0
        )
    };
    let remedy = "replace the disk, or lower the limit; a slow disk is often a dying one";
    let config = subject.config;
    if let Some(limit) = config.min_write_speed.value.filter(|limit| speed < *limit) {
        return vec![Finding::error(
            "write-speed",
            what(limit, "MIN_WRITE_SPEED"),
            remedy,
        )];
    }
    let limit = config.warn_write_speed.value.filter(|limit| speed < *limit);
    limit
        .map(|limit| Finding::warning("write-speed", what(limit, "WARN_WRITE_SPEED"), remedy))
        .into_iter()
        .collect()
}

/// The disk can be read, but for as many blocks as the user lets pass.
pub fn bad_blocks(subject: &Subject) -> Vec<Finding> {
    let (Some(limit), Some(scan)) = (
        subject.config.max_badblocks.value,
        &subject.material.bad_blocks,
    ) else {
        return Vec::new();
    };
    let disk = subject.target().map_or("", |disk| &disk.name);
    match scan {
        Err(reason) => vec![Finding::error(
            "bad-blocks",
            format!("the disk {disk} could not be scanned for bad blocks: {reason}"),
            "look at the kernel's log for what is wrong, or leave MAX_BADBLOCKS out",
        )],
        Ok(scan) if scan.is_over_limit() => vec![Finding::error(
            "bad-blocks",
            format!(
                "the disk {disk} has {} bad blocks or more, MAX_BADBLOCKS={limit} lets {} pass: {}",
                scan.bad,
                scan.limit,
                scan.places()
            ),
            "replace the disk: the new system would be on it",
        )],
        Ok(scan) if scan.bad > 0 => vec![Finding::warning(
            "bad-blocks",
            format!(
                "the disk {disk} has {} bad blocks, no more than MAX_BADBLOCKS={limit}: {}",
                scan.bad,
                scan.places()
            ),
            "replace the disk if you can: where some blocks are bad, more will be",
        )],
        Ok(_) => Vec::new(),
    }
}

/// Stage 2 leaves word for the old system, and knows the disk by what is on it, without the
/// distribution's bring-up.
fn haven(host: &Host, disk: &Disk) -> Option<Finding> {
    let root = host.mount_of("/")?;
    host.haven(disk).is_none().then(|| {
        Finding::error(
            "root-fs",
            format!(
                "/ is {}, and stage 2 can mount neither that nor a /boot or EFI system partition beside it",
                root.in_words()
            ),
            "give the machine a /boot partition of its own with ext4, mounted and writable",
        )
    })
}
