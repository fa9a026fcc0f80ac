//! Whether a flash that a power cut has torn can go on by itself. The planner asks it.

use super::Subject;
use super::place::{Choice, Ground, ground};
use crate::boot::core_esp;
use crate::host::{CoreTools, Host};
use crate::payload::scan::Scan;
use crate::place::Waits;
use crate::step::core::CoreFirmware;

/// What brings stage 2 back is made with this, and kept there.
pub struct Means<'a> {
    /// What starts it.
    pub firmware: CoreFirmware,
    /// GRUB's tools.
    pub tools: &'a CoreTools,
    /// The file system for its files.
    pub ground: Ground<'a>,
}

/// The means, or why a torn flash can't go on.
pub fn means<'a>(subject: &Subject<'a>, scan: &Scan, choice: &Choice) -> Result<Means<'a>, String> {
    let host = subject.host;
    if subject.old_system_stays() {
        return Err("the old system starts again: it is on another disk".to_owned());
    }
    if choice.payload == Waits::Memory {
        return Err("the image waits in memory, which a power cut empties".to_owned());
    }
    if choice.backup == Waits::Memory && super::place::has_backup(subject) {
        return Err("the backup waits in memory, which a power cut empties".to_owned());
    }
    let ground = ground(subject, scan)?;
    let (firmware, tools) = match host.firmware.efi {
        true => by_uefi(host, &ground)?,
        false => by_bios(host, &ground)?,
    };
    Ok(Means {
        firmware,
        tools,
        ground,
    })
}

fn by_bios<'a>(host: &'a Host, ground: &Ground) -> Result<(CoreFirmware, &'a CoreTools), String> {
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
        Some(tools) => Ok((CoreFirmware::Bios, tools)),
        None => Err(
            "grub-mkimage, or GRUB's modules for a BIOS, are not installed (Debian: \
                     grub-pc-bin)"
                .to_owned(),
        ),
    }
}

fn by_uefi<'a>(host: &'a Host, ground: &Ground) -> Result<(CoreFirmware, &'a CoreTools), String> {
    let uefi = host.firmware.uefi.as_ref();
    let bits = host.firmware.bits();
    let tools = uefi.and_then(|uefi| uefi.core_tools.as_ref());
    let tools = tools.ok_or_else(|| {
        format!(
            "grub-mkimage, or GRUB's modules for {}, are not installed (Debian: grub-common and \
             grub-efi-amd64-bin)",
            core_esp::platform(bits)
        )
    })?;
    // A loader on another disk would be started, and look for the old system.
    let esp = uefi.and_then(|uefi| uefi.esp.as_ref());
    let mut partitions = ground.disk.partitions.iter();
    if !partitions.any(|part| Some(&part.name) == esp) {
        return Err("the EFI system partition is not on the disk that is overwritten".to_owned());
    }
    Ok((CoreFirmware::Uefi { bits }, tools))
}
