//! The log of all writes to a machine's disk, and the disk as a power cut would have left it.
//!
//! QEMU's blklogwrites writes the format of Linux' dm-log-writes
//! (<https://docs.kernel.org/admin-guide/device-mapper/log-writes.html>, struct log_write_entry in
//! drivers/md/dm-log-writes.c): a super block, then entries of one sector each, followed by their
//! data. An entry that is all zero has not been written yet.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::machine::copy_sparse;

/// What a disk writes whole or not at all.
pub const SECTOR: u64 = 512;

/// The longest piece that is copied at once.
const PIECE: u64 = 1 << 20;

/// Room for a log: the file has holes, so it costs nothing.
const LOG_BYTES: u64 = 64 << 30;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One request of the machine to its disk.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// First sector written.
    pub sector: u64,
    /// Sectors written; 0 for a mere flush.
    pub sectors: u64,
    flags: u64,
    data_at: u64,
}

impl Entry {
    /// Whether all before it is on the medium once it is done.
    pub fn flushes(&self) -> bool {
        self.flags & FLUSH != 0
    }

    /// Whether it writes this sector.
    pub fn writes(&self, sector: u64) -> bool {
        (self.sector..self.sector + self.sectors).contains(&sector)
    }
}

pub struct WriteLog {
    file: File,
    /// What is known of it so far.
    pub entries: Vec<Entry>,
    next: u64,
}

impl WriteLog {
    /// Makes an empty file for QEMU to log into.
    pub(super) fn create(path: &Path) {
        File::create(path)
            .and_then(|file| file.set_len(LOG_BYTES))
            .unwrap_or_else(|e| panic!("creating {}: {e}", path.display()));
    }

    /// Opens a log, perhaps of a machine that runs.
    pub fn open(path: &Path) -> WriteLog {
        let file = File::open(path).unwrap_or_else(|e| panic!("opening {}: {e}", path.display()));
        let mut log = WriteLog {
            file,
            entries: Vec::new(),
            next: SECTOR,
        };
        log.read_on();
        log
    }

    /// Reads what was logged since the last time, and returns how many entries there are now.
    pub fn read_on(&mut self) -> usize {
        while let Some(entry) = self.entry_at(self.next) {
            self.next = entry.data_at + entry.sectors * SECTOR;
            // What is discarded may be kept by a disk, so it changes nothing.
            if entry.flags & DISCARD != 0 {
                self.next = entry.data_at;
            } else {
                self.entries.push(entry);
            }
        }
        self.entries.len()
    }

    /// Whether the super block says that this is such a log; QEMU writes it late.
    pub fn is_sound(&self) -> bool {
        let mut head = [0; 28];
        let read = self.file.read_exact_at(&mut head, 0);
        read.is_ok()
            && u64_at(&head, 0) == MAGIC
            && u64_at(&head, 8) == 1
            && head[24..28] == (SECTOR as u32).to_le_bytes()
    }

    fn entry_at(&self, at: u64) -> Option<Entry> {
        let mut head = [0; 32];
        self.file.read_exact_at(&mut head, at).ok()?;
        let entry = Entry {
            sector: u64_at(&head, 0),
            sectors: u64_at(&head, 8),
            flags: u64_at(&head, 16),
            data_at: at + SECTOR,
        };
        (entry.sectors > 0 || entry.flags != 0).then_some(entry)
    }

    /// Writes to `disk` the sectors of `entry` that `kept` wants.
    fn apply(&self, entry: &Entry, disk: &File, mut kept: impl FnMut() -> bool) -> io::Result<()> {
        let mut done = 0;
        let mut buffer = vec![0; PIECE as usize];
        while done < entry.sectors {
            let now = (entry.sectors - done).min(PIECE / SECTOR);
            let piece = &mut buffer[..(now * SECTOR) as usize];
            self.file
                .read_exact_at(piece, entry.data_at + done * SECTOR)?;
            // Neighbours that are both kept go in one write.
            let mut run = 0..0;
            for sector in 0..=now {
                if sector < now && kept() {
                    run.end = sector + 1;
                    continue;
                }
                let bytes = &piece[(run.start * SECTOR) as usize..(run.end * SECTOR) as usize];
                disk.write_all_at(bytes, (entry.sector + done + run.start) * SECTOR)?;
                run = sector + 1..sector + 1;
            }
            done += now;
        }
        Ok(())
    }
}

/// Makes the states of a disk, in the order of the log.
pub struct Replay {
    log: WriteLog,
    /// The disk with all that was on the medium for certain.
    durable: PathBuf,
    /// How many entries went into it.
    applied: usize,
}

/// How a cut left what was not on the medium for certain.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unflushed {
    pub whole: usize,
    pub torn: usize,
    pub lost: usize,
}

impl Replay {
    /// Begins with the disk `base`, in a copy at `durable`.
    pub fn new(log: WriteLog, base: &Path, durable: PathBuf) -> Replay {
        copy_sparse(base, &durable);
        Replay {
            log,
            durable,
            applied: 0,
        }
    }

    /// Writes to `to` the disk as of a power cut behind the first `entries` of the log.
    ///
    /// What a flush came after is there. Of the rest, one write in two is there, one in four is
    /// not, and of one in four every sector is there or not; `seed` decides. The calls have to
    /// come with rising `entries`.
    pub fn state(&mut self, entries: usize, seed: u64, to: &Path) -> Unflushed {
        assert!(
            entries >= self.applied && entries <= self.log.entries.len(),
            "states are made in the order of the log"
        );
        let issued = &self.log.entries[..entries];
        let certain = issued.iter().rposition(Entry::flushes).unwrap_or(0);
        let made = self.carry_on(certain.max(self.applied)).and_then(|()| {
            let _ = fs::remove_file(to);
            copy_sparse(&self.durable, to);
            self.scatter(entries, seed, &File::options().write(true).open(to)?)
        });
        made.unwrap_or_else(|e| panic!("making the disk as of entry {entries}: {e}"))
    }

    fn carry_on(&mut self, certain: usize) -> io::Result<()> {
        let disk = File::options().write(true).open(&self.durable)?;
        for entry in &self.log.entries[self.applied..certain] {
            self.log.apply(entry, &disk, || true)?;
        }
        self.applied = certain;
        Ok(())
    }

    fn scatter(&self, entries: usize, seed: u64, disk: &File) -> io::Result<Unflushed> {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut unflushed = Unflushed::default();
        for entry in &self.log.entries[self.applied..entries] {
            if entry.sectors == 0 {
                continue;
            }
            match dice.u8(0..4) {
                _ if entry.flags & FUA != 0 => self.log.apply(entry, disk, || true)?,
                0 | 1 => {
                    unflushed.whole += 1;
                    self.log.apply(entry, disk, || true)?;
                }
                2 => unflushed.lost += 1,
                _ => {
                    unflushed.torn += 1;
                    self.log.apply(entry, disk, || dice.bool())?;
                }
            }
        }
        Ok(unflushed)
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
