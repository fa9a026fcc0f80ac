//! Files that wait in memory while the disk is overwritten: whether there is room, and copying them.

use std::io::Write;

use anyhow::{Context, anyhow};

use super::super::Work;
use super::super::find;
use super::super::machine::{Disk, Mounted};
use super::super::progress::{Progress, mib};
use super::super::stop::{Code, OrStop, Stop};
use super::super::stream::{Measure, StreamError, stream};
use super::source::{self, Wanted};
use crate::handover::{FilePath, Handover, Place};
use crate::payload::read_full;
use crate::sys::Sys;

/// What the store's own bookkeeping takes.
const STORE_EXTRA: u64 = 4 << 20;

/// Whether anything waits in memory.
pub fn is_needed(handover: &Handover) -> bool {
    let files = [Some(&handover.payload.file), handover.backup.as_ref()];
    let mut files = files.into_iter().flatten();
    files.any(|file| matches!(file.place, Place::Memory(_)))
}

/// Copies those of `files` that are to wait in memory; none of them needs no store.
pub fn fill(work: &Work, disk: &Disk, files: &[Wanted]) -> Result<Option<Box<dyn Mounted>>, Stop> {
    let waiting: Vec<(&Wanted, &FilePath)> = files
        .iter()
        .filter_map(|wanted| match &wanted.file.place {
            Place::Memory(at) => Some((wanted, at)),
            Place::Disk(_) | Place::Extents(_) => None,
        })
        .collect();
    let bytes = waiting.iter().map(|(wanted, _)| wanted.file.bytes).sum();
    has_room(work, bytes)?;
    if waiting.is_empty() {
        return Ok(None);
    }
    let store = work
        .machine
        .make_store(bytes + STORE_EXTRA)
        .context("making room in memory")
        .or_stop(Code::Memory)?;
    for (wanted, at) in waiting {
        copy(work, disk, wanted, at, &store.files())?;
    }
    Ok(Some(store))
}

/// A stop unless there is memory for `files` bytes.
fn has_room(work: &Work, files: u64) -> Result<(), Stop> {
    let needed = files + work.handover.memory_reserve;
    let available = work
        .machine
        .memory_available()
        .context("asking how much memory there is")
        .or_stop(Code::Memory)?;
    work.log.say(format!(
        "memory: {} available, {} needed ({} for files, {} to stay free)",
        mib(available),
        mib(needed),
        mib(files),
        mib(work.handover.memory_reserve)
    ));
    match available < needed {
        true => Err(Stop {
            code: Code::Memory,
            cause: anyhow!(
                "{} of memory are available, {} are needed",
                mib(available),
                mib(needed)
            ),
        }),
        false => Ok(()),
    }
}

/// Copies a file of the old system into the store, hashing what passes.
fn copy(work: &Work, disk: &Disk, wanted: &Wanted, at: &FilePath, store: &Sys) -> Result<(), Stop> {
    let volume = find::volume(work, &at.fs, Some(disk))
        .with_context(|| format!("looking for {}", wanted.what))
        .or_stop(wanted.missing)?;
    let mounted = source::mount(work, &volume, at)
        .with_context(|| format!("mounting {}", volume.node.display()))
        .or_stop(wanted.missing)?;
    let copied = copy_from(work, &mounted.files(), wanted, at, store);
    // What can't be unmounted is found out when the disk is let go of.
    if let Err(error) = mounted.close() {
        work.log
            .say(format!("unmounting {}: {error}", volume.node.display()));
    }
    copied
}

fn copy_from(
    work: &Work,
    from: &Sys,
    wanted: &Wanted,
    at: &FilePath,
    store: &Sys,
) -> Result<(), Stop> {
    let Wanted { file, what, .. } = wanted;
    let mut source = from
        .canonical(&at.path)
        .and_then(|path| from.open(&path))
        .with_context(|| format!("opening {what} {}", at.path))
        .or_stop(wanted.missing)?;
    let mut measure = Measure::default();
    let mut progress = Progress::new(
        work.machine,
        work.log,
        &format!("copying {what}"),
        file.bytes,
    );
    let mut copied = Ok(());
    let written = store.write_with(wanted.kept, 0o600, None, |target| {
        copied = stream(
            |buffer| read_full(&mut source, buffer),
            |block| {
                measure.add(block.bytes())?;
                target.write_all(block.bytes())?;
                progress.add(block.bytes().len());
                Ok(())
            },
        );
        Ok(())
    });
    match copied {
        Err(StreamError::Fill(error)) => Err(error)
            .with_context(|| format!("reading {what} {}", at.path))
            .or_stop(wanted.missing)?,
        Err(StreamError::Drain(error)) => Err(error)
            .with_context(|| format!("keeping {what} in memory"))
            .or_stop(Code::Memory)?,
        Ok(()) => written
            .with_context(|| format!("keeping {what} in memory"))
            .or_stop(Code::Memory)?,
    }
    progress.finish();
    measure
        .expect(file.bytes, &file.sha256)
        .with_context(|| format!("{what} {} is not the file that stage 1 saw", at.path))
        .or_stop(wanted.differs)
}
