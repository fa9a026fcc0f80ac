//! The OS image that a flasher image carries: a file in /opt of its root file system.
//!
//! Its name changed over the years: `resin-image-MACHINE.resinos-img`, compressed at first, then
//! `balena-image-MACHINE.balenaos-img`, signed beside it as `.sig` where the machine wants that.

use std::fmt::Display;

use anyhow::{Result, anyhow, bail};
use ext4_view::{Ext4, Ext4Error, FileType, Metadata};

use super::disk::{Source, Window};
use super::look::{Boot, Image, Part};

/// Where the installer looks for it.
const FOLDER: &str = "/opt";

/// What the flag on the boot partition of an installer ends in; before it stands balena or resin.
const FLAG: &str = "-image-flasher";

/// What a signature may have; one of RSA 4096 has 512 bytes.
const LARGEST_SIGNATURE: u64 = 64 << 10;

/// Partitions that an installer may have; an OS image has five.
const LARGEST_FLASHER: usize = 4;

/// Bytes that a folder of names may have, an eighth of a million of them.
const LARGEST_FOLDER: u64 = 1 << 20;

/// The OS image in a flasher image.
pub struct Carried {
    /// Its path in the file system.
    pub path: String,
    /// The label of that, or the number of the partition.
    pub place: String,
    /// As it lies there, perhaps compressed.
    pub packed: Window,
    /// Its size there in bytes.
    pub bytes: u64,
    /// The signature beside it.
    pub signature: Option<Vec<u8>>,
}

/// Finds the OS image in a flasher image; `None` when this is none.
pub fn find(image: &Image, boot: Option<&Boot>) -> Result<Option<Carried>> {
    let has_flag =
        boot.is_some_and(|boot| boot.files.names.iter().any(|name| name.ends_with(FLAG)));
    let (mut is_flasher, mut is_resin) = (has_flag, false);
    let mut looked = Vec::new();
    for (index, part) in image.parts.iter().enumerate() {
        let seen = image.see(part)?;
        is_flasher |= seen.label().starts_with("flash-");
        is_resin |= seen.label() == "resin-boot";
        // Some flashers of old have the labels of what they carry, but never its five partitions.
        let is_root = seen.label().ends_with("-rootA")
            || (index == 1 && image.parts.len() <= LARGEST_FLASHER);
        if !seen.fs_type().starts_with("ext") || !(is_flasher || is_root) {
            continue;
        }
        if let Some(found) = in_partition(image, part, seen.label(), &mut looked)? {
            return Ok(Some(found));
        }
        if !is_flasher {
            break;
        }
    }
    if !is_flasher {
        if !is_resin || image.parts.len() > LARGEST_FLASHER {
            return Ok(None);
        }
        bail!(
            "it is neither a flasher image with an OS image in {FOLDER} nor a whole OS image, the \
             partitions are {}; download it again",
            image.describe_parts()?
        );
    }
    bail!(
        "it is a flasher image, but there is no OS image in {FOLDER}: {}",
        match looked.is_empty() {
            true => format!(
                "no partition has an ext4 file system, they are {}",
                image.describe_parts()?
            ),
            false => looked.join("; "),
        }
    )
}

/// Looks into one file system; notes in `looked` what else was there.
fn in_partition(
    image: &Image,
    part: &Part,
    label: &str,
    looked: &mut Vec<String>,
) -> Result<Option<Carried>> {
    let number = part.slot.number;
    let place = match label {
        "" => format!("partition {number}"),
        label => label.to_owned(),
    };
    let window = image.window(part);
    let damaged = |error: &dyn Display| match window.failure() {
        Some(reason) => anyhow!(reason),
        None => anyhow!(
            "the ext4 file system of its partition {number} ({place}) is damaged or of a kind that \
             can't be read: {error}; download the image again"
        ),
    };
    let ext4 = |error: Ext4Error| damaged(&error);
    fits_in(&window).map_err(|what| damaged(&what))?;
    let fs = Ext4::load(Box::new(window.clone())).map_err(ext4)?;
    for folder in ["/", FOLDER] {
        let bytes = fs.metadata(folder).map_or(0, |meta| match meta.is_dir() {
            true => meta.len(),
            false => 0,
        });
        if bytes > LARGEST_FOLDER {
            return Err(damaged(&format!("its folder {folder} has {bytes} bytes")));
        }
    }
    let names = match list(&fs) {
        Ok(names) => names,
        Err(Ext4Error::NotFound) => {
            looked.push(format!("{place} has no {FOLDER}"));
            return Ok(None);
        }
        Err(Ext4Error::NotADirectory) => bail!("{FOLDER} of {place} is a file and no folder"),
        Err(error) => return Err(ext4(error)),
    };
    let Some(name) = choose(&names, &place, looked)? else {
        return Ok(None);
    };
    let path = format!("{FOLDER}/{name}");
    let meta = fs.metadata(path.as_str()).map_err(ext4)?;
    is_whole(&meta, &path, &place)?;
    let signature = signature(&fs, &format!("{path}.sig"), &place, ext4)?;
    let file = fs.open(path.as_str()).map_err(ext4)?;
    Ok(Some(Carried {
        path,
        place,
        packed: Window::all(Source::Inner(Box::new(file), meta.len()), Some(meta.len())),
        bytes: meta.len(),
        signature,
    }))
}

/// Whether the superblock names no more than its partition has. ext4-view takes memory for all groups
/// before it looks for the first.
fn fits_in(window: &Window) -> Result<(), String> {
    /// As many as 128 TiB have with blocks of 4096 bytes.
    const MOST_GROUPS: u64 = 1 << 20;
    let superblock = window
        .bytes_at(1024, 1024)
        .map_err(|error| error.to_string())?;
    let le32 = |at: usize| {
        let bytes = superblock.get(at..at + 4);
        bytes.map_or(0, |bytes| {
            u64::from(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
        })
    };
    let blocks = le32(0x150) << 32 | le32(0x4);
    let (block_size, group) = (le32(0x18), le32(0x20).max(1));
    if block_size > 6 {
        return Err("its blocks are larger than 64 KiB".into());
    }
    let block_bytes = 1024 << block_size;
    let room = window.size().unwrap_or(u64::MAX);
    if blocks > room / block_bytes || blocks / group > MOST_GROUPS {
        return Err(format!(
            "it has {blocks} blocks of {block_bytes} bytes by {group} in a partition of {room} bytes"
        ));
    }
    Ok(())
}

/// The one file that is an OS image by its name; notes in `looked` what else is there.
fn choose<'a>(
    names: &'a [String],
    place: &str,
    looked: &mut Vec<String>,
) -> Result<Option<&'a String>> {
    let mut candidates = names.iter().filter(|name| is_image_name(name));
    let Some(first) = candidates.next() else {
        looked.push(match names.is_empty() {
            true => format!("{FOLDER} of {place} is empty"),
            false => format!("{FOLDER} of {place} has only {}", names.join(", ")),
        });
        return Ok(None);
    };
    let others: String = candidates.map(|name| format!(", {name}")).collect();
    if !others.is_empty() {
        bail!(
            "{FOLDER} of {place} has more than one file that may be the OS image: {first}{others}"
        );
    }
    Ok(Some(first))
}

/// It is a file with something in it.
fn is_whole(meta: &Metadata, path: &str, place: &str) -> Result<()> {
    let what = match meta.file_type() {
        FileType::Regular if meta.len() > 0 => return Ok(()),
        FileType::Regular => "empty",
        FileType::Directory => "a folder",
        _ => "no file",
    };
    bail!("{path} of {place}, where the OS image should be, is {what}; download the image again")
}

/// Names in the folder, sorted.
fn list(fs: &Ext4) -> Result<Vec<String>, Ext4Error> {
    let mut names = Vec::new();
    for entry in fs.read_dir(FOLDER)? {
        let name = entry?.file_name().display().to_string();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a file of this name may be the OS image.
fn is_image_name(name: &str) -> bool {
    /// What compressed ones end in.
    const PACKED: [&str; 5] = [".gz", ".xz", ".bz2", ".zst", ".zip"];
    let stem = PACKED
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    let is_image = [
        ".balenaos-img",
        ".resinos-img",
        ".resinos.img",
        ".balenaos.img",
    ]
    .iter()
    .any(|end| stem.ends_with(end))
        || matches!(stem, "balenaos.img" | "resinos.img")
        || ((stem.starts_with("balena-image") || stem.starts_with("resin-image"))
            && stem.ends_with(".img"));
    is_image && !stem.contains("flasher")
}

/// The signature beside the OS image, when there is one.
fn signature(
    fs: &Ext4,
    path: &str,
    place: &str,
    damaged: impl Fn(Ext4Error) -> anyhow::Error,
) -> Result<Option<Vec<u8>>> {
    let meta = match fs.metadata(path) {
        Ok(meta) => meta,
        Err(Ext4Error::NotFound) => return Ok(None),
        Err(error) => return Err(damaged(error)),
    };
    if meta.file_type() != FileType::Regular || !(1..=LARGEST_SIGNATURE).contains(&meta.len()) {
        bail!(
            "{path} of {place} has {} bytes, which is no signature; download the image again",
            meta.len()
        );
    }
    fs.read(path).map(Some).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::is_image_name;

    #[test]
    fn the_names_of_all_years_are_known() {
        for name in [
            "balena-image-genericx86-64-ext.balenaos-img",
            "balena-image-generic-amd64.balenaos-img",
            "resin-image-genericx86-64.resinos-img",
            "resin-image-genericx86-64.resinos.img.gz",
            "resin-image-genericx86-64.img.gz",
            "resinos.img.gz",
            "balenaos.img",
        ] {
            assert!(is_image_name(name), "{name}");
        }
        for name in [
            "balena-image-genericx86-64-ext.balenaos-img.sig",
            "balena-image-flasher-genericx86-64.balenaos-img",
            "containerd",
            "app.img",
        ] {
            assert!(!is_image_name(name), "{name}");
        }
    }
}
