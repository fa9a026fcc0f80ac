//! Reading trees of files as they are: names that are no text, links, holes, extended attributes.
//!
//! Used by the backup. Nothing here changes anything.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{EOPNOTSUPP, O_NONBLOCK};

use super::Sys;

/// What a name in a folder stands for, apart from its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// File system and inode: two names with the same ones are one file.
    pub id: (u64, u64),
    /// Number of names that it has.
    pub names: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes, holes included.
    pub bytes: u64,
    /// Space that it takes, in bytes.
    pub allocated: u64,
    /// Time of the last change of its content: seconds since 1970, and nanoseconds.
    pub mtime: (i64, i64),
}

/// What a name in a folder can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block or character device.
    Device,
}

impl From<&Metadata> for Node {
    fn from(meta: &Metadata) -> Node {
        let file_type = meta.file_type();
        let kind = match () {
            () if file_type.is_file() => NodeKind::File,
            () if file_type.is_dir() => NodeKind::Folder,
            () if file_type.is_symlink() => NodeKind::Link,
            () if file_type.is_fifo() => NodeKind::Fifo,
            () if file_type.is_socket() => NodeKind::Socket,
            () => NodeKind::Device,
        };
        Node {
            kind,
            id: (meta.dev(), meta.ino()),
            names: meta.nlink(),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            bytes: meta.size(),
            // stat(2) counts in 512 bytes, whatever the file system's blocks are.
            allocated: meta.blocks() * 512,
            mtime: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

impl Sys {
    fn real_path(&self, path: &Path) -> PathBuf {
        self.real("/").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What `path` itself is, be it a link.
    pub fn node(&self, path: &Path) -> io::Result<Node> {
        fs::symlink_metadata(self.real_path(path)).map(|meta| Node::from(&meta))
    }

    /// What `path` leads to, through all links.
    pub fn node_behind(&self, path: &Path) -> io::Result<Node> {
        fs::metadata(self.real_path(path)).map(|meta| Node::from(&meta))
    }

    /// What an open file is by now.
    pub fn node_of(&self, file: &File) -> io::Result<Node> {
        file.metadata().map(|meta| Node::from(&meta))
    }

    /// All names in a folder, sorted by their bytes.
    pub fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let entries = fs::read_dir(self.real_path(path))?;
        let mut names = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// The target of a symbolic link, as it stands there.
    pub fn link_target(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(self.real_path(path))
    }

    /// Opens a file for reading, without waiting for the writer of what has become a named pipe.
    pub fn open_now(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open(self.real_path(path))
    }

    /// Names and values of the extended attributes of what `path` leads to.
    pub fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let real = self.real_path(path);
        let names = match xattr::list_deref(&real) {
            Err(error) if error.raw_os_error() == Some(EOPNOTSUPP) => return Ok(Vec::new()),
            names => names?,
        };
        let mut found = Vec::new();
        for name in names {
            // One that went away between the two calls is none.
            if let Some(value) = xattr::get_deref(&real, &name)? {
                found.push((name, value));
            }
        }
        Ok(found)
    }
}
