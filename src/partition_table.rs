//! Growing the last partition in the partition table of an image that is on a disk: an MBR with its
//! chain of logical partitions, or a GPT with its backup. Pure; stage 2 reads and writes.

use std::io::{self, Cursor, Seek, SeekFrom, Write};

use crate::handover::TableIdentity;
use crate::payload::table::{HEAD_BYTES, SECTOR, TableError, gpt_entries, is_extended};
use crate::superblock;

/// Where the four entries of a boot record begin.
const ENTRIES: usize = 446;

/// Size of an entry.
const ENTRY: usize = 16;

/// The type of the one partition in the MBR of a GPT disk.
const PROTECTIVE: u8 = 0xee;

/// A table that was grown.
#[derive(Debug, PartialEq, Eq)]
pub struct Grown {
    /// The first sector of the disk.
    pub first: Vec<u8>,
    /// Other parts of the disk, whole sectors.
    pub pieces: Vec<Piece>,
}

/// A part of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// First byte on the disk.
    pub start: u64,
    /// What belongs there.
    pub bytes: Vec<u8>,
}

/// What to grow.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// Number of the partition.
    pub number: u32,
    /// Its first byte.
    pub start: u64,
    /// Where it is to end.
    pub end: u64,
    /// Size of the disk in bytes.
    pub disk_bytes: u64,
}

/// Why a table can't be grown.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    /// The disk can't be read.
    #[error("reading the partition table: {0}")]
    Read(#[from] io::Error),
    /// There is none, or it is damaged.
    #[error("the partition table is damaged: {0}")]
    Damaged(String),
    /// It is not the last one, or not where it should be.
    #[error("partition {0} of the table is not the one to grow")]
    Other(u32),
    /// Its end can't be told in this kind of table.
    #[error("the table can't name byte {0}")]
    TooFar(u64),
}

/// Reads parts of the disk: place and length.
pub type Reader<'a> = &'a mut dyn FnMut(u64, usize) -> io::Result<Vec<u8>>;

/// Grows a partition. `first` is the first sector of the table, which the disk need not have.
pub fn grow(first: &[u8], goal: Goal, read: Reader) -> Result<Grown, GrowError> {
    let mut head = first[..SECTOR as usize].to_vec();
    head.extend(read(SECTOR, HEAD_BYTES - SECTOR as usize)?);
    match superblock::table_identity(&head, SECTOR as u32) {
        Some(TableIdentity::Gpt(_)) => grow_gpt(head, goal),
        Some(TableIdentity::Mbr(_)) => grow_mbr(first, goal, read),
        None => Err(GrowError::Damaged("there is none".to_owned())),
    }
}

/// An entry of a boot record.
struct Entry {
    kind: u8,
    start: u64,
    bytes: u64,
}

/// The entry at `index`, from 0.
fn entry(record: &[u8], index: usize) -> Entry {
    let at = ENTRIES + ENTRY * index;
    let sectors = |at: usize| {
        u64::from(u32::from_le_bytes(
            record[at..at + 4].try_into().expect("four bytes"),
        )) * SECTOR
    };
    Entry {
        kind: record[at + 4],
        start: sectors(at + 8),
        bytes: sectors(at + 12),
    }
}

/// Makes the entry at `index`, which begins at `start`, end at `end`.
fn set_end(record: &mut [u8], index: usize, start: u64, end: u64) -> Result<(), GrowError> {
    // Some programs count to the end of the disk in 32 bits.
    let fits = end / SECTOR <= u64::from(u32::MAX);
    let sectors = u32::try_from((end - start) / SECTOR)
        .ok()
        .filter(|_| fits)
        .ok_or(GrowError::TooFar(end))?;
    let at = ENTRIES + ENTRY * index + 12;
    record[at..at + 4].copy_from_slice(&sectors.to_le_bytes());
    Ok(())
}

fn grow_mbr(first: &[u8], goal: Goal, read: Reader) -> Result<Grown, GrowError> {
    let mut first = first.to_vec();
    let other = GrowError::Other(goal.number);
    if let index @ 0..4 = goal.number as usize - 1 {
        let primary = entry(&first, index);
        if primary.start != goal.start || is_extended(primary.kind) {
            return Err(other);
        }
        set_end(&mut first, index, goal.start, goal.end)?;
        let pieces = Vec::new();
        return Ok(Grown { first, pieces });
    }
    let extended = (0..4).find(|index| is_extended(entry(&first, *index).kind));
    let extended = extended.ok_or(GrowError::Other(goal.number))?;
    let base = entry(&first, extended).start;
    set_end(&mut first, extended, base, goal.end)?;
    let pieces = grow_chain(base, goal, read)?;
    Ok(Grown { first, pieces })
}

/// Grows the last logical partition. `base` is where the extended partition begins.
fn grow_chain(base: u64, goal: Goal, read: Reader) -> Result<Vec<Piece>, GrowError> {
    let (mut at, mut number) = (base, 5);
    let mut before: Option<Piece> = None;
    loop {
        let mut record = read(at, SECTOR as usize)?;
        if record[510..] != [0x55, 0xaa] {
            return Err(GrowError::Damaged(format!(
                "no boot record at {at} for partition {number}"
            )));
        }
        // The first entry counts from this record, the second from the extended partition.
        let (logical, next) = (entry(&record, 0), entry(&record, 1));
        if number == goal.number {
            if at + logical.start != goal.start || is_extended(next.kind) {
                return Err(GrowError::Other(number));
            }
            set_end(&mut record, 0, goal.start, goal.end)?;
            let mut pieces = vec![Piece {
                start: at,
                bytes: record,
            }];
            if let Some(mut before) = before {
                set_end(&mut before.bytes, 1, at, goal.end)?;
                pieces.push(before);
            }
            return Ok(pieces);
        }
        let next_at = base + next.start;
        if !is_extended(next.kind) || next_at <= at {
            return Err(GrowError::Other(goal.number));
        }
        before = Some(Piece {
            start: at,
            bytes: record,
        });
        // An empty record in the middle of the chain has no number.
        number += u32::from(logical.kind != 0 && logical.bytes != 0);
        at = next_at;
    }
}

fn grow_gpt(mut head: Vec<u8>, goal: Goal) -> Result<Grown, GrowError> {
    let damaged = |error: gptman::Error| GrowError::Damaged(error.to_string());
    let (mut header, mut partitions) = gpt_entries(&head).map_err(|error| match error {
        TableError::Damaged(what) => GrowError::Damaged(what),
        none => GrowError::Damaged(none.to_string()),
    })?;
    let others_end = (1..)
        .zip(&partitions)
        .filter(|(number, entry)| entry.is_used() && *number != goal.number)
        .map(|(_, entry)| entry.ending_lba);
    let is_last = others_end
        .max()
        .is_none_or(|end| end.saturating_mul(SECTOR) < goal.start);
    let own = (1..)
        .zip(&mut partitions)
        .find(|(number, _)| *number == goal.number)
        .map(|(_, entry)| entry)
        .filter(|own| own.is_used() && own.starting_lba.saturating_mul(SECTOR) == goal.start);
    let (true, true, Some(own)) = (is_last, header.is_primary(), own) else {
        return Err(GrowError::Other(goal.number));
    };
    let (count, bytes) = (
        u64::from(header.number_of_partition_entries),
        u64::from(header.size_of_partition_entry),
    );
    let entries = (count * bytes).next_multiple_of(SECTOR);
    let last = goal.disk_bytes / SECTOR - 1;
    header.backup_lba = last;
    header.last_usable_lba = last - entries / SECTOR - 1;
    if goal.end / SECTOR - 1 > header.last_usable_lba {
        return Err(GrowError::TooFar(goal.end));
    }
    own.ending_lba = goal.end / SECTOR - 1;

    let mut backup = header.clone();
    backup.primary_lba = last;
    backup.backup_lba = header.primary_lba;
    backup.partition_entry_lba = header.last_usable_lba + 1;
    let mut tail = Window::new(backup.partition_entry_lba * SECTOR, goal.disk_bytes);
    backup
        .write_into(&mut tail, SECTOR, &partitions)
        .map_err(damaged)?;

    let primary_entries = header.partition_entry_lba * SECTOR;
    header
        .write_into(&mut Cursor::new(&mut head[..]), SECTOR, &partitions)
        .map_err(damaged)?;
    let piece = |start: u64, len: u64| Piece {
        start,
        bytes: head[start as usize..(start + len) as usize].to_vec(),
    };
    let pieces = vec![
        piece(primary_entries, entries),
        piece(SECTOR, SECTOR),
        tail.piece,
    ];
    let mut first = head[..SECTOR as usize].to_vec();
    protect(&mut first, goal.disk_bytes);
    Ok(Grown { first, pieces })
}

/// Makes the MBR of a GPT disk protect all of it.
fn protect(first: &mut [u8], disk_bytes: u64) {
    let most = u64::from(u32::MAX) * SECTOR;
    for index in 0..4 {
        let Entry { kind, start, .. } = entry(first, index);
        if kind == PROTECTIVE && start == SECTOR {
            let sectors = (disk_bytes - start).min(most) / SECTOR;
            let at = ENTRIES + ENTRY * index + 12;
            first[at..at + 4].copy_from_slice(&(sectors as u32).to_le_bytes());
        }
    }
}

/// A part of a disk in memory, written to by its places on the disk.
struct Window {
    piece: Piece,
    position: u64,
}

impl Window {
    fn new(start: u64, end: u64) -> Window {
        let bytes = vec![0; (end - start) as usize];
        Window {
            piece: Piece { start, bytes },
            position: start,
        }
    }
}

impl Write for Window {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at = self.position.checked_sub(self.piece.start);
        let place = at
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| self.piece.bytes.get_mut(at..at + bytes.len()))
            .ok_or(io::ErrorKind::WriteZero)?;
        place.copy_from_slice(bytes);
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(by) => self.position.saturating_add_signed(by),
            SeekFrom::End(by) => {
                let end = self.piece.start + self.piece.bytes.len() as u64;
                end.saturating_add_signed(by)
            }
        };
        Ok(self.position)
    }
}
