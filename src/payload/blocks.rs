//! One xz stream and one zstd frame, which need memory as large as their headers say. Called by
//! [`super::members`].

use std::io::{self, BufRead, Read};

use lzma_rust2::{Action, Status, XzStream};
use zstd::stream::raw::{Decoder, Operation};
use zstd::zstd_safe::{DParameter, InBuffer, OutBuffer};

use super::source::Source;

/// The largest dictionary or window that is unpacked. `xz -9` takes 64 MiB, `zstd --ultra -22` takes
/// 128; more is for archives on large machines.
const LARGEST: u64 = 256 << 20;

/// The longest header of a zstd frame, with its magic number.
const HEADER: usize = 18;

/// What a decoder takes beside its dictionary or window.
const EXTRA: u64 = 1 << 20;

fn too_large(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "its {name} stream takes more than {} MiB of memory to unpack; compress it again \
             without extreme options",
            LARGEST >> 20
        ),
    )
}

/// One xz stream with all its blocks.
pub struct XzMember<R: Read> {
    source: Source<R>,
    stream: XzStream,
    ended: bool,
}

impl<R: Read> XzMember<R> {
    /// The stream that `source` is at the start of.
    pub fn new(source: Source<R>) -> XzMember<R> {
        let kib = (LARGEST + EXTRA) >> 10;
        XzMember {
            source,
            stream: XzStream::new_mem_limit(false, kib as u32),
            ended: false,
        }
    }

    /// Memory that the last block took, in bytes.
    pub fn memory(&self) -> u64 {
        u64::from(self.stream.memory_usage().unwrap_or(0)) << 10
    }

    /// The source behind the stream, once all of it was read.
    pub fn into_source(self) -> Source<R> {
        self.source
    }
}

impl<R: Read> Read for XzMember<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let input = self.source.fill_buf()?;
            let action = match input.is_empty() {
                true => Action::Finish,
                false => Action::Run,
            };
            let done = match self.stream.process(input, buf, action) {
                Ok(done) => done,
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                    return Err(too_large("xz"));
                }
                Err(error) => return Err(self.source.explain("xz", error)),
            };
            self.source.consume(done.bytes_consumed);
            self.ended = done.status == Status::StreamEnd;
            if done.bytes_produced > 0 {
                return Ok(done.bytes_produced);
            }
            if action == Action::Finish && !self.ended {
                return Err(super::source::truncated("xz"));
            }
        }
        Ok(0)
    }
}

/// One zstd frame.
pub struct ZstdMember<R: Read> {
    source: Source<R>,
    decoder: Decoder<'static>,
    window: u64,
    ended: bool,
}

impl<R: Read> ZstdMember<R> {
    /// The frame that `source` is at the start of.
    pub fn new(mut source: Source<R>) -> io::Result<ZstdMember<R>> {
        let window = window(source.ahead(HEADER)?);
        if window > LARGEST {
            return Err(too_large("zstd"));
        }
        let mut decoder = Decoder::new()?;
        // The header is judged above; this is for the case that the two do not read it alike.
        decoder.set_parameter(DParameter::WindowLogMax(LARGEST.ilog2()))?;
        Ok(ZstdMember {
            source,
            decoder,
            window,
            ended: false,
        })
    }

    /// Memory that the frame takes, in bytes.
    pub fn memory(&self) -> u64 {
        self.window + EXTRA
    }

    /// The source behind the frame, once all of it was read.
    pub fn into_source(self) -> Source<R> {
        self.source
    }
}

impl<R: Read> Read for ZstdMember<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let input = self.source.fill_buf()?;
            let at_end = input.is_empty();
            let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(&mut *buf));
            let done = self.decoder.run(&mut from, &mut to);
            let (consumed, produced) = (from.pos(), to.pos());
            self.source.consume(consumed);
            match done {
                Ok(more) => self.ended = more == 0,
                Err(error) => return Err(self.source.explain("zstd", error)),
            }
            if produced > 0 {
                return Ok(produced);
            }
            if at_end && !self.ended {
                return Err(super::source::truncated("zstd"));
            }
        }
        Ok(0)
    }
}

/// The window that a frame header asks for, in bytes (RFC 8878, 3.1.1.1); what is missing counts as 0.
fn window(header: &[u8]) -> u64 {
    let at = |index: usize| header.get(index).copied().unwrap_or(0);
    let descriptor = at(4);
    if descriptor & 0x20 == 0 {
        let (exponent, mantissa) = (at(5) >> 3, u64::from(at(5) & 7));
        let base = 1u64 << (10 + exponent);
        return base + base / 8 * mantissa;
    }
    // A single segment: the window is the content, and its size lies behind the dictionary's number.
    let start = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let len = 1 << (descriptor >> 6);
    let size = (0..len).fold(0u64, |size, index| {
        size | u64::from(at(start + index)) << (8 * index)
    });
    match len {
        2 => size + 256,
        _ => size,
    }
}
