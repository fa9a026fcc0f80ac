//! Where everything goes, settled before anything is written: no two files to one place, nothing over the
//! image that is read, and nothing over what is there unless that is asked for. Called by [`super::take`].

use std::io;

use anyhow::{Context, Result, bail};

use super::wanted::Target;
use crate::config::path;
use crate::sys::Sys;

/// What is to be written, and what goes for all of it.
pub struct Plan<'a> {
    /// The image file that is read.
    pub image: &'a str,
    /// A folder that is made if need be.
    pub folder: Option<&'a str>,
    /// Files that are there may be replaced.
    pub force: bool,
    /// Files to make, each as a message names it.
    pub outputs: Vec<(&'static str, &'a Target)>,
    /// Files that are made or changed, in the same way.
    pub records: Vec<(&'static str, String)>,
}

impl Plan<'_> {
    /// Whether all of it can be written, as far as that can be told.
    pub fn check(&self, sys: &Sys) -> Result<()> {
        if let Some(folder) = self.folder {
            check_folder(sys, folder)?;
        }
        let mut places: Vec<(&str, String)> = Vec::new();
        for (what, target) in &self.outputs {
            if let Target::File(path) = target {
                self.is_free(sys, path)?;
                places.push((what, place(sys, path)));
            }
        }
        let records = self.records.iter();
        places.extend(records.map(|(what, path)| (*what, place(sys, path))));
        for (index, (what, place)) in places.iter().enumerate() {
            let earlier = &places[..index];
            if let Some((other, _)) = earlier
                .iter()
                .find(|(other, at)| at == place && other != what)
            {
                bail!("{place} can't be both {other} and {what}; give one of them another name");
            }
        }
        Ok(())
    }

    /// A file may be written at its place.
    fn is_free(&self, sys: &Sys, path: &str) -> Result<()> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if matches!(name, "" | "." | "..") {
            bail!("{path} is no name for a file");
        }
        let is_made = |made: &str| place(sys, folder) == place(sys, made);
        if !self.folder.is_some_and(is_made) {
            check_folder_for(sys, folder)?;
        }
        let real = |path: &str| sys.canonical(path).ok();
        if real(path).is_some_and(|to| real(self.image) == Some(to)) {
            bail!("{path} is the image that is read; give what is written another name");
        }
        // Not what a link leads to: it is the link that would be replaced.
        match sys.meta(path) {
            Ok(meta) if !meta.is_file => {
                bail!(
                    "{path} is no regular file, so nothing is written there; use - for standard output"
                )
            }
            _ if sys.exists(path) && !self.force => {
                bail!("{path} is there already; remove it, or say --force")
            }
            _ => Ok(()),
        }
    }
}

/// Files can be made in a folder.
pub fn check_folder_for(sys: &Sys, folder: &str) -> Result<()> {
    let folder = format!("{}/", folder.trim_end_matches('/'));
    if !sys.meta(&folder).is_ok_and(|meta| meta.is_dir) {
        bail!("there is no folder {folder}; make it, or name another one");
    }
    sys.may_write_in(&folder)
        .with_context(|| format!("nothing can be written in {folder}"))
}

/// A folder is there, or can be made.
fn check_folder(sys: &Sys, folder: &str) -> Result<()> {
    match sys.meta(folder) {
        Ok(meta) if meta.is_dir => check_folder_for(sys, folder),
        Ok(_) => bail!("{folder} is a file and no folder"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (parent, _) = folder.rsplit_once('/').unwrap_or(("", folder));
            check_folder_for(sys, parent)
        }
        Err(error) => Err(error).with_context(|| folder.to_owned()),
    }
}

/// The place that a path names, however it is spelled: its folder without links, which may have to be made
/// first, and the name in there.
pub fn place(sys: &Sys, path: &str) -> String {
    let path = path.trim_end_matches('/');
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let real = |folder: &str| sys.canonical(&format!("/{folder}")).ok();
    let folder = real(folder).or_else(|| {
        let folder = path::absolute("/", folder);
        let (parent, own) = folder.rsplit_once('/')?;
        Some(format!("{}/{own}", real(parent)?))
    });
    match folder {
        Some(folder) => path::absolute(&folder, name),
        None => path.to_owned(),
    }
}
