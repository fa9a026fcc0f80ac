//! Writes a cpio archive in the only format that the kernel unpacks, "newc". Called by the builder of
//! the initramfs.
//!
//! The format is in the kernel's driver-api/early-userspace/buffer-format. What is written depends
//! on nothing but the entries: all times are 0, all owners root, inodes count up.

use std::io::{self, Read, Write};

/// The header: a magic number and 13 fields of 8 hex digits.
const HEADER_BYTES: u64 = 110;

const TRAILER: &str = "TRAILER!!!";

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

/// An archive that is being written.
///
/// Paths may start with a slash, which is left out: the kernel unpacks into its root. A folder must
/// be added before what is in it, since the kernel makes none by itself.
pub struct Archive<W> {
    out: W,
    inode: u32,
    written: u64,
}

/// The header fields that differ between entries.
#[derive(Default)]
struct Fields {
    inode: u32,
    mode: u32,
    links: u32,
    bytes: u64,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Archive {
            out,
            inode: 0,
            written: 0,
        }
    }

    /// Adds a folder with those permission bits.
    pub fn folder(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.special(path, S_IFDIR | mode, 2, (0, 0))
    }

    /// Adds a character device.
    pub fn char_device(&mut self, path: &str, mode: u32, device: (u32, u32)) -> io::Result<()> {
        self.special(path, S_IFCHR | mode, 1, device)
    }

    /// Adds a file of exactly `bytes` bytes from `content`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for 4 GiB and more, which the format has no room for; `UnexpectedEof` when
    /// `content` ends too early. The archive is of no use then.
    pub fn file(
        &mut self,
        path: &str,
        mode: u32,
        bytes: u64,
        content: impl Read,
    ) -> io::Result<()> {
        let inode = self.next_inode();
        self.header(
            path,
            Fields {
                inode,
                mode: S_IFREG | mode,
                links: 1,
                bytes,
                ..Fields::default()
            },
        )?;
        let copied = io::copy(&mut content.take(bytes), &mut self.out)?;
        if copied != bytes {
            let message = format!("{path} ended after {copied} of {bytes} bytes");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.written += bytes;
        self.pad(4)
    }

    /// Ends the archive and gives back what it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.header(
            TRAILER,
            Fields {
                links: 1,
                ..Fields::default()
            },
        )?;
        // Boot loaders copy whole sectors.
        self.pad(512)?;
        Ok(self.out)
    }

    fn special(&mut self, path: &str, mode: u32, links: u32, device: (u32, u32)) -> io::Result<()> {
        let inode = self.next_inode();
        self.header(
            path,
            Fields {
                inode,
                mode,
                links,
                device,
                ..Fields::default()
            },
        )
    }

    fn next_inode(&mut self) -> u32 {
        self.inode += 1;
        self.inode
    }

    /// Writes header and name; the content begins at a multiple of 4.
    fn header(&mut self, path: &str, fields: Fields) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        let bytes = u32::try_from(fields.bytes).map_err(|_| {
            let message = format!("{path} is too large for an initramfs");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        let (major, minor) = fields.device;
        write!(
            self.out,
            "070701{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{name}\0",
            fields.inode,
            fields.mode,
            0, // owner
            0, // group
            fields.links,
            0, // time of change
            bytes,
            0, // device that holds the file, major
            0, // and minor
            major,
            minor,
            name.len() + 1,
            0, // checksum, of another variant
        )?;
        self.written += HEADER_BYTES + name.len() as u64 + 1;
        self.pad(4)
    }

    fn pad(&mut self, multiple: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(multiple) - self.written;
        self.out.write_all(&[0; 512][..missing as usize])?;
        self.written += missing;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An entry as it was read back.
    #[derive(Debug, PartialEq, Eq)]
    pub struct Entry {
        pub name: String,
        pub mode: u32,
        pub inode: u32,
        pub device: (u32, u32),
        pub content: Vec<u8>,
    }

    /// Reads an archive up to its trailer, as init/initramfs.c does.
    pub fn entries(archive: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(at % 4, 0);
            assert_eq!(&archive[at..at + 6], b"070701");
            let field = |index: usize| {
                let digits = &archive[at + 6 + 8 * index..][..8];
                u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (bytes, name_bytes) = (field(6) as usize, field(11) as usize);
            let name = at + 110;
            let content = (name + name_bytes).next_multiple_of(4);
            assert_eq!(archive[name + name_bytes - 1], 0);
            let entry = Entry {
                name: String::from_utf8(archive[name..name + name_bytes - 1].to_vec()).unwrap(),
                mode: field(1),
                inode: field(0),
                device: (field(9), field(10)),
                content: archive[content..content + bytes].to_vec(),
            };
            assert_eq!((field(2), field(3), field(5)), (0, 0, 0));
            if entry.name == TRAILER {
                return entries;
            }
            entries.push(entry);
            at = (content + bytes).next_multiple_of(4);
        }
    }

    #[test]
    fn each_kind_reads_back() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("/dev", 0o755).unwrap();
        archive.char_device("/dev/console", 0o600, (5, 1)).unwrap();
        archive.file("/init", 0o755, 5, &b"hello"[..]).unwrap();
        archive.file("empty", 0o600, 0, &b""[..]).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let entries = entries(&bytes);
        let seen: Vec<_> = entries
            .iter()
            .map(|e| (e.name.as_str(), e.mode, e.inode))
            .collect();
        assert_eq!(
            seen,
            [
                ("dev", 0o040_755, 1),
                ("dev/console", 0o020_600, 2),
                ("init", 0o100_755, 3),
                ("empty", 0o100_600, 4),
            ]
        );
        assert_eq!(entries[1].device, (5, 1));
        assert_eq!(entries[2].content, b"hello");
    }

    #[test]
    fn names_of_every_length_keep_the_alignment() {
        for len in 1..9 {
            let mut archive = Archive::new(Vec::new());
            let name = "n".repeat(len);
            archive.file(&name, 0o644, 3, &b"abc"[..]).unwrap();
            archive.folder("after", 0o755).unwrap();
            assert_eq!(entries(&archive.finish().unwrap()).len(), 2);
        }
    }

    #[test]
    fn content_that_ends_early_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        let error = archive.file("f", 0o644, 4, &b"abc"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn content_that_grew_is_cut_at_its_announced_size() {
        let mut archive = Archive::new(Vec::new());
        archive.file("f", 0o644, 2, &b"abcdef"[..]).unwrap();
        assert_eq!(entries(&archive.finish().unwrap())[0].content, b"ab");
    }

    #[test]
    fn four_gigabytes_are_too_much() {
        let mut archive = Archive::new(io::sink());
        let error = archive
            .file("f", 0o644, 1 << 32, io::repeat(0))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
