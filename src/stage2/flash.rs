//! One try to put the image onto the disk. Called by [`super::overwrite`].
//!
//! Four threads work at once on a bounded number of blocks: one unpacks, one hashes, this one
//! writes, and one reads the segment before back ([`super::read_back`]).

use std::io;
use std::ops::Range;
use std::slice;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{self, Builder, Scope};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};

use super::Work;
use super::log::seconds;
use super::machine::{Device, Disk, Machine, write_full};
use super::overwrite::LAST;
use super::progress::Progress;
use super::read_back::{Segment, Written, read_back};
use super::record::Keeper;
use super::secure::Secured;
use super::stream::{BLOCK, Block, StreamError, hash, stream_through};
use crate::payload;
use crate::resume::State;

/// Bytes that are flushed and read back together, at most: what a power cut costs again, in time.
const SEGMENT: u64 = 64 << 20;

/// No segment is more than this part of the image: nothing goes on while the last one is read back.
const SEGMENTS: u64 = 16;

/// Zeros are left to the disk in whole pieces of this size and alignment; for less, a command of its
/// own would not pay.
const ZEROS: usize = 1 << 20;

/// Where the image goes.
pub struct Target<'a> {
    /// The disk.
    pub disk: &'a Disk,
    /// It, opened exclusively.
    pub device: &'a mut dyn Device,
    /// To read it back.
    pub reader: Box<dyn Device>,
    /// The record of how far it is, where there is one.
    pub record: Option<&'a mut Keeper>,
    /// Bytes of the image that need not be written again.
    pub from: u64,
    /// Whether the disk may be told to make zeros.
    pub zero_out: bool,
}

/// Why a try failed.
pub enum Failed {
    /// The image can't be unpacked, or is another one: nothing that was written counts.
    Source(anyhow::Error),
    /// The disk; what was verified is there.
    Disk(anyhow::Error),
}

impl From<StreamError> for Failed {
    fn from(error: StreamError) -> Failed {
        match error {
            StreamError::Fill(error) => {
                Failed::Source(anyhow::Error::new(error).context("unpacking the image"))
            }
            StreamError::Drain(error) => Failed::Disk(error.context("writing the image")),
        }
    }
}

/// Writes the whole image but its first sector, which it returns, wipes what would survive at the end
/// of the disk, and reads all of that back from the medium.
pub fn flash(work: &Work, secured: &Secured, target: Target) -> Result<Vec<u8>, Failed> {
    let Target {
        disk,
        device,
        mut reader,
        record,
        from,
        zero_out,
    } = target;
    let image = &work.handover.payload.image;
    let file = secured
        .payload(work)
        .context("opening the image")
        .map_err(Failed::Source)?;
    let mut unpacked = payload::decoder(work.handover.payload.format, file);
    let overlays = secured
        .overlays(work)
        .context("reading what goes over the image")
        .map_err(Failed::Source)?;
    let mut look = Look {
        sector: disk.sector_bytes as usize,
        from: whole_sectors(from, disk.sector_bytes),
        at: 0,
        proven: secured.image_blocks().iter(),
        overlays: &overlays,
        first: Vec::new(),
    };
    thread::scope(|scope| {
        let (segments, results) = start_reading(scope, &mut *reader)
            .context("starting a thread")
            .map_err(Failed::Disk)?;
        let mut writer = Writer {
            work,
            device,
            record,
            zero_out,
            sector: disk.sector_bytes as usize,
            segment_bytes: (image.bytes / SEGMENTS).clamp(BLOCK as u64, SEGMENT),
            parts: Vec::new(),
            end: from,
            handed: from,
            segments: Some(segments),
            results,
            progress: Progress::new(work.machine, work.log, "writing the image", image.bytes),
            waits: Waits::new(work.machine),
        };
        let written = stream_through(
            |buffer| payload::read_full(&mut unpacked, buffer),
            |block| look.at(block),
            |block, part| writer.put(block, part),
        );
        let done = written.map_err(Failed::from).and_then(|()| {
            look.all_passed(image.bytes).map_err(Failed::Source)?;
            writer.wipe_end(disk).map_err(Failed::Disk)
        });
        // Also after a failure: what is verified need not be written again.
        let verified = writer.finish().map_err(Failed::Disk);
        done.and(verified)?;
        writer.conclude();
        Ok::<(), Failed>(())
    })?;
    Ok(look.first)
}

/// Starts the thread that reads back. One segment may wait for it, so that it is never idle; when two
/// do, the writer waits.
fn start_reading<'scope>(
    scope: &'scope Scope<'scope, '_>,
    reader: &'scope mut dyn Device,
) -> io::Result<(SyncSender<Segment>, Receiver<anyhow::Result<u64>>)> {
    let (segments_in, segments_out) = sync_channel(1);
    let (results_in, results_out) = channel();
    Builder::new()
        .name("read back".to_owned())
        .spawn_scoped(scope, move || {
            read_back(reader, &segments_out, &results_in);
        })?;
    Ok((segments_in, results_out))
}

/// What is to be written of a block.
struct Part {
    /// Where the block belongs on the disk.
    at: u64,
    /// The bytes of the block that are to be written; none when they are there.
    range: Range<usize>,
    /// Pieces of the range, and whether they are zeros that may be left to the disk.
    pieces: Vec<(Range<usize>, bool)>,
    /// Hash of the range.
    hash: u64,
}

/// Looks at each block as it passes by: whether it is the one that was proven, and what is to be
/// written of it.
struct Look<'a> {
    sector: usize,
    /// Nothing below this is written: at least the first sector.
    from: u64,
    at: u64,
    /// The hashes of the blocks to come.
    proven: slice::Iter<'a, u64>,
    /// What is written in place of the image's bytes, by where it belongs.
    overlays: &'a [(u64, Vec<u8>)],
    first: Vec<u8>,
}

/// The first byte that is written: none that is verified in whole sectors, and none of the first.
fn whole_sectors(verified: u64, sector: u32) -> u64 {
    let sector = u64::from(sector);
    verified.max(sector) / sector * sector
}

impl Look<'_> {
    fn at(&mut self, block: &mut Block) -> io::Result<Part> {
        let at = self.at;
        let len = block.bytes().len();
        let whole = hash(block.bytes());
        if self.proven.next() != Some(&whole) {
            return Err(io::Error::other(format!(
                "the image has changed: the {len} bytes at {at} are not those that were verified"
            )));
        }
        self.at += len as u64;
        let mut is_whole = true;
        for (start, over) in self.overlays {
            is_whole &= !put_over(&mut block.all()[..len], at, over, *start);
        }
        let bytes = block.padded(self.sector);
        if at == 0 {
            self.first = bytes[..self.sector.min(bytes.len())].to_vec();
        }
        let skipped = self.from.saturating_sub(at).min(bytes.len() as u64) as usize;
        let range = skipped..bytes.len();
        Ok(Part {
            at,
            pieces: pieces(bytes, range.clone()),
            hash: match is_whole && range == (0..len) {
                true => whole,
                false => hash(&bytes[range.clone()]),
            },
            range,
        })
    }

    /// An error unless the whole image of so many bytes has passed by.
    fn all_passed(&self, bytes: u64) -> anyhow::Result<()> {
        ensure!(
            self.at == bytes && self.proven.len() == 0,
            "the image has changed: it ends at {} instead of {bytes}",
            self.at
        );
        Ok(())
    }
}

/// Puts `over`, which belongs at `start`, over the `bytes` at `at`, as far as they meet; says whether
/// they do.
fn put_over(bytes: &mut [u8], at: u64, over: &[u8], start: u64) -> bool {
    let from = start.max(at);
    let to = (start + over.len() as u64).min(at + bytes.len() as u64);
    if from >= to {
        return false;
    }
    let part = &over[(from - start) as usize..(to - start) as usize];
    bytes[(from - at) as usize..(to - at) as usize].copy_from_slice(part);
    true
}

/// Splits a range where zeros that the disk can make begin and end.
fn pieces(bytes: &[u8], range: Range<usize>) -> Vec<(Range<usize>, bool)> {
    let mut pieces: Vec<(Range<usize>, bool)> = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let end = (start / ZEROS * ZEROS + ZEROS).min(range.end);
        let zeros = end - start == ZEROS && is_zero(&bytes[start..end]);
        match pieces.last_mut() {
            Some((last, same)) if *same == zeros => last.end = end,
            _ => pieces.push((start..end, zeros)),
        }
        start = end;
    }
    pieces
}

fn is_zero(bytes: &[u8]) -> bool {
    const PAGE: [u8; 4096] = [0; 4096];
    bytes
        .chunks(PAGE.len())
        .all(|page| page == &PAGE[..page.len()])
}

/// Writes blocks and hands them over to be read back.
struct Writer<'a> {
    work: &'a Work<'a>,
    device: &'a mut dyn Device,
    record: Option<&'a mut Keeper>,
    zero_out: bool,
    sector: usize,
    segment_bytes: u64,
    /// Written since the last segment was handed over.
    parts: Vec<Written>,
    /// How far the image is written,
    end: u64,
    /// and how far it is handed over to be read back.
    handed: u64,
    /// None when all is handed over.
    segments: Option<SyncSender<Segment>>,
    results: Receiver<anyhow::Result<u64>>,
    progress: Progress<'a>,
    waits: Waits<'a>,
}

impl Writer<'_> {
    fn put(&mut self, block: &mut Block, part: Part) -> anyhow::Result<()> {
        self.waits.count(|waits| &mut waits.source);
        self.progress.add(block.bytes().len());
        if part.range.is_empty() {
            return Ok(());
        }
        let bytes = block.padded(self.sector);
        let at = part.at + part.range.start as u64;
        match self.zero_out {
            true => self.write_pieces(bytes, &part)?,
            false => self.write(&bytes[part.range.clone()], at)?,
        }
        let len = part.range.len();
        self.parts.push(Written {
            at,
            len,
            hash: part.hash,
        });
        self.end = at + len as u64;
        if self.end >= self.handed + self.segment_bytes {
            self.hand_over()?;
        }
        self.waits.count(|waits| &mut waits.disk);
        self.take_results()
    }

    fn write_pieces(&mut self, bytes: &[u8], part: &Part) -> anyhow::Result<()> {
        for (range, zeros) in &part.pieces {
            let at = part.at + range.start as u64;
            if !(*zeros && self.make_zeros(at, range.len() as u64)) {
                self.write(&bytes[range.clone()], at)?;
            }
        }
        Ok(())
    }

    /// Whether the disk did it. Once it can't, it is not asked again; if it only says that it did,
    /// reading back tells.
    fn make_zeros(&mut self, at: u64, len: u64) -> bool {
        let made = self.zero_out && self.device.zero_out(at, len).is_ok();
        self.zero_out = made;
        made
    }

    fn write(&mut self, bytes: &[u8], at: u64) -> anyhow::Result<()> {
        write_full(self.device, bytes, at).with_context(|| format!("writing at {at}"))
    }

    /// Wipes the end of the disk, as far as the image is not there.
    fn wipe_end(&mut self, disk: &Disk) -> anyhow::Result<()> {
        let image = self.work.handover.payload.image.bytes;
        let at = image
            .next_multiple_of(self.sector as u64)
            .max(disk.bytes.saturating_sub(LAST));
        let len = disk.bytes.saturating_sub(at) as usize;
        if len > 0 {
            let mut block = Block::new();
            let zeros = &block.all()[..len];
            self.write(zeros, at)
                .context("wiping the end of the disk")?;
            let hash = hash(zeros);
            self.parts.push(Written { at, len, hash });
        }
        self.end = self.end.max(image);
        self.hand_over()
    }

    /// Gives what was written since the last time to the thread that reads it back.
    fn hand_over(&mut self) -> anyhow::Result<()> {
        self.device.sync().context("waiting for the disk")?;
        let segment = Segment {
            parts: std::mem::take(&mut self.parts),
            verified: self.end,
        };
        self.handed = self.end;
        self.waits.count(|waits| &mut waits.disk);
        let sent = self.segments.as_ref().map(|sender| sender.send(segment));
        self.waits.count(|waits| &mut waits.reading);
        match sent {
            Some(Ok(())) => Ok(()),
            // It ends early only when it has found something.
            _ => self
                .take_results()
                .and(Err(anyhow!("reading back has ended early"))),
        }
    }

    /// Records what was read back by now.
    fn take_results(&mut self) -> anyhow::Result<()> {
        while let Ok(result) = self.results.try_recv() {
            self.record(result?)?;
        }
        Ok(())
    }

    fn record(&mut self, verified: u64) -> anyhow::Result<()> {
        match &mut self.record {
            Some(keeper) => keeper.write(self.device, State::Overwriting { verified }),
            None => Ok(()),
        }
    }

    /// Waits until all that was handed over is read back, and records that.
    fn finish(&mut self) -> anyhow::Result<()> {
        self.segments = None;
        while let Ok(result) = self.results.recv() {
            self.record(result?)?;
        }
        self.waits.count(|waits| &mut waits.reading);
        Ok(())
    }

    /// Says how long it took, and why.
    fn conclude(self) {
        self.progress.finish();
        self.work.log.say(self.waits.describe());
    }
}

/// What the writing thread waited for: it shows which end of the way is the slow one.
struct Waits<'a> {
    machine: &'a dyn Machine,
    since: Duration,
    source: Duration,
    disk: Duration,
    reading: Duration,
}

impl<'a> Waits<'a> {
    fn new(machine: &'a dyn Machine) -> Waits<'a> {
        Waits {
            machine,
            since: machine.elapsed(),
            source: Duration::ZERO,
            disk: Duration::ZERO,
            reading: Duration::ZERO,
        }
    }

    /// The time since the last call was for this.
    fn count(&mut self, what: fn(&mut Self) -> &mut Duration) {
        let now = self.machine.elapsed();
        let lap = now.saturating_sub(self.since);
        self.since = now;
        *what(self) += lap;
    }

    fn describe(&self) -> String {
        format!(
            "it waited for the unpacked image {}, for writing {}, for reading back {}",
            seconds(self.source),
            seconds(self.disk),
            seconds(self.reading)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_over_is_cut_to_the_block() {
        let put = |at, start| {
            let mut bytes = [0; 4];
            let meets = put_over(&mut bytes, at, &[1, 2, 3], start);
            (meets, bytes)
        };
        assert_eq!(put(0, 0), (true, [1, 2, 3, 0]));
        assert_eq!(put(10, 11), (true, [0, 1, 2, 3]));
        assert_eq!(put(10, 12), (true, [0, 0, 1, 2]));
        assert_eq!(put(10, 8), (true, [3, 0, 0, 0]));
        assert_eq!(put(10, 7), (false, [0; 4]));
        assert_eq!(put(10, 14), (false, [0; 4]));
    }

    #[test]
    fn zeros_are_split_off_in_whole_aligned_pieces() {
        let mut bytes = vec![0; 6 * ZEROS];
        assert_eq!(pieces(&bytes, 0..6 * ZEROS), [(0..6 * ZEROS, true)]);
        bytes[2 * ZEROS - 1] = 1;
        bytes[4 * ZEROS] = 1;
        assert_eq!(
            pieces(&bytes, 512..6 * ZEROS - 512),
            [
                (512..2 * ZEROS, false),
                (2 * ZEROS..4 * ZEROS, true),
                (4 * ZEROS..6 * ZEROS - 512, false),
            ]
        );
        assert_eq!(pieces(&bytes, 512..512), []);
    }
}
