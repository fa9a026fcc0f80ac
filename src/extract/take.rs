//! Takes out of an image what was asked for, and writes down what it is.

use std::io::{self, Write};

use anyhow::{Context, Result, anyhow, bail};

use super::look::Boot;
use super::open::Notice;
use super::wanted::{Item, Output, Target, Wanted};
use super::write::{self, Written};
use super::{Found, find, records};
use crate::payload::digest::sha256_hex;
use crate::sys::Sys;

/// What was done.
pub struct Taken {
    /// What was found in the image file.
    pub found: Found,
    /// The OS image, if it was asked for.
    pub image: Option<Written>,
    /// All files.
    pub outputs: Vec<Output>,
    /// Keys that were set in the configuration, each with its value.
    pub keys: Vec<(&'static str, String)>,
}

/// A small file in memory.
struct Small {
    item: Option<Item>,
    target: Target,
    bytes: Vec<u8>,
}

/// Takes out of the image file at `path` what is wanted.
pub fn take(sys: &Sys, path: &str, wanted: &Wanted, notice: &mut dyn Notice) -> Result<Taken> {
    let old_config = records::old_config(sys, wanted)?;
    if let Some(folder) = &wanted.folder {
        make_folder(sys, folder)?;
    }
    for target in wanted
        .img
        .iter()
        .chain(wanted.items.iter().map(|(_, to)| to))
    {
        free_to_write(sys, path, target, wanted.force)?;
    }
    let found = find(sys, path, notice)?;
    let img = image_target(&found, wanted);
    let smalls = smalls(&found, wanted, img.as_ref()).with_context(|| path.to_owned())?;
    for target in img.iter().chain(smalls.iter().map(|small| &small.target)) {
        free_to_write(sys, path, target, wanted.force)?;
    }

    let mut outputs = Vec::new();
    let image = match &img {
        Some(target) => {
            let written = write::image(sys, &found, wanted.packing, target, notice)
                .with_context(|| path.to_owned())?;
            outputs.push(Output {
                setting: Some("IMAGE_NAME"),
                target: target.clone(),
                sha256: written.file_sha256.clone(),
            });
            Some(written)
        }
        None => None,
    };
    for small in smalls {
        write_small(sys, &small)?;
        outputs.push(Output {
            setting: small.item.map(Item::setting),
            sha256: sha256_hex(&small.bytes),
            target: small.target,
        });
    }
    records::checksums(sys, &outputs, image.as_ref())?;
    let keys = records::config(sys, wanted, old_config, &found, &outputs)?;
    Ok(Taken {
        found,
        image,
        outputs,
        keys,
    })
}

/// Where the OS image goes: as it was said, or under a name of its own.
fn image_target(found: &Found, wanted: &Wanted) -> Option<Target> {
    let (None, Some(folder)) = (&wanted.img, &wanted.folder) else {
        return wanted.img.clone();
    };
    let stem = match &found.carried {
        Some(inner) => {
            let name = inner.carried.path.rsplit('/').next().unwrap_or_default();
            let end = name.find(".balenaos").or_else(|| name.find(".resinos"));
            let stem = &name[..end.or_else(|| name.find(".img")).unwrap_or(name.len())];
            stem.to_owned()
        }
        None => {
            let boot = found.boot.as_ref();
            let slug = boot.and_then(|boot| boot.files.slug());
            format!("balena-image-{}", slug.unwrap_or("os"))
        }
    };
    // A slug is text from the image: it does not lead elsewhere.
    let stem = stem.replace('/', "_");
    let suffix = wanted.packing.suffix();
    Some(Target::File(format!("{folder}/{stem}.img{suffix}")))
}

/// The small files, read before anything is written.
fn smalls(found: &Found, wanted: &Wanted, img: Option<&Target>) -> Result<Vec<Small>> {
    let mut smalls = Vec::new();
    let boot = found
        .boot
        .as_ref()
        .ok_or_else(|| anyhow!("it has no boot partition"));
    for (item, target) in &wanted.items {
        let boot = boot.as_ref().map_err(|error| anyhow!("{error}"))?;
        let Some(bytes) = boot.file(item.paths())? else {
            bail!(
                "its boot partition has no {}, so {} is not there to be taken; it has {}",
                item.paths().join(" and no "),
                item.setting(),
                boot.files.names.join(", ")
            );
        };
        smalls.push(Small {
            item: Some(*item),
            target: target.clone(),
            bytes,
        });
    }
    if let (Some(folder), Ok(boot)) = (&wanted.folder, boot) {
        smalls.extend(all_there_is(boot, wanted, folder)?);
    }
    let signature = found
        .carried
        .as_ref()
        .and_then(|inner| inner.carried.signature.clone());
    if let (Some(bytes), Some(Target::File(path))) = (signature, img) {
        let path = path.strip_suffix(wanted.packing.suffix()).unwrap_or(path);
        smalls.push(Small {
            item: None,
            target: Target::File(format!("{path}.sig")),
            bytes,
        });
    }
    Ok(smalls)
}

/// What nobody named: boot.img and core.img are of use only together.
fn all_there_is(boot: &Boot, wanted: &Wanted, folder: &str) -> Result<Vec<Small>> {
    let mut smalls = Vec::new();
    for item in Item::ALL {
        let is_named = wanted.items.iter().any(|(named, _)| *named == item);
        let bytes = boot.file(item.paths())?;
        let (Some(bytes), false) = (bytes, is_named) else {
            continue;
        };
        smalls.push(Small {
            item: Some(item),
            target: Target::File(format!("{folder}/{}", item.name())),
            bytes,
        });
    }
    let has = |item| {
        let is_taken = |small: &Small| small.item == Some(item);
        smalls.iter().any(is_taken) || wanted.items.iter().any(|(named, _)| *named == item)
    };
    if has(Item::BootImg) != has(Item::CoreImg) {
        smalls.retain(|small| !matches!(small.item, Some(Item::BootImg | Item::CoreImg)));
    }
    Ok(smalls)
}

fn write_small(sys: &Sys, small: &Small) -> Result<()> {
    let path = match &small.target {
        Target::Stdout => {
            return io::stdout()
                .write_all(&small.bytes)
                .context("writing to standard output");
        }
        Target::File(path) => path,
    };
    // config.json has keys in it.
    let mode = match small.item {
        Some(Item::BalenaCfg) => 0o600,
        _ => 0o644,
    };
    sys.write_whole(path, &small.bytes, mode, None)
        .with_context(|| format!("writing {path}"))
}

fn make_folder(sys: &Sys, folder: &str) -> Result<()> {
    match sys.meta(folder) {
        Ok(meta) if meta.is_dir => Ok(()),
        Ok(_) => bail!("{folder} is a file and no folder"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => sys
            .make_dir(folder, 0o755)
            .with_context(|| format!("making the folder {folder}")),
        Err(error) => Err(error).with_context(|| folder.to_owned()),
    }
}

/// A file may be written at its place.
fn free_to_write(sys: &Sys, image: &str, target: &Target, force: bool) -> Result<()> {
    let Target::File(path) = target else {
        return Ok(());
    };
    let folder = match path.rsplit_once('/') {
        Some((folder, name)) if !name.is_empty() => format!("{folder}/"),
        _ => bail!("{path} is no name for a file"),
    };
    if !sys.meta(&folder).is_ok_and(|meta| meta.is_dir) {
        bail!("there is no folder {folder}; make it, or name another one");
    }
    let is_input = sys
        .canonical(path)
        .is_ok_and(|to| sys.canonical(image).is_ok_and(|from| from == to));
    if is_input {
        bail!("{path} is the image that is read; give what is written another name");
    }
    match sys.meta(path) {
        Ok(meta) if !meta.is_file => {
            bail!(
                "{path} is no regular file, so nothing is written there; use - for standard output"
            )
        }
        Ok(_) if !force => bail!("{path} is there already; remove it, or say --force"),
        _ => Ok(()),
    }
}
