//! The facts of a plan, as plain data: [`super::text`] shows them to people, scripts get them as JSON.

use super::text;
use crate::backup::{self, Origin};
use crate::check::Subject;
use crate::growth::DataPlace;
use crate::host::{Disk, Host};
use crate::place::Waits;

/// The facts of the plan, for people and for scripts.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Summary {
    /// Host name.
    pub machine: String,
    /// The distribution's name for itself.
    pub system: String,
    /// The disk that is overwritten.
    pub disk: DiskSummary,
    /// What becomes of the old system, where it is on another disk.
    pub old_system: Option<String>,
    /// The image.
    pub image: ImageSummary,
    /// Where the payload waits while the disk is overwritten.
    pub payload_waits_in: Waits,
    /// Why there.
    pub payload_waits_because: String,
    /// Where the backup waits, if there is one.
    pub backup_waits_in: Option<Waits>,
    /// Why a flash that a power cut has torn does not go on by itself; nothing when it does.
    pub power_cut_is_fatal: Option<String>,
    /// Bytes of memory that stage 2 needs, a backup of unknown size not counted.
    pub memory_needed: u64,
    /// Bytes of memory of the machine.
    pub memory_total: u64,
    /// The file that becomes `backup.tgz`, if any.
    pub backup: Option<String>,
    /// What that does to the size of resin-data.
    pub data_grows: Grows,
    /// Files that go into the new system.
    pub new_files: Vec<NewFile>,
    /// The change to the boot configuration, in words.
    pub boot: String,
    /// The initramfs and the tool of the distribution that builds it, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initramfs_by: Option<String>,
    /// The partition that gets the log of stage 2, if any.
    pub log_drive: Option<String>,
    /// GRUB for the new system, in words, where it is installed.
    pub new_grub: Option<String>,
    /// Stage 2 stops before the first write.
    pub pretend: bool,
}

/// What becomes of an old system that is on another disk than the one that is overwritten.
pub fn old_system(host: &Host) -> String {
    let disks = host.mount_of("/").map(|root| root.disks.join(" and "));
    let disks = disks.unwrap_or_default();
    let next = match host.firmware.efi {
        true => "the firmware gets an entry for the new one, first in its boot order",
        false => "which of the two starts is up to the boot order of the firmware",
    };
    format!("stays as it is on {disks}; {next}")
}

/// What becomes of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grows {
    /// It stays as it is.
    No,
    /// It gets so many bytes.
    To(u64),
    /// It gets what it needs for a backup that is yet to be made.
    AsNeeded,
}

impl Grows {
    /// What the backup does to resin-data.
    pub fn of(subject: &Subject, data: &DataPlace, has_backup: bool) -> Grows {
        let is_made = backup::origin(subject.config) != Origin::Existing;
        let old = subject.material.old_backup.unwrap_or(0);
        match has_backup {
            true if is_made && data.can_grow() => Grows::AsNeeded,
            true if !is_made => data.size_for(old).map_or(Grows::No, Grows::To),
            _ => Grows::No,
        }
    }
}

/// The disk that is overwritten.
#[derive(Debug, Clone, serde::Serialize)]
pub struct DiskSummary {
    /// Kernel name now.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Maker's name.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Its partition table's own name, or that there is none.
    pub table: String,
    /// What is on it: a line a partition.
    pub partitions: Vec<String>,
}

/// The image.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ImageSummary {
    /// Its file.
    pub path: String,
    /// PRETTY_NAME of its os-release.
    pub name: Option<String>,
    /// The device type that it was made for.
    pub device_type: Option<String>,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Size on the disk in bytes.
    pub unpacked_bytes: u64,
}

/// A file for the new system.
#[derive(Debug, Clone, serde::Serialize)]
pub struct NewFile {
    /// Partition and path, such as `resin-boot:/config.json`.
    pub place: String,
    /// Where it comes from.
    pub from: String,
}

impl DiskSummary {
    /// The disk as it was found.
    pub fn of(host: &Host, disk: &Disk) -> DiskSummary {
        let partitions = disk.partitions.iter().map(|part| {
            let fs = part
                .fs
                .as_ref()
                .map_or("no known file system".to_owned(), |fs| {
                    format!("{} {}", fs.fs_type, fs.label).trim_end().to_owned()
                });
            let mounted = host
                .mounts
                .iter()
                .find(|mount| mount.device_name == part.name)
                .map_or(String::new(), |mount| {
                    format!(", mounted at {}", mount.point)
                });
            format!("{}: {fs}, {}{mounted}", part.name, text::size(part.bytes))
        });
        DiskSummary {
            name: disk.name.clone(),
            bytes: disk.bytes,
            model: disk.model.clone(),
            serial: disk.serial.clone(),
            table: disk
                .table
                .as_ref()
                .map_or("no partition table".to_owned(), ToString::to_string),
            partitions: partitions.collect(),
        }
    }
}
