//! Units of a folder on their way into another store, and from one: `db/aside`, with folders as in
//! `db`. Nobody looks for units there.

use std::collections::BTreeSet;
use std::io;

use anyhow::{Context, Result};

use super::{Directory, FILE, FOLDER, Hold, name_in, plain, suffix};
use crate::fleet::store::moving::{Movable, Parcel, Role, Side, in_use};
use crate::fleet::store::{State, Store};

const IDENTITY: &str = "/db/.identity";

const ASIDE: &str = "/db/aside";

/// The note of a role.
fn note(role: Role) -> &'static str {
    match role {
        Role::From => "/db/.leaving",
        Role::To => "/db/.arriving",
    }
}

impl Directory {
    /// Whether a move is not over.
    pub(super) fn is_moving(&self) -> bool {
        [Role::From, Role::To]
            .iter()
            .any(|role| self.sys.exists(note(*role)))
    }

    fn make_dir(&self, folder: &str) -> Result<()> {
        match self.sys.make_dir(folder, FOLDER) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("making {}{folder}", self.base))
            }
            _ => Ok(()),
        }
    }

    /// Files that were set aside, with their states.
    fn files_aside(&self) -> Result<Vec<(State, String)>> {
        let mut files = Vec::new();
        for state in State::ALL {
            let folder = format!("{ASIDE}/{}", state.name());
            if self.sys.exists(&folder) {
                let names = self.sys.list(&folder);
                let names = names.with_context(|| format!("reading {}{folder}", self.base))?;
                files.extend(names.into_iter().map(|name| (state, name)));
            }
        }
        Ok(files)
    }
}

impl Movable for Directory {
    fn side(&self) -> Result<Side> {
        let _still = self.hold(Hold::Still)?;
        if !self.sys.exists(IDENTITY) {
            let identity: String = (0..8).map(|_| suffix()).collect();
            self.sys
                .write_whole(IDENTITY, identity.as_bytes(), FILE, None)
                .with_context(|| format!("writing {}{IDENTITY}", self.base))?;
        }
        let identity = self.sys.read_text(IDENTITY);
        Ok(Side {
            identity: identity.with_context(|| format!("reading {}{IDENTITY}", self.base))?,
            shown: self.base.clone(),
        })
    }

    fn moving(&self, role: Role) -> Result<Option<Side>> {
        let path = note(role);
        match self.sys.read_text(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => serde_json::from_str(&text?)
                .map(Some)
                .with_context(|| format!("reading {}{path}", self.base)),
        }
    }

    fn note_moving(&self, role: Role, other: Option<&Side>) -> Result<()> {
        let path = note(role);
        // Who adds just now ends that first.
        let _still = self.hold(Hold::Still)?;
        let written = match other {
            Some(other) => {
                let text = serde_json::to_string(other)?;
                self.sys.write_whole(path, text.as_bytes(), FILE, None)
            }
            None => self.sys.remove_file(path),
        };
        written.with_context(|| format!("writing {}{path}", self.base))
    }

    fn set_aside(&self) -> Result<()> {
        let _still = self.hold(Hold::Still)?;
        let held = self.leased("unit-")?;
        let mut users: BTreeSet<String> = self.workers()?.into_iter().collect();
        users.extend(held.iter().map(|(_, lease)| lease.holder.describe()));
        if !users.is_empty() {
            return Err(in_use(&users.into_iter().collect::<Vec<_>>()));
        }
        self.make_dir(ASIDE)?;
        for state in State::ALL {
            let aside = format!("{ASIDE}/{}", state.name());
            self.make_dir(&aside)?;
            for name in self.names(state)? {
                let path = format!("/db/{}/{name}", state.name());
                if self.read_or_warn(&path).is_some() {
                    self.sys
                        .rename(&path, &format!("{aside}/{name}"))
                        .with_context(|| format!("setting {}{path} aside", self.base))?;
                }
            }
        }
        Ok(())
    }

    fn aside(&self) -> Result<Vec<Parcel>> {
        let mut names = BTreeSet::new();
        let parcel = |(state, file): (State, String)| {
            let path = format!("{ASIDE}/{}/{file}", state.name());
            let text = self.sys.read_text(&path);
            let mut name = plain(&file);
            // Older tools may have left a name in two states.
            if !names.insert(name.clone()) {
                name = format!("{name}-{}", state.name());
            }
            Ok(Parcel {
                name,
                state,
                text: text.with_context(|| format!("reading {}{path}", self.base))?,
            })
        };
        self.files_aside()?.into_iter().map(parcel).collect()
    }

    fn take_in(&self, parcels: &[Parcel]) -> Result<()> {
        let _still = self.hold(Hold::Still)?;
        let mut there = BTreeSet::new();
        for state in State::ALL {
            there.extend(self.names(state)?.iter().map(|name| plain(name)));
        }
        self.forget_half_added()?;
        for parcel in parcels
            .iter()
            .filter(|parcel| !there.contains(&parcel.name))
        {
            let name = name_in(parcel.state, &parcel.name);
            let path = format!("/db/{}/{name}", parcel.state.name());
            self.sys
                .write_whole(&path, parcel.text.as_bytes(), FILE, None)
                .with_context(|| format!("writing {}{path}", self.base))?;
        }
        Ok(())
    }

    fn clear_aside(&self) -> Result<()> {
        for (state, name) in self.files_aside()? {
            self.remove(&format!("{ASIDE}/{}", state.name()), &name)?;
        }
        for state in State::ALL {
            self.sys.remove_dir(&format!("{ASIDE}/{}", state.name()))?;
        }
        self.sys.remove_dir(ASIDE).context("removing db/aside")
    }
}
