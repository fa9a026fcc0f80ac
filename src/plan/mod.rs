//! The plan: what stage 1 will do, made by pure code from what was found.
//!
//! Called by the command line after the checks found no error; the engine applies it.

pub mod summary;
pub mod text;

use self::summary::{DiskSummary, Grows, ImageSummary, NewFile, Summary};
use crate::backup::{self, Origin};
use crate::boot::{self, Armament, BootLoader, Entry, Files};
use crate::check::memory::Need;
use crate::check::place::{Choice, choose, ground};
use crate::check::{Subject, resume};
use crate::config::Config;
use crate::engine::journal::DIR;
use crate::growth::DataPlace;
use crate::handover::{
    self, DiskIdentity, FilePath, Firmware, FsIdentity, Handover, Image, ImagePartition, Install,
    LogDrive, OldFile, Overlay, Payload, Place, ReportPlace, Restore, StoredFile, Target,
};
use crate::host::{Disk, Host, Mount};
use crate::initramfs::{Compression, Recipe, SmallFile};
use crate::material::Material;
use crate::new_grub::Piece;
use crate::payload::digest::sha256_hex;
use crate::payload::scan::Scan;
use crate::place::{self, Waits};
use crate::secret::Secret;
use crate::step::core::{self, BuildCore, CoreFirmware};
use crate::step::keep::{Content, Growth, Keep, Wanted};
use crate::step::{BackupPlace, Step};
use crate::sys::identity::EXECUTABLE;

/// Folder for the report of stage 2 in the root of a file system that the journal is not on.
const REPORT_DIR: &str = "balena-migrate.report";

/// What stage 1 will do.
pub struct Plan {
    /// What a careful person reads before saying yes.
    pub summary: Summary,
    /// What the engine does.
    pub work: Steps,
    /// grubenv, when the one-shot is armed there.
    pub grubenv: Option<String>,
    /// Folder in which stage 2 leaves its report.
    pub report: String,
    /// The EFI variable, when it is armed there.
    pub variable: Option<String>,
}

/// The steps of a plan.
pub struct Steps {
    /// In order; those that the next boot can see come last.
    pub steps: Vec<Step>,
    /// When all are done, the next boot goes to stage 2.
    pub armed: bool,
}

/// A file that goes into the new system, with its content.
struct NewContent {
    partition: Target,
    path: String,
    from: String,
    content: Secret,
}

/// Makes the plan. `run_id` names the run.
///
/// # Panics
///
/// When the checks found an error and it is called all the same.
pub fn plan(subject: &Subject, run_id: &str) -> Plan {
    let (config, host, material) = (subject.config, subject.host, subject.material);
    let scan = material.image.as_ref().expect("checked: the image");
    let haven = host.haven().expect("checked: the root");
    let journal = host.mount_of(DIR);
    let report = match journal.is_some_and(|mount| mount.uuid == haven.uuid) {
        true => DIR.to_owned(),
        false => format!("{}/{REPORT_DIR}", haven.point.trim_end_matches('/')),
    };
    let disk = host.root_disk().expect("checked: the disk");
    let Ok(boot) = boot::of(host) else {
        panic!("checked: the boot loader");
    };
    let place = boot.loader.files(host);
    let armament = (!*config.no_setup).then(|| arm(config, host, boot.loader.as_ref(), &place));
    let new = new_files(subject);
    let choice = choose(subject)
        .expect("checked: the image")
        .expect("checked: its place");
    let backup = backup_place(subject, choice.backup);

    let mut files = Vec::new();
    let payload = payload(host, &config.image_name.0, scan, choice.payload);
    let old_boot_files = armament.iter().flat_map(|armament| &armament.old_files);
    let handover = Handover {
        version: handover::VERSION,
        run_id: run_id.to_owned(),
        disk: identity(disk, haven),
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
            dir: host.path_in_fs(&report).expect("checked: the root"),
        },
        firmware: match host.firmware.efi {
            true => Firmware::Efi,
            false => Firmware::Bios,
        },
        efi: host
            .firmware
            .efi
            .then(|| efi(host, disk, armament.as_ref())),
        log_drive: log_drive(subject),
        memory_reserve: config.mem_min_free_s2.bytes() + scan.unpack_memory,
        resume: None,
        pretend: *config.no_flash,
        machine: host.hostname.clone(),
        power: *config.power,
        log_level: *config.s2_log_level,
    };
    let need = Need::of(subject, scan, choice.payload, choice.backup);
    let data = DataPlace::of(scan, disk.bytes).expect("checked: the labels");
    let means = resume::means(subject, scan, &choice);
    let power_cut_is_fatal = means.as_ref().err().cloned();
    let keep = keep(
        subject,
        scan,
        &choice,
        &handover.payload.image,
        backup.as_ref(),
        means.as_ref().ok().map(|means| means.firmware),
    );
    let core = means.ok().map(|means| {
        Box::new(BuildCore {
            keep: keep.clone().expect("a core is kept"),
            firmware: means.firmware,
            kernel: host.kernel.image.clone().expect("checked: the kernel"),
            tools: means.tools.clone(),
            arguments: stage2_arguments(config, host),
            initramfs: place.initramfs.clone(),
            run_id: run_id.to_owned(),
        })
    });
    let summary = Summary {
        machine: host.hostname.clone(),
        system: host.os.pretty_name.clone(),
        disk: DiskSummary::of(host, disk),
        image: ImageSummary {
            path: config.image_name.0.clone(),
            name: scan.boot.os_release.get("PRETTY_NAME").cloned(),
            device_type: scan.slug().map(str::to_owned),
            bytes: scan.file_bytes,
            unpacked_bytes: scan.image_bytes,
        },
        payload_waits_in: choice.payload,
        payload_waits_because: choice.why.clone(),
        power_cut_is_fatal,
        backup_waits_in: backup.as_ref().map(|_| choice.backup),
        memory_needed: need.total(),
        memory_total: host.memory.total,
        backup: backup.as_ref().map(|backup| backup.path.clone()),
        data_grows: data_grows(subject, &data, backup.is_some()),
        new_files: new
            .iter()
            .map(|file| NewFile {
                place: format!("{}:{}", label(file.partition), file.path),
                from: file.from.clone(),
            })
            .collect(),
        boot: match &armament {
            Some(armament) => match &boot.why {
                Some(why) => format!("{}, since {why}", armament.summary),
                None => armament.summary.clone(),
            },
            None => "left as it is (NO_SETUP)".to_owned(),
        },
        log_drive: config.log_drive.value.as_ref().map(|drive| drive.0.clone()),
        new_grub: material
            .new_grub
            .iter()
            .flatten()
            .next()
            .map(|grub| grub.summary.clone()),
        pretend: *config.no_flash,
    };

    let mut steps = Vec::new();
    if report != DIR {
        steps.push(Step::MakeFolder {
            path: report.clone(),
        });
    }
    steps.extend(backup_step(subject));
    let kept = keep.as_ref().map(|keep| keep.folder.clone());
    steps.extend(keep.map(|keep| Step::Keep(Box::new(keep))));
    steps.push(Step::SealHandover {
        handover: Box::new(handover),
        backup_limit: match choice.backup {
            Waits::Memory => host.memory.total.saturating_sub(need.total()),
            Waits::Disk | Waits::Extents => u64::MAX,
        },
        data: Box::new(data),
        backup,
        kept,
        core: core.clone(),
    });
    steps.extend(copy_kernel(host, &place));
    steps.push(Step::BuildInitramfs {
        path: place.initramfs,
        recipe: Box::new(Recipe {
            executable: EXECUTABLE.to_owned(),
            modules: material.modules.clone(),
            files,
            compression: Compression::best(host.kernel.initramfs_formats.as_deref()),
        }),
    });
    steps.extend(core.map(Step::BuildCore));
    let armed = armament.is_some();
    let grubenv = armament
        .as_ref()
        .and_then(|armament| armament.grubenv.clone());
    let variable = armament
        .as_ref()
        .and_then(|armament| armament.pending.clone());
    steps.extend(armament.into_iter().flat_map(|armament| armament.steps));
    Plan {
        summary,
        work: Steps { steps, armed },
        grubenv,
        report,
        variable,
    }
}

/// Puts a copy of the kernel where the boot loader can read it.
fn copy_kernel(host: &Host, place: &Files) -> Vec<Step> {
    let Some(to) = &place.kernel else {
        return Vec::new();
    };
    let (folder, _) = to.rsplit_once('/').expect("an absolute path");
    vec![
        Step::MakeFolder {
            path: folder.to_owned(),
        },
        Step::CopyFile {
            from: host.kernel.image.clone().expect("checked: the kernel"),
            to: to.clone(),
        },
    ]
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
    }
}

fn arm(config: &Config, host: &Host, loader: &dyn BootLoader, place: &Files) -> Armament {
    let image = host.kernel.image.as_ref().expect("checked: the kernel");
    let entry = Entry {
        kernel: place.kernel.as_ref().unwrap_or(image).clone(),
        initramfs: place.initramfs.clone(),
        arguments: stage2_arguments(config, host),
    };
    loader.arm(host, &entry)
}

/// The arguments of the kernel that starts stage 2.
fn stage2_arguments(config: &Config, host: &Host) -> Vec<String> {
    let debug = (*config.debug).then(|| "debug".to_owned());
    boot::cmdline::for_stage2(&host.kernel.cmdline)
        .into_iter()
        .chain(debug)
        .collect()
}

/// What stage 2 will know the disk by.
fn identity(disk: &Disk, haven: &Mount) -> DiskIdentity {
    DiskIdentity {
        bytes: disk.bytes,
        sector_bytes: disk.sector_bytes,
        serial: disk.serial.clone(),
        wwid: disk.wwid.clone(),
        table: disk.table.clone().expect("checked: the table"),
        old_root: fs_of(haven),
    }
}

fn fs_of(mount: &Mount) -> FsIdentity {
    FsIdentity {
        uuid: mount.uuid.clone().expect("checked: the file system"),
        fs_type: mount.fs_type.clone(),
    }
}

/// Where a file of this machine waits, as far as that is known before it is kept.
fn waiting(host: &Host, path: &str, waits: Waits) -> Place {
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

/// config.json, the network files, and those of GRUB.
fn new_files(subject: &Subject) -> Vec<NewContent> {
    let config_json = subject.material.config_json.iter().map(|json| NewContent {
        partition: Target::Boot,
        path: "/config.json".to_owned(),
        from: match &subject.material.kept_name {
            Some(name) => format!("{}, with the host name {name}", json.file),
            None => json.file.clone(),
        },
        content: json.bytes.clone(),
    });
    let keyfiles = subject.material.keyfiles.iter().map(|keyfile| NewContent {
        partition: Target::Boot,
        path: format!("/system-connections/{}", keyfile.name),
        from: format!("{}, {}", keyfile.what, keyfile.place),
        content: keyfile.bytes.clone(),
    });
    let copied = subject.material.copied.iter().map(|copied| NewContent {
        partition: Target::Boot,
        path: format!("/system-connections/{}", copied.name),
        from: copied.path.clone(),
        content: copied.bytes.clone(),
    });
    let new_grub = subject.material.new_grub.iter().flatten();
    let grub_files = new_grub
        .flat_map(|grub| &grub.files)
        .map(|file| NewContent {
            partition: Target::Boot,
            path: file.path.clone(),
            from: file.from.clone(),
            content: Secret::new(file.bytes.clone()),
        });
    config_json
        .chain(keyfiles)
        .chain(copied)
        .chain(grub_files)
        .collect()
}

fn install(number: usize, file: &NewContent, files: &mut Vec<SmallFile>) -> Install {
    let content = format!("/balena-migrate/install/{number}");
    files.push(SmallFile {
        path: content.clone(),
        content: file.content.clone(),
    });
    Install {
        content,
        partition: file.partition,
        path: file.path.clone(),
        bytes: file.content.expose().len() as u64,
        sha256: sha256_hex(file.content.expose()),
    }
}

/// What goes over the image's own bytes.
fn overlays(material: &Material, files: &mut Vec<SmallFile>) -> Vec<Overlay> {
    let new_grub = material.new_grub.iter().flatten();
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

fn restore(
    host: &Host,
    number: usize,
    old: &boot::OldBootFile,
    files: &mut Vec<SmallFile>,
) -> Restore {
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

/// The backup that will be made, or the one that lies there.
fn backup_place(subject: &Subject, waits: Waits) -> Option<BackupPlace> {
    let made = backup::origin(subject.config) != Origin::Existing;
    if !made && subject.material.old_backup.is_none() {
        return None;
    }
    let path = subject.config.backup_file.0.clone();
    let place = waiting(subject.host, &path, waits);
    Some(BackupPlace { path, place })
}

/// What the backup does to resin-data.
fn data_grows(subject: &Subject, data: &DataPlace, has_backup: bool) -> Grows {
    let is_made = backup::origin(subject.config) != Origin::Existing;
    let old = subject.material.old_backup.unwrap_or(0);
    match has_backup {
        true if is_made && data.can_grow() => Grows::AsNeeded,
        true if !is_made => data.size_for(old).map_or(Grows::No, Grows::To),
        _ => Grows::No,
    }
}

/// What is kept behind the new system.
fn keep(
    subject: &Subject,
    scan: &Scan,
    choice: &Choice,
    image: &Image,
    backup: Option<&BackupPlace>,
    core: Option<CoreFirmware>,
) -> Option<Keep> {
    if choice.payload != Waits::Extents && core.is_none() {
        return None;
    }
    let ground = ground(subject, scan).expect("checked: the image's place");
    let wanted = |name: &str, path: &str, sha256: Option<String>| Wanted {
        name: name.to_owned(),
        content: Content::Copy {
            path: path.to_owned(),
            in_place: subject
                .host
                .mount_of(path)
                .is_some_and(|mount| mount.device_name == ground.mount.device_name),
            sha256,
        },
        contiguous: false,
    };
    let path = &subject.config.image_name.0;
    let mut files = Vec::new();
    if choice.payload == Waits::Extents {
        files.push(wanted(place::PAYLOAD, path, Some(scan.file_sha256.clone())));
    }
    if choice.backup == Waits::Extents {
        files.extend(backup.map(|backup| wanted(place::BACKUP, &backup.path, None)));
    }
    if let Some(firmware) = core {
        /// What the hand-over may have beyond what was measured, with all its extents.
        const HANDOVER: u64 = 4 << 20;
        /// What a kernel has that was not measured.
        const KERNEL: u64 = 24 << 20;
        let kernel = &subject.host.kernel;
        files.extend(core::files(
            firmware,
            kernel.image.as_deref().expect("checked: the kernel"),
            kernel.image_bytes.unwrap_or(KERNEL),
            subject.material.initramfs_bytes + HANDOVER,
        ));
    }
    Some(Keep {
        folder: ground.folder(),
        layout: ground.layout.clone(),
        disk: ground.disk.name.clone(),
        disk_bytes: ground.disk.bytes,
        sector_bytes: ground.disk.sector_bytes,
        image: image.clone(),
        growth: DataPlace::of(scan, ground.disk.bytes).map(|data| Growth {
            data,
            backup: backup.map(|backup| backup.path.clone()),
            // What is installed goes to resin-boot.
            others: 0,
        }),
        files,
    })
}

fn backup_step(subject: &Subject) -> Option<Step> {
    let creates = subject.config.backup_file.0.clone();
    match backup::origin(subject.config) {
        Origin::Script(script) => Some(Step::Backup {
            argv: vec![script.to_owned(), creates.clone()],
            folder: subject.config.home_dir.0.clone(),
            creates,
        }),
        Origin::Definition(_) | Origin::Directories(_) => Some(Step::Archive {
            volumes: subject.material.backup.volumes.clone(),
            creates,
        }),
        Origin::Existing => None,
    }
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

fn label(target: Target) -> &'static str {
    match target {
        Target::Boot => "resin-boot",
        Target::Data => "resin-data",
    }
}
