//! Finding things by what they are: the disk to overwrite, and file systems.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;

use super::Work;
use super::machine::{Access, Disk, Machine, read_full};
use super::stop::{Code, Stop};
use crate::handover::{DiskIdentity, FsIdentity};
use crate::superblock::{self, HEAD_BYTES, Superblock};

/// How long disks may take to show up.
const DISK_LIMIT: Duration = Duration::from_secs(60);

/// How long the log drive may take once the disk is there.
const DRIVE_LIMIT: Duration = Duration::from_secs(10);

/// How often the wait is shown.
const SAY: Duration = Duration::from_secs(10);

/// Between two looks. Also how long a second disk that matches has to show itself.
const LOOK: Duration = Duration::from_secs(1);

/// The disk to overwrite: it alone matches its description in full.
pub struct Found {
    /// The disk.
    pub disk: Disk,
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
pub fn disk(work: &Work) -> Result<Found, Stop> {
    let start = work.machine.elapsed();
    let mut said = BTreeSet::new();
    let mut before: Vec<String> = Vec::new();
    loop {
        let (matching, others) = look(work);
        for other in others {
            if said.insert(other.clone()) {
                work.log.say(other);
            }
        }
        let names: Vec<String> = matching.iter().map(|disk| disk.name.clone()).collect();
        let settled = names == before;
        let late = work.machine.elapsed().saturating_sub(start) > DISK_LIMIT;
        match <[Disk; 1]>::try_from(matching) {
            Ok([disk]) if settled => {
                work.log.say(format!("the disk is {}", describe(&disk)));
                return Ok(Found { disk });
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

/// The disks that match, and what is said of the others.
fn look(work: &Work) -> (Vec<Disk>, Vec<String>) {
    let disks = match work.machine.disks() {
        Ok(disks) => disks,
        Err(error) => return (Vec::new(), vec![format!("listing the disks: {error}")]),
    };
    let mut matching = Vec::new();
    let mut others = Vec::new();
    for disk in disks {
        let differences = differences(work.machine, &work.handover.disk, &disk);
        match differences.is_empty() {
            true => matching.push(disk),
            false => others.push(format!(
                "{} is another disk: {}",
                disk.name,
                differences.join(", ")
            )),
        }
    }
    (matching, others)
}

/// In what `disk` is not the one described. All that is described counts.
fn differences(machine: &dyn Machine, wanted: &DiskIdentity, disk: &Disk) -> Vec<String> {
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
    match head(machine, &disk.node) {
        Err(error) => found.push(format!("can't be read: {error}")),
        Ok(head) => {
            let table = superblock::table_identity(&head, disk.sector_bytes);
            if table.as_ref() != Some(&wanted.table) {
                let is = table.map_or("none".to_owned(), |table| table.to_string());
                found.push(format!("partition table {is} instead of {}", wanted.table));
            }
        }
    }
    let root = volumes_on(machine, disk)
        .into_iter()
        .any(|volume| volume.superblock.uuid == wanted.old_root.uuid);
    if !root {
        found.push(format!("no file system {}", wanted.old_root.uuid));
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

/// The file system `fs`. Where a copy of the disk is in the machine too, `disk` decides.
pub fn volume(
    machine: &dyn Machine,
    fs: &FsIdentity,
    disk: Option<&Disk>,
) -> Result<Volume, anyhow::Error> {
    let mut found: Vec<Volume> = machine
        .disks()?
        .iter()
        .flat_map(|disk| volumes_on(machine, disk))
        .filter(|volume| volume.superblock.uuid == fs.uuid)
        .collect();
    if found.len() > 1
        && let Some(disk) = disk
    {
        found.retain(|volume| volume.disk == disk.name);
    }
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
                return work.log.say(format!("no log drive: {error:#}"));
            }
            Err(_) => work.machine.sleep(LOOK),
        }
    }
}

fn try_log_drive(work: &Work, fs: &FsIdentity, disk: Option<&Disk>) -> anyhow::Result<()> {
    let volume = volume(work.machine, fs, None)?;
    // It stays mounted during the flash, so it can't be on the disk that is overwritten.
    if disk.is_some_and(|disk| disk.name == volume.disk) {
        return Err(anyhow!("it is on the disk to be overwritten"));
    }
    let mounted = work.machine.mount(&volume.node, &fs.fs_type, true)?;
    work.log.use_drive(mounted)?;
    work.log
        .say(format!("the log goes to {} too", volume.node.display()));
    Ok(())
}

/// A disk for a person.
fn describe(disk: &Disk) -> String {
    let serial = disk.serial.as_deref().unwrap_or("none");
    format!("{}: {} bytes, serial {serial}", disk.name, disk.bytes)
}
