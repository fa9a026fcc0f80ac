//! Reading back what was written, segment by segment, while the next one is being written. Called by
//! [`super::flash`], in a thread of its own with its own descriptor.

use std::sync::mpsc::{Receiver, Sender};

use anyhow::{Context, ensure};

use super::machine::{Device, read_full};
use super::stream::{Block, hash};

/// Bytes on the disk as they were meant.
pub struct Written {
    /// Where they begin.
    pub at: u64,
    /// How many; at most a [`Block`].
    pub len: usize,
    /// [`hash`] of them.
    pub hash: u64,
}

/// A part of the disk that is to be read back.
pub struct Segment {
    /// What is in it.
    pub parts: Vec<Written>,
    /// How far the image is on the disk once this is proven, in bytes.
    pub verified: u64,
}

/// Reads each segment back and says how far the image is proven, or what was wrong; after that, no
/// more.
pub fn read_back(
    device: &mut dyn Device,
    segments: &Receiver<Segment>,
    results: &Sender<anyhow::Result<u64>>,
) {
    let mut block = Block::new();
    for segment in segments {
        let result = compare(device, &segment, &mut block).map(|()| segment.verified);
        let failed = result.is_err();
        if results.send(result).is_err() || failed {
            return;
        }
    }
}

fn compare(device: &mut dyn Device, segment: &Segment, block: &mut Block) -> anyhow::Result<()> {
    // Only a disk that refuses direct reads has anything there.
    device.forget_cached().context("emptying the page cache")?;
    for part in &segment.parts {
        let bytes = &mut block.all()[..part.len];
        let at = part.at;
        let read = read_full(device, bytes, at).with_context(|| format!("reading back at {at}"))?;
        ensure!(
            read == part.len && hash(bytes) == part.hash,
            "the disk did not keep the image: the {} bytes at {at} read back differently",
            part.len
        );
    }
    Ok(())
}
