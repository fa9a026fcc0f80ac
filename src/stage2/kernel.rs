//! The real machine: [`Machine`] over the kernel's own doors in [`crate::sys`].

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use super::machine::{Access, Device, Disk, Machine, Mounted, Peak, Section};
use crate::device_node;
use crate::kernel_args;
use crate::meminfo;
use crate::sys::block::BlockDevice;
use crate::sys::console::Consoles;
use crate::sys::kernel_log::{self, Message};
use crate::sys::mount::Mount;
use crate::sys::{Sys, block, efivars, ext4, holders, module, mount, partition, power};

/// The folder in memory for the log, marks and mount points.
const MEMORY_DIR: &str = "/run/balena-migrate";

/// How long slow consoles may take to show why the machine is switched off.
const DRAIN: Duration = Duration::from_secs(3);

/// The machine that this process runs on.
pub struct Kernel {
    start: Instant,
    consoles: Mutex<Consoles>,
    store: PathBuf,
}

impl Kernel {
    /// Needs /proc, /sys, /dev and /run.
    pub fn new() -> io::Result<Kernel> {
        std::fs::create_dir_all(MEMORY_DIR)?;
        Ok(Kernel {
            start: Instant::now(),
            consoles: Mutex::new(Consoles::open()),
            store: Path::new(MEMORY_DIR).join("store"),
        })
    }

    /// From now on lines are shown on screens too.
    pub fn leave_screens(&self) {
        if let Ok(mut consoles) = self.consoles.try_lock() {
            consoles.leave_screens();
        }
    }

    /// Gives slow consoles up to `limit` to show what they were given.
    pub fn drain_consoles(&self, limit: Duration) {
        if let Ok(mut consoles) = self.consoles.lock() {
            consoles.drain(limit);
        }
    }
}

impl Machine for Kernel {
    fn initramfs(&self) -> &Path {
        Path::new("/")
    }

    fn memory_dir(&self) -> &Path {
        Path::new(MEMORY_DIR)
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn show(&self, line: &str) {
        match self.consoles.try_lock() {
            Ok(mut consoles) => consoles.line(line),
            Err(TryLockError::Poisoned(consoles)) => consoles.into_inner().line(line),
            // A panic in the middle of a line must not wait for that line.
            Err(TryLockError::WouldBlock) => Consoles::open().line(line),
        }
    }

    fn draw(&self, lines: &[String]) {
        if let Ok(mut consoles) = self.consoles.try_lock() {
            consoles.draw(lines);
        }
    }

    fn kernel_log(&self) -> io::Result<Vec<Message>> {
        kernel_log::read()
    }

    fn power_off(&self) -> io::Result<Infallible> {
        self.drain_consoles(DRAIN);
        power::off()
    }

    fn load_module(&self, path: &Path) -> io::Result<()> {
        let cmdline = std::fs::read_to_string("/proc/cmdline")?;
        let options = kernel_args::module_options(&cmdline, &module_name(path));
        module::load(path, &options)
    }

    fn disks(&self) -> io::Result<Vec<Disk>> {
        block::disks()
    }

    fn open(&self, node: &Path, access: Access) -> io::Result<Box<dyn Device>> {
        Ok(Box::new(BlockDevice::open(node, access)?))
    }

    fn set_partitions(&self, disk: &Disk, sections: &[Section]) -> io::Result<()> {
        let known: Vec<u32> = disk.partitions.iter().map(|known| known.number).collect();
        partition::set(&disk.node, &known, sections)
    }

    fn mount(&self, node: &Path, fs_type: &str, writable: bool) -> io::Result<Box<dyn Mounted>> {
        let name = node.to_string_lossy().replace('/', "-");
        let point = Path::new(MEMORY_DIR).join(format!("mnt{name}"));
        Ok(Box::new(Mount::device(node, &point, fs_type, writable)?))
    }

    fn unmount_all(&self, disk: &Disk) -> io::Result<()> {
        let mut nodes = vec![disk.node.as_path()];
        nodes.extend(disk.partitions.iter().map(|part| part.node.as_path()));
        mount::unmount_devices(&nodes)
    }

    fn release_holders(&self, disk: &Disk) -> io::Result<Vec<String>> {
        let names = disk.partitions.iter().map(|part| part.node.as_path());
        let mut released = Vec::new();
        for node in names.chain([disk.node.as_path()]) {
            if let Some(name) = device_node::sysfs_name(&node.to_string_lossy()) {
                released.extend(holders::release(&name)?);
            }
        }
        Ok(released)
    }

    fn efi_variables(&self) -> io::Result<Sys> {
        mount::mount_kernel_fs("efivarfs", efivars::DIR)?;
        Ok(Sys::new("/"))
    }

    fn memory_available(&self) -> io::Result<u64> {
        let meminfo = std::fs::read_to_string("/proc/meminfo")?;
        let memory = meminfo::parse(&meminfo).map_err(io::Error::other)?;
        Ok(memory.available)
    }

    fn memory_peak(&self) -> io::Result<Peak> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let meminfo = std::fs::read_to_string("/proc/meminfo")?;
        meminfo::peak(&status, &meminfo).map_err(io::Error::other)
    }

    fn make_store(&self, bytes: u64) -> io::Result<Box<dyn Mounted>> {
        Ok(Box::new(Mount::memory(&self.store, bytes)?))
    }

    fn find_store(&self) -> io::Result<Box<dyn Mounted>> {
        Ok(Box::new(Mount::adopt(&self.store)))
    }
}

impl Device for BlockDevice {
    fn bytes(&mut self) -> io::Result<u64> {
        BlockDevice::bytes(self)
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        BlockDevice::read_at(self, buffer, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        BlockDevice::write_at(self, bytes, offset)
    }

    fn zero_out(&mut self, offset: u64, len: u64) -> io::Result<()> {
        BlockDevice::zero_out(self, offset, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        BlockDevice::sync(self)
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        BlockDevice::forget_cached(self)
    }
}

impl Mounted for Mount {
    fn files(&self) -> Sys {
        Sys::new(self.point())
    }

    fn grow(&self, blocks: u64) -> io::Result<()> {
        ext4::grow(self.point(), blocks)
    }

    fn close(self: Box<Self>) -> io::Result<()> {
        Mount::close(*self)
    }
}

/// The name of a module, of a file such as `/lib/modules/003-nvme_core.ko`.
fn module_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = stem.trim_start_matches(|letter: char| letter.is_ascii_digit());
    name.trim_start_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_without_its_place_in_the_order() {
        let name = module_name(Path::new("/lib/modules/003-nvme_core.ko"));
        assert_eq!(name, "nvme_core");
    }
}
