//! Phase 2, `let_go`: nothing of the machine uses the disk any more, and the kernel vouches for it.

use std::time::Duration;

use anyhow::{Context, anyhow, ensure};

use super::Work;
use super::machine::{Access, Device, Disk, read_full};
use super::overwrite::LAST;
use super::record::Keeper;
use super::secure::Secured;
use super::stop::{Code, OrStop, Stop};
use super::stream::Block;

/// How often a busy disk is asked again: the kernel ends some uses a moment after an unmount.
const TRIES: u32 = 20;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// The disk is held exclusively, and what goes onto it is secured.
pub struct Free {
    pub(super) secured: Secured,
    pub(super) device: Box<dyn Device>,
    /// Keeps the record of how far the flash is, where it can go on after a power cut.
    pub(super) record: Option<Keeper>,
}

/// Lets go of the disk.
pub fn let_go(work: &Work, secured: Secured) -> Result<Free, Stop> {
    let mut device = take(work, secured.disk()).or_stop(Code::DiskBusy)?;
    read_end(&mut *device, secured.disk()).or_stop(Code::DiskEnd)?;
    let record = Keeper::load(work, secured.disk()).or_stop(Code::ResumeRecord)?;
    Ok(Free {
        secured,
        device,
        record,
    })
}

/// Reads what will be wiped at the end of the disk. One that has less room than it says would only
/// fail there when the old system is gone.
fn read_end(device: &mut dyn Device, disk: &Disk) -> anyhow::Result<()> {
    let len = LAST.min(disk.bytes) as usize;
    let mut block = Block::new();
    device.forget_cached().context("emptying the page cache")?;
    let read = read_full(device, &mut block.all()[..len], disk.bytes - len as u64)
        .context("reading the end of the disk")?;
    ensure!(read == len, "the disk ends {} bytes too early", len - read);
    Ok(())
}

/// Unmounts all of `disk` and opens it so that nothing else can use it.
pub fn take(work: &Work, disk: &Disk) -> anyhow::Result<Box<dyn Device>> {
    let mut tries = 0;
    let mut device = loop {
        tries += 1;
        match try_take(work, disk) {
            Ok(device) => break device,
            Err(error) if tries == TRIES => return Err(error),
            Err(error) => {
                work.log.detail(format!("try {tries}: {error:#}"));
                work.machine.sleep(PAUSE);
            }
        }
    };
    let bytes = device.bytes().context("asking the disk for its size")?;
    ensure!(
        bytes == disk.bytes,
        "{} has {bytes} bytes now instead of {}",
        disk.name,
        disk.bytes
    );
    Ok(device)
}

fn try_take(work: &Work, disk: &Disk) -> anyhow::Result<Box<dyn Device>> {
    let disk = now(work, disk)?;
    work.machine
        .unmount_all(&disk)
        .with_context(|| format!("unmounting all of {}", disk.name))?;
    let released = work
        .machine
        .release_holders(&disk)
        .with_context(|| format!("taking away what is built on {}", disk.name))?;
    for holder in released {
        work.log
            .say(format!("{holder} is taken away from the disk"));
    }
    work.machine
        .open(&disk.node, Access::Exclusive)
        .with_context(|| format!("opening {} for exclusive use", disk.node.display()))
}

/// The disk as it is now. After a reset of its bus it can have another name; its partition table
/// and file systems may be overwritten.
pub fn now(work: &Work, disk: &Disk) -> anyhow::Result<Disk> {
    let is_it = |other: &Disk| {
        let named = disk.serial.is_some() || disk.wwid.is_some();
        other.bytes == disk.bytes
            && other.serial == disk.serial
            && other.wwid == disk.wwid
            && (named || other.name == disk.name)
    };
    let disks = work.machine.disks().context("listing the disks")?;
    let mut same: Vec<Disk> = disks.into_iter().filter(is_it).collect();
    if same.len() > 1 {
        same.retain(|other| other.name == disk.name);
    }
    same.pop()
        .ok_or_else(|| anyhow!("the disk {} is gone", disk.name))
}
