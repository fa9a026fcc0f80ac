//! The program under test, as a user gets it: the static executable that util/build makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The path of the static executable, built once a process.
pub fn balena_migrate() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("util/build");
        let output = Command::new(&script)
            .stderr(Stdio::inherit())
            .output()
            .unwrap_or_else(|e| panic!("starting {}: {e}", script.display()));
        assert!(
            output.status.success(),
            "{} failed: {}",
            script.display(),
            output.status
        );
        let said = String::from_utf8_lossy(&output.stdout);
        let path = PathBuf::from(said.lines().last().unwrap_or_default());
        assert!(
            path.is_file(),
            "{} has not built anything: {said}",
            script.display()
        );
        path
    })
}
