//! The record of a flash that can go on after a power cut: written by stage 1, carried on by
//! stage 2, on the disk to overwrite but outside of what the flash touches.
//!
//! It has two slots that are written in turn, so that a torn write leaves the one before. Pure: who
//! reads and writes the disk is [`crate::engine`] and [`crate::stage2`].

use serde::{Deserialize, Serialize};

use crate::handover::Extent;
use crate::payload::digest::sha256_hex;

/// Size of a slot in bytes: a multiple of every sector size, with room for hundreds of extents.
pub const SLOT_BYTES: usize = 64 << 10;

/// Size of the record in bytes.
pub const RECORD_BYTES: u64 = 2 * SLOT_BYTES as u64;

/// What a slot starts with.
const MAGIC: &[u8; 8] = b"BALENAMR";

/// Hex digits of the hash behind the magic.
const HASH: usize = 64;

/// Magic, hash, and the length of the text in 8 decimal digits.
const HEAD: usize = MAGIC.len() + HASH + 8;

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The run of the hand-over.
    pub run_id: String,
    /// Counts the writes of this record, from 0.
    pub number: u64,
    /// How far it is.
    pub state: State,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum State {
    /// By stage 1: what the boot code will load. Nothing is overwritten yet.
    Prepared(Vec<BootFile>),
    /// By stage 2: the disk is being overwritten.
    Overwriting {
        /// The image is on the medium, read back and compared, up to this byte.
        verified: u64,
    },
}

/// A file that the boot code, or GRUB's core started by it, loads by its sectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootFile {
    /// What it is, for people.
    pub what: String,
    /// Where it is.
    pub extents: Vec<Extent>,
    /// Size in bytes; the extents may have more.
    pub bytes: u64,
    /// SHA-256, 64 lower-case hex digits.
    pub sha256: String,
}

impl Record {
    /// Where in the record this belongs, in bytes, and the [`SLOT_BYTES`] to be written there.
    ///
    /// # Panics
    ///
    /// When a [`State::Prepared`] has so many extents that it does not fit; see [`Record::fits`].
    pub fn slot(&self) -> (u64, Vec<u8>) {
        let text = self.text();
        let mut slot = MAGIC.to_vec();
        slot.extend(sha256_hex(&text).bytes());
        slot.extend(format!("{:08}", text.len()).bytes());
        slot.extend(text);
        assert!(slot.len() <= SLOT_BYTES, "a record that fits its slot");
        slot.resize(SLOT_BYTES, 0);
        (self.number % 2 * SLOT_BYTES as u64, slot)
    }

    /// Whether it fits into a slot.
    pub fn fits(&self) -> bool {
        HEAD + self.text().len() <= SLOT_BYTES
    }

    /// The newest record in `bytes`, which are [`RECORD_BYTES`] of the disk; none when neither
    /// slot has a whole one.
    pub fn read(bytes: &[u8]) -> Option<Record> {
        bytes
            .chunks(SLOT_BYTES)
            .filter_map(read_slot)
            .max_by_key(|record| record.number)
    }

    /// The one that follows it.
    pub fn next(&self, state: State) -> Record {
        Record {
            run_id: self.run_id.clone(),
            number: self.number + 1,
            state,
        }
    }

    fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data serialises")
    }
}

fn read_slot(slot: &[u8]) -> Option<Record> {
    let rest = slot.strip_prefix(MAGIC)?;
    let (hash, rest) = rest.split_at_checked(HASH)?;
    let (len, rest) = rest.split_at_checked(8)?;
    let len: usize = std::str::from_utf8(len).ok()?.parse().ok()?;
    let text = rest.get(..len)?;
    (sha256_hex(text).as_bytes() == hash).then_some(())?;
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, verified: u64) -> Record {
        Record {
            run_id: "run".to_owned(),
            number,
            state: State::Overwriting { verified },
        }
    }

    fn written(records: &[Record]) -> Vec<u8> {
        let mut bytes = vec![0xa5; RECORD_BYTES as usize];
        for record in records {
            let (at, slot) = record.slot();
            bytes[at as usize..][..SLOT_BYTES].copy_from_slice(&slot);
        }
        bytes
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let (first, second, third) = (record(0, 0), record(1, 10), record(2, 20));
        assert_eq!(Record::read(&written(&[])), None);
        assert_eq!(
            Record::read(&written(std::slice::from_ref(&first))),
            Some(first.clone())
        );
        let all = [first, second.clone(), third.clone()];
        assert_eq!(Record::read(&written(&all)), Some(third));
        // A write of the third that was cut off anywhere leaves the second.
        for kept in [0, 7, 8, 50, 80, 100, 130] {
            let mut torn = written(&all);
            torn[kept..SLOT_BYTES].fill(0);
            assert_eq!(Record::read(&torn), Some(second.clone()), "{kept} bytes");
        }
    }

    #[test]
    fn what_follows_has_the_next_number_in_the_other_slot() {
        let next = record(6, 0).next(State::Overwriting { verified: 5 });
        assert_eq!((next.number, next.slot().0), (7, SLOT_BYTES as u64));
    }
}
