//! Moving many bytes in large blocks, each end of the way in a thread of its own: unpacking,
//! hashing and writing, or reading and hashing, go on at the same time. Used by [`super::secure`]
//! and [`super::flash`].

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope};

use twox_hash::XxHash3_64;

use crate::payload::digest::Sha256Writer;

/// Bytes in a block. Large, since flash memory erases in units of up to several MiB.
pub const BLOCK: usize = 4 << 20;

/// Blocks in use at once: one being filled, one being looked at, one being drained, and one before
/// each of the latter two, so that nobody waits for a hiccup of another.
const BLOCKS: usize = 5;

/// Memory for buffers that the flash takes at most: the blocks on their way, one to read back into,
/// one of zeros, and one for the resume record. Bounded, whatever the image has: machines of 256 MiB
/// keep the image itself in memory beside it.
pub const BUFFER_BYTES: usize = (BLOCKS + 3) * BLOCK;
const _: () = assert!(BUFFER_BYTES <= 32 << 20);

/// What direct I/O wants its memory aligned to.
const PAGE: usize = 4096;

/// [`BLOCK`] bytes of memory, aligned for direct I/O.
pub struct Block {
    memory: Vec<u8>,
    start: usize,
    filled: usize,
}

impl Block {
    /// An empty block: all zeros.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Block {
        let memory = vec![0; BLOCK + PAGE];
        let start = memory.as_ptr().align_offset(PAGE);
        Block {
            memory,
            start,
            filled: 0,
        }
    }

    /// With `bytes`, at most [`BLOCK`], in it.
    pub fn of(bytes: &[u8]) -> Block {
        let mut block = Block::new();
        block.put(bytes);
        block
    }

    /// What was put into it.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.filled]
    }

    /// Puts `bytes`, at most [`BLOCK`], into it.
    pub fn put(&mut self, bytes: &[u8]) {
        self.all()[..bytes.len()].copy_from_slice(bytes);
        self.filled = bytes.len();
    }

    /// The first `filled` bytes of its memory count as put into it.
    pub fn fill_to(&mut self, filled: usize) {
        self.filled = filled;
    }

    /// What was put into it, with zeros up to a multiple of `unit` bytes: disks take no less.
    pub fn padded(&mut self, unit: usize) -> &[u8] {
        let filled = self.filled;
        let end = filled.next_multiple_of(unit);
        let all = self.all();
        all[filled..end].fill(0);
        &all[..end]
    }

    /// All of its memory.
    pub fn all(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + BLOCK]
    }
}

/// Tells bytes from those that they were meant to be, where nobody has an interest in deceiving: in
/// memory, and on the way to the disk and back. It is as fast as memory, which SHA-256 is not.
pub fn hash(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// Which end of a stream failed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The source.
    #[error(transparent)]
    Fill(io::Error),
    /// The destination.
    #[error(transparent)]
    Drain(anyhow::Error),
}

/// Calls `fill` in a thread until it fills less than a whole block, and `drain` here with each
/// block. `fill` gets all the memory of a block and says how much of it it used.
pub fn stream(
    fill: impl FnMut(&mut [u8]) -> io::Result<usize> + Send,
    mut drain: impl FnMut(&mut Block) -> anyhow::Result<()>,
) -> Result<(), StreamError> {
    std::thread::scope(move |scope| {
        let (full, empty) = start_filling(scope, fill)?;
        // On an error both channels are dropped here, and the thread ends.
        for block in full {
            let mut block = block.map_err(StreamError::Fill)?;
            drain(&mut block).map_err(StreamError::Drain)?;
            let _ = empty.send(block);
        }
        Ok(())
    })
}

/// As [`stream`], with a thread between the two that calls `look` with each block; what that finds
/// out goes to `drain` with the block. What it doesn't like is a fault of the source.
pub fn stream_through<T: Send>(
    fill: impl FnMut(&mut [u8]) -> io::Result<usize> + Send,
    mut look: impl FnMut(&mut Block) -> io::Result<T> + Send,
    mut drain: impl FnMut(&mut Block, T) -> anyhow::Result<()>,
) -> Result<(), StreamError> {
    std::thread::scope(move |scope| {
        let (full, empty) = start_filling(scope, fill)?;
        let (seen_in, seen_out) = sync_channel(BLOCKS);
        Builder::new()
            .name("look".to_owned())
            .spawn_scoped(scope, move || {
                for block in full {
                    let seen = block.and_then(|mut block| {
                        let found = look(&mut block)?;
                        Ok((block, found))
                    });
                    let last = seen.is_err();
                    if seen_in.send(seen).is_err() || last {
                        return;
                    }
                }
            })
            .map_err(StreamError::Fill)?;
        for seen in seen_out {
            let (mut block, found) = seen.map_err(StreamError::Fill)?;
            drain(&mut block, found).map_err(StreamError::Drain)?;
            let _ = empty.send(block);
        }
        Ok(())
    })
}

/// Where the filled blocks come from, and where the empty ones go to.
type Ends = (Receiver<io::Result<Block>>, SyncSender<Block>);

/// Starts the thread that fills blocks.
fn start_filling<'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut fill: impl FnMut(&mut [u8]) -> io::Result<usize> + Send + 'scope,
) -> Result<Ends, StreamError> {
    let (full_in, full_out) = sync_channel(BLOCKS);
    let (empty_in, empty_out) = sync_channel(BLOCKS);
    for _ in 0..BLOCKS {
        // There is room for all of them.
        let _ = empty_in.send(Block::new());
    }
    Builder::new()
        .name("fill".to_owned())
        .spawn_scoped(scope, move || fill_all(&mut fill, &empty_out, &full_in))
        .map_err(StreamError::Fill)?;
    Ok((full_out, empty_in))
}

fn fill_all(
    fill: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
    empty: &Receiver<Block>,
    full: &SyncSender<io::Result<Block>>,
) {
    for mut block in empty {
        let filled = fill(block.all());
        let last = !matches!(filled, Ok(BLOCK));
        let sent = full.send(filled.map(|filled| {
            block.filled = filled;
            block
        }));
        if last || sent.is_err() {
            return;
        }
    }
}

/// Size and hash of bytes that pass by.
#[derive(Default)]
pub struct Measure(Sha256Writer);

impl Measure {
    /// These bytes pass by.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// How many have passed.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// An error that says how the bytes differ from what they must be.
    pub fn expect(self, bytes: u64, sha256: &str) -> Result<(), Mismatch> {
        let (found_bytes, found) = (self.0.bytes(), self.0.hex());
        if found_bytes != bytes {
            return Err(Mismatch::Size {
                found: found_bytes,
                wanted: bytes,
            });
        }
        match found == sha256 {
            true => Ok(()),
            false => Err(Mismatch::Hash {
                found,
                wanted: sha256.to_owned(),
            }),
        }
    }
}

/// How bytes differ from what they must be.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// In size.
    #[error("it has {found} bytes instead of {wanted}")]
    Size {
        /// Bytes it has.
        found: u64,
        /// Bytes it must have.
        wanted: u64,
    },
    /// In content.
    #[error("its SHA-256 is {found} instead of {wanted}")]
    Hash {
        /// The hash it has.
        found: String,
        /// The hash it must have.
        wanted: String,
    },
}
