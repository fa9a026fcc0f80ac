//! Every keyfile that the golden files show is loaded by a real NetworkManager.
//!
//! It runs in mount, network and process namespaces of its own, with its own D-Bus and without any
//! hardware, so that this machine's network is never touched. It wants root (or `sudo` without a
//! password) and Debian's packages network-manager and dbus, which `util/test` installs; without
//! them it fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/network");
const LOADED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/network/loaded.txt"
);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network_manager/load.sh");

/// The keyfiles of a golden file: `### name: …` starts each.
fn keyfiles(golden: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for line in golden.split_inclusive('\n') {
        match (line.strip_prefix("### "), files.last_mut()) {
            (Some(title), _) => {
                let name = title.split(':').next().unwrap_or(title).trim_end();
                files.push((name.to_owned(), String::new()));
            }
            (None, Some((_, text))) => text.push_str(line),
            (None, None) => {}
        }
    }
    files.retain(|(name, _)| name != "findings");
    files
}

/// Golden files of all readers: `carried.txt` and `READER/carried.txt`, sorted.
fn golden_files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let read = |path: &Path| fs::read_to_string(path).ok();
    found.extend(read(&Path::new(FIXTURES).join("carried.txt")).map(|t| ("files".to_owned(), t)));
    for entry in fs::read_dir(FIXTURES).expect("listing the fixtures") {
        let entry = entry.expect("listing the fixtures");
        let name = entry.file_name().into_string().expect("names are text");
        found.extend(read(&entry.path().join("carried.txt")).map(|text| (name, text)));
    }
    found.sort();
    found
}

#[test]
fn network_manager_loads_every_keyfile() {
    let folder = tempfile::tempdir().expect("making a folder");
    let mut expected = 0;
    for (reader, golden) in golden_files() {
        for (name, text) in keyfiles(&golden) {
            // Names are unique in one system only; the id is what the answer is listed by.
            let name = format!("{reader}-{name}");
            let text = text.replacen("id=", &format!("id={reader}-"), 1);
            let path = folder.path().join(&name);
            fs::write(&path, text).expect("writing a keyfile");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
            expected += 1;
        }
    }
    assert!(expected > 10, "the golden files have keyfiles");

    let is_root = nix::unistd::geteuid().is_root();
    let mut command = match is_root {
        true => Command::new("unshare"),
        false => {
            let mut command = Command::new("sudo");
            command.args(["-n", "unshare"]);
            command
        }
    };
    command
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--mount-proc",
            "bash",
        ])
        .args([SCRIPT, folder.path().to_str().expect("the path is text")]);
    let output = command.output().expect("starting unshare");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");

    let loaded = stdout
        .lines()
        .filter(|line| line.starts_with("## "))
        .count();
    assert_eq!(loaded, expected, "{stdout}\n{stderr}");
    if std::env::var_os("BLESS").is_some() {
        fs::write(LOADED, stdout.as_bytes()).expect("writing the golden file");
    }
    let golden = fs::read_to_string(LOADED).expect("reading the golden file");
    assert_eq!(stdout, golden, "make it anew with BLESS=1");
}
