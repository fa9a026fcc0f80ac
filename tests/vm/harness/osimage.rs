//! The new system: a small disk image that looks like balenaOS, boots, and reports what it found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::guest::Tree;
use super::{Disk, cache, tool};

const RECIPE: &str = include_str!("../recipes/osimage.sh");
const INIT: &str = include_str!("../recipes/newos-init.sh");
const INITRAMFS: &str = include_str!("../recipes/newos-initramfs.sh");

/// Its partition table, and with it what can start it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// A BIOS or UEFI firmware.
    Mbr,
    /// UEFI firmware.
    Gpt,
}

/// What starts its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    Grub,
    /// Nothing, as balenaOS before 2.26.
    None,
    /// The firmware of a Raspberry Pi.
    ConfigTxt,
}

impl Loader {
    /// As osimage.sh calls it.
    fn name(self) -> &'static str {
        match self {
            Loader::Grub => "grub",
            Loader::None => "none",
            Loader::ConfigTxt => "config.txt",
        }
    }
}

/// What kind of image to build.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where its kernel is from.
    pub tree: Tree,
    pub table: Table,
    pub loader: Loader,
    pub slug: &'static str,
    pub version: &'static str,
    pub root_mib: u32,
    pub data_mib: u32,
    /// How much of resin-data is noise, which can't be compressed.
    pub noise_mib: u32,
}

impl Table {
    /// As sfdisk calls it.
    fn label(self) -> &'static str {
        match self {
            Table::Mbr => "dos",
            Table::Gpt => "gpt",
        }
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Wanted {
            tree: Tree::Plain,
            table: Table::Mbr,
            loader: Loader::Grub,
            slug: "genericx86-64-ext",
            version: "6.0.10",
            root_mib: 40,
            data_mib: 72,
            noise_mib: 0,
        }
    }
}

pub struct OsImage {
    slug: &'static str,
    raw: PathBuf,
    gz: PathBuf,
}

impl OsImage {
    /// The ordinary image.
    pub fn get() -> OsImage {
        OsImage::build(&Wanted::default())
    }

    /// As generic-amd64 is: only UEFI firmware starts it.
    pub fn gpt() -> OsImage {
        OsImage::build(&Wanted {
            table: Table::Gpt,
            slug: "generic-amd64",
            ..Wanted::default()
        })
    }

    /// The ordinary image, without anything that would start it.
    pub fn without_loader() -> OsImage {
        OsImage::build(&Wanted {
            loader: Loader::None,
            version: "2.12.7",
            ..Wanted::default()
        })
    }

    /// The ordinary image with a kernel that has drivers for every disk of the bench.
    pub fn with_standard_kernel() -> OsImage {
        OsImage::build(&Wanted {
            tree: Tree::Standard,
            root_mib: 56,
            ..Wanted::default()
        })
    }

    /// A small one for a board: its card is slow.
    pub fn for_pi(tree: Tree, slug: &'static str) -> OsImage {
        OsImage::build(&Wanted {
            tree,
            loader: Loader::ConfigTxt,
            slug,
            root_mib: 6,
            data_mib: 12,
            ..Wanted::default()
        })
    }

    /// An image made to measure; kept in the cache like the ordinary one.
    pub fn build(wanted: &Wanted) -> OsImage {
        let (tree, table) = (wanted.tree, wanted.table);
        let recipe = format!("{} {wanted:?} {RECIPE}{INIT}{INITRAMFS}", tree.key());
        let name = format!("osimage-{tree:?}-{table:?}").to_lowercase();
        let dir = cache::artefact(&name, &recipe, |dir| {
            for (name, text) in [
                ("osimage.sh", RECIPE),
                ("newos-init.sh", INIT),
                ("newos-initramfs.sh", INITRAMFS),
            ] {
                fs::write(dir.join(name), text).expect("writing a recipe into the cache");
            }
            let raw = dir.join("os.raw");
            tool::run(
                Command::new("bash")
                    .arg(dir.join("osimage.sh"))
                    .args([tree.kit(), dir.to_owned(), raw.clone()])
                    .args([
                        table.label(),
                        wanted.loader.name(),
                        wanted.slug,
                        wanted.version,
                    ])
                    .args(
                        [wanted.root_mib, wanted.data_mib, wanted.noise_mib].map(|n| n.to_string()),
                    ),
            );
            // Not flate2: unoptimised, as tests are built, it takes a minute.
            tool::run(Command::new("gzip").args(["-1", "--keep"]).arg(&raw));
            let gz = dir.join("os.raw.gz");
            fs::rename(&gz, dir.join("os.img.gz")).expect("renaming the compressed image");
        });
        OsImage {
            slug: wanted.slug,
            raw: dir.join("os.raw"),
            gz: dir.join("os.img.gz"),
        }
    }

    /// The device type that it is for.
    pub fn slug(&self) -> &'static str {
        self.slug
    }

    /// The image as it should be on the disk.
    pub fn raw(&self) -> &Path {
        &self.raw
    }

    /// The image as a user has it.
    pub fn gz(&self) -> &Path {
        &self.gz
    }

    /// The size of the compressed image in bytes.
    pub fn gz_bytes(&self) -> u64 {
        fs::metadata(self.gz())
            .expect("the compressed image is there")
            .len()
    }

    /// The raw image as a disk.
    pub fn disk(&self) -> Disk<'_> {
        Disk::new(&self.raw)
    }

    /// The SHA-256 of each partition of the raw image, by number.
    pub fn partition_sha256(&self) -> Vec<(u32, String)> {
        let disk = self.disk();
        let numbers = disk.partitions().into_iter().map(|p| p.number);
        numbers.map(|n| (n, disk.partition_sha256(n))).collect()
    }
}
