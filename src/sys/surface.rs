//! Reading a disk from its medium, past the page cache, to learn whether it can be read. Used by
//! stage 1 for MAX_BADBLOCKS.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::fcntl::OFlag;
use nix::libc::EINVAL;

use super::Sys;
use super::extents::PageAligned;

/// A disk that is open for reading, and the memory that reads go to.
pub struct Surface {
    file: File,
    memory: PageAligned,
}

impl Surface {
    /// Opens the device file `node`. One read takes `most` bytes at most.
    pub fn open(sys: &Sys, node: &str, most: usize) -> io::Result<Surface> {
        let open = |flags: OFlag| {
            OpenOptions::new()
                .read(true)
                .custom_flags((flags | OFlag::O_CLOEXEC).bits())
                .open(sys.real(node))
        };
        let file = match open(OFlag::O_DIRECT) {
            // Not every driver can do without the page cache.
            Err(error) if error.raw_os_error() == Some(EINVAL) => open(OFlag::empty()),
            opened => opened,
        }?;
        let memory = PageAligned::new(most);
        Ok(Surface { file, memory })
    }

    /// Size in bytes.
    pub fn bytes(&mut self) -> io::Result<u64> {
        self.file.seek(SeekFrom::End(0))
    }

    /// Reads up to `len` bytes at `offset` and forgets them; says how many they were. Both are
    /// multiples of the sector size.
    pub fn read(&mut self, offset: u64, len: u64) -> io::Result<u64> {
        let memory = self.memory.bytes();
        let len = memory.len().min(len as usize);
        let read = self.file.read_at(&mut memory[..len], offset)?;
        Ok(read as u64)
    }
}
