//! Looks at all that goes into the backup, before anything is done: what is missing, what can't be
//! taken along, and how large it is.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::walk::{Entry, Note, NoteKind, Visitor, Walk, WalkError};
use super::{Item, Volume, aside, header, shown};
use crate::finding::Finding;
use crate::sys::Sys;
use crate::sys::files::temporary_name;
use crate::sys::tree::NodeKind;

/// How large a backup is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes in the new system, holes filled.
    pub unpacked: u64,
    /// Bytes that the packed file has at most, for holes pack to next to nothing.
    pub packed: u64,
}

/// What there is to say about a backup.
#[derive(Debug, Default)]
pub struct Survey {
    /// What is wrong or worth knowing.
    pub findings: Vec<Finding>,
    /// How large it is.
    pub size: Size,
}

/// The backup at `path`, whatever it is called by now: it does not go into itself.
pub fn own_files(sys: &Sys, path: &str) -> Vec<(u64, u64)> {
    let names = [path.to_owned(), aside(path), temporary_name(path)];
    let nodes = names
        .iter()
        .filter_map(|name| sys.node(Path::new(name)).ok());
    nodes.map(|node| node.id).collect()
}

/// Looks at all volumes. `own` are the files that don't go into the backup.
pub fn survey(sys: &Sys, volumes: &[Volume], own: &[(u64, u64)]) -> Survey {
    let mut survey = Survey::default();
    let mut look = Look::default();
    for volume in volumes {
        look.files.clear();
        let mut walk = Walk::new(sys, volume, own, &mut look);
        for item in &volume.items {
            if let Err(error) = walk.item(item) {
                survey.findings.push(finding_of(&error).at(&item.place));
            }
        }
    }
    for ((kind, place), paths) in look.notes {
        survey
            .findings
            .push(finding_of_notes(kind, &paths).at(place));
    }
    survey.size = look.size;
    // Deflate gives back what it can't pack, and a little.
    survey.size.packed += survey.size.packed / 1000;
    survey
}

/// Counts, and gathers what to say.
#[derive(Default)]
struct Look {
    size: Size,
    notes: BTreeMap<(NoteKind, String), Vec<PathBuf>>,
    /// Where the user asked for the item.
    place: String,
    /// Files of this volume that have more than one name.
    files: HashSet<(u64, u64)>,
}

impl Visitor for Look {
    fn begin(&mut self, item: &Item) {
        self.place.clone_from(&item.place);
    }

    fn entry(&mut self, entry: &Entry) -> anyhow::Result<()> {
        self.size.packed += header::most_bytes(&entry.name);
        let node = &entry.node;
        let first = node.names < 2 || self.files.insert(node.id);
        if node.kind == NodeKind::File && first {
            self.size.unpacked += node.bytes;
            self.size.packed += node.bytes.min(node.allocated);
        }
        Ok(())
    }

    fn note(&mut self, note: Note) {
        let key = (note.kind, self.place.clone());
        self.notes.entry(key).or_default().push(note.path);
    }
}

fn finding_of(error: &WalkError) -> Finding {
    let remedy = match error {
        WalkError::Missing(_) => "put the path right, or take the source out of the backup",
        WalkError::Special(_) => "take it out of the backup",
        WalkError::FilterOnFile(_) => "remove the filter, or give a folder",
        WalkError::Twice { .. } => "give one of the two another target",
        WalkError::Read { .. } | WalkError::Visit(_) => {
            "put it right, or take it out of the backup"
        }
    };
    let code = match error {
        WalkError::Twice { .. } => "backup-twice",
        _ => "backup-source",
    };
    Finding::error(code, error.to_string(), remedy)
}

fn finding_of_notes(kind: NoteKind, paths: &[PathBuf]) -> Finding {
    /// As many are named; a folder may have thousands.
    const NAMED: usize = 4;
    let mut named: Vec<String> = paths.iter().take(NAMED).map(shown).collect();
    if paths.len() > NAMED {
        named.push(format!("{} more", paths.len() - NAMED));
    }
    let remedy = match kind {
        NoteKind::NoMatch => "put the filter right: it looks at names, not at paths",
        NoteKind::Vanished | NoteKind::Changed => "stop what writes there, and run again",
        NoteKind::XattrsDropped
        | NoteKind::Dangling
        | NoteKind::Circle
        | NoteKind::Around
        | NoteKind::Special
        | NoteKind::Itself => "nothing is to be done if the application does not need it",
    };
    let what = format!("{}: {}", kind.words(), named.join(", "));
    Finding::warning("backup-content", what, remedy)
}
