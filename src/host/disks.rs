//! Describes every disk: size, names, partitions, what they hold, and the drivers that reach it.
//! Called by the collector.
//!
//! What sysfs says is taken from `/sys/block` (kernel: ABI/stable/sysfs-block); what is on a disk is
//! read from its first bytes. A disk that can't be read (no root, no medium) is listed without that.

use std::collections::{HashSet, VecDeque};
use std::io::Read;

use anyhow::Context;

use super::{BootSector, Disk, FileSystem, Partition};
use crate::device_node;
use crate::superblock;
use crate::sys::Sys;
use crate::vpd;

/// Unit of sizes and starts in sysfs, whatever the sectors of the disk are.
const SYSFS_SECTOR: u64 = 512;

/// SCSI device type of a CD-ROM.
const TYPE_ROM: &str = "5";

/// All disks, sorted by name.
pub(super) fn collect(sys: &Sys) -> anyhow::Result<Vec<Disk>> {
    let names = sys.list("/sys/block").context("listing /sys/block")?;
    let disks = names.iter().filter(|name| is_disk(sys, name));
    disks
        .map(|name| disk(sys, name).with_context(|| format!("describing disk {name}")))
        .collect()
}

/// The file system on a block device, by its kernel name.
pub(super) fn file_system(sys: &Sys, name: &str) -> Option<FileSystem> {
    let head = head_of(sys, name, superblock::HEAD_BYTES)?;
    let found = superblock::identify(&head)?;
    Some(FileSystem {
        fs_type: found.fs_type.to_owned(),
        uuid: found.uuid,
        label: found.label,
    })
}

/// Whether an entry of /sys/block is a disk with a medium: a device is behind it (loop devices, RAM
/// disks and mappings have none), and it is none of the kinds that can't carry a system.
fn is_disk(sys: &Sys, name: &str) -> bool {
    let dir = format!("/sys/block/{name}");
    let other_kind = ["fd", "mtdblock", "sr"]
        .iter()
        .any(|kind| name.starts_with(kind))
        || is_mmc_area(name)
        || attribute(sys, &format!("{dir}/device/type")).as_deref() == Some(TYPE_ROM);
    // One path of a multipath NVMe namespace; the namespace itself is another entry.
    let hidden = attribute(sys, &format!("{dir}/hidden")).as_deref() == Some("1");
    let empty = number(sys, &format!("{dir}/size")).is_none_or(|sectors| sectors == 0);
    sys.exists(&format!("{dir}/device")) && !other_kind && !hidden && !empty
}

/// Boot and protected areas of an eMMC, such as `mmcblk0boot1`.
pub(super) fn is_mmc_area(name: &str) -> bool {
    name.strip_prefix("mmcblk").is_some_and(|rest| {
        let area = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        !area.is_empty()
    })
}

fn disk(sys: &Sys, name: &str) -> anyhow::Result<Disk> {
    let dir = format!("/sys/block/{name}");
    let of = |file: &str| attribute(sys, &format!("{dir}/{file}"));
    let flag = |file: &str| of(file).as_deref() == Some("1");
    let sectors = number(sys, &format!("{dir}/size")).context("reading its size")?;
    let sector_bytes = of("queue/logical_block_size")
        .and_then(|text| text.parse().ok())
        .context("reading its sector size")?;
    let head = head_of(sys, name, 2 * sector_bytes as usize).unwrap_or_default();
    let partitions = partitions(sys, &dir)?;
    Ok(Disk {
        name: name.to_owned(),
        bytes: sectors * SYSFS_SECTOR,
        sector_bytes,
        removable: flag("removable"),
        read_only: flag("ro"),
        // An MMC card calls its model its name.
        model: of("device/model").or_else(|| of("device/name")),
        serial: of("serial")
            .or_else(|| of("device/serial"))
            .or_else(|| vpd::serial(&sys.read(&format!("{dir}/{}", vpd::SERIAL_PAGE)).ok()?)),
        wwid: of("wwid").or_else(|| of("device/wwid")),
        table: superblock::table_identity(&head, sector_bytes),
        boot_sector: BootSector::of(sys, &head, &partitions),
        fs: file_system(sys, name),
        partitions,
        modules: modules(sys, &dir),
        network: network(sys, &dir),
        holders: holders(sys, &dir),
        claimed: sys.is_claimed(&device_node::of(name)),
    })
}

/// What is built on the disk whose sysfs folder is `dir`, and on its partitions.
fn holders(sys: &Sys, dir: &str) -> Vec<String> {
    let parts = sys.list(dir).unwrap_or_default();
    let folders = parts.iter().map(|part| format!("{dir}/{part}/holders"));
    let mut holders: Vec<String> = [format!("{dir}/holders")]
        .into_iter()
        .chain(folders)
        .flat_map(|folder| sys.list(&folder).unwrap_or_default())
        .collect();
    holders.sort();
    holders.dedup();
    holders
}

/// The partitions of the disk whose sysfs folder is `dir`, by number.
fn partitions(sys: &Sys, dir: &str) -> anyhow::Result<Vec<Partition>> {
    let mut partitions = Vec::new();
    for name in sys.list(dir).with_context(|| format!("listing {dir}"))? {
        let of = |file: &str| number(sys, &format!("{dir}/{name}/{file}"));
        let Some(number) = of("partition") else {
            continue;
        };
        let (Some(start), Some(sectors)) = (of("start"), of("size")) else {
            continue;
        };
        let number = u32::try_from(number).with_context(|| format!("numbering {name}"))?;
        let fs = file_system(sys, &name);
        partitions.push(Partition {
            name,
            number,
            start: start * SYSFS_SECTOR,
            bytes: sectors * SYSFS_SECTOR,
            fs,
        });
    }
    partitions.sort_by_key(|partition| partition.number);
    Ok(partitions)
}

/// Modules of the drivers from the disk up to the root of the device tree, and of what these can't do
/// without (clocks, resets, regulators), without repetition.
fn modules(sys: &Sys, dir: &str) -> Vec<String> {
    let mut modules = Vec::new();
    let Ok(device) = sys.canonical(&format!("{dir}/device")) else {
        return modules;
    };
    let mut starts: VecDeque<String> = controllers(sys, device).into();
    let mut seen = HashSet::new();
    while let Some(start) = starts.pop_front() {
        let mut at = start.as_str();
        while at.starts_with("/sys/devices/") && seen.insert(at.to_owned()) {
            starts.extend(suppliers(sys, at));
            let link = sys.canonical(&format!("{at}/driver/module")).ok();
            // What is built in may have a folder in /sys/module too, but no state.
            let loaded = link.filter(|module| sys.exists(&format!("{module}/initstate")));
            if let Some(module) = loaded.as_deref().and_then(last_name)
                && !modules.iter().any(|known| known == module)
            {
                modules.push(module.to_owned());
            }
            at = at.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }
    modules
}

/// The devices that a device waits for before its driver takes it (kernel: ABI/testing/sysfs-devices-supplier):
/// on boards these are not above it in the tree.
fn suppliers(sys: &Sys, device: &str) -> Vec<String> {
    let names = sys.list(device).unwrap_or_default().into_iter();
    names
        .filter(|name| name.starts_with("supplier:"))
        .filter_map(|name| sys.canonical(&format!("{device}/{name}/supplier")).ok())
        .collect()
}

/// Where the way to the hardware starts: at the device itself, except that a multipath NVMe
/// namespace hangs below a virtual subsystem, which links to its controllers.
fn controllers(sys: &Sys, device: String) -> Vec<String> {
    if !device.starts_with("/sys/devices/virtual/nvme-subsystem/") {
        return vec![device];
    }
    sys.list(&device)
        .unwrap_or_default()
        .iter()
        .filter(|name| name.starts_with("nvme"))
        .filter_map(|name| sys.canonical(&format!("{device}/{name}")).ok())
        .filter(|path| !path.starts_with(&device))
        .collect()
}

/// What brings a disk here over a network.
fn network(sys: &Sys, dir: &str) -> Option<String> {
    /// What NVMe calls its ways that are none of this machine's own hardware.
    const FABRICS: [&str; 4] = ["tcp", "rdma", "fc", "loop"];
    let device = sys.canonical(&format!("{dir}/device")).ok()?;
    let fabric = controllers(sys, device.clone())
        .iter()
        .filter_map(|controller| attribute(sys, &format!("{controller}/transport")))
        .find(|transport| FABRICS.contains(&transport.as_str()));
    if let Some(fabric) = fabric {
        return Some(format!("nvme-{fabric}"));
    }
    // An initiator's session, and a host bus adapter that is a network interface.
    let is_session = |name: &str| {
        let number = name.strip_prefix("session");
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let mut names = device.split('/');
    match (names.any(is_session), device.contains("/net/")) {
        (true, _) => Some("iscsi".to_owned()),
        (false, true) => Some("fcoe".to_owned()),
        (false, false) => None,
    }
}

/// The first bytes of a block device, at most `bytes`; `None` when it can't be read.
pub(super) fn head_of(sys: &Sys, name: &str, bytes: usize) -> Option<Vec<u8>> {
    let node = sys.open(&device_node::of(name)).ok()?;
    let mut head = Vec::with_capacity(bytes);
    node.take(bytes as u64).read_to_end(&mut head).ok()?;
    Some(head)
}

/// A sysfs attribute without blanks around it; `None` when it is missing or empty.
pub(super) fn attribute(sys: &Sys, path: &str) -> Option<String> {
    let bytes = sys.read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(sys: &Sys, path: &str) -> Option<u64> {
    attribute(sys, path)?.parse().ok()
}

fn last_name(path: &str) -> Option<&str> {
    path.rsplit('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_of_an_emmc_are_no_disks() {
        assert!(is_mmc_area("mmcblk0boot0"));
        assert!(is_mmc_area("mmcblk12rpmb"));
        assert!(!is_mmc_area("mmcblk0"));
        assert!(!is_mmc_area("sda"));
    }
}
