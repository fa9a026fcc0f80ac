//! An uncompressed image as something to read at any place, whatever it is packed in.
//!
//! ext4-view and fatfs own what they read from, so a disk is shared: [`Window`]s are parts of it
//! that read, seek, and remember why reading failed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use ext4_view::Ext4Read;

use super::open::Notice;
use crate::payload::indexed::{Indexed, PAGE, ReadAt, Way};

/// Pages that are kept: enough for the tables of a file system beside what is read.
const KEPT: usize = 16;

/// Where the pages of a disk come from.
pub enum Source {
    /// A file, or a device.
    File(File),
    /// A deflate stream.
    Indexed(Box<Indexed<Window>>),
    /// A file in a file system, with its size in bytes.
    Inner(Box<ext4_view::File>, u64),
}

impl Source {
    fn page(&mut self, number: u64, watch: Option<&dyn Notice>) -> io::Result<Rc<[u8]>> {
        let start = number * PAGE as u64;
        let mut bytes = vec![0; PAGE];
        let filled = match self {
            Source::File(file) => {
                crate::payload::read_full(&mut At { file, at: start }, &mut bytes)?
            }
            Source::Indexed(indexed) => {
                let mut seen = |way: Way| match watch {
                    Some(notice) => notice.at("looking into it", way.bytes, None),
                    None => Ok(()),
                };
                return indexed.page(number, &mut seen).map(Rc::from);
            }
            Source::Inner(file, size) => {
                if file.position() != start {
                    if start >= *size {
                        return Ok(Rc::from([]));
                    }
                    file.seek_to(start).map_err(io::Error::other)?;
                }
                crate::payload::read_full(file, &mut bytes)?
            }
        };
        bytes.truncate(filled);
        Ok(Rc::from(bytes))
    }
}

/// Reads a file from a place on.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buf, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

struct Disk {
    source: Source,
    /// Number and bytes of pages, the one that was used last in front.
    kept: VecDeque<(u64, Rc<[u8]>)>,
    failed: Option<(io::ErrorKind, String)>,
    /// Told when reading has to go far ahead.
    watch: Option<Rc<dyn Notice>>,
}

impl Disk {
    fn page(&mut self, number: u64) -> io::Result<Rc<[u8]>> {
        if let Some((kind, message)) = &self.failed {
            return Err(io::Error::new(*kind, message.clone()));
        }
        if let Some(index) = self.kept.iter().position(|(known, _)| *known == number) {
            if index > 0 {
                let page = self.kept.remove(index).expect("it was found");
                self.kept.push_front(page);
            }
            return Ok(self.kept[0].1.clone());
        }
        let page = self.source.page(number, self.watch.as_deref());
        let page = page.inspect_err(|error| {
            self.failed = Some((error.kind(), error.to_string()));
        })?;
        self.kept.truncate(KEPT - 1);
        self.kept.push_front((number, page.clone()));
        Ok(page)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let page = self.page(at / PAGE as u64)?;
            let Some(rest) = page.get((at % PAGE as u64) as usize..) else {
                break;
            };
            let count = rest.len().min(buf.len() - done);
            if count == 0 {
                break;
            }
            buf[done..done + count].copy_from_slice(&rest[..count]);
            done += count;
        }
        Ok(done)
    }
}

/// A part of a disk, or all of it.
#[derive(Clone)]
pub struct Window {
    disk: Rc<RefCell<Disk>>,
    start: u64,
    /// Size in bytes, where it is known.
    len: Option<u64>,
    position: u64,
}

impl Window {
    /// All of what a source gives; `len` is its size in bytes where that is known.
    pub fn all(source: Source, len: Option<u64>) -> Window {
        let disk = Disk {
            source,
            kept: VecDeque::new(),
            failed: None,
            watch: None,
        };
        Window {
            disk: Rc::new(RefCell::new(disk)),
            start: 0,
            len,
            position: 0,
        }
    }

    /// `len` bytes of it from `start` on.
    pub fn part(&self, start: u64, len: u64) -> Window {
        Window {
            disk: self.disk.clone(),
            start: self.start.saturating_add(start),
            len: Some(len),
            position: 0,
        }
    }

    /// Its size in bytes, where it is known.
    pub fn size(&self) -> Option<u64> {
        self.len
    }

    /// From now on somebody is told, or nobody any more, when reading it has to go far ahead.
    pub fn watch(&self, notice: Option<&Rc<dyn Notice>>) {
        self.disk.borrow_mut().watch = notice.cloned();
    }

    /// How much of a stream was read, where that is known at all times: its bytes as they are packed, and
    /// all of those.
    pub fn way(&self) -> Option<(u64, u64)> {
        match &self.disk.borrow().source {
            Source::Indexed(indexed) => Some((indexed.way().packed, indexed.file().size()?)),
            Source::File(_) | Source::Inner(..) => None,
        }
    }

    /// Up to `len` bytes from `offset` on.
    pub fn bytes_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = self.clone().read_at(offset, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Reads what was not read yet of a stream that proves itself at its end; gives the size of all of the
    /// disk, where it has one.
    pub fn prove(&self, notice: &dyn Notice) -> io::Result<Option<u64>> {
        const WHAT: &str = "checking the rest";
        let disk = &mut *self.disk.borrow_mut();
        let Source::Indexed(indexed) = &mut disk.source else {
            return Ok(self.len);
        };
        let (bytes, packed) = (indexed.bytes(), indexed.file().size());
        let mut seen = |way: Way| match bytes {
            Some(bytes) => notice.at(WHAT, way.bytes, Some(bytes)),
            None => notice.at(WHAT, way.packed, packed),
        };
        let proof = indexed.prove(&mut seen);
        proof.inspect_err(|error| disk.failed = Some((error.kind(), error.to_string())))?;
        Ok(indexed.bytes())
    }

    /// Why the disk could not be read, if that is so: what a file system reports is a consequence.
    pub fn failure(&self) -> Option<String> {
        let disk = self.disk.borrow();
        disk.failed.as_ref().map(|(_, message)| message.clone())
    }
}

impl ReadAt for Window {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len.map_or(u64::MAX, |len| len.saturating_sub(offset));
        let count = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(at) = self.start.checked_add(offset) else {
            return Ok(0);
        };
        self.disk.borrow_mut().read_at(at, &mut buf[..count])
    }
}

impl Read for Window {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(self.position, buf)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.and_then(|len| len.checked_add_signed(by)),
        };
        self.position = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// fatfs wants to be able to write; nothing here asks it to.
impl Write for Window {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Ext4Read for Window {
    fn read(
        &mut self,
        start: u64,
        buf: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match self.read_at(start, buf)? == buf.len() {
            true => Ok(()),
            false => Err("the partition ends before".into()),
        }
    }
}
