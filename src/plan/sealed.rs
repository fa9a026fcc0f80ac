//! The hand-over, as far as it is known before anything is done, and the files that go into the initramfs
//! with it.

use super::new_files::NewContent;
use crate::boot::{Armament, OldBootFile};
use crate::check::Subject;
use crate::handover::{
    self, DiskIdentity, FilePath, FsIdentity, Handover, Image, ImagePartition, Install, LogDrive,
    OldFile, OldSystem, Overlay, Payload, Place, ReportPlace, Restore, StoredFile,
};
use crate::host::{Disk, Host, Mount};
use crate::initramfs::SmallFile;
use crate::material::Material;
use crate::new_grub::Piece;
use crate::payload::digest::sha256_hex;
use crate::payload::scan::Scan;
use crate::place::Waits;
use crate::secret::Secret;

/// What was decided before.
pub struct Ahead<'a> {
    /// The file system that stage 2 leaves word on.
    pub haven: &'a Mount,
    /// The folder for that.
    pub report: &'a str,
    /// The change to the boot configuration, if there is one.
    pub armament: Option<&'a Armament>,
    /// Files for the new system.
    pub new: &'a [NewContent],
    /// Where the image waits.
    pub payload: Waits,
}

/// The hand-over, and the files beside it.
pub fn handover(subject: &Subject, run_id: &str, ahead: &Ahead) -> (Handover, Vec<SmallFile>) {
    let (config, host, material) = (subject.config, subject.host, subject.material);
    let scan = material.image.as_ref().expect("checked: the image");
    let disk = subject.target().expect("checked: the disk");
    let Ahead {
        haven,
        report,
        armament,
        new,
        payload: waits,
    } = *ahead;
    let mut files = Vec::new();
    let payload = payload(host, &config.image_name.0, scan, waits);
    let old_boot_files = armament.iter().flat_map(|armament| &armament.old_files);
    let handover = Handover {
        version: handover::VERSION,
        run_id: run_id.to_owned(),
        disk: identity(subject, disk, haven),
        modules: crate::initramfs::module_paths(&material.modules),
        restore: old_boot_files
            .enumerate()
            .map(|(number, old)| restore(host, number, old, &mut files))
            .collect(),
        payload: Payload {
            image: Image {
                overlays: overlays(material, &mut files),
                ..payload.image
            },
            ..payload
        },
        backup: None,
        install: new
            .iter()
            .enumerate()
            .map(|(number, file)| install(number, file, &mut files))
            .collect(),
        report: ReportPlace {
            fs: fs_of(haven),
            dir: host.path_in_fs(report).expect("checked: the root"),
        },
        firmware: host.firmware.kind(),
        efi: host.firmware.efi.then(|| efi(host, disk, armament)),
        log_drive: log_drive(subject),
        memory_reserve: config.mem_min_free_s2.bytes() + scan.unpack_memory,
        resume: None,
        pretend: *config.no_flash,
        machine: host.hostname.clone(),
        power: *config.power,
        log_level: *config.s2_log_level,
    };
    (handover, files)
}

/// What stage 2 does to the variables of the firmware.
fn efi(host: &Host, disk: &Disk, armament: Option<&Armament>) -> handover::Efi {
    let uefi = host.firmware.uefi.as_ref();
    let known = uefi.map(|uefi| &uefi.partitions);
    let old_partitions = disk
        .partitions
        .iter()
        .filter_map(|part| known?.get(&part.name).cloned());
    handover::Efi {
        remove: armament.map_or_else(Vec::new, |armament| armament.variables.clone()),
        old_partitions: old_partitions.collect(),
        needs_entry: !host.stays_beside(disk) && host.esp_beside(disk).is_some(),
    }
}

/// What stage 2 will know the disk by.
fn identity(subject: &Subject, disk: &Disk, haven: &Mount) -> DiskIdentity {
    DiskIdentity {
        bytes: disk.bytes,
        sector_bytes: disk.sector_bytes,
        serial: disk.serial.clone(),
        wwid: disk.wwid.clone(),
        table: disk.table.clone(),
        old_system: match subject.old_system_stays() {
            true => OldSystem::Stays(fs_of(haven)),
            false => OldSystem::Overwritten(fs_of(haven)),
        },
    }
}

fn fs_of(mount: &Mount) -> FsIdentity {
    FsIdentity {
        uuid: mount.uuid.clone().expect("checked: the file system"),
        fs_type: mount.fs_type.clone(),
    }
}

/// Where a file of this machine waits, as far as that is known before it is kept.
pub fn waiting(host: &Host, path: &str, waits: Waits) -> Place {
    let file = || {
        let (fs, path) = place_of(host, path);
        FilePath { fs, path }
    };
    match waits {
        Waits::Memory => Place::Memory(file()),
        Waits::Disk => Place::Disk(file()),
        Waits::Extents => Place::Extents(Vec::new()),
    }
}

/// A file of this machine as stage 2 will find it.
fn place_of(host: &Host, path: &str) -> (FsIdentity, String) {
    let mount = host.mount_of(path).expect("checked: the file system");
    let inside = host.path_in_fs(path).expect("checked: the file system");
    (fs_of(mount), inside)
}

fn payload(host: &Host, path: &str, scan: &Scan, waits: Waits) -> Payload {
    let part = |label: &str| -> ImagePartition {
        scan.partition(label).expect("checked: the labels").clone()
    };
    Payload {
        file: StoredFile {
            place: waiting(host, path, waits),
            bytes: scan.file_bytes,
            sha256: scan.file_sha256.clone(),
        },
        format: scan.format,
        image: Image {
            bytes: scan.image_bytes,
            sha256: scan.image_sha256.clone(),
            boot: part("resin-boot"),
            data: part("resin-data"),
            data_end: None,
            overlays: Vec::new(),
            fingerprint: scan.boot.fingerprint,
        },
    }
}

fn install(number: usize, file: &NewContent, files: &mut Vec<SmallFile>) -> Install {
    let content = format!("/balena-migrate/install/{number}");
    files.push(SmallFile {
        path: content.clone(),
        content: file.content.clone(),
    });
    Install {
        content,
        from: None,
        partition: file.partition,
        path: file.path.clone(),
        bytes: file.content.expose().len() as u64,
        sha256: sha256_hex(file.content.expose()),
    }
}

/// What goes over the image's own bytes.
fn overlays(material: &Material, files: &mut Vec<SmallFile>) -> Vec<Overlay> {
    let new_grub = material.made_grub().into_iter();
    let pieces = new_grub.flat_map(|grub| &grub.pieces);
    let overlay = |(number, piece): (usize, &Piece)| {
        let content = format!("/balena-migrate/overlay/{number}");
        files.push(SmallFile {
            path: content.clone(),
            content: Secret::new(piece.bytes.clone()),
        });
        Overlay {
            content,
            at: piece.at,
            bytes: piece.bytes.len() as u64,
            sha256: sha256_hex(&piece.bytes),
        }
    };
    pieces.enumerate().map(overlay).collect()
}

fn restore(host: &Host, number: usize, old: &OldBootFile, files: &mut Vec<SmallFile>) -> Restore {
    let (fs, path) = place_of(host, &old.path);
    let old = old.old.as_ref().map(|(bytes, mode)| {
        let content = format!("/balena-migrate/restore/{number}");
        files.push(SmallFile {
            path: content.clone(),
            content: Secret::new(bytes.clone()),
        });
        OldFile {
            content,
            mode: *mode,
            uid: 0,
            gid: 0,
        }
    });
    Restore { fs, path, old }
}

fn log_drive(subject: &Subject) -> Option<LogDrive> {
    let name = subject.material.log_drive.as_deref()?;
    let (_, fs) = subject.host.volume(name)?;
    let fs = fs.expect("checked: the log drive");
    Some(LogDrive {
        fs: FsIdentity {
            uuid: fs.uuid.clone(),
            fs_type: fs.fs_type.clone(),
        },
    })
}
