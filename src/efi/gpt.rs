//! The names of the partitions of a GPT: which one is the EFI system partition, and what a device
//! path calls each. Pure; stage 1 and stage 2 read the disk.

use std::io;

use crate::partition_table::Reader;
use crate::superblock;

/// The type of an EFI system partition.
pub const EFI_SYSTEM: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// No table has more entries than this, and a damaged one shall not take all memory.
const MOST_ENTRIES: usize = 1024;

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u32,
    /// GUID of its type.
    pub kind: String,
    /// Its own GUID.
    pub guid: String,
}

/// The partitions of a disk with sectors of so many bytes; none when it has no GPT.
///
/// # Errors
///
/// When the disk can't be read, or the table is damaged.
pub fn entries(sector_bytes: u32, read: Reader) -> io::Result<Vec<Entry>> {
    let sector = u64::from(sector_bytes);
    let header = read(sector, sector_bytes as usize)?;
    if !header.starts_with(b"EFI PART") {
        return Ok(Vec::new());
    }
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the GPT is damaged");
    let le32 = |at: usize| -> Option<usize> {
        let bytes = header.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let place = header.get(72..80).and_then(|bytes| bytes.try_into().ok());
    let start = place
        .and_then(|bytes| u64::from_le_bytes(bytes).checked_mul(sector))
        .ok_or_else(damaged)?;
    let (count, size) = le32(80).zip(le32(84)).ok_or_else(damaged)?;
    if count > MOST_ENTRIES || !(128..=4096).contains(&size) {
        return Err(damaged());
    }
    let table = read(
        start,
        (count * size).next_multiple_of(sector_bytes as usize),
    )?;
    Ok((1..)
        .zip(table.chunks_exact(size).take(count))
        .filter(|(_, entry)| entry[..16] != [0; 16])
        .map(|(number, entry)| Entry {
            number,
            kind: guid(&entry[..16]),
            guid: guid(&entry[16..32]),
        })
        .collect())
}

fn guid(bytes: &[u8]) -> String {
    superblock::guid(bytes.try_into().expect("16 bytes"))
}
