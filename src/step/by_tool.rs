//! The step that has a tool of the distribution build the initramfs around stage 2.

use crate::initramfs::tool::{FOLDER, OURS, Tool};

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByTool {
    /// The tool.
    pub tool: Tool,
    /// Its program.
    pub program: String,
    /// The kernel's release.
    pub release: String,
    /// The file to make. Its folder for the work, with the archive of ours in it, is there.
    pub path: String,
}

/// The archive of ours.
pub fn ours() -> String {
    format!("{FOLDER}/{OURS}")
}
