//! `extract`: the OS image and the boot files out of any download of balenaOS, by any user, on any
//! machine. Nothing is mounted, and of a zip or gzip file nothing is unpacked to disk.
//!
//! Called by [`crate::cli`]. [`open()`](open::open) → [`find`] → [`take()`](take::take) or
//! [`list()`](list::list).

pub mod carried;
pub mod disk;
pub mod list;
pub mod look;
pub mod open;
pub mod pack;
mod records;
pub mod take;
mod targets;
pub mod wanted;
pub mod write;

use std::rc::Rc;

use anyhow::{Context, Result, bail};

use crate::device;
use crate::sys::Sys;
use carried::Carried;
use look::{Boot, Image};
use open::{Notice, Opened};

/// An image file, and what was found in it.
pub struct Found {
    /// The file as it was opened.
    pub outer: Opened,
    /// What is in it.
    pub image: Image,
    /// Its boot partition.
    pub boot: Option<Boot>,
    /// What it carries when it is a flasher image.
    pub carried: Option<Inner>,
}

/// The OS image in a flasher image, opened.
pub struct Inner {
    /// Where it lies.
    pub carried: Carried,
    /// It, unpacked.
    pub opened: Opened,
    /// What is in it.
    pub image: Image,
    /// Its boot partition.
    pub boot: Option<Boot>,
}

/// Opens an image file and finds out what it is. Errors name the file.
pub fn find(sys: &Sys, path: &str, notice: &Rc<dyn Notice>) -> Result<Found> {
    let found = open::open(sys, path, &**notice).and_then(|outer| {
        let whole = outer.image.clone();
        look_into(sys, outer, notice).map_err(|error| match whole.failure() {
            // What a file system says of it is only a consequence.
            Some(reason) => anyhow::anyhow!(reason),
            None => error,
        })
    });
    found.with_context(|| path.to_owned())
}

/// Finds out what an opened image is, and that it is balenaOS for one device type.
pub fn look_into(sys: &Sys, outer: Opened, notice: &Rc<dyn Notice>) -> Result<Found> {
    outer.image.watch(Some(notice));
    let image = Image::read(outer.image.clone())?;
    let boot = image.boot()?;
    let carried = match carried::find(&image, boot.as_ref())? {
        Some(carried) => Some(open_inner(sys, carried, notice)?),
        None => None,
    };
    let found = Found {
        outer,
        image,
        boot,
        carried,
    };
    found.check()?;
    // Who reads it from here on tells how far that is.
    found.outer.image.watch(None);
    if let Some(inner) = &found.carried {
        inner.image.whole.watch(None);
    }
    Ok(found)
}

fn open_inner(sys: &Sys, carried: Carried, notice: &Rc<dyn Notice>) -> Result<Inner> {
    let what = format!("the OS image {} of {}", carried.path, carried.place);
    let open = || {
        let opened = open::unpack(sys, carried.packed.clone(), &**notice)?;
        opened.image.watch(Some(notice));
        let image = Image::read(opened.image.clone())?;
        let boot = image.boot()?;
        anyhow::Ok((opened, image, boot))
    };
    let (opened, image, boot) = open().with_context(|| what)?;
    Ok(Inner {
        carried,
        opened,
        image,
        boot,
    })
}

impl Found {
    /// The OS image and its boot partition: the one that a flasher carries, or the file itself.
    pub fn os(&self) -> (&Image, Option<&Boot>) {
        match &self.carried {
            Some(inner) => (&inner.image, inner.boot.as_ref()),
            None => (&self.image, self.boot.as_ref()),
        }
    }

    /// What can be told early: it is balenaOS, and of one device type.
    fn check(&self) -> Result<()> {
        if self.carried.is_some() && self.boot.is_none() {
            bail!(
                "it is a flasher image without a boot partition (a FAT), the partitions are {}; \
                 download it again",
                self.image.describe_parts()?
            );
        }
        let (image, boot) = self.os();
        let first = image
            .parts
            .first()
            .map(|part| image.see(part))
            .transpose()?;
        let is_balena = first.is_some_and(|seen| seen.label() == "resin-boot");
        if boot.is_none() || !is_balena {
            let what = match &self.carried {
                Some(inner) => format!("its OS image {}", inner.carried.path),
                None => "it".to_owned(),
            };
            bail!(
                "{what} is no image of balenaOS: its first partition is not resin-boot with a FAT, \
                 the partitions are {}",
                image.describe_parts()?
            );
        }
        let slug = |boot: Option<&Boot>| boot?.files.slug().map(str::to_owned);
        if let (Some(outer), Some(inner)) = (slug(self.boot.as_ref()), slug(boot))
            && !device::same_slug(&outer, &inner)
        {
            bail!(
                "it is an installer for the device type {outer}, but carries an OS image for {inner}; \
                 download it again"
            );
        }
        Ok(())
    }
}
