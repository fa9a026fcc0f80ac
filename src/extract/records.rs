//! Writes down what was taken: checksums.sha256 beside the image, and the keys of a configuration.
//! Called by [`super::take`].

use std::collections::BTreeSet;
use std::io::{self, Write};

use anyhow::{Context, Result, bail};

use super::Found;
use super::targets::check_folder_for;
use super::wanted::{Output, Target, Wanted};
use super::write::Written;
use crate::checksums;
use crate::config::kind::Kind;
use crate::config::{edit, path, sample, shell};
use crate::handover::TableIdentity;
use crate::payload::digest::sha256_hex;
use crate::sys::Sys;
use crate::sys::put::Put;

/// The configuration as it was found.
pub struct OldConfig {
    /// Its path without links: a link stays one.
    pub path: String,
    /// The folder here that relative names in it start at.
    pub home: String,
    text: String,
}

impl OldConfig {
    /// What it sets, unless that is blank.
    pub fn value(&self, name: &str) -> Option<String> {
        value(&self.text, name)
    }
}

/// Reads the configuration before anything is done: one that can't be changed stops all of it.
pub fn old_config(sys: &Sys, wanted: &Wanted) -> Result<Option<OldConfig>> {
    let Some(path) = &wanted.config else {
        return Ok(None);
    };
    let path = sys.canonical(path).unwrap_or_else(|_| path.clone());
    let text = read(sys, &path)?.unwrap_or_default();
    let folder = folder_of(&path);
    check_folder_for(sys, folder).context("the configuration")?;
    let home = match (&wanted.home, value(&text, "HOME_DIR")) {
        (None, Some(home)) => path::absolute(folder, &home),
        _ => folder.to_owned(),
    };
    // HOME_DIR may be where the folder of the configuration will be on the device.
    let home = match sys.meta(&home) {
        Ok(meta) if meta.is_dir => home,
        _ => folder.to_owned(),
    };
    Ok(Some(OldConfig { path, home, text }))
}

/// The text of the configuration, as far as it can be changed; none when it is not there.
fn read(sys: &Sys, path: &str) -> Result<Option<String>> {
    let text = match sys.read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {path}")),
    };
    match edit::set(&text, "IMAGE_NAME", "x") {
        Ok(_) => Ok(Some(text)),
        Err(error) => bail!("{path}:{error}"),
    }
}

fn value(text: &str, name: &str) -> Option<String> {
    let assignments = shell::parse(text).ok()?;
    let last = assignments.into_iter().rfind(|known| known.name == name)?;
    Some(last.value).filter(|value| !value.trim().is_empty())
}

/// The folder of a path.
pub fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((folder, _)) => folder,
    }
}

/// What was set in the configuration.
#[derive(Default)]
pub struct Set {
    /// Keys, each with its value.
    pub keys: Vec<(&'static str, String)>,
    /// What the user should know of them.
    pub remarks: Vec<String>,
    /// SHA-256 of the file.
    sha256: Option<String>,
}

impl Set {
    fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|(known, _)| *known == name)
    }
}

/// Sets the keys of what was taken, and says which; a configuration that was not there starts as the
/// sample, for a rehearsal. `json` is the config.json of the user, where that was kept.
pub fn config(
    sys: &Sys,
    wanted: &Wanted,
    old: Option<&OldConfig>,
    found: &Found,
    outputs: &[Output],
    json: Option<&str>,
) -> Result<Set> {
    let Some(old) = old else {
        return Ok(Set::default());
    };
    // Reading the image took a while, in which somebody may have edited it.
    let text = read(sys, &old.path)?;
    let is_new = text.is_none();
    let text = text.unwrap_or_else(sample::sample_conf);
    let mut set = Set::default();
    if let Some(home) = &wanted.home {
        set.keys.push(("HOME_DIR", home.clone()));
    }
    for output in outputs {
        if let (Some(setting), Target::File(path)) = (output.setting, &output.target) {
            set.keys.push((setting, name_in(sys, &old.home, path)));
        }
    }
    if let (Some(json), None) = (json, value(&text, "BALENA_CONFIG")) {
        let name = name_in(sys, &old.home, json);
        set.keys.push(("BALENA_CONFIG", name));
    }
    grub_install(&mut set, &text, found);
    if is_new {
        if !set.has("BALENA_CONFIG") {
            set.keys.push(("BALENA_CONFIG", "config.json".to_owned()));
        }
        let rehearsal = ["NO_FLASH", "DEBUG"].map(|name| (name, "TRUE".to_owned()));
        set.keys.extend(rehearsal);
    }
    let mut text = text;
    for (name, value) in &set.keys {
        text = edit::set(&text, name, value).with_context(|| old.path.clone())?;
    }
    set.remarks.extend(place_of_home(sys, old, &text));
    let meta = sys.meta(&old.path).ok();
    let how = Put {
        mode: meta.map_or(0o644, |meta| meta.mode),
        owner: meta.map(|meta| (meta.uid, meta.gid)),
        replace: !is_new,
    };
    sys.put(&old.path, how, |file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", old.path))?;
    set.sha256 = Some(sha256_hex(text.as_bytes()));
    Ok(set)
}

/// An old image gets the GRUB that came with it; one that brings its boot loader is refused with any.
fn grub_install(set: &mut Set, text: &str, found: &Found) {
    let is_on = |value: String| bool::read(&value, "").unwrap_or(true);
    if wants_grub(found) {
        if set.has("GRUB_BOOT_IMG") && set.has("GRUB_CORE_IMG") {
            set.keys.push(("GRUB_INSTALL", "TRUE".to_owned()));
        }
    } else if set.has("IMAGE_NAME") && value(text, "GRUB_INSTALL").is_some_and(is_on) {
        set.keys.push(("GRUB_INSTALL", "FALSE".to_owned()));
        let remark = "GRUB_INSTALL was for an older image; this one brings its boot loader";
        set.remarks.push(remark.to_owned());
    }
}

/// Where the files have to go, when HOME_DIR is not where they are.
fn place_of_home(sys: &Sys, old: &OldConfig, text: &str) -> Option<String> {
    let home = value(text, "HOME_DIR")?;
    let folder = folder_of(&old.path);
    let real = |path: &str| sys.canonical(path).unwrap_or_else(|_| path.to_owned());
    let is_there = real(&path::absolute(folder, &home)) == real(&old.home);
    (!is_there).then(|| {
        let here = &old.home;
        format!("HOME_DIR={home}: copy what is in {here} to there, on the device")
    })
}

/// Whether the OS image, from before balenaOS 2.26, has nothing that would start it.
fn wants_grub(found: &Found) -> bool {
    let (image, boot) = found.os();
    let has_efi = boot.is_some_and(|boot| !boot.files.efi_loaders.is_empty());
    matches!(image.table, TableIdentity::Mbr(_)) && !image.boot_code && !has_efi
}

/// A path as the configuration names it: relative to the folder that it starts at, as far as it is in
/// there.
fn name_in(sys: &Sys, folder: &str, path: &str) -> String {
    let real = |path: &str| sys.canonical(path).unwrap_or_else(|_| path.to_owned());
    let (folder, path) = (real(folder), real(path));
    match path.strip_prefix(&folder) {
        Some(rest) if rest.starts_with('/') => rest.trim_start_matches('/').to_owned(),
        _ => path,
    }
}

/// Folders whose lists of checksums may name what is written: those of the files, and those of the
/// configuration.
fn listed_in<'a>(folders: &[&'a str], old: Option<&'a OldConfig>) -> BTreeSet<&'a str> {
    let home = old.into_iter();
    let home = home.flat_map(|old| [old.home.as_str(), folder_of(&old.path)]);
    folders.iter().copied().chain(home).collect()
}

/// The lists of checksums that will be changed can be read.
pub fn check_lists(sys: &Sys, folders: &[&str], old: Option<&OldConfig>) -> Result<()> {
    for folder in listed_in(folders, old) {
        checksums::check(sys, folder)?;
    }
    Ok(())
}

/// Puts what will not be edited into the list of checksums that is beside the image, and makes true what
/// lists say already of what was written.
pub fn checksums(
    sys: &Sys,
    outputs: &[Output],
    image: Option<&Written>,
    old: Option<&OldConfig>,
    set: &Set,
) -> Result<()> {
    let mut written: Vec<(&str, &str)> = Vec::new();
    for output in outputs {
        if let Target::File(path) = &output.target {
            written.push((path, &output.sha256));
        }
    }
    if let (Some(old), Some(sha256)) = (old, &set.sha256) {
        written.push((&old.path, sha256));
    }
    let folders: Vec<&str> = written.iter().map(|(path, _)| folder_of(path)).collect();
    for folder in listed_in(&folders, old) {
        checksums::refresh(sys, folder, &written)
            .with_context(|| format!("making the checksums in {folder} true"))?;
    }
    match (image, outputs.first().map(|output| &output.target)) {
        (Some(image), Some(Target::File(path))) => note(sys, outputs, image, path),
        _ => Ok(()),
    }
}

fn note(sys: &Sys, outputs: &[Output], image: &Written, path: &str) -> Result<()> {
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
    let unpacked = (image.image_bytes, image.image_sha256.as_str());
    checksums::note(sys, folder, &files, unpacked)
        .with_context(|| format!("writing {} in {folder}", checksums::SHA256_LIST))
}
