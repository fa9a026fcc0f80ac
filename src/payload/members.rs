//! Streams of one or more members, one behind the other, as gzip, bzip2, xz and zstd files are.
//!
//! The crates decode one member each; what lies between members and behind the last one is judged
//! here, so that all four formats refuse the same things in the same words.

use std::io::{self, Read};

use super::blocks::{XzMember, ZstdMember};
use super::source::{Source, truncated};

/// What the members are compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// The .xz file format.
    Xz,
    /// RFC 8878.
    Zstd,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Gzip => "gzip",
            Kind::Bzip2 => "bzip2",
            Kind::Xz => "xz",
            Kind::Zstd => "zstd",
        }
    }

    /// What every member starts with.
    pub fn magic(self) -> &'static [u8] {
        match self {
            Kind::Gzip => &[0x1f, 0x8b, 8],
            Kind::Bzip2 => b"BZh",
            Kind::Xz => &[0xfd, b'7', b'z', b'X', b'Z', 0],
            Kind::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
        }
    }
}

/// Whether these bytes start a zstd frame that carries no data; pzstd and others write them.
pub fn is_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// The members of a file as one stream. Reading to the end proves each member's own check, and that
/// nothing but members is in the file.
pub struct Members<R: Read> {
    kind: Kind,
    place: Place<R>,
    /// Memory that the members seen so far took to unpack, in bytes.
    memory: u64,
    /// How the stream ended, when it did: asked again, it must not start anew.
    over: Option<(io::ErrorKind, String)>,
}

enum Place<R: Read> {
    Between(Source<R>),
    Gzip(Box<flate2::bufread::GzDecoder<Source<R>>>),
    Bzip2(bzip2::bufread::BzDecoder<Source<R>>),
    Xz(Box<XzMember<R>>),
    Zstd(Box<ZstdMember<R>>),
    /// Only while one of the others is replaced, and after an error.
    Nowhere,
}

impl<R: Read> Members<R> {
    /// Reads members of `kind` from `compressed`.
    pub fn new(kind: Kind, compressed: R) -> Members<R> {
        Members {
            kind,
            place: Place::Between(Source::new(compressed)),
            memory: 0,
            over: None,
        }
    }

    /// Memory that unpacking took so far beyond small buffers, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    fn step(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let name = self.kind.name();
            let read = match &mut self.place {
                Place::Between(_) => match self.next_member()? {
                    true => continue,
                    false => return Ok(0),
                },
                Place::Gzip(member) => member
                    .read(buf)
                    .map_err(|error| member.get_mut().explain(name, error))?,
                Place::Bzip2(member) => member
                    .read(buf)
                    .map_err(|error| member.get_mut().explain(name, error))?,
                Place::Xz(member) => member.read(buf)?,
                Place::Zstd(member) => member.read(buf)?,
                Place::Nowhere => return Ok(0),
            };
            if read > 0 {
                return Ok(read);
            }
            self.end_member();
        }
    }

    /// From the end of a member to the start of the next one; false at the end of the file.
    fn next_member(&mut self) -> io::Result<bool> {
        let Place::Between(mut source) = std::mem::replace(&mut self.place, Place::Nowhere) else {
            return Ok(false);
        };
        skip_padding(self.kind, &mut source)?;
        let magic = self.kind.magic();
        let head = source.ahead(magic.len())?;
        if head.is_empty() {
            return Ok(false);
        }
        if head != magic {
            return Err(match magic.starts_with(head) {
                true => truncated(self.kind.name()),
                false => io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "the file goes on behind the end of its {} stream (damaged file)",
                        self.kind.name()
                    ),
                ),
            });
        }
        self.place = match self.kind {
            Kind::Gzip => Place::Gzip(Box::new(flate2::bufread::GzDecoder::new(source))),
            Kind::Bzip2 => {
                /// By its manual, 900 KB blocks take 3.7 MB to unpack.
                const BZIP2: u64 = 4 << 20;
                self.memory = self.memory.max(BZIP2);
                Place::Bzip2(bzip2::bufread::BzDecoder::new(source))
            }
            Kind::Xz => Place::Xz(Box::new(XzMember::new(source))),
            Kind::Zstd => Place::Zstd(Box::new(ZstdMember::new(source)?)),
        };
        Ok(true)
    }

    fn end_member(&mut self) {
        let source = match std::mem::replace(&mut self.place, Place::Nowhere) {
            Place::Between(source) => source,
            Place::Gzip(member) => member.into_inner(),
            Place::Bzip2(member) => member.into_inner(),
            Place::Xz(member) => {
                self.memory = self.memory.max(member.memory());
                member.into_source()
            }
            Place::Zstd(member) => {
                self.memory = self.memory.max(member.memory());
                member.into_source()
            }
            Place::Nowhere => return,
        };
        self.place = Place::Between(source);
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some((kind, message)) = &self.over {
            return Err(io::Error::new(*kind, message.clone()));
        }
        if buf.is_empty() {
            return Ok(0);
        }
        let read = self.step(buf);
        if let Err(error) = &read {
            self.over = Some((error.kind(), error.to_string()));
        }
        read
    }
}

/// Skips what may lie between members: zeros in fours for xz, frames without data for zstd.
fn skip_padding<R: Read>(kind: Kind, source: &mut Source<R>) -> io::Result<()> {
    match kind {
        Kind::Gzip | Kind::Bzip2 => {}
        Kind::Xz => {
            while source.ahead(4)? == [0; 4] {
                source.skip(4)?;
            }
        }
        Kind::Zstd => {
            while is_skippable(source.ahead(4)?) {
                let Ok(head) = <[u8; 8]>::try_from(source.ahead(8)?) else {
                    return Err(truncated("zstd"));
                };
                let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
                let whole = 8 + u64::from(len);
                if source.skip(whole)? < whole {
                    return Err(truncated("zstd"));
                }
            }
        }
    }
    Ok(())
}
