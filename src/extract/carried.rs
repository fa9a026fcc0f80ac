//! The OS image that a flasher image carries: a file in /opt of its root file system.
//!
//! Its name changed over the years: `resin-image-MACHINE.resinos-img`, compressed at first, then
//! `balena-image-MACHINE.balenaos-img`, signed beside it as `.sig` where the machine wants that.

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
    let mut is_flasher = has_flag;
    let mut looked = Vec::new();
    for (index, part) in image.parts.iter().enumerate() {
        let seen = image.see(part)?;
        is_flasher |= seen.label().starts_with("flash-");
        // Some flashers of old have the labels of what they carry, but never its five partitions.
        let is_root = seen.label().ends_with("-rootA") || (index == 1 && image.parts.len() <= 4);
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
        return Ok(None);
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
    let damaged = |error: Ext4Error| match window.failure() {
        Some(reason) => anyhow!(reason),
        None => anyhow!(
            "the ext4 file system of its partition {number} ({place}) is damaged or of a kind that \
             can't be read: {error}; download the image again"
        ),
    };
    let fs = Ext4::load(Box::new(window.clone())).map_err(damaged)?;
    let names = match list(&fs) {
        Ok(names) => names,
        Err(Ext4Error::NotFound) => {
            looked.push(format!("{place} has no {FOLDER}"));
            return Ok(None);
        }
        Err(Ext4Error::NotADirectory) => bail!("{FOLDER} of {place} is a file and no folder"),
        Err(error) => return Err(damaged(error)),
    };
    let Some(name) = choose(&names, &place, looked)? else {
        return Ok(None);
    };
    let path = format!("{FOLDER}/{name}");
    let meta = fs.metadata(path.as_str()).map_err(damaged)?;
    is_whole(&meta, &path, &place)?;
    let signature = signature(&fs, &format!("{path}.sig"), &place, damaged)?;
    let file = fs.open(path.as_str()).map_err(damaged)?;
    Ok(Some(Carried {
        path,
        place,
        packed: Window::all(Source::Inner(Box::new(file), meta.len()), Some(meta.len())),
        bytes: meta.len(),
        signature,
    }))
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
