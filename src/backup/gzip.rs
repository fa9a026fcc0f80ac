//! How a backup is packed. Called by [`super::archive`].

use std::io::{self, Write};
use std::thread;

use crate::packer::{Packer, gzip_member};

/// Bytes in a member: at this size they pack as well as in one, to a thousandth.
const MEMBER: usize = 1 << 20;

/// More threads would only take memory: the sources are not read that fast.
const MOST_THREADS: usize = 16;

/// Packs to `sink` as gzip, on all cores.
///
/// # Errors
///
/// When a thread can't be started.
pub fn gzip<W: Write>(sink: W) -> io::Result<Packer<W>> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(MOST_THREADS);
    Packer::new(sink, MEMBER, threads, |block| gzip_member(&block))
}
