//! Places for files on the disk to overwrite, behind all that the flash touches: which part of the
//! disk may be used, and where on it the blocks of a file are.
//!
//! Pure. The planner asks it what is possible, and the engine which of the pieces that it
//! allocated can be kept.

pub mod layout;
pub mod manifest;
pub mod region;

pub use layout::{Layout, Refusal};
pub use manifest::{Kept, Manifest};
pub use region::{Fit, Region};

/// Where a file waits while the disk is overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Waits {
    /// In memory.
    Memory,
    /// On another disk.
    Disk,
    /// On the disk that is overwritten, behind the end of the new system.
    Extents,
}

impl Waits {
    /// For people.
    pub fn in_words(self) -> &'static str {
        match self {
            Waits::Memory => "in memory",
            Waits::Disk => "on another disk",
            Waits::Extents => "behind the new system",
        }
    }
}

/// Name of the image among the kept files.
pub const PAYLOAD: &str = "payload";

/// Name of the backup among the kept files.
pub const BACKUP: &str = "backup";

/// Folder of the kept files, in the root of a file system.
pub const FOLDER: &str = "balena-migrate.keep";

/// What must stay free of a file system of that size while files are kept on it: the old system
/// goes on running there. In bytes.
pub fn margin(fs_bytes: u64) -> u64 {
    (fs_bytes / 20).max(64 << 20)
}
