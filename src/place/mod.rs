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

/// Folder of the kept files, in the root of a file system.
pub const FOLDER: &str = "balena-migrate.keep";

/// What must stay free of a file system of that size while files are kept on it: the old system
/// goes on running there. In bytes.
pub fn margin(fs_bytes: u64) -> u64 {
    (fs_bytes / 20).max(64 << 20)
}
