//! What the boot partition of an image says about itself: read from its FAT, wherever that is.
//!
//! Called by [`super::scan`] with a copy of it, and by [`crate::extract`] with its place in an image.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{Dir, ReadWriteSeek};

use crate::fingerprint;
use crate::os_release;
use crate::shown::shown;

/// Entries that a folder of FAT can have.
const MOST_NAMES: usize = 65536;

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
    pub fn read(partition: impl ReadWriteSeek) -> io::Result<BootFiles> {
        let fs = fatfs::FileSystem::new(Bounded::new(partition)?, fatfs::FsOptions::new())?;
        let root = fs.root_dir();
        let mut names = Vec::new();
        for entry in root.iter() {
            names.push(entry?.file_name());
            if names.len() > MOST_NAMES {
                return Err(endless());
            }
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
            efi_loaders: efi_loaders(&root)?,
            fingerprint: match text(fingerprint::FILE)? {
                Some(text) => is_true(&root, &text),
                None => false,
            },
            names: names.clone(),
        })
    }
}

/// A FAT that can be read to its end, but not for ever: fatfs follows a chain of clusters that leads back
/// into itself, and a fingerprint may name one large file in all of its lines.
pub struct Bounded<R> {
    fat: R,
    left: u64,
}

impl<R: Read + Seek> Bounded<R> {
    /// Reads `fat` from its start on, and altogether what is enough for each byte in it once, and for
    /// thousands of names to be looked up.
    pub fn new(mut fat: R) -> io::Result<Bounded<R>> {
        /// Looking up all files of a Raspberry Pi takes a third of it.
        const LOOKING_UP: u64 = 32 << 20;
        let bytes = fat.seek(SeekFrom::End(0))?;
        fat.rewind()?;
        Ok(Bounded {
            fat,
            left: bytes.saturating_add(LOOKING_UP),
        })
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.fat.read(buf)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(endless)?;
        Ok(read)
    }
}

impl<R: Write> Write for Bounded<R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.fat.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.fat.flush()
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.fat.seek(to)
    }
}

/// A FAT that goes on where none can.
fn endless() -> io::Error {
    let what = "a chain of its clusters has no end";
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Names in EFI/BOOT.
fn efi_loaders(root: &Dir<impl ReadWriteSeek>) -> io::Result<Vec<String>> {
    let folder = match root.open_dir("EFI/BOOT") {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
        Err(_) => return Ok(Vec::new()),
    };
    let entries: Vec<_> = folder.iter().flatten().take(MOST_NAMES + 1).collect();
    if entries.len() > MOST_NAMES {
        return Err(endless());
    }
    let files = entries.iter().filter(|entry| entry.is_file());
    Ok(files
        .map(|entry| entry.file_name().to_uppercase())
        .collect())
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
    let text = |value: &serde_json::Value| value.as_str().map(shown);
    Some(DeviceType {
        slug: value.get("slug").and_then(text),
        aliases: match value.get("aliases").and_then(|list| list.as_array()) {
            Some(list) => list.iter().filter_map(text).collect(),
            None => Vec::new(),
        },
        arch: value.get("arch").and_then(text),
    })
}
