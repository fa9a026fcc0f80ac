//! The checks: machine, settings and files are looked at, and all that is found is said at once.

pub mod boot;
pub mod boot_disk;
pub mod device;
pub mod files;
pub mod flash_to;
pub mod image;
pub mod initramfs;
pub mod memory;
pub mod place;
pub mod resume;

use crate::config::Config;
use crate::finding::Finding;
use crate::host::{Disk, Host};
use crate::material::Material;

/// What every check looks at.
pub struct Subject<'a> {
    /// The settings.
    pub config: &'a Config,
    /// The machine.
    pub host: &'a Host,
    /// The user's files and what was made from them.
    pub material: &'a Material,
}

impl<'a> Subject<'a> {
    /// The disk to overwrite; `None` when there is no such disk.
    pub fn target(&self) -> Option<&'a Disk> {
        self.host.target(self.material.flash_to.as_deref())
    }

    /// The old system outlives the flash, on another disk.
    pub fn old_system_stays(&self) -> bool {
        self.target()
            .is_some_and(|target| self.host.stays_beside(target))
    }
}

/// A check: nothing found means that all is well.
type Check = fn(&Subject) -> Vec<Finding>;

/// Every check, in the order in which findings are shown.
const CHECKS: &[Check] = &[
    device::root_user,
    device::architecture,
    device::distribution,
    device::disk,
    boot_disk::boot_disk,
    device::encrypted,
    flash_to::flash_to,
    flash_to::boot_order,
    device::write_speed,
    device::bad_blocks,
    image::image,
    image::device_type,
    image::new_grub,
    image::boot_room,
    image::data_room,
    files::checksums,
    files::config_json,
    files::root_room,
    files::lasting,
    files::backup_script,
    files::backup,
    files::network,
    files::connections,
    files::log_drive,
    place::payload,
    memory::stage2,
    memory::backup,
    boot::secure_boot,
    boot::loader,
    boot::secrets,
    boot::kernel,
    initramfs::builder,
    boot::room,
];

/// Runs all checks and gathers what they find.
pub fn all(subject: &Subject) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| check(subject)).collect()
}
