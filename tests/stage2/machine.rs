//! A machine whose disks are files and whose kernel fails as told.
//!
//! The old file systems are folders; those of the new system are the real bytes on the disk,
//! unpacked by debugfs and mtools for a mount and packed again when it ends.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use balena_migrate::stage2::machine::{
    Access, Device, Disk, Machine, Message, Mounted, Partition, Peak, Section,
};
use balena_migrate::superblock::{self, HEAD_BYTES};
use balena_migrate::sys::Sys;

use crate::filesystem::{pack, scratch, unpack};
use crate::power::Power;

/// Stage 2 never gives up after the first write; here it is stopped after so much waiting.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// What the tests put into the new system, but for the network files.
pub const OURS: &[&str] = &["config.json", "backup.tgz"];

/// Disks that are told to make zeros by themselves.
#[derive(Default, Clone, Copy)]
pub enum Zeros {
    /// There is no such command.
    #[default]
    Unknown,
    /// It makes them.
    Made,
    /// It says that it made them.
    Pretended,
    /// It fails with this error.
    Failed(i32),
}

/// What goes wrong, and how often.
#[derive(Default)]
pub struct Faults {
    /// Writes that touch this byte fail with EIO.
    pub write_error: Option<(u64, u32)>,
    /// Writes of the first sector alone that fail with EIO.
    pub first_sector_error: u32,
    /// Reads past the page cache that touch this byte fail with EIO.
    pub read_error: Option<(u64, u32)>,
    /// Writes that touch this byte reach the page cache, but the medium gets rubbish for the
    /// second half of them.
    pub torn_write: Option<(u64, u32)>,
    /// What comes of it when the disk is told to make zeros.
    pub zeros: Zeros,
    /// So often, a bit of this byte of a file changes with an exclusive open.
    pub flips: Option<(u32, PathBuf, u64)>,
    /// A write that touches this byte panics.
    pub write_panic: Option<u64>,
    /// Reads and writes move 4096 bytes at most.
    pub short: bool,
    /// Exclusive opens that fail with EBUSY.
    pub busy: u32,
    /// Times that an array is on the disk, which keeps it busy.
    pub held: u32,
    /// Settings of the kernel's partitions that fail with EBUSY.
    pub partitions_busy: u32,
    /// Writable mounts of the new system after which these files are empty.
    pub emptied: (&'static [&'static str], u32),
    /// Writable mounts of the new system after which a file of the image is damaged.
    pub damaged: u32,
    /// On resin-data, a folder has the name of the log.
    pub log_in_the_way: bool,
    /// Mounts of the old root that panic.
    pub mount_panic: bool,
    /// On the old system there is no room to write a file of this name, so often.
    pub full: (&'static str, u32),
    /// There is none for it as long as this file is there.
    pub crowded: Option<PathBuf>,
    /// The looks at the firmware's variables that fail, counted from 1.
    pub efi_fails: Range<u32>,
    /// Such looks so far.
    pub efi_looks: u32,
    /// Modules that can't be loaded.
    pub modules_fail: bool,
    /// Loading a module panics.
    pub modules_panic: bool,
    /// Before this time, there are no disks.
    pub disks_after: Duration,
    /// Before this time, there is only the first one.
    pub second_disk_after: Duration,
}

/// One disk of the machine.
pub struct FakeDisk {
    /// What the kernel says of it.
    pub disk: Disk,
    /// Its medium.
    pub medium: PathBuf,
    /// What reads find that come from the page cache, where that is not what the medium has.
    cached: Arc<Mutex<BTreeMap<u64, Vec<u8>>>>,
}

/// The machine.
pub struct FakeMachine {
    pub dir: PathBuf,
    pub disks: Mutex<Vec<FakeDisk>>,
    /// File systems that are folders, by UUID.
    pub folders: BTreeMap<String, PathBuf>,
    pub faults: Arc<Mutex<Faults>>,
    pub memory: u64,
    pub power: Arc<Power>,
    /// Device files that are mounted, and whether for writing.
    mounts: Arc<Mutex<Vec<(PathBuf, bool)>>>,
    /// All that happened, in order.
    pub events: Arc<Mutex<Vec<String>>>,
    /// All that was drawn on a screen, in order.
    pub pictures: Mutex<Vec<Vec<String>>>,
    /// What the kernel has in its log, each with its level.
    pub kernel: Mutex<Vec<(u8, String)>>,
    /// Stage 2 is stopped after so much waiting.
    pub patience: Duration,
    clock: Mutex<Duration>,
}

impl FakeMachine {
    pub fn new(dir: &Path) -> FakeMachine {
        for name in ["initramfs", "memory", "store"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        FakeMachine {
            dir: dir.to_owned(),
            disks: Mutex::default(),
            folders: BTreeMap::new(),
            faults: Arc::default(),
            memory: 1 << 30,
            power: Arc::default(),
            mounts: Arc::default(),
            events: Arc::default(),
            pictures: Mutex::default(),
            kernel: Mutex::new(vec![(6, "the kernel was here".to_owned())]),
            patience: PATIENCE,
            clock: Mutex::default(),
        }
    }

    pub fn add_disk(&mut self, name: &str, medium: PathBuf, serial: Option<&str>) {
        let disk = Disk {
            name: name.to_owned(),
            node: Path::new("/dev").join(name),
            bytes: fs::metadata(&medium).unwrap().len(),
            sector_bytes: 512,
            serial: serial.map(str::to_owned),
            wwid: None,
            partitions: partitions(name, &medium),
        };
        let cached = Arc::default();
        self.disks.get_mut().unwrap().push(FakeDisk {
            disk,
            medium,
            cached,
        });
    }

    pub fn event(&self, text: impl Into<String>) {
        self.events.lock().unwrap().push(text.into());
    }

    /// All that was shown.
    pub fn shown(&self) -> String {
        self.events.lock().unwrap().join("\n")
    }

    /// Medium, start and size of a disk or a partition.
    fn place(&self, node: &Path) -> io::Result<(PathBuf, u64, u64)> {
        for fake in self.disks.lock().unwrap().iter() {
            if fake.disk.node == node {
                return Ok((fake.medium.clone(), 0, fake.disk.bytes));
            }
            let mut partitions = fake.disk.partitions.iter();
            if let Some(found) = partitions.find(|partition| partition.node == node) {
                return Ok((fake.medium.clone(), found.start, found.bytes));
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The primary partitions that the MBR on the medium has.
fn partitions(name: &str, medium: &Path) -> Vec<Partition> {
    let mut mbr = [0; 512];
    File::open(medium)
        .unwrap()
        .read_exact_at(&mut mbr, 0)
        .unwrap();
    let le32 = |at: usize| u64::from(u32::from_le_bytes(mbr[at..at + 4].try_into().unwrap()));
    (0..4)
        .map(|index| 446 + 16 * index)
        .enumerate()
        .filter(|(_, at)| mbr[510..] == [0x55, 0xaa] && mbr[at + 4] != 0)
        .map(|(index, at)| Partition {
            number: index as u32 + 1,
            node: PathBuf::from(format!("/dev/{name}{}", index + 1)),
            start: le32(at + 8) * 512,
            bytes: le32(at + 12) * 512,
        })
        .collect()
}

/// Counts down; true as long as something is left.
fn take(count: &mut u32) -> bool {
    let left = *count > 0;
    *count = count.saturating_sub(1);
    left
}

fn hit(fault: &mut Option<(u64, u32)>, offset: u64, len: usize) -> bool {
    match fault {
        Some((at, count)) if (offset..offset + len as u64).contains(at) => take(count),
        _ => false,
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn ebusy() -> io::Error {
    io::Error::from_raw_os_error(16)
}

impl Machine for FakeMachine {
    fn initramfs(&self) -> &Path {
        Path::new(Box::leak(self.dir.join("initramfs").into_boxed_path()))
    }

    fn memory_dir(&self) -> &Path {
        Path::new(Box::leak(self.dir.join("memory").into_boxed_path()))
    }

    fn elapsed(&self) -> Duration {
        let mut clock = self.clock.lock().unwrap();
        *clock += Duration::from_micros(10);
        *clock
    }

    fn sleep(&self, time: Duration) {
        self.power.check();
        let now = {
            let mut clock = self.clock.lock().unwrap();
            *clock += time;
            *clock
        };
        assert!(now < self.patience, "it waits for ever");
    }

    fn show(&self, line: &str) {
        self.event(line);
    }

    fn draw(&self, lines: &[String]) {
        self.pictures.lock().unwrap().push(lines.to_vec());
    }

    fn kernel_log(&self) -> io::Result<Vec<Message>> {
        let messages = self.kernel.lock().unwrap().clone();
        let messages = messages.into_iter().zip(0..);
        Ok(messages
            .map(|((level, text), number)| Message {
                number,
                level,
                micros: number * 1000,
                text,
            })
            .collect())
    }

    fn power_off(&self) -> io::Result<Infallible> {
        panic!("the machine is switched off");
    }

    fn load_module(&self, path: &Path) -> io::Result<()> {
        let panics = self.faults.lock().unwrap().modules_panic;
        assert!(!panics, "a fault while loading a module");
        match self.faults.lock().unwrap().modules_fail {
            true => Err(io::ErrorKind::NotFound.into()),
            false => fs::metadata(path).map(drop),
        }
    }

    fn disks(&self) -> io::Result<Vec<Disk>> {
        if self.elapsed() < self.faults.lock().unwrap().disks_after {
            return Ok(Vec::new());
        }
        let second = self.elapsed() >= self.faults.lock().unwrap().second_disk_after;
        let count = if second { usize::MAX } else { 1 };
        let disks = self.disks.lock().unwrap();
        Ok(disks
            .iter()
            .take(count)
            .map(|fake| fake.disk.clone())
            .collect())
    }

    fn open(&self, node: &Path, access: Access) -> io::Result<Box<dyn Device>> {
        self.power.check();
        let (medium, start, len) = self.place(node)?;
        if access == Access::Exclusive {
            let mut faults = self.faults.lock().unwrap();
            if faults.held > 0 || take(&mut faults.busy) {
                return Err(ebusy());
            }
            drop(faults);
            self.event(format!("exclusive {}", node.display()));
            if let Some((count, file, at)) = &mut self.faults.lock().unwrap().flips
                && take(count)
            {
                let file = File::options().read(true).write(true).open(file)?;
                let mut byte = [0];
                file.read_exact_at(&mut byte, *at)?;
                file.write_all_at(&[byte[0] ^ 1], *at)?;
            }
        }
        let disks = self.disks.lock().unwrap();
        let fake = disks.iter().find(|fake| fake.medium == medium).unwrap();
        Ok(Box::new(FakeDevice {
            medium: File::options().read(true).write(true).open(&medium)?,
            start,
            len,
            direct: access != Access::Read,
            writable: access == Access::Exclusive,
            sector: fake.disk.sector_bytes as usize,
            cached: fake.cached.clone(),
            power: self.power.clone(),
            faults: self.faults.clone(),
            events: self.events.clone(),
        }))
    }

    fn set_partitions(&self, disk: &Disk, sections: &[Section]) -> io::Result<()> {
        if take(&mut self.faults.lock().unwrap().partitions_busy) {
            return Err(ebusy());
        }
        for fake in self.disks.lock().unwrap().iter_mut() {
            if fake.disk.name == disk.name {
                let told = sections.iter().map(|section| Partition {
                    number: section.number,
                    node: PathBuf::from(format!("/dev/{}{}", disk.name, section.number)),
                    start: section.start,
                    bytes: section.bytes,
                });
                fake.disk.partitions = told.collect();
            }
        }
        Ok(())
    }

    fn mount(&self, node: &Path, fs_type: &str, writable: bool) -> io::Result<Box<dyn Mounted>> {
        let (medium, start, len) = self.place(node)?;
        let mut bytes = vec![0; len as usize];
        File::open(&medium)?.read_exact_at(&mut bytes, start)?;
        let found = superblock::identify(&bytes[..HEAD_BYTES.min(bytes.len())]);
        let found = found.filter(|found| found.fs_type == fs_type);
        let found = found.ok_or(io::Error::from_raw_os_error(22))?;
        self.event(format!("mount {} writable={writable}", found.uuid));
        if let Some(folder) = self.folders.get(&found.uuid) {
            assert!(
                !self.faults.lock().unwrap().mount_panic,
                "a fault in a mount"
            );
            let mut mounts = self.mounts.lock().unwrap();
            if mounts
                .iter()
                .any(|mount| mount.0 == node && mount.1 != writable)
            {
                return Err(ebusy());
            }
            mounts.push((node.to_owned(), writable));
            return Ok(Box::new(OldSystem {
                folder: folder.clone(),
                node: node.to_owned(),
                mounts: self.mounts.clone(),
                faults: self.faults.clone(),
            }));
        }
        let files = scratch();
        unpack(&bytes, fs_type, files.path());
        let faults = self.faults.lock().unwrap();
        if faults.log_in_the_way && fs_type == "ext4" {
            fs::create_dir_all(files.path().join("migrate.log/x"))?;
        }
        drop(faults);
        let (fs_bytes, block_bytes) = match fs_type {
            "vfat" => (len, 512),
            _ => {
                let block = 1024u64 << bytes[0x418];
                let blocks = u32::from_le_bytes(bytes[0x404..0x408].try_into().unwrap());
                (u64::from(blocks) * block, block)
            }
        };
        Ok(Box::new(NewSystem {
            files,
            medium,
            start,
            len,
            found,
            fs_bytes: fs_bytes.into(),
            block_bytes,
            writable,
            power: self.power.clone(),
            faults: self.faults.clone(),
            events: self.events.clone(),
        }))
    }

    fn unmount_all(&self, disk: &Disk) -> io::Result<()> {
        self.event(format!("unmount all of {}", disk.name));
        Ok(())
    }

    fn release_holders(&self, _disk: &Disk) -> io::Result<Vec<String>> {
        match take(&mut self.faults.lock().unwrap().held) {
            true => Ok(vec!["md127".to_owned()]),
            false => Ok(Vec::new()),
        }
    }

    fn efi_variables(&self) -> io::Result<Sys> {
        let mut faults = self.faults.lock().unwrap();
        faults.efi_looks += 1;
        if faults.efi_fails.contains(&faults.efi_looks) {
            return Err(eio());
        }
        let root = self.dir.join("firmware");
        fs::metadata(&root).map(|_| Sys::new(root))
    }

    fn memory_available(&self) -> io::Result<u64> {
        Ok(self.memory)
    }

    fn memory_peak(&self) -> io::Result<Peak> {
        Ok(Peak {
            process: 40 << 20,
            files: 7 << 20,
        })
    }

    fn make_store(&self, _bytes: u64) -> io::Result<Box<dyn Mounted>> {
        self.event("store");
        self.find_store()
    }

    fn find_store(&self) -> io::Result<Box<dyn Mounted>> {
        Ok(Box::new(Folder(self.dir.join("store"))))
    }
}

struct FakeDevice {
    medium: File,
    start: u64,
    len: u64,
    direct: bool,
    writable: bool,
    sector: usize,
    cached: Arc<Mutex<BTreeMap<u64, Vec<u8>>>>,
    power: Arc<Power>,
    faults: Arc<Mutex<Faults>>,
    events: Arc<Mutex<Vec<String>>>,
}

impl FakeDevice {
    fn check(&self, place: *const u8, offset: u64, len: usize) {
        if self.direct {
            let sector = self.sector;
            assert_eq!(
                offset as usize % sector,
                0,
                "a place that direct I/O refuses"
            );
            assert_eq!(len % sector, 0, "a length that direct I/O refuses");
            assert_eq!(place as usize % sector, 0, "memory that direct I/O refuses");
        }
    }

    fn event(&self, text: String) {
        self.events.lock().unwrap().push(text);
    }

    fn limit(&self, len: usize) -> usize {
        match self.faults.lock().unwrap().short {
            true => len.min(4096),
            false => len,
        }
    }
}

impl Device for FakeDevice {
    fn bytes(&mut self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check(buffer.as_ptr(), offset, buffer.len());
        let len = self.limit(buffer.len());
        let len = len.min(self.len.saturating_sub(offset) as usize);
        if self.direct && hit(&mut self.faults.lock().unwrap().read_error, offset, len) {
            return Err(eio());
        }
        let at = self.start + offset;
        self.medium.read_exact_at(&mut buffer[..len], at)?;
        for (cached_at, bytes) in self.cached.lock().unwrap().iter() {
            for (index, byte) in bytes.iter().enumerate() {
                if let Some(index) = (cached_at + index as u64).checked_sub(at)
                    && (index as usize) < len
                {
                    buffer[index as usize] = *byte;
                }
            }
        }
        Ok(len)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        assert!(self.writable, "written without being held");
        self.check(bytes.as_ptr(), offset, bytes.len());
        let mut kept = self.limit(bytes.len());
        let len = kept;
        let mut faults = self.faults.lock().unwrap();
        if hit(&mut faults.write_error, offset, len) {
            return Err(eio());
        }
        if (offset, bytes.len()) == (0, 512) && take(&mut faults.first_sector_error) {
            return Err(eio());
        }
        if let Some(at) = faults.write_panic
            && (offset..offset + len as u64).contains(&at)
        {
            faults.write_panic = None;
            drop(faults);
            panic!("a fault while writing");
        }
        if hit(&mut faults.torn_write, offset, len) {
            kept = len / 2;
            let rest = bytes[kept..len].to_vec();
            let at = offset + kept as u64;
            self.medium.write_all_at(&vec![0x5a; rest.len()], at)?;
            self.cached.lock().unwrap().insert(at, rest);
        }
        drop(faults);
        self.power.write(&self.medium, &bytes[..kept], offset)?;
        self.event(format!("write {offset}"));
        Ok(len)
    }

    fn zero_out(&mut self, offset: u64, len: u64) -> io::Result<()> {
        assert!(self.writable, "made zeros without being held");
        let zeros = self.faults.lock().unwrap().zeros;
        match zeros {
            Zeros::Unknown => return Err(io::ErrorKind::Unsupported.into()),
            Zeros::Made => self
                .power
                .write(&self.medium, &vec![0; len as usize], offset)?,
            Zeros::Pretended => {}
            Zeros::Failed(error) => {
                self.event(format!("no zeros {offset}"));
                return Err(io::Error::from_raw_os_error(error));
            }
        }
        self.event(format!("zeros {offset} {len}"));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.power.flush();
        self.event("sync".to_owned());
        Ok(())
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        self.cached.lock().unwrap().clear();
        Ok(())
    }
}

/// A file system that is a folder, until it is unmounted.
struct OldSystem {
    folder: PathBuf,
    node: PathBuf,
    mounts: Arc<Mutex<Vec<(PathBuf, bool)>>>,
    faults: Arc<Mutex<Faults>>,
}

impl Mounted for OldSystem {
    fn files(&self) -> Sys {
        let faults = self.faults.clone();
        Sys::new(&self.folder).gated(Arc::new(move |change| {
            let mut faults = faults.lock().unwrap();
            let is_it = change.starts_with("filling ") && change.contains(faults.full.0);
            let crowded = faults.crowded.as_ref().is_some_and(|file| file.exists());
            match is_it && (crowded || take(&mut faults.full.1)) {
                true => Err(io::Error::from_raw_os_error(28)),
                false => Ok(()),
            }
        }))
    }

    fn grow(&self, _blocks: u64) -> io::Result<()> {
        unreachable!("the old file systems stay as they are")
    }

    fn close(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OldSystem {
    fn drop(&mut self) {
        let mut mounts = self.mounts.lock().unwrap();
        let latest = mounts.iter().rposition(|mount| mount.0 == self.node);
        mounts.remove(latest.expect("it is mounted"));
    }
}

struct Folder(PathBuf);

impl Mounted for Folder {
    fn files(&self) -> Sys {
        Sys::new(&self.0)
    }

    fn grow(&self, _blocks: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn close(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

struct NewSystem {
    files: tempfile::TempDir,
    medium: PathBuf,
    start: u64,
    len: u64,
    found: superblock::Superblock,
    /// Size of the file system, which may have less than the partition.
    fs_bytes: AtomicU64,
    block_bytes: u64,
    writable: bool,
    power: Arc<Power>,
    faults: Arc<Mutex<Faults>>,
    events: Arc<Mutex<Vec<String>>>,
}

impl Mounted for NewSystem {
    fn files(&self) -> Sys {
        Sys::new(self.files.path())
    }

    fn grow(&self, blocks: u64) -> io::Result<()> {
        let bytes = blocks * self.block_bytes;
        if bytes > self.len || bytes < self.fs_bytes.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(22));
        }
        self.fs_bytes.store(bytes, Ordering::Relaxed);
        self.events.lock().unwrap().push(format!("grow to {bytes}"));
        Ok(())
    }

    fn close(self: Box<Self>) -> io::Result<()> {
        if !self.writable {
            return Ok(());
        }
        let emptied = self.faults.lock().unwrap().emptied.0;
        let files = emptied.iter().map(|name| self.files.path().join(name));
        let files: Vec<_> = files.filter(|file| file.exists()).collect();
        if !files.is_empty() && take(&mut self.faults.lock().unwrap().emptied.1) {
            for file in files {
                fs::write(file, "")?;
            }
        }
        let theirs = self.files.path().join("os-release");
        if theirs.exists() && take(&mut self.faults.lock().unwrap().damaged) {
            fs::write(theirs, "ID=balena-0s\n")?;
        }
        let fs_bytes = self.fs_bytes.load(Ordering::Relaxed);
        let bytes = pack(self.files.path(), &self.found, fs_bytes);
        self.events
            .lock()
            .unwrap()
            .push(format!("filled {}", self.found.label));
        let medium = File::options().read(true).write(true).open(&self.medium)?;
        self.power.write(&medium, &bytes, self.start)?;
        self.power.flush();
        Ok(())
    }
}
