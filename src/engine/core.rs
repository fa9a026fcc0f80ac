//! Makes what brings stage 2 back after a power cut in the middle of the flash: GRUB or the firmware's files, the
//! kernel and the initramfs on the disk itself, and the record that says how far the flash is.
//!
//! The places come from [`super::keep`], the contents from [`core_image`], [`core_esp`] and [`core_fat`].

use std::io;

use anyhow::{Context, Result, bail};

use super::act::run;
use super::keep::{fill_reserved, read_manifest};
use crate::boot::core_fat::BoardFiles;
use crate::boot::{core_esp, core_fat, core_image};
use crate::efi;
use crate::grub_platform;
use crate::handover::{Extent, Resume};
use crate::host::CoreTools;
use crate::initramfs::{self, SmallFile};
use crate::payload::digest::{hex, sha256_hex};
use crate::place::{Kept, Manifest};
use crate::resume::{BootFile, Record, State};
use crate::secret::Secret;
use crate::step::core::{BuildCore, CORE, CoreFirmware, ESP, FAT, INITRAMFS, KERNEL, RECORD};
use crate::sys::Sys;

/// What the hand-over says of it: known as soon as the files have their places.
pub fn resume(sys: &Sys, core: &BuildCore) -> Result<Resume> {
    let manifest = read_manifest(sys, &core.keep.folder)?;
    let (first_sector, secrets) = match &core.firmware {
        CoreFirmware::Bios(tools) => {
            let path = format!("{}/boot.img", tools.dir);
            let boot_img = sys.read(&path).with_context(|| format!("reading {path}"))?;
            let code = core_image::boot_code(&boot_img, one_piece(&manifest, CORE)?)
                .with_context(|| format!("using {path}"))?;
            (code, kept(&manifest, INITRAMFS)?.extents())
        }
        CoreFirmware::Uefi { .. } => by_partition(core, one_piece(&manifest, ESP)?, efi::MBR_KIND)?,
        CoreFirmware::Board(_) => {
            by_partition(core, one_piece(&manifest, FAT)?, core_fat::MBR_KIND)?
        }
    };
    Ok(Resume {
        record: one_piece(&manifest, RECORD)?,
        first_sector: hex(&first_sector),
        secrets,
    })
}

/// The first sector that leads to a partition in `place`, and what of that is secret.
fn by_partition(core: &BuildCore, place: Extent, kind: u8) -> Result<(Vec<u8>, Vec<Extent>)> {
    let first = core_esp::first_sector(place, kind, core.keep.sector_bytes, signature(core));
    let first = first.context("an MBR can't name a place so far behind on the disk")?;
    Ok((first.to_vec(), vec![place]))
}

/// The signature of the disk while only stage 2 is on it; never 0, which stands for none.
fn signature(core: &BuildCore) -> u32 {
    let hash = sha256_hex(core.run_id.as_bytes());
    u32::from_str_radix(&hash[..8], 16).unwrap_or(0) | 1
}

/// Fills the places.
pub fn build(sys: &Sys, core: &BuildCore) -> Result<()> {
    let initramfs = whole_initramfs(sys, core)?;
    let boot_files = match &core.firmware {
        CoreFirmware::Bios(tools) => for_bios(sys, core, tools, &initramfs)?,
        CoreFirmware::Uefi { bits, tools } => for_uefi(sys, core, *bits, tools, &initramfs)?,
        CoreFirmware::Board(board) => for_board(sys, core, board, &initramfs)?,
    };
    let record = Record {
        run_id: core.run_id.clone(),
        number: 0,
        state: State::Prepared(boot_files),
    };
    if !record.fits() {
        bail!("the file system keeps the initramfs in too many pieces");
    }
    fill_reserved(sys, &core.keep, RECORD, &record.slot().1)?;
    Ok(())
}

fn for_bios(
    sys: &Sys,
    core: &BuildCore,
    tools: &CoreTools,
    initramfs: &[u8],
) -> Result<Vec<BootFile>> {
    let initramfs = fill_reserved(sys, &core.keep, INITRAMFS, initramfs)?;
    let manifest = read_manifest(sys, &core.keep.folder)?;
    let kernel = kept(&manifest, KERNEL)?;
    let config = core_image::config(
        used(one_piece(&manifest, KERNEL)?, kernel.bytes),
        &used_of(&initramfs),
        &core.arguments,
    );
    let image = make_core_image(sys, core, tools, &config)?;
    let place = one_piece(&manifest, CORE)?;
    let image = core_image::settle(image, place)?;
    let image = fill_reserved(sys, &core.keep, CORE, &image)?;
    Ok(vec![
        boot_file(CORE, &image),
        boot_file(KERNEL, kernel),
        boot_file(INITRAMFS, &initramfs),
    ])
}

fn for_uefi(
    sys: &Sys,
    core: &BuildCore,
    bits: u32,
    tools: &CoreTools,
    initramfs: &[u8],
) -> Result<Vec<BootFile>> {
    let read = |path: &str| sys.read(path).with_context(|| format!("reading {path}"));
    let manifest = read_manifest(sys, &core.keep.folder)?;
    let files = core_esp::Files {
        bits,
        grub: &make_image(
            sys,
            core,
            tools,
            grub_platform::efi(bits),
            core_esp::PREFIX,
            &grub_platform::EFI_MODULES,
            &[],
        )?,
        kernel: &read(&core.kernel)?,
        arguments: &core.arguments,
        initramfs,
    };
    let room = one_piece(&manifest, ESP)?.bytes;
    let image = core_esp::image(room, core.keep.sector_bytes, &files)
        .context("putting the kernel and the initramfs into an EFI system partition")?;
    let image = fill_reserved(sys, &core.keep, ESP, &image)?;
    Ok(vec![boot_file(ESP, &image)])
}

fn for_board(
    sys: &Sys,
    core: &BuildCore,
    board: &BoardFiles,
    initramfs: &[u8],
) -> Result<Vec<BootFile>> {
    let read = |path: &str| {
        let path = format!("{}/{path}", board.point);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        sys.read(&path).map_err(named)
    };
    let files = core_fat::Files {
        config: &board.config,
        arguments: &core.arguments,
        initramfs,
        firmware: &board.firmware,
        read: &read,
    };
    let manifest = read_manifest(sys, &core.keep.folder)?;
    let image = core_fat::image(one_piece(&manifest, FAT)?.bytes, &files)
        .context("putting the kernel and the initramfs into a boot partition")?;
    let image = fill_reserved(sys, &core.keep, FAT, &image)?;
    Ok(vec![boot_file(FAT, &image)])
}

/// The initramfs, with what is not in it as an archive before it. Not packed: the kernel takes that before whatever
/// else.
fn whole_initramfs(sys: &Sys, core: &BuildCore) -> Result<Vec<u8>> {
    let initramfs = sys.read(&core.initramfs);
    let initramfs = initramfs.with_context(|| format!("reading {}", core.initramfs))?;
    if core.aside.is_empty() {
        return Ok(initramfs);
    }
    let mut files = Vec::new();
    for file in &core.aside {
        let content = sys.read(&file.path);
        files.push(SmallFile {
            path: file.content.clone(),
            content: Secret::new(content.with_context(|| format!("reading {}", file.path))?),
        });
    }
    let mut whole = initramfs::archive(&files).context("packing the files for the new system")?;
    whole.extend_from_slice(&initramfs);
    Ok(whole)
}

/// With its configuration in an archive inside of it.
fn make_core_image(
    sys: &Sys,
    core: &BuildCore,
    tools: &CoreTools,
    config: &str,
) -> Result<Vec<u8>> {
    let archive = format!("{}/core.tar", core.keep.folder);
    let memdisk = core_image::memdisk(config).context("packing the configuration of the core")?;
    sys.write_whole(&archive, &memdisk, 0o600, None)
        .with_context(|| format!("writing {archive}"))?;
    let image = make_image(
        sys,
        core,
        tools,
        grub_platform::BIOS,
        core_image::PREFIX,
        &grub_platform::BIOS_MODULES,
        &["-m", "core.tar"],
    )?;
    sys.remove_file(&archive)
        .with_context(|| format!("removing {archive}"))?;
    Ok(image)
}

/// Runs grub-mkimage in the folder of the kept files.
fn make_image(
    sys: &Sys,
    core: &BuildCore,
    tools: &CoreTools,
    platform: &str,
    prefix: &str,
    modules: &[&str],
    more: &[&str],
) -> Result<Vec<u8>> {
    let folder = &core.keep.folder;
    let image = format!("{folder}/core.img");
    let first = [&*tools.mkimage, "-O", platform, "-d", &tools.dir];
    let place = ["-p", prefix, "-o", "core.img"];
    let words = first.iter().chain(&place).chain(more).chain(modules);
    let argv: Vec<String> = words.map(|word| (*word).to_owned()).collect();
    run(sys, &argv, Some(folder))?;
    let made = sys
        .read(&image)
        .with_context(|| format!("reading {image}"))?;
    sys.remove_file(&image)
        .with_context(|| format!("removing {image}"))?;
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
