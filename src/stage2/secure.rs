//! Phase 1, `secure`: everything that the flash needs is in memory and proven.

use std::fs::File;
use std::io::Write;

use anyhow::{Context, anyhow};

use super::Work;
use super::find::{self, Found};
use super::image::Heads;
use super::machine::{Disk, Mounted};
use super::progress::{Progress, mib};
use super::stop::{Code, OrStop, Stop};
use super::stream::{Measure, StreamError, stream};
use crate::handover::{FilePath, Place, StoredFile};
use crate::payload::{self, read_full};
use crate::sys::Sys;

/// The image in the store.
const PAYLOAD: &str = "/payload";

/// The backup in the store.
const BACKUP: &str = "/backup";

/// What the store's own bookkeeping takes.
const STORE_EXTRA: u64 = 4 << 20;

/// The disk is known, and all that will be written to it is in memory and verified in full.
pub struct Secured {
    disk: Disk,
    store: Box<dyn Mounted>,
}

impl Secured {
    /// The disk to overwrite.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The compressed image.
    pub fn payload(&self) -> std::io::Result<File> {
        self.store.files().open(PAYLOAD)
    }

    /// The backup.
    pub fn backup(&self) -> std::io::Result<File> {
        self.store.files().open(BACKUP)
    }
}

/// Copies the payload and the backup into memory and verifies everything.
pub fn secure(work: &Work, found: Found) -> Result<Secured, Stop> {
    let disk = found.disk;
    check_size(work, &disk)?;
    check_install_files(work)?;
    let store = make_store(work)?;
    let payload = Wanted {
        file: &work.handover.payload.file,
        what: "the image",
        missing: Code::PayloadMissing,
        differs: Code::PayloadHash,
    };
    copy(work, &disk, &payload, &store.files(), PAYLOAD)?;
    if let Some(file) = &work.handover.backup {
        let backup = Wanted {
            file,
            what: "the backup",
            missing: Code::BackupMissing,
            differs: Code::BackupHash,
        };
        copy(work, &disk, &backup, &store.files(), BACKUP)?;
    }
    unpack(work, &store.files())?;
    Ok(Secured { disk, store })
}

/// Takes over what a process before this one secured, after it died; all of it is verified again.
pub fn secure_again(work: &Work, disk: Disk) -> Result<Secured, Stop> {
    let store = work.machine.find_store().or_stop(Code::PayloadMissing)?;
    check_install_files(work)?;
    unpack(work, &store.files())?;
    Ok(Secured { disk, store })
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

fn check_install_files(work: &Work) -> Result<(), Stop> {
    let initramfs = Sys::new(work.machine.initramfs());
    for file in &work.handover.install {
        let bytes = initramfs
            .read(&file.content)
            .with_context(|| format!("reading {}", file.content))
            .or_stop(Code::InstallFile)?;
        let mut measure = Measure::default();
        measure.add(&bytes).or_stop(Code::InstallFile)?;
        measure
            .expect(file.bytes, &file.sha256)
            .with_context(|| format!("verifying {}", file.content))
            .or_stop(Code::InstallFile)?;
    }
    Ok(())
}

/// Memory for the files, if there is enough of it.
fn make_store(work: &Work) -> Result<Box<dyn Mounted>, Stop> {
    let backup = work.handover.backup.as_ref();
    let files = work.handover.payload.file.bytes + backup.map_or(0, |file| file.bytes);
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
    if available < needed {
        return Err(Stop {
            code: Code::Memory,
            cause: anyhow!(
                "{} of memory are available, {} are needed",
                mib(available),
                mib(needed)
            ),
        });
    }
    work.machine
        .make_store(files + STORE_EXTRA)
        .context("making room in memory")
        .or_stop(Code::Memory)
}

/// A file to be secured, and what its absence and its difference are called.
struct Wanted<'a> {
    file: &'a StoredFile,
    what: &'a str,
    missing: Code,
    differs: Code,
}

/// Copies a file of the old system to `to` in the store, hashing what passes.
fn copy(work: &Work, disk: &Disk, wanted: &Wanted, store: &Sys, to: &str) -> Result<(), Stop> {
    let Wanted { file, what, .. } = wanted;
    let Place::Memory(at) = &file.place else {
        return Err(anyhow!("{what} waits elsewhere")).or_stop(wanted.missing);
    };
    let volume = find::volume(work.machine, &at.fs, Some(disk))
        .with_context(|| format!("looking for {what}"))
        .or_stop(wanted.missing)?;
    let mounted = work
        .machine
        .mount(&volume.node, &at.fs.fs_type, false)
        .with_context(|| format!("mounting {}", volume.node.display()))
        .or_stop(wanted.missing)?;
    let copied = copy_from(work, &mounted.files(), at, wanted, store, to);
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
    at: &FilePath,
    wanted: &Wanted,
    store: &Sys,
    to: &str,
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
    let written = store.write_with(to, 0o600, None, |target| {
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

/// Unpacks the image in the store without keeping it: it must be the one that stage 1 saw.
fn unpack(work: &Work, store: &Sys) -> Result<(), Stop> {
    let image = &work.handover.payload.image;
    let file = store
        .open(PAYLOAD)
        .context("opening the image in memory")
        .or_stop(Code::PayloadMissing)?;
    let mut unpacked = payload::decoder(work.handover.payload.format, file);
    let mut measure = Measure::default();
    let mut heads = Heads::new(work.handover);
    let mut progress = Progress::new(work.machine, work.log, "unpacking as a test", image.bytes);
    stream(
        |buffer| read_full(&mut unpacked, buffer),
        |block| {
            measure.add(block.bytes())?;
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
    heads.check(work.handover)
}
