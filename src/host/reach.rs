//! What of this machine stage 2 can reach by itself: file systems on plain partitions and disks. It
//! brings up no logical volumes, arrays or encrypted devices.

use super::{Disk, Host, Mount};

/// File systems that the initramfs always has drivers for.
const ALWAYS: [&str; 4] = ["ext2", "ext3", "ext4", "vfat"];

/// File systems whose drivers are put into it where they are used.
const ON_DEMAND: [&str; 2] = ["xfs", "btrfs"];

impl Host {
    /// Whether stage 2 can mount a file system of this machine: it has a driver for it, and needs
    /// one partition or disk.
    pub fn stage2_mounts(&self, mount: &Mount) -> bool {
        let has_driver = |list: &[&str]| list.contains(&mount.fs_type.as_str());
        self.volume(&mount.device_name).is_some()
            && mount.uuid.is_some()
            && mount.disks.len() == 1
            && (has_driver(&ALWAYS) || has_driver(&ON_DEMAND))
    }

    /// The driver that stage 2 has only for this file system; none for one that it mounts anyway.
    pub fn stage2_driver<'a>(&self, mount: &'a Mount) -> Option<&'a str> {
        let is_on_demand = ON_DEMAND.contains(&mount.fs_type.as_str());
        (is_on_demand && self.stage2_mounts(mount)).then_some(&mount.fs_type)
    }

    /// The file system on which stage 2 leaves word for the old system, and by which it knows whether
    /// that is on `target`, the disk to overwrite: that of /, or else of what the machine boots from.
    pub fn haven(&self, target: &Disk) -> Option<&Mount> {
        let stays = self.stays_beside(target);
        // Of a / that is read-only another check says what is wrong.
        let can_hold = |mount: &&Mount| {
            (mount.point == "/" || !mount.read_only)
                && mount.disks.contains(&target.name) != stays
                && self.stage2_mounts(mount)
        };
        ["/", "/boot", "/boot/efi", "/efi"]
            .iter()
            .filter_map(|point| self.mounts.iter().rfind(|mount| mount.point == *point))
            .find(can_hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        let path = format!("{}/tests/hosts/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// Where the disk of / is overwritten.
    fn found(host: &Host) -> Option<&Mount> {
        host.haven(host.root_disk().unwrap())
    }

    fn root(host: &mut Host) -> &mut Mount {
        host.mounts.iter_mut().find(|m| m.point == "/").unwrap()
    }

    #[test]
    fn a_plain_root_is_the_haven() {
        let mut host = host("debian-12-bios");
        assert_eq!(found(&host).unwrap().point, "/");
        root(&mut host).fs_type = "xfs".to_owned();
        let haven = found(&host).unwrap();
        assert_eq!(haven.point, "/");
        assert_eq!(host.stage2_driver(haven), Some("xfs"));
        root(&mut host).fs_type = "zfs".to_owned();
        assert_eq!(found(&host), None);
    }

    #[test]
    fn beside_a_logical_volume_it_is_boot() {
        let mut host = host("ubuntu-20.04-bios-lvm");
        let haven = found(&host).unwrap();
        assert_eq!(haven.point, "/boot");
        assert_eq!(host.stage2_driver(haven), None);
        let boot = host.mounts.iter_mut().find(|m| m.point == "/boot");
        let boot = boot.unwrap();
        boot.read_only = true;
        assert_eq!(found(&host), None);
    }

    #[test]
    fn a_file_system_on_two_disks_is_none() {
        let mut host = host("debian-12-bios");
        root(&mut host).fs_type = "btrfs".to_owned();
        assert!(found(&host).is_some());
        root(&mut host).disks.push("vdb".to_owned());
        let root = host.mount_of("/").unwrap();
        assert!(!host.stage2_mounts(root));
    }

    #[test]
    fn beside_the_disk_to_overwrite_it_is_on_another_one() {
        let mut host = host("debian-13-bios-two-disks");
        let small = host.disk("sda").unwrap().clone();
        assert!(host.stays_beside(&small));
        assert_eq!(host.haven(&small).unwrap().point, "/");
        root(&mut host).fs_type = "zfs".to_owned();
        assert_eq!(host.haven(&small), None);
        let mut boot = host.mount_of("/srv/videos").unwrap().clone();
        boot.point = "/boot".to_owned();
        host.mounts.push(boot);
        assert_eq!(host.haven(&small), None, "/boot would be overwritten");
    }
}
