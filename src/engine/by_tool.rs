//! Has a tool of the distribution build the initramfs, and puts stage 2 before it.
//!
//! The tool sees a copy of its configuration with a hook of ours, and no secret: the hand-over, keys and
//! all else of stage 2 are in an archive that is there already.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::initramfs::tool::{FOLDER, THEIRS};
use crate::step::by_tool::{self, ByTool};
use crate::sys::Sys;
use crate::sys::command::{Ended, Job};

/// A slow machine takes a quarter of an hour for all drivers; one that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(3600);

/// The archives that the kernel unpacks one after the other begin at multiples of 4; boot loaders
/// copy whole sectors.
const ALIGNMENT: u64 = 512;

/// Between two words about a tool that is still at work.
const PAUSE: Duration = Duration::from_secs(10);

/// Builds it. `say` gets how long the tool has been at work.
pub fn build(sys: &Sys, wanted: &ByTool, say: &mut dyn FnMut(&str)) -> Result<()> {
    let place = |path: &str| sys.real(path).to_string_lossy().into_owned();
    let (from, copy) = wanted.tool.copied();
    let copying = [
        "cp",
        "-a",
        &place(from),
        &place(&format!("{FOLDER}/{copy}")),
    ];
    run(
        sys,
        &Job::of(&copying.map(str::to_owned), LIMIT),
        &mut |_| (),
    )?;
    for hook in wanted.tool.hooks() {
        let path = format!("{FOLDER}/{}", hook.path);
        make_folders(sys, &path)?;
        sys.write_whole(&path, hook.text.as_bytes(), 0o755, None)
            .with_context(|| format!("writing {path}"))?;
    }
    let command = wanted
        .tool
        .command(&wanted.program, &place(FOLDER), &wanted.release);
    let mut job = Job::of(&command.argv, LIMIT);
    job.variable = Some(command.variable);
    let mut told = Duration::ZERO;
    run(sys, &job, &mut |time| {
        if time >= told + PAUSE {
            told = time;
            say(&format!("{}: {} s", wanted.program, time.as_secs()));
        }
    })?;
    join(sys, &wanted.path)
}

/// Makes the folders of a file in [`FOLDER`].
fn make_folders(sys: &Sys, path: &str) -> Result<()> {
    let inside = path.match_indices('/').map(|(at, _)| &path[..at]);
    for folder in inside.filter(|folder| folder.len() > FOLDER.len()) {
        if !sys.exists(folder) {
            let made = sys.make_dir(folder, 0o755);
            made.with_context(|| format!("making {folder}"))?;
        }
    }
    Ok(())
}

/// Runs a program that must succeed.
fn run(sys: &Sys, job: &Job, watch: &mut dyn FnMut(Duration)) -> Result<()> {
    let what = job.argv.join(" ");
    let ended = sys
        .run_job(job, watch)
        .with_context(|| format!("running {what}"))?;
    let Ended {
        success,
        how,
        complaint,
    } = ended;
    if !success {
        bail!("{what} failed with {how}: {complaint}");
    }
    Ok(())
}

/// Makes one file of both archives.
fn join(sys: &Sys, path: &str) -> Result<()> {
    let (ours, theirs) = (by_tool::ours(), format!("{FOLDER}/{THEIRS}"));
    let made = sys
        .meta(&theirs)
        .with_context(|| format!("the tool ended well but made no {theirs}"))?;
    ensure!(made.bytes > 0, "the tool ended well but {theirs} is empty");
    sys.write_with(path, 0o600, None, |file| {
        let written = io::copy(&mut sys.open(&ours)?, file)?;
        let missing = written.next_multiple_of(ALIGNMENT) - written;
        file.write_all(&[0; ALIGNMENT as usize][..missing as usize])?;
        io::copy(&mut sys.open(&theirs)?, file)?;
        Ok(())
    })
    .with_context(|| format!("writing {path}"))?;
    sys.remove_file(&theirs)
        .with_context(|| format!("removing {theirs}"))
}
