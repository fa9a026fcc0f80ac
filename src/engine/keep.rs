//! Keeps files on the disk to overwrite: gets them blocks behind the new system (`blocks`), fills
//! them, and reads them back from the disk itself.

mod blocks;

pub use self::blocks::NoRoom;

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::blocks::Blocks;
use crate::handover::Extent;
use crate::payload::digest::Sha256Writer;
use crate::payload::read_full;
use crate::place::manifest::{NAME, Piece};
use crate::place::{Kept, Manifest};
use crate::step::keep::{Content, Keep, Wanted};
use crate::sys::Sys;
use crate::sys::extents::flags;

/// Bytes copied between two looks at the gate.
const BLOCK: usize = 1 << 20;

/// Puts all files of the step into their places and writes the manifest.
pub fn keep(sys: &Sys, keep: &Keep, say: &mut dyn FnMut(&str)) -> Result<()> {
    sys.make_dir(&keep.folder, 0o700)
        .with_context(|| format!("making {}", keep.folder))?;
    let mut work = Work {
        sys,
        keep,
        say,
        blocks: Blocks::new(sys, keep)?,
    };
    // What must lie in one piece, or near the start, has the choice.
    let (hard, others): (Vec<_>, Vec<_>) = keep
        .files
        .iter()
        .partition(|file| file.contiguous || file.by_firmware);
    let mut manifest = Manifest::default();
    for wanted in hard.into_iter().chain(others) {
        let kept = work
            .keep_file(wanted)
            .with_context(|| format!("keeping `{}` on {}", wanted.name, keep.disk))?;
        manifest.files.insert(wanted.name.clone(), kept);
    }
    work.blocks.remove_spacers()?;
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

/// What is being done.
struct Work<'a> {
    sys: &'a Sys,
    keep: &'a Keep,
    say: &'a mut dyn FnMut(&str),
    blocks: Blocks<'a>,
}

impl Work<'_> {
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
                    (true, Some(sha256)) => self.as_it_is(wanted, path, bytes, sha256)?,
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
    fn as_it_is(
        &self,
        wanted: &Wanted,
        path: &str,
        bytes: u64,
        sha256: &str,
    ) -> Result<Option<Kept>> {
        self.sys
            .sync_file(path)
            .with_context(|| format!("syncing {path}"))?;
        let Ok(extents) = layout_of(self.sys, self.keep, path, bytes, Written::Yes) else {
            return Ok(None);
        };
        if !self.blocks.lies_well(&extents, wanted) {
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
        let mut pieces = self.blocks.allocate(wanted, bytes)?;
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
        if !self.blocks.lies_well(&kept.extents(), wanted) {
            bail!("the file system has moved its blocks");
        }
        (self.say)(&format!("keep `{name}`: read it back from the disk"));
        verify(self.sys, self.keep, &kept)?;
        Ok(kept)
    }
}
