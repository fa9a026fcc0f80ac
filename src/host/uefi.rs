//! Describes UEFI firmware: what it starts, whether that can be changed, and the EFI system
//! partition. Called by the collector on machines that such firmware has started.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::disks::head_of;
use super::grub_tools::image_tools;
use super::{CoreTools, Disk, Mount, boot_sector, mounts};
use crate::efi::load_option::{ACTIVE, LoadOption, PartitionId};
use crate::efi::{self, gpt};
use crate::grub_platform;
use crate::handover::TableIdentity;
use crate::sys::{Sys, efivars};

/// Where distributions mount the EFI system partition, most usual first.
const ESP_POINTS: [&str; 3] = ["/boot/efi", "/efi", "/boot"];

/// Where GRUB is installed; the packages of distributions have its modules elsewhere too.
const GRUB_DIR: &str = "/boot/grub";

/// LoaderFeatures: the loader takes LoaderEntryOneShot.
const ENTRY_ONE_SHOT: u64 = 1 << 3;

/// UEFI firmware.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Uefi {
    /// 32 or 64: the programs that it starts have so many bits.
    pub bits: Option<u32>,
    /// Secure Boot checks nothing until keys are given.
    pub setup_mode: Option<bool>,
    /// Whether its variables can be changed.
    pub variables: Access,
    /// The entry that was started.
    pub boot_current: Option<u16>,
    /// The order in which entries are tried.
    pub boot_order: Vec<u16>,
    /// Boot entries, by number.
    pub entries: Vec<BootEntry>,
    /// The boot loader that said so of itself.
    pub loader: Option<Loader>,
    /// What device paths call the partitions, by kernel name.
    pub partitions: BTreeMap<String, PartitionId>,
    /// Kernel name of the EFI system partition.
    pub esp: Option<String>,
    /// Kernel names of all partitions that their disks call so. Older snapshots have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub esps: Vec<String>,
    /// What a GRUB for this firmware can be made with.
    pub core_tools: Option<CoreTools>,
    /// The grub.cfg on the EFI system partition that leads to the one in /boot.
    pub grub_stub: Option<GrubStub>,
}

/// Whether variables can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// efivarfs is mounted, for writing too.
    Writable,
    /// efivarfs is mounted read-only.
    ReadOnly,
    /// efivarfs is not mounted.
    #[default]
    NotMounted,
}

/// A boot entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEntry {
    /// Its number.
    pub number: u16,
    /// It is tried in its turn.
    pub active: bool,
    /// Its name in the firmware's menu.
    pub description: String,
    /// The partition that it starts from.
    pub partition: Option<PartitionId>,
    /// The file that it starts.
    pub file: Option<String>,
}

/// A boot loader that keeps the Boot Loader Interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loader {
    /// Its name and version, such as `systemd-boot 252.22-1~deb12u1`.
    pub info: String,
    /// It starts an entry once when told by a variable.
    pub one_shot: bool,
    /// The GUID of the partition that it was started from.
    pub partition: Option<String>,
}

/// A grub.cfg on the EFI system partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrubStub {
    /// Its path on this system.
    pub path: String,
    /// The UUID of the file system that it looks for, if it looks for one.
    pub fs_uuid: Option<String>,
}

/// The firmware, its partitions and loaders.
pub(super) fn collect(sys: &Sys, disks: &[Disk], mounts: &[Mount]) -> Uefi {
    let variable = |name: String| Some(sys.read_efi(&name).ok()??.value);
    let number = |name: &str| efi::numbers(&variable(efi::global(name))?).first().copied();
    let bits = sys.read_text("/sys/firmware/efi/fw_platform_size").ok();
    let mut found = Uefi {
        bits: bits.and_then(|text| text.trim().parse().ok()),
        setup_mode: variable(efi::global("SetupMode")).and_then(|value| Some(*value.first()? == 1)),
        variables: match mounts::is_writable(sys, efivars::DIR) {
            Some(true) => Access::Writable,
            Some(false) => Access::ReadOnly,
            None => Access::NotMounted,
        },
        boot_current: number("BootCurrent"),
        boot_order: variable(efi::boot_order()).map_or_else(Vec::new, |value| efi::numbers(&value)),
        entries: entries(sys),
        loader: loader(&variable),
        partitions: partition_ids(sys, disks),
        esp: None,
        esps: esps(sys, disks),
        core_tools: None,
        grub_stub: None,
    };
    let platform = grub_platform::efi(found.bits.unwrap_or(64));
    found.core_tools = image_tools(sys, platform, Some(GRUB_DIR), &grub_platform::EFI_MODULES);
    found.esp = found.find_esp(disks, mounts);
    let point = found.esp_mount(mounts).map(|mount| mount.point.clone());
    found.grub_stub = point.and_then(|point| grub_stub(sys, &point, &found));
    found
}

fn entries(sys: &Sys) -> Vec<BootEntry> {
    let names = sys.efi_variables();
    let numbered = names
        .iter()
        .filter_map(|name| Some((efi::entry_number(name)?, sys.read_efi(name).ok()??)));
    let mut entries: Vec<BootEntry> = numbered
        .filter_map(|(number, variable)| {
            let option = LoadOption::parse(&variable.value)?;
            Some(BootEntry {
                number,
                active: option.attributes & ACTIVE != 0,
                partition: option.partition().map(|drive| drive.id.clone()),
                file: option.file().map(str::to_owned),
                description: option.description,
            })
        })
        .collect();
    entries.sort_by_key(|entry| entry.number);
    entries
}

fn loader(variable: &dyn Fn(String) -> Option<Vec<u8>>) -> Option<Loader> {
    let text = |name: &str| Some(efi::text(&variable(efi::loader(name))?));
    let features = variable(efi::loader("LoaderFeatures"))
        .and_then(|value| value.get(..8)?.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    Some(Loader {
        info: text("LoaderInfo")?,
        one_shot: features & ENTRY_ONE_SHOT != 0,
        partition: text("LoaderDevicePartUUID").map(|guid| guid.to_lowercase()),
    })
}

/// What device paths call each partition of each disk. A disk that can't be read has none.
fn partition_ids(sys: &Sys, disks: &[Disk]) -> BTreeMap<String, PartitionId> {
    let mut ids = BTreeMap::new();
    for disk in disks {
        match &disk.table {
            Some(TableIdentity::Gpt(_)) => {
                let entries = gpt_entries(sys, disk);
                for part in &disk.partitions {
                    let entry = entries.iter().find(|entry| entry.number == part.number);
                    if let Some(entry) = entry {
                        ids.insert(part.name.clone(), PartitionId::Gpt(entry.guid.clone()));
                    }
                }
            }
            Some(TableIdentity::Mbr(id)) => {
                for part in &disk.partitions {
                    let first = part.start / u64::from(disk.sector_bytes);
                    ids.insert(part.name.clone(), PartitionId::Mbr(id.clone(), first));
                }
            }
            None => {}
        }
    }
    ids
}

/// The partitions that their disks call EFI system partitions, and that have what firmware reads.
fn esps(sys: &Sys, disks: &[Disk]) -> Vec<String> {
    let of_disk = |disk: &Disk| -> Vec<String> {
        let numbers: Vec<u32> = match &disk.table {
            Some(TableIdentity::Gpt(_)) => {
                let entries = gpt_entries(sys, disk).into_iter();
                let esps = entries.filter(|entry| entry.kind == gpt::EFI_SYSTEM);
                esps.map(|entry| entry.number).collect()
            }
            Some(TableIdentity::Mbr(_)) => primary_esps(sys, disk),
            None => Vec::new(),
        };
        let parts = disk.partitions.iter().filter(|part| {
            let is_fat = part.fs.as_ref().is_some_and(|fs| fs.fs_type == "vfat");
            is_fat && numbers.contains(&part.number)
        });
        parts.map(|part| part.name.clone()).collect()
    };
    disks.iter().flat_map(of_disk).collect()
}

/// The numbers of those in an MBR.
fn primary_esps(sys: &Sys, disk: &Disk) -> Vec<u32> {
    let sector = head_of(sys, &disk.name, boot_sector::BYTES).unwrap_or_default();
    let entries = sector.get(446..510).unwrap_or_default().chunks_exact(16);
    let esps = entries
        .zip(1..)
        .filter(|(entry, _)| entry[4] == efi::MBR_KIND);
    esps.map(|(_, number)| number).collect()
}

fn gpt_entries(sys: &Sys, disk: &Disk) -> Vec<gpt::Entry> {
    let node = format!("/dev/{}", disk.name.replace('!', "/"));
    let mut read = |at: u64, len: usize| {
        let mut file = sys.open(&node)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        file.take(len as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    gpt::entries(disk.sector_bytes, &mut read).unwrap_or_default()
}

impl Uefi {
    /// The EFI system partition: where the running boot loader says that it was started from, then the
    /// one that the running entry names, then what is mounted where it usually is, then one that
    /// its disk calls so.
    fn find_esp(&self, disks: &[Disk], mounts: &[Mount]) -> Option<String> {
        let by_loader = self
            .loader
            .as_ref()
            .and_then(|loader| self.named(&PartitionId::Gpt(loader.partition.clone()?)));
        let current = self
            .entries
            .iter()
            .find(|entry| Some(entry.number) == self.boot_current);
        let by_entry = current.and_then(|entry| self.named(entry.partition.as_ref()?));
        let by_mount = ESP_POINTS.iter().find_map(|point| {
            let mount = mounts.iter().rfind(|mount| mount.point == *point)?;
            (mount.fs_type == "vfat").then(|| mount.device_name.clone())
        });
        let is_fat = |name: &String| {
            let mut parts = disks.iter().flat_map(|disk| &disk.partitions);
            parts.any(|part| {
                part.name == *name && part.fs.as_ref().is_some_and(|fs| fs.fs_type == "vfat")
            })
        };
        [by_loader, by_entry, by_mount]
            .into_iter()
            .flatten()
            .find(is_fat)
            .or_else(|| self.esps.first().cloned())
    }

    /// Kernel name of the partition that device paths call so.
    fn named(&self, id: &PartitionId) -> Option<String> {
        let mut known = self.partitions.iter();
        known
            .find(|(_, known)| *known == id)
            .map(|(name, _)| name.clone())
    }

    /// Where the EFI system partition is mounted.
    pub fn esp_mount<'a>(&self, mounts: &'a [Mount]) -> Option<&'a Mount> {
        let name = self.esp.as_ref()?;
        // A folder of it that is mounted elsewhere is no place for files that the firmware finds.
        mounts
            .iter()
            .find(|mount| mount.device_name == *name && mount.subtree == "/")
    }
}

/// The grub.cfg beside the program that the running entry names, or the first one in \EFI.
fn grub_stub(sys: &Sys, esp: &str, uefi: &Uefi) -> Option<GrubStub> {
    let folder = format!("{}/EFI", esp.trim_end_matches('/'));
    let current = uefi
        .entries
        .iter()
        .find(|entry| Some(entry.number) == uefi.boot_current);
    let started = current
        .and_then(|entry| entry.file.as_deref())
        .and_then(|file| Some(file.split(['\\', '/']).rev().nth(1)?.to_owned()));
    let mut names = sys.list(&folder).unwrap_or_default();
    // FAT has no case.
    names.sort_by_key(|name| match &started {
        Some(started) => !name.eq_ignore_ascii_case(started),
        None => false,
    });
    let paths = names.iter().map(|name| format!("{folder}/{name}/grub.cfg"));
    paths.into_iter().find_map(|path| {
        let text = sys.read(&path).ok()?;
        Some(GrubStub {
            fs_uuid: searched_uuid(&String::from_utf8_lossy(&text)),
            path,
        })
    })
}

/// The UUID after `search.fs_uuid` or `search … --fs-uuid`.
fn searched_uuid(stub: &str) -> Option<String> {
    let line = stub.lines().map(str::trim).find(|line| {
        let first = line.split_whitespace().next().unwrap_or_default();
        first == "search.fs_uuid" || (first == "search" && line.contains("--fs-uuid"))
    })?;
    let mut words = line.split_whitespace().skip(1);
    words
        .find(|word| !word.starts_with("--") && *word != "root")
        .map(|word| word.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_that_a_stub_looks_for() {
        let of = |text: &str| searched_uuid(text);
        let debian = "search.fs_uuid 1-2-3 root \nset prefix=($root)'/boot/grub'\n";
        assert_eq!(of(debian).as_deref(), Some("1-2-3"));
        let ubuntu = "search.fs_uuid 1-2-3 root hd0,gpt2 \nset prefix=($root)'/grub'\n";
        assert_eq!(of(ubuntu).as_deref(), Some("1-2-3"));
        let fedora = "search --no-floppy --root-dev-only --fs-uuid --set=dev 4-5\n\
                      set prefix=($dev)/grub2\n";
        assert_eq!(of(fedora).as_deref(), Some("4-5"));
        assert_eq!(of("configfile (hd0)/x\n"), None);
    }
}
