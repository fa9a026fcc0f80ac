//! The partition table of an image, parsed while the image streams past.
//!
//! Nothing here seeks: the parser says which bytes it wants to see next, in rising order.

use std::io::Cursor;

use gptman::{GPTHeader, GPTPartitionEntry};

use crate::handover::TableIdentity;
use crate::shown::shown;
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
    let (_, entries) = gpt_entries(head)?;
    let used = (1..).zip(&entries).filter(|(_, entry)| entry.is_used());
    let mut found = Found::default();
    for (number, entry) in used {
        found.slots.push(slot(number, entry)?);
        found.names.push(shown(entry.partition_name.as_str()));
    }
    Ok(found)
}

/// The header of a GPT and all its entries, used and not, out of the first [`HEAD_BYTES`] of a disk.
///
/// # Errors
///
/// A checksum that is wrong, entries that are not in there, or not as large as the kernel takes them.
/// gptman would trust these numbers of a header, and makes no difference between the table at the start
/// of a disk and its backup.
pub fn gpt_entries(head: &[u8]) -> Result<(GPTHeader, Vec<GPTPartitionEntry>), TableError> {
    /// `struct gpt_entry` of the kernel, which takes no other.
    const ENTRY: u32 = 128;
    let damaged = |error: gptman::Error| TableError::Damaged(error.to_string());
    let mut disk = Cursor::new(head);
    disk.set_position(SECTOR);
    let header = GPTHeader::read_from(&mut disk).map_err(damaged)?;
    let (count, size) = (
        header.number_of_partition_entries,
        header.size_of_partition_entry,
    );
    if size != ENTRY {
        let what = format!("its entries have {size} bytes each instead of {ENTRY}");
        return Err(TableError::Damaged(what));
    }
    let start = header.partition_entry_lba.checked_mul(SECTOR);
    let end = start.and_then(|start| start.checked_add(u64::from(count) * u64::from(ENTRY)));
    let is_here = header.partition_entry_lba > 1 && end.is_some_and(|end| end <= head.len() as u64);
    if !is_here {
        return Err(TableError::Damaged(format!(
            "it has {count} entries from sector {} on, which is not at its start",
            header.partition_entry_lba
        )));
    }
    let entries = header.read_partitions(&mut disk, SECTOR).map_err(damaged)?;
    Ok((header, entries))
}

fn slot(number: u32, entry: &GPTPartitionEntry) -> Result<Slot, TableError> {
    /// The kernel counts bytes of a disk in 63 bits.
    const SECTORS: u64 = (1 << 63) / SECTOR;
    let (first, last) = (entry.starting_lba, entry.ending_lba);
    if first < 2 || last < first || last >= SECTORS {
        return Err(TableError::Damaged(format!(
            "its partition {number} is from sector {first} to {last}, where none can be"
        )));
    }
    Ok(Slot {
        number,
        start: first * SECTOR,
        bytes: (last + 1 - first) * SECTOR,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The start of a disk with a GPT: a header with these numbers, and its entries behind it. All
    /// checksums are right.
    fn head(count: u32, size: u32, lba: u64, entries: &[(u64, u64)]) -> Vec<u8> {
        let crc = |bytes: &[u8]| {
            let mut crc = flate2::Crc::new();
            crc.update(bytes);
            crc.sum().to_le_bytes()
        };
        let mut head = vec![0; HEAD_BYTES];
        head[446 + 4] = 0xee;
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (index, (first, last)) in entries.iter().enumerate() {
            let at = 1024 + 128 * index;
            head[at..at + 32].fill(1 + index as u8);
            head[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
            head[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
        }
        let entries_end = (1024 + u64::from(count) * u64::from(size)).min(HEAD_BYTES as u64);
        let entries_crc = crc(&head[1024..entries_end as usize]);
        let header = &mut head[512..512 + 92];
        header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
        header[24] = 1;
        header[40] = 34;
        header[72..80].copy_from_slice(&lba.to_le_bytes());
        header[80..84].copy_from_slice(&count.to_le_bytes());
        header[84..88].copy_from_slice(&size.to_le_bytes());
        header[88..92].copy_from_slice(&entries_crc);
        let header_crc = crc(header);
        header[16..20].copy_from_slice(&header_crc);
        head
    }

    #[test]
    fn a_gpt_gives_its_partitions() {
        let head = head(128, 128, 2, &[(34, 34), (2048, 4095)]);
        let (_, found) = TableParser::default().head(&head).unwrap();
        let slots = found
            .slots
            .iter()
            .map(|slot| (slot.number, slot.start, slot.bytes));
        let expected = [(1, 34 * SECTOR, SECTOR), (2, 1 << 20, 1 << 20)];
        assert!(slots.eq(expected), "{found:?}");
    }

    #[test]
    fn a_gpt_with_numbers_that_can_not_be_is_damaged() {
        let ordinary = [(2048, 4095)];
        for (what, head, says) in [
            (
                "too many entries",
                head(u32::MAX, 128, 2, &ordinary),
                "it has 4294967295 entries from sector 2 on, which is not at its start",
            ),
            (
                "entries of no size",
                head(128, 0, 2, &ordinary),
                "its entries have 0 bytes each instead of 128",
            ),
            (
                "large entries",
                head(64, 256, 2, &ordinary),
                "its entries have 256 bytes each instead of 128",
            ),
            (
                "entries far away",
                head(128, 128, u64::MAX, &ordinary),
                "it has 128 entries from sector 18446744073709551615 on, which is not at its start",
            ),
            (
                "the first sector",
                head(128, 128, 2, &[(0, 4095)]),
                "its partition 1 is from sector 0 to 4095, where none can be",
            ),
            (
                "the last sector",
                head(128, 128, 2, &[(34, 34), (2048, u64::MAX)]),
                "its partition 2 is from sector 2048 to 18446744073709551615, where none can be",
            ),
            (
                "an end before its start",
                head(128, 128, 2, &[(2048, 2047)]),
                "its partition 1 is from sector 2048 to 2047, where none can be",
            ),
        ] {
            let found = TableParser::default().head(&head).unwrap_err();
            assert_eq!(found, TableError::Damaged(says.into()), "{what}");
        }
        // The backup of a table is at the end of a disk, not of what is read of it.
        let mut torn = head(128, 128, 2, &ordinary);
        let backup = head(u32::MAX, 128, 2, &ordinary)[512..1024].to_vec();
        torn[512 + 24] = 2;
        torn[HEAD_BYTES - 512..].copy_from_slice(&backup);
        let found = TableParser::default().head(&torn).unwrap_err();
        assert!(found.to_string().contains("checksum"), "{found}");
    }
}
