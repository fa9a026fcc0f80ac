//! What the boot partition of an image says about itself: read from its FAT, wherever that is.
//!
//! Called by [`super::scan`] with a copy of it, and by [`crate::extract`] with its place in an image.

use std::collections::BTreeMap;
use std::io::{self, Read};

use fatfs::{Dir, ReadWriteSeek};

use crate::fingerprint;
use crate::os_release;

/// Files on the image's boot partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootFiles {
    /// Names in its root folder.
    pub names: Vec<String>,
    /// os-release, as names and values.
    pub os_release: BTreeMap<String, String>,
    /// What device-type.json says.
    pub device_type: Option<DeviceType>,
    /// Bytes that are free on it.
    pub free: u64,
    /// Programs in EFI/BOOT, which UEFI firmware starts by their names, in upper case.
    pub efi_loaders: Vec<String>,
    /// It has a fingerprint, which is true of every file that it names.
    pub fingerprint: bool,
}

/// The parts of device-type.json that name the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceType {
    /// The device type.
    pub slug: Option<String>,
    /// Older names of it.
    pub aliases: Vec<String>,
    /// balena's name of the processor architecture, such as `amd64`.
    pub arch: Option<String>,
}

impl BootFiles {
    /// The device type that the image was made for.
    pub fn slug(&self) -> Option<&str> {
        self.os_release
            .get("SLUG")
            .map(String::as_str)
            .filter(|slug| !slug.is_empty())
            .or_else(|| self.device_type.as_ref()?.slug.as_deref())
    }

    /// Reads what a boot partition says.
    pub fn read(mut partition: impl ReadWriteSeek) -> io::Result<BootFiles> {
        partition.rewind()?;
        let fs = fatfs::FileSystem::new(partition, fatfs::FsOptions::new())?;
        let root = fs.root_dir();
        let mut names = Vec::new();
        for entry in root.iter() {
            names.push(entry?.file_name());
        }
        let text = |name: &str| -> io::Result<Option<String>> {
            if !names.iter().any(|known| known == name) {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            root.open_file(name)?
                .take(1 << 20)
                .read_to_end(&mut bytes)?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        };
        let os_release = text("os-release")?.map(|text| os_release::parse(&text));
        let device_type = text("device-type.json")?.and_then(|text| device_type(&text));
        let stats = fs.stats()?;
        Ok(BootFiles {
            free: u64::from(stats.free_clusters()) * u64::from(stats.cluster_size()),
            os_release: os_release.unwrap_or_default(),
            device_type,
            efi_loaders: efi_loaders(&root),
            fingerprint: match text(fingerprint::FILE)? {
                Some(text) => is_true(&root, &text),
                None => false,
            },
            names: names.clone(),
        })
    }
}

/// Names in EFI/BOOT.
fn efi_loaders(root: &Dir<impl ReadWriteSeek>) -> Vec<String> {
    let Ok(folder) = root.open_dir("EFI/BOOT") else {
        return Vec::new();
    };
    let files = folder.iter().flatten().filter(|entry| entry.is_file());
    files
        .map(|entry| entry.file_name().to_uppercase())
        .collect()
}

/// Whether the files below `root` are those that a fingerprint names. The image may have been
/// changed by its user: that is no fault.
fn is_true(root: &Dir<impl ReadWriteSeek>, text: &str) -> bool {
    let listed = fingerprint::parse(text);
    let is_there = |(md5, path): &(String, String)| {
        let mut file = root.open_file(path)?;
        Ok::<_, io::Error>(fingerprint::md5_of(&mut file)? == *md5)
    };
    !listed.is_empty() && listed.iter().all(|line| is_there(line).unwrap_or(false))
}

/// What a device-type.json says, as far as it has the expected form.
fn device_type(text: &str) -> Option<DeviceType> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    Some(DeviceType {
        slug: value.get("slug").and_then(text),
        aliases: match value.get("aliases").and_then(|list| list.as_array()) {
            Some(list) => list.iter().filter_map(text).collect(),
            None => Vec::new(),
        },
        arch: value.get("arch").and_then(text),
    })
}
