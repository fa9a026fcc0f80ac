//! The disk to overwrite: the one that holds /, unless FLASH_TO names another; and what of the
//! running system is on a disk.

use super::{Disk, Host};

impl Host {
    /// The disk to overwrite: that of the kernel name `flash_to`, or without one the one disk under /.
    /// `None` when there is no such disk.
    pub fn target(&self, flash_to: Option<&str>) -> Option<&Disk> {
        match flash_to {
            Some(name) => self.disk(name),
            None => self.root_disk(),
        }
    }

    /// Whether the old system outlives a flash of `target`: nothing of / is on it.
    pub fn stays_beside(&self, target: &Disk) -> bool {
        let root = self.mount_of("/");
        root.is_some_and(|root| !root.disks.is_empty() && !root.disks.contains(&target.name))
    }

    /// The EFI system partition that the firmware has started this system from, where that is not on
    /// `target`.
    pub fn esp_beside(&self, target: &Disk) -> Option<&str> {
        let esp = self.firmware.uefi.as_ref()?.esp.as_deref()?;
        let mut here = target.partitions.iter();
        (!here.any(|part| part.name == esp)).then_some(esp)
    }

    /// What of the running system uses `disk`, a phrase each; nothing when it may go.
    pub fn uses_of(&self, disk: &Disk) -> Vec<String> {
        let is_part = |name: &str| {
            let mut parts = disk.partitions.iter();
            disk.name == name || parts.any(|part| part.name == name)
        };
        let mounts = self
            .mounts
            .iter()
            .filter(|mount| mount.disks.contains(&disk.name))
            .map(|mount| format!("{} is mounted at {}", mount.device_name, mount.point));
        let swaps = self
            .swaps
            .iter()
            .filter(|name| is_part(name))
            .map(|name| format!("{name} takes swap"));
        let holders = disk
            .holders
            .iter()
            .map(|name| format!("{name} is built on it"));
        let mut uses: Vec<String> = mounts.chain(swaps).chain(holders).collect();
        if uses.is_empty() && disk.claimed {
            uses.push("the kernel has given it to something, such as a pool of ZFS".to_owned());
        }
        uses
    }
}
