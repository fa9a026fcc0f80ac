//! Checks of the user's files, and of where stage 2 will find them.

use super::Subject;
use crate::engine::journal::DIR;
use crate::finding::Finding;
use crate::host::Host;

/// config.json is there and has what a device needs to come online.
pub fn config_json(subject: &Subject) -> Vec<Finding> {
    if subject.config.balena_config.value.is_none() {
        return vec![Finding::warning(
            "config-json-none",
            "no config.json is given: the new system will not know its fleet",
            "set BALENA_CONFIG, unless the image has one inside",
        )];
    }
    subject.material.config_json_findings.clone()
}

/// The files are those that the lists of checksums name.
pub fn checksums(subject: &Subject) -> Vec<Finding> {
    subject.material.checksum_findings.clone()
}

/// The backup script can be run.
pub fn backup_script(subject: &Subject) -> Vec<Finding> {
    let Some(script) = &subject.config.backup_script.value else {
        return Vec::new();
    };
    let path = &script.0;
    match subject.material.backup_script_mode {
        None => vec![Finding::error(
            "backup-script",
            format!("the backup script {path} is not there"),
            "give BACKUP_SCRIPT the name of a file in HOME_DIR",
        )],
        Some(mode) if mode & 0o111 == 0 => vec![Finding::error(
            "backup-script",
            format!("the backup script {path} is not executable"),
            format!("chmod +x {path}"),
        )],
        Some(_) => Vec::new(),
    }
}

/// What goes into the backup, or the backup that is there, and room for it.
pub fn backup(subject: &Subject) -> Vec<Finding> {
    let mut findings = subject.material.backup.findings.clone();
    let size = subject.material.backup.size;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let mount = subject.host.mount_of(&subject.config.backup_file.0);
    // Nothing could be measured when the size is 0.
    if let Some(mount) = mount.filter(|mount| mount.bytes > 0 && mount.free < size.packed) {
        findings.push(Finding::warning(
            "backup-room",
            format!(
                "the backup may have up to {} MiB, and {} has {} MiB free",
                mib(size.packed),
                mount.point,
                mount.free >> 20
            ),
            "make room, or put less into the backup; what does not fit stops the run, and all is undone",
        ));
    }
    let image = subject.material.image.as_ref().ok();
    let disk = subject.target().zip(image);
    if let Some((disk, image)) = disk
        && size.unpacked > disk.bytes.saturating_sub(image.image_bytes)
    {
        findings.push(Finding::error(
            "backup-disk",
            format!(
                "the backup unpacks to {} MiB, holes filled, more than {} has beside the image",
                mib(size.unpacked),
                disk.name
            ),
            "put less into the backup",
        ));
    }
    findings
}

/// What has to outlast a restart is on something that does.
pub fn lasting(subject: &Subject) -> Vec<Finding> {
    let in_memory = |path: &str| {
        let mount = subject.host.mount_of(path)?;
        mount.is_in_memory().then(|| mount.in_words())
    };
    let mut findings = Vec::new();
    if let Some(place) = in_memory(DIR) {
        findings.push(Finding::error(
            "journal-place",
            format!("{DIR} would be on {place}: what an undo needs would be gone after a restart"),
            "mount something that lasts at /var",
        ));
    }
    let home = &subject.config.home_dir.0;
    if let Some(place) = in_memory(home) {
        findings.push(Finding::warning(
            "home-dir",
            format!(
                "{home} is on {place}, which is empty after a restart: should the old system come back, this \
                 program is not there to tell why, or to undo"
            ),
            "put the folder on a disk",
        ));
    }
    findings
}

/// Without a network file the new system may never be heard of.
pub fn network(subject: &Subject) -> Vec<Finding> {
    let mut findings = subject.material.network_findings.clone();
    let material = subject.material;
    let none = material.keyfiles.is_empty() && material.copied.is_empty();
    if none && *subject.config.require_nmgr_file {
        findings.push(Finding::error(
            "network-none",
            "no network file would be made for the new system",
            "choose wifi networks by MIGRATE_ALL_WIFIS or MIGRATE_WIFI_CFG, name files in \
             COPY_NMGR_FILES, or set REQUIRE_NMGR_FILE=FALSE if a wire with DHCP is enough",
        ));
    }
    findings
}

/// The hosts that the new system will need answer from here.
pub fn connections(subject: &Subject) -> Vec<Finding> {
    subject.material.connect_findings.clone()
}

/// MIN_ROOT_AVAIL.
pub fn root_room(subject: &Subject) -> Vec<Finding> {
    let Some(root) = subject.host.mount_of("/") else {
        return Vec::new();
    };
    let least = subject.config.min_root_avail.bytes();
    if root.bytes == 0 || root.free >= least {
        return Vec::new();
    }
    vec![Finding::error(
        "root-room",
        format!(
            "/ has {} kB free, less than MIN_ROOT_AVAIL={}",
            root.free >> 10,
            least >> 10
        ),
        "remove what is not needed, or lower MIN_ROOT_AVAIL",
    )]
}

/// The log drive survives only if it is not the disk that is overwritten.
pub fn log_drive(subject: &Subject) -> Vec<Finding> {
    let Some(wanted) = &subject.config.log_drive.value else {
        return Vec::new();
    };
    log_drive_problem(subject, &wanted.0)
        .map(|(what, remedy)| Finding::error("log-drive", what, remedy))
        .into_iter()
        .collect()
}

fn log_drive_problem(subject: &Subject, wanted: &str) -> Option<(String, String)> {
    let another = || "give LOG_DRIVE a partition on another disk or a USB stick".to_owned();
    let host: &Host = subject.host;
    let Some((disk, fs)) = subject
        .material
        .log_drive
        .as_deref()
        .and_then(|name| host.volume(name))
    else {
        return Some((
            format!("LOG_DRIVE={wanted} is no disk, and no partition of one"),
            another(),
        ));
    };
    if subject
        .target()
        .is_some_and(|target| target.name == disk.name)
    {
        return Some((
            format!(
                "LOG_DRIVE={wanted} is on {}, the disk that is overwritten",
                disk.name
            ),
            another(),
        ));
    }
    let fs_type = &subject.config.log_fs_type.0;
    match fs {
        Some(fs) if fs.fs_type == *fs_type => None,
        Some(fs) => Some((
            format!(
                "LOG_DRIVE={wanted} is {}, LOG_FS_TYPE says {fs_type}",
                fs.fs_type
            ),
            format!("set LOG_FS_TYPE={}", fs.fs_type),
        )),
        None => Some((
            format!("LOG_DRIVE={wanted} has no file system that is known here"),
            format!("make one: mkfs.{fs_type} {wanted}"),
        )),
    }
}
