//! The door: all that the kernel does for stage 2. [`super::kernel`] is the real one; tests have
//! one whose disks are files.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::Duration;

pub use crate::meminfo::Peak;
use crate::sys::Sys;
pub use crate::sys::block::{Access, Disk, Partition};
pub use crate::sys::kernel_log::Message;
pub use crate::sys::partition::Section;

/// What stage 2 asks of the machine.
pub trait Machine: Sync {
    /// Where the contents lie that stage 1 packed: the root of the initramfs.
    fn initramfs(&self) -> &Path;

    /// A folder in memory that outlives this process but not the machine.
    fn memory_dir(&self) -> &Path;

    /// Time since stage 2 began.
    fn elapsed(&self) -> Duration;

    /// Waits.
    fn sleep(&self, time: Duration);

    /// Shows a line on every console; on a screen only until something was drawn there.
    fn show(&self, line: &str);

    /// Draws these lines on every console that is a screen, instead of what is there.
    fn draw(&self, lines: &[String]);

    /// The kernel's own log, as far back as it goes.
    fn kernel_log(&self) -> io::Result<Vec<Message>>;

    /// Switches the machine off.
    fn power_off(&self) -> io::Result<Infallible>;

    /// Loads a kernel module; no error when it is loaded already.
    fn load_module(&self, path: &Path) -> io::Result<()>;

    /// All disks that are there now.
    fn disks(&self) -> io::Result<Vec<Disk>>;

    /// Opens the device file of a disk or a partition.
    fn open(&self, node: &Path, access: Access) -> io::Result<Box<dyn Device>>;

    /// Makes the kernel know these partitions of `disk` and no others, whatever is on it. EBUSY
    /// while one that it knows is in use.
    fn set_partitions(&self, disk: &Disk, sections: &[Section]) -> io::Result<()>;

    /// Mounts the file system on the device file `node`.
    fn mount(&self, node: &Path, fs_type: &str, writable: bool) -> io::Result<Box<dyn Mounted>>;

    /// Unmounts whatever is mounted from `disk`.
    fn unmount_all(&self, disk: &Disk) -> io::Result<()>;

    /// Takes away the arrays and mappings that the kernel has built on `disk`; gives their names.
    fn release_holders(&self, disk: &Disk) -> io::Result<Vec<String>>;

    /// The machine with the variables of its UEFI firmware; an error where it has none.
    fn efi_variables(&self) -> io::Result<Sys>;

    /// Memory that can be had without swapping, in bytes.
    fn memory_available(&self) -> io::Result<u64>;

    /// What this process and the files in memory have taken.
    fn memory_peak(&self) -> io::Result<Peak>;

    /// A new file system in memory of up to `bytes`, for what must outlive the disk.
    fn make_store(&self, bytes: u64) -> io::Result<Box<dyn Mounted>>;

    /// What [`Machine::make_store`] gave to a process that died.
    fn find_store(&self) -> io::Result<Box<dyn Mounted>>;
}

/// An open disk or partition.
///
/// On one that is opened exclusively or to be read directly, places and lengths are multiples of the
/// sector size, and the memory is aligned to it: it is read and written past the page cache.
pub trait Device: Send {
    /// Size in bytes.
    fn bytes(&mut self) -> io::Result<u64>;

    /// Reads at `offset`, perhaps less than asked.
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`, perhaps less than asked.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes `len` bytes at `offset` zeros by a command to the disk that is faster than writing
    /// them. Any error, `Unsupported` where it is not faster, leaves them undefined.
    fn zero_out(&mut self, offset: u64, len: u64) -> io::Result<()>;

    /// Waits until all that was written is on the medium.
    fn sync(&mut self) -> io::Result<()>;

    /// Makes the reads that follow come from the medium.
    fn forget_cached(&mut self) -> io::Result<()>;
}

/// A mounted file system. Close it: dropping it unmounts too, but a failure is not noticed.
pub trait Mounted: Send {
    /// The files on it.
    fn files(&self) -> Sys;

    /// Grows it, an ext4, to `blocks` of its own blocks.
    fn grow(&self, blocks: u64) -> io::Result<()>;

    /// Unmounts it; then all data is on the disk.
    fn close(self: Box<Self>) -> io::Result<()>;
}

/// Reads until `buffer` is full or the device ends; says how much it read.
pub fn read_full(device: &mut dyn Device, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match device.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of `bytes`.
pub fn write_full(device: &mut dyn Device, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match device.write_at(&bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
