//! A stand-in for the firmware of a Raspberry Pi: what it makes of the files on its card.
//!
//! QEMU runs none of the makers' firmware: it is handed a kernel, an initramfs, a device tree and a command
//! line. So this reads the card before each start, as the true one would, by its documentation
//! (<https://www.raspberrypi.com/documentation/computers/config_txt.html>). It shares no line with the model in
//! `src/raspberry_pi`: what that gets wrong would not show.

use std::collections::BTreeMap;

use super::super::Disk;

/// What the firmware reads of a line.
const LINE: usize = 98;

/// A file of settings that another one includes may include one more, and so on, this deep.
const DEPTH: u32 = 10;

/// The setting that names the files of the initramfs.
const RAMFS: &str = "ramfsfile";

/// Reads a file of the boot partition.
type Read<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// A board as its firmware sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    /// The sections of config.txt for it.
    pub sections: &'static [&'static str],
    /// Its kernel of 32 bits.
    pub kernel_32: &'static str,
    /// The device trees of the makers' kernel and of that of kernel.org.
    pub device_trees: [&'static str; 2],
}

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The number of the boot partition.
    pub partition: u32,
    pub kernel: Vec<u8>,
    /// The files of the initramfs, one behind the other; empty without one.
    pub initramfs: Vec<u8>,
    pub device_tree: Vec<u8>,
    pub cmdline: String,
    /// What it would show on its own screen.
    pub said: Vec<String>,
}

/// What `board` starts from a card; after a reboot that asked for it, by tryboot.txt.
///
/// # Errors
///
/// Why it shows a rainbow for ever.
pub fn start(disk: &Disk, board: Board, tryboot: bool) -> Result<Started, String> {
    let partitions = disk.partitions().into_iter().map(|part| part.number);
    let mut bootable = partitions.filter(|number| disk.fat_file(*number, "bootcode.bin").is_some());
    let partition = bootable
        .next()
        .ok_or("no partition of the card has bootcode.bin")?;
    let read = |name: &str| disk.fat_file(partition, name);
    let mut said = Vec::new();
    let file = if tryboot { "tryboot.txt" } else { "config.txt" };
    let mut settings = Settings::default();
    settings.file(&read, board, tryboot, file, 0);
    said.push(format!("read {file} of partition {partition}"));

    let prefix = prefix(&read, &settings, board);
    let named = |name: &str| match name.strip_prefix('/') {
        Some(whole) => whole.to_owned(),
        None => format!("{prefix}{name}"),
    };
    let kernel = named(kernel_name(&settings, board));
    let content = read(&kernel).ok_or_else(|| format!("{kernel} is not there"))?;
    said.push(format!("kernel {kernel}"));
    let mut initramfs = Vec::new();
    for name in initramfs_names(&read, &settings, &kernel, &named) {
        match read(&name) {
            Some(bytes) => {
                said.push(format!("initramfs {name}, {} bytes", bytes.len()));
                initramfs.extend(bytes);
            }
            None => said.push(format!("initramfs {name} is not there")),
        }
    }
    let tree = settings.get("device_tree");
    let tree = named(match tree {
        "" => board.device_trees[usize::from(settings.is("upstream_kernel"))],
        name => name,
    });
    let device_tree = read(&tree).ok_or_else(|| format!("{tree} is not there"))?;
    let cmdline = named(match settings.get("cmdline") {
        "" => "cmdline.txt",
        name => name,
    });
    said.push(format!("device tree {tree}, command line of {cmdline}"));
    let arguments = read(&cmdline).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments).into_owned();
    Ok(Started {
        partition,
        kernel: content,
        initramfs,
        device_tree,
        cmdline: arguments
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned(),
        said,
    })
}

/// What is put before names: nothing where no kernel would be found so.
fn prefix(read: Read, settings: &Settings, board: Board) -> String {
    let wanted = match settings.get("os_prefix") {
        "" if settings.is("upstream_kernel") => "upstream/",
        prefix => prefix,
    };
    let kernel = format!("{wanted}{}", kernel_name(settings, board));
    match read(&kernel) {
        Some(_) => wanted.to_owned(),
        None => String::new(),
    }
}

fn kernel_name(settings: &Settings, board: Board) -> &str {
    match settings.get("kernel") {
        "" if settings.is("arm_64bit") => "kernel8.img",
        "" => board.kernel_32,
        name => name,
    }
}

fn initramfs_names(
    read: Read,
    settings: &Settings,
    kernel: &str,
    named: &dyn Fn(&str) -> String,
) -> Vec<String> {
    if settings.is("auto_initramfs") {
        let beside = kernel.replace("kernel", "initramfs").replace(".img", "");
        if beside != kernel && read(&beside).is_some() {
            return vec![beside];
        }
    }
    let names = settings.get(RAMFS).split(',');
    names.filter(|name| !name.is_empty()).map(named).collect()
}

/// The settings that hold for a board.
#[derive(Default)]
struct Settings {
    values: BTreeMap<String, String>,
    /// Whether the sections that the reading is in are for this start: that of models, and that of tryboot.
    for_model: Option<bool>,
    for_tryboot: Option<bool>,
}

impl Settings {
    fn get(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    fn is(&self, name: &str) -> bool {
        self.get(name) == "1"
    }

    fn file(&mut self, read: Read, board: Board, tryboot: bool, name: &str, depth: u32) {
        let Some(bytes) = read(name).filter(|_| depth < DEPTH) else {
            return;
        };
        for line in String::from_utf8_lossy(&bytes).lines() {
            let line: String = line.trim().chars().take(LINE).collect();
            if let Some(section) = line.strip_prefix('[') {
                let section = section.split(']').next().unwrap_or_default();
                self.section(section, board, tryboot);
            } else if self.for_model == Some(false) || self.for_tryboot == Some(false) {
                continue;
            } else if let Some(other) = line.strip_prefix("include ") {
                self.file(read, board, tryboot, other.trim(), depth + 1);
            } else {
                self.line(&line);
            }
        }
    }

    fn line(&mut self, line: &str) {
        let statement = match line.strip_prefix("initramfs ") {
            // Behind the files, where in memory they go.
            Some(files) => files.split_whitespace().next().map(|files| (RAMFS, files)),
            None if line.starts_with('#') => None,
            None => line.split_once('='),
        };
        if let Some((name, value)) = statement {
            self.values.insert(name.to_owned(), value.trim().to_owned());
        }
    }

    fn section(&mut self, name: &str, board: Board, tryboot: bool) {
        match name {
            "all" => (self.for_model, self.for_tryboot) = (None, None),
            "tryboot" => self.for_tryboot = Some(tryboot),
            // Those for monitors, pins and serial numbers name nothing that the bench has.
            model => self.for_model = Some(board.sections.contains(&model)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::PI_3;
    use super::*;

    /// The settings of a Raspberry Pi 3, by a config.txt beside which there is extra.txt.
    fn settings(config: &str, tryboot: bool) -> Settings {
        let read = |name: &str| match name {
            "config.txt" => Some(config.as_bytes().to_vec()),
            "extra.txt" => Some(b"kernel=extra.img\n".to_vec()),
            _ => None,
        };
        let mut settings = Settings::default();
        settings.file(&read, PI_3.board, tryboot, "config.txt", 0);
        settings
    }

    #[test]
    fn what_config_txt_says_to_a_board() {
        let kernel = |config| settings(config, false).get("kernel").to_owned();
        assert_eq!(kernel("kernel=a\n[pi4]\nkernel=b\n"), "a");
        assert_eq!(kernel("kernel=a\n[pi4]\n[all]\nkernel=b\n"), "b");
        assert_eq!(kernel("[pi4]\n[pi3]\nkernel=b\n#kernel=c"), "b");
        assert_eq!(kernel("include extra.txt\n"), "extra.img");
        assert_eq!(kernel("[none]\ninclude extra.txt\n"), "");
        let initramfs = |config| settings(config, false).get(RAMFS).to_owned();
        assert_eq!(initramfs("initramfs a,b followkernel"), "a,b");
        assert_eq!(initramfs("initramfs=a"), "");
        assert_eq!(settings("[tryboot]\nx=1\n", true).get("x"), "1");
        assert_eq!(settings("[tryboot]\nx=1\n", false).get("x"), "");
    }
}
