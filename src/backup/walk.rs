//! Goes through the sources of a volume, in the order in which they stand in the archive.
//!
//! Used twice: by [`super::survey`] to look, and by [`super::archive`] to copy, so that what is
//! checked is what is made. Symbolic links are followed, as `tar -h` does; one that leads nowhere or
//! in a circle stays a link.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::libc::ELOOP;
use regex::bytes::Regex;

use super::{Item, Volume, shown};
use crate::sys::Sys;
use crate::sys::tree::{Node, NodeKind};

/// Something that goes into the archive.
#[derive(Debug)]
pub struct Entry {
    /// Its name there, without `/` at either end.
    pub name: Vec<u8>,
    /// Where it is read from.
    pub source: PathBuf,
    /// What is there.
    pub node: Node,
}

/// Something that goes into the archive in another way than one would think, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What is so.
    pub kind: NoteKind,
    /// Where.
    pub path: PathBuf,
}

/// What can be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKind {
    /// A link to nothing, kept as a link.
    Dangling,
    /// A link that leads back to itself or to a folder that it is in, kept as a link.
    Circle,
    /// A folder that the walk is in already, come upon by a link up or a mount; left out there.
    Around,
    /// A socket or a device, left out.
    Special,
    /// The backup itself, left out.
    Itself,
    /// A folder in which the filter matches no name.
    NoMatch,
    /// Something that went away while it was looked at.
    Vanished,
    /// A file that changed while it was read.
    Changed,
    /// A file whose extended attributes are left out, since too many others have some.
    XattrsDropped,
}

impl NoteKind {
    /// What is so, before the paths.
    pub fn words(self) -> &'static str {
        match self {
            NoteKind::Dangling => "links that lead nowhere stay links in the backup",
            NoteKind::Circle => "links that lead in a circle stay links in the backup",
            NoteKind::Around => "folders are left out where they would come inside themselves",
            NoteKind::Special => "sockets and devices are left out of the backup",
            NoteKind::Itself => "the backup is not put into itself",
            NoteKind::NoMatch => "the filter matches nothing in",
            NoteKind::Vanished => "went away while it was looked at, and is left out",
            NoteKind::Changed => "changed while it was read, and may be half old and half new",
            NoteKind::XattrsDropped => "extended attributes are left out: too many files have some",
        }
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.words(), shown(&self.path))
    }
}

/// Why a source can't go into the archive.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// There is nothing.
    #[error("the source {} is not there", shown(.0))]
    Missing(PathBuf),
    /// Neither a file nor a folder.
    #[error("the source {} is neither a file nor a folder", shown(.0))]
    Special(PathBuf),
    /// A filter for what is no folder.
    #[error("the source {} is not a folder, and has a filter", shown(.0))]
    FilterOnFile(PathBuf),
    /// Two sources for one name.
    #[error("{} would come twice: the second time from {}", shown(.name), shown(.source_path))]
    Twice {
        /// The name in the archive.
        name: PathBuf,
        /// The second source.
        source_path: PathBuf,
    },
    /// The machine does not let us.
    #[error("reading {}: {error}", shown(.path))]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The visitor failed.
    #[error(transparent)]
    Visit(#[from] anyhow::Error),
}

/// Gets what is found.
pub trait Visitor {
    /// What is found from here on is of this item.
    fn begin(&mut self, _: &Item) {}
    /// Something that goes into the archive. A folder comes before what is in it.
    fn entry(&mut self, entry: &Entry) -> anyhow::Result<()>;
    /// Something that the user should know.
    fn note(&mut self, note: Note);
}

/// What a name in the archive is already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// A folder on the way to a target, which may yet come itself.
    Passed,
    /// A folder, of which another source may bring more.
    Folder,
    /// A folder that an item's source is mapped to, which no other may be.
    Mapped,
    /// No folder.
    Leaf,
}

/// Goes through one volume.
pub struct Walk<'a> {
    sys: &'a Sys,
    visitor: &'a mut dyn Visitor,
    own: &'a [(u64, u64)],
    volume: &'a Volume,
    made: HashMap<Vec<u8>, Made>,
    /// The folders that the walk is in.
    inside: Vec<(u64, u64)>,
}

impl<'a> Walk<'a> {
    /// A walk through `volume`. `own` are the files that never go into the backup: itself.
    pub fn new(
        sys: &'a Sys,
        volume: &'a Volume,
        own: &'a [(u64, u64)],
        visitor: &'a mut dyn Visitor,
    ) -> Walk<'a> {
        Walk {
            sys,
            visitor,
            own,
            volume,
            made: HashMap::new(),
            inside: Vec::new(),
        }
    }

    /// Goes through one item of the volume.
    pub fn item(&mut self, item: &Item) -> Result<(), WalkError> {
        self.visitor.begin(item);
        self.inside.clear();
        let source = PathBuf::from(&item.source);
        let node = match self.sys.node_behind(&source) {
            Ok(node) => node,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(WalkError::Missing(source));
            }
            Err(error) => return Err(read_error(&source, error)),
        };
        let mut name = self.volume.name.clone().into_bytes();
        if !item.target.is_empty() {
            name = join(&name, item.target.as_bytes());
        }
        match node.kind {
            NodeKind::Folder => match &item.filter {
                Some(filter) => self.filtered(&name, &source, node, filter),
                None => {
                    self.parents(&name, &source, node)?;
                    self.folder(name, source, node, Made::Mapped)
                }
            },
            NodeKind::Socket | NodeKind::Device => Err(WalkError::Special(source)),
            _ if item.filter.is_some() => Err(WalkError::FilterOnFile(source)),
            _ => {
                if item.into {
                    let own_name = source.file_name().unwrap_or_default();
                    name = join(&name, own_name.as_bytes());
                }
                self.parents(&name, &source, node)?;
                self.tree(name, source)
            }
        }
    }

    /// Of a folder, what has a name that `filter` matches.
    fn filtered(
        &mut self,
        name: &[u8],
        source: &Path,
        node: Node,
        filter: &Regex,
    ) -> Result<(), WalkError> {
        // The target itself is a folder on the way, and is there also when nothing matches.
        self.parents(&join(name, b"x"), source, node)?;
        let mut matched = false;
        let names = self.sys.names(source);
        for child in names.map_err(|error| read_error(source, error))? {
            if filter.is_match(child.as_bytes()) {
                matched = true;
                self.tree(join(name, child.as_bytes()), source.join(child))?;
            }
        }
        if !matched {
            self.note(NoteKind::NoMatch, source.to_owned());
        }
        Ok(())
    }

    /// The folders on the way to `name`, the volume's own first.
    fn parents(&mut self, name: &[u8], source: &Path, node: Node) -> Result<(), WalkError> {
        for (end, _) in name.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let parent = name[..end].to_vec();
            match self.made.get(&parent) {
                Some(Made::Passed | Made::Folder | Made::Mapped) => continue,
                Some(Made::Leaf) => return Err(twice(&parent, source)),
                None => {}
            }
            self.visitor.entry(&Entry {
                name: parent.clone(),
                source: source.to_owned(),
                node: Node {
                    kind: NodeKind::Folder,
                    mode: 0o755,
                    uid: 0,
                    gid: 0,
                    ..node
                },
            })?;
            self.made.insert(parent, Made::Passed);
        }
        Ok(())
    }

    /// Whatever is at `source`, with all that is in it.
    fn tree(&mut self, name: Vec<u8>, source: PathBuf) -> Result<(), WalkError> {
        let itself = match self.sys.node(&source) {
            Ok(node) => node,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.note(NoteKind::Vanished, source);
                return Ok(());
            }
            Err(error) => return Err(read_error(&source, error)),
        };
        let node = match itself.kind {
            NodeKind::Link => match self.sys.node_behind(&source) {
                Ok(node) => node,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return self.keep_link(NoteKind::Dangling, name, source, itself);
                }
                Err(error) if error.raw_os_error() == Some(ELOOP) => {
                    return self.keep_link(NoteKind::Circle, name, source, itself);
                }
                Err(error) => return Err(read_error(&source, error)),
            },
            _ => itself,
        };
        if self.own.contains(&node.id) {
            self.note(NoteKind::Itself, source);
            return Ok(());
        }
        match node.kind {
            NodeKind::Folder if self.inside.contains(&node.id) => match itself.kind {
                NodeKind::Link => self.keep_link(NoteKind::Circle, name, source, itself),
                _ => {
                    self.note(NoteKind::Around, source);
                    Ok(())
                }
            },
            NodeKind::Folder => self.folder(name, source, node, Made::Folder),
            NodeKind::Socket | NodeKind::Device => {
                self.note(NoteKind::Special, source);
                Ok(())
            }
            NodeKind::File | NodeKind::Fifo | NodeKind::Link => self.leaf(name, source, node),
        }
    }

    /// A folder with all that is in it, which becomes `made`.
    fn folder(
        &mut self,
        name: Vec<u8>,
        source: PathBuf,
        node: Node,
        made: Made,
    ) -> Result<(), WalkError> {
        let names = match self.sys.names(&source) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.note(NoteKind::Vanished, source);
                return Ok(());
            }
            names => names.map_err(|error| read_error(&source, error))?,
        };
        let before = self.made.get(&name).copied();
        match before {
            Some(Made::Leaf) => return Err(twice(&name, &source)),
            Some(Made::Mapped) if made == Made::Mapped => return Err(twice(&name, &source)),
            // The first source to bring a folder says what it is like.
            Some(Made::Folder | Made::Mapped) => {}
            Some(Made::Passed) | None => self.visitor.entry(&Entry {
                name: name.clone(),
                source: source.clone(),
                node,
            })?,
        }
        if self.must_remember() && before != Some(Made::Mapped) {
            self.made.insert(name.clone(), made);
        }
        self.inside.push(node.id);
        for child in names {
            self.tree(join(&name, child.as_bytes()), source.join(child))?;
        }
        self.inside.pop();
        Ok(())
    }

    fn keep_link(
        &mut self,
        kind: NoteKind,
        name: Vec<u8>,
        source: PathBuf,
        node: Node,
    ) -> Result<(), WalkError> {
        self.note(kind, source.clone());
        self.leaf(name, source, node)
    }

    fn leaf(&mut self, name: Vec<u8>, source: PathBuf, node: Node) -> Result<(), WalkError> {
        if self.made.contains_key(&name) {
            return Err(twice(&name, &source));
        }
        if self.must_remember() {
            self.made.insert(name.clone(), Made::Leaf);
        }
        Ok(self.visitor.entry(&Entry { name, source, node })?)
    }

    /// With one item no name can come twice, and there may be very many names.
    fn must_remember(&self) -> bool {
        self.volume.items.len() > 1
    }

    fn note(&mut self, kind: NoteKind, path: PathBuf) {
        self.visitor.note(Note { kind, path });
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    [folder, b"/", name].concat()
}

fn read_error(path: &Path, error: io::Error) -> WalkError {
    WalkError::Read {
        path: path.to_owned(),
        error,
    }
}

fn twice(name: &[u8], source: &Path) -> WalkError {
    WalkError::Twice {
        name: PathBuf::from(std::ffi::OsStr::from_bytes(name)),
        source_path: source.to_owned(),
    }
}
