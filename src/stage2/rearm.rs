//! Phase 3, `rearm`: from here on the firmware starts stage 2 and not the old system, so that a
//! flash that is cut off goes on at the next boot.
//!
//! Only where the hand-over has what it takes. One sector of the disk is written, and it is the
//! first one of the old system that is: the point of no return. Everywhere else that is the first
//! write of [`super::overwrite`].

use anyhow::anyhow;

use super::Work;
use super::efi;
use super::first_sector;
use super::hold::hold;
use super::let_go::{Free, take};
use super::machine::{Device, Disk};
use super::overwrite::{mark, unmark};
use super::record::Keeper;
use super::secure::Secured;
use super::stop::{Code, OrStop, Stop};
use super::stream::Block;
use crate::handover::Resume;
use crate::resume::State;

/// Nothing leads to the old system any more, or nothing ever will but the first write of the flash.
pub struct Rearmed {
    pub(super) secured: Secured,
    /// None: the disk has to be opened anew first. That can only be after the first write.
    pub(super) device: Option<Box<dyn Device>>,
    /// Keeps the record of how far the flash is, where it can go on after a power cut.
    pub(super) record: Option<Keeper>,
}

/// How the first sector of the disk is to be, and how it was.
struct Sector {
    old: Block,
    new: Block,
}

/// Lets the firmware start stage 2, where the hand-over says how. As long as the first sector is the
/// old one, a failure is a stop.
pub fn rearm(work: &Work, free: Free) -> Result<Rearmed, Stop> {
    let Free {
        secured,
        mut device,
        mut record,
    } = free;
    if let (Some(resume), Some(keeper)) = (&work.handover.resume, &mut record) {
        let sector =
            Sector::read(resume, &mut *device, secured.disk()).or_stop(Code::ResumeRecord)?;
        keeper
            .write(&mut *device, State::Overwriting { verified: 0 })
            .or_stop(Code::ResumeRecord)?;
        mark(work.machine, secured.disk()).or_stop(Code::Fault)?;
        efi::rearm(work, secured.disk(), sector.new.bytes());
        let mut tries = 0;
        while let Err(error) = first_sector::replace(&mut *device, &sector.new) {
            if first_sector::is(&mut *device, &sector.old) {
                unmark(work.machine);
                efi::forget(work);
                return Err(error).or_stop(Code::ResumeRecord);
            }
            tries += 1;
            hold(work, tries, &error)?;
        }
        work.log
            .say("from here on a restart goes on with the flash");
    } else {
        efi::claim(work, secured.disk()).or_stop(Code::EfiEntry)?;
    }
    Ok(Rearmed {
        secured,
        device: Some(device),
        record,
    })
}

/// The same once more, when the old system may be gone already: after a power cut, or after the
/// death of the process that overwrote the disk.
pub fn rearm_again(work: &Work, secured: Secured) -> anyhow::Result<Rearmed> {
    let mut record = Keeper::recover(work, secured.disk());
    let Some(resume) = &work.handover.resume else {
        return Ok(Rearmed {
            secured,
            device: None,
            record,
        });
    };
    let mut device = take(work, secured.disk())?;
    if let Some(keeper) = &mut record
        && matches!(keeper.state(), State::Prepared(_))
    {
        keeper.write(&mut *device, State::Overwriting { verified: 0 })?;
    }
    let sector = Sector::read(resume, &mut *device, secured.disk())?;
    if sector.old.bytes() != sector.new.bytes() {
        first_sector::replace(&mut *device, &sector.new)?;
    }
    Ok(Rearmed {
        secured,
        device: Some(device),
        record,
    })
}

impl Sector {
    fn read(resume: &Resume, device: &mut dyn Device, disk: &Disk) -> anyhow::Result<Sector> {
        let first = resume
            .first_sector()
            .ok_or_else(|| anyhow!("the hand-over has no first sector that can be used"))?;
        let old = first_sector::read(device, disk.sector_bytes as usize)?;
        let mut new = Block::of(old.bytes());
        // On a BIOS the disk signature and the partition table stay: some want them.
        new.all()[..first.len()].copy_from_slice(&first);
        Ok(Sector { old, new })
    }
}
