//! Lists the mounted file systems that hold files, and the disks below those that lie on block devices.
//! Called by the collector.

use anyhow::Context;

use super::{Disk, Mount, disks};
use crate::device_node;
use crate::sys::Sys;

/// File systems that the kernel makes up: nothing of a user's is in them.
const MADE_UP: [&str; 20] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// File systems without a block device that can be measured without a wait: a server may never answer.
const LOCAL: [&str; 5] = ["btrfs", "overlay", "ramfs", "tmpfs", "zfs"];

/// Every mounted file system that files are in, in the order in which they were mounted. Those that no block
/// device backs hide what is below them too.
pub(super) fn collect(sys: &Sys, known: &[Disk]) -> anyhow::Result<Vec<Mount>> {
    let path = "/proc/self/mountinfo";
    let bytes = sys.read(path).with_context(|| format!("reading {path}"))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .lines()
        .filter_map(parse)
        .filter_map(|entry| mount(sys, known, &entry).or_else(|| without_device(sys, entry)))
        .collect())
}

/// Whether what is mounted at `point` can be written to; `None` when nothing is.
pub(super) fn is_writable(sys: &Sys, point: &str) -> Option<bool> {
    let bytes = sys.read("/proc/self/mountinfo").ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut entries = text.lines().filter_map(parse);
    let entry = entries.rfind(|entry| entry.point == point)?;
    Some(!entry.read_only)
}

/// A line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// `major:minor` of the file system.
    device: String,
    /// The folder of the file system that is mounted.
    subtree: String,
    /// Mount point.
    point: String,
    fs_type: String,
    /// What was mounted: a device node for most file systems on disks.
    source: String,
    read_only: bool,
}

/// Parses a line of mountinfo (kernel: filesystems/proc, 3.5); `None` for what is not one.
fn parse(line: &str) -> Option<Entry> {
    // Optional fields, of which there may be none, end in a lone hyphen.
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(2);
    let device = front.next()?.to_owned();
    let (subtree, point) = (unescaped(front.next()?), unescaped(front.next()?));
    let options = front.next()?;
    let mut back = back.split(' ');
    let (fs_type, source) = (back.next()?.to_owned(), unescaped(back.next()?));
    let super_options = back.next().unwrap_or_default();
    let is_ro = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Entry {
        device,
        subtree,
        point,
        fs_type,
        source,
        read_only: is_ro(options) || is_ro(super_options),
    })
}

/// Undoes the octal escapes of blanks, tabs, line breaks and backslashes.
fn unescaped(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escape = after.get(..3).filter(|_| *first == b'\\');
        let octal = escape.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        bytes.push(octal.unwrap_or(*first));
        rest = &after[if octal.is_some() { 3 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A file system that is on no block device known here: in memory, on a server, in a pool.
fn without_device(sys: &Sys, entry: Entry) -> Option<Mount> {
    let fs_type = entry.fs_type.as_str();
    if MADE_UP.contains(&fs_type) {
        return None;
    }
    let space = match LOCAL.contains(&fs_type) {
        true => sys.statvfs(&entry.point).ok(),
        false => None,
    };
    Some(Mount {
        point: entry.point,
        subtree: entry.subtree,
        device: entry.device,
        device_name: String::new(),
        disks: Vec::new(),
        fs_type: entry.fs_type,
        uuid: None,
        bytes: space.map_or(0, |space| space.bytes),
        free: space.map_or(0, |space| space.free),
        read_only: entry.read_only,
        everybody_reads: false,
    })
}

fn mount(sys: &Sys, known: &[Disk], entry: &Entry) -> Option<Mount> {
    let folder = device_folder(sys, entry)?;
    let device_name = name_of(&folder).to_owned();
    let device = match sys.read_text(&format!("{folder}/dev")) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => entry.device.clone(),
    };
    let partition = known
        .iter()
        .flat_map(|disk| &disk.partitions)
        .find(|partition| partition.name == device_name);
    let fs = match partition {
        Some(partition) => partition.fs.clone(),
        None => disks::file_system(sys, &device_name),
    };
    // A stale superblock of another kind says nothing about the file system that is mounted.
    let uuid = fs
        .filter(|fs| same_kind(&fs.fs_type, &entry.fs_type))
        .map(|fs| fs.uuid);
    let mut disks = Vec::new();
    disks_below(sys, known, &folder, &mut disks);
    if entry.fs_type == "btrfs" {
        for member in btrfs_members(sys, uuid.as_deref()) {
            disks_below(sys, known, &member, &mut disks);
        }
    }
    disks.sort();
    disks.dedup();
    let space = sys.statvfs(&entry.point).ok();
    let is_open = || {
        sys.meta(&entry.point)
            .is_ok_and(|meta| meta.mode & 0o001 != 0)
    };
    Some(Mount {
        everybody_reads: entry.fs_type == "vfat" && is_open(),
        point: entry.point.clone(),
        subtree: entry.subtree.clone(),
        device,
        device_name,
        disks,
        fs_type: entry.fs_type.clone(),
        uuid,
        bytes: space.map_or(0, |space| space.bytes),
        free: space.map_or(0, |space| space.free),
        read_only: entry.read_only,
    })
}

/// Whether a superblock of one type can be mounted as the other: the ext4 driver takes its ancestors
/// under any of their names.
fn same_kind(found: &str, mounted: &str) -> bool {
    found == mounted || (found.starts_with("ext") && mounted.starts_with("ext"))
}

/// The sysfs folder of the block device that backs a mount; `None` when none does.
///
/// File systems that can span devices have a made-up number with major 0; of these only btrfs
/// names a device as its source.
fn device_folder(sys: &Sys, entry: &Entry) -> Option<String> {
    if !entry.device.starts_with("0:") {
        let link = format!("/sys/dev/block/{}", entry.device);
        return sys.canonical(&link).ok();
    }
    if entry.fs_type != "btrfs" {
        return None;
    }
    let node = sys.canonical(&entry.source).ok()?;
    let name = device_node::sysfs_name(&node)?;
    sys.canonical(&format!("/sys/class/block/{name}")).ok()
}

/// sysfs folders of all devices of a mounted btrfs.
fn btrfs_members(sys: &Sys, uuid: Option<&str>) -> Vec<String> {
    let Some(uuid) = uuid else {
        return Vec::new();
    };
    canonical_entries(sys, &format!("/sys/fs/btrfs/{uuid}/devices"))
}

/// Adds the names of the disks below the block device with that sysfs folder: through partitions
/// to their disk, through mappings and arrays to their members.
fn disks_below(sys: &Sys, known: &[Disk], folder: &str, disks: &mut Vec<String>) {
    if sys.exists(&format!("{folder}/partition"))
        && let Some((parent, _)) = folder.rsplit_once('/')
    {
        return disks_below(sys, known, parent, disks);
    }
    let name = name_of(folder);
    if known.iter().any(|disk| disk.name == name) {
        disks.push(name.to_owned());
    }
    for member in canonical_entries(sys, &format!("{folder}/slaves")) {
        disks_below(sys, known, &member, disks);
    }
}

/// What the links in a folder lead to.
fn canonical_entries(sys: &Sys, folder: &str) -> Vec<String> {
    let names = sys.list(folder).unwrap_or_default();
    names
        .iter()
        .filter_map(|name| sys.canonical(&format!("{folder}/{name}")).ok())
        .collect()
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_and_without_optional_fields() {
        let plain = parse("27 1 254:0 / / rw,relatime - ext4 /dev/vda1 rw,discard").unwrap();
        assert_eq!(plain.device, "254:0");
        assert_eq!((plain.point.as_str(), plain.subtree.as_str()), ("/", "/"));
        assert_eq!(plain.source, "/dev/vda1");
        assert!(!plain.read_only);
        let shared = parse(
            "36 35 98:0 /mnt1 /mnt2 ro,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue",
        )
        .unwrap();
        assert_eq!(shared.subtree, "/mnt1");
        assert_eq!(shared.fs_type, "ext3");
        assert!(shared.read_only);
    }

    #[test]
    fn a_read_only_superblock_counts() {
        assert!(
            parse("1 0 8:1 / / rw - ext4 /dev/sda1 ro")
                .unwrap()
                .read_only
        );
    }

    #[test]
    fn names_with_blanks_and_backslashes() {
        assert_eq!(unescaped("/mnt/my\\040disk"), "/mnt/my disk");
        assert_eq!(unescaped("a\\134b"), "a\\b");
        assert_eq!(unescaped("tail\\04"), "tail\\04");
        assert_eq!(unescaped("gr\\303\\274n"), "grün");
    }

    #[test]
    fn other_lines() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("27 1 254:0 / /"), None);
    }
}
