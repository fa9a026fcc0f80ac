//! Files for the new system that stage 1 has not packed with stage 2, as they are secret and everybody may read
//! where that lies: copied from the old system into the initramfs, which is in memory, and there the same as
//! those that were packed.

use std::io;

use anyhow::{Context, ensure};

use super::super::Work;
use super::super::find;
use super::super::machine::Disk;
use super::source;
use crate::handover::{FilePath, Install};
use crate::sys::Sys;

/// Copies all of them. What is in them is verified with the others.
pub fn files(work: &Work, disk: &Disk) -> anyhow::Result<()> {
    for file in &work.handover.install {
        if let Some(from) = &file.from {
            fetch(work, disk, file, from).with_context(|| format!("copying {}", from.path))?;
        }
    }
    Ok(())
}

fn fetch(work: &Work, disk: &Disk, file: &Install, from: &FilePath) -> anyhow::Result<()> {
    let volume = find::volume(work, &from.fs, Some(disk))?;
    let mounted = source::mount(work, &volume, from)
        .with_context(|| format!("mounting {}", volume.node.display()))?;
    let read = read(&mounted.files(), file, from);
    // What can't be unmounted is found out when the disk is let go of.
    if let Err(error) = mounted.close() {
        work.log
            .say(format!("unmounting {}: {error}", volume.node.display()));
    }
    let initramfs = Sys::new(work.machine.initramfs());
    if let Some((folder, _)) = file.content.rsplit_once('/') {
        make_folders(&initramfs, folder).with_context(|| format!("making {folder}"))?;
    }
    initramfs
        .write_whole(&file.content, &read?, 0o600, None)
        .with_context(|| format!("writing {}", file.content))
}

/// Makes the folders that are missing, for root alone.
fn make_folders(initramfs: &Sys, folder: &str) -> io::Result<()> {
    if folder.is_empty() || initramfs.exists(folder) {
        return Ok(());
    }
    let above = folder.rsplit_once('/').map_or("", |(above, _)| above);
    make_folders(initramfs, above)?;
    initramfs.make_dir(folder, 0o700)
}

fn read(files: &Sys, file: &Install, from: &FilePath) -> anyhow::Result<Vec<u8>> {
    // A link that leads out of the mounted file system would end in the initramfs.
    let path = files.canonical(&from.path)?;
    let bytes = files.meta(&path)?.bytes;
    // Before it takes memory.
    ensure!(
        bytes == file.bytes,
        "it has {bytes} bytes, and had {} when stage 1 saw it",
        file.bytes
    );
    Ok(files.read(&path)?)
}
