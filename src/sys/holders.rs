//! What the kernel has built on top of a disk: arrays and mappings, which keep it from being
//! opened for exclusive use. Used by stage 2, which needs none of them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::mapper;

/// Block devices in sysfs, partitions too.
const CLASS: &str = "/sys/class/block";

/// Takes away whatever holds the device of that kernel name (`sda2`), and what holds that, the
/// topmost first. Returns the names. An error names the holder that stays.
pub fn release(name: &str) -> io::Result<Vec<String>> {
    let mut released = Vec::new();
    for holder in above(Path::new(CLASS), name)? {
        remove(&holder).map_err(|error| {
            io::Error::new(error.kind(), format!("{holder} holds {name}: {error}"))
        })?;
        released.push(holder);
    }
    Ok(released)
}

/// All that is above `name`, each before what it is built on.
fn above(class: &Path, name: &str) -> io::Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    let mut next = vec![name.to_owned()];
    while let Some(below) = next.pop() {
        let holders = match fs::read_dir(class.join(&below).join("holders")) {
            Ok(holders) => holders,
            // It is gone, or the kernel is an old one that tells of none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for holder in holders {
            let holder = holder?.file_name().to_string_lossy().into_owned();
            // What is reached a second time is above both ways.
            found.retain(|known| *known != holder);
            found.insert(0, holder.clone());
            next.push(holder);
        }
    }
    Ok(found)
}

fn remove(holder: &str) -> io::Result<()> {
    let number = fs::read_to_string(Path::new(CLASS).join(holder).join("dev"))?;
    if holder.starts_with("dm-") {
        return mapper::remove(&number);
    }
    if holder.starts_with("md") {
        let array = File::open(Path::new("/dev").join(holder))?;
        // SAFETY: STOP_ARRAY takes no argument, and the descriptor is open.
        unsafe { stop_array(array.as_raw_fd()) }?;
        return Ok(());
    }
    Err(io::Error::other("it is of a kind that can't be taken away"))
}

mod ioctls {
    // linux/raid/md_u.h
    nix::ioctl_none!(stop_array, 9, 0x32);
}
use ioctls::stop_array;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_top_comes_first() {
        // A mirror of two partitions, with two volumes of one volume group on it.
        let class = tempfile::tempdir().unwrap();
        for (below, holder) in [
            ("sda1", "md0"),
            ("sda2", "md0"),
            ("md0", "dm-0"),
            ("md0", "dm-1"),
            ("dm-0", "dm-2"),
            ("dm-1", "dm-2"),
        ] {
            fs::create_dir_all(class.path().join(below).join("holders").join(holder)).unwrap();
        }
        let found = above(class.path(), "sda1").unwrap();
        let at = |name: &str| found.iter().position(|known| known == name).unwrap();
        assert_eq!(found.len(), 4);
        assert!(at("dm-2") < at("dm-0") && at("dm-2") < at("dm-1"));
        assert!(at("dm-0") < at("md0") && at("dm-1") < at("md0"));
        assert!(above(class.path(), "sdb").unwrap().is_empty());
    }
}
