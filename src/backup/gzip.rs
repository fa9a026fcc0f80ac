//! gzip on all cores: blocks of the input are packed on threads, each to a gzip member of its own,
//! and written in their order. gzip(1) and all else that reads gzip takes members in a row for one.
//!
//! Called by [`super::archive`].

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Bytes in a member: at this size they pack as well as in one, to a thousandth.
const MEMBER: usize = 1 << 20;

/// More threads would only take memory: the sources are not read that fast.
const MOST_THREADS: usize = 16;

/// A block, and where its member is wanted.
type Job = (Vec<u8>, SyncSender<io::Result<Vec<u8>>>);

/// Packs what is written to it. [`Gzip::finish`] must be called, or the end is missing.
pub struct Gzip<W: Write> {
    sink: W,
    block: Vec<u8>,
    jobs: Option<Sender<Job>>,
    /// Members on their way, the oldest first.
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    threads: Vec<JoinHandle<()>>,
}

impl<W: Write> Gzip<W> {
    /// Packs to `sink`, which gets one write a member.
    pub fn new(sink: W) -> Gzip<W> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..cores.min(MOST_THREADS)).map(|_| {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || work(&queue))
        });
        Gzip {
            sink,
            block: Vec::with_capacity(MEMBER),
            jobs: Some(jobs),
            pending: VecDeque::new(),
            threads: threads.collect(),
        }
    }

    /// Packs and writes what is left, and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        self.send()?;
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        self.jobs = None;
        for thread in self.threads {
            thread
                .join()
                .map_err(|_| io::Error::other("a packing thread died"))?;
        }
        Ok(self.sink)
    }

    /// Hands the block to the threads. Two for each of them are enough to keep them busy.
    fn send(&mut self) -> io::Result<()> {
        while self.pending.len() >= 2 * self.threads.len() {
            self.write_oldest()?;
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(MEMBER));
        let (member, wanted) = sync_channel(1);
        self.pending.push_back(wanted);
        let sent = self.jobs.as_ref().map(|jobs| jobs.send((block, member)));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(io::Error::other("the packing threads died")),
        }
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.pending.pop_front() else {
            return Ok(());
        };
        let member = oldest
            .recv()
            .map_err(|_| io::Error::other("a packing thread died"))??;
        self.sink.write_all(&member)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(MEMBER - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == MEMBER {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packs blocks until there will be no more.
fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = match queue.lock() {
            Ok(queue) => queue.recv(),
            Err(_) => return,
        };
        let Ok((block, wanted)) = job else { return };
        // Nobody waits for it after an error elsewhere.
        let _ = wanted.send(pack(&block));
    }
}

fn pack(block: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(block)?;
    packed.finish()
}
