//! The OS image: opening it as a stream, and looking into it without unpacking it.
//!
//! Stage 1 scans the whole image once; stage 2 reads it twice, to verify and to flash.

pub mod digest;
pub mod scan;
pub mod table;

use std::io::{self, Read};

use crate::handover::Format;

/// The uncompressed bytes of an image.
///
/// Reading to the end proves the stream: a truncated file, a wrong checksum of any gzip member
/// and anything but further members after the last one are errors.
pub fn decoder<R: Read>(format: Format, compressed: R) -> Decoder<R> {
    match format {
        Format::Gzip => Decoder::Gzip(GzipStream {
            inner: flate2::read::MultiGzDecoder::new(compressed),
        }),
    }
}

/// What [`decoder`] gives; it can go to another thread if the compressed stream can.
pub enum Decoder<R: Read> {
    /// From gzip.
    Gzip(GzipStream<R>),
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Gzip(stream) => stream.read(buf),
        }
    }
}

/// A multi-member gzip stream whose errors say what is wrong with the file.
pub struct GzipStream<R: Read> {
    inner: flate2::read::MultiGzDecoder<R>,
}

impl<R: Read> Read for GzipStream<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(
                error.kind(),
                "the gzip stream ends too early (truncated file)",
            ),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the gzip stream is damaged: {error}"),
            ),
            _ => error,
        })
    }
}
