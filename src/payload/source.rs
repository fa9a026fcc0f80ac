//! The compressed file as the decoders read it: buffered, with a look ahead, and with a memory of
//! how reading ended. What went wrong is told by that and not by the texts of six crates.

use std::io::{self, BufRead, Read};

/// Bytes read at once: enough to keep the calls few, little enough to stay in the processor's cache.
const BUFFER: usize = 256 << 10;

/// A buffered reader that remembers whether its end was seen, and what failed.
pub struct Source<R> {
    inner: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// A decoder asked for more when there was no more.
    ended: bool,
    /// The file could not be read.
    failed: Option<io::Error>,
}

impl<R: Read> Source<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> Source<R> {
        Source {
            inner,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            ended: false,
            failed: None,
        }
    }

    /// The next bytes without consuming them: `count`, or fewer before the end of the file.
    pub fn ahead(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.end - self.start < count {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            while self.end < count && self.fill()? > 0 {}
        }
        let end = self.end.min(self.start + count);
        Ok(&self.buffer[self.start..end])
    }

    /// Consumes `count` bytes; says how many of them were there.
    pub fn skip(&mut self, count: u64) -> io::Result<u64> {
        io::copy(&mut self.by_ref().take(count), &mut io::sink())
    }

    /// The error for a decoder that gave up: `damage` in the stream called `name`, unless the file
    /// could not be read or is too short.
    pub fn explain(&mut self, name: &str, damage: impl std::fmt::Display) -> io::Error {
        if let Some(error) = self.failed.take() {
            return error;
        }
        if self.ended {
            return truncated(name);
        }
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the {name} stream is damaged: {damage}"),
        )
    }

    fn fill(&mut self) -> io::Result<usize> {
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(read) => {
                    self.end += read;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The decoders wrap this one, or replace it.
                    self.failed = Some(io::Error::new(error.kind(), error.to_string()));
                    return Err(error);
                }
            }
        }
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.ended = self.fill()? == 0;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let count = ready.len().min(buf.len());
        buf[..count].copy_from_slice(&ready[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// The error for a stream that goes on behind the end of its file.
pub fn truncated(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("the {name} stream ends too early (truncated file)"),
    )
}
