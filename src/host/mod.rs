//! The host snapshot: all that the checks and the planner know of the device.
//!
//! Plain data without methods that look at the machine: [`collect`] is its only maker, captured
//! snapshots (`balena-migrate facts`) are test fixtures, and from here to the first step the code is
//! pure. Nothing in it is secret: of the network files it holds where they are, not what they say.

mod arm_kernel;
mod boot_sector;
pub mod collect;
mod disks;
mod firmware;
mod grub;
mod grub_cfg;
mod grub_default;
mod grub_script;
pub mod grub_tools;
mod initramfs_tools;
mod interfaces;
mod kernel;
mod mappings;
mod mounts;
pub mod network;
mod os;
mod processor;
pub mod raspberry_pi;
mod reach;
mod swaps;
mod target;
pub mod u_boot;
pub mod uefi;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::boot_sector::{BootCode, BootSector};
use self::raspberry_pi::RaspberryPi;
use self::u_boot::UBoot;
use self::uefi::Uefi;
use crate::handover::{self, TableIdentity};
use crate::meminfo::Memory;
use crate::raspberry_pi::board::Bits64;

/// A device as it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// When it was taken, by this machine's clock, in seconds since 1970 in UTC. Older snapshots have nothing of
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<i64>,
    /// Effective user id of this process.
    pub euid: u32,
    /// `uname -n`.
    pub hostname: String,
    /// `uname -m`: the architecture of the kernel, such as `x86_64`.
    pub machine: String,
    /// Architecture that this executable was built for, as Rust names it.
    pub executable_arch: String,
    /// The processor has the 64-bit mode of x86, which a 32-bit kernel leaves unused; `None` where
    /// that is not told, as on other architectures and in older snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_mode: Option<bool>,
    /// The distribution, from /etc/os-release.
    pub os: Os,
    /// The running kernel.
    pub kernel: Kernel,
    /// What started the kernel.
    pub firmware: Firmware,
    /// Memory now.
    pub memory: Memory,
    /// Every disk with a medium, sorted by name.
    pub disks: Vec<Disk>,
    /// Every mounted file system that files are in. Older snapshots have only those on block devices.
    pub mounts: Vec<Mount>,
    /// Device-mapper devices, sorted by name. Older snapshots have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<Mapping>,
    /// Kernel names of the partitions, disks and mappings that swap goes to. Older snapshots have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub swaps: Vec<String>,
    /// GRUB, when a configuration of it was found.
    pub grub: Option<Grub>,
    /// What the distribution builds an initramfs with. Older snapshots have nothing of it.
    #[serde(default, skip_serializing_if = "InitramfsTools::is_none")]
    pub initramfs_tools: InitramfsTools,
    /// Network configuration files by their paths.
    pub network: Vec<NetworkFile>,
    /// Network hardware, sorted by name. Older snapshots have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses that the machine has now, sorted; none when that could not be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// What this device is armed with, or was.
    pub state: State,
}

/// /etc/os-release.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Os {
    /// ID, such as `debian`.
    pub id: String,
    /// VERSION_ID, such as `12`; empty on rolling distributions.
    pub version_id: String,
    /// ID_LIKE, split at blanks.
    pub id_like: Vec<String>,
    /// PRETTY_NAME.
    pub pretty_name: String,
}

/// The running kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// /proc/cmdline, without the line break.
    pub cmdline: String,
    /// The kernel's file as this system sees it, such as `/boot/vmlinuz-6.1.0-18-amd64`.
    pub image: Option<String>,
    /// Compressions of an initramfs that it unpacks, from its build configuration
    /// (CONFIG_RD_GZIP …); `None` when the configuration can't be read.
    pub initramfs_formats: Option<Vec<String>>,
    /// Page size in bytes.
    pub page_bytes: u64,
    /// Size of the kernel's file in bytes. Older snapshots have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_bytes: Option<u64>,
    /// The firmware can start it by itself, if it has so many bits (32 or 64).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efi_stub: Option<u32>,
    /// Started so, it takes an initramfs by `initrd=`; `None` when the configuration does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efi_initrd: Option<bool>,
}

/// What started the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// /sys/firmware/efi is there.
    pub efi: bool,
    /// What the variables of the firmware say of Secure Boot; `None` when they can't be read.
    pub secure_boot: Option<bool>,
    /// What the kernel was told of it, where they can't: for off it also takes a shim that was told to check
    /// nothing. `None` where it was told nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_secure_boot: Option<bool>,
    /// More of UEFI firmware. Older snapshots have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uefi: Option<Uefi>,
    /// The disk signature of the disk that a BIOS calls its first, 8 lower-case hex digits; `None` where
    /// the kernel does not know it. Older snapshots have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bios_disk: Option<String>,
    /// /proc/device-tree/model.
    pub device_tree_model: Option<String>,
    /// More of a Raspberry Pi. Older snapshots have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raspberry_pi: Option<RaspberryPi>,
    /// More of another board. Older snapshots have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub u_boot: Option<UBoot>,
}

impl Firmware {
    /// What starts systems on this machine.
    pub fn kind(&self) -> handover::Firmware {
        let is_board = self.raspberry_pi.is_some() || self.u_boot.is_some();
        match (self.efi, is_board) {
            (true, _) => handover::Firmware::Efi,
            (false, true) => handover::Firmware::Board,
            (false, false) => handover::Firmware::Bios,
        }
    }

    /// 32 or 64: the programs that UEFI firmware starts have so many bits, 64 where it does not say.
    pub fn bits(&self) -> u32 {
        self.uefi.as_ref().and_then(|uefi| uefi.bits).unwrap_or(64)
    }
}

impl Kernel {
    /// Bytes to reckon with for a copy of its file, also where that was not measured.
    pub fn room(&self) -> u64 {
        self.image_bytes.unwrap_or(24 << 20)
    }
}

/// A whole disk: one that has a device behind it, so no loop device, no RAM disk, no mapping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Kernel name, such as `sda` or `nvme0n1`. Never used to find the disk again.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Logical sector size in bytes.
    pub sector_bytes: u32,
    /// /sys/block/X/removable.
    pub removable: bool,
    /// /sys/block/X/ro.
    pub read_only: bool,
    /// The maker's name for it.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its world-wide name.
    pub wwid: Option<String>,
    /// Its partition table; `None` when it has none that is known here.
    pub table: Option<TableIdentity>,
    /// What a BIOS would start of it; `None` when it could not be read. Older snapshots have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_sector: Option<BootSector>,
    /// A file system on the disk itself, as on many USB sticks.
    pub fs: Option<FileSystem>,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
    /// Kernel modules of the drivers from the disk up to the root of the device tree, the disk's
    /// own first. Drivers that are built into the kernel have none.
    pub modules: Vec<String>,
    /// What brings it here over a network, such as `iscsi`; none for a disk of this machine. Older snapshots
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Kernel names of the mappings and arrays that are built on it or its partitions. Older snapshots
    /// have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<String>,
    /// The kernel gives it to nobody else: it, or a partition of it, is mounted, takes swap, or is
    /// part of something. Older snapshots do not say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub claimed: bool,
}

/// A partition of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Kernel name, such as `sda1`.
    pub name: String,
    /// Number, from 1.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// What is in it, when that is a file system known here.
    pub fs: Option<FileSystem>,
}

/// A file system that was recognised by its superblock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// The kernel's name of the type.
    pub fs_type: String,
    /// As `/dev/disk/by-uuid` spells it.
    pub uuid: String,
    /// Label, empty when it has none.
    pub label: String,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Mount point.
    pub point: String,
    /// The folder of the file system that is mounted there: `/`, or a bind source or a subvolume.
    pub subtree: String,
    /// `major:minor` of the block device.
    pub device: String,
    /// Kernel name of that block device, such as `sda1` or `dm-0`; empty when it has none.
    pub device_name: String,
    /// Names of the disks under that device, found by following partitions and mappings.
    pub disks: Vec<String>,
    /// The kernel's name of the type.
    pub fs_type: String,
    /// UUID of the file system, when it could be read.
    pub uuid: Option<String>,
    /// Size in bytes; 0 when it could not be measured.
    pub bytes: u64,
    /// Bytes free for root; 0 when it could not be measured.
    pub free: u64,
    /// Mounted read-only.
    pub read_only: bool,
    /// Everybody on this machine may read what is there: FAT has no owners, and how it is mounted lets them.
    /// Older snapshots do not say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everybody_reads: bool,
}

impl Mount {
    /// What it is on, in words.
    pub fn in_words(&self) -> String {
        match self.device_name.as_str() {
            "" => self.fs_type.clone(),
            name => format!("{} on {name}", self.fs_type),
        }
    }

    /// What is in it is gone after a restart.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.fs_type.as_str(), "tmpfs" | "ramfs")
    }
}

/// A device-mapper device, such as a logical volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Kernel name, such as `dm-0`.
    pub name: String,
    /// What it is made of, in order.
    pub targets: Vec<MappingTarget>,
}

/// A part of a mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingTarget {
    /// First byte on the mapping.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Kind, such as `linear` or `crypt`.
    pub kind: String,
    /// What is below, of a linear one.
    pub below: Option<Below>,
}

impl MappingTarget {
    /// What is on it is on the disk in another form, and needs a key to be read.
    pub fn encrypts(&self) -> bool {
        self.kind == "crypt"
    }
}

/// A place on a device below a mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// Kernel name of the device.
    pub name: String,
    /// First byte on it.
    pub start: u64,
}

/// GRUB as it is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grub {
    /// Its folder, such as `/boot/grub`.
    pub dir: String,
    /// grub.cfg has the block that boots `next_entry` once and clears it.
    pub honours_next_entry: bool,
    /// What always sets another default after that, and the file that it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later_default: Option<String>,
    /// grub.cfg sources `custom.cfg` from the same folder, and that file may be written to.
    pub sources_custom_cfg: bool,
    /// grubenv: its text, or nothing when there is no such file.
    pub grubenv: Option<String>,
    /// Where grubenv leads, when it is a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grubenv_link: Option<String>,
    /// custom.cfg, or nothing when there is no such file, or one that is not UTF-8;
    /// `sources_custom_cfg` is then false, so that nobody writes to it.
    pub custom_cfg: Option<ConfigFile>,
    /// grub.cfg itself, where it does not source custom.cfg; nothing when it is a link, or not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grub_cfg: Option<ConfigFile>,
    /// How its menu behaves.
    #[serde(default, skip_serializing_if = "Menu::is_usual")]
    pub menu: Menu,
    /// What a core for a BIOS can be made with; nothing when a part of it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_tools: Option<CoreTools>,
}

/// How GRUB's menu behaves at a boot without anybody at the console.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Menu {
    /// It waits for ever.
    pub waits: bool,
    /// It waits for ever after a boot that did not end well (`recordfail`).
    pub waits_after_failure: bool,
    /// It wants a password before it starts any entry of the old system.
    pub locked: bool,
}

impl Menu {
    /// It starts the old system by itself.
    fn is_usual(&self) -> bool {
        *self == Menu::default()
    }
}

/// What the distribution builds an initramfs with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitramfsTools {
    /// `mkinitramfs` of initramfs-tools, when its configuration is there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mkinitramfs: Option<String>,
    /// `dracut`, when its modules are there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dracut: Option<String>,
    /// Size in bytes of the initramfs that the distribution has made for the running kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_bytes: Option<u64>,
}

impl InitramfsTools {
    /// Nothing was found.
    fn is_none(&self) -> bool {
        *self == InitramfsTools::default()
    }

    /// Bytes to reckon with for another initramfs by such a tool, also where none was found.
    pub fn room(&self) -> u64 {
        self.made_bytes.unwrap_or(64 << 20)
    }
}

/// What makes a core of GRUB for a BIOS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreTools {
    /// `grub-mkimage` or `grub2-mkimage`.
    pub mkimage: String,
    /// The folder with boot.img, kernel.img and [`crate::grub_platform::BIOS_MODULES`].
    pub dir: String,
}

/// A configuration file of GRUB's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Its text; it may hold password hashes, which `facts` leaves out.
    pub text: String,
    /// Permission bits.
    pub mode: u32,
}

/// A network configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFile {
    /// Path.
    pub path: String,
    /// Who reads it.
    pub kind: NetworkKind,
}

/// Who reads a network configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// wpa_supplicant.conf.
    WpaSupplicant,
    /// A keyfile of NetworkManager.
    NetworkManager,
    /// A network that connman knows or is given: `settings` and `*.config`.
    Connman,
    /// A network that iwd knows.
    Iwd,
    /// A YAML file of netplan.
    Netplan,
    /// interfaces(5) of ifupdown.
    Ifupdown,
    /// dhcpcd.conf.
    Dhcpcd,
    /// A `.network` or `.netdev` of systemd-networkd, or a drop-in of one.
    Networkd,
}

/// A network interface with a device behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Kernel name, such as `eth0`. Another system may name it otherwise.
    pub name: String,
    /// Hardware address, in capitals with colons.
    pub mac: String,
    /// It has a carrier and is in use.
    pub up: bool,
    /// It is one of wifi.
    pub wireless: bool,
    /// The address was made up or set by software, so that another system may not find it there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made_up: bool,
}

/// What earlier runs of this program left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// /var/lib/balena-migrate has a journal.
    pub journal: bool,
}

impl Host {
    /// Whether the kernel has 32 bits, by `uname -m`.
    pub fn has_32_bit_kernel(&self) -> bool {
        is_32_bit_x86(&self.machine) || self.machine.starts_with("armv")
    }

    /// The kernel's command line, less what the firmware of a board puts before each that it is given.
    pub fn given_cmdline(&self) -> String {
        match &self.firmware.raspberry_pi {
            Some(board) => board.given_arguments(&self.kernel.cmdline).join(" "),
            None => self.kernel.cmdline.clone(),
        }
    }

    /// `uname -m` of the best kernel that the processor runs.
    pub fn processor(&self) -> &str {
        match is_32_bit_x86(&self.machine) {
            true if self.long_mode == Some(true) => "x86_64",
            true => "i686",
            false if self.is_64_bit_board() => "aarch64",
            false => &self.machine,
        }
    }

    /// Whether this is a board whose makers sell 64-bit kernels for it.
    fn is_64_bit_board(&self) -> bool {
        let board = self.firmware.raspberry_pi.as_ref();
        let model = board.and_then(RaspberryPi::model);
        model.is_some_and(|model| model.bits_64 != Bits64::Not)
    }

    /// The mount that holds `path` (absolute, without `..`), by the longest mount point.
    pub fn mount_of(&self, path: &str) -> Option<&Mount> {
        self.mounts
            .iter()
            .filter(|mount| is_under(path, &mount.point))
            .max_by_key(|mount| mount.point.len())
    }

    /// `path` as the file system that holds it names it: relative to its root, with a leading `/`.
    pub fn path_in_fs(&self, path: &str) -> Option<String> {
        let mount = self.mount_of(path)?;
        let rest = path.strip_prefix(mount.point.trim_end_matches('/'))?;
        let inside = format!("{}{rest}", mount.subtree.trim_end_matches('/'));
        Some(if inside.is_empty() {
            "/".into()
        } else {
            inside
        })
    }

    /// The disk of that kernel name.
    pub fn disk(&self, name: &str) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.name == name)
    }

    /// The partition of that kernel name, and its disk.
    pub fn partition(&self, name: &str) -> Option<(&Disk, &Partition)> {
        self.disks.iter().find_map(|disk| {
            let part = disk.partitions.iter().find(|part| part.name == name)?;
            Some((disk, part))
        })
    }

    /// The disk of a partition or whole disk of that kernel name, and the file system on it.
    pub fn volume(&self, name: &str) -> Option<(&Disk, Option<&FileSystem>)> {
        match self.partition(name) {
            Some((disk, part)) => Some((disk, part.fs.as_ref())),
            None => self.disk(name).map(|disk| (disk, disk.fs.as_ref())),
        }
    }

    /// Whether the block device of that kernel name is encrypted, or a mapping below it.
    pub fn is_encrypted(&self, name: &str) -> bool {
        self.is_through(name, MappingTarget::encrypts)
    }

    /// Whether the block device of that kernel name is one disk that is reached in several ways, or is in a
    /// mapping of one.
    pub fn is_multipath(&self, name: &str) -> bool {
        self.is_through(name, |target| target.kind == "multipath")
    }

    /// Whether a mapping has such a part, or one below it has.
    fn is_through(&self, name: &str, is_it: fn(&MappingTarget) -> bool) -> bool {
        let mapping = self.mappings.iter().find(|mapping| mapping.name == name);
        mapping.is_some_and(|mapping| {
            mapping.targets.iter().any(|target| {
                let below = target.below.as_ref();
                is_it(target) || below.is_some_and(|below| self.is_through(&below.name, is_it))
            })
        })
    }

    /// The one disk under the root file system; `None` when there is none or more than one.
    pub fn root_disk(&self) -> Option<&Disk> {
        match self.mount_of("/")?.disks.as_slice() {
            [name] => self.disk(name),
            _ => None,
        }
    }
}

/// Whether `uname -m` names a 32-bit kernel for PCs, of whatever generation.
fn is_32_bit_x86(machine: &str) -> bool {
    matches!(machine, "i386" | "i486" | "i586" | "i686")
}

/// Whether `path` is `point` or below it.
fn is_under(path: &str, point: &str) -> bool {
    let point = point.trim_end_matches('/');
    path.strip_prefix(point)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
