//! What each step does, and what takes it back.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::journal::DIR;
use super::{by_tool, core, keep};
use crate::backup::{self, Volume, aside};
use crate::efi::{self, Variable};
use crate::handover::{self, Handover, Place, StoredFile, Target};
use crate::initramfs;
use crate::payload::digest::sha256_hex;
use crate::place::{self, Kept, Manifest};
use crate::step::{BackupPlace, Expect, Step, Undo, Writers};
use crate::sys::Sys;

/// Reads what will take `step` back, and saves what it will replace.
pub fn foresee(sys: &Sys, number: usize, step: &Step) -> Result<Undo> {
    match step {
        Step::WriteFile {
            path,
            content,
            expect,
            writers,
            ..
        } => {
            if let Expect::Seen(seen) = expect {
                check_unchanged(sys, path, seen.as_deref())?;
            }
            save(sys, number, path, Some((writers, content.expose())))
        }
        Step::SealHandover { .. } => save(sys, number, handover::PATH, None),
        Step::BuildInitramfs { path, .. } => save(sys, number, path, None),
        Step::BuildByTool(wanted) => save(sys, number, &wanted.path, None),
        Step::Backup { creates, .. } | Step::Archive { creates, .. } => {
            let aside = aside(creates);
            if sys.exists(&aside) {
                bail!(
                    "{aside} is in the way: it was put aside by an earlier run; move it back to \
                     {creates} or remove it"
                );
            }
            Ok(Undo::MoveBack {
                path: creates.clone(),
                aside,
                existed: sys.exists(creates),
            })
        }
        Step::MakeFolder { path } => new_folder(sys, path),
        Step::Keep(keep) => new_folder(sys, &keep.folder),
        Step::CopyFile { to, .. } => save(sys, number, to, None),
        Step::WriteVariable {
            name,
            variable,
            must_be_free,
        } => {
            let old = sys.read_efi(name)?;
            let is_other = |old: &Variable| !efi::is_same_entry(old, variable);
            if *must_be_free && old.as_ref().is_some_and(is_other) {
                bail!("the EFI variable {name} was made since the plan was made; run again");
            }
            Ok(Undo::Variable {
                name: name.clone(),
                old: old.map(|old| old.hex()),
                ours: variable.hex(),
            })
        }
        // What it makes is in the folder of the kept files.
        Step::BuildCore(_) => Ok(Undo::Nothing),
    }
}

/// The undo of making the folder at `path`.
fn new_folder(sys: &Sys, path: &str) -> Result<Undo> {
    if sys.exists(path) {
        bail!("{path} is in the way; remove it, or move it away, and run again");
    }
    Ok(Undo::RemoveFolder {
        path: path.to_owned(),
    })
}

/// The undo of making or replacing the file at `path`; an old one is saved beside the journal. `shared` is
/// who else writes it, and what it gets.
fn save(sys: &Sys, number: usize, path: &str, shared: Option<(&Writers, &[u8])>) -> Result<Undo> {
    let ours = match shared {
        None | Some((Writers::BootLoader, _)) => None,
        Some((Writers::People | Writers::Around(_), content)) => Some(sha256_hex(content)),
    };
    let marks = match shared {
        Some((Writers::Around(marks), _)) => Some(marks.clone()),
        _ => None,
    };
    if !sys.exists(path) {
        return Ok(Undo::Remove {
            path: path.to_owned(),
            ours,
        });
    }
    let meta = sys.meta(path).with_context(|| format!("reading {path}"))?;
    if !meta.is_file {
        bail!("{path} is not a regular file; move it away and run again");
    }
    let saved = format!("{DIR}/saved-{number}");
    sys.copy(path, &saved, 0o600)
        .with_context(|| format!("saving {path} as {saved}"))?;
    Ok(Undo::Restore {
        path: path.to_owned(),
        saved,
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        ours,
        marks,
    })
}

/// The plan was made from what was read earlier: it must still be there.
fn check_unchanged(sys: &Sys, path: &str, seen: Option<&[u8]>) -> Result<()> {
    let now = match sys.exists(path) {
        true => Some(sys.read(path).with_context(|| format!("reading {path}"))?),
        false => None,
    };
    if now.as_deref() != seen {
        bail!("{path} has changed since the plan was made; run again");
    }
    Ok(())
}

/// Does the step. `say` gets how far a long one is.
pub fn act(sys: &Sys, step: &Step, say: &mut dyn FnMut(&str)) -> Result<()> {
    match step {
        Step::WriteFile {
            path,
            content,
            mode,
            ..
        } => write(sys, path, content.expose(), *mode),
        Step::Backup {
            argv,
            folder,
            creates,
        } => back_up(sys, argv, folder, creates),
        Step::Archive { volumes, creates } => archive(sys, volumes, creates, say),
        Step::Keep(wanted) => keep::keep(sys, wanted, say),
        Step::SealHandover {
            handover,
            backup,
            backup_limit,
            core,
            data,
            kept,
        } => {
            let mut sealed = handover.clone();
            if let Some(folder) = kept {
                name_kept(&mut sealed, &keep::read_manifest(sys, folder)?);
            }
            if let (Some(backup), None) = (backup, &sealed.backup) {
                sealed.backup = Some(measure(sys, backup, *backup_limit)?);
            }
            sealed.resume = core
                .as_ref()
                .map(|core| core::resume(sys, core))
                .transpose()?;
            sealed.payload.image.data_end = data.end_for(data_bytes(&sealed))?;
            check_kept(&sealed)?;
            write(sys, handover::PATH, &sealed.to_bytes(), 0o600)
        }
        Step::BuildInitramfs { path, recipe } => {
            let handover = sys
                .read(handover::PATH)
                .with_context(|| format!("reading {}", handover::PATH))?;
            initramfs::build(sys, recipe, &handover, path)
                .with_context(|| format!("building {path}"))
        }
        Step::MakeFolder { path } => sys
            .make_dir(path, 0o700)
            .with_context(|| format!("making {path}")),
        Step::BuildByTool(wanted) => {
            by_tool::build(sys, wanted, say).with_context(|| format!("building {}", wanted.path))
        }
        Step::BuildCore(wanted) => core::build(sys, wanted),
        Step::CopyFile { from, to } => sys
            .copy(from, to, 0o600)
            .with_context(|| format!("copying {from} to {to}")),
        Step::WriteVariable { name, variable, .. } => Ok(sys.write_efi(name, variable)?),
    }
}

/// Writes a file; one that was there keeps its mode and owner.
fn write(sys: &Sys, path: &str, content: &[u8], mode: u32) -> Result<()> {
    let old = sys.meta(path).ok();
    sys.write_whole(
        path,
        content,
        old.map_or(mode, |old| old.mode),
        old.map(|old| (old.uid, old.gid)),
    )
    .with_context(|| format!("writing {path}"))
}

/// Runs the backup script, with a backup of an earlier day out of its way.
fn back_up(sys: &Sys, argv: &[String], folder: &str, creates: &str) -> Result<()> {
    put_aside(sys, creates)?;
    run(sys, argv, Some(folder))?;
    let meta = sys
        .meta(creates)
        .with_context(|| format!("the backup script ended well but made no {creates}"))?;
    if meta.bytes == 0 {
        bail!("the backup script ended well but {creates} is empty");
    }
    backup::inspect::check(sys, creates)
}

/// Makes the backup, with one of an earlier day out of its way.
fn archive(sys: &Sys, volumes: &[Volume], creates: &str, say: &mut dyn FnMut(&str)) -> Result<()> {
    /// Between two words about the progress.
    const PAUSE: Duration = Duration::from_secs(10);
    put_aside(sys, creates)?;
    let mut last = Instant::now();
    let mut progress = |bytes: u64| {
        if last.elapsed() >= PAUSE {
            last = Instant::now();
            say(&format!("make the backup: {} MiB read", bytes >> 20));
        }
    };
    sys.write_with(creates, 0o600, None, |file| {
        let own = backup::survey::own_files(sys, creates);
        let sink = Gated {
            sys,
            file,
            path: creates,
        };
        let notes = backup::archive::write(sys, volumes, &own, sink, &mut progress)
            .map_err(|error| io::Error::other(format!("{error:#}")))?;
        for note in notes {
            log::warn!("the backup: {note}");
        }
        Ok(())
    })
    .with_context(|| format!("making the backup {creates}"))
}

/// Moves a backup from an earlier day out of the way.
fn put_aside(sys: &Sys, path: &str) -> Result<()> {
    if !sys.exists(path) {
        return Ok(());
    }
    let aside = aside(path);
    sys.rename(path, &aside)
        .with_context(|| format!("moving {path} to {aside}"))
}

/// A file whose every write is a change that may be refused: a backup can take long, and must be
/// open to an interruption.
struct Gated<'a> {
    sys: &'a Sys,
    file: &'a mut File,
    path: &'a str,
}

impl Write for Gated<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Whoever writes tries again after `Interrupted`, which is what a signal's refusal says.
        self.sys
            .pass(&format!("writing {}", self.path))
            .map_err(|refusal| io::Error::other(refusal.to_string()))?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Runs a program that must succeed.
pub(super) fn run(sys: &Sys, argv: &[String], folder: Option<&str>) -> Result<()> {
    let ended = sys
        .run(argv, folder)
        .with_context(|| format!("running {}", argv.join(" ")))?;
    if !ended.success {
        bail!(
            "{} failed with {}: {}",
            argv.join(" "),
            ended.how,
            ended.complaint
        );
    }
    Ok(())
}

/// What goes onto resin-data, in bytes.
fn data_bytes(handover: &Handover) -> u64 {
    let files = handover.install.iter();
    let files = files.filter(|file| file.partition == Target::Data);
    let backup = handover.backup.as_ref().map_or(0, |backup| backup.bytes);
    backup + files.map(|file| file.bytes).sum::<u64>()
}

/// Nothing that is kept may lie where the new system comes to lie.
fn check_kept(handover: &Handover) -> Result<()> {
    let image = &handover.payload.image;
    let end = image.bytes.max(image.data_end.unwrap_or(0));
    let files = [Some(&handover.payload.file), handover.backup.as_ref()];
    for file in files.into_iter().flatten() {
        if let Place::Extents(extents) = &file.place
            && (extents.is_empty() || extents.iter().any(|extent| extent.start < end))
        {
            bail!("a kept file is in the way of the new system, which ends at byte {end}");
        }
    }
    Ok(())
}

/// Names the places of what was kept behind the new system.
fn name_kept(handover: &mut Handover, manifest: &Manifest) {
    if let Some(payload) = manifest.files.get(place::PAYLOAD) {
        handover.payload.file = payload.stored();
    }
    handover.backup = manifest.files.get(place::BACKUP).map(Kept::stored);
}

/// Size and hash of the backup, which must leave room in memory for the rest.
fn measure(sys: &Sys, backup: &BackupPlace, limit: u64) -> Result<StoredFile> {
    let mut file = sys
        .open(&backup.path)
        .with_context(|| format!("opening {}", backup.path))?;
    let bytes = file.metadata().context("measuring the backup")?.len();
    if bytes > limit {
        bail!(
            "the backup {} has {bytes} bytes, and stage 2 has room in memory for {limit}; make the \
             backup smaller",
            backup.path
        );
    }
    let mut hash = crate::payload::digest::Sha256Writer::default();
    std::io::copy(&mut Read::by_ref(&mut file), &mut hash)
        .with_context(|| format!("reading {}", backup.path))?;
    Ok(StoredFile {
        place: backup.place.clone(),
        bytes,
        sha256: hash.hex(),
    })
}
