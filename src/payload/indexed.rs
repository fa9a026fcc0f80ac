//! The deflate stream of a zip entry or of a gzip file, read at any place without unpacking it to disk.
//!
//! The first pass over the stream leaves points to go on from: the state of the decoder and the
//! 32 KiB that it may refer to. Whoever asks for a page behind the frontier starts at the last point
//! before it. CRC and size are proven at the frontier, so each byte counts once. Called by
//! [`crate::extract`].

use std::io;

use flate2::Crc;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::source::truncated;
use crate::handover::ZipEntry;

/// Bytes in a page, the unit in which the stream is read.
pub const PAGE: usize = 1 << 20;

/// A point is kept every so many pages. Each takes 43 KiB, so 5 MiB for 1 GiB of image.
const SPACING: u64 = 8;

/// What a deflate stream can refer back to (RFC 1951).
const WINDOW: usize = 32 << 10;

/// Bytes of the file that are read at once.
const INPUT: usize = 128 << 10;

/// A file, or something inside one, that is read at any place.
pub trait ReadAt {
    /// Reads at `offset` as much as there is, up to `buf`; 0 at the end.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

/// What surrounds the deflate stream.
#[derive(Debug, Clone, Copy)]
pub enum Wrapping {
    /// An entry of a zip file.
    Zip(ZipEntry),
    /// Members of a gzip file.
    Gzip,
}

/// The uncompressed bytes, by pages.
pub struct Indexed<R> {
    file: R,
    wrapping: Wrapping,
    live: Live,
    points: Vec<Point>,
    proof: Proof,
}

/// The decoder at some place.
struct Live {
    state: Box<DecompressorOxide>,
    ring: Vec<u8>,
    input: Vec<u8>,
    used: usize,
    /// Where the input behind what is in memory starts.
    offset: u64,
    /// The page to come.
    page: u64,
    phase: Phase,
}

impl Live {
    /// Bytes of the file before the next one to be used.
    fn consumed(&self) -> u64 {
        self.offset - (self.input.len() - self.used) as u64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before a gzip header, or at the end of the file.
    Header,
    Body,
    Over,
}

/// Where to go on from, at the start of a page.
struct Point {
    page: u64,
    state: Box<DecompressorOxide>,
    window: Box<[u8]>,
    offset: u64,
    phase: Phase,
}

/// Told how far the frontier is after each page; an error stops the reading.
pub type Seen<'a> = &'a mut dyn FnMut(Way) -> io::Result<()>;

/// How far the frontier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Uncompressed bytes.
    pub bytes: u64,
    /// Bytes of the file up to where they end.
    pub packed: u64,
}

/// What was seen up to the frontier.
#[derive(Default)]
struct Proof {
    pages: u64,
    /// Bytes of the file.
    packed: u64,
    crc: Crc,
    total: u64,
    over: bool,
}

impl<R: ReadAt> Indexed<R> {
    /// The stream in `file`.
    pub fn new(wrapping: Wrapping, file: R) -> Indexed<R> {
        let (offset, phase) = match wrapping {
            Wrapping::Zip(entry) => (entry.offset, Phase::Body),
            Wrapping::Gzip => (0, Phase::Header),
        };
        Indexed {
            file,
            wrapping,
            live: Live {
                state: Box::default(),
                ring: vec![0; PAGE],
                input: Vec::new(),
                used: 0,
                offset,
                page: 0,
                phase,
            },
            points: Vec::new(),
            proof: Proof::default(),
        }
    }

    /// Size of the uncompressed bytes, where it is known.
    pub fn bytes(&self) -> Option<u64> {
        match self.wrapping {
            Wrapping::Zip(entry) => Some(entry.bytes),
            Wrapping::Gzip => self.proof.over.then_some(self.proof.total),
        }
    }

    /// The file that the stream is in.
    pub fn file(&self) -> &R {
        &self.file
    }

    /// How far it was read; it never goes back.
    pub fn way(&self) -> Way {
        Way {
            bytes: self.proof.total,
            packed: self.proof.packed,
        }
    }

    /// The bytes of a page: fewer than [`PAGE`] at the end, none behind it.
    ///
    /// # Errors
    ///
    /// A file that can't be read, ends too early, or is damaged, as far as it was read for this; and what
    /// `seen` gives.
    pub fn page(&mut self, number: u64, seen: Seen) -> io::Result<&[u8]> {
        self.go_to(number);
        while self.live.page < number {
            if self.step()? == 0 {
                return Ok(&[]);
            }
            seen(self.way())?;
        }
        let filled = self.step()?;
        Ok(&self.live.ring[..filled])
    }

    /// Reads what was not read yet: afterwards CRC and size are proven, and that nothing is behind.
    pub fn prove(&mut self, seen: Seen) -> io::Result<()> {
        while !self.proof.over {
            self.page(self.proof.pages, seen)?;
            seen(self.way())?;
        }
        Ok(())
    }

    /// Goes to the last point before a page, unless the decoder is nearer to it.
    fn go_to(&mut self, page: u64) {
        let after = self.points.partition_point(|point| point.page <= page);
        // The first page always has one: it was the first to be read.
        let Some(point) = after.checked_sub(1).map(|index| &self.points[index]) else {
            return;
        };
        if (point.page..=page).contains(&self.live.page) {
            return;
        }
        self.live.state = point.state.clone();
        self.live.ring[PAGE - WINDOW..].copy_from_slice(&point.window);
        self.live.input.clear();
        self.live.used = 0;
        self.live.offset = point.offset;
        self.live.page = point.page;
        self.live.phase = point.phase;
    }

    /// Unpacks the next page into the ring; says how many bytes it has.
    fn step(&mut self) -> io::Result<usize> {
        self.keep_point();
        let at_frontier = self.live.page == self.proof.pages && !self.proof.over;
        let mut filled = 0;
        while filled < PAGE && self.live.phase != Phase::Over {
            if self.live.phase == Phase::Header {
                self.header()?;
                continue;
            }
            let is_all = !self.fill(1)?;
            let flags = if is_all { 0 } else { TINFL_FLAG_HAS_MORE_INPUT };
            let live = &mut self.live;
            let input = &live.input[live.used..];
            let (status, used, made) =
                decompress(&mut live.state, input, &mut live.ring, filled, flags);
            live.used += used;
            if at_frontier {
                self.proof.crc.update(&live.ring[filled..filled + made]);
                self.proof.total += made as u64;
            }
            filled += made;
            match status {
                TINFLStatus::Done => self.end_member(at_frontier)?,
                TINFLStatus::HasMoreOutput | TINFLStatus::NeedsMoreInput => {}
                TINFLStatus::FailedCannotMakeProgress => return Err(truncated(self.name())),
                _ => return Err(self.damaged("invalid deflate data")),
            }
        }
        if at_frontier {
            self.proof.pages += u64::from(filled > 0);
            self.proof.packed = self.live.consumed();
            self.proof.over = self.live.phase == Phase::Over;
        }
        self.live.page += u64::from(filled > 0);
        Ok(filled)
    }

    fn keep_point(&mut self) {
        let page = self.live.page;
        let is_known = self.points.last().is_some_and(|last| last.page >= page);
        if !page.is_multiple_of(SPACING) || is_known {
            return;
        }
        let live = &self.live;
        self.points.push(Point {
            page,
            state: live.state.clone(),
            window: live.ring[PAGE - WINDOW..].into(),
            offset: live.consumed(),
            phase: live.phase,
        });
    }

    /// Makes `count` bytes of input ready; false when the file, or the entry, ends before.
    fn fill(&mut self, count: usize) -> io::Result<bool> {
        let live = &mut self.live;
        while live.input.len() - live.used < count {
            live.input.drain(..live.used);
            live.used = 0;
            let left = match self.wrapping {
                Wrapping::Zip(entry) => {
                    let end = entry.offset.saturating_add(entry.compressed_bytes);
                    end.saturating_sub(live.offset)
                }
                Wrapping::Gzip => u64::MAX,
            };
            let old = live.input.len();
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(INPUT);
            live.input.resize(old + want, 0);
            let read = self.file.read_at(live.offset, &mut live.input[old..]);
            live.input.truncate(old + *read.as_ref().unwrap_or(&0));
            match read? {
                0 => return Ok(false),
                read => live.offset += read as u64,
            }
        }
        Ok(true)
    }

    /// The next bytes of the input, consumed.
    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        if !self.fill(count)? {
            return Err(truncated(self.name()));
        }
        let start = self.live.used;
        self.live.used += count;
        Ok(self.live.input[start..start + count].to_vec())
    }

    /// Reads the header of a gzip member (RFC 1952, 2.3), or finds the end of the file.
    fn header(&mut self) -> io::Result<()> {
        if !self.fill(1)? {
            self.live.phase = Phase::Over;
            return Ok(());
        }
        let head = self.take(10)?;
        if head[..3] != [0x1f, 0x8b, 8] {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file goes on behind the end of its gzip stream (damaged file)",
            ));
        }
        const CRC: u8 = 2;
        const EXTRA: u8 = 4;
        const NAME: u8 = 8;
        const COMMENT: u8 = 16;
        let flags = head[3];
        if flags & EXTRA != 0 {
            let len = self.take(2)?;
            self.take(usize::from(u16::from_le_bytes([len[0], len[1]])))?;
        }
        for text in [NAME, COMMENT] {
            while flags & text != 0 && self.take(1)? != [0] {}
        }
        if flags & CRC != 0 {
            self.take(2)?;
        }
        self.live.state.init();
        self.live.phase = Phase::Body;
        Ok(())
    }

    /// Proves a member, or the entry, and goes behind it.
    fn end_member(&mut self, at_frontier: bool) -> io::Result<()> {
        match self.wrapping {
            Wrapping::Zip(entry) => {
                self.live.phase = Phase::Over;
                if self.fill(1)? {
                    return Err(self.damaged("it ends before its directory says"));
                }
                let total = self.proof.total;
                if at_frontier && total != entry.bytes {
                    let what = format!("it has {total} bytes instead of {}", entry.bytes);
                    return Err(self.damaged(&what));
                }
                if at_frontier && self.proof.crc.sum() != entry.crc32 {
                    return Err(self.damaged("its CRC is wrong"));
                }
            }
            Wrapping::Gzip => {
                self.live.phase = Phase::Header;
                let end = self.take(8)?;
                let number =
                    |at: usize| u32::from_le_bytes(end[at..at + 4].try_into().expect("four bytes"));
                let crc = &self.proof.crc;
                if at_frontier && (crc.sum() != number(0) || crc.amount() != number(4)) {
                    return Err(self.damaged("its CRC is wrong"));
                }
                if at_frontier {
                    self.proof.crc.reset();
                }
            }
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        match self.wrapping {
            Wrapping::Zip(_) => "zip",
            Wrapping::Gzip => "gzip",
        }
    }

    fn damaged(&self, what: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the {} stream is damaged: {what}", self.name()),
        )
    }
}
