//! Writes the OS image: read once, hashed, compressed on all cores, under a temporary name until all of
//! it is proven. Called by [`super::take`].

use std::io::{self, Read, Write};

use anyhow::{Context, Result, anyhow, bail};

use super::Found;
use super::look::{Image, fits};
use super::open::Notice;
use super::pack::{Packing, packer};
use super::wanted::{Target, Wanted};
use crate::payload::digest::Sha256Writer;
use crate::payload::scan::LABELS;
use crate::payload::table::SECTOR;
use crate::sys::Sys;
use crate::sys::put::Put;

/// What was written of the OS image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Size of the image in bytes.
    pub image_bytes: u64,
    /// SHA-256 of the image.
    pub image_sha256: String,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// SHA-256 of the file.
    pub file_sha256: String,
}

/// Writes the OS image, to a file that is there afterwards as a whole or not at all.
pub fn image(
    sys: &Sys,
    found: &Found,
    wanted: &Wanted,
    target: &Target,
    notice: &dyn Notice,
) -> Result<Written> {
    let packing = wanted.packing;
    let path = match target {
        Target::Stdout => return stream(found, packing, &mut io::stdout().lock(), notice),
        Target::File(path) => path,
    };
    room(sys, found, packing, path)?;
    // What goes wrong with the image is not to be taken for an error of writing.
    let mut streamed = None;
    let how = Put {
        mode: 0o644,
        owner: None,
        replace: wanted.force,
    };
    let written = sys.put(path, how, |file| {
        let done = stream(found, packing, file, notice);
        let is_done = done.is_ok();
        streamed = Some(done);
        match is_done {
            true => Ok(()),
            false => Err(io::Error::other("the image could not be written")),
        }
    });
    match (streamed, written) {
        (Some(Err(error)), _) => Err(error),
        (_, Err(error)) => Err(unwritten(error, path)),
        (Some(Ok(written)), Ok(())) => Ok(written),
        (None, Ok(())) => bail!("{path} was not written"),
    }
}

/// Why a file could not be put at its place.
pub fn unwritten(error: io::Error, path: &str) -> anyhow::Error {
    let error = match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow!("it is there by now; remove it, or say --force"),
        _ => anyhow!(error),
    };
    error.context(format!("writing {path}"))
}

/// An image as it is takes what it has; how well one packs is known at the end.
fn room(sys: &Sys, found: &Found, packing: Packing, path: &str) -> Result<()> {
    let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let (Packing::Raw, Some(need)) = (packing, found.os().0.whole.size()) else {
        return Ok(());
    };
    let space = sys.statvfs(&format!("{folder}/"))?;
    if need > space.available {
        bail!(
            "{path} takes {} MiB, and there are {} MiB free; use --format gz, or another folder",
            need.div_ceil(1 << 20),
            space.available >> 20
        );
    }
    Ok(())
}

fn stream(
    found: &Found,
    packing: Packing,
    to: &mut dyn Write,
    notice: &dyn Notice,
) -> Result<Written> {
    let image = found.os().0;
    let mut source = image.whole.clone();
    let total = source.size();
    let mut hash = Sha256Writer::default();
    let tee = Tee {
        to,
        hash: Sha256Writer::default(),
    };
    let mut packer = packer(packing, tee).context("starting threads")?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let filled = source
            .read(&mut buffer)
            .map_err(|error| reason(found, error))?;
        if filled == 0 {
            break;
        }
        hash.write_all(&buffer[..filled])?;
        packer
            .write_all(&buffer[..filled])
            .context("writing the image")?;
        match (total, source.way()) {
            (None, Some((read, all))) => notice.at("extracting", read, Some(all))?,
            _ => notice.at("extracting", hash.bytes(), total)?,
        }
    }
    let tee = packer.finish().context("writing the image")?;
    tee.to.flush().context("writing the image")?;
    prove(found, image, hash.bytes(), notice)?;
    Ok(Written {
        image_bytes: hash.bytes(),
        image_sha256: hash.hex(),
        file_bytes: tee.hash.bytes(),
        file_sha256: tee.hash.hex(),
    })
}

/// What could be told only when all was read: the file is whole, and so is the image.
fn prove(found: &Found, image: &Image, bytes: u64, notice: &dyn Notice) -> Result<()> {
    let inner = image.whole.prove(notice);
    inner.map_err(|error| reason(found, error))?;
    prove_file(found, notice)?;
    if !bytes.is_multiple_of(SECTOR) {
        bail!(
            "the OS image has {bytes} bytes, which is no whole number of sectors (truncated file)"
        );
    }
    fits(&image.parts, bytes)?;
    let mut labels = Vec::new();
    for part in &image.parts {
        labels.push(image.see(part)?.label().to_owned());
    }
    let is_missing = |label: &&&str| !labels.iter().any(|known| known == *label);
    let missing: Vec<&str> = LABELS.iter().filter(is_missing).copied().collect();
    if !missing.is_empty() {
        bail!(
            "the OS image is not whole: it has no partition with the label {}; it has {}",
            missing.join(", "),
            image.describe_parts()?
        );
    }
    Ok(())
}

/// Reads the rest of the image file, which is whole then.
pub fn prove_file(found: &Found, notice: &dyn Notice) -> Result<()> {
    let outer = found.outer.image.prove(notice);
    outer.map(drop).map_err(|error| reason(found, error))
}

/// Why reading failed, as the innermost reader told it.
fn reason(found: &Found, error: io::Error) -> anyhow::Error {
    match found.outer.image.failure() {
        Some(reason) => anyhow!(reason),
        None => match &found.carried {
            Some(inner) => anyhow!(error).context(format!(
                "reading the OS image {} of {}",
                inner.carried.path, inner.carried.place
            )),
            None => anyhow!(error),
        },
    }
}

/// Hashes what is written through it.
struct Tee<'a> {
    to: &'a mut dyn Write,
    hash: Sha256Writer,
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.write_all(&bytes[..written])?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
