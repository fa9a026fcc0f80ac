//! The partition table of an image, parsed while the image streams past.
//!
//! Nothing here seeks: the parser says which bytes it wants to see next, in rising order.

use std::io::Cursor;

use crate::handover::TableIdentity;
use crate::superblock;

/// Bytes per sector that image tables are made for.
pub const SECTOR: u64 = 512;

/// Bytes from the start of an image that hold the MBR, or the GPT header and all its entries: these
/// end at sector 34, and some tools move them up for alignment.
pub const HEAD_BYTES: usize = 128 * SECTOR as usize;

/// A partition in an image, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Number as the kernel counts, from 1; logical partitions start at 5.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// Size.
    pub bytes: u64,
}

/// What a piece of the table gave: partitions, and the sector to look at next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Partitions that are complete.
    pub slots: Vec<Slot>,
    /// Names of partitions, where the table has names.
    pub names: Vec<String>,
    /// Offset of the next extended boot record.
    pub next: Option<u64>,
}

/// Why a table can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Neither MBR nor GPT.
    #[error("it does not start with a partition table")]
    None,
    /// Damaged, or of a kind that is not known here.
    #[error("its partition table can't be read: {0}")]
    Damaged(String),
}

/// Walks the chain of extended boot records.
#[derive(Debug, Default)]
pub struct TableParser {
    extended_start: u64,
    next_logical: u32,
}

impl TableParser {
    /// Parses the first [`HEAD_BYTES`] of an image.
    pub fn head(&mut self, head: &[u8]) -> Result<(TableIdentity, Found), TableError> {
        let identity = superblock::table_identity(head, SECTOR as u32).ok_or(TableError::None)?;
        let found = match identity {
            TableIdentity::Gpt(_) => gpt(head)?,
            TableIdentity::Mbr(_) => self.mbr(head)?,
        };
        Ok((identity, found))
    }

    /// The primary partitions, and where the chain of logical ones starts.
    fn mbr(&mut self, head: &[u8]) -> Result<Found, TableError> {
        let mut found = Found::default();
        for (number, (kind, start, bytes)) in (1..).zip(entries(head)?) {
            if is_extended(kind) {
                self.extended_start = start;
                self.next_logical = 5;
                found.next = Some(start);
            } else if kind != 0 && bytes != 0 {
                found.slots.push(Slot {
                    number,
                    start,
                    bytes,
                });
            }
        }
        Ok(found)
    }

    /// Parses the extended boot record that lies at `offset`.
    pub fn extended(&mut self, offset: u64, sector: &[u8]) -> Result<Found, TableError> {
        let mut found = Found::default();
        // The first entry counts from this record, the second from the extended partition.
        let [(kind, start, bytes), (next_kind, next_start, _), ..] = entries(sector)?;
        if kind != 0 && bytes != 0 {
            found.slots.push(Slot {
                number: self.next_logical,
                start: offset + start,
                bytes,
            });
            self.next_logical += 1;
        }
        if is_extended(next_kind) {
            let next = self.extended_start + next_start;
            if next <= offset {
                return Err(TableError::Damaged(
                    "its logical partitions are not in rising order".into(),
                ));
            }
            found.next = Some(next);
        }
        Ok(found)
    }
}

/// Types of extended partitions: CHS, LBA, and Linux's own.
pub fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

/// Type, start and size in bytes of the four entries of a boot record.
fn entries(sector: &[u8]) -> Result<[(u8, u64, u64); 4], TableError> {
    let header = mbrman::MBRHeader::read_from(&mut Cursor::new(sector))
        .map_err(|error| TableError::Damaged(error.to_string()))?;
    Ok([1, 2, 3, 4].map(|number| {
        let entry = header.get(number).expect("a boot record has four entries");
        (
            entry.sys,
            u64::from(entry.starting_lba) * SECTOR,
            u64::from(entry.sectors) * SECTOR,
        )
    }))
}

/// The partitions of a GPT.
fn gpt(head: &[u8]) -> Result<Found, TableError> {
    let table = gptman::GPT::read_from(&mut Cursor::new(head), SECTOR)
        .map_err(|error| TableError::Damaged(error.to_string()))?;
    let used = || table.iter().filter(|(_, entry)| entry.is_used());
    let names = used().map(|(_, entry)| entry.partition_name.as_str().to_owned());
    let slots = used()
        .map(|(number, entry)| Slot {
            number,
            start: entry.starting_lba * SECTOR,
            bytes: (entry.ending_lba + 1).saturating_sub(entry.starting_lba) * SECTOR,
        })
        .collect();
    Ok(Found {
        slots,
        names: names.collect(),
        next: None,
    })
}
