//! The files that u-boot reads, as files: what arming makes of them, and that an undo takes it back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use balena_migrate::boot::{self, Entry};
use balena_migrate::engine::journal::Begin;
use balena_migrate::engine::undo::undo;
use balena_migrate::engine::{ApplyError, apply};
use balena_migrate::host::Host;
use balena_migrate::host::u_boot::{EXTLINUX, U_ENV};
use balena_migrate::plan::Steps;
use balena_migrate::sys::Sys;

const BEAGLEBONES: [(&str, &str); 2] = [
    ("debian-10-beaglebone-black", U_ENV),
    ("debian-12-beaglebone-black", EXTLINUX),
];

fn captured(name: &str) -> Host {
    let text = fs::read_to_string(format!("tests/hosts/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A root with the file that u-boot reads, for root alone.
fn root(host: &Host, path: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let board = host.firmware.u_boot.clone().unwrap();
    let text = board.u_env.or(board.extlinux).unwrap();
    let file = dir.path().join(&path[1..]);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::create_dir_all(dir.path().join("var/lib")).unwrap();
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    dir
}

/// Every file below a folder, with its content and mode.
fn tree(folder: &Path) -> BTreeMap<String, (Vec<u8>, u32)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::metadata(&path).unwrap();
        if meta.is_dir() {
            files.extend(tree(&path));
        } else {
            let content = (fs::read(&path).unwrap(), meta.permissions().mode());
            files.insert(path.display().to_string(), content);
        }
    }
    files
}

/// Arms the machine in `dir`.
fn arm(host: &Host, dir: &Path) -> Result<(), ApplyError> {
    let loader = boot::of(host).ok().unwrap().loader;
    let armament = loader.arm(
        host,
        &Entry {
            kernel: host.kernel.image.clone().unwrap(),
            initramfs: loader.files(host).initramfs,
            arguments: vec!["panic=30".into(), "rdinit=/init".into()],
        },
    );
    let steps = Steps {
        steps: armament.steps,
        armed: true,
    };
    let begin = Begin {
        run_id: "run".into(),
        home: "/home".into(),
        boot_id: "boot".into(),
        one_shot: None,
        report: "/var/lib/balena-migrate".into(),
    };
    let sys = Sys::new(dir);
    apply(&sys, &sys, &steps, begin, &mut |_, _| ())
}

/// What the environment of u-boot is once it has read a text: `env import -t`.
fn environment(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().map(str::trim_start);
    let set = lines.filter(|line| !line.starts_with('#'));
    set.filter_map(|line| line.split_once('=')).collect()
}

#[test]
fn armed_and_taken_back() {
    for (name, path) in BEAGLEBONES {
        let host = captured(name);
        let dir = root(&host, path);
        let before = tree(dir.path());
        arm(&host, dir.path()).unwrap();
        let armed = tree(dir.path());
        let file = dir.path().join(&path[1..]).display().to_string();
        assert_ne!(armed[&file].0, before[&file].0, "{name}");
        assert_eq!(armed[&file].1, before[&file].1, "{name}: its own mode");
        let undone = undo(&Sys::new(dir.path())).unwrap();
        assert_eq!(undone.left, [""; 0]);
        assert!(tree(dir.path()) == before, "{name}");
    }
}

#[test]
fn a_file_that_has_changed_since_the_plan_stops_the_run() {
    for (name, path) in BEAGLEBONES {
        let host = captured(name);
        let dir = root(&host, path);
        let file = dir.path().join(&path[1..]);
        fs::write(&file, "somebody else's\n").unwrap();
        let before = tree(dir.path());
        assert!(matches!(arm(&host, dir.path()), Err(ApplyError::Undone(_))));
        assert!(tree(dir.path()) == before, "{name}");
    }
}

/// Kernel, device tree and overlays are chosen as before; the initramfs and the arguments are ours.
#[test]
fn u_boot_of_a_beaglebone_loads_our_initramfs_for_its_kernel() {
    let host = captured("debian-9-beaglebone-green");
    let dir = root(&host, U_ENV);
    let read = || fs::read_to_string(dir.path().join(&U_ENV[1..])).unwrap();
    let old = read();
    arm(&host, dir.path()).unwrap();
    let new = read();
    let mut wanted = environment(&old);
    wanted.insert(
        "loadrd",
        "load mmc ${bootpart} ${rdaddr} /boot/balena-migrate.img; setenv rdsize ${filesize}",
    );
    wanted.insert("cmdline", "panic=30 rdinit=/init");
    assert_eq!(environment(&new), wanted);
}
