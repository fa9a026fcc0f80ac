//! Whether the backup fits on resin-data of the image, and how large that has to become for it.
//!
//! Stage 1 asks before anything is done; the engine asks again when it has made the backup.

use std::fmt;

use crate::ext_space::ExtSpace;
use crate::handover::{ImagePartition, TableIdentity};
use crate::payload::scan::Scan;
use crate::payload::table::SECTOR;

/// The end of a grown partition is a multiple of this.
const STEP: u64 = 4 << 20;

/// At the end of the disk: stage 2 wipes the last MiB, and a backup GPT lies there.
const TAIL: u64 = 1 << 20;

/// What goes onto resin-data beside files of a known size: the log, folders, and what the new
/// system writes before it grows the partition itself.
const MARGIN: u64 = 2 << 20;

/// One in so many bytes of a file is for the tree of its blocks, in a file system without extents.
const TREE: u64 = 128;

/// Room that is needed for files of so many bytes together.
pub fn need(bytes: u64) -> u64 {
    bytes + bytes / TREE + MARGIN
}

/// Where partitions end at most on a disk of `disk_bytes`.
pub fn end_of(disk_bytes: u64) -> u64 {
    disk_bytes.saturating_sub(TAIL)
}

/// resin-data on the disk: what it has, and what it can have.
#[derive(Debug, Clone, PartialEq)]
pub struct DataPlace {
    partition: ImagePartition,
    /// None: no file system that can be measured.
    space: Option<ExtSpace>,
    bound: Bound,
    /// Where the partition ends at most, in bytes of the disk.
    most_end: u64,
}

/// What keeps resin-data from growing further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Disk,
    Mbr,
    FileSystem,
    NotLast,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Disk => "the disk has no more",
            Bound::Mbr => "an MBR, which the image has, ends at 2 TiB",
            Bound::FileSystem => "its file system can't grow further while it is mounted",
            Bound::NotLast => "it is not the last partition of the image",
        })
    }
}

/// The backup has no room in the new system.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the backup has {} MiB, and resin-data of the image can have room for no more than {} MiB: {why}",
    bytes.div_ceil(1 << 20),
    room >> 20
)]
pub struct TooLarge {
    bytes: u64,
    room: u64,
    why: String,
}

impl DataPlace {
    /// On a disk of `disk_bytes`. None: the image has no resin-data.
    pub fn of(scan: &Scan, disk_bytes: u64) -> Option<DataPlace> {
        let partition = scan.partition("resin-data")?.clone();
        let end = partition.start + partition.bytes;
        let mut bounds = vec![(Bound::Disk, end_of(disk_bytes))];
        if matches!(scan.table, TableIdentity::Mbr(_)) {
            bounds.push((Bound::Mbr, u64::from(u32::MAX) * SECTOR));
        }
        if let Some(space) = &scan.data_space {
            let most = partition.start.saturating_add(space.most_bytes());
            bounds.push((Bound::FileSystem, most));
        }
        if scan.partitions_end > end {
            bounds.push((Bound::NotLast, end));
        }
        let (bound, most_end) = bounds
            .into_iter()
            .min_by_key(|(_, most)| *most)
            .expect("the disk is a bound");
        Some(DataPlace {
            partition,
            space: scan.data_space,
            bound,
            most_end: (most_end - most_end % STEP).max(end),
        })
    }

    /// Size that the partition has to have for files of `bytes` together, in bytes; none when it can
    /// stay, or can't become large enough.
    pub fn size_for(&self, bytes: u64) -> Option<u64> {
        let end = self.end_for(bytes).ok()??;
        Some(end - self.partition.start)
    }

    /// Whether there is anything to grow into.
    pub fn can_grow(&self) -> bool {
        self.space.is_some() && self.most_end > self.partition.start + self.partition.bytes
    }

    /// Where resin-data has to end for files of `bytes` together; none when it has room for
    /// them as it is.
    pub fn end_for(&self, bytes: u64) -> Result<Option<u64>, TooLarge> {
        let Some(space) = &self.space else {
            return Ok(None);
        };
        let need = need(bytes);
        if space.free_at(space.blocks) >= need {
            return Ok(None);
        }
        let start = self.partition.start;
        let room = |end: u64| space.free_at(space.blocks_in(end - start));
        let most = room(self.most_end);
        if most < need {
            return Err(TooLarge {
                bytes,
                room: most.saturating_sub(MARGIN + most / TREE),
                why: self.bound.to_string(),
            });
        }
        // The smallest number of steps that gives the room.
        let (mut small, mut large) = ((start + self.partition.bytes) / STEP, self.most_end / STEP);
        while small + 1 < large {
            let middle = small.midpoint(large);
            match room(middle * STEP) < need {
                true => small = middle,
                false => large = middle,
            }
        }
        Ok(Some(large * STEP))
    }
}
