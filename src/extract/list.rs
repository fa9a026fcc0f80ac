//! `extract --list`: what is in an image file, as text and as JSON.

use anyhow::Result;
use serde::Serialize;

use super::Found;
use super::look::{Boot, Image, fits};
use super::open::Notice;
use crate::handover::{Format, TableIdentity};
use crate::payload::scan::BootFiles;
use crate::shown::shown;

/// What is in an image file.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// Its path.
    pub file: String,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// How the file is compressed.
    pub format: &'static str,
    /// `flasher` or `os`.
    pub kind: &'static str,
    /// The image.
    pub image: Described,
    /// The OS image that a flasher carries.
    pub carried: Option<CarriedListing>,
}

/// An OS image in a flasher image.
#[derive(Debug, Serialize)]
pub struct CarriedListing {
    /// Its path in the file system.
    pub path: String,
    /// The label of that file system.
    pub place: String,
    /// How it is compressed there.
    pub format: &'static str,
    /// Its size there in bytes.
    pub bytes: u64,
    /// It has a signature beside it.
    pub signed: bool,
    /// It.
    pub image: Described,
}

/// What an image says of itself.
#[derive(Debug, Serialize)]
pub struct Described {
    /// Its size in bytes.
    pub bytes: Option<u64>,
    /// The name of the system, as os-release has it.
    pub os: Option<String>,
    /// Version of the system.
    pub version: Option<String>,
    /// The device type that it is for.
    pub device_type: Option<String>,
    /// `mbr` or `gpt`.
    pub table: &'static str,
    /// What starts it: kinds of firmware, and boot loaders.
    pub boots_by: Vec<String>,
    /// Its boot partition has a config.json.
    pub config_json: bool,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug, Serialize)]
pub struct Partition {
    /// Its number.
    pub number: u32,
    /// Its label, or its name in a GPT.
    pub label: String,
    /// The kernel's name of its file system; empty when it is not known.
    pub fs_type: String,
    /// First byte.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Reads what is to be listed of an image file. How large an image is that lies in a gzip file shows only
/// at its end; the number there counts no more than 4 GiB, and only the last member.
pub fn list(path: &str, found: &Found, notice: &dyn Notice) -> Result<Listing> {
    let carried = match &found.carried {
        None => None,
        Some(inner) => Some(CarriedListing {
            path: shown(&inner.carried.path),
            place: inner.carried.place.clone(),
            format: format_name(inner.opened.format),
            bytes: inner.carried.bytes,
            signed: inner.carried.signature.is_some(),
            image: describe(&inner.image, inner.boot.as_ref(), notice)?,
        }),
    };
    let image = describe(&found.image, found.boot.as_ref(), notice)?;
    Ok(Listing {
        file: path.to_owned(),
        file_bytes: found.outer.packed_bytes,
        format: format_name(found.outer.format),
        kind: match &carried {
            Some(_) => "flasher",
            None => "os",
        },
        image,
        carried,
    })
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Raw => "raw",
        Format::Gzip => "gzip",
        Format::Bzip2 => "bzip2",
        Format::Xz => "xz",
        Format::Zstd => "zstd",
        Format::Zip(_) => "zip",
    }
}

fn describe(image: &Image, boot: Option<&Boot>, notice: &dyn Notice) -> Result<Described> {
    let os_release = |name: &str| {
        let value = boot?.files.os_release.get(name)?;
        Some(value.clone()).filter(|value| !value.is_empty())
    };
    let mut partitions = Vec::new();
    for part in &image.parts {
        let seen = image.see(part)?;
        partitions.push(Partition {
            number: part.slot.number,
            label: seen.label().to_owned(),
            fs_type: seen.fs_type().to_owned(),
            start: part.slot.start,
            bytes: part.slot.bytes,
        });
    }
    let bytes = match image.whole.size() {
        None => image.whole.prove(notice)?,
        known => known,
    };
    if let Some(end) = bytes {
        fits(&image.parts, end)?;
    }
    let names = boot
        .map(|boot| boot.files.names.as_slice())
        .unwrap_or_default();
    Ok(Described {
        bytes,
        os: os_release("PRETTY_NAME").or_else(|| os_release("NAME")),
        version: os_release("VERSION_ID").or_else(|| os_release("VERSION")),
        device_type: boot.and_then(|boot| boot.files.slug()).map(str::to_owned),
        table: match image.table {
            TableIdentity::Mbr(_) => "mbr",
            TableIdentity::Gpt(_) => "gpt",
        },
        boots_by: boots_by(image, boot),
        config_json: names.iter().any(|name| name == "config.json"),
        partitions,
    })
}

/// What starts an image, by its boot sector and the files of its boot partition.
fn boots_by(image: &Image, boot: Option<&Boot>) -> Vec<String> {
    let mut boots_by = Vec::new();
    if image.boot_code {
        boots_by.push("BIOS".to_owned());
    }
    let Some(BootFiles {
        names, efi_loaders, ..
    }) = boot.map(|boot| &boot.files)
    else {
        return boots_by;
    };
    let efi = efi_loaders.iter().filter(|name| name.ends_with(".EFI"));
    boots_by.extend(efi.map(|name| format!("UEFI EFI/BOOT/{}", shown(name))));
    let names: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    let has = |known: &[&str]| names.iter().any(|name| known.contains(&name.as_str()));
    let is_pi = |name: &String| {
        let like = |start: &str, end: &str| name.starts_with(start) && name.ends_with(end);
        // The firmware itself up to the Raspberry Pi 4, what it starts on all of them.
        like("start", ".elf")
            || name == "bootcode.bin"
            || like("bcm27", ".dtb")
            || like("kernel", ".img")
    };
    if has(&["config.txt"]) && names.iter().any(is_pi) {
        boots_by.push("Raspberry Pi firmware".to_owned());
    }
    if has(&[
        "mlo",
        "u-boot.img",
        "u-boot.bin",
        "u-boot.itb",
        "boot.scr",
        "boot.scr.uimg",
    ]) {
        boots_by.push("u-boot".to_owned());
    }
    let efi_grub = efi_loaders.iter().any(|name| name == "GRUB.CFG");
    if has(&["grub", "grub.cfg"]) || efi_grub {
        boots_by.push("GRUB".to_owned());
    }
    boots_by
}

impl Listing {
    /// As a person reads it.
    pub fn text(&self) -> String {
        let kind = match self.carried {
            Some(_) => "flasher image: an installer that carries the OS image",
            None => "OS image",
        };
        let mut text = format!("{}\n", self.file);
        row(&mut text, "what", kind);
        let packed = format!("{}, {}", self.format, size(self.file_bytes));
        row(&mut text, "packed as", &packed);
        self.image.text(&mut text);
        if let Some(carried) = &self.carried {
            text.push_str(&format!("\n{} of {}\n", carried.path, carried.place));
            row(&mut text, "what", "the OS image");
            let signed = if carried.signed { ", signed" } else { "" };
            let packed = format!("{}, {}{signed}", carried.format, size(carried.bytes));
            row(&mut text, "packed as", &packed);
            carried.image.text(&mut text);
        }
        text
    }
}

impl Described {
    fn text(&self, text: &mut String) {
        if let Some(bytes) = self.bytes {
            row(text, "size", &size(bytes));
        }
        let unknown = || "not said".to_owned();
        row(text, "system", &self.os.clone().unwrap_or_else(unknown));
        if let Some(version) = &self.version {
            row(text, "version", version);
        }
        row(
            text,
            "device type",
            &self.device_type.clone().unwrap_or_else(unknown),
        );
        let boots_by = match self.boots_by.is_empty() {
            true => "nothing known".to_owned(),
            false => self.boots_by.join(", "),
        };
        row(text, "starts by", &boots_by);
        let config_json = if self.config_json { "yes" } else { "no" };
        row(text, "config.json", config_json);
        row(text, "table", &self.table.to_uppercase());
        for part in &self.partitions {
            let label = match part.label.as_str() {
                "" => "(no label)",
                label => label,
            };
            let fs_type = match part.fs_type.as_str() {
                "" => "unknown",
                known => known,
            };
            text.push_str(&format!(
                "  {:>3}  {label:<14} {fs_type:<8} {:>11}  from {}\n",
                part.number,
                size(part.bytes),
                size(part.start)
            ));
        }
    }
}

fn row(text: &mut String, name: &str, value: &str) {
    text.push_str(&format!("  {name:<12} {value}\n"));
}

/// Bytes in the largest unit that leaves no fraction worth a word.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..=0xfffff => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)).replace(".0 ", " "),
    }
}
