//! Takes a run back, also after a crash in the middle of it, also twice.

use anyhow::{Context, Result, bail};

use super::journal::{DIR, Journal, JournalWriter, PATH, Record};
use crate::efi::{self, Variable};
use crate::payload::digest::sha256_hex;
use crate::report;
use crate::step::marks::Marks;
use crate::step::{OneShot, Undo};
use crate::sys::files::temporary_name;
use crate::sys::{Sys, efivars};

/// What an undo did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// There was something to take back.
    pub anything: bool,
    /// What could not be taken back, in words; the journal stays then.
    pub left: Vec<String>,
    /// Where the log of stage 2 was moved, if there was one.
    pub log: Option<String>,
}

/// Takes back everything that the journal foresees, last step first, and then removes the
/// journal. A failure is noted and the rest goes on, unless it is that of a file by which every boot starts
/// stage 2: what such a file names must be there as long as it names it.
pub fn undo(sys: &Sys) -> Result<Undone> {
    let Some(journal) = Journal::read(sys)? else {
        return clear_unbegun(sys);
    };
    let mut undone = Undone {
        anything: true,
        ..Undone::default()
    };
    // Its folder may be one that a step made.
    let log = keep_log(sys, &journal);
    if !journal.is_undone() {
        let one_shot = journal.begin().and_then(|begin| begin.one_shot.as_ref());
        let lasting = one_shot
            .filter(|one_shot| one_shot.lasts())
            .and_then(OneShot::file);
        for step in journal.undos() {
            let Err(error) = take_back(sys, step) else {
                continue;
            };
            undone.left.push(format!("{error:#}"));
            if lasting.is_some_and(|file| step.path() == Some(file)) {
                undone.left.push(
                    "all else stays too, as every boot starts stage 2 by that file until then"
                        .to_owned(),
                );
                break;
            }
        }
        if !undone.left.is_empty() {
            return Ok(undone);
        }
        let begin = journal.begin();
        super::settle(sys, begin.and_then(|begin| begin.one_shot.as_ref()));
        // From here on the saved files may go, and another undo must not look for them.
        JournalWriter::resume(sys)?.append(&Record::Undone)?;
    }
    undone.log = log?;
    clear(sys)?;
    Ok(undone)
}

/// A run that was cut off before its journal began left at most an empty folder.
fn clear_unbegun(sys: &Sys) -> Result<Undone> {
    let anything = sys.exists(DIR);
    if anything {
        clear(sys)?;
    }
    Ok(Undone {
        anything,
        ..Undone::default()
    })
}

/// Removes the run's own folder, the journal last.
fn clear(sys: &Sys) -> Result<()> {
    let journal = PATH.rsplit_once('/').map_or(PATH, |(_, name)| name);
    let names = sys.list(DIR).with_context(|| format!("reading {DIR}"))?;
    for name in names.iter().filter(|name| *name != journal) {
        let path = format!("{DIR}/{name}");
        sys.remove_file(&path)
            .with_context(|| format!("removing {path}"))?;
    }
    sys.remove_file(PATH)
        .with_context(|| format!("removing {PATH}"))?;
    sys.remove_dir(DIR)
        .with_context(|| format!("removing {DIR}"))
}

/// Copies the log of stage 2 into the user's folder, where it outlives the undo.
fn keep_log(sys: &Sys, journal: &Journal) -> Result<Option<String>> {
    let Some(begin) = journal.begin() else {
        return Ok(None);
    };
    let log = format!("{}/{}", begin.report, report::LOG_FILE);
    if !sys.exists(&log) {
        return Ok(None);
    }
    let kept = format!("{}/balena-migrate-{}", begin.home, report::LOG_FILE);
    sys.copy(&log, &kept, 0o644)
        .with_context(|| format!("copying {log} to {kept}"))?;
    Ok(Some(kept))
}

/// Takes one step back.
fn take_back(sys: &Sys, undo: &Undo) -> Result<()> {
    match undo {
        Undo::Restore {
            path,
            saved,
            mode,
            uid,
            gid,
            ours,
            marks,
        } => {
            remove(sys, &temporary_name(path))?;
            let old = sys
                .read(saved)
                .with_context(|| format!("reading {saved}, the old {path}"))?;
            let back = match without_ours(sys, path, ours.as_deref(), &old, marks.as_ref())? {
                Some(theirs) => theirs,
                None => {
                    refuse_if_changed(sys, path, ours.as_deref(), Some(&old))?;
                    old
                }
            };
            sys.write_whole(path, &back, *mode, Some((*uid, *gid)))
                .with_context(|| format!("putting the old {path} back"))
        }
        Undo::Remove { path, ours } => {
            remove(sys, &temporary_name(path))?;
            refuse_if_changed(sys, path, ours.as_deref(), None)?;
            remove(sys, path)
        }
        Undo::MoveBack {
            path,
            aside,
            existed,
        } => {
            remove(sys, &temporary_name(path))?;
            if *existed && !sys.exists(aside) {
                // It was never moved aside, or it is back already.
                return Ok(());
            }
            remove(sys, path)?;
            if *existed {
                sys.rename(aside, path)
                    .with_context(|| format!("moving {aside} back to {path}"))?;
            }
            Ok(())
        }
        Undo::RemoveFolder { path } => remove_folder(sys, path),
        Undo::Variable { name, old, ours } => restore_variable(sys, name, old.as_deref(), ours),
        Undo::Nothing => Ok(()),
    }
}

/// Puts a variable back that is still as a step has left it.
fn restore_variable(sys: &Sys, name: &str, old: Option<&str>, ours: &str) -> Result<()> {
    if sys.efi_variables().is_empty() {
        bail!(
            "the EFI variable {name} can't be looked at; mount -t efivarfs efivarfs {}",
            efivars::DIR
        );
    }
    let read = |digits: &str| {
        Variable::from_hex(digits).with_context(|| format!("the journal's {name} is damaged"))
    };
    let Some(now) = sys.read_efi(name)? else {
        return Ok(());
    };
    if !efi::is_still(&now, &read(ours)?) {
        return Ok(());
    }
    match old {
        Some(old) => sys.write_efi(name, &read(old)?)?,
        None => sys.remove_efi(name)?,
    }
    Ok(())
}

/// Removes a folder of ours, which may not be there, and all that is in it. Links are not followed.
fn remove_folder(sys: &Sys, folder: &str) -> Result<()> {
    if !sys.exists(folder) {
        return Ok(());
    }
    let names = sys
        .list(folder)
        .with_context(|| format!("reading {folder}"))?;
    for name in names {
        let path = format!("{folder}/{name}");
        let is_folder = sys.read_link(&path).is_err()
            && sys
                .meta(&path)
                .with_context(|| format!("reading {path}"))?
                .is_dir;
        match is_folder {
            true => remove_folder(sys, &path)?,
            false => remove(sys, &path)?,
        }
    }
    sys.remove_dir(folder)
        .with_context(|| format!("removing {folder}"))
}

/// Removes a file that may not be there.
fn remove(sys: &Sys, path: &str) -> Result<()> {
    if sys.exists(path) {
        sys.remove_file(path)
            .with_context(|| format!("removing {path}"))?;
    }
    Ok(())
}

/// What somebody has made of a file with lines of ours in it, without these; `None` where nobody has
/// changed it, or where our lines can't be told from theirs.
fn without_ours(
    sys: &Sys,
    path: &str,
    ours: Option<&str>,
    old: &[u8],
    marks: Option<&Marks>,
) -> Result<Option<Vec<u8>>> {
    let (Some(ours), Some(marks)) = (ours, marks) else {
        return Ok(None);
    };
    if !sys.exists(path) {
        return Ok(None);
    }
    let now = sys.read(path).with_context(|| format!("reading {path}"))?;
    if now == old || sha256_hex(&now) == ours {
        return Ok(None);
    }
    let text = String::from_utf8(now).ok();
    Ok(text.and_then(|text| Some(marks.strip(&text)?.into_bytes())))
}

/// A file that somebody changed after us is theirs.
fn refuse_if_changed(sys: &Sys, path: &str, ours: Option<&str>, old: Option<&[u8]>) -> Result<()> {
    let Some(ours) = ours else { return Ok(()) };
    if !sys.exists(path) {
        return Ok(());
    }
    let now = sys.read(path).with_context(|| format!("reading {path}"))?;
    if Some(now.as_slice()) != old && sha256_hex(&now) != ours {
        bail!(
            "{path} was changed after balena-migrate wrote it and stays as it is; put it right by \
             hand (the old one, if any, is in {DIR}), then run undo again"
        );
    }
    Ok(())
}
