//! Finding things by what they are: the disk to overwrite, and file systems.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};

use super::Work;
use super::machine::{Access, Disk, Machine, read_full};
use super::stop::{Code, Stop};
use crate::handover::{DiskIdentity, FsIdentity, OldSystem, Resume, TableIdentity};
use crate::superblock::{self, HEAD_BYTES, Superblock};

/// How long disks may take to show up.
const DISK_LIMIT: Duration = Duration::from_secs(60);

/// How long the log drive may take once the disk is there.
const DRIVE_LIMIT: Duration = Duration::from_secs(10);

/// How often the wait is shown.
const SAY: Duration = Duration::from_secs(10);

/// Between two looks. Also how long a second disk that matches has to show itself.
const LOOK: Duration = Duration::from_secs(1);

/// The disk to overwrite: it alone matches its description in full, and the old system is where that
/// says.
pub struct Found {
    /// The disk.
    pub disk: Disk,
}

/// In what state the disk is.
pub enum Seen {
    /// As stage 1 left it.
    Whole(Found),
    /// Overwritten in part by a flash of this run that was cut off.
    Torn(Disk),
}

/// A file system on a disk or a partition.
#[derive(Debug, Clone)]
pub struct Volume {
    /// The device file.
    pub node: PathBuf,
    /// Name of the disk it is on.
    pub disk: String,
    /// Its superblock.
    pub superblock: Superblock,
}

/// Waits for the disk that the hand-over describes.
pub fn disk(work: &Work) -> Result<Seen, Stop> {
    let start = work.machine.elapsed();
    let mut said = BTreeSet::new();
    let mut before: Vec<String> = Vec::new();
    loop {
        let look = look(work);
        for other in look.others {
            if said.insert(other.clone()) {
                work.log.say(other);
            }
        }
        // Beside the one that stage 2 was started from, a copy of the old system means nothing.
        let is_torn = !look.torn.is_empty();
        let matching = match is_torn {
            true => look.torn,
            false => look.whole,
        };
        let names: Vec<String> = matching.iter().map(|disk| disk.name.clone()).collect();
        let settled = names == before;
        let late = work.machine.elapsed().saturating_sub(start) > DISK_LIMIT;
        match <[Disk; 1]>::try_from(matching) {
            Ok([disk]) if settled => {
                work.log.show_disk(&describe(&disk));
                work.log.say(format!("the disk is {}", describe(&disk)));
                return Ok(match is_torn {
                    true => Seen::Torn(disk),
                    false => Seen::Whole(Found { disk }),
                });
            }
            Err(many) if !many.is_empty() && settled => {
                let names = names.join(" and ");
                return Err(Stop {
                    code: Code::DiskAmbiguous,
                    cause: anyhow!("{names} are both the disk that stage 1 saw"),
                });
            }
            _ if late => {
                return Err(Stop {
                    code: Code::DiskNotFound,
                    cause: anyhow!(not_found(&said)),
                });
            }
            _ => before = names,
        }
        let waited = work.machine.elapsed().saturating_sub(start);
        if waited.as_secs() % SAY.as_secs() == SAY.as_secs() - 1 {
            let limit = DISK_LIMIT.as_secs();
            work.log
                .show(format!("still no disk, looking for up to {limit} s"));
        }
        work.log.draw();
        work.machine.sleep(LOOK);
    }
}

fn not_found(said: &BTreeSet<String>) -> String {
    let seen: Vec<&str> = said.iter().map(String::as_str).collect();
    let seen = match seen.is_empty() {
        true => "there is no disk at all".to_owned(),
        false => seen.join("; "),
    };
    format!("the disk that stage 1 saw is not here: {seen}")
}

/// The disks that are there now.
#[derive(Default)]
struct Look {
    whole: Vec<Disk>,
    torn: Vec<Disk>,
    /// What is said of those that do not match.
    others: Vec<String>,
}

fn look(work: &Work) -> Look {
    let mut look = Look::default();
    let disks = work.machine.disks().unwrap_or_else(|error| {
        look.others.push(format!("listing the disks: {error}"));
        Vec::new()
    });
    for disk in disks {
        let mut differences = other_than(&work.handover.disk, &disk);
        let is_torn = differences.is_empty() && is_torn(work, &disk);
        if !is_torn {
            let on_it = contents_other_than(work.machine, &work.handover.disk, &disk);
            differences.extend(on_it);
        }
        match differences.is_empty() {
            true if is_torn => look.torn.push(disk),
            true => look.whole.push(disk),
            false => look.others.push(format!(
                "{} is another disk: {}",
                disk.name,
                differences.join(", ")
            )),
        }
    }
    look
}

/// Whether the flash has begun on `disk`: its first sector, the first that is changed and the last
/// that is made new, is that of this run.
fn is_torn(work: &Work, disk: &Disk) -> bool {
    let resume = work.handover.resume.as_ref();
    let Some(first) = resume.and_then(Resume::first_sector) else {
        return false;
    };
    head(work.machine, &disk.node).is_ok_and(|head| head.starts_with(&first))
}

/// In what `disk` is not the one described. All that is described counts.
fn other_than(wanted: &DiskIdentity, disk: &Disk) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, is: &str, wanted: &str| {
        if is != wanted {
            found.push(format!("{what} {is} instead of {wanted}"));
        }
    };
    compare("size", &disk.bytes.to_string(), &wanted.bytes.to_string());
    compare(
        "sector size",
        &disk.sector_bytes.to_string(),
        &wanted.sector_bytes.to_string(),
    );
    for (what, is, wanted) in [
        ("serial", &disk.serial, &wanted.serial),
        ("wwid", &disk.wwid, &wanted.wwid),
    ] {
        if let Some(wanted) = wanted {
            let is = is.as_deref().map_or("none", str::trim);
            compare(what, is, wanted.trim());
        }
    }
    found
}

/// In what the contents of `disk` are not those that stage 1 saw.
fn contents_other_than(machine: &dyn Machine, wanted: &DiskIdentity, disk: &Disk) -> Vec<String> {
    let mut found = Vec::new();
    match head(machine, &disk.node) {
        Err(error) => found.push(format!("can't be read: {error}")),
        Ok(head) => {
            let table = superblock::table_identity(&head, disk.sector_bytes);
            if table != wanted.table {
                let name = |table: &Option<TableIdentity>| {
                    let table = table.as_ref();
                    table.map_or("none".to_owned(), ToString::to_string)
                };
                found.push(format!(
                    "partition table {} instead of {}",
                    name(&table),
                    name(&wanted.table)
                ));
            }
        }
    }
    let has = |fs: &FsIdentity| {
        let mut volumes = volumes_on(machine, disk).into_iter();
        volumes.any(|volume| volume.superblock.uuid == fs.uuid)
    };
    match &wanted.old_system {
        OldSystem::Overwritten(fs) if !has(fs) => found.push(format!("no file system {}", fs.uuid)),
        OldSystem::Stays(fs) if has(fs) => {
            found.push(format!("the old system is on it ({})", fs.uuid));
        }
        _ => {}
    }
    found
}

/// The file systems on a disk; what can't be read has none.
fn volumes_on(machine: &dyn Machine, disk: &Disk) -> Vec<Volume> {
    let nodes = disk.partitions.iter().map(|partition| &partition.node);
    nodes
        .chain([&disk.node])
        .filter_map(|node| {
            Some(Volume {
                node: node.clone(),
                disk: disk.name.clone(),
                superblock: superblock::identify(&head(machine, node).ok()?)?,
            })
        })
        .collect()
}

/// The first bytes of a device, straight from the medium.
pub fn head(machine: &dyn Machine, node: &Path) -> io::Result<Vec<u8>> {
    let mut device = machine.open(node, Access::Read)?;
    device.forget_cached()?;
    let mut head = vec![0; HEAD_BYTES];
    let read = read_full(&mut *device, &mut head, 0)?;
    head.truncate(read);
    Ok(head)
}

/// The file system `fs` of the old system. Where a copy of it is in the machine too, `disk` decides.
pub fn volume(work: &Work, fs: &FsIdentity, disk: Option<&Disk>) -> anyhow::Result<Volume> {
    let mut found = volumes(work, fs)?;
    if found.len() > 1
        && let Some(disk) = disk
    {
        let stays = work.handover.disk.old_system.stays();
        found.retain(|volume| (volume.disk == disk.name) != stays);
    }
    only(found, fs)
}

/// The file system `fs` on another disk than `disk`, which is overwritten while it is needed.
pub fn volume_elsewhere(work: &Work, fs: &FsIdentity, disk: &Disk) -> anyhow::Result<Volume> {
    let all = volumes(work, fs)?;
    let (on_it, found): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|volume| volume.disk == disk.name);
    ensure!(
        on_it.is_empty() || !found.is_empty(),
        "it is on the disk to be overwritten"
    );
    only(found, fs)
}

/// All that are called `fs`. On a disk that is overwritten in part there is none, whatever is left
/// of those that were: to write to one would damage the new system.
fn volumes(work: &Work, fs: &FsIdentity) -> anyhow::Result<Vec<Volume>> {
    let disks = work.machine.disks().context("listing the disks")?;
    Ok(disks
        .iter()
        .filter(|disk| !is_torn(work, disk))
        .flat_map(|disk| volumes_on(work.machine, disk))
        .filter(|volume| volume.superblock.uuid == fs.uuid)
        .collect())
}

fn only(mut found: Vec<Volume>, fs: &FsIdentity) -> anyhow::Result<Volume> {
    match (found.pop(), found.is_empty()) {
        (Some(volume), true) => Ok(volume),
        (Some(_), false) => Err(anyhow!(
            "more than one file system has the UUID {}",
            fs.uuid
        )),
        (None, _) => Err(anyhow!("no file system has the UUID {}", fs.uuid)),
    }
}

/// Mounts the log drive and lets the log go there, if the user asked for one. A failure is said.
pub fn log_drive(work: &Work, disk: Option<&Disk>) {
    let Some(drive) = &work.handover.log_drive else {
        return;
    };
    let start = work.machine.elapsed();
    loop {
        match try_log_drive(work, &drive.fs, disk) {
            Ok(()) => return,
            Err(error) if work.machine.elapsed().saturating_sub(start) > DRIVE_LIMIT => {
                return work.log.tell(format!("no log drive: {error:#}"));
            }
            Err(_) => work.machine.sleep(LOOK),
        }
    }
}

/// Takes up the log drive of a process before this one, after it died while it overwrote `disk`.
pub fn log_drive_again(work: &Work, disk: &Disk) {
    if work.log.has_drive() {
        return;
    }
    let drive = work.handover.log_drive.as_ref();
    let volume = drive.and_then(|drive| volume_elsewhere(work, &drive.fs, disk).ok());
    let others = work.machine.disks().unwrap_or_default();
    let its_disk = volume.and_then(|volume| {
        let mut others = others.into_iter();
        others.find(|other| other.name == volume.disk)
    });
    // It is still mounted, and is to be mounted once only.
    if let Some(its_disk) = its_disk
        && let Err(error) = work.machine.unmount_all(&its_disk)
    {
        work.log
            .tell(format!("unmounting all of {}: {error}", its_disk.name));
    }
    log_drive(work, Some(disk));
}

fn try_log_drive(work: &Work, fs: &FsIdentity, disk: Option<&Disk>) -> anyhow::Result<()> {
    // It stays mounted during the flash, so it can't be on the disk that is overwritten.
    let volume = match disk {
        Some(disk) => volume_elsewhere(work, fs, disk)?,
        None => volume(work, fs, None)?,
    };
    let mounted = work.machine.mount(&volume.node, &fs.fs_type, true)?;
    work.log.use_drive(mounted)?;
    work.log
        .say(format!("the log goes to {} too", volume.node.display()));
    Ok(())
}

/// A disk for a person.
pub fn describe(disk: &Disk) -> String {
    let serial = disk.serial.as_deref().unwrap_or("none");
    let gigabytes = disk.bytes as f64 / 1e9;
    format!(
        "{}: {gigabytes:.1} GB ({} bytes), serial {serial}",
        disk.name, disk.bytes
    )
}
