//! Runs the host's tools (qemu-img, debugfs, mtools, the recipes) to their end.

use std::process::{Command, Stdio};

/// Runs a tool and returns what it wrote to stdout.
///
/// Panics with the command line and all of its output when it cannot start or fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    String::from_utf8_lossy(&run_bytes(command)).into_owned()
}

/// Like [`run`], for output that is not text.
#[track_caller]
pub fn run_bytes(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| {
        panic!("starting {command:?}: {e} (util/test installs what is needed)")
    });
    assert!(
        output.status.success(),
        "{command:?} failed with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output.stdout
}
