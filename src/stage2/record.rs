//! The record of how far the flash is, on the disk that is overwritten; see [`crate::resume`].

use anyhow::{Context, ensure};

use super::Work;
use super::machine::{Access, Device, Disk, read_full, write_full};
use super::stream::Block;
use crate::handover::Extent;
use crate::resume::{RECORD_BYTES, Record, State};

/// Carries the record of this run on.
pub struct Keeper {
    at: Extent,
    record: Record,
}

impl Keeper {
    /// Reads the record from `disk`; none when the hand-over has no place for one.
    pub fn load(work: &Work, disk: &Disk) -> anyhow::Result<Option<Keeper>> {
        let Some(resume) = &work.handover.resume else {
            return Ok(None);
        };
        let at = resume.record;
        ensure!(
            at.bytes == RECORD_BYTES,
            "the hand-over has a place of {} bytes for the record instead of {RECORD_BYTES}",
            at.bytes
        );
        let mut bytes = vec![0; RECORD_BYTES as usize];
        let mut device = work.machine.open(&disk.node, Access::Read)?;
        device.forget_cached()?;
        read_full(&mut *device, &mut bytes, at.start)
            .with_context(|| format!("reading the resume record from {}", disk.name))?;
        let record = Record::read(&bytes)
            .with_context(|| format!("there is no resume record on {}", disk.name))?;
        ensure!(
            record.run_id == work.handover.run_id,
            "the resume record on {} is of another run",
            disk.name
        );
        Ok(Some(Keeper { at, record }))
    }

    /// What it says.
    pub fn state(&self) -> &State {
        &self.record.state
    }

    /// Says something else, on the medium. `device` is the disk, opened for writing.
    pub fn write(&mut self, device: &mut dyn Device, state: State) -> anyhow::Result<()> {
        let next = self.record.next(state);
        let (offset, slot) = next.slot();
        let mut block = Block::new();
        block.put(&slot);
        write_full(device, block.bytes(), self.at.start + offset)
            .and_then(|()| device.sync())
            .context("writing the resume record")?;
        self.record = next;
        Ok(())
    }
}
