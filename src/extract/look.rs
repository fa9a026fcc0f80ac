//! What an image is: partitions, labels, boot partition, how it starts. Only what is asked for is read,
//! since what lies further on has to be unpacked.

use std::io::{self, Read};

use anyhow::{Context, Result, anyhow, bail};
use fatfs::{FileSystem, FsOptions};

use super::disk::Window;
use crate::handover::{BOOT_CODE_BYTES, TableIdentity};
use crate::payload::scan::{BootFiles, Bounded};
use crate::payload::table::{Found, HEAD_BYTES, SECTOR, Slot, TableParser};
use crate::superblock::{self, Superblock};

/// Logical partitions that are followed; a table with more is a loop.
const MOST: usize = 128;

/// What a file of the boot partition may have: they are texts, and images of boot loaders.
const LARGEST_FILE: u64 = 16 << 20;

/// An image with its partition table.
pub struct Image {
    /// All of it.
    pub whole: Window,
    /// The identity of its partition table.
    pub table: TableIdentity,
    /// Its partitions, in the order of the table.
    pub parts: Vec<Part>,
    /// The first sector has code for a BIOS.
    pub boot_code: bool,
}

/// A partition.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where.
    pub slot: Slot,
    /// Its name in a GPT.
    pub name: Option<String>,
}

/// A partition and what is in it.
pub struct Seen<'a> {
    /// The partition.
    pub part: &'a Part,
    /// The file system, if one was recognised.
    pub fs: Option<Superblock>,
}

impl Seen<'_> {
    /// Its label, or its name in a GPT; empty when it has neither.
    pub fn label(&self) -> &str {
        let label = self.fs.as_ref().map_or("", |fs| fs.label.as_str());
        match label {
            "" => self.part.name.as_deref().unwrap_or(""),
            label => label,
        }
    }

    /// The kernel's name of its file system.
    pub fn fs_type(&self) -> &str {
        self.fs.as_ref().map_or("", |fs| fs.fs_type)
    }

    /// As a message names it.
    pub fn describe(&self) -> String {
        let fs_type = match self.fs_type() {
            "" => "no known file system",
            known => known,
        };
        match self.label() {
            "" => format!("{} ({fs_type})", self.part.slot.number),
            label => format!("{} {label} ({fs_type})", self.part.slot.number),
        }
    }
}

impl Image {
    /// Reads the partition table.
    pub fn read(whole: Window) -> Result<Image> {
        let mut head = whole.bytes_at(0, HEAD_BYTES)?;
        if head.len() < 2 * SECTOR as usize {
            bail!("it has only {} bytes, which is no disk image", head.len());
        }
        head.resize(HEAD_BYTES, 0);
        let mut parser = TableParser::default();
        let (table, mut found) = parser.head(&head)?;
        let mut parts = Vec::new();
        loop {
            let next = found.next;
            add(&mut parts, found);
            let Some(at) = next.filter(|_| parts.len() < MOST) else {
                break;
            };
            let sector = whole.bytes_at(at, SECTOR as usize)?;
            if sector.len() < SECTOR as usize {
                bail!("it ends before its extended partition at byte {at} (truncated file)");
            }
            found = parser.extended(at, &sector)?;
        }
        if let Some(end) = whole.size() {
            fits(&parts, end)?;
        }
        Ok(Image {
            boot_code: head.iter().take(BOOT_CODE_BYTES).any(|byte| *byte != 0),
            whole,
            table,
            parts,
        })
    }

    /// The bytes of a partition.
    pub fn window(&self, part: &Part) -> Window {
        self.whole.part(part.slot.start, part.slot.bytes)
    }

    /// What is in a partition.
    pub fn see<'a>(&self, part: &'a Part) -> Result<Seen<'a>> {
        let head = self.window(part).bytes_at(0, superblock::HEAD_BYTES)?;
        let number = part.slot.number;
        if head.is_empty() {
            bail!(
                "it ends before its partition {number}, which begins at byte {} (truncated file)",
                part.slot.start
            );
        }
        let fs = superblock::identify(&head);
        Ok(Seen { part, fs })
    }

    /// The boot partition: FAT with one of its labels, or else the first partition if that is FAT.
    pub fn boot(&self) -> Result<Option<Boot>> {
        let Some(part) = self.parts.first() else {
            return Ok(None);
        };
        if self.see(part)?.fs_type() == "vfat" {
            return Boot::read(part.slot.number, self.window(part)).map(Some);
        }
        for part in &self.parts[1..] {
            let seen = self.see(part)?;
            if seen.fs_type() == "vfat" && seen.label().ends_with("-boot") {
                return Boot::read(part.slot.number, self.window(part)).map(Some);
            }
        }
        Ok(None)
    }

    /// All partitions, as a message names them.
    pub fn describe_parts(&self) -> Result<String> {
        let all: Result<Vec<String>> = self
            .parts
            .iter()
            .map(|part| self.see(part).map(|seen| seen.describe()))
            .collect();
        Ok(all?.join(", "))
    }
}

fn add(parts: &mut Vec<Part>, found: Found) {
    let mut names = found.names.into_iter();
    parts.extend(found.slots.into_iter().map(|slot| Part {
        slot,
        name: names.next(),
    }));
}

/// Nothing reaches behind the end of the image.
pub fn fits(parts: &[Part], end: u64) -> Result<()> {
    for Part { slot, .. } in parts {
        let part_end = slot.start.saturating_add(slot.bytes);
        if part_end > end {
            bail!(
                "it has {end} bytes, but its partition {} reaches up to byte {part_end} (truncated \
                 file)",
                slot.number
            );
        }
    }
    Ok(())
}

/// The boot partition of an image.
pub struct Boot {
    /// Number of the partition.
    pub number: u32,
    /// What it says.
    pub files: BootFiles,
    fs: FileSystem<Bounded<Window>>,
}

impl Boot {
    fn read(number: u32, window: Window) -> Result<Boot> {
        let read = || {
            let files = BootFiles::read(window.clone())?;
            let fat = Bounded::new(window.clone())?;
            io::Result::Ok((files, FileSystem::new(fat, FsOptions::new())?))
        };
        match read() {
            Ok((files, fs)) => Ok(Boot { number, files, fs }),
            Err(error) => Err(match window.failure() {
                Some(reason) => anyhow!(reason),
                None => anyhow!(
                    "the FAT of its boot partition {number} is damaged: {error}; download the image \
                     again"
                ),
            }),
        }
    }

    /// The first file that is there, of several paths; names are those of FAT, in any case.
    pub fn file(&self, paths: &[&str]) -> Result<Option<Vec<u8>>> {
        let root = self.fs.root_dir();
        for path in paths {
            let file = match root.open_file(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // fatfs's answer to a folder where a file is wanted, and the other way round.
                Err(error) if error.to_string().contains("directory") => continue,
                Err(error) => return Err(error).with_context(|| format!("reading {path}")),
            };
            let mut bytes = Vec::new();
            file.take(LARGEST_FILE + 1)
                .read_to_end(&mut bytes)
                .with_context(|| format!("reading {path} of the boot partition"))?;
            if bytes.len() as u64 > LARGEST_FILE {
                bail!(
                    "{path} of the boot partition is larger than {} MiB",
                    LARGEST_FILE >> 20
                );
            }
            return Ok(Some(bytes));
        }
        Ok(None)
    }
}
