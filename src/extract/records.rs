//! Writes down what was taken: checksums.sha256 beside the image, and the keys of a configuration.
//! Called by [`super::take`].

use std::io;

use anyhow::{Context, Result, bail};

use super::Found;
use super::wanted::{Output, Target, Wanted};
use super::write::Written;
use crate::checksums;
use crate::config::{edit, sample};
use crate::handover::TableIdentity;
use crate::sys::Sys;

/// The configuration as it was found.
pub struct OldConfig {
    path: String,
    text: Option<String>,
}

/// Reads the configuration before anything is done: one that can't be changed stops all of it.
pub fn old_config(sys: &Sys, wanted: &Wanted) -> Result<Option<OldConfig>> {
    let Some(path) = &wanted.config else {
        return Ok(None);
    };
    // A link stays one.
    let path = sys.canonical(path).unwrap_or_else(|_| path.clone());
    let text = match sys.read_text(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("reading {path}")),
    };
    if let Err(error) = edit::set(text.as_deref().unwrap_or(""), "IMAGE_NAME", "x") {
        bail!("{path}:{error}");
    }
    let folder = folder_of(&path);
    if !sys.meta(folder).is_ok_and(|meta| meta.is_dir) {
        bail!("there is no folder {folder} for the configuration; make it, or name another one");
    }
    Ok(Some(OldConfig { path, text }))
}

fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((folder, _)) => folder,
    }
}

/// Puts what will not be edited into the list of checksums that is beside the image.
pub fn checksums(sys: &Sys, outputs: &[Output], image: Option<&Written>) -> Result<()> {
    let place = outputs.first().map(|output| &output.target);
    let (Some(written), Some(Target::File(path))) = (image, place) else {
        return Ok(());
    };
    let folder = folder_of(path);
    let files: Vec<(String, String)> = outputs
        .iter()
        .filter(|output| output.setting != Some("BALENA_CONFIG"))
        .filter_map(|output| match &output.target {
            Target::File(path) if folder_of(path) == folder => {
                let name = path.rsplit('/').next()?.to_owned();
                Some((name, output.sha256.clone()))
            }
            _ => None,
        })
        .collect();
    let name = &files[0].0;
    let remark = format!(
        "{name}, unpacked: {} bytes, SHA-256 {}",
        written.image_bytes, written.image_sha256
    );
    checksums::note(sys, folder, &files, &remark)
        .with_context(|| format!("writing {} in {folder}", checksums::SHA256_LIST))
}

/// Sets the keys of what was taken, and says which; a configuration that was not there starts as the
/// sample, for a rehearsal.
pub fn config(
    sys: &Sys,
    wanted: &Wanted,
    old: Option<OldConfig>,
    found: &Found,
    outputs: &[Output],
) -> Result<Vec<(&'static str, String)>> {
    let Some(old) = old else {
        return Ok(Vec::new());
    };
    let mut keys = Vec::new();
    let folder = match &wanted.home {
        Some((text, path)) => {
            keys.push(("HOME_DIR", text.clone()));
            // HOME_DIR may be where the folder will be on the device.
            wanted.folder.as_ref().unwrap_or(path)
        }
        None => folder_of(&old.path),
    };
    for output in outputs {
        if let (Some(setting), Target::File(path)) = (output.setting, &output.target) {
            keys.push((setting, name_in(sys, folder, path)));
        }
    }
    let has = |name: &str| keys.iter().any(|(known, _)| *known == name);
    if has("GRUB_BOOT_IMG") && has("GRUB_CORE_IMG") && wants_grub(found) {
        keys.push(("GRUB_INSTALL", "TRUE".to_owned()));
    }
    if old.text.is_none() {
        if !keys.iter().any(|(known, _)| *known == "BALENA_CONFIG") {
            keys.push(("BALENA_CONFIG", "config.json".to_owned()));
        }
        keys.extend(["NO_FLASH", "DEBUG"].map(|name| (name, "TRUE".to_owned())));
    }
    let meta = sys.meta(&old.path).ok();
    let mut text = old.text.unwrap_or_else(sample::sample_conf);
    for (name, value) in &keys {
        text = edit::set(&text, name, value).with_context(|| old.path.clone())?;
    }
    let (mode, owner) = match meta {
        Some(meta) => (meta.mode, Some((meta.uid, meta.gid))),
        None => (0o644, None),
    };
    sys.write_whole(&old.path, text.as_bytes(), mode, owner)
        .with_context(|| format!("writing {}", old.path))?;
    Ok(keys)
}

/// Whether the OS image, from before balenaOS 2.26, has nothing that would start it.
fn wants_grub(found: &Found) -> bool {
    let (image, boot) = found.os();
    let has_efi = boot.is_some_and(|boot| !boot.files.efi_loaders.is_empty());
    matches!(image.table, TableIdentity::Mbr(_)) && !image.boot_code && !has_efi
}

/// A path as the configuration names it: relative to HOME_DIR as far as it is in there.
fn name_in(sys: &Sys, folder: &str, path: &str) -> String {
    let real = |path: &str| sys.canonical(path).unwrap_or_else(|_| path.to_owned());
    let (folder, path) = (real(folder), real(path));
    match path.strip_prefix(&folder) {
        Some(rest) if rest.starts_with('/') => rest.trim_start_matches('/').to_owned(),
        _ => path,
    }
}
