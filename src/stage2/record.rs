//! The record of how far the flash is, on the disk that is overwritten; see [`crate::resume`].

use anyhow::{Context, bail, ensure};

use super::Work;
use super::let_go;
use super::machine::{Access, Device, Disk, read_full, write_full};
use super::stream::Block;
use crate::handover::Extent;
use crate::resume::{BootFile, RECORD_BYTES, Record, State};

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
        let record = read(work, disk, at)
            .with_context(|| format!("reading the resume record of {}", disk.name))?;
        Ok(Some(Keeper { at, record }))
    }

    /// As [`Keeper::load`], when the disk is overwritten in part: without a record that can be
    /// read, the flash begins anew.
    pub fn recover(work: &Work, disk: &Disk) -> Option<Keeper> {
        let at = work.handover.resume.as_ref()?.record;
        let record = read(work, disk, at).unwrap_or_else(|error| {
            let name = &disk.name;
            work.log.say(format!(
                "the flash begins anew: reading the resume record of {name}: {error:#}"
            ));
            Record {
                run_id: work.handover.run_id.clone(),
                number: 0,
                state: State::Overwriting { verified: 0 },
            }
        });
        Some(Keeper { at, record })
    }

    /// What the boot code loads, by the record that stage 1 left; that one has to be there as long
    /// as nothing is overwritten.
    pub fn boot_files(&self) -> anyhow::Result<&[BootFile]> {
        match &self.record.state {
            State::Prepared(files) => Ok(files),
            State::Overwriting { .. } => bail!("the resume record is of a flash that was begun"),
        }
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

fn read(work: &Work, disk: &Disk, at: Extent) -> anyhow::Result<Record> {
    ensure!(
        at.bytes == RECORD_BYTES,
        "the hand-over has a place of {} bytes for it instead of {RECORD_BYTES}",
        at.bytes
    );
    let mut bytes = vec![0; RECORD_BYTES as usize];
    let mut device = work
        .machine
        .open(&let_go::now(work, disk)?.node, Access::Read)?;
    device.forget_cached()?;
    read_full(&mut *device, &mut bytes, at.start)?;
    let record = Record::read(&bytes).context("there is none")?;
    ensure!(
        record.run_id == work.handover.run_id,
        "it is of another run"
    );
    Ok(record)
}
