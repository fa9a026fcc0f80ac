//! What the OS image is written as: pieces that are packed on all cores.

use std::io::{self, Write};
use std::thread;

use crate::packer::{Packer, gzip_member};

/// Bytes in a piece: enough that starting anew costs less than a hundredth of the size.
const PIECE: usize = 2 << 20;

/// What the image is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// gzip, which the older tools take too.
    Gz,
    /// zstd, smaller and faster to unpack.
    Zst,
    /// As it is.
    Raw,
}

impl Packing {
    /// The one of that name.
    pub fn find(name: &str) -> Option<Packing> {
        match name {
            "gz" => Some(Packing::Gz),
            "zst" => Some(Packing::Zst),
            "raw" => Some(Packing::Raw),
            _ => None,
        }
    }

    /// What names of such files end in.
    pub fn suffix(self) -> &'static str {
        match self {
            Packing::Gz => ".gz",
            Packing::Zst => ".zst",
            Packing::Raw => "",
        }
    }

    fn pack(self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Packing::Gz => gzip_member(&piece),
            Packing::Zst => {
                /// Three times as fast as gzip here, and smaller.
                const LEVEL: i32 = 9;
                let mut zstd = zstd::bulk::Compressor::new(LEVEL)?;
                zstd.include_checksum(true)?;
                zstd.compress(&piece)
            }
            Packing::Raw => Ok(piece),
        }
    }
}

/// Packs what is written to it into `to`.
///
/// # Errors
///
/// When a thread can't be started.
pub fn packer<W: Write>(packing: Packing, to: W) -> io::Result<Packer<W>> {
    let threads = match packing {
        Packing::Raw => 0,
        _ => thread::available_parallelism().map_or(1, usize::from),
    };
    Packer::new(to, PIECE, threads, move |piece| packing.pack(piece))
}
