//! The user's files and the kernel's modules, as stage 1 reads them for the checks and the plan.
//!
//! [`gather`] is the only maker; what is wrong with a file becomes a finding and not an error, so
//! that everything is said at once.

use std::io;

use anyhow::{Context, Result};

use crate::backup::{self, Prepared};
use crate::bad_blocks;
use crate::boot::core_fat::FirmwareFile;
use crate::boot::esp;
use crate::checksums;
use crate::config::Config;
use crate::config::balena::{self, BalenaConfig};
use crate::config::hostname;
use crate::config::kind::DeviceFile;
use crate::connect;
use crate::device_node;
use crate::finding::Finding;
use crate::host::{Host, Mount};
use crate::initramfs::modules::{self, ModuleFile, ModuleTree};
use crate::initramfs::{self, Compression, Recipe, SmallFile};
use crate::network::given::{self, Copied};
use crate::network::{self, Keyfile};
use crate::new_grub::{self, NewGrub};
use crate::payload::scan::{self, Scan};
use crate::raspberry_pi::firmware_files;
use crate::secret::Secret;
use crate::sys::Sys;
use crate::sys::identity::EXECUTABLE;
use crate::sys::surface::Surface;

/// What stage 1 read besides the machine itself.
pub struct Material {
    /// The image, or why it can't be used.
    pub image: Result<Scan, String>,
    /// What is wrong with the files that checksums.sha256 and checksums.md5 name.
    pub checksum_findings: Vec<Finding>,
    /// config.json, if one is given and can be read.
    pub config_json: Option<BalenaConfig>,
    /// The host name that was put into config.json for the new system (KEEP_NAME).
    pub kept_name: Option<String>,
    /// What is wrong with config.json.
    pub config_json_findings: Vec<Finding>,
    /// Network files for the new system.
    pub keyfiles: Vec<Keyfile>,
    /// Network files of the user's, which go as they are (COPY_NMGR_FILES).
    pub copied: Vec<Copied>,
    /// Hosts that do not answer.
    pub connect_findings: Vec<Finding>,
    /// What can't be carried of the network.
    pub network_findings: Vec<Finding>,
    /// The modules that stage 2 loads, in order.
    pub modules: Vec<ModuleFile>,
    /// What is wrong with them.
    pub module_findings: Vec<Finding>,
    /// Size of the initramfs unpacked, in bytes: compressed it is smaller.
    pub initramfs_bytes: u64,
    /// Size of the BACKUP_FILE that lies there, in bytes.
    pub old_backup: Option<u64>,
    /// The backup that is made from files and folders.
    pub backup: Prepared,
    /// Permission bits of the backup script; `None` when it is not there.
    pub backup_script_mode: Option<u32>,
    /// Kernel name of the partition or disk that LOG_DRIVE names.
    pub log_drive: Option<String>,
    /// Kernel name of what FLASH_TO names; as it is written there where that is no device.
    pub flash_to: Option<String>,
    /// Bytes a second that the disk to overwrite takes; `None` when nobody asked or it was not measured.
    pub write_speed: Option<Result<u64, String>>,
    /// Blocks of the disk to overwrite that can't be read; `None` when nobody asked or it was not scanned.
    pub bad_blocks: Option<Result<bad_blocks::Scan, String>>,
    /// GRUB for the new system, where it is asked for, or what stops that.
    pub new_grub: Option<Result<NewGrub, Finding>>,
    /// What of the boot partition of a board goes into another one, or why there can be none.
    pub firmware: Result<Vec<FirmwareFile>, String>,
    /// Why nothing can be kept behind the new system, when that was tried and taken back.
    pub no_room: Option<String>,
}

impl Material {
    /// GRUB for the new system, where it was asked for and could be made.
    pub fn made_grub(&self) -> Option<&NewGrub> {
        self.new_grub.as_ref()?.as_ref().ok()
    }
}

/// Whether the disk may be tested: by writing to it, which is a change, if a passing one, or by
/// reading all of it, which takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskTests {
    /// When the settings ask for it.
    Allowed,
    /// Never: somebody only wants to know.
    Never,
}

/// Reads everything. `progress` gets the bytes of the uncompressed image that were seen so far.
pub fn gather(
    sys: &Sys,
    config: &Config,
    host: &Host,
    tests: DiskTests,
    progress: &mut dyn FnMut(u64),
) -> Result<Material> {
    let (mut config_json, mut config_json_findings) = read_config_json(sys, config);
    let connect_findings = connect::check(sys, config, config_json.as_ref());
    let image_path = &config.image_name.0;
    let lists = checksums::Lists::read(sys, &config.home_dir.0);
    let want_md5 = lists.want_md5_of(image_path);
    let image = read_image(sys, image_path, want_md5, progress)?;
    let scanned = image.as_ref().ok().map(|scan| (image_path.as_str(), scan));
    let checksum_findings = lists.verify(sys, scanned);
    let kept_name = keep_name(config, host, &mut config_json, &mut config_json_findings);
    let mut network = network::collect(sys, config, host);
    let made: Vec<&str> = network
        .keyfiles
        .iter()
        .map(|file| file.name.as_str())
        .collect();
    let (copied, copy_findings) = given::copied(sys, &config.copy_nmgr_files.value.0, &made);
    network.findings.extend(copy_findings);
    let (modules, module_findings) = choose_modules(sys, config, host)?;
    let new_grub = new_grub::gather(sys, config, host, image.as_ref().ok());
    let contents = network
        .keyfiles
        .iter()
        .map(|keyfile| &keyfile.bytes)
        .chain(copied.iter().map(|copied| &copied.bytes))
        .chain(config_json.iter().map(|json| &json.bytes))
        .cloned()
        .chain(new_grub.iter().flatten().flat_map(NewGrub::contents));
    let initramfs_bytes = measure_initramfs(sys, &modules, contents)?;
    Ok(Material {
        image,
        checksum_findings,
        config_json,
        kept_name,
        config_json_findings,
        copied,
        connect_findings,
        keyfiles: network.keyfiles,
        network_findings: network.findings,
        modules,
        module_findings,
        initramfs_bytes,
        old_backup: sys.meta(&config.backup_file.0).ok().map(|meta| meta.bytes),
        backup: backup::prepare(sys, config),
        backup_script_mode: config
            .backup_script
            .value
            .as_ref()
            .and_then(|script| sys.meta(&script.0).ok())
            .filter(|meta| meta.is_file)
            .map(|meta| meta.mode),
        log_drive: resolve(sys, &config.log_drive.value),
        flash_to: flash_to(sys, config),
        write_speed: match tests {
            DiskTests::Allowed => measure_write_speed(sys, config, host),
            DiskTests::Never => None,
        },
        bad_blocks: None,
        new_grub,
        firmware: read_firmware(sys, host),
        no_room: None,
    })
}

/// Scans the image; a fault of the file is an answer, a fault of this machine is an error.
fn read_image(
    sys: &Sys,
    path: &str,
    want_md5: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Result<Scan, String>> {
    let meta = match sys.meta(path) {
        Ok(meta) if meta.is_file => meta,
        Ok(_) => return Ok(Err("it is not a regular file".into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Err("there is no such file".into()));
        }
        Err(error) => return Ok(Err(error.to_string())),
    };
    if meta.bytes == 0 {
        return Ok(Err("it is empty".into()));
    }
    let file = match sys.open(path) {
        Ok(file) => io::BufReader::with_capacity(1 << 20, file),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let scratch = sys.scratch().context("making a temporary file")?;
    Ok(scan::scan(file, scratch, want_md5, progress).map_err(|error| error.to_string()))
}

/// The files that the firmware of a board needs to start this kernel from another partition.
fn read_firmware(sys: &Sys, host: &Host) -> Result<Vec<FirmwareFile>, String> {
    let board = host.firmware.raspberry_pi.as_ref();
    let board = board.ok_or_else(|| "this is no Raspberry Pi".to_owned())?;
    let starts = board.boots()?;
    let boot = board.boot.as_ref().expect("what starts was found there");
    let point = &boot.point;
    let unreadable = |error: io::Error| format!("{point} can't be read: {error}");
    let mut files = Vec::new();
    for path in sys.files_below(point).map_err(unreadable)? {
        if firmware_files::is_read(&path, &starts, &boot.texts) {
            let meta = sys.meta(&format!("{point}/{path}")).map_err(unreadable)?;
            let bytes = meta.bytes;
            files.push(FirmwareFile { path, bytes });
        }
    }
    Ok(files)
}

fn read_config_json(sys: &Sys, config: &Config) -> (Option<BalenaConfig>, Vec<Finding>) {
    let Some(file) = &config.balena_config.value else {
        return (None, Vec::new());
    };
    match sys.read(&file.0) {
        Ok(bytes) => {
            let json = balena::inspect(&file.0, bytes);
            let findings = json.findings.clone();
            (Some(json), findings)
        }
        Err(error) => {
            let finding = Finding::error(
                "config-json",
                format!("{} can't be read: {error}", file.0),
                "give BALENA_CONFIG the name of a file in HOME_DIR",
            );
            (None, vec![finding])
        }
    }
}

/// The modules to reach the disks that stage 2 needs, and their file systems.
fn choose_modules(
    sys: &Sys,
    config: &Config,
    host: &Host,
) -> Result<(Vec<ModuleFile>, Vec<Finding>)> {
    let release = &host.kernel.release;
    let tree = match ModuleTree::read(sys, release) {
        Ok(tree) => tree,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let finding = Finding::error(
                "modules",
                format!("the modules of the running kernel {release} are not in /lib/modules"),
                "reboot into an installed kernel; a kernel upgrade may have removed the running one",
            );
            return Ok((Vec::new(), vec![finding]));
        }
        Err(error) => return Err(error).context("reading the list of modules"),
    };
    let target = host.target(flash_to(sys, config).as_deref());
    // Image and backup may lie on another disk than /, and wait there.
    let paths = ["/", &config.image_name.0, &config.backup_file.0];
    let mounts: Vec<&Mount> = paths
        .iter()
        .filter_map(|path| host.mount_of(path))
        .chain(target.and_then(|target| host.haven(target)))
        .collect();
    let disks = mounts
        .iter()
        .copied()
        .chain(esp::mount(host))
        .flat_map(|mount| &mount.disks)
        .filter_map(|name| host.disk(name))
        .chain(target)
        .chain(resolve(sys, &config.log_drive.value).and_then(|name| Some(host.volume(&name)?.0)));
    let mut required: Vec<&str> = modules::REQUIRED.to_vec();
    for disk in disks {
        required.extend(disk.modules.iter().map(String::as_str));
    }
    required.extend(mounts.iter().filter_map(|mount| host.stage2_driver(mount)));
    if host.firmware.raspberry_pi.is_some() {
        required.push(modules::RASPBERRY_PI_RESTART);
    }
    let mut optional = modules::OPTIONAL.to_vec();
    if host.firmware.efi {
        optional.push(modules::EFI_VARIABLES);
    }
    Ok(match modules::resolve(&tree, &required, &optional) {
        Ok(files) => (files, Vec::new()),
        Err(missing) => {
            let finding = Finding::error(
                "modules",
                missing.to_string(),
                "install the kernel's package again, then run again",
            );
            (Vec::new(), vec![finding])
        }
    })
}

/// Makes the initramfs once and throws it away; only the hand-over is not known yet.
fn measure_initramfs(
    sys: &Sys,
    modules: &[ModuleFile],
    contents: impl Iterator<Item = Secret>,
) -> Result<u64> {
    let files = contents.enumerate().map(|(number, content)| SmallFile {
        path: format!("/balena-migrate/install/{number}"),
        content,
    });
    let recipe = Recipe {
        root: "",
        executable: EXECUTABLE.to_owned(),
        modules: modules.to_vec(),
        files: files.collect(),
        compression: Compression::None,
    };
    /// More than the hand-over and the old boot files ever have.
    const HANDOVER: u64 = 64 << 10;
    Ok(initramfs::measure(sys, &recipe, &[])? + HANDOVER)
}

/// The kernel's name of a device that may be named by a link such as /dev/disk/by-uuid/…
fn resolve(sys: &Sys, wanted: &Option<DeviceFile>) -> Option<String> {
    let device = sys.canonical(&wanted.as_ref()?.0).ok()?;
    device.rsplit_once('/').map(|(_, name)| name.to_owned())
}

/// What FLASH_TO names, if it is set.
fn flash_to(sys: &Sys, config: &Config) -> Option<String> {
    let wanted = &config.flash_to.value;
    resolve(sys, wanted).or_else(|| Some(wanted.as_ref()?.0.clone()))
}

/// Puts the host name into config.json, if that is wanted and can be done.
fn keep_name(
    config: &Config,
    host: &Host,
    json: &mut Option<BalenaConfig>,
    findings: &mut Vec<Finding>,
) -> Option<String> {
    let name = &host.hostname;
    let json = json.as_mut().filter(|_| *config.keep_name)?;
    if !hostname::is_host_name(name) {
        findings.push(Finding::warning(
            "hostname",
            format!("`{name}` is no host name that the new system can have; it names itself"),
            "use letters, digits and hyphens, or say KEEP_NAME=FALSE (--no-keep-name)",
        ));
        return None;
    }
    hostname::keep(json, name).then(|| name.clone())
}

/// Scans the disk to overwrite for bad blocks, when there is a limit to them. `progress` gets the bytes that
/// are done and those in all.
pub fn scan_for_bad_blocks(
    sys: &Sys,
    config: &Config,
    host: &Host,
    progress: &mut dyn FnMut(u64, u64),
) -> Option<Result<bad_blocks::Scan, String>> {
    let limit = config.max_badblocks.value?;
    let disk = host.target(flash_to(sys, config).as_deref())?;
    let node = device_node::of(&disk.name);
    let mut scan = || {
        let mut surface = Surface::open(sys, &node, bad_blocks::PIECE as usize)?;
        bad_blocks::scan(&mut surface, u64::from(disk.sector_bytes), limit, progress)
    };
    Some(scan().map_err(|error| format!("reading {node}: {error}")))
}

/// Measures the disk to overwrite by a folder on it, when there is a limit to its speed.
fn measure_write_speed(sys: &Sys, config: &Config, host: &Host) -> Option<Result<u64, String>> {
    if config.min_write_speed.value.is_none() && config.warn_write_speed.value.is_none() {
        return None;
    }
    let target = host.target(flash_to(sys, config).as_deref())?;
    let folder = [config.home_dir.0.as_str(), "/var/tmp", "/"]
        .into_iter()
        .find(|folder| {
            host.mount_of(folder)
                .is_some_and(|mount| mount.disks == [target.name.clone()])
        });
    let Some(folder) = folder else {
        return Some(Err(format!("no file system of {} is mounted", target.name)));
    };
    Some(
        sys.write_speed(folder)
            .map_err(|error| format!("writing to {folder}: {error}")),
    )
}
