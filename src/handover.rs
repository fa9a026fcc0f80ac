//! The hand-over: everything that stage 2 may know.
//!
//! Stage 1 writes it as `/etc/balena-migrate-stage2.conf` (JSON, mode 0600) and seals the same
//! bytes into the initramfs. Stage 2 reads nothing else of stage 1: neither the configuration nor
//! the host snapshot. Contents of files (config.json, keyfiles, old boot files) are not in this
//! document but beside it in the initramfs, so that it can be shown in a bug report.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::efi::load_option::PartitionId;
use crate::payload::digest::unhex;

/// Where the hand-over lies, both on the old system and in the initramfs.
pub const PATH: &str = "/etc/balena-migrate-stage2.conf";

/// The version this program writes, and the only one it reads: the two stages are one executable.
pub const VERSION: u32 = 4;

/// The hand-over document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// [`VERSION`].
    pub version: u32,
    /// Names this run: the journal and the report of stage 2 carry it too.
    pub run_id: String,
    /// The disk to overwrite.
    pub disk: DiskIdentity,
    /// Kernel modules to load, in this order: paths in the initramfs.
    pub modules: Vec<String>,
    /// Boot configuration to put back before anything else is done.
    pub restore: Vec<Restore>,
    /// The OS image.
    pub payload: Payload,
    /// `backup.tgz`, if there is one.
    pub backup: Option<StoredFile>,
    /// Files for the new system.
    pub install: Vec<Install>,
    /// Where to leave the report and the log when the old system comes back.
    pub report: ReportPlace,
    /// What starts systems on this machine.
    pub firmware: Firmware,
    /// What to do to the variables of UEFI firmware.
    pub efi: Option<Efi>,
    /// A partition on another disk that gets the log, if asked for.
    pub log_drive: Option<LogDrive>,
    /// Bytes of memory that must stay free once the payload and the backup are in memory.
    pub memory_reserve: u64,
    /// How the flash goes on after a power cut in the middle of it; without it, it can't.
    pub resume: Option<Resume>,
    /// Stop just before the first write and go back to the old system.
    pub pretend: bool,
    /// How people know the machine: its host name.
    pub machine: String,
    /// What comes of a disk that can't be overwritten.
    pub power: Power,
    /// How much is shown.
    pub log_level: LogLevel,
}

/// What starts systems on a machine: of an image that has a way for each, one stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// Boot code in the first sector.
    Bios,
    /// A program in an EFI system partition.
    Efi,
    /// The firmware of a board, which reads files of a partition by their names.
    Board,
}

/// What UEFI firmware keeps of the old system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Efi {
    /// Variables of stage 1, to be removed before anything else is done.
    pub remove: Vec<String>,
    /// The partitions of the disk: once they are gone, so are the boot entries that name them.
    pub old_partitions: Vec<PartitionId>,
    /// The firmware has started the old system from another disk, and goes on to start that unless it takes
    /// an entry for the new system: without one nothing is overwritten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_entry: bool,
}

/// What happens when the disk still can't be overwritten after many tries: never a restart, since
/// it would find no system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// The machine stays on and tries for ever.
    Hold,
    /// The machine is switched off.
    Off,
}

/// How much stage 2 shows on the consoles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// As [`LogLevel::Warn`].
    Error,
    /// Phases, warnings and endings.
    Warn,
    /// Each step and its progress too.
    Info,
    /// Each mount, file and retry too; these are then in the log as well.
    Debug,
    /// As [`LogLevel::Debug`].
    Trace,
}

/// What a disk is known by. Every field that is present must match, on exactly one disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskIdentity {
    /// Size in bytes.
    pub bytes: u64,
    /// Logical sector size in bytes.
    pub sector_bytes: u32,
    /// What `/sys/block/X/serial` or `/sys/block/X/device/serial` said, or the disk itself ([`crate::vpd`]).
    pub serial: Option<String>,
    /// What `/sys/block/X/wwid` or `/sys/block/X/device/wwid` said.
    pub wwid: Option<String>,
    /// The partition table in force when stage 1 ran; none where there was none, as on a new disk.
    pub table: Option<TableIdentity>,
    /// Where the old system is, seen from this disk.
    pub old_system: OldSystem,
}

/// Where the old system is, by a file system of it: the one it ran from, or where stage 2 can't mount
/// that, the one it was started from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum OldSystem {
    /// On the disk to overwrite, where this file system must be.
    Overwritten(FsIdentity),
    /// On another disk, where it stays: this file system must not be on the one to overwrite.
    Stays(FsIdentity),
}

impl OldSystem {
    /// It outlives the flash.
    pub fn stays(&self) -> bool {
        matches!(self, OldSystem::Stays(_))
    }
}

/// A partition table's own name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum TableIdentity {
    /// MBR: the 32-bit disk signature, 8 lower-case hex digits.
    Mbr(String),
    /// GPT: the disk GUID, lower case with hyphens.
    Gpt(String),
}

impl fmt::Display for TableIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableIdentity::Mbr(id) => write!(f, "MBR {id}"),
            TableIdentity::Gpt(id) => write!(f, "GPT {id}"),
        }
    }
}

/// A file system by UUID, and how to mount it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsIdentity {
    /// As `/dev/disk/by-uuid` spells it.
    pub uuid: String,
    /// The kernel's name for the type, such as `ext4` or `vfat`.
    pub fs_type: String,
}

/// A file of the old machine that stage 2 needs, proven by size and hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFile {
    /// Where it is, and where it waits while the disk is overwritten.
    pub place: Place,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, 64 lower-case hex digits.
    pub sha256: String,
}

/// Where a file waits while the disk is overwritten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Place {
    /// In a tmpfs of its own, into which stage 2 copies this file.
    Memory(FilePath),
    /// Where it is: on another disk than the one to overwrite.
    Disk(FilePath),
    /// On the disk to overwrite, in these parts of it, in this order; none of them is touched by
    /// the flash. They are read without the file system that they were allocated from. Together
    /// they may have more bytes than the file.
    Extents(Vec<Extent>),
}

/// A file by its file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePath {
    /// The file system that holds it.
    pub fs: FsIdentity,
    /// Path from the root of that file system, with a leading `/`.
    pub path: String,
}

/// A part of a disk. Both ends are multiples of the disk's sector size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// First byte on the disk.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
}

impl Extent {
    /// The first byte behind it.
    pub fn end(&self) -> u64 {
        self.start + self.bytes
    }
}

/// The OS image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// The image file on the old system.
    pub file: StoredFile,
    /// How it is compressed.
    pub format: Format,
    /// The uncompressed image.
    pub image: Image,
}

/// What brings stage 2 back after a power cut in the middle of the flash: a first sector that leads to
/// it, and the [`crate::resume`] record that says how far the flash is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// Where the record is: [`crate::resume::RECORD_BYTES`], outside of what the flash touches.
    pub record: Extent,
    /// What the first sector of the disk is to begin with, as hex digits: on a BIOS [`BOOT_CODE_BYTES`],
    /// and the old system's signature and partition table stay; for UEFI firmware, and that of boards, all
    /// of an MBR. With it there, the firmware starts stage 2 at every boot.
    pub first_sector: String,
    /// Where secrets lie outside of what the flash touches (the initramfs that is loaded then);
    /// wiped once the new system is complete.
    pub secrets: Vec<Extent>,
}

/// Size in bytes of the boot code of an MBR; the disk signature and the partition table follow.
pub const BOOT_CODE_BYTES: usize = 440;

/// Size in bytes of an MBR, also on larger sectors.
pub const MBR_BYTES: usize = 512;

impl Resume {
    /// The bytes of [`Resume::first_sector`]; none when they are neither boot code nor an MBR in hex
    /// digits.
    pub fn first_sector(&self) -> Option<Vec<u8>> {
        unhex(&self.first_sector)
            .filter(|bytes| [BOOT_CODE_BYTES, MBR_BYTES].contains(&bytes.len()))
    }
}

/// What an image file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The image itself.
    Raw,
    /// gzip, one or more members.
    Gzip,
    /// bzip2, one or more streams.
    Bzip2,
    /// xz, one or more streams.
    Xz,
    /// zstd, one or more frames.
    Zstd,
    /// A zip file with the image in it.
    Zip(ZipEntry),
}

/// Where an image lies in a zip file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZipEntry {
    /// The first byte of its data in the file.
    pub offset: u64,
    /// How the data is compressed.
    pub method: ZipMethod,
    /// Size of the data in the file, in bytes.
    pub compressed_bytes: u64,
    /// Size of the image, in bytes.
    pub bytes: u64,
    /// CRC-32 of the image.
    pub crc32: u32,
}

/// Compression of a zip entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZipMethod {
    /// None.
    Stored,
    /// RFC 1951.
    Deflate,
}

/// The uncompressed image as stage 1 measured it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of all of it, 64 lower-case hex digits.
    pub sha256: String,
    /// `resin-boot`.
    pub boot: ImagePartition,
    /// `resin-data`.
    pub data: ImagePartition,
    /// Where resin-data is to end on the disk, in bytes, when it has to grow for the backup.
    pub data_end: Option<u64>,
    /// What goes over its bytes, in no part of a partition.
    pub overlays: Vec<Overlay>,
    /// `balenaos.fingerprint` on resin-boot is true of the image: then it must be true of the new
    /// system too.
    pub fingerprint: bool,
}

/// Bytes that go over those of the image: its boot loader, where it has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// The file in the initramfs with the bytes.
    pub content: String,
    /// Where they belong, in bytes from the start of the disk.
    pub at: u64,
    /// How many.
    pub bytes: u64,
    /// Their SHA-256, 64 lower-case hex digits.
    pub sha256: String,
}

/// A partition of the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePartition {
    /// Partition number as the kernel counts, from 1.
    pub number: u32,
    /// File-system label, such as `resin-boot`.
    pub label: String,
    /// The kernel's name of the file-system type.
    pub fs_type: String,
    /// First byte in the image.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// A file of the boot configuration, as it was before stage 1 changed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The file system that holds the file.
    pub fs: FsIdentity,
    /// Path from the root of that file system, with a leading `/`.
    pub path: String,
    /// The old file, or nothing where there was none.
    pub old: Option<OldFile>,
}

/// Content of a file to put back, and the mode and owner that it gets where it is gone; one that is
/// there keeps its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldFile {
    /// Path in the initramfs of a file with the old content.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A file that goes into the new system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// Path of its content in the initramfs.
    pub content: String,
    /// Where the content comes from when it is not packed there: everybody may read an initramfs on FAT. Stage 2
    /// copies it before the first write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<FilePath>,
    /// The partition that gets it.
    pub partition: Target,
    /// Path from the root of that partition, with a leading `/`. Missing folders are made.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the content, 64 lower-case hex digits.
    pub sha256: String,
}

/// A partition of the new system that can get files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// `resin-boot`.
    Boot,
    /// `resin-data`.
    Data,
}

/// Folder on the old system for the report and the log of stage 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportPlace {
    /// The file system that holds the folder.
    pub fs: FsIdentity,
    /// Path from the root of that file system, with a leading `/`.
    pub dir: String,
}

/// A partition on another disk for the log of stage 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogDrive {
    /// The file system; its type is LOG_FS_TYPE.
    pub fs: FsIdentity,
}

/// Why a hand-over can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Written by another version of this program.
    #[error("the hand-over has version {found}, this program reads version {VERSION}")]
    Version {
        /// The version it has.
        found: u64,
    },
    /// Not JSON, or not this document.
    #[error("the hand-over can't be read: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl Handover {
    /// Reads a hand-over.
    ///
    /// The version is looked at first, so that a document of another version is named as such
    /// rather than by the first field that differs.
    pub fn parse(bytes: &[u8]) -> Result<Handover, HandoverError> {
        let value: serde_json::Value = serde_json::from_slice(bytes)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(found) if found != u64::from(VERSION) => Err(HandoverError::Version { found }),
            _ => Ok(serde_json::from_value(value)?),
        }
    }

    /// The document as it is written: JSON with line breaks, ending in one.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("plain data serialises");
        bytes.push(b'\n');
        bytes
    }
}
