//! Phase 3, `overwrite`: the image goes onto the disk. From the first write on there is no way
//! back, so this does not fail: it goes on until the disk has the image. It is given up only where
//! the old system is on another disk.

use anyhow::Context;

use super::Work;
use super::flash::{Failed, Target, flash};
use super::hold::hold;
use super::let_go::{now, take};
use super::machine::{Access, Device, Disk, Machine, write_full};
use super::rearm::Rearmed;
use super::record::Keeper;
use super::secure::Secured;
use super::stop::Stop;
use super::stream::Block;
use crate::resume::State;
use crate::sys::Sys;

/// Wiped first where nothing starts a torn flash again: with its partition table missing, a torn image
/// is never taken for a system.
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

/// Overwrites the disk, again and again until it succeeds or [`hold`] gives it up.
pub fn overwrite(work: &Work, rearmed: Rearmed) -> Result<Flashed, Stop> {
    let Rearmed {
        secured,
        mut device,
        mut record,
    } = rearmed;
    let image = work.handover.payload.image.bytes;
    // All of it is verified: then files were being put into it, and its file systems may be torn.
    let mut anew = record.as_ref().map_or(0, verified) >= image;
    let mut tries = 0;
    loop {
        let attempt = Try {
            number: tries,
            anew: &mut anew,
            record: record.as_mut(),
        };
        match try_overwrite(work, &secured, device.take(), attempt) {
            Ok(first) => {
                return Ok(Flashed {
                    secured,
                    record,
                    first,
                });
            }
            Err(failed) => {
                tries += 1;
                let error = match failed {
                    Failed::Source(error) => {
                        anew = true;
                        error
                    }
                    Failed::Disk(error) => error,
                };
                hold(work, tries, &error)?;
            }
        }
    }
}

/// What a try goes by.
struct Try<'a> {
    /// How many failed before it.
    number: u32,
    /// Nothing on the disk counts; false once the record says so.
    anew: &'a mut bool,
    record: Option<&'a mut Keeper>,
}

fn try_overwrite(
    work: &Work,
    secured: &Secured,
    device: Option<Box<dyn Device>>,
    attempt: Try,
) -> Result<Vec<u8>, Failed> {
    let Try {
        number,
        anew,
        mut record,
    } = attempt;
    let disk = secured.disk();
    let mut device = prepare(work, disk, device).map_err(Failed::Disk)?;
    let device = &mut *device;
    if std::mem::take(anew)
        && let Some(record) = &mut record
    {
        let nothing = State::Overwriting { verified: 0 };
        record.write(device, nothing).map_err(|error| {
            *anew = true;
            Failed::Disk(error)
        })?;
    }
    if work.handover.resume.is_none() {
        wipe_start(device, disk).map_err(Failed::Disk)?;
    }
    let reader = open_to_read(work, disk).map_err(Failed::Disk)?;
    let target = Target {
        disk,
        from: record.as_deref().map_or(0, verified),
        device,
        reader,
        record,
        // A disk that did not make them may say that it did, again and again.
        zero_out: number == 0,
    };
    flash(work, secured, target)
}

/// How far the image is on the disk.
fn verified(record: &Keeper) -> u64 {
    match record.state() {
        State::Overwriting { verified } => *verified,
        State::Prepared(_) => 0,
    }
}

/// The disk, opened exclusively, once it is noted that it is overwritten.
fn prepare(
    work: &Work,
    disk: &Disk,
    device: Option<Box<dyn Device>>,
) -> anyhow::Result<Box<dyn Device>> {
    let device = match device {
        Some(device) => device,
        None => take(work, disk)?,
    };
    mark(work.machine, disk)?;
    Ok(device)
}

fn open_to_read(work: &Work, disk: &Disk) -> anyhow::Result<Box<dyn Device>> {
    let node = now(work, disk)?.node;
    work.machine
        .open(&node, Access::ReadDirect)
        .context("opening the disk to read it back")
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

/// Writes zeros where partition tables and boot code lie.
fn wipe_start(device: &mut dyn Device, disk: &Disk) -> anyhow::Result<()> {
    let len = disk.bytes.min(FIRST as u64) as usize;
    write_full(device, &Block::new().all()[..len], 0).context("wiping the start of the disk")
}
