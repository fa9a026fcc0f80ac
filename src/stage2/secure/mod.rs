//! Phase 1, `secure`: everything that the flash needs waits where the flash does not touch it, and
//! is proven.
//!
//! `fetch` copies files for the new system that are not packed with stage 2, `memory` copies what has to be
//! in memory, `source` reads a file where it waits, `extents`
//! does so from the disk itself.

pub mod extents;
mod fetch;
mod memory;
mod source;

use anyhow::{Context, anyhow, ensure};

use super::Work;
use super::find::Found;
use super::image::Heads;
use super::machine::{Disk, Mounted};
use super::progress::Progress;
use super::record::Keeper;
use super::stop::{Code, OrStop, Stop};
use super::stream::{Measure, hash, stream};
use crate::handover::{Handover, Place};
use crate::payload::{self, read_full};
use crate::sys::Sys;
use source::{Measured, Wanted};

pub use memory::is_needed as is_in_memory;
pub use source::Reader;

/// The disk is known, and all that will be written to it is out of its way and verified in full.
pub struct Secured {
    disk: Disk,
    /// What had to be copied into memory.
    store: Option<Box<dyn Mounted>>,
    /// [`hash`] of each block of the image: when it is unpacked once more, to be written, a SHA-256 of it
    /// would cost as much time again as unpacking it.
    image_blocks: Vec<u64>,
}

impl Secured {
    /// The disk to overwrite.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// [`hash`] of each [`BLOCK`](super::stream::BLOCK) of the image, in order.
    pub fn image_blocks(&self) -> &[u64] {
        &self.image_blocks
    }

    /// What goes over the image's own bytes, by where it belongs.
    pub fn overlays(&self, work: &Work) -> anyhow::Result<Vec<(u64, Vec<u8>)>> {
        overlays(work)
    }

    /// The compressed image, from its start.
    pub fn payload(&self, work: &Work) -> anyhow::Result<Reader> {
        self.open(work, &wanted_payload(work.handover))
    }

    /// The backup, from its start.
    pub fn backup(&self, work: &Work) -> anyhow::Result<Reader> {
        let wanted = wanted_backup(work.handover).context("there is no backup")?;
        self.open(work, &wanted)
    }

    fn open(&self, work: &Work, wanted: &Wanted) -> anyhow::Result<Reader> {
        source::open(work, &self.disk, self.store.as_deref(), wanted)
    }

    /// Reads every file where it waits: it must be the one that stage 1 saw.
    fn proven(work: &Work, disk: Disk, store: Option<Box<dyn Mounted>>) -> Result<Secured, Stop> {
        let mut secured = Secured {
            disk,
            store,
            image_blocks: Vec::new(),
        };
        for wanted in wanted_files(work.handover) {
            let reader = secured
                .open(work, &wanted)
                .with_context(|| format!("opening {}", wanted.what))
                .or_stop(wanted.missing)?;
            let mut measured = Measured::new(reader);
            let unpacked = match wanted.missing {
                Code::PayloadMissing => unpack(work, &mut measured).map(Some),
                _ => Ok(None),
            };
            // A file that is not the right one, or can't be read, does not unpack for that reason.
            measured.finish(work, &wanted)?;
            if let Some(blocks) = unpacked? {
                secured.image_blocks = blocks;
            }
        }
        Ok(secured)
    }
}

/// Brings what has to be there into memory, and verifies everything where it waits.
pub fn secure(work: &Work, found: Found) -> Result<Secured, Stop> {
    let disk = found.disk;
    check_size(work, &disk)?;
    fetch::files(work, &disk).or_stop(Code::InstallFile)?;
    check_small_files(work)?;
    can_resume(work.handover).or_stop(Code::ResumeRecord)?;
    let record = Keeper::load(work, &disk).or_stop(Code::ResumeRecord)?;
    let boot_files = match &record {
        Some(record) => record.boot_files().or_stop(Code::ResumeRecord)?,
        None => &[],
    };
    extents::check(work.handover, boot_files, &disk).or_stop(Code::PayloadExtents)?;
    let store = memory::fill(work, &disk, &wanted_files(work.handover))?;
    let secured = Secured::proven(work, disk, store)?;
    for file in boot_files {
        work.log.say(format!("verifying {}", file.what));
        extents::verify(work, &secured.disk, file).or_stop(Code::ResumeRecord)?;
    }
    Ok(secured)
}

/// Takes over what was secured before the death of a process or a power cut; all of it is verified
/// again.
pub fn secure_again(work: &Work, disk: Disk) -> Result<Secured, Stop> {
    let store = match memory::is_needed(work.handover) {
        true => Some(work.machine.find_store().or_stop(Code::PayloadMissing)?),
        false => None,
    };
    check_small_files(work)?;
    Secured::proven(work, disk, store)
}

/// What has to be secured.
fn wanted_files(handover: &Handover) -> Vec<Wanted<'_>> {
    [Some(wanted_payload(handover)), wanted_backup(handover)]
        .into_iter()
        .flatten()
        .collect()
}

fn wanted_payload(handover: &Handover) -> Wanted<'_> {
    Wanted {
        file: &handover.payload.file,
        kept: "/payload",
        what: "the image",
        missing: Code::PayloadMissing,
        differs: Code::PayloadHash,
    }
}

fn wanted_backup(handover: &Handover) -> Option<Wanted<'_>> {
    Some(Wanted {
        file: handover.backup.as_ref()?,
        kept: "/backup",
        what: "the backup",
        missing: Code::BackupMissing,
        differs: Code::BackupHash,
    })
}

/// A flash that goes on after a power cut needs all of its files then, and its boot code now.
fn can_resume(handover: &Handover) -> anyhow::Result<()> {
    let Some(resume) = &handover.resume else {
        return Ok(());
    };
    ensure!(
        resume.first_sector().is_some(),
        "the first sector in the hand-over is none"
    );
    for wanted in wanted_files(handover) {
        ensure!(
            !matches!(wanted.file.place, Place::Memory(_)),
            "{} would be lost with the power",
            wanted.what
        );
    }
    Ok(())
}

fn check_size(work: &Work, disk: &Disk) -> Result<(), Stop> {
    let image = work.handover.payload.image.bytes;
    match image > disk.bytes {
        true => Err(Stop {
            code: Code::ImageSize,
            cause: anyhow!("the image has {image} bytes, the disk only {}", disk.bytes),
        }),
        false => Ok(()),
    }
}

/// What comes in the initramfs beside the hand-over is there.
fn check_small_files(work: &Work) -> Result<(), Stop> {
    for file in &work.handover.install {
        small_file(work, &file.content, file.bytes, &file.sha256).or_stop(Code::InstallFile)?;
    }
    overlays(work).or_stop(Code::InstallFile)?;
    Ok(())
}

/// What goes over the image's own bytes, by where it belongs.
fn overlays(work: &Work) -> anyhow::Result<Vec<(u64, Vec<u8>)>> {
    let overlays = work.handover.payload.image.overlays.iter();
    overlays
        .map(|over| {
            Ok((
                over.at,
                small_file(work, &over.content, over.bytes, &over.sha256)?,
            ))
        })
        .collect()
}

/// A file of the initramfs, which must have so many bytes with that SHA-256.
fn small_file(work: &Work, path: &str, bytes: u64, sha256: &str) -> anyhow::Result<Vec<u8>> {
    let content = Sys::new(work.machine.initramfs())
        .read(path)
        .with_context(|| format!("reading {path}"))?;
    let mut measure = Measure::default();
    measure.add(&content)?;
    measure
        .expect(bytes, sha256)
        .with_context(|| format!("verifying {path}"))?;
    Ok(content)
}

/// Unpacks the image without keeping it: it must be the one that stage 1 saw. Gives the [`hash`] of
/// each block.
fn unpack(work: &Work, file: &mut Measured) -> Result<Vec<u64>, Stop> {
    let image = &work.handover.payload.image;
    let mut unpacked = payload::decoder(work.handover.payload.format, file);
    let mut measure = Measure::default();
    let mut heads = Heads::new(work.handover);
    let mut blocks = Vec::new();
    let mut progress = Progress::new(work.machine, work.log, "unpacking as a test", image.bytes);
    stream(
        |buffer| read_full(&mut unpacked, buffer),
        |block| {
            measure.add(block.bytes())?;
            blocks.push(hash(block.bytes()));
            heads.add(block.bytes());
            progress.add(block.bytes().len());
            Ok(())
        },
    )
    .context("unpacking the image")
    .or_stop(Code::PayloadDamaged)?;
    progress.finish();
    measure
        .expect(image.bytes, &image.sha256)
        .context("the unpacked image is not the one that stage 1 saw")
        .or_stop(Code::PayloadDamaged)?;
    heads.check(work.handover)?;
    Ok(blocks)
}
