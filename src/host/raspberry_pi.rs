//! Describes a Raspberry Pi: the board, and the files that its firmware reads. Called by the collector.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Mount;
use crate::kernel_args;
use crate::raspberry_pi::board::Model;
use crate::raspberry_pi::boot_files::{self, BootFiles};
use crate::raspberry_pi::config_txt::Reader;
use crate::sys::Sys;

/// Where distributions mount the boot partition, newest first.
const POINTS: [&str; 2] = ["/boot/firmware", "/boot"];

/// The file that makes a boot partition of a file system.
pub const CONFIG: &str = "config.txt";

/// What the boards before the Pi 5 read first: it may send them to another partition.
pub const AUTOBOOT: &str = "autoboot.txt";

/// What is read instead of config.txt at a boot that was asked for it.
pub const TRYBOOT: &str = "tryboot.txt";

/// The device of the makers' driver for talking to the firmware.
const VCIO: &str = "/dev/vcio";

/// When the boot EEPROM of the Pi 4 learnt of tryboot: 2020-10-28, in seconds since 1970.
const EEPROM_WITH_TRYBOOT: u32 = 1_603_843_200;

/// Bytes of a text file that are read.
const TEXT_BYTES: usize = 64 << 10;

/// How deep folders of the boot partition are listed.
const DEPTH: u32 = 2;

/// What the firmware leaves in the device tree.
const BOOTLOADER: &str = "/proc/device-tree/chosen/bootloader";

/// A Raspberry Pi.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaspberryPi {
    /// The revision code.
    pub revision: u32,
    /// The serial number of the board.
    pub serial: Option<u64>,
    /// The number of the partition that it was started from, where the firmware says it.
    pub partition: Option<u32>,
    /// The boot partition, where it is mounted.
    pub boot: Option<BootPartition>,
    /// The firmware on it, and what starts that, know [`TRYBOOT`].
    pub knows_tryboot: bool,
    /// The kernel has the driver of the board's makers, which passes the argument of a reboot on.
    pub passes_argument: bool,
    /// The kernel that runs has 64 bits.
    pub runs_64: bool,
    /// The command line in the file that config.txt comes to; the firmware puts arguments of its own before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
}

/// The partition with what the firmware reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPartition {
    /// Where it is mounted.
    pub point: String,
    /// Its files, with their folders; those of overlays are left out.
    pub names: BTreeSet<String>,
    /// The texts of config.txt, of what it includes, of autoboot.txt and tryboot.txt, as far as they are UTF-8.
    pub texts: BTreeMap<String, String>,
}

impl RaspberryPi {
    /// The model of the board, where it is known.
    pub fn model(&self) -> Option<&'static Model> {
        Model::of(self.revision)
    }

    /// What the firmware starts.
    ///
    /// # Errors
    ///
    /// Why that can't be told.
    pub fn boots(&self) -> Result<BootFiles, String> {
        self.resolve(false)
    }

    /// What the firmware starts when it finds the same file as tryboot.txt.
    ///
    /// # Errors
    ///
    /// Why that can't be told.
    pub fn boots_by_tryboot(&self) -> Result<BootFiles, String> {
        self.resolve(true)
    }

    fn resolve(&self, tryboot: bool) -> Result<BootFiles, String> {
        let unknown = || format!("the board's revision code {:x} is not known", self.revision);
        let model = self.model().ok_or_else(unknown)?;
        let boot = self.boot.as_ref();
        let boot = boot.ok_or_else(|| "the boot partition is not mounted".to_owned())?;
        let reader = Reader {
            model,
            serial: self.serial,
            texts: &boot.texts,
            tryboot,
            runs_64: self.runs_64,
        };
        boot_files::resolve(reader, CONFIG, &boot.names).map_err(|place| {
            format!("{place} may count or not, which depends on more than the board")
        })
    }

    /// The path of the kernel that the firmware starts.
    pub fn kernel(&self) -> Option<String> {
        self.file(|starts| &starts.kernel)
    }

    /// The path of a file that it starts.
    fn file(&self, of: fn(&BootFiles) -> &str) -> Option<String> {
        let point = &self.boot.as_ref()?.point;
        Some(format!("{point}/{}", of(&self.boots().ok()?)))
    }

    /// The arguments of the running kernel, `running`, that are not the firmware's own: those whose names
    /// are in the file that it reads. Values differ where the firmware has put the device in (`serial0`).
    /// Without the file, all of them.
    pub fn given_arguments(&self, running: &str) -> Vec<String> {
        let name = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
        let mut all = kernel_args::split(running);
        if let Some(text) = &self.cmdline {
            let names: BTreeSet<String> =
                kernel_args::split(text).iter().map(|a| name(a)).collect();
            all.retain(|argument| names.contains(&name(argument)));
        }
        all
    }
}

/// The board and its boot partition; nothing on other machines. `machine` is that of `uname -m`.
pub(super) fn collect(sys: &Sys, mounts: &[Mount], machine: &str) -> Option<RaspberryPi> {
    let compatible = sys.read("/proc/device-tree/compatible").ok()?;
    let mut names = compatible.split(|byte| *byte == 0);
    if !names.any(|name| name.starts_with(b"raspberrypi,")) {
        return None;
    }
    let serial = sys.read("/proc/device-tree/serial-number").ok();
    let revision = revision(sys).unwrap_or_default();
    let boot = boot_partition(sys, mounts);
    let mut board = RaspberryPi {
        revision,
        serial: serial.and_then(|bytes| parse_serial(&bytes)),
        partition: cell(sys, &format!("{BOOTLOADER}/partition")),
        knows_tryboot: boot
            .as_ref()
            .is_some_and(|boot| knows_tryboot(sys, revision, boot)),
        boot,
        passes_argument: sys.exists(VCIO),
        runs_64: machine == "aarch64",
        cmdline: None,
    };
    board.cmdline = board.file(|starts| &starts.cmdline).and_then(|path| {
        let text = sys.read_text(&path).ok()?;
        Some(text.lines().next()?.trim().to_owned())
    });
    Some(board)
}

/// Whether the firmware reads tryboot.txt: it has the name in it, and so has what starts it.
fn knows_tryboot(sys: &Sys, revision: u32, boot: &BootPartition) -> bool {
    let is_four = Model::of(revision).is_some_and(|model| model.sections.contains(&"pi4"));
    let files = boot.names.iter().filter(|name| match is_four {
        true => name.starts_with("start4") && name.ends_with(".elf"),
        false => {
            *name == "bootcode.bin"
                || name.starts_with("start")
                    && !name.starts_with("start4")
                    && name.ends_with(".elf")
        }
    });
    let names_it = |name: &String| {
        let bytes = sys
            .read(&format!("{}/{name}", boot.point))
            .unwrap_or_default();
        let mut windows = bytes.windows(TRYBOOT.len());
        windows.any(|window| window == TRYBOOT.as_bytes())
    };
    let mut files = files.peekable();
    let eeprom = cell(sys, &format!("{BOOTLOADER}/build-timestamp"));
    files.peek().is_some()
        && files.all(names_it)
        && (!is_four || eeprom.is_some_and(|built| built >= EEPROM_WITH_TRYBOOT))
}

/// A number of the device tree.
fn cell(sys: &Sys, path: &str) -> Option<u32> {
    let bytes = sys.read(path).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Firmware passes it on in the device tree; that of some distributions has it only here.
fn revision(sys: &Sys) -> Option<u32> {
    let in_tree = cell(sys, "/proc/device-tree/system/linux,revision");
    in_tree.or_else(|| {
        let text = sys.read_text("/proc/cpuinfo").ok()?;
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let (_, code) = lines.find(|(name, _)| name.trim() == "Revision")?;
        u32::from_str_radix(code.trim(), 16).ok()
    })
}

fn parse_serial(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    u64::from_str_radix(text, 16).ok()
}

fn boot_partition(sys: &Sys, mounts: &[Mount]) -> Option<BootPartition> {
    let is_boot = |point: &&str| {
        let fat = |mount: &Mount| mount.point == *point && mount.fs_type == "vfat";
        mounts.iter().any(fat) && sys.exists(&format!("{point}/{CONFIG}"))
    };
    let point = POINTS.into_iter().find(is_boot)?;
    let mut names = BTreeSet::new();
    list(sys, point, "", DEPTH, &mut names);
    let mut texts = BTreeMap::new();
    for name in [CONFIG, AUTOBOOT, TRYBOOT] {
        read(sys, point, name, &mut texts);
    }
    Some(BootPartition {
        point: point.to_owned(),
        names,
        texts,
    })
}

fn list(sys: &Sys, point: &str, folder: &str, depth: u32, names: &mut BTreeSet<String>) {
    for name in sys.list(&format!("{point}/{folder}")).unwrap_or_default() {
        let name = format!("{folder}{name}");
        match sys.meta(&format!("{point}/{name}")) {
            Ok(meta) if meta.is_file => {
                names.insert(name);
            }
            Ok(_) if depth > 1 && !name.ends_with("overlays") => {
                list(sys, point, &format!("{name}/"), depth - 1, names);
            }
            _ => {}
        }
    }
}

/// A text, and those that it includes.
fn read(sys: &Sys, point: &str, name: &str, texts: &mut BTreeMap<String, String>) {
    let Ok(bytes) = sys.read(&format!("{point}/{name}")) else {
        return;
    };
    if bytes.len() > TEXT_BYTES || texts.contains_key(name) {
        return;
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return;
    };
    let included = text.lines().filter_map(|line| {
        let name = line.trim_start().strip_prefix("include")?;
        name.starts_with([' ', '\t'])
            .then(|| name.trim().to_owned())
    });
    let included: Vec<String> = included.collect();
    texts.insert(name.to_owned(), text);
    for name in included {
        read(sys, point, &name, texts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_of_the_device_tree() {
        assert_eq!(
            parse_serial(b"100000001234abcd\0"),
            Some(0x1000_0000_1234_abcd)
        );
        assert_eq!(parse_serial(b"\0"), None);
    }
}
