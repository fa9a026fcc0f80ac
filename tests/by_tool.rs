//! The step that has a tool of the distribution build the initramfs: what the tool is given, what
//! comes of what it makes, and that nothing of its work is left.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use balena_migrate::engine::journal::Begin;
use balena_migrate::engine::undo::undo;
use balena_migrate::engine::{self, ApplyError};
use balena_migrate::initramfs::tool::{FOLDER, Tool};
use balena_migrate::plan::Steps;
use balena_migrate::secret::Secret;
use balena_migrate::step::by_tool::{self, ByTool};
use balena_migrate::step::{Expect, Step, Writers};
use balena_migrate::sys::Sys;
use balena_migrate::sys::command::Job;
use balena_migrate::sys::files::Gate;

/// Stands in for mkinitramfs: leaves work behind, as the real one does when it is killed.
const MKINITRAMFS: &str = "\
set -e
[ \"$1 $3 $5\" = '-d -o 6.1.0' ]
[ -x \"$2/scripts/local-bottom/balena-migrate\" ]
grep -q MODULES \"$2/initramfs.conf\"
mkdir -p \"$TMPDIR/mkinitramfs_x/etc\"
ln -s /proc/nowhere \"$TMPDIR/mkinitramfs_x/etc/mtab\"
";

const DRACUT: &str = "\
set -e
[ \"$1 $2 $3 $4\" = '--force --add balena-migrate --tmpdir' ]
[ -d \"$5\" ]
[ -x \"$dracutbasedir/modules.d/95balena-migrate/module-setup.sh\" ]
[ -e \"$dracutbasedir/modules.d/99base/init.sh\" ]
shift 7
set -- -d x -o \"$@\"
";

/// A machine with that tool, which ends with `last`.
fn machine(tool: Tool, last: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let script = match tool {
        Tool::InitramfsTools => MKINITRAMFS,
        Tool::Dracut => DRACUT,
    };
    write("usr/sbin/tool", &format!("#!/bin/sh\n{script}{last}\n"));
    write("etc/initramfs-tools/initramfs.conf", "MODULES=most\n");
    write("usr/lib/dracut/modules.d/99base/init.sh", "");
    fs::create_dir_all(dir.path().join("var/lib")).unwrap();
    fs::create_dir_all(dir.path().join("boot")).unwrap();
    dir
}

const MAKES_ONE: &str = "printf theirs > \"$4\"";

fn steps(tool: Tool) -> Steps {
    let steps = vec![
        Step::MakeFolder {
            path: FOLDER.to_owned(),
        },
        Step::WriteFile {
            path: by_tool::ours(),
            content: Secret::new(*b"ours"),
            mode: 0o600,
            expect: Expect::Seen(None),
            writers: Writers::People,
        },
        Step::BuildByTool(Box::new(ByTool {
            tool,
            program: "/usr/sbin/tool".into(),
            release: "6.1.0".into(),
            path: "/boot/balena-migrate.img".into(),
        })),
    ];
    Steps { steps, armed: true }
}

fn apply(sys: &Sys, changing: &Sys, tool: Tool) -> Result<(), ApplyError> {
    let begin = Begin {
        run_id: "run".into(),
        home: "/".into(),
        boot_id: "boot".into(),
        one_shot: None,
        report: "/var/lib/balena-migrate".into(),
    };
    engine::apply(sys, changing, &steps(tool), begin, &mut |_, _| ())
}

/// Every path below `root`, with the content of files.
fn tree_of(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut tree = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                folders.push(path.clone());
            }
            let content = fs::read(&path).ok().filter(|_| meta.is_file());
            tree.push((path, content.unwrap_or_default()));
        }
    }
    tree.sort();
    tree
}

#[test]
fn ours_comes_before_theirs_and_the_undo_leaves_nothing() {
    for tool in [Tool::InitramfsTools, Tool::Dracut] {
        let dir = machine(tool, MAKES_ONE);
        let before = tree_of(dir.path());
        let sys = Sys::new(dir.path());
        apply(&sys, &sys, tool).unwrap();
        let made = sys.read("/boot/balena-migrate.img").unwrap();
        let mut wanted = b"ours".to_vec();
        wanted.resize(512, 0);
        wanted.extend_from_slice(b"theirs");
        assert!(made == wanted, "{tool:?}: {made:?}");
        let mode = sys.meta("/boot/balena-migrate.img").unwrap().mode;
        assert_eq!(mode, 0o600, "it holds keys");
        assert_eq!(sys.meta(FOLDER).unwrap().mode, 0o700);
        assert_eq!(undo(&sys).unwrap().left, Vec::<String>::new());
        assert_eq!(tree_of(dir.path()), before, "{tool:?}");
    }
}

#[test]
fn a_tool_that_fails_is_quoted_and_all_is_taken_back() {
    let cases = [
        ("echo 'E: no space left' >&2; exit 3", "no space left"),
        (
            "exit 0",
            "made no /var/lib/balena-migrate.initramfs/tool.img",
        ),
        (": > \"$4\"", "is empty"),
    ];
    for tool in [Tool::InitramfsTools, Tool::Dracut] {
        for (last, says) in cases {
            let dir = machine(tool, last);
            let before = tree_of(dir.path());
            let sys = Sys::new(dir.path());
            let error = apply(&sys, &sys, tool).unwrap_err();
            assert!(matches!(error, ApplyError::Undone(_)), "{error:?}");
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(tree_of(dir.path()), before, "{tool:?}: {last}");
        }
    }
}

/// A gate that fails at change `at` and for good, like a process that was killed. That a program still
/// runs is not another change.
fn breaks_at(at: usize) -> Gate {
    let seen = Mutex::new((0, String::new()));
    Arc::new(move |change| {
        let (count, last) = &mut *seen.lock().unwrap();
        if change != *last {
            (*count, *last) = (*count + 1, change.to_owned());
        }
        match *count > at {
            true => Err(io::Error::other(format!("broken on purpose at: {change}"))),
            false => Ok(()),
        }
    })
}

#[test]
fn a_run_that_is_cut_off_at_any_change_is_undone() {
    for at in 0.. {
        let dir = machine(Tool::InitramfsTools, MAKES_ONE);
        let before = tree_of(dir.path());
        let sys = Sys::new(dir.path());
        let dead = sys.gated(breaks_at(at));
        let applied = apply(&dead, &dead, Tool::InitramfsTools);
        assert_eq!(
            undo(&sys).unwrap().left,
            Vec::<String>::new(),
            "change {at}"
        );
        assert_eq!(tree_of(dir.path()), before, "change {at}");
        if applied.is_ok() {
            assert!(at > 8, "a run makes more changes than {at}");
            break;
        }
    }
}

/// The script, and what it has started.
#[test]
fn a_program_that_hangs_or_is_interrupted_is_ended_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("hangs");
    let started = dir.path().join("started");
    let text = format!(
        "#!/bin/sh\nsleep 600 &\necho $! > {}\nwait\n",
        started.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let pid = || fs::read_to_string(&started).unwrap_or_default();
    let interrupted: Gate = {
        let started = started.clone();
        Arc::new(move |_| {
            let text = fs::read_to_string(&started).unwrap_or_default();
            match text.ends_with('\n') {
                true => Err(io::Error::new(io::ErrorKind::Interrupted, "by a signal")),
                false => Ok(()),
            }
        })
    };
    let rows = [
        (Sys::new("/"), 5, "did not end within 5 s"),
        (Sys::new("/").gated(interrupted), 600, "by a signal"),
    ];
    for (sys, seconds, why) in rows {
        let _ = fs::remove_file(&started);
        let argv = [script.to_string_lossy().into_owned()];
        let job = Job::of(&argv, Duration::from_secs(seconds));
        let error = sys.run_job(&job, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        // Its end may take a moment, and whoever inherited it may not have looked after it yet.
        let stat = format!("/proc/{}/stat", pid().trim());
        let is_there = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z"));
        let mut tries = 0;
        while is_there() {
            tries += 1;
            assert!(tries < 100, "{stat} is still there");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
