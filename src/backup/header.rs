//! The headers of a tar archive, in the dialect that both GNU tar and BusyBox's tar read.
//!
//! The supervisor of balenaOS has BusyBox's tar. It knows GNU's long names and large numbers. It skips
//! PAX headers with a word on standard error, so that names and times must not be in them; and it
//! skips GNU's sparse files as a whole, content and all, so that there must be none: holes are
//! written as zeros, which pack to a thousandth.
//!
//! Called by [`super::archive`].

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use crate::sys::tree::Node;

/// Everything in a tar archive comes in blocks of so many bytes.
pub const BLOCK: usize = 512;

/// Room for a name or a link's target in a header, with a zero at its end.
const NAME: usize = 99;

/// What a header announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A file, with so many bytes after the header.
    File(u64),
    /// Another name of the file with this name.
    HardLink(&'a [u8]),
    /// A symbolic link with this target.
    Link(&'a [u8]),
    /// A folder.
    Folder,
    /// A named pipe.
    Fifo,
}

/// Bytes that the headers of an entry have at most, extended attributes not counted.
pub fn most_bytes(name: &[u8]) -> u64 {
    (3 * BLOCK + name.len()) as u64
}

/// Writes the headers of an entry. `name` has no `/` at its end.
pub fn write(
    out: &mut impl Write,
    name: &[u8],
    node: &Node,
    kind: Kind,
    xattrs: &[(OsString, Vec<u8>)],
) -> io::Result<()> {
    let mut name = name.to_vec();
    let (flag, bytes, target): (u8, u64, &[u8]) = match kind {
        Kind::File(bytes) => (b'0', bytes, b""),
        Kind::HardLink(target) => (b'1', 0, target),
        Kind::Link(target) => (b'2', 0, target),
        Kind::Folder => (b'5', 0, b""),
        Kind::Fifo => (b'6', 0, b""),
    };
    if kind == Kind::Folder {
        name.push(b'/');
    }
    if !xattrs.is_empty() {
        let records = records(xattrs);
        let head = Header::new(b"PaxHeaders/xattrs", b'x', records.len() as u64);
        extension(out, head, &records)?;
    }
    for (text, flag) in [(target, b'K'), (name.as_slice(), b'L')] {
        if text.len() > NAME {
            let text = [text, b"\0"].concat();
            extension(
                out,
                Header::new(b"././@LongLink", flag, text.len() as u64),
                &text,
            )?;
        }
    }
    let mut header = Header::new(&name, flag, bytes);
    header.text(157, target);
    header.number(100, 8, i64::from(node.mode));
    header.number(108, 8, i64::from(node.uid));
    header.number(116, 8, i64::from(node.gid));
    header.number(136, 12, node.mtime.0);
    out.write_all(&header.sealed())
}

/// Writes zeros up to the end of a block that has `bytes` bytes so far, whole blocks not counted.
pub fn pad(out: &mut impl Write, bytes: u64) -> io::Result<()> {
    let over = (bytes % BLOCK as u64) as usize;
    match over {
        0 => Ok(()),
        over => out.write_all(&[0; BLOCK][over..]),
    }
}

/// Writes the end of an archive.
pub fn finish(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// A header with content that is about the next entry.
fn extension(out: &mut impl Write, header: Header, content: &[u8]) -> io::Result<()> {
    out.write_all(&header.sealed())?;
    out.write_all(content)?;
    pad(out, content.len() as u64)
}

/// Extended attributes as PAX records: their own length in decimal, a name and a value.
fn records(xattrs: &[(OsString, Vec<u8>)]) -> Vec<u8> {
    let mut records = Vec::new();
    for (name, value) in xattrs {
        let record = [b" SCHILY.xattr.", name.as_bytes(), b"=", value, b"\n"].concat();
        let mut digits = 1;
        while (record.len() + digits).to_string().len() > digits {
            digits += 1;
        }
        records.extend((record.len() + digits).to_string().into_bytes());
        records.extend(record);
    }
    records
}

/// One block.
struct Header([u8; BLOCK]);

impl Header {
    fn new(name: &[u8], flag: u8, bytes: u64) -> Header {
        let mut header = Header([0; BLOCK]);
        header.text(0, name);
        for (at, width) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
            header.number(at, width, 0);
        }
        header.number(124, 12, i64::try_from(bytes).unwrap_or(i64::MAX));
        header.0[156] = flag;
        header.0[257..265].copy_from_slice(b"ustar  \0");
        header
    }

    /// A name, as far as it fits: the rest of a long one is in an extension.
    fn text(&mut self, at: usize, text: &[u8]) {
        let fits = text.len().min(NAME);
        self.0[at..at + fits].copy_from_slice(&text[..fits]);
    }

    /// Octal digits, or where they don't suffice GNU's form: two's complement after a mark.
    fn number(&mut self, at: usize, width: usize, value: i64) {
        let field = &mut self.0[at..at + width];
        let octal = format!("{value:0digits$o}", digits = width - 1);
        if value >= 0 && octal.len() < width {
            field[..width - 1].copy_from_slice(octal.as_bytes());
            field[width - 1] = 0;
            return;
        }
        let negative = value < 0;
        field.fill(if negative { 0xff } else { 0 });
        let bytes = value.to_be_bytes();
        let shared = bytes.len().min(width);
        field[width - shared..].copy_from_slice(&bytes[bytes.len() - shared..]);
        field[0] = if negative { 0xff } else { 0x80 };
    }

    /// The block with its checksum, which counts itself as blanks.
    fn sealed(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        let octal = format!("{sum:06o}\0");
        self.0[148..155].copy_from_slice(octal.as_bytes());
        self.0
    }
}
