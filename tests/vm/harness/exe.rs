//! The program under test, as a user gets it: static executables.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The path of the executable for this machine, which util/build makes; built once a process.
pub fn balena_migrate() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built(Command::new(script("util/build"))))
}

/// The path of the one for 32-bit PCs, which util/build-release makes; built once a process.
pub fn for_i686() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut command = Command::new(script("util/build-release"));
        command.args(["--only-build", "i686-unknown-linux-musl"]);
        built(command)
    })
}

/// The path of the one for 64-bit ARM boards, likewise.
pub fn for_aarch64() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| for_board("aarch64-unknown-linux-musl"))
}

/// The path of the one for 32-bit ARM boards, from ARMv7 on, likewise.
pub fn for_armv7() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| for_board("armv7-unknown-linux-musleabihf"))
}

/// Not optimised as a whole, as releases are: that would take most of a build.
fn for_board(target: &str) -> PathBuf {
    let mut command = Command::new(script("util/build-release"));
    command.args(["--only-build", target]);
    command.env("CARGO_PROFILE_RELEASE_LTO", "off");
    command.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    built(command)
}

fn script(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a script that says last where the executable is.
fn built(mut command: Command) -> PathBuf {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|e| panic!("starting {name}: {e}"));
    assert!(output.status.success(), "{name} failed: {}", output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    let path = PathBuf::from(said.lines().last().unwrap_or_default());
    assert!(path.is_file(), "{name} has not built anything: {said}");
    path
}
