//! Where files lie on the medium: allocating them, asking the kernel for their extents, and reading
//! a disk past the page cache. Used by [`crate::engine`] to keep files on the disk to overwrite.
//!
//! What the kernel answers comes through [`Media`], so that a test without a disk of its own can
//! stand in for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::statvfs::statvfs;

use super::Sys;
use super::files::Space;

/// A run of blocks of a file, as FIEMAP tells it (Documentation/filesystems/fiemap.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileExtent {
    /// First byte in the file.
    pub logical: u64,
    /// First byte on the block device of the file system.
    pub physical: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// FIEMAP_EXTENT_*, see [`flags`].
    pub flags: u32,
}

/// Flags of an extent (`linux/fiemap.h`).
pub mod flags {
    /// The last one of the file.
    pub const LAST: u32 = 0x1;
    /// It is not known where the data is.
    pub const UNKNOWN: u32 = 0x2;
    /// There is no place for it yet.
    pub const DELALLOC: u32 = 0x4;
    /// The data is compressed or otherwise encoded.
    pub const ENCODED: u32 = 0x8;
    /// The data is encrypted.
    pub const ENCRYPTED: u32 = 0x80;
    /// It does not lie on block borders.
    pub const NOT_ALIGNED: u32 = 0x100;
    /// The data is among the metadata.
    pub const INLINE: u32 = 0x200;
    /// The data shares a block with other files.
    pub const TAIL: u32 = 0x400;
    /// Allocated, and nothing written yet: it reads as zeros.
    pub const UNWRITTEN: u32 = 0x800;
    /// Other files have the same blocks: a write goes elsewhere.
    pub const SHARED: u32 = 0x2000;
}

/// What the kernel knows of files and disks.
pub trait Media: Send + Sync {
    /// The extents of an open file, in the order of the file, after all of it has been written out.
    fn extents(&self, file: &File) -> io::Result<Vec<FileExtent>>;

    /// Reads `ranges` of the block device `node` from the medium, in order. Their ends are
    /// multiples of its sector size. `take` gets all the bytes, in parts.
    fn read_raw(
        &self,
        node: &Path,
        ranges: &[Range<u64>],
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()>;

    /// Space on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// The kernel that we run on.
pub(super) struct Kernel;

impl Media for Kernel {
    fn extents(&self, file: &File) -> io::Result<Vec<FileExtent>> {
        let mut found: Vec<FileExtent> = Vec::new();
        loop {
            let from = found.last().map_or(0, |last| last.logical + last.bytes);
            let some = fiemap(file, from)?;
            let ends = some
                .last()
                .is_none_or(|last| last.flags & flags::LAST != 0 || last.bytes == 0);
            found.extend(some);
            if ends {
                return Ok(found);
            }
        }
    }

    fn read_raw(
        &self,
        node: &Path,
        ranges: &[Range<u64>],
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        /// Bytes of one read.
        const PART: u64 = 1 << 20;
        let disk = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_DIRECT | OFlag::O_CLOEXEC).bits())
            .open(node)?;
        let mut memory = PageAligned::new(PART as usize);
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let len = PART.min(range.end - at) as usize;
                let part = &mut memory.bytes()[..len];
                disk.read_exact_at(part, at)?;
                take(part)?;
                at += len as u64;
            }
        }
        Ok(())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = statvfs(path)?;
        let unit = stat.fragment_size() as u64;
        Ok(Space {
            bytes: stat.blocks() as u64 * unit,
            free: stat.blocks_free() as u64 * unit,
            available: stat.blocks_available() as u64 * unit,
        })
    }
}

/// Memory that starts at a page, as O_DIRECT wants it.
pub(super) struct PageAligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl PageAligned {
    pub(super) fn new(len: usize) -> PageAligned {
        /// No sector is larger.
        const ALIGNMENT: usize = 4096;
        let memory = vec![0; len + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        PageAligned { memory, start, len }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Extents asked for at once.
const AT_ONCE: usize = 256;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    _reserved: [u64; 2],
    flags: u32,
    _reserved_too: [u32; 3],
}

/// `struct fiemap` without its extents: the size that the number of the ioctl is made from.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct FiemapHead {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    _reserved: u32,
}

#[repr(C)]
struct Fiemap {
    head: FiemapHead,
    extents: [RawExtent; AT_ONCE],
}

/// The extents of `file` from byte `from` on, the first [`AT_ONCE`].
fn fiemap(file: &File, from: u64) -> io::Result<Vec<FileExtent>> {
    /// Write the file out first.
    const SYNC: u32 = 1;
    let mut map = Box::new(Fiemap {
        head: FiemapHead {
            start: from,
            length: u64::MAX - from,
            flags: SYNC,
            extent_count: AT_ONCE as u32,
            ..FiemapHead::default()
        },
        extents: [RawExtent::default(); AT_ONCE],
    });
    // SAFETY: the pointer is to a whole `Fiemap`, with room for the `extent_count` extents that the
    // kernel may write behind the head, and it lives as long as the call.
    unsafe {
        ioctls::fs_ioc_fiemap(
            file.as_raw_fd(),
            std::ptr::from_mut::<Fiemap>(&mut map).cast(),
        )
    }?;
    let mapped = (map.head.mapped_extents as usize).min(AT_ONCE);
    Ok(map.extents[..mapped]
        .iter()
        .map(|extent| FileExtent {
            logical: extent.logical,
            physical: extent.physical,
            bytes: extent.length,
            flags: extent.flags,
        })
        .collect())
}

mod ioctls {
    use nix::libc::c_long;

    nix::ioctl_readwrite!(fs_ioc_fiemap, b'f', 11, super::FiemapHead);
    nix::ioctl_read!(fs_ioc_getflags, b'f', 1, c_long);
    nix::ioctl_write_ptr!(fs_ioc_setflags, b'f', 2, c_long);
}

impl Sys {
    /// Makes a file of that size with blocks for all of it, readable by root only. Its content is
    /// zeros.
    pub fn allocate(&self, path: &str, bytes: u64) -> io::Result<()> {
        self.pass(&format!("allocating {path}"))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.real(path))?;
        let size = i64::try_from(bytes).map_err(io::Error::other)?;
        match fallocate(&file, FallocateFlags::empty(), 0, size) {
            // ext2, and ext3 whose files have no extents.
            Err(Errno::EOPNOTSUPP) => self.write_zeros(path, &mut file, bytes)?,
            allocated => allocated?,
        }
        file.sync_all()
    }

    fn write_zeros(&self, path: &str, file: &mut File, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            self.pass(&format!("writing {path}"))?;
            let len = left.min(zeros.len() as u64);
            file.write_all(&zeros[..len as usize])?;
            left -= len;
        }
        Ok(())
    }

    /// Asks the file system to spread the folders that are made in `folder` over the disk. Not every
    /// one can.
    pub fn spread_folders(&self, folder: &str) -> io::Result<()> {
        /// FS_TOPDIR_FL of ext2 and its descendants.
        const TOP_FOLDER: nix::libc::c_long = 0x0002_0000;
        self.pass(&format!("marking {folder}"))?;
        let open = self.open(folder)?;
        let mut flags = 0;
        // SAFETY: the descriptor is open and the pointers are to a `c_long`, as both calls have it
        // by their numbers; the kernel uses 32 bits of it.
        let marked = unsafe {
            ioctls::fs_ioc_getflags(open.as_raw_fd(), &raw mut flags).and_then(|_| {
                flags |= TOP_FOLDER;
                ioctls::fs_ioc_setflags(open.as_raw_fd(), &raw const flags)
            })
        };
        if let Err(error) = marked {
            log::debug!("{folder} can't be marked: {error}");
        }
        Ok(())
    }

    /// Opens a file to write over what is in it, in the same blocks.
    pub fn open_in_place(&self, path: &str) -> io::Result<File> {
        self.pass(&format!("writing into {path}"))?;
        OpenOptions::new().write(true).open(self.real(path))
    }

    /// Waits until a file is on the disk.
    pub fn sync_file(&self, path: &str) -> io::Result<()> {
        self.open(path)?.sync_all()
    }

    /// The extents of a file, in the order of the file.
    pub fn extents(&self, path: &str) -> io::Result<Vec<FileExtent>> {
        self.media().extents(&self.open(path)?)
    }

    /// Reads parts of a block device from the medium; see [`Media::read_raw`].
    pub fn read_raw(
        &self,
        node: &str,
        ranges: &[Range<u64>],
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.media().read_raw(&self.real(node), ranges, take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocated_file_has_its_size_and_is_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sys::new(dir.path());
        sys.allocate("/a", 100_000).unwrap();
        assert_eq!(sys.read("/a").unwrap(), vec![0; 100_000]);
        assert_eq!(sys.meta("/a").unwrap().mode, 0o600);
        assert!(sys.allocate("/a", 1).is_err(), "it is there");
    }

    #[test]
    fn zeros_are_written_where_blocks_can_t_be_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sys::new(dir.path());
        let mut file = File::create(dir.path().join("a")).unwrap();
        let bytes = (2 << 20) + 5;
        sys.write_zeros("/a", &mut file, bytes).unwrap();
        assert_eq!(sys.read("/a").unwrap(), vec![0; bytes as usize]);
    }

    #[test]
    fn the_structures_are_the_kernel_s() {
        assert_eq!(size_of::<FiemapHead>(), 32);
        assert_eq!(size_of::<RawExtent>(), 56);
        assert_eq!(size_of::<Fiemap>(), 32 + AT_ONCE * 56);
    }
}
