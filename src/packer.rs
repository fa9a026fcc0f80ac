//! Compresses on all cores: what is written is cut into blocks, each is packed on a thread, and they go out
//! in their order. gzip members and zstd frames in a row are one stream to all that read them.
//!
//! Called by [`crate::backup`] and [`crate::extract`].

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use flate2::Compression;
use flate2::write::GzEncoder;

/// A block, and where it is wanted once it is packed.
type Job = (Vec<u8>, SyncSender<io::Result<Vec<u8>>>);

type Pack = dyn Fn(Vec<u8>) -> io::Result<Vec<u8>> + Send + Sync;

/// Packs what is written to it. [`Packer::finish`] must be called, or the end is missing.
pub struct Packer<W: Write> {
    sink: W,
    pack: Arc<Pack>,
    block: Vec<u8>,
    block_bytes: usize,
    jobs: Option<Sender<Job>>,
    /// Blocks on their way, the oldest first.
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    threads: Vec<JoinHandle<()>>,
    /// No block was sent so far.
    is_empty: bool,
}

impl<W: Write> Packer<W> {
    /// Packs blocks of `block_bytes` with `pack` to `sink`, which gets one write a block; on as many
    /// `threads`, or where it is called when that is 0. Nothing at all becomes one empty block.
    ///
    /// # Errors
    ///
    /// When a thread can't be started.
    pub fn new(
        sink: W,
        block_bytes: usize,
        threads: usize,
        pack: impl Fn(Vec<u8>) -> io::Result<Vec<u8>> + Send + Sync + 'static,
    ) -> io::Result<Packer<W>> {
        let pack: Arc<Pack> = Arc::new(pack);
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..threads).map(|_| {
            let (queue, pack) = (Arc::clone(&queue), Arc::clone(&pack));
            thread::Builder::new().spawn(move || work(&queue, &*pack))
        });
        Ok(Packer {
            sink,
            threads: threads.collect::<io::Result<_>>()?,
            pack,
            block: Vec::with_capacity(block_bytes),
            block_bytes,
            jobs: Some(jobs),
            pending: VecDeque::new(),
            is_empty: true,
        })
    }

    /// Packs and writes what is left, and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() || self.is_empty {
            self.send()?;
        }
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        self.jobs = None;
        for thread in self.threads {
            thread.join().map_err(|_| died())?;
        }
        Ok(self.sink)
    }

    /// Hands the block to the threads. Two for each of them are enough to keep them busy.
    fn send(&mut self) -> io::Result<()> {
        self.is_empty = false;
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(self.block_bytes));
        if self.threads.is_empty() {
            return self.sink.write_all(&(self.pack)(block)?);
        }
        while self.pending.len() >= 2 * self.threads.len() {
            self.write_oldest()?;
        }
        let (packed, wanted) = sync_channel(1);
        self.pending.push_back(wanted);
        let sent = self.jobs.as_ref().map(|jobs| jobs.send((block, packed)));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(died()),
        }
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        match self.pending.pop_front() {
            Some(oldest) => self.sink.write_all(&oldest.recv().map_err(|_| died())??),
            None => Ok(()),
        }
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.block_bytes - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == self.block_bytes {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packs blocks until there will be no more.
fn work(queue: &Mutex<Receiver<Job>>, pack: &Pack) {
    loop {
        let job = match queue.lock() {
            Ok(queue) => queue.recv(),
            Err(_) => return,
        };
        let Ok((block, wanted)) = job else { return };
        // Nobody waits for it after an error elsewhere.
        let _ = wanted.send(pack(block));
    }
}

fn died() -> io::Error {
    io::Error::other("a packing thread died")
}

/// A block as a gzip member of its own.
pub fn gzip_member(block: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::with_capacity(block.len() / 2), Compression::default());
    packed.write_all(block)?;
    packed.finish()
}
