//! Zip files: finding the one image in them, and reading it from its place. Nothing is unpacked to
//! disk; stage 2 gets the place in the hand-over and does not look at the zip's directory.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use ::zip::CompressionMethod;
use ::zip::read::ZipArchive;

use super::source::Source;
use crate::handover::{ZipEntry, ZipMethod};

/// What is smaller is a text or a signature beside the image, never a disk image.
const SMALLEST_IMAGE: u64 = 1 << 20;

/// Why there is no image in a zip file that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    /// The file can't be read.
    #[error("{0}")]
    Io(io::Error),
    /// The directory at its end is missing or wrong.
    #[error("the zip file is truncated or damaged: {0}")]
    Directory(::zip::result::ZipError),
    /// There is something behind its end.
    #[error("the file goes on behind the end of the zip (damaged file)")]
    Behind,
    /// Nothing in it is large enough.
    #[error("the zip has no file of 1 MiB or more in it, so no image")]
    NoImage,
    /// Several files could be the image.
    #[error("the zip has more than one file that may be the image: {}", .0.join(", "))]
    Several(Vec<String>),
    /// The image has a password.
    #[error("{0} in the zip is encrypted")]
    Encrypted(String),
    /// Neither stored nor deflate.
    #[error("{0} in the zip is compressed with {1}; only deflate and stored can be read")]
    Method(String, CompressionMethod),
}

/// Finds the image in a zip file; the position in `file` is lost.
pub fn find(file: &mut (impl Read + Seek)) -> Result<ZipEntry, ZipError> {
    let mut archive = ZipArchive::new(&mut *file).map_err(fault)?;
    let candidates = candidates(&mut archive)?;
    let index = match candidates.as_slice() {
        [] => return Err(ZipError::NoImage),
        [(index, _)] => *index,
        several => {
            let names = several.iter().map(|(_, name)| name.clone());
            return Err(ZipError::Several(names.collect()));
        }
    };
    let comment = archive.comment().len() as u64;
    let entry = place(&mut archive, index)?;
    ends_with_directory(file, comment)?;
    Ok(entry)
}

/// Number and name of every entry that may be an image.
fn candidates(
    archive: &mut ZipArchive<impl Read + Seek>,
) -> Result<Vec<(usize, String)>, ZipError> {
    let mut found = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(fault)?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        // What macOS keeps beside each file: its resources, under the same name.
        let is_resource = name.split('/').any(|part| part == "__MACOSX");
        if entry.is_file() && !is_resource && entry.size() >= SMALLEST_IMAGE {
            found.push((index, name));
        }
    }
    Ok(found)
}

fn place(archive: &mut ZipArchive<impl Read + Seek>, index: usize) -> Result<ZipEntry, ZipError> {
    let entry = archive.by_index_raw(index).map_err(fault)?;
    let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
    if entry.encrypted() {
        return Err(ZipError::Encrypted(name));
    }
    let method = match entry.compression() {
        CompressionMethod::Stored => ZipMethod::Stored,
        CompressionMethod::Deflated => ZipMethod::Deflate,
        other => return Err(ZipError::Method(name, other)),
    };
    Ok(ZipEntry {
        offset: entry.data_start().unwrap_or_default(),
        method,
        compressed_bytes: entry.compressed_size(),
        bytes: entry.size(),
        crc32: entry.crc32(),
    })
}

/// The last record of a zip file with its comment is the end of the file (APPNOTE 4.3.16). Readers
/// search backwards for it, so they do not see what was appended.
fn ends_with_directory(file: &mut (impl Read + Seek), comment: u64) -> Result<(), ZipError> {
    let end = file.seek(SeekFrom::End(0)).map_err(ZipError::Io)?;
    let Some(at) = end.checked_sub(22 + comment) else {
        return Err(ZipError::Behind);
    };
    file.seek(SeekFrom::Start(at)).map_err(ZipError::Io)?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).map_err(ZipError::Io)?;
    match magic == *b"PK\x05\x06" {
        true => Ok(()),
        false => Err(ZipError::Behind),
    }
}

fn fault(error: ::zip::result::ZipError) -> ZipError {
    match error {
        ::zip::result::ZipError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            ZipError::Io(error)
        }
        other => ZipError::Directory(other),
    }
}

/// The bytes of an entry; its size and CRC are proven at the end.
pub struct EntryReader<R: Read> {
    entry: ZipEntry,
    crc: flate2::Crc,
    produced: u64,
    content: Content<R>,
}

enum Content<R: Read> {
    /// The entry is further on.
    Ahead(Source<R>),
    Stored(io::Take<Source<R>>),
    Deflate(flate2::bufread::DeflateDecoder<io::Take<Source<R>>>),
    /// Read to the end, or failed; then the message says why.
    Over(Option<String>),
}

impl<R: Read> EntryReader<R> {
    /// Reads an entry from the zip file that starts with the next byte of `file`.
    pub fn new(entry: ZipEntry, file: R) -> EntryReader<R> {
        EntryReader {
            entry,
            crc: flate2::Crc::new(),
            produced: 0,
            content: Content::Ahead(Source::new(file)),
        }
    }

    fn step(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.content {
            Content::Ahead(_) => {
                self.start()?;
                return self.step(buf);
            }
            Content::Stored(content) => content.read(buf)?,
            Content::Deflate(content) => content
                .read(buf)
                .map_err(|error| content.get_mut().get_mut().explain("zip", error))?,
            Content::Over(None) => return Ok(0),
            Content::Over(Some(message)) => return Err(io::Error::other(message.clone())),
        };
        self.crc.update(&buf[..read]);
        self.produced += read as u64;
        if self.produced > self.entry.bytes {
            return Err(self.explain("there is more in it than its directory says"));
        }
        if read == 0 {
            self.check()?;
            self.content = Content::Over(None);
        }
        Ok(read)
    }

    /// Goes to the entry, in a file that can't seek.
    fn start(&mut self) -> io::Result<()> {
        let Content::Ahead(mut source) = std::mem::replace(&mut self.content, Content::Over(None))
        else {
            return Ok(());
        };
        if source.skip(self.entry.offset)? < self.entry.offset {
            return Err(super::source::truncated("zip"));
        }
        let content = source.take(self.entry.compressed_bytes);
        self.content = match self.entry.method {
            ZipMethod::Stored => Content::Stored(content),
            ZipMethod::Deflate => Content::Deflate(flate2::bufread::DeflateDecoder::new(content)),
        };
        Ok(())
    }

    fn check(&mut self) -> io::Result<()> {
        if self.produced != self.entry.bytes {
            let what = format!(
                "it has {} bytes instead of {}",
                self.produced, self.entry.bytes
            );
            return Err(self.explain(&what));
        }
        let left = match &mut self.content {
            Content::Deflate(content) => !content.get_mut().fill_buf()?.is_empty(),
            _ => false,
        };
        if left {
            return Err(self.explain("it ends before its directory says"));
        }
        if self.crc.sum() != self.entry.crc32 {
            return Err(self.explain("its CRC is wrong"));
        }
        Ok(())
    }

    fn explain(&mut self, what: &str) -> io::Error {
        match &mut self.content {
            Content::Stored(content) => content.get_mut().explain("zip", what),
            Content::Deflate(content) => content.get_mut().get_mut().explain("zip", what),
            Content::Ahead(_) | Content::Over(_) => io::Error::other(what.to_owned()),
        }
    }
}

impl<R: Read> Read for EntryReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let read = self.step(buf);
        if let Err(error) = &read {
            self.content = Content::Over(Some(error.to_string()));
        }
        read
    }
}
