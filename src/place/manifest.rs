//! What is kept on the disk: `manifest.json` in the folder of the kept files.
//!
//! The engine writes it when everything is in its place; the steps after it read it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::handover::{Extent, Place, StoredFile};

/// Its name in the folder.
pub const NAME: &str = "manifest.json";

/// The kept files by their names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name → file.
    pub files: BTreeMap<String, Kept>,
}

/// A kept file: its content lies in the extents of its pieces, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Size in bytes; the pieces may have more.
    pub bytes: u64,
    /// SHA-256 of its content, 64 lower-case hex digits. Of a reserved file: that of zeros.
    pub sha256: String,
    /// Files of the old system that hold its blocks.
    pub pieces: Vec<Piece>,
}

/// A file of the old system whose blocks are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// Its path.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Its blocks on the disk, in the order of the file.
    pub extents: Vec<Extent>,
}

impl Kept {
    /// Where it is on the disk; neighbours are joined.
    pub fn extents(&self) -> Vec<Extent> {
        join(self.pieces.iter().flat_map(|piece| piece.extents.clone()))
    }

    /// As the hand-over names it.
    pub fn stored(&self) -> StoredFile {
        StoredFile {
            place: Place::Extents(self.extents()),
            bytes: self.bytes,
            sha256: self.sha256.clone(),
        }
    }
}

/// Joins extents that follow each other on the disk.
pub fn join(extents: impl IntoIterator<Item = Extent>) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::new();
    for extent in extents {
        match joined.last_mut() {
            Some(last) if last.end() == extent.start => last.bytes += extent.bytes,
            _ => joined.push(extent),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_and_the_order_is_kept() {
        let extent = |start, bytes| Extent { start, bytes };
        assert_eq!(
            join([extent(8, 4), extent(12, 2), extent(0, 8), extent(20, 1)]),
            [extent(8, 6), extent(0, 8), extent(20, 1)]
        );
    }
}
