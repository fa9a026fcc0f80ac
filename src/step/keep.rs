//! The step that puts files onto the disk to overwrite, behind all that the flash touches.

use crate::device_node;
use crate::growth::DataPlace;
use crate::handover::Image;
use crate::place::Layout;

/// Which files to keep, and where.
#[derive(Debug, Clone)]
pub struct Keep {
    /// The folder to make: [`crate::place::FOLDER`] in the root of a file system on the disk.
    pub folder: String,
    /// How that file system's device lies on the disk.
    pub layout: Layout,
    /// Kernel name of the disk to overwrite.
    pub disk: String,
    /// Its size in bytes.
    pub disk_bytes: u64,
    /// Its logical sector size in bytes.
    pub sector_bytes: u32,
    /// The new system: files are kept behind it.
    pub image: Image,
    /// How far it reaches when resin-data has to grow; without this, as far as `image` says.
    pub growth: Option<Growth>,
    /// The files, each with a name of its own.
    pub files: Vec<Wanted>,
}

/// What resin-data may have to grow for.
#[derive(Debug, Clone)]
pub struct Growth {
    /// resin-data.
    pub data: DataPlace,
    /// The backup, wherever it waits: it is measured when the step acts.
    pub backup: Option<String>,
    /// Bytes of the other files for resin-data.
    pub others: u64,
}

/// A file to keep.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name in the manifest, which is good for a file name too.
    pub name: String,
    /// What goes into it.
    pub content: Content,
    /// All of it must lie in one piece on the disk.
    pub contiguous: bool,
    /// The firmware reads it, or what that has started: it must lie where these reach.
    pub by_firmware: bool,
}

/// What goes into a kept file.
#[derive(Debug, Clone)]
pub enum Content {
    /// What is in a file of this machine when the step acts.
    Copy {
        /// Its path.
        path: String,
        /// The SHA-256 that it must have, when that is known: 64 lower-case hex digits.
        sha256: Option<String>,
        /// It is on the same file system as the folder: when it lies well already, it is used as it is.
        in_place: bool,
    },
    /// Zeros: something is written over them later.
    Reserved {
        /// Size in bytes.
        bytes: u64,
    },
}

impl Keep {
    /// Names of the files, for people.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        names.join(", ")
    }

    /// The device file of the disk.
    pub fn node(&self) -> String {
        device_node::of(&self.disk)
    }
}
