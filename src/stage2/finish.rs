//! Phase 4, `finish`: the user's files go into the new system, and are read back. The disk has no
//! partition table yet: the kernel is told where the partitions of the image are.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};

use super::Work;
use super::boot_ways::{self, Other};
use super::find;
use super::grow;
use super::hold::hold;
use super::image;
use super::let_go;
use super::log::end_of;
use super::machine::{Access, Disk, Mounted, Partition, Section};
use super::overwrite::Flashed;
use super::rearm::Rearmed;
use super::secure::Secured;
use super::stop::Stop;
use super::stream::Measure;
use crate::fingerprint;
use crate::handover::{ImagePartition, Target};
use crate::payload::digest::sha256_hex;
use crate::sys::Sys;

/// Where the supervisor of balenaOS looks for a backup, on resin-data.
const BACKUP: &str = "/backup.tgz";

/// The log of the migration, on resin-data; its end is on resin-boot too, which any machine can
/// read.
const LOG: &str = "/migrate.log";

/// Bytes of the log on resin-boot, and at most half of what is free there.
const LOG_ON_BOOT: u64 = 256 << 10;

/// Tries before the image is written anew: the file systems may be damaged.
const TRIES: u32 = 3;

/// How long the kernel may take to let go of the old partitions and show the new, in [`PAUSE`]s.
const LOOKS: u32 = 30;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// The new system is complete on the disk but for its first sector.
pub struct Filled {
    pub(super) secured: Secured,
    /// That sector.
    pub(super) first: Vec<u8>,
}

/// Why the new system is not complete.
pub enum Unfinished {
    /// The disk has to be overwritten again.
    Anew(Box<Rearmed>),
    /// It is given up: the old system is on another disk.
    Stopped(Stop),
}

/// Puts the files into the new system. After some failures the disk has to be overwritten again.
pub fn finish(work: &Work, flashed: Flashed) -> Result<Filled, Unfinished> {
    let Flashed {
        secured,
        record,
        first,
    } = flashed;
    for tries in 1..=TRIES {
        match try_finish(work, &secured, &first) {
            Ok(first) => return Ok(Filled { secured, first }),
            Err(error) => hold(work, tries, &error).map_err(Unfinished::Stopped)?,
        }
    }
    Err(Unfinished::Anew(Box::new(Rearmed {
        secured,
        device: None,
        record,
    })))
}

/// `first` is the first sector of the image; gives the one for the disk.
fn try_finish(work: &Work, secured: &Secured, first: &[u8]) -> anyhow::Result<Vec<u8>> {
    let image = &work.handover.payload.image;
    let (mut first, data_part) = match image.data_end {
        Some(end) => grow::table(work, secured.disk(), first, &image.data, end)?,
        None => (first.to_vec(), image.data.clone()),
    };
    let disk = show(work, secured.disk(), &[&image.boot, &data_part])?;
    let boot = partition(work, &disk, &image.boot)?;
    let data = partition(work, &disk, &data_part)?;
    let blocks = match image.data_end {
        Some(_) => Some(grow::blocks(work, &data)?),
        None => None,
    };
    let log = work.log.text();

    let mounted = mount(work, &boot, &image.boot, true)?;
    let other = boot_ways::other(work.handover.firmware, &first, &mounted.files());
    let written = remove_other(work, &mounted.files(), other)
        .and_then(|()| install(work, &mounted.files(), Target::Boot))
        .map(|()| put_end_of_log(work, &mounted.files(), &log));
    close(mounted, &image.boot, written)?;
    if let Some(other) = other {
        other.clear(&mut first);
    }
    let mounted = mount(work, &data, &image.data, true)?;
    let grown = blocks.map(|blocks| grow::file_system(&*mounted, blocks));
    let written = grown
        .unwrap_or(Ok(()))
        .and_then(|()| install(work, &mounted.files(), Target::Data))
        .and_then(|()| put_backup(work, secured, &mounted.files()))
        .map(|()| put_log(work, &mounted.files(), &log));
    let log_is_there = close(mounted, &image.data, written)?;

    forget_cached(work, &[&disk.node, &boot.node, &data.node])?;
    if let Some(blocks) = blocks {
        grow::compare_size(work, &data, blocks)?;
    }
    let mounted = mount(work, &boot, &image.boot, false)?;
    let same = compare(work, &mounted.files(), Target::Boot)
        .and_then(|()| compare_fingerprint(work, &mounted.files(), other));
    close(mounted, &image.boot, same)?;
    let mounted = mount(work, &data, &image.data, false)?;
    let same = compare(work, &mounted.files(), Target::Data)
        .and_then(|()| compare_backup(work, &mounted.files()))
        .map(|()| {
            if log_is_there {
                compare_log(work, &mounted.files(), &log);
            }
        });
    close(mounted, &image.data, same)?;
    for file in &work.handover.install {
        work.log.say(format!("installed {}", file.path));
    }
    Ok(first)
}

/// Makes the kernel see these partitions of the image.
fn show(work: &Work, disk: &Disk, partitions: &[&ImagePartition]) -> anyhow::Result<Disk> {
    let sections: Vec<Section> = partitions
        .iter()
        .map(|partition| Section {
            number: partition.number,
            start: partition.start,
            bytes: partition.bytes,
        })
        .collect();
    let mut tries = 0;
    loop {
        let disk = let_go::now(work, disk)?;
        work.machine.unmount_all(&disk)?;
        tries += 1;
        match work.machine.set_partitions(&disk, &sections) {
            Ok(()) => return Ok(disk),
            Err(error) if tries == LOOKS => {
                return Err(error).context("telling the kernel the new partitions");
            }
            Err(_) => work.machine.sleep(PAUSE),
        }
    }
}

/// The partition of the image, once the kernel shows it, and only if it is the right one.
fn partition(work: &Work, disk: &Disk, wanted: &ImagePartition) -> anyhow::Result<Partition> {
    for _ in 0..LOOKS {
        let disk = let_go::now(work, disk)?;
        let found = disk.partitions.into_iter().find(|partition| {
            partition.number == wanted.number
                && partition.start == wanted.start
                && partition.bytes == wanted.bytes
        });
        let Some(partition) = found else {
            work.machine.sleep(PAUSE);
            continue;
        };
        match find::head(work.machine, &partition.node) {
            Ok(head) => {
                image::is_partition(&head, wanted)?;
                return Ok(partition);
            }
            // The kernel knows the partition a moment before there is a device file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => work.machine.sleep(PAUSE),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", wanted.label));
            }
        }
    }
    Err(anyhow!(
        "the kernel does not show partition {} ({})",
        wanted.number,
        wanted.label
    ))
}

fn mount(
    work: &Work,
    partition: &Partition,
    wanted: &ImagePartition,
    writable: bool,
) -> anyhow::Result<Box<dyn Mounted>> {
    work.log.detail(format!(
        "mounting {}, {} of the image",
        partition.node.display(),
        wanted.label
    ));
    work.machine
        .mount(&partition.node, &wanted.fs_type, writable)
        .with_context(|| format!("mounting {}", wanted.label))
}

/// Unmounts, whatever came of the work on it; the first error counts.
fn close<T>(
    mounted: Box<dyn Mounted>,
    partition: &ImagePartition,
    result: anyhow::Result<T>,
) -> anyhow::Result<T> {
    let closed = mounted
        .close()
        .with_context(|| format!("unmounting {}", partition.label));
    let value = result?;
    closed.map(|()| value)
}

fn forget_cached(work: &Work, nodes: &[&std::path::Path]) -> anyhow::Result<()> {
    for node in nodes {
        work.machine
            .open(node, Access::Read)
            .and_then(|mut device| device.forget_cached())
            .with_context(|| format!("emptying the page cache of {}", node.display()))?;
    }
    Ok(())
}

/// Writes the files for `target`.
fn install(work: &Work, sys: &Sys, target: Target) -> anyhow::Result<()> {
    let initramfs = Sys::new(work.machine.initramfs());
    for file in &work.handover.install {
        if file.partition == target {
            let content = initramfs
                .read(&file.content)
                .with_context(|| format!("reading {}", file.content))?;
            work.log.detail(format!("writing {}", file.path));
            put(sys, &file.path, &content, 0o600)?;
        }
    }
    Ok(())
}

/// Removes what is for another firmware than that of this machine.
fn remove_other(work: &Work, sys: &Sys, other: Option<Other>) -> anyhow::Result<()> {
    let Some(folder) = other.map(Other::folder).filter(|folder| sys.exists(folder)) else {
        return Ok(());
    };
    sys.remove_tree(folder)
        .with_context(|| format!("removing {folder}"))?;
    work.log.say(format!(
        "removed {folder}: the firmware of this machine does not need it"
    ));
    Ok(())
}

/// Says whether the log is there. A failure is only said: the new system does without.
fn put_log(work: &Work, sys: &Sys, log: &[u8]) -> bool {
    let put = put(sys, LOG, log, 0o644);
    if let Err(error) = &put {
        work.log
            .tell(format!("leaving the log on resin-data: {error:#}"));
    }
    put.is_ok()
}

/// As with [`put_log`], a failure is only said.
fn compare_log(work: &Work, sys: &Sys, log: &[u8]) {
    if let Err(error) = compare_file(sys, LOG, log.len() as u64, &sha256_hex(log)) {
        work.log.tell(format!("{error:#}"));
    }
}

/// A failure is only said: the whole log is on resin-data.
fn put_end_of_log(work: &Work, sys: &Sys, log: &[u8]) {
    let free = sys.statvfs("/").map_or(0, |space| space.free);
    let most = LOG_ON_BOOT.min(free / 2) as usize;
    if let Err(error) = sys.write_whole(LOG, end_of(log, most), 0o644, None) {
        work.log
            .tell(format!("leaving the log on resin-boot: {error}"));
    }
}

fn put(sys: &Sys, path: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
    make_folders(sys, path)?;
    sys.write_whole(path, content, mode, None)
        .with_context(|| format!("writing {path}"))
}

/// Makes the folders above `path` that are missing.
fn make_folders(sys: &Sys, path: &str) -> anyhow::Result<()> {
    ensure!(path.starts_with('/'), "{path} is not an absolute path");
    for (end, _) in path.match_indices('/').skip(1) {
        let folder = &path[..end];
        if !sys.exists(folder) {
            sys.make_dir(folder, 0o755)
                .with_context(|| format!("making {folder}"))?;
        }
    }
    Ok(())
}

fn put_backup(work: &Work, secured: &Secured, sys: &Sys) -> anyhow::Result<()> {
    if work.handover.backup.is_none() {
        return Ok(());
    }
    let mut source = secured.backup(work).context("opening the backup")?;
    sys.write_with(BACKUP, 0o600, None, |target| {
        io::copy(&mut source, target).map(|_| ())
    })
    .context("writing the backup")
}

fn compare(work: &Work, sys: &Sys, target: Target) -> anyhow::Result<()> {
    for file in &work.handover.install {
        if file.partition == target {
            compare_file(sys, &file.path, file.bytes, &file.sha256)?;
        }
    }
    Ok(())
}

/// The files that came with resin-boot are still what its fingerprint says, but for those that
/// were replaced, or removed with the way of another firmware.
fn compare_fingerprint(work: &Work, sys: &Sys, other: Option<Other>) -> anyhow::Result<()> {
    let folder = other.map(Other::folder);
    if let Some(folder) = folder.filter(|folder| sys.exists(folder)) {
        bail!("the disk still has {folder}, which was removed");
    }
    if !work.handover.payload.image.fingerprint {
        return Ok(());
    }
    let list = format!("/{}", fingerprint::FILE);
    let reading = || format!("reading {list} back");
    let text = sys.read_text(&list).with_context(reading)?;
    let installed = work.handover.install.iter();
    let ours: Vec<&str> = installed
        .filter(|file| file.partition == Target::Boot)
        .map(|file| file.path.trim_start_matches('/'))
        .collect();
    for (md5, path) in fingerprint::parse(&text) {
        // Names on FAT have no case.
        let is_ours = ours.iter().any(|ours| ours.eq_ignore_ascii_case(&path));
        if is_ours || other.is_some_and(|other| other.has(&path)) {
            continue;
        }
        let found = sys
            .open(&format!("/{path}"))
            .and_then(|mut file| fingerprint::md5_of(&mut file))
            .with_context(|| format!("reading /{path} back"))?;
        ensure!(
            found == md5,
            "the disk did not keep /{path}: its MD5 is {found} instead of {md5}"
        );
    }
    Ok(())
}

fn compare_backup(work: &Work, sys: &Sys) -> anyhow::Result<()> {
    match &work.handover.backup {
        Some(backup) => compare_file(sys, BACKUP, backup.bytes, &backup.sha256),
        None => Ok(()),
    }
}

fn compare_file(sys: &Sys, path: &str, bytes: u64, sha256: &str) -> anyhow::Result<()> {
    let reading = || format!("reading {path} back");
    let mut file = sys.open(path).with_context(reading)?;
    let measure = measure(&mut file).with_context(reading)?;
    measure
        .expect(bytes, sha256)
        .map_err(|mismatch| anyhow!("the disk did not keep {path}: {mismatch}"))
}

fn measure(file: &mut File) -> io::Result<Measure> {
    let mut measure = Measure::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(measure),
            read => measure.add(&buffer[..read])?,
        }
    }
}
