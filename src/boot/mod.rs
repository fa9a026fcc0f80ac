//! Boot loaders: what starts stage 2 once, and only once.

pub mod cmdline;
pub mod core_image;
pub mod grub;
pub mod grub_entry;
pub mod grubenv;

use crate::finding::Finding;
use crate::host::Host;
use crate::step::Step;

/// Where the initramfs is put. Not named `initrd.img-*`, so that no tool of the distribution takes
/// it for its own.
pub const INITRAMFS: &str = "/boot/balena-migrate.img";

/// What the next boot is to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The kernel, as this system names the file.
    pub kernel: String,
    /// The initramfs, as this system names the file.
    pub initramfs: String,
    /// The kernel's arguments.
    pub arguments: Vec<String>,
}

/// A boot loader that can start an entry once.
pub trait BootLoader {
    /// Its name, for the plan.
    fn name(&self) -> &'static str;

    /// What keeps it from starting an entry once, and from going back to the old system by itself
    /// afterwards. Called with the other checks, before there is a plan.
    fn check(&self, host: &Host) -> Vec<Finding>;

    /// The change to the boot configuration. Only called when [`BootLoader::check`] found no error.
    fn arm(&self, host: &Host, entry: &Entry) -> Armament;
}

/// The change to a boot configuration.
pub struct Armament {
    /// The steps; each leaves a bootable system, and the last one is what makes the next boot go
    /// to the entry.
    pub steps: Vec<Step>,
    /// The files that change, as they were: stage 2 puts them back first of all.
    pub old_files: Vec<OldBootFile>,
    /// grubenv, when that is where the one-shot is armed.
    pub grubenv: Option<String>,
    /// The change in words, for the plan.
    pub summary: String,
}

/// A file of the boot configuration before the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldBootFile {
    /// Its path on this system.
    pub path: String,
    /// Its content and mode, or nothing where there was no file.
    pub old: Option<(Vec<u8>, u32)>,
}

/// The boot loader of this machine, by what was found on it.
pub fn of(host: &Host) -> Result<Box<dyn BootLoader>, Finding> {
    if host.firmware.efi {
        return Err(Finding::error(
            "boot-loader",
            "this machine was started by UEFI firmware, which this version can't arm",
            "wait for a version that supports UEFI; nothing was changed",
        ));
    }
    match &host.grub {
        Some(_) => Ok(Box::new(grub::Grub)),
        None => Err(Finding::error(
            "boot-loader",
            "no GRUB configuration was found in /boot/grub or /boot/grub2",
            "this version starts stage 2 by GRUB 2; mount /boot if it is on a partition of its own",
        )),
    }
}
