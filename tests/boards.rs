//! The files that the loaders of boards read at every boot, as files: what arming makes of them, and that an
//! undo takes it back, also from what somebody has made of them since.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use balena_migrate::boot::{self, Entry, config_txt};
use balena_migrate::engine::journal::Begin;
use balena_migrate::engine::undo::undo;
use balena_migrate::engine::{ApplyError, apply};
use balena_migrate::host::Host;
use balena_migrate::host::u_boot::{EXTLINUX, U_ENV};
use balena_migrate::plan::Steps;
use balena_migrate::secret::Secret;
use balena_migrate::step::{Expect, Step, Writers};
use balena_migrate::sys::Sys;

const BOARDS: [(&str, &str); 3] = [
    ("debian-10-beaglebone-black", U_ENV),
    ("debian-12-beaglebone-black", EXTLINUX),
    ("raspios-9-pi-3", "/boot/config.txt"),
];

fn captured(name: &str) -> Host {
    let text = fs::read_to_string(format!("tests/hosts/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// What the loader reads.
fn text(host: &mut Host) -> &mut String {
    let firmware = &mut host.firmware;
    if let Some(board) = &mut firmware.u_boot {
        return board.u_env.as_mut().or(board.extlinux.as_mut()).unwrap();
    }
    let boot = firmware.raspberry_pi.as_mut().unwrap().boot.as_mut();
    boot.unwrap().texts.get_mut("config.txt").unwrap()
}

/// A root with the file that the loader reads, for root alone.
fn root(host: &Host, path: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = text(&mut host.clone()).clone();
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
    let mut steps = vec![Step::WriteFile {
        path: loader.files(host).initramfs,
        content: Secret::new("an initramfs"),
        mode: 0o600,
        expect: Expect::Seen(None),
        writers: Writers::People,
    }];
    steps.extend(armament.steps);
    let steps = Steps { steps, armed: true };
    let begin = Begin {
        run_id: "run".into(),
        home: "/home".into(),
        boot_id: "boot".into(),
        one_shot: Some(armament.one_shot),
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
    for (name, path) in BOARDS {
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
    for (name, path) in BOARDS {
        let host = captured(name);
        let dir = root(&host, path);
        let file = dir.path().join(&path[1..]);
        fs::write(&file, "somebody else's\n").unwrap();
        let before = tree(dir.path());
        assert!(matches!(arm(&host, dir.path()), Err(ApplyError::Undone(_))));
        assert!(tree(dir.path()) == before, "{name}");
    }
}

/// Settings are added, and taken away, by programs that know nothing of us.
#[test]
fn what_somebody_has_changed_since_stays_without_what_is_ours() {
    for (name, path) in BOARDS {
        let host = captured(name);
        let dir = root(&host, path);
        let before = tree(dir.path());
        arm(&host, dir.path()).unwrap();
        let file = dir.path().join(&path[1..]);
        let armed = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("# first\n{armed}# last\n")).unwrap();
        let undone = undo(&Sys::new(dir.path())).unwrap();
        assert_eq!(undone.left, [""; 0], "{name}");
        let mut after = tree(dir.path());
        let (_, mode) = before[&file.display().to_string()];
        let text = text(&mut host.clone()).clone();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let wanted = format!("# first\n{text}{end}# last\n");
        let entry = after.insert(
            file.display().to_string(),
            before[&file.display().to_string()].clone(),
        );
        assert_eq!(
            String::from_utf8(entry.clone().unwrap().0).unwrap(),
            wanted,
            "{name}"
        );
        assert_eq!(entry.unwrap().1, mode, "{name}");
        assert!(after == before, "{name}: all else");
    }
}

/// As long as the file starts stage 2, what it names must be there: a kernel without its initramfs, and
/// with a command line that is gone, comes up nowhere.
#[test]
fn what_a_file_names_stays_as_long_as_the_file_does() {
    for (name, path) in BOARDS {
        let host = captured(name);
        let dir = root(&host, path);
        let before = tree(dir.path());
        arm(&host, dir.path()).unwrap();
        let file = dir.path().join(&path[1..]);
        let armed = fs::read_to_string(&file).unwrap();
        let torn = armed.replace("# balena-migrate: end\n", "");
        fs::write(&file, &torn).unwrap();
        let left_there = tree(dir.path());
        let undone = undo(&Sys::new(dir.path())).unwrap();
        let [first, second] = &undone.left[..] else {
            panic!("{name}: {:?}", undone.left);
        };
        assert!(
            first.starts_with(&format!("{path} was changed after")),
            "{first}"
        );
        assert!(second.starts_with("all else stays too"), "{second}");
        assert!(tree(dir.path()) == left_there, "{name}");
        // Somebody puts it right by hand.
        fs::write(&file, text(&mut host.clone())).unwrap();
        assert_eq!(undo(&Sys::new(dir.path())).unwrap().left, [""; 0]);
        assert!(tree(dir.path()) == before, "{name}");
    }
}

/// With its journal gone, what a run has left would be taken for the old file.
#[test]
fn an_armed_file_is_not_taken_for_the_old_one() {
    for (name, path) in BOARDS {
        let mut host = captured(name);
        let dir = root(&host, path);
        arm(&host, dir.path()).unwrap();
        let file = dir.path().join(&path[1..]);
        *text(&mut host) = fs::read_to_string(&file).unwrap();
        let Err(findings) = boot::of(&host) else {
            panic!("{name} can be armed again");
        };
        let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        assert!(codes.contains(&"boot-leftover"), "{name}: {codes:?}");
        let marks = config_txt::marks();
        *text(&mut host) = marks.strip(text(&mut host)).unwrap();
        assert!(boot::of(&host).is_ok(), "{name}");
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
