//! A root of its own for stage 2 inside of an initramfs that a tool of a distribution has built. Only
//! PID 1 of stage 2 calls this.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chroot};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::unistd::Pid;

/// The folder with that root in it.
pub const PATH: &str = "/balena-migrate/root";

/// How often a mount that is still in use is tried again: whoever used it is just ending.
const TRIES: u32 = 20;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes the machine this program's alone, as its PID 1: ends all other processes. When it was started
/// in [`PATH`], also unmounts what lies on devices, removes the tool's files from memory, and makes that
/// the root.
///
/// # Errors
///
/// When the root can't be changed. What stays mounted keeps its disk in use, which shows when the
/// disk is opened for exclusive use.
pub fn enter(started_as: &Path) -> io::Result<()> {
    if std::process::id() != 1 {
        return Err(io::Error::other("this is not PID 1"));
    }
    // A udevd that opens the disk, a splash screen. It is no error that there is none.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    if started_as.parent() != Some(Path::new(PATH)) {
        return Ok(());
    }
    // There is no /proc when the kernel itself has started this program: then nothing is mounted.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for point in on_devices(&mounts) {
        if let Err(error) = unmount(&point) {
            eprintln!("balena-migrate: unmounting {}: {error}", point.display());
        }
    }
    let root = Path::new("/");
    if is_in_memory(root)?
        && let Err(error) = clear(root, &PATH[1..])
    {
        eprintln!("balena-migrate: clearing the initramfs: {error}");
    }
    chroot(PATH)?;
    std::env::set_current_dir("/")
}

/// Where devices are mounted, the latest first. What the kernel itself offers has a word for a source.
fn on_devices(mounts: &str) -> Vec<PathBuf> {
    let lines = mounts.lines().rev();
    let words = lines.map(|line| line.split(' '));
    words
        .filter_map(|mut words| Some((words.next()?, words.next()?)))
        .filter(|(source, _)| source.starts_with('/'))
        .map(|(_, point)| PathBuf::from(point))
        .collect()
}

fn unmount(point: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
            Err(nix::errno::Errno::EBUSY) if tries < TRIES => std::thread::sleep(PAUSE),
            unmounted => return Ok(unmounted?),
        }
    }
}

/// Whether a folder is of an initramfs, and never of a file system that lasts.
fn is_in_memory(folder: &Path) -> io::Result<bool> {
    // RAMFS_MAGIC of linux/magic.h.
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
    let kind = statfs(folder)?.filesystem_type();
    Ok([TMPFS_MAGIC, RAMFS_MAGIC].contains(&kind))
}

/// Removes all that is in `folder` on its own file system, but `kept`, a path in it.
fn clear(folder: &Path, kept: &str) -> io::Result<()> {
    let (first, rest) = kept.split_once('/').unwrap_or((kept, ""));
    let device = fs::symlink_metadata(folder)?.dev();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let meta = fs::symlink_metadata(&path)?;
        if meta.dev() != device {
            continue;
        }
        let is_kept = !kept.is_empty() && entry.file_name() == first;
        if is_kept && rest.is_empty() {
            continue;
        }
        if meta.is_dir() {
            clear(&path, if is_kept { rest } else { "" })?;
        }
        if is_kept {
            continue;
        }
        // What is mounted in a folder keeps that.
        let _ = match meta.is_dir() {
            true => fs::remove_dir(&path),
            false => fs::remove_file(&path),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_on_devices_is_unmounted_latest_first() {
        let mounts = "sysfs /sys sysfs rw 0 0\nudev /dev devtmpfs rw 0 0\n\
                      /dev/mapper/vg-root /root ext4 ro 0 0\n/dev/vda2 /root/usr ext4 ro 0 0\n";
        let points = on_devices(mounts);
        assert_eq!(points, [Path::new("/root/usr"), Path::new("/root")]);
    }

    #[test]
    fn all_but_the_kept_folder_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in ["usr/lib", "kept/root/etc", "kept/other"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        for file in ["init", "usr/lib/libc.so", "kept/file", "kept/root/init"] {
            fs::write(path(file), "x").unwrap();
        }
        std::os::unix::fs::symlink("usr/lib", path("lib")).unwrap();
        clear(dir.path(), "kept/root").unwrap();
        let names = |folder: &str| {
            let entries = fs::read_dir(path(folder)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["kept"]);
        assert_eq!(names("kept"), ["root"]);
        assert_eq!(names("kept/root"), ["etc", "init"]);
    }

    #[test]
    fn what_lasts_is_told_from_what_is_in_memory() {
        assert!(is_in_memory(Path::new("/dev/shm")).unwrap());
        assert!(!is_in_memory(Path::new("/proc")).unwrap());
        assert!(!is_in_memory(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap());
    }

    #[test]
    fn nobody_but_pid_1_ends_other_processes() {
        enter(&Path::new(PATH).join("init")).unwrap_err();
    }
}
