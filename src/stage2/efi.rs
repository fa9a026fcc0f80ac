//! The variables of UEFI firmware: what stage 1 left there goes first of all, and the new system gets
//! an entry of its own last of all.
//!
//! Where the firmware has started the old system from the disk that is overwritten, no failure is more than
//! said: it has removed what was for one boot by itself, and a disk without an entry it starts by the name of
//! the program in EFI/BOOT. Where it has started another disk, it would go on to do so without an entry.

use std::io;

use anyhow::Context;

use super::Work;
use super::machine::{Access, Device, Disk, read_full};
use crate::efi::load_option::{ACTIVE, HardDrive, LoadOption, Node, PartitionId};
use crate::efi::{self, NEW_ENTRY, OUR_ENTRY, Variable, gpt};
use crate::handover::{Efi, Firmware, TableIdentity};
use crate::superblock;
use crate::sys::Sys;

/// Removes what stage 1 left in the variables.
pub fn disarm(work: &Work) {
    let Some(Efi { remove, .. }) = &work.handover.efi else {
        return;
    };
    if remove.is_empty() {
        return;
    }
    let sys = match work.machine.efi_variables() {
        Ok(sys) => sys,
        Err(error) => {
            return work
                .log
                .tell(format!("looking at the EFI variables: {error}"));
        }
    };
    let failures: Vec<String> = remove
        .iter()
        .filter_map(|name| sys.remove_efi(name).err())
        .map(|error| error.to_string())
        .collect();
    match failures.is_empty() {
        true => work.log.say("the EFI variables of stage 1 are gone"),
        false => failures.iter().for_each(|failure| work.log.tell(failure)),
    }
}

/// Where the first sector that is going to be written names an EFI system partition: gives that an entry,
/// first in the boot order. As long as the partition is not there, the firmware goes on to the next.
pub fn rearm(work: &Work, disk: &Disk, first_sector: &[u8]) {
    if work.handover.firmware != Firmware::Efi {
        return;
    }
    let Some(drive) = own_partition(disk, first_sector) else {
        return;
    };
    match try_rearm(work, drive) {
        Ok(()) => work.log.say("the firmware starts stage 2 first"),
        Err(error) => work.log.tell(format!(
            "giving stage 2 a boot entry: {error:#}; the firmware should find it without"
        )),
    }
}

/// Where the firmware would go on to start another disk: sees to it that it takes an entry for this one,
/// before anything on it is overwritten. The entry leads to the new system's place, and is replaced by
/// [`settle`].
///
/// # Errors
///
/// When it does not; the variables are as they were then.
pub fn claim(work: &Work, disk: &Disk) -> anyhow::Result<()> {
    let needed = work
        .handover
        .efi
        .as_ref()
        .is_some_and(|efi| efi.needs_entry);
    if !needed {
        return Ok(());
    }
    let image = &work.handover.payload.image.boot;
    let sector = u64::from(disk.sector_bytes);
    let start = image.start / sector;
    let drive = HardDrive {
        number: image.number,
        start,
        sectors: image.bytes / sector,
        // Its name is known when the image is there.
        id: PartitionId::Mbr("00000000".to_owned(), start),
    };
    try_rearm(work, drive)
        .inspect_err(|_| forget(work))
        .context("giving the new system a boot entry")
}

fn try_rearm(work: &Work, drive: HardDrive) -> anyhow::Result<()> {
    let sys = work.machine.efi_variables().context("mounting efivarfs")?;
    put_first(&sys, &entry_of(&sys, OUR_ENTRY, drive), &[])?;
    Ok(())
}

/// Takes back what [`rearm`] did, for the old system.
pub fn forget(work: &Work) {
    if work.handover.firmware != Firmware::Efi {
        return;
    }
    if let Err(error) = try_forget(work) {
        work.log
            .tell(format!("removing the boot entry of stage 2: {error:#}"));
    }
}

fn try_forget(work: &Work) -> anyhow::Result<()> {
    let sys = work.machine.efi_variables().context("mounting efivarfs")?;
    let ours = entries(&sys).into_iter();
    let ours: Vec<u16> = ours
        .filter(|(_, option)| option.description == OUR_ENTRY)
        .map(|(number, _)| number)
        .collect();
    for number in &ours {
        sys.remove_efi(&efi::boot_entry(*number))?;
    }
    let mut order = boot_order(&sys)?;
    order.retain(|number| !ours.contains(number));
    write_boot_order(&sys, &order)
}

fn boot_order(sys: &Sys) -> anyhow::Result<Vec<u16>> {
    let order = sys.read_efi(&efi::boot_order())?;
    Ok(order.map_or_else(Vec::new, |order| efi::numbers(&order.value)))
}

fn write_boot_order(sys: &Sys, order: &[u16]) -> anyhow::Result<()> {
    let order = Variable::persistent(efi::numbers_value(order));
    Ok(sys.write_efi(&efi::boot_order(), &order)?)
}

/// The partition that an MBR of ours names; `None` for any other.
fn own_partition(disk: &Disk, first_sector: &[u8]) -> Option<HardDrive> {
    let entry = first_sector.get(446..462)?;
    let le =
        |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    let Some(TableIdentity::Mbr(signature)) =
        superblock::table_identity(first_sector, disk.sector_bytes)
    else {
        return None;
    };
    let start = u64::from(le(8));
    (entry[4] == efi::MBR_KIND).then(|| HardDrive {
        number: 1,
        start,
        sectors: u64::from(le(12)),
        id: PartitionId::Mbr(signature, start),
    })
}

/// Gives the new system on `disk` an entry, first in the boot order, before the disk leads there by its
/// `first` sector: a power cut right after that leaves an entry too. Until then there is no such partition,
/// and the firmware goes on to the next entry, which may be that of stage 2.
///
/// # Errors
///
/// Where the firmware does not take it and would start another disk. Everywhere else [`settle`] tries again.
pub fn announce(work: &Work, disk: &Disk, first: &[u8]) -> anyhow::Result<()> {
    let Some(efi) = &work.handover.efi else {
        return Ok(());
    };
    match enter(work, disk, efi, Some(first)) {
        Ok(_) => Ok(()),
        Err(error) if efi.needs_entry => Err(error.context("giving the new system a boot entry")),
        Err(error) => {
            work.log
                .detail(format!("giving the new system a boot entry: {error:#}"));
            Ok(())
        }
    }
}

/// Sees to it that the new system on `disk` has an entry, first in the boot order, and removes those of ours.
pub fn settle(work: &Work, disk: &Disk) {
    let Some(efi) = &work.handover.efi else {
        return;
    };
    match enter(work, disk, efi, None) {
        Ok(entry) => work.log.say(format!("the firmware starts {entry} first")),
        Err(error) => work.log.tell(format!(
            "giving the new system a boot entry: {error:#}; the firmware should find it without"
        )),
    }
}

/// Makes the entry, and removes those that led to partitions of the disk that are no more. `first` is the
/// sector that is not on it yet; without it, stage 2 is not needed any more.
fn enter(work: &Work, disk: &Disk, efi: &Efi, first: Option<&[u8]>) -> anyhow::Result<String> {
    let sys = work.machine.efi_variables().context("mounting efivarfs")?;
    let (boot, new) = partitions(work, disk, first).context("reading the new partition table")?;
    let wanted = entry_of(&sys, NEW_ENTRY, boot);
    let is_ours = |option: &LoadOption| option.description == OUR_ENTRY;
    let is_stale = |option: &LoadOption| {
        let id = option.partition().map(|drive| &drive.id);
        id.is_some_and(|id| efi.old_partitions.contains(id) && !new.contains(id))
    };
    let gone: Vec<_> = entries(&sys)
        .into_iter()
        .filter(|(_, option)| match is_ours(option) {
            true => first.is_none(),
            false => is_stale(option),
        })
        .collect();
    // First what goes: the memory of the firmware may be full.
    for (number, option) in &gone {
        let name = &option.description;
        match sys.remove_efi(&efi::boot_entry(*number)) {
            Ok(()) => work.log.say(format!("removed the boot entry \"{name}\"")),
            Err(error) => work.log.tell(error.to_string()),
        }
    }
    let gone: Vec<u16> = gone.into_iter().map(|(number, _)| number).collect();
    let number = put_first(&sys, &wanted, &gone)?;
    Ok(format!("Boot{number:04X} \"{NEW_ENTRY}\""))
}

/// Writes an entry, over the one that leads to the same program if there is one, and puts it at the head
/// of the boot order, from which those that are `gone` go. Gives its number.
fn put_first(sys: &Sys, wanted: &LoadOption, gone: &[u16]) -> anyhow::Result<u16> {
    let known = entries(sys);
    let same = known.iter().find(|(_, option)| option.path == wanted.path);
    let taken: Vec<u16> = known.iter().map(|(number, _)| *number).collect();
    let number = match same {
        Some((number, _)) => *number,
        None => efi::free_number(&taken).context("no number is free")?,
    };
    let entry = Variable::persistent(wanted.to_bytes());
    sys.write_efi(&efi::boot_entry(number), &entry)?;
    let others = boot_order(sys)?
        .into_iter()
        .filter(|other| *other != number && !gone.contains(other));
    let order: Vec<u16> = [number].into_iter().chain(others).collect();
    write_boot_order(sys, &order)?;
    Ok(number)
}

/// An entry for the boot program of a partition.
fn entry_of(sys: &Sys, name: &str, drive: HardDrive) -> LoadOption {
    let bits = sys.read_text("/sys/firmware/efi/fw_platform_size").ok();
    let bits = bits.and_then(|text| text.trim().parse().ok()).unwrap_or(64);
    let file = format!("\\EFI\\BOOT\\{}", efi::removable_loader(bits));
    LoadOption {
        attributes: ACTIVE,
        description: name.to_owned(),
        path: vec![Node::HardDrive(drive), Node::File(file)],
        rest: Vec::new(),
        data: Vec::new(),
    }
}

/// All boot entries that can be read.
fn entries(sys: &Sys) -> Vec<(u16, LoadOption)> {
    let names = sys.efi_variables();
    names
        .iter()
        .filter_map(|name| {
            let variable = sys.read_efi(name).ok()??;
            Some((
                efi::entry_number(name)?,
                LoadOption::parse(&variable.value)?,
            ))
        })
        .collect()
}

/// What the firmware calls resin-boot, and all partitions of the new system, whose `first` sector may not be on
/// the disk yet.
fn partitions(
    work: &Work,
    disk: &Disk,
    first: Option<&[u8]>,
) -> anyhow::Result<(HardDrive, Vec<PartitionId>)> {
    let image = &work.handover.payload.image.boot;
    let sector = u64::from(disk.sector_bytes);
    let mut device = work.machine.open(&disk.node, Access::Read)?;
    device.forget_cached()?;
    let mut read = |at: u64, len: usize| read_at(&mut *device, at, len);
    let start = image.start / sector;
    let mut head = read(0, 2 * disk.sector_bytes as usize)?;
    if let Some(first) = first {
        head[..first.len()].copy_from_slice(first);
    }
    let (id, new) = match superblock::table_identity(&head, disk.sector_bytes) {
        Some(TableIdentity::Gpt(_)) => {
            let entries = gpt::entries(disk.sector_bytes, &mut read)?;
            let boot = entries.iter().find(|entry| entry.number == image.number);
            let boot = boot.with_context(|| format!("there is no partition {}", image.number))?;
            let id = PartitionId::Gpt(boot.guid.clone());
            let new = entries
                .into_iter()
                .map(|entry| PartitionId::Gpt(entry.guid));
            (id, new.collect())
        }
        Some(TableIdentity::Mbr(disk)) => {
            let id = PartitionId::Mbr(disk, start);
            (id.clone(), vec![id])
        }
        None => anyhow::bail!("the disk has none"),
    };
    let drive = HardDrive {
        number: image.number,
        start,
        sectors: image.bytes / sector,
        id,
    };
    Ok((drive, new))
}

/// Reads so many bytes, fewer at the end of the disk.
fn read_at(device: &mut dyn Device, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let read = read_full(device, &mut bytes, at)?;
    bytes.truncate(read);
    Ok(bytes)
}
