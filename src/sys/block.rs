//! Block devices as the kernel shows them: the list of disks, and reading and writing them past
//! the page cache. Used by stage 2.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};
use nix::sys::stat::{major, minor};
use serde::{Deserialize, Serialize};

use crate::vpd;

/// Devices in /sys/block that are no disks of the machine, by the start of their names.
const NOT_DISKS: [&str; 9] = [
    "dm-", "fd", "loop", "md", "mtdblock", "nbd", "ram", "sr", "zram",
];

/// The unit of `size` and `start` in /sys/block, whatever the sector size of the disk.
const SYSFS_SECTOR: u64 = 512;

/// A disk of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The kernel's name, such as `sda`.
    pub name: String,
    /// The device file.
    pub node: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// Logical sector size in bytes.
    pub sector_bytes: u32,
    /// Serial number, where the kernel knows one.
    pub serial: Option<String>,
    /// World-wide id, where the kernel knows one.
    pub wwid: Option<String>,
    /// Partitions that the kernel knows now, by number.
    pub partitions: Vec<Partition>,
}

/// A partition as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Number, from 1.
    pub number: u32,
    /// The device file.
    pub node: PathBuf,
    /// First byte on the disk.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// All disks with a medium in them, by name. A device that vanishes meanwhile is left out.
pub fn disks() -> io::Result<Vec<Disk>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        disks.extend(disk(&entry.path(), name).filter(|disk| disk.bytes > 0));
    }
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(disks)
}

fn disk(dir: &Path, name: String) -> Option<Disk> {
    let mut partitions: Vec<Partition> = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| partition(&entry.ok()?.path()))
        .collect();
    partitions.sort_by_key(|partition| partition.number);
    Some(Disk {
        name,
        node: node(dir)?,
        bytes: number::<u64>(&dir.join("size"))? * SYSFS_SECTOR,
        sector_bytes: number(&dir.join("queue/logical_block_size"))?,
        serial: first_text(dir, ["serial", "device/serial"])
            .or_else(|| vpd::serial(&fs::read(dir.join(vpd::SERIAL_PAGE)).ok()?)),
        wwid: first_text(dir, ["wwid", "device/wwid"]),
        partitions,
    })
}

fn partition(dir: &Path) -> Option<Partition> {
    Some(Partition {
        number: number(&dir.join("partition"))?,
        node: node(dir)?,
        start: number::<u64>(&dir.join("start"))? * SYSFS_SECTOR,
        bytes: number::<u64>(&dir.join("size"))? * SYSFS_SECTOR,
    })
}

/// The device file of a block device. Its name can differ from the one in sysfs (`cciss!c0d0`).
fn node(dir: &Path) -> Option<PathBuf> {
    let uevent = fs::read_to_string(dir.join("uevent")).ok()?;
    let name = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn first_text(dir: &Path, names: [&str; 2]) -> Option<String> {
    names.into_iter().find_map(|name| {
        let text = fs::read_to_string(dir.join(name)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    })
}

/// How a device is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To look at it, through the page cache.
    Read,
    /// To see what the medium has: past the page cache, also while the disk is overwritten.
    ReadDirect,
    /// To overwrite it: fails with EBUSY while anything else (a mount, md, dm, swap) holds the
    /// disk or a part of it, and keeps others from it.
    Exclusive,
}

/// An open block device.
#[derive(Debug)]
pub struct BlockDevice {
    file: File,
    direct: bool,
}

impl BlockDevice {
    /// Opens the device file `node`.
    pub fn open(node: &Path, access: Access) -> io::Result<BlockDevice> {
        let (writable, flags) = match access {
            Access::Read => (false, OFlag::empty()),
            Access::ReadDirect => (false, OFlag::O_DIRECT),
            Access::Exclusive => (true, OFlag::O_EXCL | OFlag::O_DIRECT),
        };
        let open = |flags: OFlag| {
            OpenOptions::new()
                .read(true)
                .write(writable)
                .custom_flags((flags | OFlag::O_CLOEXEC).bits())
                .open(node)
        };
        match open(flags) {
            // Not every driver can do without the page cache.
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Ok(BlockDevice {
                file: open(flags - OFlag::O_DIRECT)?,
                direct: false,
            }),
            opened => Ok(BlockDevice {
                file: opened?,
                direct: flags.contains(OFlag::O_DIRECT),
            }),
        }
    }

    /// Size in bytes, as the open device says.
    pub fn bytes(&mut self) -> io::Result<u64> {
        self.file.seek(SeekFrom::End(0))
    }

    /// Reads at `offset`; may read less than asked. Unless opened with [`Access::Read`], place
    /// and length must be multiples of the sector size, and the memory aligned to it.
    pub fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.file.read_at(buffer, offset) {
            Err(error) if self.refuses_direct(&error) => {
                self.go_through_the_page_cache()?;
                self.file.read_at(buffer, offset)
            }
            read => read,
        }
    }

    /// Writes at `offset`; may write less than asked. Aligned as for [`BlockDevice::read_at`].
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.file.write_at(bytes, offset) {
            Err(error) if self.refuses_direct(&error) => {
                self.go_through_the_page_cache()?;
                self.file.write_at(bytes, offset)
            }
            written => written,
        }
    }

    /// Makes `len` bytes at `offset`, both multiples of the sector size, zeros without sending them.
    /// `Unsupported` when the disk has no command for that: the kernel would write zeros itself then,
    /// in small pieces.
    pub fn zero_out(&mut self, offset: u64, len: u64) -> io::Result<()> {
        if self.zero_out_limit()? == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let range = [offset, len];
        // SAFETY: BLKZEROOUT reads two 64-bit numbers, and the descriptor is open.
        unsafe { blkzeroout(self.file.as_raw_fd(), &raw const range) }?;
        Ok(())
    }

    /// Bytes that the disk makes zeros by one command; 0 when it has none. The kernel sets it to 0
    /// when the disk refuses the command once.
    fn zero_out_limit(&self) -> io::Result<u64> {
        let device = self.file.metadata()?.rdev();
        let queue = format!("/sys/dev/block/{}:{}/queue", major(device), minor(device));
        Ok(number(&Path::new(&queue).join("write_zeroes_max_bytes")).unwrap_or(0))
    }

    /// Waits until all that was written is on the medium, the disk's own cache included.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Makes the reads that follow come from the medium.
    pub fn forget_cached(&mut self) -> io::Result<()> {
        // SAFETY: BLKFLSBUF takes no argument, and the descriptor is open as long as `file` lives.
        let flushed = unsafe { blkflsbuf(self.file.as_raw_fd()) };
        if self.direct {
            // O_DIRECT does not look into the page cache: there is nothing to be forgotten.
            return Ok(());
        }
        flushed?;
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        Ok(())
    }

    fn refuses_direct(&self, error: &io::Error) -> bool {
        self.direct && error.raw_os_error() == Some(nix::libc::EINVAL)
    }

    /// Gives up O_DIRECT: some drivers accept the flag and refuse the transfers.
    fn go_through_the_page_cache(&mut self) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(&self.file, FcntlArg::F_GETFL)?);
        fcntl(&self.file, FcntlArg::F_SETFL(flags - OFlag::O_DIRECT))?;
        self.direct = false;
        Ok(())
    }
}

mod ioctls {
    nix::ioctl_none!(blkflsbuf, 0x12, 97);
    nix::ioctl_write_ptr_bad!(blkzeroout, nix::request_code_none!(0x12, 127), [u64; 2]);
}
use ioctls::{blkflsbuf, blkzeroout};
