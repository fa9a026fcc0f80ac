//! The OS image: opening it as a stream, and looking into it without unpacking it.
//!
//! Stage 1 scans the whole image once; stage 2 reads it twice, to verify and to flash; `extract` goes
//! back and forth in it.

mod blocks;
mod boot_files;
pub mod digest;
pub mod indexed;
mod members;
pub mod scan;
mod source;
pub mod table;
pub mod zip;

use std::io::{self, Read, Seek, SeekFrom};

use crate::handover::Format;
use crate::superblock;
use members::{Kind, Members};

/// Why a file is not taken for an image file.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Its first bytes are not known here.
    #[error("it is neither compressed with gzip, zip, xz, zstd or bzip2 nor a raw disk image")]
    Unknown,
    /// It can't be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is a zip file without an image that can be read.
    #[error(transparent)]
    Zip(#[from] zip::ZipError),
}

/// Finds out by content what a file is; afterwards it is at its start again.
pub fn recognise(file: &mut (impl Read + Seek)) -> Result<Format, FormatError> {
    /// As much of a GPT disk as [`superblock::table_identity`] wants to see.
    const HEAD: u64 = 1024;
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head)?;
    let starts = |kind: Kind| head.starts_with(kind.magic());
    let format = if starts(Kind::Gzip) {
        Format::Gzip
    } else if starts(Kind::Bzip2) {
        Format::Bzip2
    } else if starts(Kind::Xz) {
        Format::Xz
    } else if starts(Kind::Zstd) || members::is_skippable(&head) {
        Format::Zstd
    } else if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        Format::Zip(zip::find(file)?)
    } else if superblock::table_identity(&head, table::SECTOR as u32).is_some() {
        Format::Raw
    } else {
        return Err(FormatError::Unknown);
    };
    file.seek(SeekFrom::Start(0))?;
    Ok(format)
}

/// Reads until `buffer` is full or the stream ends; says how much it read.
pub fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match source.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The uncompressed bytes of an image, from the whole file as a stream.
///
/// Reading to the end proves the stream: a truncated file, a wrong checksum of any part, and anything
/// but further parts of the same kind behind the last one are errors.
pub fn decoder<R: Read>(format: Format, file: R) -> Decoder<R> {
    match format {
        Format::Raw => Decoder::Raw(file),
        Format::Gzip => Decoder::Members(Box::new(Members::new(Kind::Gzip, file))),
        Format::Bzip2 => Decoder::Members(Box::new(Members::new(Kind::Bzip2, file))),
        Format::Xz => Decoder::Members(Box::new(Members::new(Kind::Xz, file))),
        Format::Zstd => Decoder::Members(Box::new(Members::new(Kind::Zstd, file))),
        Format::Zip(entry) => Decoder::Zip(Box::new(zip::EntryReader::new(entry, file))),
    }
}

/// What [`decoder`] gives; it can go to another thread if the file can.
pub enum Decoder<R: Read> {
    /// As it is.
    Raw(R),
    /// From gzip, bzip2, xz or zstd.
    Members(Box<Members<R>>),
    /// From an entry of a zip file.
    Zip(Box<zip::EntryReader<R>>),
}

impl<R: Read> Decoder<R> {
    /// Memory that unpacking took so far beyond small buffers, in bytes.
    pub fn memory(&self) -> u64 {
        match self {
            Decoder::Members(members) => members.memory(),
            Decoder::Raw(_) | Decoder::Zip(_) => 0,
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Raw(file) => file.read(buf),
            Decoder::Members(members) => members.read(buf),
            Decoder::Zip(entry) => entry.read(buf),
        }
    }
}
