//! Makes the backup: volumes in, a gzipped tar archive out, in one pass and in little memory.
//!
//! Called by the engine. The top level has the folders of the volumes and nothing else. Kept of each
//! file: name, content, mode, owner and time (in seconds, as GNU tar does by default), and which names
//! are one file within a volume. Extended attributes are written for whoever unpacks them; balenaOS
//! does not.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::gzip::gzip;
use super::header::{self, Kind};
use super::walk::{Entry, Note, NoteKind, Visitor, Walk};
use super::{Volume, shown};
use crate::packer::Packer;
use crate::sys::Sys;
use crate::sys::tree::{Node, NodeKind};

/// The supervisor stops a `tar` that writes a megabyte of complaints, and BusyBox's complains of
/// every entry with extended attributes; older ones stop at 200 kB.
const MOST_XATTRS: usize = 1000;

/// The label of a file for SELinux means nothing to another system.
const NOT_CARRIED: &str = "security.selinux";

/// Writes the archive of `volumes` to `sink`. `own` are the files that don't go into it; `progress`
/// gets the bytes that were read so far. Returns what the user should know.
pub fn write(
    sys: &Sys,
    volumes: &[Volume],
    own: &[(u64, u64)],
    sink: impl Write,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Note>> {
    let mut archiver = Archiver {
        sys,
        out: gzip(sink).context("starting threads")?,
        progress,
        files: HashMap::new(),
        notes: Vec::new(),
        read: 0,
        with_xattrs: 0,
        buffer: vec![0; 256 << 10],
    };
    for volume in volumes {
        // Names are one file within a volume only: two volumes must not change each other.
        archiver.files.clear();
        let mut walk = Walk::new(sys, volume, own, &mut archiver);
        for item in &volume.items {
            walk.item(item)
                .with_context(|| format!("putting {} into the backup", shown(&item.source)))?;
        }
    }
    header::finish(&mut archiver.out).context("writing the backup")?;
    archiver.out.finish().context("writing the backup")?;
    Ok(archiver.notes)
}

/// Writes what a walk finds.
struct Archiver<'a, W: Write> {
    sys: &'a Sys,
    out: Packer<W>,
    progress: &'a mut dyn FnMut(u64),
    /// The first name of each file of this volume that has several.
    files: HashMap<(u64, u64), Vec<u8>>,
    notes: Vec<Note>,
    read: u64,
    with_xattrs: usize,
    buffer: Vec<u8>,
}

impl<W: Write> Visitor for Archiver<'_, W> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        let result = match entry.node.kind {
            NodeKind::File => return self.file(entry),
            NodeKind::Folder => self.header(entry, &entry.node, Kind::Folder),
            NodeKind::Link => {
                let target = self.sys.link_target(&entry.source);
                let target = target.with_context(|| format!("reading {}", shown(&entry.source)))?;
                self.header(
                    entry,
                    &entry.node,
                    Kind::Link(target.as_os_str().as_bytes()),
                )
            }
            NodeKind::Fifo => self.header(entry, &entry.node, Kind::Fifo),
            NodeKind::Socket | NodeKind::Device => Ok(()),
        };
        result.with_context(|| format!("writing {} to the backup", shown(&entry.source)))
    }

    fn note(&mut self, note: Note) {
        self.notes.push(note);
    }
}

impl<W: Write> Archiver<'_, W> {
    fn say(&mut self, kind: NoteKind, path: PathBuf) {
        self.note(Note { kind, path });
    }

    fn header(&mut self, entry: &Entry, node: &Node, kind: Kind) -> io::Result<()> {
        let xattrs = match kind {
            Kind::File(_) | Kind::Folder => self.xattrs(entry)?,
            Kind::HardLink(_) | Kind::Link(_) | Kind::Fifo => Vec::new(),
        };
        header::write(&mut self.out, &entry.name, node, kind, &xattrs)
    }

    fn xattrs(&mut self, entry: &Entry) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let mut xattrs = match self.sys.xattrs(&entry.source) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            xattrs => xattrs?,
        };
        xattrs.retain(|(name, _)| name != NOT_CARRIED);
        if !xattrs.is_empty() {
            self.with_xattrs += 1;
            if self.with_xattrs > MOST_XATTRS {
                self.say(NoteKind::XattrsDropped, entry.source.clone());
                xattrs.clear();
            }
        }
        Ok(xattrs)
    }

    fn file(&mut self, entry: &Entry) -> Result<()> {
        let file = match self.sys.open_now(&entry.source) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.say(NoteKind::Vanished, entry.source.clone());
                return Ok(());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("opening {}", shown(&entry.source)));
            }
        };
        self.opened(entry, file)
            .with_context(|| format!("copying {} to the backup", shown(&entry.source)))
    }

    fn opened(&mut self, entry: &Entry, mut file: File) -> io::Result<()> {
        let before = self.sys.node_of(&file)?;
        if before.kind != NodeKind::File {
            self.say(NoteKind::Changed, entry.source.clone());
            return Ok(());
        }
        if before.names > 1 {
            if let Some(first) = self.files.get(&before.id) {
                let kind = Kind::HardLink(first);
                return header::write(&mut self.out, &entry.name, &before, kind, &[]);
            }
            self.files.insert(before.id, entry.name.clone());
        }
        self.header(entry, &before, Kind::File(before.bytes))?;
        let whole = self.content(&mut file, before.bytes)?;
        let after = self.sys.node_of(&file)?;
        if !whole || (before.bytes, before.mtime) != (after.bytes, after.mtime) {
            self.say(NoteKind::Changed, entry.source.clone());
        }
        Ok(())
    }

    /// Copies `bytes` bytes, as the header promised, and says whether the file has just as many.
    fn content(&mut self, file: &mut File, bytes: u64) -> io::Result<bool> {
        let mut left = bytes;
        while left > 0 {
            let most = left.min(self.buffer.len() as u64) as usize;
            match file.read(&mut self.buffer[..most]) {
                Ok(0) => break,
                Ok(n) => {
                    self.out.write_all(&self.buffer[..n])?;
                    left -= n as u64;
                    self.read += n as u64;
                    (self.progress)(self.read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let short = left > 0;
        while left > 0 {
            let zeros = left.min(self.buffer.len() as u64) as usize;
            self.buffer[..zeros].fill(0);
            self.out.write_all(&self.buffer[..zeros])?;
            left -= zeros as u64;
        }
        header::pad(&mut self.out, bytes)?;
        // Files of /proc and /sys say that they are empty, and a log may have grown.
        let more = file.read(&mut self.buffer[..1])? > 0;
        Ok(!short && !more)
    }
}
