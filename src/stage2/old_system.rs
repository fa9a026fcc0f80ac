//! The old system, as long as it is intact: its boot configuration, and what it is told.

use anyhow::{Context, anyhow};

use super::Work;
use super::machine::{Disk, Mounted};
use super::{efi, find};
use crate::handover::{Firmware, FsIdentity, OldFile, Restore};
use crate::report::{self, Outcome, Report};
use crate::sys::Sys;

/// Puts the boot configuration back as it was before stage 1.
///
/// A failure is only said and noted: without a first write the old system is still there, and where the
/// boot loader promised "once" it comes back whatever its configuration says.
pub fn restore(work: &Work, disk: Option<&Disk>) {
    efi::disarm(work);
    work.still_armed.set(false);
    let mut left: Vec<&Restore> = work.handover.restore.iter().collect();
    while let Some(first) = left.first() {
        let fs = first.fs.clone();
        let here: Vec<&Restore> = left.extract_if(.., |restore| restore.fs == fs).collect();
        match restore_on(work, disk, &fs, &here) {
            Ok(()) => work.log.say(format!(
                "the boot configuration on {} is as it was ({} files)",
                fs.uuid,
                here.len()
            )),
            Err(error) => {
                // The loaders of other machines have started this stage once, and do not again.
                work.still_armed
                    .set(work.handover.firmware == Firmware::Board);
                work.log.tell(format!(
                    "restoring the boot configuration on {}: {error:#}",
                    fs.uuid
                ));
            }
        }
    }
}

/// Restores the files of one file system in their order, up to the first that fails: what comes behind a
/// file is what it still names.
fn restore_on(
    work: &Work,
    disk: Option<&Disk>,
    fs: &FsIdentity,
    files: &[&Restore],
) -> anyhow::Result<()> {
    let mounted = mount(work, fs, disk)?;
    let sys = mounted.files();
    let restored = files.iter().try_for_each(|file| {
        restore_file(work, &sys, file)
            .or_else(|error| {
                make_room(&sys, file, files)?.ok_or(error)?;
                restore_file(work, &sys, file)
            })
            .with_context(|| format!("at {}", file.path))
    });
    mounted.close().context("unmounting it")?;
    restored
}

/// Removes the copies of a file that stage 1 left beside it: on a full boot partition they are the room that
/// it needs, and the initramfs has its content too. `None` where there is none.
fn make_room(sys: &Sys, file: &Restore, files: &[&Restore]) -> anyhow::Result<Option<()>> {
    let copies = files.iter().filter(|other| {
        let name = other.path.strip_prefix(&file.path);
        other.old.is_none() && name.is_some_and(|name| name.starts_with('.'))
    });
    let mut made = None;
    for copy in copies {
        sys.remove_file(&copy.path)?;
        made = Some(());
    }
    Ok(made)
}

fn restore_file(work: &Work, sys: &Sys, restore: &Restore) -> anyhow::Result<()> {
    let (folder, _) = restore
        .path
        .rsplit_once('/')
        .ok_or_else(|| anyhow!("it is not an absolute path"))?;
    // A link that leads out of the mounted file system would end in the initramfs.
    sys.canonical(folder)?;
    let Some(OldFile {
        content,
        mode,
        uid,
        gid,
    }) = &restore.old
    else {
        return Ok(sys.remove_file(&restore.path)?);
    };
    let content = Sys::new(work.machine.initramfs())
        .read(content)
        .context("reading its old content")?;
    // Stage 1 keeps mode and owner of a file that it writes over: those that are there are the old ones.
    let there = sys.meta(&restore.path).ok().filter(|meta| meta.is_file);
    let (mode, uid, gid) = match there {
        Some(meta) => (meta.mode, meta.uid, meta.gid),
        None => (*mode, *uid, *gid),
    };
    // FAT has no owners; the ones that the mount shows are made up.
    let owner = (restore.fs.fs_type != "vfat").then_some((uid, gid));
    sys.write_whole(&restore.path, &content, mode, owner)?;
    Ok(())
}

/// Leaves the report, and the log so far, where the old system looks for it.
///
/// A failure is only said: there is nobody else to tell.
pub fn report(work: &Work, disk: Option<&Disk>, outcome: Outcome) {
    match try_report(work, disk, outcome) {
        Ok(()) => work.log.say("the report is on the old system"),
        Err(error) => work
            .log
            .tell(format!("leaving the report on the old system: {error:#}")),
    }
}

fn try_report(work: &Work, disk: Option<&Disk>, outcome: Outcome) -> anyhow::Result<()> {
    let place = &work.handover.report;
    let report = Report {
        run_id: work.handover.run_id.clone(),
        outcome,
        seconds: work.machine.elapsed().as_secs_f64(),
    };
    let mut log = work.log.text();
    if let Ok(kernel) = work.machine.kernel_log() {
        log.extend_from_slice(format!("\n{}\n", report::KERNEL_LOG).as_bytes());
        for message in kernel {
            log.extend_from_slice(format!("{message}\n").as_bytes());
        }
    }
    let mounted = mount(work, &place.fs, disk)?;
    let sys = mounted.files();
    let written = write_report(&sys, &place.dir, &report, &log);
    mounted.close().context("unmounting it")?;
    written
}

fn write_report(sys: &Sys, dir: &str, report: &Report, log: &[u8]) -> anyhow::Result<()> {
    sys.canonical(dir)
        .with_context(|| format!("looking for {dir}"))?;
    let report = serde_json::to_vec_pretty(report)?;
    sys.write_whole(&format!("{dir}/{}", report::LOG_FILE), log, 0o600, None)?;
    sys.write_whole(&format!("{dir}/{}", report::FILE), &report, 0o600, None)?;
    Ok(())
}

fn mount(work: &Work, fs: &FsIdentity, disk: Option<&Disk>) -> anyhow::Result<Box<dyn Mounted>> {
    let volume = find::volume(work, fs, disk)?;
    work.log
        .detail(format!("mounting {}", volume.node.display()));
    work.machine
        .mount(&volume.node, &fs.fs_type, true)
        .with_context(|| format!("mounting {}", volume.node.display()))
}
