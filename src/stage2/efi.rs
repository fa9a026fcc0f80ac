//! The variables of UEFI firmware: what stage 1 left there goes first of all, and the new system gets
//! an entry of its own last of all.
//!
//! No failure is more than said: the firmware has removed what was for one boot by itself, and a disk
//! without an entry it starts by the name of the program in EFI/BOOT.

use std::io;

use anyhow::Context;

use super::Work;
use super::machine::{Access, Device, Disk, read_full};
use crate::efi::load_option::{ACTIVE, HardDrive, LoadOption, Node, PartitionId};
use crate::efi::{self, NEW_ENTRY, OUR_ENTRY, Variable, gpt};
use crate::handover::{Efi, TableIdentity};
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

/// Gives the new system on `disk` an entry, first in the boot order, and removes those of ours and
/// those that led to partitions of the disk that are no more.
pub fn settle(work: &Work, disk: &Disk) {
    let Some(efi) = &work.handover.efi else {
        return;
    };
    match try_settle(work, disk, efi) {
        Ok(entry) => work.log.say(format!("the firmware starts {entry} first")),
        Err(error) => work.log.tell(format!(
            "giving the new system a boot entry: {error:#}; the firmware should find it without"
        )),
    }
}

fn try_settle(work: &Work, disk: &Disk, efi: &Efi) -> anyhow::Result<String> {
    let sys = work.machine.efi_variables().context("mounting efivarfs")?;
    let (boot, new) = partitions(work, disk).context("reading the new partition table")?;
    let wanted = new_entry(&sys, boot);
    let is_ours = |option: &LoadOption| option.description == OUR_ENTRY;
    let is_stale = |option: &LoadOption| {
        let id = option.partition().map(|drive| &drive.id);
        id.is_some_and(|id| efi.old_partitions.contains(id) && !new.contains(id))
    };
    let (gone, kept): (Vec<_>, Vec<_>) = entries(&sys)
        .into_iter()
        .partition(|(_, option)| is_ours(option) || is_stale(option));
    // First what goes: the memory of the firmware may be full.
    for (number, option) in &gone {
        let name = &option.description;
        match sys.remove_efi(&efi::boot_entry(*number)) {
            Ok(()) => work.log.say(format!("removed the boot entry \"{name}\"")),
            Err(error) => work.log.tell(error.to_string()),
        }
    }
    let same = kept.iter().find(|(_, option)| option.path == wanted.path);
    let taken: Vec<u16> = kept.iter().map(|(number, _)| *number).collect();
    let number = match same {
        Some((number, _)) => *number,
        None => efi::free_number(&taken).context("no number is free")?,
    };
    let entry = Variable::persistent(wanted.to_bytes());
    sys.write_efi(&efi::boot_entry(number), &entry)?;
    let order = sys.read_efi(&efi::boot_order())?;
    let order = order.map_or_else(Vec::new, |order| efi::numbers(&order.value));
    let is_gone = |number: &u16| gone.iter().any(|(gone, _)| gone == number);
    let others = order
        .into_iter()
        .filter(|other| *other != number && !is_gone(other));
    let order: Vec<u16> = [number].into_iter().chain(others).collect();
    let order = Variable::persistent(efi::numbers_value(&order));
    sys.write_efi(&efi::boot_order(), &order)?;
    Ok(format!("Boot{number:04X} \"{NEW_ENTRY}\""))
}

/// The entry of the new system.
fn new_entry(sys: &Sys, boot: HardDrive) -> LoadOption {
    let bits = sys.read_text("/sys/firmware/efi/fw_platform_size").ok();
    let bits = bits.and_then(|text| text.trim().parse().ok()).unwrap_or(64);
    let file = format!("\\EFI\\BOOT\\{}", efi::removable_loader(bits));
    LoadOption {
        attributes: ACTIVE,
        description: NEW_ENTRY.to_owned(),
        path: vec![Node::HardDrive(boot), Node::File(file)],
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

/// What the firmware calls resin-boot, and all partitions of the new system.
fn partitions(work: &Work, disk: &Disk) -> anyhow::Result<(HardDrive, Vec<PartitionId>)> {
    let image = &work.handover.payload.image.boot;
    let sector = u64::from(disk.sector_bytes);
    let mut device = work.machine.open(&disk.node, Access::Read)?;
    device.forget_cached()?;
    let mut read = |at: u64, len: usize| read_at(&mut *device, at, len);
    let start = image.start / sector;
    let head = read(0, 2 * disk.sector_bytes as usize)?;
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
