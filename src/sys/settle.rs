//! Bringing what was written to where a boot loader reads it: none of them replays the journal of a file
//! system, so that what is durable by a journal alone is nothing to them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::syncfs;

use super::Sys;

/// Of linux/magic.h; musl has no name for it.
const XFS_SUPER_MAGIC: FsType = FsType(0x5846_5342);

mod ioctls {
    use nix::libc::c_int;

    // FIFREEZE and FITHAW of linux/fs.h.
    nix::ioctl_readwrite!(freeze, b'X', 119, c_int);
    nix::ioctl_readwrite!(thaw, b'X', 120, c_int);
}

impl Sys {
    /// Brings all changes on the file system that holds the file `path` to their places.
    pub fn settle(&self, path: &str) -> io::Result<()> {
        let real = self.real(path);
        let folder = File::open(real.parent().unwrap_or(Path::new("/")))?;
        // Most file systems have their metadata in the cache of the device, which this writes out.
        syncfs(&folder)?;
        match fstatfs(&folder)?.filesystem_type() {
            XFS_SUPER_MAGIC => freeze_for_a_moment(&folder),
            _ => Ok(()),
        }
    }
}

/// xfs keeps metadata to itself, and writes all of it to its place only when it is frozen or unmounted
/// (xfs_freeze(8)).
fn freeze_for_a_moment(folder: &File) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: the descriptor is open, and the kernel does not look at the number.
    unsafe {
        ioctls::freeze(folder.as_raw_fd(), &raw mut unused)?;
        ioctls::thaw(folder.as_raw_fd(), &raw mut unused)?;
    }
    Ok(())
}
