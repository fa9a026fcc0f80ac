//! One xz stream and one zstd frame, which need memory as large as their headers say. Called by
//! [`super::members`].

use std::io::{self, BufRead, Read};

use lzma_rust2::{Action, Status, XzStream};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::source::Source;

/// The largest dictionary or window that is unpacked. `xz -9` takes 64 MiB, `zstd --ultra -22` takes
/// 128; more is for archives on large machines.
const LARGEST: u64 = 256 << 20;

/// The longest header of a zstd frame, with its magic number.
const HEADER: usize = 18;

/// What an xz decoder takes beside its dictionary.
const XZ_EXTRA: u64 = 1 << 20;

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
        let kib = (LARGEST + XZ_EXTRA) >> 10;
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
    decoder: FrameDecoder,
    window: u64,
    produced: u64,
}

impl<R: Read> ZstdMember<R> {
    /// The frame that `source` is at the start of.
    pub fn new(mut source: Source<R>) -> io::Result<ZstdMember<R>> {
        let window = window(source.ahead(HEADER)?);
        if window > LARGEST {
            return Err(too_large("zstd"));
        }
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(LARGEST);
        if let Err(error) = decoder.init(&mut source) {
            return Err(source.explain("zstd", error));
        }
        Ok(ZstdMember {
            source,
            decoder,
            window,
            produced: 0,
        })
    }

    /// Memory that the frame takes, in bytes: the decoder's ring of bytes grows in powers of two.
    pub fn memory(&self) -> u64 {
        2 * self.window
    }

    /// The source behind the frame, once all of it was read.
    pub fn into_source(self) -> Source<R> {
        self.source
    }

    /// What the frame says of itself must be so.
    fn check(&mut self) -> io::Result<()> {
        let said = self.decoder.content_size();
        if said != 0 && said != self.produced {
            let what = format!("it has {} bytes instead of {said}", self.produced);
            return Err(self.source.explain("zstd", what));
        }
        if let Some(said) = self.decoder.get_checksum_from_data()
            && self.decoder.get_calculated_checksum() != Some(said)
        {
            return Err(self.source.explain("zstd", "its checksum is wrong"));
        }
        Ok(())
    }
}

impl<R: Read> Read for ZstdMember<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.decoder.can_collect() == 0 {
            if self.decoder.is_finished() {
                self.check()?;
                return Ok(0);
            }
            let one = BlockDecodingStrategy::UptoBlocks(1);
            if let Err(error) = self.decoder.decode_blocks(&mut self.source, one) {
                return Err(self.source.explain("zstd", error));
            }
        }
        let read = self.decoder.read(buf)?;
        self.produced += read as u64;
        Ok(read)
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
