//! Whether a flash that a power cut has torn can go on by itself. The planner asks it.

use super::Subject;
use super::place::{Choice, Ground, ground};
use crate::host::CoreTools;
use crate::payload::scan::Scan;
use crate::place::Waits;

/// What the core that brings stage 2 back is made with, and where it is kept.
pub struct Means<'a> {
    /// GRUB's tools.
    pub tools: &'a CoreTools,
    /// The file system for its files.
    pub ground: Ground<'a>,
}

/// The means, or why a torn flash can't go on.
pub fn means<'a>(subject: &Subject<'a>, scan: &Scan, choice: &Choice) -> Result<Means<'a>, String> {
    let host = subject.host;
    if choice.payload == Waits::Memory {
        return Err("the image waits in memory, which a power cut empties".to_owned());
    }
    if choice.backup == Waits::Memory && super::place::has_backup(subject) {
        return Err("the backup waits in memory, which a power cut empties".to_owned());
    }
    if host.firmware.efi {
        return Err("UEFI firmware does not start a disk without its partitions".to_owned());
    }
    let ground = ground(subject, scan)?;
    if ground.disk.sector_bytes != 512 {
        return Err(format!(
            "a BIOS does not start disks with sectors of {} bytes",
            ground.disk.sector_bytes
        ));
    }
    let grub = host.grub.as_ref();
    let mount = grub.and_then(|grub| host.mount_of(&grub.dir));
    if mount.is_none_or(|mount| mount.disks != [ground.disk.name.clone()]) {
        return Err("GRUB is not on the disk that is overwritten".to_owned());
    }
    match grub.and_then(|grub| grub.core_tools.as_ref()) {
        Some(tools) => Ok(Means { tools, ground }),
        None => Err(
            "grub-mkimage, or GRUB's modules for a BIOS, are not installed (Debian: \
                     grub-pc-bin)"
                .to_owned(),
        ),
    }
}
