//! Files in parts of the disk that is overwritten, behind all that the flash touches: whether they
//! lie right, and reading them without a file system.

use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, ensure};

use super::super::Work;
use super::super::machine::{self, Access, Device, Disk, Machine};
use super::super::overwrite::LAST;
use super::super::stream::{BLOCK, Block, Measure, stream};
use crate::handover::{Extent, Handover, Place};
use crate::payload;
use crate::resume::BootFile;

/// Blocks that are read before they are asked for.
const AHEAD: usize = 1;

/// An error unless all that the hand-over and the resume record leave on `disk` lies outside of
/// what the flash touches, and nothing lies on anything else.
pub fn check(handover: &Handover, boot_files: &[BootFile], disk: &Disk) -> anyhow::Result<()> {
    let mut all: Vec<(&str, Extent)> = Vec::new();
    let stored = [("the image", Some(&handover.payload.file))];
    let stored = stored
        .into_iter()
        .chain([("the backup", handover.backup.as_ref())]);
    for (what, file) in stored {
        if let Some(file) = file
            && let Place::Extents(extents) = &file.place
        {
            has_room(what, extents, file.bytes)?;
            all.extend(extents.iter().map(|extent| (what, *extent)));
        }
    }
    for file in boot_files {
        has_room(&file.what, &file.extents, file.bytes)?;
        all.extend(file.extents.iter().map(|extent| (&*file.what, *extent)));
    }
    if let Some(resume) = &handover.resume {
        all.push(("the resume record", resume.record));
        for secret in &resume.secrets {
            check_one("what is to be wiped", secret, handover, disk)?;
        }
    }
    for (what, extent) in &all {
        check_one(what, extent, handover, disk)?;
    }
    all.sort_by_key(|(_, extent)| extent.start);
    for pair in all.windows(2) {
        let [(what, first), (other, second)] = pair else {
            continue;
        };
        ensure!(
            first.end() <= second.start,
            "{other} at byte {} of the disk lies on {what}",
            second.start
        );
    }
    Ok(())
}

fn has_room(what: &str, extents: &[Extent], bytes: u64) -> anyhow::Result<()> {
    let room = extents
        .iter()
        .fold(0u64, |sum, extent| sum.saturating_add(extent.bytes));
    ensure!(
        room >= bytes,
        "{what} has {bytes} bytes, its place on the disk only {room}"
    );
    Ok(())
}

fn check_one(what: &str, extent: &Extent, handover: &Handover, disk: &Disk) -> anyhow::Result<()> {
    let sector = u64::from(disk.sector_bytes);
    let image = &handover.payload.image;
    let from = image.data_end.unwrap_or(0).max(image.bytes);
    let to = disk.bytes.saturating_sub(LAST);
    let Extent { start, bytes } = *extent;
    ensure!(
        start % sector == 0 && bytes % sector == 0 && bytes > 0,
        "{what} is not in whole sectors: {bytes} bytes at byte {start} of the disk"
    );
    ensure!(
        start >= from.next_multiple_of(sector),
        "{what} at byte {start} of the disk lies where the new system will be, up to byte {from}"
    );
    ensure!(
        start.checked_add(bytes).is_some_and(|end| end <= to),
        "{what} at byte {start} of the disk does not end before byte {to}: what lies behind that \
         is wiped, or is no disk"
    );
    Ok(())
}

/// A file in extents, as a stream. The disk is read ahead of whoever reads this.
pub struct ExtentReader {
    full: Option<Receiver<io::Result<Filled>>>,
    empty: Option<SyncSender<Block>>,
    thread: Option<JoinHandle<()>>,
    now: Option<Filled>,
    /// Bytes of `now` that were read.
    used: usize,
    /// Bytes of the file behind `now`.
    left: u64,
}

/// A block with this many bytes of the file.
struct Filled {
    block: Block,
    bytes: usize,
}

/// What is read from the disk at once.
struct Piece {
    offset: u64,
    /// In whole sectors.
    len: usize,
    /// Bytes of it that belong to the file.
    bytes: usize,
}

impl ExtentReader {
    /// Reads the `bytes` that begin in the first of `extents`, from the disk at `node`.
    pub fn open(
        machine: &dyn Machine,
        node: &Path,
        extents: &[Extent],
        bytes: u64,
    ) -> io::Result<ExtentReader> {
        let mut device = machine.open(node, Access::ReadDirect)?;
        device.forget_cached()?;
        let pieces = pieces(extents, bytes);
        let (full_in, full_out) = sync_channel(AHEAD);
        let (empty_in, empty_out) = sync_channel(AHEAD + 2);
        for _ in 0..AHEAD + 2 {
            // There is room for all of them.
            let _ = empty_in.send(Block::new());
        }
        let thread = thread::Builder::new()
            .name("read ahead".to_owned())
            .spawn(move || read_all(&mut *device, &pieces, &empty_out, &full_in))?;
        Ok(ExtentReader {
            full: Some(full_out),
            empty: Some(empty_in),
            thread: Some(thread),
            now: None,
            used: 0,
            left: bytes,
        })
    }

    /// The next block; none at the end.
    fn next(&mut self) -> io::Result<Option<Filled>> {
        if self.left == 0 {
            return Ok(None);
        }
        // Without a thread there is nothing more to come: it has failed before.
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let filled = self.full.as_ref().and_then(|full| full.recv().ok());
        let filled = filled.ok_or_else(gone)??;
        self.left -= filled.bytes as u64;
        Ok(Some(filled))
    }
}

impl Read for ExtentReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(filled) = self.now.take_if(|filled| filled.bytes == self.used)
            && let Some(empty) = &self.empty
        {
            // The thread may have ended already.
            let _ = empty.send(filled.block);
        }
        if self.now.is_none() {
            (self.now, self.used) = (self.next()?, 0);
        }
        let Some(filled) = &mut self.now else {
            return Ok(0);
        };
        let count = buf.len().min(filled.bytes - self.used);
        let from = &filled.block.all()[self.used..][..count];
        buf[..count].copy_from_slice(from);
        self.used += count;
        Ok(count)
    }
}

impl Drop for ExtentReader {
    /// Waits for the thread: nothing is read from the disk any more when this is gone.
    fn drop(&mut self) {
        (self.full, self.empty) = (None, None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pieces(extents: &[Extent], bytes: u64) -> Vec<Piece> {
    let mut left = bytes;
    let mut pieces = Vec::new();
    for extent in extents {
        let mut offset = extent.start;
        while offset < extent.end() && left > 0 {
            let len = (extent.end() - offset).min(BLOCK as u64);
            let used = len.min(left);
            pieces.push(Piece {
                offset,
                len: len as usize,
                bytes: used as usize,
            });
            offset += len;
            left -= used;
        }
    }
    pieces
}

fn read_all(
    device: &mut dyn Device,
    pieces: &[Piece],
    empty: &Receiver<Block>,
    full: &SyncSender<io::Result<Filled>>,
) {
    for piece in pieces {
        let Ok(mut block) = empty.recv() else { return };
        let read = machine::read_full(device, &mut block.all()[..piece.len], piece.offset);
        let filled = match read {
            Ok(len) if len == piece.len => Ok(Filled {
                block,
                bytes: piece.bytes,
            }),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error),
        };
        let failed = filled.is_err();
        if full.send(filled).is_err() || failed {
            return;
        }
    }
}

/// An error unless a boot file is on the disk as stage 1 put it there.
pub fn verify(work: &Work, disk: &Disk, file: &BootFile) -> anyhow::Result<()> {
    let mut reader = ExtentReader::open(work.machine, &disk.node, &file.extents, file.bytes)
        .with_context(|| format!("opening {}", disk.node.display()))?;
    let mut measure = Measure::default();
    stream(
        |buffer| payload::read_full(&mut reader, buffer),
        |block| {
            measure.add(block.bytes())?;
            Ok(())
        },
    )
    .with_context(|| format!("reading {} for a later restart", file.what))?;
    measure
        .expect(file.bytes, &file.sha256)
        .with_context(|| format!("{} is not as stage 1 left it", file.what))
}
