//! What a board starts: the kernel, the initramfs and the command line that its config.txt comes to.

use std::collections::BTreeSet;

use super::board::{Bits64, KERNEL_64, KERNEL_2712};
use super::config_txt::{Reader, Settings};

/// What a board starts, by names on the boot partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// The kernel.
    pub kernel: String,
    /// The files of the initramfs, in order; none without one.
    pub initramfs: Vec<String>,
    /// The file with the kernel's command line.
    pub cmdline: String,
    /// What is put before names of such files; mostly nothing.
    pub prefix: String,
}

impl BootFiles {
    /// The kernel is u-boot, which looks for Linux and its initramfs by itself.
    pub fn u_boot(&self) -> bool {
        let name = self.kernel.to_ascii_lowercase();
        name.contains("u-boot") || name.contains("uboot")
    }
}

/// What a board starts by a file such as config.txt. `names` are all the files on the boot partition, with
/// their folders.
///
/// # Errors
///
/// The place of a setting of which nobody can say whether it counts.
pub fn resolve(reader: Reader, file: &str, names: &BTreeSet<String>) -> Result<BootFiles, String> {
    let settings = Settings::read(reader, file);
    resolve_settings(reader, &settings, names).map_err(str::to_owned)
}

fn resolve_settings<'a>(
    reader: Reader,
    settings: &'a Settings,
    names: &BTreeSet<String>,
) -> Result<BootFiles, &'a str> {
    let wanted = prefix(settings)?;
    // A prefix that leads to no kernel counts for nothing.
    let viable = kernel(reader, settings, names, &wanted)?;
    let prefix = match names.contains(&viable) {
        true => wanted,
        false => String::new(),
    };
    let kernel = kernel(reader, settings, names, &prefix)?;
    let mut initramfs: Vec<String> = settings
        .value("ramfsfile")?
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| with_prefix(&prefix, name))
        .collect();
    if settings.flag("auto_initramfs", false)? {
        let beside = automatic(&kernel).filter(|name| names.contains(name));
        initramfs = beside.map_or(initramfs, |name| vec![name]);
    }
    let cmdline = match settings.value("cmdline")? {
        "" => "cmdline.txt",
        name => name,
    };
    Ok(BootFiles {
        initramfs,
        cmdline: with_prefix(&prefix, cmdline),
        kernel,
        prefix,
    })
}

/// The value of `os_prefix`, whether it leads to anything or not.
fn prefix(settings: &Settings) -> Result<String, &str> {
    let upstream = settings.flag("upstream_kernel", false)?;
    Ok(match settings.value("os_prefix")? {
        "" if upstream => "upstream/".to_owned(),
        prefix => prefix.to_owned(),
    })
}

fn kernel<'a>(
    reader: Reader,
    settings: &'a Settings,
    names: &BTreeSet<String>,
    prefix: &str,
) -> Result<String, &'a str> {
    let set = settings.value("kernel")?;
    if !set.is_empty() {
        return Ok(with_prefix(prefix, set));
    }
    let is_there = |name: &str| names.contains(&with_prefix(prefix, name));
    let model = reader.model;
    let bits_64 = match model.bits_64 {
        Bits64::Not => false,
        Bits64::Either => settings.flag("arm_64bit", reader.runs_64)?,
        Bits64::Always => true,
    };
    Ok(with_prefix(
        prefix,
        match bits_64 {
            false => model.kernel_32,
            true if model.bits_64 == Bits64::Always && is_there(KERNEL_2712) => KERNEL_2712,
            true => KERNEL_64,
        },
    ))
}

/// A name on the boot partition. One with a slash in front is taken as it is.
fn with_prefix(prefix: &str, name: &str) -> String {
    match name.strip_prefix('/') {
        Some(name) => name.to_owned(),
        None => format!("{prefix}{name}"),
    }
}

/// The initramfs that `auto_initramfs` looks for, of a kernel's name: `initramfs8` for `kernel8.img`.
fn automatic(kernel: &str) -> Option<String> {
    let (folder, name) = match kernel.rsplit_once('/') {
        Some((folder, name)) => (format!("{folder}/"), name),
        None => (String::new(), kernel),
    };
    let kind = name.strip_prefix("kernel")?.strip_suffix(".img")?;
    Some(format!("{folder}initramfs{kind}"))
}
