//! Opens an image, in whatever it is packed, as a [`Window`].
//!
//! What can be read in place is: raw, stored in a zip, and deflate by its points. xz, zstd and bzip2
//! can't be entered in the middle; they are unpacked into a sparse scratch file.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail};

use super::disk::{Source, Window};
use crate::handover::{Format, ZipMethod};
use crate::payload::indexed::{Indexed, Wrapping};
use crate::payload::{self, FormatError};
use crate::superblock;
use crate::sys::Sys;

/// An image that was opened.
pub struct Opened {
    /// What it is packed in.
    pub format: Format,
    /// Size of that in bytes.
    pub packed_bytes: u64,
    /// The image itself.
    pub image: Window,
}

/// What needs a scratch file is told before it is made, and how far that is.
pub trait Notice {
    /// A line for the user.
    fn tell(&self, line: String);
    /// Something that takes time: what, the bytes that are done, and of how many.
    ///
    /// # Errors
    ///
    /// Somebody wants it to stop.
    fn at(&self, what: &'static str, bytes: u64, total: Option<u64>) -> io::Result<()>;
}

/// Opens the file of an image.
pub fn open(sys: &Sys, path: &str, notice: &dyn Notice) -> Result<Opened> {
    let meta = sys.meta(path)?;
    if meta.is_dir {
        bail!("it is a folder; name the image file in it");
    }
    let mut file = sys.open(path)?;
    // That of a device is not in its metadata.
    let bytes = file.seek(SeekFrom::End(0))?;
    unpack(sys, Window::all(Source::File(file), Some(bytes)), notice)
}

/// Opens what is in `packed`: the file itself, or an image inside of one.
pub fn unpack(sys: &Sys, mut packed: Window, notice: &dyn Notice) -> Result<Opened> {
    let packed_bytes = packed.size().unwrap_or_default();
    let format = match payload::recognise(&mut packed) {
        Ok(format) => format,
        Err(FormatError::Unknown) if is_4kn(&packed)? => bail!(four_kn()),
        Err(FormatError::Unknown) if packed.size() == Some(0) => bail!("it is empty"),
        Err(error) => return Err(error.into()),
    };
    let image = match format {
        Format::Raw => packed,
        Format::Gzip => indexed(Wrapping::Gzip, packed),
        Format::Zip(entry) if entry.method == ZipMethod::Deflate => {
            indexed(Wrapping::Zip(entry), packed)
        }
        Format::Zip(entry) => {
            let mut at = |bytes, _| notice.at("checking", bytes, Some(entry.bytes));
            blocks(format, &packed, &mut at, &mut |_| Ok(()))?;
            packed.part(entry.offset, entry.bytes)
        }
        Format::Xz | Format::Zstd | Format::Bzip2 => {
            let (file, bytes) = scratch(sys, format, packed, notice)?;
            Window::all(Source::File(file), Some(bytes))
        }
    };
    if is_4kn(&image)? {
        bail!(four_kn());
    }
    Ok(Opened {
        format,
        packed_bytes,
        image,
    })
}

fn indexed(wrapping: Wrapping, packed: Window) -> Window {
    let indexed = Indexed::new(wrapping, packed);
    let bytes = indexed.bytes();
    Window::all(Source::Indexed(Box::new(indexed)), bytes)
}

/// A GPT has its header in the second sector, and so tells their size.
fn is_4kn(image: &Window) -> io::Result<bool> {
    let head = image.bytes_at(0, 8192)?;
    Ok(superblock::table_identity(&head, 512).is_none()
        && superblock::table_identity(&head, 4096).is_some())
}

fn four_kn() -> &'static str {
    "its partition table is made for disks with sectors of 4096 bytes, and balenaOS makes none like \
     that; download the image again"
}

/// Unpacks into a file without a name, with holes for zeros. The first of two passes proves the stream
/// and counts, so that the second one has the room it needs.
fn scratch(sys: &Sys, format: Format, packed: Window, notice: &dyn Notice) -> Result<(File, u64)> {
    let (mut bytes, mut need) = (0, 0);
    // Of how many bytes is not known yet.
    let mut measuring = |_, read| notice.at("measuring", read, packed.size());
    blocks(format, &packed, &mut measuring, &mut |block| {
        bytes += block.len() as u64;
        need += if is_zero(block) {
            0
        } else {
            block.len() as u64
        };
        Ok(())
    })?;
    let folder = std::env::temp_dir();
    let folder = folder
        .to_str()
        .ok_or_else(|| anyhow!("TMPDIR is not UTF-8"))?;
    let space = sys
        .statvfs(folder)
        .with_context(|| format!("looking for room in {folder}"))?;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    if need > space.available {
        bail!(
            "it has to be unpacked for this, which takes {} MiB of scratch, and {folder} has {} MiB \
             free; set TMPDIR to a folder with more room, or take the same image as zip or gzip, which \
             need none",
            mib(need),
            space.available >> 20
        );
    }
    notice.tell(format!(
        "unpacking takes {} MiB of scratch in {folder}",
        mib(need)
    ));
    let mut file = sys.scratch().context("making a scratch file")?;
    let mut unpacking = |done, _| notice.at("unpacking", done, Some(bytes));
    blocks(
        format,
        &packed,
        &mut unpacking,
        &mut |block| match is_zero(block) {
            true => file.seek(SeekFrom::Current(block.len() as i64)).map(drop),
            false => file.write_all(block),
        },
    )
    .context("writing the scratch file")?;
    file.set_len(bytes)?;
    Ok((file, bytes))
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// Gives the image to `each` in blocks; `at` is told now and then how many bytes of it are done, and how
/// many of the file were read for that.
fn blocks(
    format: Format,
    packed: &Window,
    at: &mut dyn FnMut(u64, u64) -> io::Result<()>,
    each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    /// The smallest hole of the usual file systems.
    const BLOCK: usize = 4096;
    let read = Rc::new(Cell::new(0));
    let counted = Counted {
        inner: packed.clone(),
        read: Rc::clone(&read),
    };
    let mut stream = payload::decoder(format, counted);
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let filled = payload::read_full(&mut stream, &mut buffer)?;
        if filled == 0 {
            return Ok(());
        }
        for block in buffer[..filled].chunks(BLOCK) {
            each(block)?;
        }
        done += filled as u64;
        at(done, read.get())?;
    }
}

/// Counts what is read through it.
struct Counted {
    inner: Window,
    read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
}
