//! What became of a run on a device, in the words of `balena-migrate status --json`: the device writes them,
//! and the fleet's tools read them.

use serde::{Deserialize, Serialize};

/// What `status` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// There is no run.
    Idle,
    /// A run, or an undo, is at work.
    Running,
    /// A run was cut off, or taken back.
    Interrupted,
    /// Everything is made, and the next boot is as ever.
    Prepared,
    /// The next boot starts stage 2; on some machines a reboot with a certain argument, and no other.
    Armed,
    /// It was armed, and this is the old system again.
    Returned,
}
