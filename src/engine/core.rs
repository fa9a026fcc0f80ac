//! Makes what brings stage 2 back after a power cut in the middle of the flash: a GRUB core, the
//! kernel and the initramfs on the disk itself, and the record that says how far the flash is.
//!
//! The places come from [`super::keep`], the contents from [`core_image`].

use anyhow::{Context, Result, bail};

use super::act::run;
use super::keep::{fill_reserved, read_manifest};
use crate::boot::core_image;
use crate::handover::{Extent, Resume};
use crate::payload::digest::hex;
use crate::place::{Kept, Manifest};
use crate::resume::{BootFile, Record, State};
use crate::step::core::{BuildCore, CORE, INITRAMFS, KERNEL, RECORD};
use crate::sys::Sys;

/// What the hand-over says of it: known as soon as the files have their places.
pub fn resume(sys: &Sys, core: &BuildCore) -> Result<Resume> {
    let manifest = read_manifest(sys, &core.keep.folder)?;
    let path = format!("{}/boot.img", core.tools.dir);
    let boot_img = sys.read(&path).with_context(|| format!("reading {path}"))?;
    let code = core_image::boot_code(&boot_img, one_piece(&manifest, CORE)?)
        .with_context(|| format!("using {path}"))?;
    Ok(Resume {
        record: one_piece(&manifest, RECORD)?,
        boot_code: hex(&code),
        secrets: kept(&manifest, INITRAMFS)?.extents(),
    })
}

/// Fills the places.
pub fn build(sys: &Sys, core: &BuildCore) -> Result<()> {
    let initramfs = sys
        .read(&core.initramfs)
        .with_context(|| format!("reading {}", core.initramfs))?;
    let initramfs = fill_reserved(sys, &core.keep, INITRAMFS, &initramfs)?;
    let manifest = read_manifest(sys, &core.keep.folder)?;
    let kernel = kept(&manifest, KERNEL)?;
    let config = core_image::config(
        used(one_piece(&manifest, KERNEL)?, kernel.bytes),
        &used_of(&initramfs),
        &core.arguments,
    );
    let image = make_image(sys, core, &config)?;
    let place = one_piece(&manifest, CORE)?;
    let image = core_image::settle(image, place)?;
    let image = fill_reserved(sys, &core.keep, CORE, &image)?;
    let record = Record {
        run_id: core.run_id.clone(),
        number: 0,
        state: State::Prepared(vec![
            boot_file(CORE, &image),
            boot_file(KERNEL, kernel),
            boot_file(INITRAMFS, &initramfs),
        ]),
    };
    if !record.fits() {
        bail!("the file system keeps the initramfs in too many pieces");
    }
    fill_reserved(sys, &core.keep, RECORD, &record.slot().1)?;
    Ok(())
}

/// Runs grub-mkimage in the folder of the kept files.
fn make_image(sys: &Sys, core: &BuildCore, config: &str) -> Result<Vec<u8>> {
    let folder = &core.keep.folder;
    let (archive, image) = (format!("{folder}/core.tar"), format!("{folder}/core.img"));
    let memdisk = core_image::memdisk(config).context("packing the configuration of the core")?;
    sys.write_whole(&archive, &memdisk, 0o600, None)
        .with_context(|| format!("writing {archive}"))?;
    let mut argv: Vec<String> = [
        core.tools.mkimage.as_str(),
        "-O",
        core_image::FORMAT,
        "-d",
        &core.tools.dir,
        "-m",
        "core.tar",
        "-p",
        core_image::PREFIX,
        "-o",
        "core.img",
    ]
    .map(str::to_owned)
    .to_vec();
    argv.extend(crate::host::CORE_MODULES.map(str::to_owned));
    run(sys, &argv, Some(folder))?;
    let made = sys
        .read(&image)
        .with_context(|| format!("reading {image}"))?;
    for path in [archive, image] {
        sys.remove_file(&path)
            .with_context(|| format!("removing {path}"))?;
    }
    Ok(made)
}

fn kept<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a Kept> {
    manifest
        .files
        .get(name)
        .with_context(|| format!("`{name}` is not kept on the disk"))
}

/// The place of a file that must be in one piece.
fn one_piece(manifest: &Manifest, name: &str) -> Result<Extent> {
    match kept(manifest, name)?.extents().as_slice() {
        [extent] => Ok(*extent),
        _ => bail!("`{name}` is not in one piece on the disk"),
    }
}

/// The sectors of a file that its content takes; the rest need not be loaded.
fn used_of(file: &Kept) -> Vec<Extent> {
    let mut left = file.bytes;
    let mut runs = Vec::new();
    for extent in file.extents() {
        if left == 0 {
            break;
        }
        let run = used(extent, left);
        left = left.saturating_sub(run.bytes);
        runs.push(run);
    }
    runs
}

/// The sectors of `extent` that `bytes` take.
fn used(extent: Extent, bytes: u64) -> Extent {
    Extent {
        start: extent.start,
        bytes: bytes.next_multiple_of(512).min(extent.bytes),
    }
}

fn boot_file(what: &str, file: &Kept) -> BootFile {
    BootFile {
        what: what.to_owned(),
        extents: file.extents(),
        bytes: file.bytes,
        sha256: file.sha256.clone(),
    }
}
