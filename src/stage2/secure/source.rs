//! The image and the backup where they wait while the disk is overwritten: opening and proving them.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::super::Work;
use super::super::find::{self, Volume};
use super::super::let_go;
use super::super::machine::{Disk, Mounted};
use super::super::progress::Progress;
use super::super::stop::{Code, OrStop, Stop};
use super::super::stream::{Measure, stream};
use super::extents::ExtentReader;
use crate::handover::{FilePath, Place, StoredFile};
use crate::payload::read_full;

/// How long another disk may take to show up: USB disks take their time, and after a fault of the
/// bus they come back.
const DISK_LIMIT: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// EBUSY: what the kernel says to a read-only mount of what is mounted for writing.
const BUSY: i32 = 16;

/// A file as a stream, from wherever it waits.
pub type Reader = Box<dyn Read + Send>;

/// A file to be secured, and what its absence and its difference are called.
pub struct Wanted<'a> {
    /// The file.
    pub file: &'a StoredFile,
    /// Its name in the store.
    pub kept: &'static str,
    /// What people call it.
    pub what: &'static str,
    /// It can't be read.
    pub missing: Code,
    /// It is another one than stage 1 saw.
    pub differs: Code,
}

/// Opens a file where it waits. A disk that came back under another name is found again.
pub fn open(
    work: &Work,
    disk: &Disk,
    store: Option<&dyn Mounted>,
    wanted: &Wanted,
) -> anyhow::Result<Reader> {
    let file = wanted.file;
    Ok(match &file.place {
        Place::Memory(_) => {
            let store = store.ok_or_else(|| anyhow!("nothing was brought into memory"))?;
            Box::new(store.files().open(wanted.kept)?)
        }
        Place::Disk(at) => Box::new(Elsewhere::open(work, disk, at)?),
        Place::Extents(extents) => {
            let node = let_go::now(work, disk)?.node;
            let reader = ExtentReader::open(work.machine, &node, extents, file.bytes);
            Box::new(reader.with_context(|| format!("opening {}", node.display()))?)
        }
    })
}

/// A file on another disk, which is mounted as long as it is read: a disk that was away for a
/// moment needs another mount.
struct Elsewhere {
    // Closed before it is unmounted.
    file: File,
    _mounted: Box<dyn Mounted>,
}

impl Elsewhere {
    fn open(work: &Work, disk: &Disk, at: &FilePath) -> anyhow::Result<Elsewhere> {
        let start = work.machine.elapsed();
        loop {
            match Elsewhere::try_open(work, disk, at) {
                Err(_) if work.machine.elapsed().saturating_sub(start) < DISK_LIMIT => {
                    work.machine.sleep(LOOK);
                }
                opened => return opened,
            }
        }
    }

    fn try_open(work: &Work, disk: &Disk, at: &FilePath) -> anyhow::Result<Elsewhere> {
        let volume = find::volume_elsewhere(work, &at.fs, disk)?;
        let mounted = mount(work, &volume, at)
            .with_context(|| format!("mounting {}", volume.node.display()))?;
        let files = mounted.files();
        let file = files
            .canonical(&at.path)
            .and_then(|path| files.open(&path))
            .with_context(|| format!("opening {}", at.path))?;
        Ok(Elsewhere {
            file,
            _mounted: mounted,
        })
    }
}

/// Mounts the file system of a file, to be read.
pub(super) fn mount(work: &Work, volume: &Volume, at: &FilePath) -> io::Result<Box<dyn Mounted>> {
    let mount = |writable| {
        let machine = work.machine;
        machine.mount(&volume.node, &at.fs.fs_type, writable)
    };
    match mount(false) {
        // The log drive is the same file system.
        Err(error) if error.raw_os_error() == Some(BUSY) => mount(true),
        mounted => mounted,
    }
}

impl Read for Elsewhere {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

/// Measures a file as it is read, so that one way over the medium does for all proofs.
pub struct Measured {
    source: Reader,
    measure: Measure,
    failed: Option<io::Error>,
}

impl Measured {
    /// Of the file from its first byte.
    pub fn new(source: Reader) -> Measured {
        Measured {
            source,
            measure: Measure::default(),
            failed: None,
        }
    }

    /// Reads what nobody has read so far; a stop unless all of it is the file `wanted`.
    pub fn finish(mut self, work: &Work, wanted: &Wanted) -> Result<(), Stop> {
        let Wanted { file, what, .. } = wanted;
        let left = file.bytes.saturating_sub(self.measure.bytes());
        let mut progress =
            Progress::new(work.machine, work.log, &format!("verifying {what}"), left);
        let mut read = Ok(());
        if self.failed.is_none() {
            read = stream(
                |buffer| read_full(&mut self, buffer),
                |block| {
                    progress.add(block.bytes().len());
                    Ok(())
                },
            );
        }
        if let Some(error) = self.failed {
            return Err(error)
                .with_context(|| format!("reading {what}"))
                .or_stop(wanted.missing);
        }
        read.with_context(|| format!("reading {what}"))
            .or_stop(wanted.missing)?;
        if left > 0 {
            progress.finish();
        }
        self.measure
            .expect(file.bytes, &file.sha256)
            .with_context(|| format!("{what} is not the file that stage 1 saw"))
            .or_stop(wanted.differs)
    }
}

impl Read for Measured {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = match self.source.read(buf) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                // The decoder may replace it.
                self.failed = Some(io::Error::new(error.kind(), error.to_string()));
                return Err(error);
            }
            read => read?,
        };
        self.measure.add(&buf[..read])?;
        Ok(read)
    }
}
