//! Growing a mounted ext4, which the kernel does itself. Used by stage 2.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Grows the ext2, ext3 or ext4 mounted at `point` to `blocks` of its own blocks. It is no error when
/// it has that many already.
pub fn grow(point: &Path, blocks: u64) -> io::Result<()> {
    let root = File::open(point)?;
    // SAFETY: the kernel reads one u64, and the descriptor is open as long as `root` lives.
    unsafe { ioctls::resize(root.as_raw_fd(), &raw const blocks) }?;
    root.sync_all()
}

mod ioctls {
    // EXT4_IOC_RESIZE_FS, in every kernel from 3.3 on.
    nix::ioctl_write_ptr!(resize, b'f', 16, u64);
}
