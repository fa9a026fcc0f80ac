//! What the user wants in the backup: BACKUP_DEFINITION's YAML and BACKUP_DIRECTORIES' list.
//!
//! ```yaml
//! - volume: settings            # the name of a volume of the application
//!   content:                    # or `items`, as the older tools called it
//!   - source: /etc/hostname     # a file or a folder; a relative one starts at HOME_DIR
//!     target: etc/hostname      # where in the volume; without it, the volume itself
//!   - source: /etc/app
//!     filter: \.conf$           # of a folder, only what has a name that this matches
//! ```
//!
//! Where the README of the shell tool and the programs that read such files differed:
//!
//! - `content` and `items` are the same, and an item may stand below or beside a key `item`.
//! - A relative `source` starts at HOME_DIR, as all files that settings name.
//! - No `target`, an empty one, `.` and `/` mean the volume itself. A folder's content goes into
//!   it; a file goes into it under its own name, where the older programs made the file the volume,
//!   which balenaOS refuses. The same goes for a `target` that ends in `/`.
//! - Folders on the way to a target are made, with mode 0755 and of root.
//! - A `filter` looks at the names in the folder `source` only, not at paths and not further down;
//!   it may match anywhere in a name; a folder that it matches comes whole. For a file it is an error.
//! - What would come twice is an error: one of the two would be lost.

use std::io;

use regex::bytes::Regex;

use super::yaml::{self, Down, Node};
use super::{Item, Volume, refuse_volume_name, shown};
use crate::config::path::absolute;
use crate::finding::Finding;
use crate::sys::Sys;

/// What a definition or a list came to: what can be used of it, and what is wrong with it.
pub type Read = (Vec<Volume>, Vec<Finding>);

/// Stable name of the findings about a definition.
const CODE: &str = "backup-definition";

/// Reads the definition `file`; relative sources start at `home`.
pub fn read(sys: &Sys, file: &str, home: &str) -> Read {
    let none = |what: String, remedy: &str| (Vec::new(), vec![Finding::error(CODE, what, remedy)]);
    match sys.read(file) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => parse(file, &text, home),
            Err(_) => none(format!("{file} is not UTF-8"), "save it as UTF-8"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => none(
            format!("the backup definition {file} is not there"),
            "give BACKUP_DEFINITION the name of a file in HOME_DIR",
        ),
        Err(error) => none(
            format!("the backup definition {file} can't be read: {error}"),
            "give BACKUP_DEFINITION the name of a file in HOME_DIR",
        ),
    }
}

/// Each folder becomes the volume that is named as its last part.
pub fn of_directories(folders: &[String], place: &str) -> Read {
    let mut volumes: Vec<Volume> = Vec::new();
    let mut findings = Vec::new();
    let mut refuse = |what: String| {
        let remedy = "name the volume in a BACKUP_DEFINITION instead";
        findings.push(Finding::error("backup-directories", what, remedy).at(place));
    };
    for folder in folders {
        let name = folder.rsplit('/').next().unwrap_or_default();
        if let Some(wrong) = refuse_volume_name(name.as_bytes()) {
            let name = shown(name);
            refuse(format!(
                "BACKUP_DIRECTORIES has {folder}, and its last part `{name}` {wrong}"
            ));
            continue;
        }
        if let Some(before) = volumes.iter().find(|volume| volume.name == name) {
            let before = &before.items[0].source;
            refuse(format!(
                "BACKUP_DIRECTORIES has {before} and {folder}, which would both be the volume {name}"
            ));
            continue;
        }
        volumes.push(Volume {
            name: name.to_owned(),
            items: vec![Item {
                source: folder.clone(),
                target: String::new(),
                into: false,
                filter: None,
                place: place.to_owned(),
            }],
        });
    }
    (volumes, findings)
}

/// Reads the `text` of a definition; `file` names it in messages.
pub fn parse(file: &str, text: &str, home: &str) -> Read {
    let mut reader = Reader {
        file,
        text,
        home,
        findings: Vec::new(),
    };
    let volumes = match yaml::parse(text) {
        Ok(document) => reader.document(&document),
        Err(wrong) => {
            let place = wrong
                .line
                .map_or(file.to_owned(), |line| format!("{file}:{line}"));
            let what = format!(
                "this is not the YAML of a backup definition: {}",
                wrong.what
            );
            let remedy = "migratecfg/README.md shows how to write it";
            reader
                .findings
                .push(Finding::error(CODE, what, remedy).at(place));
            Vec::new()
        }
    };
    (volumes, reader.findings)
}

/// Goes through the nodes and notes all that is wrong.
struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    home: &'a str,
    findings: Vec<Finding>,
}

/// A value and the way to it.
struct At<'a> {
    node: &'a Node,
    path: Vec<Down>,
}

impl At<'_> {
    fn child(&self, down: Down) -> Vec<Down> {
        let mut path = self.path.clone();
        path.push(down);
        path
    }
}

/// The values of a map by the keys that it may have, in the order of `keys`.
type Values<'a, const N: usize> = [Option<At<'a>>; N];

impl Reader<'_> {
    fn place(&self, path: &[Down]) -> String {
        match yaml::line_of(self.text, path) {
            Some(line) => format!("{}:{line}", self.file),
            None => self.file.to_owned(),
        }
    }

    fn refuse(&mut self, path: &[Down], what: impl Into<String>, remedy: impl Into<String>) {
        let finding = Finding::error(CODE, what, remedy).at(self.place(path));
        self.findings.push(finding);
    }

    fn document(&mut self, document: &Node) -> Vec<Volume> {
        let volumes = match document {
            Node::List(volumes) => volumes.as_slice(),
            Node::Null => &[],
            other => {
                let what = format!("the definition is {}, not a list of volumes", other.kind());
                self.refuse(&[], what, "begin each volume with `- volume: NAME`");
                return Vec::new();
            }
        };
        if volumes.is_empty() {
            self.refuse(
                &[],
                "the definition has no volumes",
                "write `- volume: NAME`, or unset it",
            );
        }
        let mut read: Vec<Volume> = Vec::new();
        for (number, node) in volumes.iter().enumerate() {
            let path = vec![Down::Value(number)];
            let Some(volume) = self.volume(&At { node, path }) else {
                continue;
            };
            if read.iter().any(|before| before.name == volume.name) {
                self.refuse(
                    &[Down::Value(number)],
                    format!("the volume {} is defined twice", volume.name),
                    "put all of its content under one",
                );
            }
            read.push(volume);
        }
        read
    }

    fn volume(&mut self, at: &At) -> Option<Volume> {
        let Node::Map(_) = at.node else {
            let what = format!(
                "an entry of the definition is {}, not a volume",
                at.node.kind()
            );
            self.refuse(
                &at.path,
                what,
                "write `- volume: NAME`, and its `content:` below",
            );
            return None;
        };
        let [name, content, items] = self.values(at, "a volume", ["volume", "content", "items"]);
        if let (Some(_), Some(items)) = (&content, &items) {
            let remedy = "put all of it under `content`";
            self.refuse(
                &items.path,
                "`items` is the same as `content`, and both are there",
                remedy,
            );
        }
        let name = match name {
            Some(name) => self.volume_name(&name),
            None => {
                self.refuse(&at.path, "a volume has no name", "write `volume: NAME`");
                None
            }
        };
        let items = match content.or(items) {
            Some(content) => self.content(&content),
            None => {
                let remedy = "write `content:`, and `- source: PATH` below";
                self.refuse(&at.path, "a volume has no content", remedy);
                Vec::new()
            }
        };
        Some(Volume { name: name?, items })
    }

    fn volume_name(&mut self, at: &At) -> Option<String> {
        let name = self.text_of(at, "volume")?;
        if let Some(wrong) = refuse_volume_name(name.as_bytes()) {
            let what = format!("`{}` {wrong}", shown(&name));
            self.refuse(
                &at.path,
                what,
                "write the name as the application's compose file has it",
            );
            return None;
        }
        Some(name)
    }

    fn content(&mut self, at: &At) -> Vec<Item> {
        let nodes = match at.node {
            Node::List(nodes) => nodes.as_slice(),
            Node::Null => &[],
            other => {
                let what = format!("the content of a volume is {}, not a list", other.kind());
                self.refuse(
                    &at.path,
                    what,
                    "write `- source: PATH` for each file or folder",
                );
                return Vec::new();
            }
        };
        if nodes.is_empty() {
            let remedy = "write `- source: PATH`, or remove the volume";
            self.refuse(&at.path, "the content of a volume is empty", remedy);
        }
        let items = nodes.iter().enumerate().filter_map(|(number, node)| {
            let path = at.child(Down::Value(number));
            self.item(&At { node, path })
        });
        items.collect()
    }

    fn item(&mut self, at: &At) -> Option<Item> {
        let Node::Map(_) = at.node else {
            let what = format!(
                "the content of a volume has {}, not a source",
                at.node.kind()
            );
            self.refuse(&at.path, what, "write `- source: PATH`");
            return None;
        };
        let [below, source, target, filter] =
            self.values(at, "an item", ["item", "source", "target", "filter"]);
        // std-backup's way: a key `item`, empty with the others beside it, or with them below.
        if let Some(below) = below.filter(|below| *below.node != Node::Null) {
            if source.is_some() || target.is_some() || filter.is_some() {
                let remedy = "put all of its keys either below `item` or beside it";
                self.refuse(
                    &below.path,
                    "an item has keys below and beside `item`",
                    remedy,
                );
                return None;
            }
            return self.item(&below);
        }
        let place = self.place(&at.path);
        let set = |value: &Option<At>| value.as_ref().is_some_and(|at| *at.node != Node::Null);
        let sound = self.findings.len();
        let (has_target, has_filter) = (set(&target), set(&filter));
        let source = match source {
            Some(source) if *source.node != Node::Null => self.source(&source),
            _ => {
                self.refuse(&at.path, "an item has no source", "write `source: PATH`");
                None
            }
        };
        let (target, into) = match target.filter(|_| has_target) {
            Some(target) => self.target(&target)?,
            None => (String::new(), true),
        };
        let filter = filter
            .filter(|_| has_filter)
            .and_then(|filter| self.filter(&filter));
        if self.findings.len() > sound {
            return None;
        }
        Some(Item {
            source: source?,
            target,
            into,
            filter,
            place,
        })
    }

    fn source(&mut self, at: &At) -> Option<String> {
        let source = self.text_of(at, "source")?;
        if source.is_empty() || source.contains('\0') {
            self.refuse(
                &at.path,
                "the source is no path",
                "write the path of a file or a folder",
            );
            return None;
        }
        Some(absolute(self.home, &source))
    }

    /// The path in the volume, and whether it names a folder to put a file into.
    fn target(&mut self, at: &At) -> Option<(String, bool)> {
        let target = self.text_of(at, "target")?;
        let parts: Vec<&str> = target
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        if parts.contains(&"..") || target.contains('\0') {
            let what = format!("the target `{}` leads out of the volume", shown(&target));
            self.refuse(&at.path, what, "write a path without `..`");
            return None;
        }
        let into = parts.is_empty() || target.ends_with('/') || target.ends_with("/.");
        Some((parts.join("/"), into))
    }

    fn filter(&mut self, at: &At) -> Option<Regex> {
        let filter = self.text_of(at, "filter")?;
        if filter.is_empty() {
            return None;
        }
        match Regex::new(&filter) {
            Ok(filter) => Some(filter),
            Err(error) => {
                // Its first lines draw the pattern and point into it.
                let text = error.to_string();
                let why = text.lines().last().unwrap_or_default();
                let why = why.trim_start_matches("error: ");
                let what = format!(
                    "the filter `{}` is no regular expression: {why}",
                    shown(&filter)
                );
                self.refuse(&at.path, what, r"write it as in `\.conf$`");
                None
            }
        }
    }

    fn text_of(&mut self, at: &At, key: &str) -> Option<String> {
        match at.node {
            Node::Text(text) => Some(text.clone()),
            other => {
                let what = format!("`{key}` is {}, not a text", other.kind());
                self.refuse(&at.path, what, "put the value in quotes");
                None
            }
        }
    }

    /// The values of a map; other keys, and keys that come twice, are refused.
    fn values<'n, const N: usize>(
        &mut self,
        at: &At<'n>,
        of: &str,
        keys: [&str; N],
    ) -> Values<'n, N> {
        let mut values = std::array::from_fn(|_| None);
        let Node::Map(pairs) = at.node else {
            return values;
        };
        for (number, (key, node)) in pairs.iter().enumerate() {
            let at_key = at.child(Down::Key(number));
            let Node::Text(key) = key else {
                self.refuse(
                    &at_key,
                    format!("a key of {of} is {}", key.kind()),
                    known(&keys),
                );
                continue;
            };
            let Some(index) = keys.iter().position(|known| known == key) else {
                let what = format!("`{}` is no key of {of}", shown(key));
                self.refuse(&at_key, what, known(&keys));
                continue;
            };
            if values[index].is_some() {
                self.refuse(
                    &at_key,
                    format!("{of} has `{key}` twice"),
                    "remove one of them",
                );
                continue;
            }
            let path = at.child(Down::Value(number));
            values[index] = Some(At { node, path });
        }
        values
    }
}

fn known(keys: &[&str]) -> String {
    format!("there are {}", keys.join(", "))
}
