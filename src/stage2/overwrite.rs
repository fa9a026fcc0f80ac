//! Phase 3, `overwrite`: the image goes onto the disk. From the first write on there is no way
//! back, so this does not fail: it goes on until the disk has the image.

use std::io;

use anyhow::{Context, anyhow};

use super::Work;
use super::hold::hold;
use super::let_go::take;
use super::machine::{Device, Disk, Machine, read_full, write_full};
use super::progress::Progress;
use super::rearm::Rearmed;
use super::record::Keeper;
use super::secure::Secured;
use super::stream::{BLOCK, Block, Measure, stream};
use crate::payload;
use crate::sys::Sys;

/// Written last, but for its first sector, which is not written here at all: with its partition
/// table missing, a torn image is never taken for a system.
const FIRST: usize = 1 << 20;

/// Wiped at the end of the disk: a backup GPT, md and ZFS labels of the old system lie there, and
/// tools that find them doubt the new partition table.
pub const LAST: u64 = 1 << 20;

/// In the memory folder from just before the first write on: the [`Disk`] as JSON.
const MARK: &str = "/overwriting";

/// The whole image but its first sector is on the medium, read back and compared.
pub struct Flashed {
    pub(super) secured: Secured,
    pub(super) record: Option<Keeper>,
    /// The first sector of the image.
    pub(super) first: Vec<u8>,
}

/// Overwrites the disk, again and again until it succeeds.
pub fn overwrite(work: &Work, rearmed: Rearmed) -> Flashed {
    let Rearmed {
        secured,
        mut device,
        record,
    } = rearmed;
    let mut tries = 0;
    loop {
        match try_overwrite(work, &secured, device.take()) {
            Ok(first) => {
                return Flashed {
                    secured,
                    record,
                    first,
                };
            }
            Err(error) => {
                tries += 1;
                hold(work, tries, &error);
            }
        }
    }
}

fn try_overwrite(
    work: &Work,
    secured: &Secured,
    device: Option<Box<dyn Device>>,
) -> anyhow::Result<Vec<u8>> {
    let disk = secured.disk();
    let mut device = match device {
        Some(device) => device,
        None => take(work, disk)?,
    };
    mark(work.machine, disk)?;
    let first = flash(work, secured, &mut *device, disk)?;
    verify(work, &mut *device, disk, &first)?;
    Ok(first)
}

/// Notes that `disk` is overwritten from now on: if this process dies, another one goes on with it.
pub fn mark(machine: &dyn Machine, disk: &Disk) -> anyhow::Result<()> {
    let mark = serde_json::to_vec(disk)?;
    Sys::new(machine.memory_dir())
        .write_whole(MARK, &mark, 0o600, None)
        .context("noting that the disk is overwritten")
}

/// The disk that is being overwritten, if it was begun.
pub fn marked(machine: &dyn Machine) -> anyhow::Result<Disk> {
    let mark = Sys::new(machine.memory_dir())
        .read(MARK)
        .context("reading which disk is being overwritten")?;
    Ok(serde_json::from_slice(&mark)?)
}

/// Whether the first write may have happened.
pub fn is_marked(machine: &dyn Machine) -> bool {
    Sys::new(machine.memory_dir()).exists(MARK)
}

/// Notes that the disk is complete.
pub fn unmark(machine: &dyn Machine) {
    // Kept by mistake, it costs another flash and nothing else.
    let _ = Sys::new(machine.memory_dir()).remove_file(MARK);
}

/// Writes the whole image but its first sector, which it gives, and wipes what would survive at the
/// end of the disk.
fn flash(
    work: &Work,
    secured: &Secured,
    device: &mut dyn Device,
    disk: &Disk,
) -> anyhow::Result<Vec<u8>> {
    let image = &work.handover.payload.image;
    let sector = disk.sector_bytes as usize;
    let file = secured.payload(work).context("opening the image")?;
    let mut unpacked = payload::decoder(work.handover.payload.format, file);
    let mut progress = Progress::new(work.machine, work.log, "writing the image", image.bytes);
    let mut first = Block::new();
    let mut offset = 0;
    wipe(device, 0, FIRST as u64, sector).context("wiping the start of the disk")?;
    stream(
        |buffer| payload::read_full(&mut unpacked, buffer),
        |block| {
            let len = block.bytes().len();
            let mut bytes = block.padded(sector);
            let mut at = offset;
            if offset == 0 {
                let kept = FIRST.min(bytes.len());
                first.put(&bytes[..kept]);
                (bytes, at) = (&bytes[kept..], kept as u64);
            }
            write_full(device, bytes, at)?;
            offset += len as u64;
            progress.add(len);
            Ok(())
        },
    )
    .context("writing the image")?;
    let end = offset.next_multiple_of(sector as u64);
    let wiped = end.max(disk.bytes.saturating_sub(LAST));
    wipe(device, wiped, disk.bytes - wiped, sector).context("wiping the end of the disk")?;
    device.sync().context("waiting for the disk")?;
    let rest = Block::of(&first.bytes()[sector..]);
    write_full(device, rest.bytes(), sector as u64).context("writing the start of the image")?;
    device.sync().context("waiting for the disk")?;
    progress.finish();
    Ok(first.bytes()[..sector].to_vec())
}

/// Writes zeros; `start` and `len` are multiples of the sector size.
fn wipe(device: &mut dyn Device, start: u64, len: u64, sector: usize) -> io::Result<()> {
    let mut block = Block::new();
    let zeros = block.all();
    let mut done = 0;
    while done < len {
        let now = (len - done).min(zeros.len() as u64) as usize;
        let now = now - now % sector;
        if now == 0 {
            break;
        }
        write_full(device, &zeros[..now], start + done)?;
        done += now as u64;
    }
    Ok(())
}

/// Reads the image back from the medium and compares it with what stage 1 saw.
/// The `first` sector, which is not there yet, is taken for read.
fn verify(work: &Work, device: &mut dyn Device, disk: &Disk, first: &[u8]) -> anyhow::Result<()> {
    let image = &work.handover.payload.image;
    let sector = u64::from(disk.sector_bytes);
    device.forget_cached().context("emptying the page cache")?;
    let mut progress = Progress::new(work.machine, work.log, "reading back", image.bytes);
    let mut measure = Measure::default();
    let mut asked = 0;
    let mut left = image.bytes;
    stream(
        |buffer| {
            let whole = image.bytes.next_multiple_of(sector) - asked;
            let now = whole.min(BLOCK as u64) as usize;
            let read = read_full(device, &mut buffer[..now], asked)?;
            asked += read as u64;
            Ok(read)
        },
        |block| {
            if left == image.bytes {
                block.all()[..first.len()].copy_from_slice(first);
            }
            let now = left.min(block.bytes().len() as u64);
            measure.add(&block.bytes()[..now as usize])?;
            left -= now;
            progress.add(now as usize);
            Ok(())
        },
    )
    .context("reading the image back")?;
    progress.finish();
    measure
        .expect(image.bytes, &image.sha256)
        .map_err(|mismatch| anyhow!("the disk did not keep the image: {mismatch}"))
}
