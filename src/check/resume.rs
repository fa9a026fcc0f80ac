//! Whether a flash that a power cut has torn can go on by itself. The planner asks it.

use super::Subject;
use super::place::{self, Choice, Ground, ground};
use crate::boot::core_fat::{self, BoardFiles};
use crate::boot::raspberry_pi;
use crate::grub_platform;
use crate::handover::Firmware;
use crate::host::Host;
use crate::payload::scan::Scan;
use crate::place::Waits;
use crate::raspberry_pi::firmware_files;
use crate::step::core::CoreFirmware;

/// What brings stage 2 back is made with this, and kept there.
pub struct Means<'a> {
    /// What starts it.
    pub firmware: CoreFirmware,
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
    place::is_in_reach(subject, scan, &ground)?;
    let firmware = match host.firmware.kind() {
        Firmware::Efi => by_uefi(host, &ground)?,
        Firmware::Bios => by_bios(host, &ground)?,
        Firmware::Board => by_board(subject, scan, &ground)?,
    };
    Ok(Means { firmware, ground })
}

fn by_bios(host: &Host, ground: &Ground) -> Result<CoreFirmware, String> {
    if ground.disk.sector_bytes != 512 {
        return Err(format!(
            "a BIOS does not start disks with sectors of {} bytes",
            ground.disk.sector_bytes
        ));
    }
    // That it starts this disk has been checked.
    match host.grub.as_ref().and_then(|grub| grub.core_tools.as_ref()) {
        Some(tools) => Ok(CoreFirmware::Bios(tools.clone())),
        None => Err(
            "grub-mkimage, or GRUB's modules for a BIOS, are not installed (Debian: \
                     grub-pc-bin)"
                .to_owned(),
        ),
    }
}

fn by_uefi(host: &Host, ground: &Ground) -> Result<CoreFirmware, String> {
    let uefi = host.firmware.uefi.as_ref();
    let bits = host.firmware.bits();
    let tools = uefi.and_then(|uefi| uefi.core_tools.as_ref());
    let tools = tools.ok_or_else(|| {
        format!(
            "grub-mkimage, or GRUB's modules for {}, are not installed (Debian: grub-common and \
             grub-efi-amd64-bin)",
            grub_platform::efi(bits)
        )
    })?;
    // A loader on another disk would be started, and look for the old system.
    let is_known = uefi.is_some_and(|uefi| uefi.esp.is_some());
    if !is_known || host.esp_beside(ground.disk).is_some() {
        return Err("the EFI system partition is not on the disk that is overwritten".to_owned());
    }
    let tools = tools.clone();
    Ok(CoreFirmware::Uefi { bits, tools })
}

/// The boot partition is known by then: without it nothing is armed.
fn by_board(subject: &Subject, scan: &Scan, ground: &Ground) -> Result<CoreFirmware, String> {
    let host = subject.host;
    let board = host.firmware.raspberry_pi.as_ref();
    let board = board.ok_or("u-boot reads nothing behind the new system")?;
    let boot = board.model().zip(board.boot.as_ref());
    let (model, boot) = boot.ok_or("the boot partition is not mounted")?;
    if ground.disk.sector_bytes != 512 {
        return Err(format!(
            "the firmware does not start disks with sectors of {} bytes",
            ground.disk.sector_bytes
        ));
    }
    let firmware = subject.material.firmware.clone()?;
    let paths = firmware.iter().map(|file| file.path.as_str());
    if let Some(name) = firmware_files::missing(model, paths) {
        return Err(format!(
            "nothing in {} begins with {name}, which the firmware needs on another partition",
            boot.point
        ));
    }
    place::has_room_for(
        subject,
        scan,
        ground,
        core_fat::room(&firmware, subject.material.initramfs_bytes),
    )?;
    Ok(CoreFirmware::Board(BoardFiles {
        point: boot.point.clone(),
        firmware,
        config: raspberry_pi::for_stage2(host),
    }))
}
