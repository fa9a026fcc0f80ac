//! Any user may run it, and stop it with Ctrl-C.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::tempdir;

use super::flasher::{Flasher, MIB, PAYLOAD, modern, modern_os, noise, packed, run};

/// Nobody in particular: `nobody`, when root runs the tests.
const USER: u32 = 65534;

#[test]
fn a_user_without_rights_gets_the_same() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(dir.path(), 0o755);
    // What was built may lie where only root can go.
    let program = at("extract");
    fs::copy(env!("CARGO_BIN_EXE_extract"), &program).unwrap();
    open(&program, 0o755);
    fs::create_dir(at("mine")).unwrap();
    fs::create_dir(at("theirs")).unwrap();
    open(&at("theirs"), 0o555);
    let is_root = geteuid().is_root();
    if is_root {
        chown(at("mine"), Some(USER), Some(USER)).unwrap();
    }
    let as_user = |args: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(args)
            .current_dir(at("mine"))
            .env("TMPDIR", at("mine"));
        if is_root {
            command.uid(USER).gid(USER);
        }
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for format in ["zip", "xz"] {
        let file = packed(dir.path(), modern(), format);
        open(Path::new(&file), 0o444);
        let name = format!("{format}.gz");
        let (code, err) = as_user(&["--img", &name, "--config", "x.conf", &file]);
        assert_eq!(code, Some(0), "{err}");
        let image = fs::read(at("mine").join(&name)).unwrap();
        assert!(run("gzip", &["-dc"], &image) == modern_os());
        let owner = fs::metadata(at("mine").join(&name)).unwrap().uid();
        assert_eq!(owner, if is_root { USER } else { geteuid().as_raw() });
        for args in [
            &["--img", "../theirs/os.gz", &file][..],
            &["--out-dir", "../theirs/new", &file],
            &["--config", "../theirs/x.conf", &file],
        ] {
            let (code, err) = as_user(args);
            assert_eq!(code, Some(1), "{err}");
            assert!(err.contains("nothing can be written in "), "{err}");
            assert!(
                err.ends_with("/theirs/: Permission denied (os error 13)\n"),
                "{err}"
            );
            assert_eq!(fs::read_dir(at("theirs")).unwrap().count(), 0);
        }
    }
    // Somebody else's configuration, in a folder where this user may write.
    fs::write(at("mine/x.conf"), "# theirs\nIMAGE_NAME=old\n").unwrap();
    let (code, err) = as_user(&[
        "--force",
        "--img",
        "zip.gz",
        "--config",
        "x.conf",
        &packed(dir.path(), modern(), "gz"),
    ]);
    assert_eq!(code, Some(0), "{err}");
    let text = fs::read_to_string(at("mine/x.conf")).unwrap();
    assert_eq!(text, "# theirs\nIMAGE_NAME=zip.gz\n");
}

fn interrupt(child: &Child) {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// A flasher that takes a while.
fn slow(dir: &Path) -> String {
    let mut os = modern_os().to_vec();
    os.extend(noise(16 * MIB, 11));
    packed(dir, &Flasher::modern(vec![(PAYLOAD, os)]).build(), "zip")
}

#[test]
fn ctrl_c_in_the_middle_leaves_nothing_half_done() {
    let dir = tempdir().unwrap();
    let file = slow(dir.path());
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("x.conf"), "IMAGE_NAME=old\n").unwrap();
    fs::write(out.join("os.gz"), "old").unwrap();
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_extract"));
        command.args(["--force", "--img", "os.gz", "--config", "x.conf", &file]);
        command
            .current_dir(&out)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    for _ in 0..10 {
        let mut child = start();
        while names(&out).len() == 2 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            // It was done before the signal came.
            fs::remove_file(out.join("checksums.sha256")).unwrap();
            fs::write(out.join("os.gz"), "old").unwrap();
            fs::write(out.join("x.conf"), "IMAGE_NAME=old\n").unwrap();
            continue;
        }
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.ends_with(": interrupted by SIGINT\n"), "{err}");
        assert_eq!(names(&out), ["os.gz", "x.conf"]);
        assert_eq!(fs::read(out.join("os.gz")).unwrap(), b"old");
        assert_eq!(fs::read(out.join("x.conf")).unwrap(), b"IMAGE_NAME=old\n");
        return;
    }
    panic!("it was too fast, ten times");
}

#[test]
fn ctrl_c_ends_a_pipe_with_an_exit_code() {
    let dir = tempdir().unwrap();
    let file = slow(dir.path());
    let mut child = Command::new(env!("CARGO_BIN_EXE_extract"))
        .args(["--img", "-", "--config", "x.conf", &file])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe is full, so it waits in the middle of the image.
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 2];
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(first, [0x1f, 0x8b]);
    interrupt(&child);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.ends_with(": interrupted by SIGINT\n"), "{err}");
    assert!(!dir.path().join("x.conf").exists());
}
