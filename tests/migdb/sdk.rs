//! The stand-in for the balena API, proven: balena's own client finds in it what it expects.

use std::path::PathBuf;
use std::process::Command;

use crate::api::{Api, TOKEN};
use crate::fleet::ended;

/// The release that the stand-in was proven with.
const SDK: &str = "balena-sdk@22.4.9";

/// Where it is kept between runs.
fn folder() -> PathBuf {
    let cache = std::env::var_os("BALENA_MIGRATE_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/balena-migrate");
    cache.unwrap_or_else(home).join("balena-sdk")
}

#[test]
#[ignore = "installs a package of npm: `util/test` runs it"]
fn the_stand_in_is_taken_for_the_api() {
    let folder = folder();
    if !folder.join("whole").exists() {
        std::fs::create_dir_all(&folder).unwrap();
        let done = Command::new("timeout")
            .args([
                "-k",
                "10",
                "600",
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                SDK,
            ])
            .current_dir(&folder)
            .status()
            .unwrap();
        assert!(done.success(), "npm install: {done}");
        // One that was cut off is begun again.
        std::fs::write(folder.join("whole"), SDK).unwrap();
    }
    let api = Api::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/migdb/sdk.mjs");
    let mut node = Command::new("timeout");
    node.args(["-k", "10", "120", "node", script])
        .arg(&folder)
        .args([&api.url, TOKEN]);
    let ended = ended(node.output().unwrap());
    let requests = api.kept.lock().unwrap().requests.join("\n");
    assert_eq!(
        ended.code,
        Some(0),
        "{}\n{}\n{requests}",
        ended.out,
        ended.err
    );
}
