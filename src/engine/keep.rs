//! Keeps files on the disk to overwrite: allocates them piece by piece behind the new system,
//! fills them, and reads them back from the disk itself.
//!
//! A file system takes blocks where it likes. What it gives at the wrong place stays allocated as
//! a spacer until the step is done, so that the next piece has to lie elsewhere.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};

use crate::handover::Extent;
use crate::payload::digest::Sha256Writer;
use crate::payload::read_full;
use crate::place::manifest::{NAME, Piece};
use crate::place::{Fit, Kept, Manifest, Region, margin};
use crate::step::keep::{Content, Keep, Wanted};
use crate::sys::Sys;
use crate::sys::extents::flags;

/// Sizes of pieces are multiples of this: of every sector and block.
const UNIT: u64 = 64 << 10;

/// Sizes that are tried when a file does not go into one piece, in bytes.
const SIZES: [u64; 5] = [64 << 20, 32 << 20, 16 << 20, 8 << 20, 4 << 20];

/// Folders in which the whole of a file is tried: file systems spread folders over the disk.
const FOLDERS: usize = 8;

/// Bytes copied between two looks at the gate.
const BLOCK: usize = 1 << 20;

/// The file system has too little room behind the new system, which shows only when it is tried.
#[derive(Debug, thiserror::Error)]
#[error("{}; make room, or try PAYLOAD=memory", self.reason())]
pub struct NoRoom {
    /// Kernel name of the disk.
    disk: String,
    /// The file to keep.
    name: String,
    /// Bytes of it that have a place.
    found: u64,
    /// Bytes of all of it.
    needed: u64,
}

impl NoRoom {
    /// For people, without what they can do.
    pub fn reason(&self) -> String {
        format!(
            "{} has room for {} of the {} MiB of `{}` behind the new system",
            self.disk,
            self.found >> 20,
            self.needed.div_ceil(1 << 20),
            self.name
        )
    }
}

/// Puts all files of the step into their places and writes the manifest.
pub fn keep(sys: &Sys, keep: &Keep, say: &mut dyn FnMut(&str)) -> Result<()> {
    sys.make_dir(&keep.folder, 0o700)
        .with_context(|| format!("making {}", keep.folder))?;
    let mut work = Work::new(sys, keep, say)?;
    // What must lie in one piece has the choice.
    let (one_piece, others): (Vec<_>, Vec<_>) = keep.files.iter().partition(|file| file.contiguous);
    let mut manifest = Manifest::default();
    for wanted in one_piece.into_iter().chain(others) {
        let kept = work
            .keep_file(wanted)
            .with_context(|| format!("keeping `{}` on {}", wanted.name, keep.disk))?;
        manifest.files.insert(wanted.name.clone(), kept);
    }
    work.remove_spacers()?;
    write_manifest(sys, &keep.folder, &manifest)
}

/// Writes the manifest.
fn write_manifest(sys: &Sys, folder: &str, manifest: &Manifest) -> Result<()> {
    let path = format!("{folder}/{NAME}");
    let mut text = serde_json::to_vec_pretty(manifest).expect("plain data serialises");
    text.push(b'\n');
    sys.write_whole(&path, &text, 0o600, None)
        .with_context(|| format!("writing {path}"))
}

/// The manifest that the step wrote.
pub fn read_manifest(sys: &Sys, folder: &str) -> Result<Manifest> {
    let path = format!("{folder}/{NAME}");
    let text = sys.read(&path).with_context(|| format!("reading {path}"))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {path}"))
}

/// Puts `content` into the reserved file `name`, at the same place of the disk, and reads it back from
/// there. The rest of it stays zeros.
pub fn fill_reserved(sys: &Sys, keep: &Keep, name: &str, content: &[u8]) -> Result<Kept> {
    let mut manifest = read_manifest(sys, &keep.folder)?;
    let kept = manifest
        .files
        .get_mut(name)
        .with_context(|| format!("`{name}` is not kept on the disk"))?;
    let room: u64 = kept.pieces.iter().map(|piece| piece.bytes).sum();
    if content.len() as u64 > room {
        bail!(
            "`{name}` has {} bytes, and {room} are reserved for it",
            content.len()
        );
    }
    let mut source = content;
    let (bytes, sha256) = fill(sys, &kept.pieces, &mut source, &mut |_| ())?;
    for piece in &kept.pieces {
        let now = layout_of(sys, keep, &piece.path, piece.bytes, Written::Yes)?;
        if now != piece.extents {
            bail!("{} has moved on the disk", piece.path);
        }
    }
    (kept.bytes, kept.sha256) = (bytes, sha256);
    verify(sys, keep, kept).with_context(|| format!("reading `{name}` back"))?;
    let filled = kept.clone();
    write_manifest(sys, &keep.folder, &manifest)?;
    Ok(filled)
}

/// Whether a file has content in all of its blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Yes,
    NotYet,
}

/// Where a file of the folder's file system is on the disk.
fn layout_of(
    sys: &Sys,
    keep: &Keep,
    path: &str,
    bytes: u64,
    written: Written,
) -> Result<Vec<Extent>> {
    let extents = sys
        .extents(path)
        .with_context(|| format!("asking where {path} is on the disk"))?;
    if written == Written::Yes
        && extents
            .iter()
            .any(|extent| extent.flags & flags::UNWRITTEN != 0 && extent.logical < bytes)
    {
        bail!("{path} is not written to the disk");
    }
    keep.layout
        .file(bytes, &extents)
        .with_context(|| format!("{path} can't be found on the disk"))
}

/// Writes `source` into the pieces, zeros behind its end, and waits for the disk. Returns size
/// and SHA-256 of what `source` had.
fn fill(
    sys: &Sys,
    pieces: &[Piece],
    mut source: &mut dyn Read,
    progress: &mut dyn FnMut(u64),
) -> Result<(u64, String)> {
    let mut hash = Sha256Writer::default();
    let mut bytes = 0;
    let mut block = vec![0; BLOCK];
    for piece in pieces {
        let path = &piece.path;
        let mut file = sys
            .open_in_place(path)
            .with_context(|| format!("opening {path}"))?;
        let mut left = piece.bytes;
        while left > 0 {
            let part = &mut block[..left.min(BLOCK as u64) as usize];
            let read = read_full(&mut source, part).context("reading the source")?;
            hash.write_all(&part[..read])?;
            part[read..].fill(0);
            write_part(sys, &mut file, path, part).with_context(|| format!("writing {path}"))?;
            bytes += read as u64;
            left -= part.len() as u64;
            progress(bytes);
        }
        sys.pass(&format!("syncing {path}"))?;
        file.sync_all().with_context(|| format!("syncing {path}"))?;
    }
    if source.read(&mut block[..1]).context("reading the source")? > 0 {
        bail!("it has grown meanwhile");
    }
    Ok((bytes, hash.hex()))
}

fn write_part(sys: &Sys, file: &mut File, path: &str, part: &[u8]) -> io::Result<()> {
    sys.pass(&format!("writing {path}"))?;
    file.write_all(part)
}

/// Reads a kept file back from the disk, past the file system: it must be what was put there.
fn verify(sys: &Sys, keep: &Keep, kept: &Kept) -> Result<()> {
    let mut hash = Sha256Writer::default();
    let mut left = kept.bytes;
    let ranges: Vec<_> = kept
        .extents()
        .iter()
        .map(|extent| extent.start..extent.end())
        .collect();
    sys.read_raw(&keep.node(), &ranges, &mut |bytes| {
        let len = left.min(bytes.len() as u64);
        left -= len;
        hash.write_all(&bytes[..len as usize])
    })
    .with_context(|| format!("reading {}", keep.node()))?;
    if left > 0 || hash.hex() != kept.sha256 {
        bail!(
            "the mapping is wrong: at its place on {} there is something else",
            keep.disk
        );
    }
    Ok(())
}

/// Where resin-data will end, when it has to grow for the backup, which has its size by now.
fn data_end(sys: &Sys, keep: &Keep) -> Result<Option<u64>> {
    let Some(growth) = &keep.growth else {
        return Ok(keep.image.data_end);
    };
    let backup = match &growth.backup {
        Some(path) => {
            sys.meta(path)
                .with_context(|| format!("measuring {path}"))?
                .bytes
        }
        None => 0,
    };
    Ok(growth.data.end_for(backup + growth.others)?)
}

/// What is being done, and the spacers so far.
struct Work<'a> {
    sys: &'a Sys,
    keep: &'a Keep,
    say: &'a mut dyn FnMut(&str),
    region: Region,
    /// What must stay free, in bytes.
    margin: u64,
    /// Folders for pieces.
    folders: Vec<String>,
    /// Pieces at the wrong place.
    spacers: Vec<String>,
    /// Counts the pieces, for their names.
    number: usize,
}

impl<'a> Work<'a> {
    fn new(sys: &'a Sys, keep: &'a Keep, say: &'a mut dyn FnMut(&str)) -> Result<Work<'a>> {
        let space = sys
            .statvfs(&keep.folder)
            .with_context(|| format!("measuring {}", keep.folder))?;
        let mut folders = Vec::new();
        sys.spread_folders(&keep.folder)
            .with_context(|| format!("marking {}", keep.folder))?;
        for number in 0..FOLDERS {
            let folder = format!("{}/{number}", keep.folder);
            sys.make_dir(&folder, 0o700)
                .with_context(|| format!("making {folder}"))?;
            folders.push(folder);
        }
        Ok(Work {
            sys,
            keep,
            say,
            region: Region::behind(keep.image.bytes, data_end(sys, keep)?, keep.disk_bytes),
            margin: margin(space.bytes),
            folders,
            spacers: Vec::new(),
            number: 0,
        })
    }

    fn keep_file(&mut self, wanted: &Wanted) -> Result<Kept> {
        match &wanted.content {
            Content::Copy {
                path,
                sha256,
                in_place,
            } => {
                let bytes = self
                    .sys
                    .meta(path)
                    .with_context(|| format!("reading {path}"))?
                    .bytes;
                let as_it_is = match (in_place, sha256) {
                    (true, Some(sha256)) => self.as_it_is(path, bytes, sha256)?,
                    _ => None,
                };
                match as_it_is {
                    Some(kept) => Ok(kept),
                    None => {
                        let source = self
                            .sys
                            .open(path)
                            .with_context(|| format!("opening {path}"))?;
                        self.copy(wanted, source, bytes, sha256.as_deref())
                            .with_context(|| format!("copying {path}"))
                    }
                }
            }
            Content::Reserved { bytes } => {
                self.copy(wanted, io::repeat(0).take(*bytes), *bytes, None)
            }
        }
    }

    /// The user's own file, when all of it lies in the region.
    fn as_it_is(&self, path: &str, bytes: u64, sha256: &str) -> Result<Option<Kept>> {
        self.sys
            .sync_file(path)
            .with_context(|| format!("syncing {path}"))?;
        let Ok(extents) = layout_of(self.sys, self.keep, path, bytes, Written::Yes) else {
            return Ok(None);
        };
        if self.region.fit(&extents, self.keep.sector_bytes) != Fit::Inside {
            return Ok(None);
        }
        let kept = Kept {
            bytes,
            sha256: sha256.to_owned(),
            pieces: vec![Piece {
                path: path.to_owned(),
                bytes,
                extents,
            }],
        };
        verify(self.sys, self.keep, &kept)?;
        Ok(Some(kept))
    }

    /// Pieces for `bytes`, filled from `source` and read back.
    fn copy(
        &mut self,
        wanted: &Wanted,
        mut source: impl Read,
        bytes: u64,
        sha256: Option<&str>,
    ) -> Result<Kept> {
        let mut pieces = self.allocate(wanted, bytes)?;
        let mut last = Instant::now();
        let name = &wanted.name;
        let say = &mut *self.say;
        let mut progress = |done: u64| {
            /// Between two words about the progress.
            const PAUSE: Duration = Duration::from_secs(10);
            if last.elapsed() >= PAUSE {
                last = Instant::now();
                say(&format!(
                    "keep `{name}`: {} of {} MiB copied",
                    done >> 20,
                    bytes.div_ceil(1 << 20)
                ));
            }
        };
        let (copied, hash) = fill(self.sys, &pieces, &mut source, &mut progress)?;
        if copied != bytes || sha256.is_some_and(|sha256| sha256 != hash) {
            bail!("it has changed since the plan was made; run again");
        }
        for piece in &mut pieces {
            // Content may have given the file other blocks than the empty one had.
            piece.extents = layout_of(self.sys, self.keep, &piece.path, piece.bytes, Written::Yes)?;
        }
        let kept = Kept {
            bytes,
            sha256: hash,
            pieces,
        };
        let extents = kept.extents();
        let fits = self.region.fit(&extents, self.keep.sector_bytes) == Fit::Inside;
        if !fits || (wanted.contiguous && extents.len() != 1) {
            bail!("the file system has moved its blocks");
        }
        (self.say)(&format!("keep `{name}`: read it back from the disk"));
        verify(self.sys, self.keep, &kept)?;
        Ok(kept)
    }

    /// Allocates pieces in the region that have `bytes` together.
    fn allocate(&mut self, wanted: &Wanted, bytes: u64) -> Result<Vec<Piece>> {
        let whole = bytes.max(1).next_multiple_of(UNIT);
        if let Some(piece) = self.whole_in_some_folder(wanted, whole)? {
            return Ok(vec![piece]);
        }
        let mut sizes: Vec<u64> = vec![whole];
        if !wanted.contiguous {
            sizes.extend(SIZES.iter().filter(|size| **size < whole));
        }
        let (mut pieces, mut found) = (Vec::new(), 0);
        let mut sizes = sizes.into_iter().peekable();
        while found < whole {
            let Some(size) = sizes.peek() else {
                return Err(Error::new(NoRoom {
                    disk: self.keep.disk.clone(),
                    name: wanted.name.clone(),
                    found,
                    needed: whole,
                }));
            };
            match self.piece(wanted, whole - found, *size)? {
                Attempt::Kept(piece) => {
                    found += piece.bytes;
                    pieces.push(piece);
                }
                Attempt::Elsewhere => (),
                Attempt::NoRoom => {
                    sizes.next();
                }
            }
        }
        Ok(pieces)
    }

    /// A cheap first try: new folders get places of their own on the disk.
    fn whole_in_some_folder(&mut self, wanted: &Wanted, whole: u64) -> Result<Option<Piece>> {
        for number in 0..self.folders.len() {
            let folder = self.folders[number].clone();
            let Some(path) = self.allocate_file(&folder, wanted, whole)? else {
                return Ok(None);
            };
            match self.judge(&path, whole, wanted)? {
                (Fit::Inside, extents) => {
                    return Ok(Some(Piece {
                        path,
                        bytes: whole,
                        extents,
                    }));
                }
                _ => self.remove(&path)?,
            }
        }
        Ok(None)
    }

    /// One more piece of at most `most` bytes, for the `left` ones. One at the wrong place becomes a
    /// spacer if that leaves room for what is left. One that is partly at the right place is given
    /// back, so that smaller ones can have the good part.
    fn piece(&mut self, wanted: &Wanted, left: u64, most: u64) -> Result<Attempt> {
        let bytes = left.min(most);
        let folder = self.folders[0].clone();
        let Some(path) = self.allocate_file(&folder, wanted, bytes)? else {
            return Ok(Attempt::NoRoom);
        };
        let smallest = wanted.contiguous || bytes <= SIZES[SIZES.len() - 1];
        let (fit, extents) = self.judge(&path, bytes, wanted)?;
        let is_spacer = match fit {
            Fit::Inside => {
                return Ok(Attempt::Kept(Piece {
                    path,
                    bytes,
                    extents,
                }));
            }
            Fit::Partly => smallest,
            Fit::Outside => true,
        };
        if is_spacer && self.free(&folder)?.saturating_sub(left) >= self.margin {
            self.spacers.push(path);
            return Ok(Attempt::Elsewhere);
        }
        self.remove(&path)?;
        Ok(Attempt::NoRoom)
    }

    /// Free bytes of the file system.
    fn free(&self, folder: &str) -> Result<u64> {
        let space = self.sys.statvfs(folder);
        Ok(space.with_context(|| format!("measuring {folder}"))?.free)
    }

    /// How an allocated file lies, and where.
    fn judge(&self, path: &str, bytes: u64, wanted: &Wanted) -> Result<(Fit, Vec<Extent>)> {
        let extents = layout_of(self.sys, self.keep, path, bytes, Written::NotYet)?;
        let fit = match self.region.fit(&extents, self.keep.sector_bytes) {
            Fit::Inside if wanted.contiguous && extents.len() != 1 => Fit::Partly,
            fit => fit,
        };
        Ok((fit, extents))
    }

    /// Allocates a file; `None` when the file system has no room for it beside the margin.
    fn allocate_file(
        &mut self,
        folder: &str,
        wanted: &Wanted,
        bytes: u64,
    ) -> Result<Option<String>> {
        if self.free(folder)?.saturating_sub(bytes) < self.margin {
            return Ok(None);
        }
        let path = format!("{folder}/{}.{}", wanted.name, self.number);
        self.number += 1;
        match self.sys.allocate(&path, bytes) {
            Ok(()) => Ok(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.remove(&path)?;
                Ok(None)
            }
            Err(error) => Err(anyhow!(error).context(format!("allocating {path}"))),
        }
    }

    fn remove_spacers(&mut self) -> Result<()> {
        for path in std::mem::take(&mut self.spacers) {
            self.remove(&path)?;
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.sys
            .remove_file(path)
            .with_context(|| format!("removing {path}"))
    }
}

/// What became of a piece.
enum Attempt {
    Kept(Piece),
    Elsewhere,
    NoRoom,
}
