//! Where the image and the backup wait while the disk is overwritten: what is possible, what is
//! chosen, and why. The planner asks it too.

use super::Subject;
use super::memory::Need;
use crate::backup::{self, Origin};
use crate::config::kind::word::PayloadPlace;
use crate::finding::Finding;
use crate::growth::DataPlace;
use crate::host::{Disk, Mount};
use crate::payload::scan::Scan;
use crate::place::{FOLDER, Layout, Region, Waits, margin};

/// The kernel, a copy of the initramfs, the record and the boot code are small beside this.
const OTHERS: u64 = 64 << 20;

/// What is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Where the image waits.
    pub payload: Waits,
    /// Where the backup waits.
    pub backup: Waits,
    /// Why, in words.
    pub why: String,
}

/// A file system on the disk to overwrite, for files behind the new system.
pub struct Ground<'a> {
    /// The disk.
    pub disk: &'a Disk,
    /// The file system.
    pub mount: &'a Mount,
    /// How it lies on the disk.
    pub layout: Layout,
}

impl Ground<'_> {
    /// The folder for the files.
    pub fn folder(&self) -> String {
        format!("{}/{FOLDER}", self.mount.point.trim_end_matches('/'))
    }
}

/// Chooses the places; `None` without a usable image. What is not possible is said for each place.
pub fn choose(subject: &Subject) -> Option<Result<Choice, Vec<(Waits, String)>>> {
    let scan = subject.material.image.as_ref().ok()?;
    let order: &[Waits] = match *subject.config.payload {
        PayloadPlace::Auto => &[Waits::Disk, Waits::Extents, Waits::Memory],
        PayloadPlace::Memory => &[Waits::Memory],
        PayloadPlace::Disk => &[Waits::Disk],
        PayloadPlace::Extents => &[Waits::Extents],
    };
    let mut refused = Vec::new();
    for payload in order {
        match possible(subject, scan, *payload) {
            Ok((backup, why)) => {
                return Some(Ok(Choice {
                    payload: *payload,
                    backup,
                    why: because(subject, why, &refused),
                }));
            }
            Err(reason) => refused.push((*payload, reason)),
        }
    }
    Some(Err(refused))
}

/// Why it is that place, and none of those before it.
fn because(subject: &Subject, why: String, refused: &[(Waits, String)]) -> String {
    if *subject.config.payload != PayloadPlace::Auto {
        return "by PAYLOAD".to_owned();
    }
    let others = refused
        .iter()
        .map(|(place, reason)| sentence(*place, reason));
    let mut all: Vec<String> = [why].into_iter().filter(|why| !why.is_empty()).collect();
    all.extend(others);
    all.join("; ")
}

fn sentence(place: Waits, reason: &str) -> String {
    format!("not {}: {reason}", place.in_words())
}

/// Whether the image can wait there: then also where the backup waits, and what speaks for it.
fn possible(subject: &Subject, scan: &Scan, payload: Waits) -> Result<(Waits, String), String> {
    let image = &subject.config.image_name.0;
    match payload {
        Waits::Disk => {
            let disk = on_another_disk(subject, image)?;
            let backup = backup_beside(subject)?;
            Ok((backup, format!("{disk} is not overwritten")))
        }
        Waits::Extents => {
            let ground = ground(subject, scan)?;
            let backup = match on_another_disk(subject, &subject.config.backup_file.0) {
                Ok(_) => Waits::Disk,
                Err(_) => Waits::Extents,
            };
            let why = format!("{} has room there", ground.disk.name);
            Ok((backup, why))
        }
        Waits::Memory => {
            mountable(subject, image)?;
            let backup = backup_beside(subject)?;
            let need = Need::of(subject, scan, Waits::Memory, backup);
            let total = subject.host.memory.total;
            match need.total() <= total {
                true => Ok((backup, String::new())),
                false => Err(need.in_words(total)),
            }
        }
    }
}

/// Where the backup waits when the image is not in extents.
fn backup_beside(subject: &Subject) -> Result<Waits, String> {
    let path = &subject.config.backup_file.0;
    if on_another_disk(subject, path).is_ok() {
        return Ok(Waits::Disk);
    }
    if has_backup(subject) {
        mountable(subject, path)?;
    }
    Ok(Waits::Memory)
}

/// There is a backup, or one will be made.
pub(super) fn has_backup(subject: &Subject) -> bool {
    backup::origin(subject.config) != Origin::Existing || subject.material.old_backup.is_some()
}

/// The name of the disk that holds `path`, which is one that stage 2 can mount it from while it
/// overwrites another.
fn on_another_disk<'a>(subject: &Subject<'a>, path: &str) -> Result<&'a str, String> {
    let mount = subject.host.mount_of(path);
    let (Some(mount), Some(target)) = (mount, subject.target()) else {
        return Err(format!("{path} is on no disk"));
    };
    if mount.disks.contains(&target.name) {
        return Err(format!(
            "{path} is on {}, which is overwritten",
            target.name
        ));
    }
    mountable(subject, path)?;
    match subject.host.volume(&mount.device_name) {
        Some((disk, _)) => Ok(&disk.name),
        None => Err(format!("{path} is on no disk")),
    }
}

/// Stage 2 can mount the file system that holds `path`.
fn mountable(subject: &Subject, path: &str) -> Result<(), String> {
    match subject.host.mount_of(path) {
        // The check of the disk says what is wrong there.
        Some(mount) if mount.point == "/" && subject.target().is_none() => Ok(()),
        Some(mount) if subject.host.stage2_mounts(mount) => Ok(()),
        mount => {
            let encrypted =
                mount.is_some_and(|mount| subject.host.is_encrypted(&mount.device_name));
            let place = mount.map_or("nothing that is known here".to_owned(), Mount::in_words);
            Err(match encrypted {
                true => format!("{path} is on {place}, encrypted, and stage 2 has no key for it"),
                false => format!("{path} is on {place}, which stage 2 can't mount"),
            })
        }
    }
}

/// The file system that gets the files: that of the image, or else the one with most room.
pub fn ground<'a>(subject: &Subject<'a>, scan: &Scan) -> Result<Ground<'a>, String> {
    if let Some(reason) = &subject.material.no_room {
        return Err(reason.clone());
    }
    let host = subject.host;
    let disk = subject
        .target()
        .ok_or("there is no one disk to overwrite")?;
    let region = region(subject, scan, disk);
    let need = need(subject, scan);
    let holds_image = |mount: &Mount| {
        let holder = host.mount_of(&subject.config.image_name.0);
        holder.is_some_and(|holder| holder.point == mount.point)
    };
    let mut refused = Vec::new();
    let mut grounds = Vec::new();
    for mount in host
        .mounts
        .iter()
        .filter(|mount| mount.disks.contains(&disk.name))
    {
        match usable(subject, disk, mount, &region, need) {
            Ok(layout) => grounds.push(Ground {
                disk,
                mount,
                layout,
            }),
            // A file system may be mounted in many places.
            Err(reason) if refused.contains(&reason) => (),
            Err(reason) => refused.push(reason),
        }
    }
    let best = grounds
        .into_iter()
        .max_by_key(|ground| (holds_image(ground.mount), ground.mount.free));
    best.ok_or_else(|| match refused.is_empty() {
        true => format!("no file system on {} is mounted", disk.name),
        false => refused.join(", "),
    })
}

/// Whether files can be kept on a file system, by estimate: what is free may lie elsewhere.
fn usable(
    subject: &Subject,
    disk: &Disk,
    mount: &Mount,
    region: &Region,
    need: u64,
) -> Result<Layout, String> {
    let mib = |bytes: u64| bytes >> 20;
    let layout = Layout::of_mount(subject.host, disk, mount).map_err(|error| error.to_string())?;
    if mount.read_only {
        return Err(format!("{} is read-only", mount.point));
    }
    let behind = layout.bytes_in(region);
    if behind < need {
        return Err(format!(
            "{} has {} MiB behind the new system, {} are needed",
            mount.point,
            mib(behind),
            need.div_ceil(1 << 20)
        ));
    }
    let least = need + margin(mount.bytes);
    if mount.free < least {
        return Err(format!(
            "{} has {} MiB free, {} are needed",
            mount.point,
            mib(mount.free),
            least.div_ceil(1 << 20)
        ));
    }
    Ok(layout)
}

/// Whether there is room on the ground for so many bytes more, by estimate.
pub fn has_room_for(
    subject: &Subject,
    scan: &Scan,
    ground: &Ground,
    more: u64,
) -> Result<(), String> {
    let region = region(subject, scan, ground.disk);
    let need = need(subject, scan) + more;
    usable(subject, ground.disk, ground.mount, &region, need).map(|_| ())
}

/// Whether the firmware reaches enough of the ground for what it is to start, by estimate.
pub fn is_in_reach(subject: &Subject, scan: &Scan, ground: &Ground) -> Result<(), String> {
    let region = region(subject, scan, ground.disk);
    let near = region.in_reach_of_firmware(ground.disk.sector_bytes);
    match ground.layout.bytes_in(&near) < OTHERS {
        true => Err(format!(
            "{} has no room before the place on {} where an MBR, or a BIOS, counts no more sectors",
            ground.mount.point, ground.disk.name
        )),
        false => Ok(()),
    }
}

/// What is behind the new system, by estimate.
fn region(subject: &Subject, scan: &Scan, disk: &Disk) -> Region {
    // How far resin-data has to grow is known when the backup is made.
    let data = DataPlace::of(scan, disk.bytes);
    let data_end = data.and_then(|data| data.end_for(backup_estimate(subject)).ok()?);
    Region::behind(scan.image_bytes, data_end, disk.bytes)
}

/// Bytes for all files behind the new system, by estimate.
fn need(subject: &Subject, scan: &Scan) -> u64 {
    scan.file_bytes
        .saturating_add(backup_estimate(subject))
        .saturating_add(OTHERS)
}

/// Bytes that the backup may have; nobody knows what a script makes.
fn backup_estimate(subject: &Subject) -> u64 {
    match backup::origin(subject.config) {
        Origin::Existing => subject.material.old_backup.unwrap_or(0),
        Origin::Script(_) | Origin::Definition(_) | Origin::Directories(_) => {
            subject.material.backup.size.packed
        }
    }
}

/// There is a place for the image.
pub fn payload(subject: &Subject) -> Vec<Finding> {
    let Some(Err(refused)) = choose(subject) else {
        return Vec::new();
    };
    let reasons: Vec<String> = refused
        .iter()
        .map(|(place, reason)| sentence(*place, reason))
        .collect();
    let remedy = match *subject.config.payload {
        PayloadPlace::Auto => {
            "put the image on another disk or a USB stick, make room on this one, or use a smaller \
             image or backup"
        }
        _ => "leave PAYLOAD at auto, or do away with the reason",
    };
    vec![Finding::error(
        "payload-place",
        format!(
            "the image has no place to wait in while the disk is overwritten: {}",
            reasons.join("; ")
        ),
        remedy,
    )]
}
