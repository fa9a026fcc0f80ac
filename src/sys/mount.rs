//! Mounting and unmounting, for stage 2: nothing there mounts by itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mounted file system. Close it: dropping it unmounts too, but a failure is then only logged.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
    open: bool,
}

impl Mount {
    /// Mounts the file system on the device `node` at `point`, which is made if need be.
    pub fn device(node: &Path, point: &Path, fs_type: &str, writable: bool) -> io::Result<Mount> {
        let flags = match writable {
            true => MsFlags::empty(),
            false => MsFlags::MS_RDONLY,
        };
        let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        fs::create_dir_all(point)?;
        // Whatever subvolume is the default one: paths begin at the top.
        let options = (fs_type == "btrfs").then_some("subvolid=5");
        mount(Some(node), point, Some(fs_type), flags, options)?;
        Ok(Mount::adopt(point))
    }

    /// Mounts a file system in memory that holds up to `bytes` at `point`, for root only.
    pub fn memory(point: &Path, bytes: u64) -> io::Result<Mount> {
        let options = format!("size={bytes},mode=0700");
        fs::create_dir_all(point)?;
        mount(
            Some("tmpfs"),
            point,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options.as_str()),
        )?;
        Ok(Mount::adopt(point))
    }

    /// Takes over what an earlier process mounted at `point`.
    pub fn adopt(point: &Path) -> Mount {
        Mount {
            point: point.to_owned(),
            open: true,
        }
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Unmounts; all data is on the disk when this returns without an error.
    pub fn close(mut self) -> io::Result<()> {
        self.open = false;
        unmount(&self.point)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.open
            && let Err(error) = unmount(&self.point)
        {
            log::warn!("unmounting {}: {error}", self.point.display());
        }
    }
}

/// Mounts what the kernel itself offers (`proc`, `sysfs`, `devtmpfs`, `tmpfs`) at `point`. It is
/// no error when that is there already.
pub fn mount_kernel_fs(fs_type: &str, point: &str) -> io::Result<()> {
    fs::create_dir_all(point)?;
    match mount(
        Some(fs_type),
        point,
        Some(fs_type),
        MsFlags::MS_NOSUID,
        None::<&str>,
    ) {
        Err(nix::errno::Errno::EBUSY) => Ok(()),
        mounted => Ok(mounted?),
    }
}

/// Unmounts whatever is mounted from the devices `nodes`.
pub fn unmount_devices(nodes: &[&Path]) -> io::Result<()> {
    for point in points(&fs::read_to_string("/proc/self/mounts")?, nodes) {
        unmount(&point)?;
    }
    Ok(())
}

/// Where `nodes` are mounted, the latest mount first.
fn points(mounts: &str, nodes: &[&Path]) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(source, _)| nodes.contains(&Path::new(source)))
        .filter_map(|(_, rest)| rest.split(' ').next().map(PathBuf::from))
        .collect();
    points.reverse();
    points
}

fn unmount(point: &Path) -> io::Result<()> {
    Ok(umount2(point, MntFlags::UMOUNT_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_the_named_devices_are_found_latest_first() {
        let mounts = "proc /proc proc rw 0 0\n/dev/sda1 /a ext4 rw 0 0\n\
                      /dev/sdb1 /b ext4 rw 0 0\n/dev/sda2 /a/c vfat ro 0 0\n";
        let nodes = [Path::new("/dev/sda1"), Path::new("/dev/sda2")];
        assert_eq!(
            points(mounts, &nodes),
            [PathBuf::from("/a/c"), PathBuf::from("/a")]
        );
    }
}
