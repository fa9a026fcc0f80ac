//! Takes out of an image what was asked for, and writes down what it is.

use std::io::{self, Write};
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail};

use super::look::Boot;
use super::open::Notice;
use super::records::{OldConfig, folder_of};
use super::targets::{self, Plan};
use super::wanted::{All, Item, Output, Target, Wanted};
use super::write::{self, Written};
use super::{Found, find, records};
use crate::checksums::SHA256_LIST;
use crate::config::path;
use crate::payload::digest::sha256_hex;
use crate::sys::Sys;
use crate::sys::put::Put;

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
    /// What the user should know besides.
    pub remarks: Vec<String>,
}

/// A small file in memory.
struct Small {
    item: Option<Item>,
    target: Target,
    bytes: Vec<u8>,
}

impl Small {
    /// As a message names it.
    fn what(&self) -> &'static str {
        self.item.map_or("the signature", Item::name)
    }
}

/// Takes out of the image file at `path` what is wanted.
pub fn take(sys: &Sys, path: &str, wanted: &Wanted, notice: &Rc<dyn Notice>) -> Result<Taken> {
    let job = Job::new(sys, path, wanted)?;
    job.check_named()?;
    let found = find(sys, path, notice)?;
    let img = job.image_target(&found);
    let mine = job.own_json();
    let smalls = job
        .smalls(&found, img.as_ref(), mine.is_some())
        .with_context(|| path.to_owned())?;
    let small = smalls.iter().map(|small| (small.what(), &small.target));
    job.plan(img.as_ref(), small).check(sys)?;

    let folder = job.folder.as_deref();
    let is_new = folder.is_some_and(|folder| !sys.exists(folder));
    if let (true, Some(folder)) = (is_new, folder) {
        sys.make_dir(folder, 0o755)
            .with_context(|| format!("making the folder {folder}"))?;
    }
    let written = job.write(&found, img.as_ref(), &smalls, notice);
    let (outputs, image) = written.inspect_err(|_| {
        if let (true, Some(folder)) = (is_new, folder) {
            // It stays where something whole is in it.
            let _ = sys.remove_dir(folder);
        }
    })?;
    let kept = mine.as_ref().and_then(|mine| mine.path.as_deref());
    let set = records::config(sys, wanted, job.old.as_ref(), &found, &outputs, kept)?;
    records::checksums(sys, &outputs, image.as_ref(), job.old.as_ref(), &set)?;
    let mut remarks = set.remarks;
    let names = found.boot.iter().flat_map(|boot| &boot.files.names);
    if let (Some(mine), true) = (mine, { names }.any(|name| name == "config.json")) {
        remarks.push(mine.remark);
    }
    Ok(Taken {
        found,
        image,
        outputs,
        keys: set.keys,
        remarks,
    })
}

/// What is asked for, and where that is.
struct Job<'a> {
    sys: &'a Sys,
    /// The image file.
    path: &'a str,
    wanted: &'a Wanted,
    old: Option<OldConfig>,
    /// Where all that there is goes.
    folder: Option<String>,
}

/// A config.json of the user, which has the keys of a fleet: the one of the download takes its place only
/// where that is said.
struct OwnJson {
    /// Its path, unless only the configuration names it.
    path: Option<String>,
    remark: String,
}

impl<'a> Job<'a> {
    fn new(sys: &'a Sys, path: &'a str, wanted: &'a Wanted) -> Result<Job<'a>> {
        let old = records::old_config(sys, wanted)?;
        let folder = match &wanted.all {
            Some(All::To(folder)) => Some(folder.clone()),
            Some(All::Home) => old.as_ref().map(|old| old.home.clone()),
            None => None,
        };
        Ok(Job {
            sys,
            path,
            wanted,
            old,
            folder,
        })
    }

    /// Where the image and other files go, beside what is written of them.
    fn plan<'b>(
        &'b self,
        img: Option<&'b Target>,
        others: impl Iterator<Item = (&'static str, &'b Target)>,
    ) -> Plan<'b> {
        let mut records = Vec::new();
        if let Some(img) = img.and_then(Target::path) {
            let list = format!("{}/{SHA256_LIST}", folder_of(img));
            records.push(("the list of checksums", list));
        }
        if let (Some(config), Some(old)) = (&self.wanted.config, &self.old) {
            let config = [config, &old.path].map(|path| ("the configuration", path.clone()));
            records.extend(config);
        }
        let img = img.into_iter().map(|to| ("the OS image", to));
        Plan {
            image: self.path,
            folder: self.folder.as_deref(),
            force: self.wanted.force,
            outputs: img.chain(others).collect(),
            records,
        }
    }

    /// What can be told before the image is read, which takes a while.
    fn check_named(&self) -> Result<()> {
        let items = self.wanted.items.iter();
        let items = items.map(|(item, to)| (item.name(), to));
        let plan = self.plan(self.wanted.img.as_ref(), items);
        plan.check(self.sys)?;
        let paths = plan.outputs.iter().filter_map(|(_, to)| to.path());
        let mut folders: Vec<&str> = paths.map(folder_of).collect();
        folders.extend(self.folder.as_deref());
        records::check_lists(self.sys, &folders, self.old.as_ref())
    }

    /// The config.json that the user put where the download's would go, or that the configuration names.
    fn own_json(&self) -> Option<OwnJson> {
        let is_named = |(item, _): &(Item, Target)| *item == Item::BalenaCfg;
        let folder = self.folder.as_ref()?;
        if self.wanted.items.iter().any(is_named) {
            return None;
        }
        let usual = format!("{folder}/{}", Item::BalenaCfg.name());
        let instead = "--balena-cfg FILE takes the one of the download";
        if self.sys.exists(&usual) {
            return Some(OwnJson {
                remark: format!("{usual} stays as it is; {instead}"),
                path: Some(usual),
            });
        }
        let old = self.old.as_ref()?;
        let named = old.value("BALENA_CONFIG")?;
        let place = |path: &str| targets::place(self.sys, path);
        let is_usual = place(&path::absolute(&old.home, &named)) == place(&usual);
        (!is_usual).then(|| OwnJson {
            path: None,
            remark: format!("BALENA_CONFIG={named} stays as it is; {instead}"),
        })
    }

    /// Where the OS image goes: as it was said, or under a name of its own.
    fn image_target(&self, found: &Found) -> Option<Target> {
        let (None, Some(folder)) = (&self.wanted.img, &self.folder) else {
            return self.wanted.img.clone();
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
        let suffix = self.wanted.packing.suffix();
        Some(Target::File(format!("{folder}/{stem}.img{suffix}")))
    }

    /// The small files, read before anything is written.
    fn smalls(&self, found: &Found, img: Option<&Target>, has_json: bool) -> Result<Vec<Small>> {
        let mut smalls = Vec::new();
        let boot = found
            .boot
            .as_ref()
            .ok_or_else(|| anyhow!("it has no boot partition"));
        for (item, target) in &self.wanted.items {
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
        if let (Some(folder), Ok(boot)) = (&self.folder, boot) {
            let is_own = |small: &Small| has_json && small.item == Some(Item::BalenaCfg);
            let rest = all_there_is(boot, self.wanted, folder)?;
            smalls.extend(rest.into_iter().filter(|small| !is_own(small)));
        }
        let carried = found.carried.as_ref().map(|inner| &inner.carried);
        let signature = carried.and_then(|carried| carried.signature.clone());
        if let (Some(bytes), Some(path)) = (signature, img.and_then(Target::path)) {
            let suffix = self.wanted.packing.suffix();
            let path = path.strip_suffix(suffix).unwrap_or(path);
            smalls.push(Small {
                item: None,
                target: Target::File(format!("{path}.sig")),
                bytes,
            });
        }
        Ok(smalls)
    }

    /// Writes the files, the large one first: it proves the image file.
    fn write(
        &self,
        found: &Found,
        img: Option<&Target>,
        smalls: &[Small],
        notice: &Rc<dyn Notice>,
    ) -> Result<(Vec<Output>, Option<Written>)> {
        let mut outputs = Vec::new();
        let image = match img {
            Some(target) => {
                let written = write::image(self.sys, found, self.wanted, target, &**notice)
                    .with_context(|| self.path.to_owned())?;
                outputs.push(Output {
                    setting: Some("IMAGE_NAME"),
                    target: target.clone(),
                    sha256: written.file_sha256.clone(),
                });
                Some(written)
            }
            None => {
                write::prove_file(found, &**notice).with_context(|| self.path.to_owned())?;
                None
            }
        };
        for small in smalls {
            write_small(self.sys, small, self.wanted.force)?;
            outputs.push(Output {
                setting: small.item.map(Item::setting),
                sha256: sha256_hex(&small.bytes),
                target: small.target.clone(),
            });
        }
        Ok((outputs, image))
    }
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

fn write_small(sys: &Sys, small: &Small, replace: bool) -> Result<()> {
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
    let how = Put {
        mode,
        owner: None,
        replace,
    };
    sys.put(path, how, |file| file.write_all(&small.bytes))
        .map_err(|error| write::unwritten(error, path))
}
