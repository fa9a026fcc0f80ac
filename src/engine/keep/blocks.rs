//! Gets files blocks behind the new system, piece by piece.
//!
//! A file system takes blocks where it likes. What it gives at the wrong place stays allocated as
//! a spacer until the step is done, so that the next piece has to lie elsewhere.

use std::io;

use anyhow::{Context, Error, Result, anyhow};

use super::{Written, layout_of};
use crate::handover::Extent;
use crate::place::manifest::Piece;
use crate::place::{Fit, Region, margin};
use crate::step::keep::{Keep, Wanted};
use crate::sys::Sys;

/// Sizes of pieces are multiples of this: of every sector and block.
const UNIT: u64 = 64 << 10;

/// Sizes that are tried when a file does not go into one piece, in bytes.
const SIZES: [u64; 5] = [64 << 20, 32 << 20, 16 << 20, 8 << 20, 4 << 20];

/// Folders in which the whole of a file is tried: file systems spread folders over the disk.
const FOLDERS: usize = 8;

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

/// The file system, and what it has given so far.
pub struct Blocks<'a> {
    sys: &'a Sys,
    keep: &'a Keep,
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

impl<'a> Blocks<'a> {
    /// Of the file system that the step's folder is on.
    pub fn new(sys: &'a Sys, keep: &'a Keep) -> Result<Blocks<'a>> {
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
        Ok(Blocks {
            sys,
            keep,
            region: Region::behind(keep.image.bytes, data_end(sys, keep)?, keep.disk_bytes),
            margin: margin(space.bytes),
            folders,
            spacers: Vec::new(),
            number: 0,
        })
    }

    /// Whether all of a file's blocks are where they must be.
    pub fn lies_well(&self, extents: &[Extent], wanted: &Wanted) -> bool {
        self.fit(extents, wanted) == Fit::Inside
    }

    /// How the blocks of a file lie to where they must be.
    fn fit(&self, extents: &[Extent], wanted: &Wanted) -> Fit {
        let sector_bytes = self.keep.sector_bytes;
        let region = match wanted.by_firmware {
            true => self.region.in_reach_of_firmware(sector_bytes),
            false => self.region,
        };
        match region.fit(extents, sector_bytes) {
            Fit::Inside if wanted.contiguous && extents.len() != 1 => Fit::Partly,
            fit => fit,
        }
    }

    /// Allocates pieces in the region that have `bytes` together.
    pub fn allocate(&mut self, wanted: &Wanted, bytes: u64) -> Result<Vec<Piece>> {
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
        Ok((self.fit(&extents, wanted), extents))
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

    pub fn remove_spacers(&mut self) -> Result<()> {
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

/// What became of a piece.
enum Attempt {
    Kept(Piece),
    Elsewhere,
    NoRoom,
}
