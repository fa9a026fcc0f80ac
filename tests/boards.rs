//! The files that the loaders of boards read at every boot, as files: what arming makes of them, and that an
//! undo takes it back, also from what somebody has made of them since.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

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

/// Files, each with its content and mode.
type Tree = BTreeMap<String, (Vec<u8>, u32)>;

/// Every file below a folder.
fn tree(folder: &Path) -> Tree {
    let mut files = Tree::new();
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

/// A board as it was before it was armed.
struct Board {
    name: &'static str,
    /// The file that its loader reads.
    path: &'static str,
    host: Host,
    dir: tempfile::TempDir,
    before: Tree,
}

impl Board {
    fn each() -> impl Iterator<Item = Board> {
        BOARDS.into_iter().map(|(name, path)| {
            let host = captured(name);
            let dir = root(&host, path);
            Board {
                name,
                path,
                before: tree(dir.path()),
                host,
                dir,
            }
        })
    }

    fn armed() -> impl Iterator<Item = Board> {
        Board::each().inspect(|board| arm(&board.host, board.dir.path()).unwrap())
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(&self.path[1..])
    }

    fn read(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    /// Takes everything back, and gives what could not be.
    fn undo(&self) -> Vec<String> {
        undo(&Sys::new(self.dir.path())).unwrap().left
    }

    #[track_caller]
    fn is_as_before(&self) {
        assert!(tree(self.dir.path()) == self.before, "{}", self.name);
    }
}

#[test]
fn armed_and_taken_back() {
    for board in Board::armed() {
        let (armed, file) = (tree(board.dir.path()), board.file().display().to_string());
        assert_ne!(armed[&file].0, board.before[&file].0, "{}", board.name);
        assert_eq!(armed[&file].1, board.before[&file].1, "its own mode");
        assert_eq!(board.undo(), [""; 0]);
        board.is_as_before();
    }
}

#[test]
fn a_file_that_has_changed_since_the_plan_stops_the_run() {
    for mut board in Board::each() {
        board.write("somebody else's\n");
        board.before = tree(board.dir.path());
        let armed = arm(&board.host, board.dir.path());
        assert!(matches!(armed, Err(ApplyError::Undone(_))));
        board.is_as_before();
    }
}

/// Settings are added, and taken away, by programs that know nothing of us.
#[test]
fn what_somebody_has_changed_since_stays_without_what_is_ours() {
    for mut board in Board::armed() {
        board.write(&format!("# first\n{}# last\n", board.read()));
        assert_eq!(board.undo(), [""; 0], "{}", board.name);
        let old = text(&mut board.host).clone();
        let end = if old.ends_with('\n') { "" } else { "\n" };
        assert_eq!(
            board.read(),
            format!("# first\n{old}{end}# last\n"),
            "{}",
            board.name
        );
        // All else, and the file's mode.
        board.write(&old);
        board.is_as_before();
    }
}

/// As long as the file starts stage 2, what it names must be there: a kernel without its initramfs, and
/// with a command line that is gone, comes up nowhere.
#[test]
fn what_a_file_names_stays_as_long_as_the_file_does() {
    for mut board in Board::armed() {
        board.write(&board.read().replace("# balena-migrate: end\n", ""));
        let left_there = tree(board.dir.path());
        let left = board.undo();
        let [first, second] = &left[..] else {
            panic!("{}: {left:?}", board.name);
        };
        let changed = format!("{} was changed after", board.path);
        assert!(first.starts_with(&changed), "{first}");
        assert!(second.starts_with("all else stays too"), "{second}");
        assert!(tree(board.dir.path()) == left_there, "{}", board.name);
        // Somebody puts it right by hand.
        let old = text(&mut board.host).clone();
        board.write(&old);
        assert_eq!(board.undo(), [""; 0]);
        board.is_as_before();
    }
}

/// With its journal gone, what a run has left would be taken for the old file.
#[test]
fn an_armed_file_is_not_taken_for_the_old_one() {
    for mut board in Board::armed() {
        let armed = board.read();
        *text(&mut board.host) = armed.clone();
        let Err(findings) = boot::of(&board.host) else {
            panic!("{} can be armed again", board.name);
        };
        let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        assert!(codes.contains(&"boot-leftover"), "{codes:?}");
        *text(&mut board.host) = config_txt::marks().strip(&armed).unwrap();
        assert!(boot::of(&board.host).is_ok(), "{}", board.name);
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
