//! Devices behind a real sshd: logging in, host keys, passwords, and files that go there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use balena_migrate::fleet::facts::{self, Facts, Rights};
use balena_migrate::fleet::material::Material;
use balena_migrate::fleet::ssh::{Ssh, SshError, Target};
use balena_migrate::fleet::throttle::Throttle;
use balena_migrate::fleet::transfer::{self, Plan, TransferError};
use balena_migrate::sys::Sys;

use crate::sshd::{Device, Keys};

const LIMIT: Duration = Duration::from_secs(60);

fn target(device: &Device, keys: &Keys) -> Target {
    Target {
        host: "127.0.0.1".to_owned(),
        user: Some("pi".to_owned()),
        port: device.port,
        options: shell_words::split(&keys.options()).unwrap(),
        password: None,
        host_keys: "accept-new".to_owned(),
    }
}

fn connect(device: &Device, keys: &Keys) -> Ssh {
    Ssh::new(&Sys::new("/"), target(device, keys)).unwrap()
}

fn ask(ssh: &Ssh) -> Facts {
    let (answer, said) = ssh.script("asking", facts::SCRIPT, LIMIT).unwrap();
    assert_eq!(answer.code, Some(0), "{answer:?}");
    facts::parse(&said).unwrap_or_else(|| panic!("{said}"))
}

/// A sudo that asks for the password `hunter2` as sudo(8) does, byte by byte, but only when -k makes it;
/// without, it remembers.
pub const SUDO: &str = r#"#!/bin/sh
ask=no
while :; do case $1 in
    -k) ask=yes; shift ;;
    -S) read=yes; shift ;;
    -p) shift 2 ;;
    -n) [ $ask = no ] || exit 1; shift ;;
    *) break ;;
esac; done
if [ $ask = yes ]; then
    [ "${read-}" = yes ] || exit 1
    IFS= read -r word
    [ "$word" = hunter2 ] || { echo "sudo: 1 incorrect password attempt" >&2; exit 1; }
fi
exec env SUDO_USER=pi "$@"
"#;

#[test]
fn facts_come_in_one_round_trip() {
    let keys = Keys::new();
    let device = Device::new(&keys);
    fs::create_dir(device.home().join("migrate")).unwrap();
    fs::write(device.home().join("migrate/a file"), "abc").unwrap();
    let ssh = connect(&device, &keys);
    let said = ask(&ssh);
    assert_eq!(said.machine, Sys::new("/").uname().unwrap().machine);
    assert_eq!(said.rights, Rights::None, "there is no sudo");
    assert!(said.free.is_some_and(|free| free > 0));
    let file = &said.files["a file"];
    assert_eq!(file.bytes, 3);
    assert!(file.sha256.starts_with("ba7816bf"), "{file:?}");
    ask(&ssh);
    assert_eq!(device.connections(), 1, "both calls share a connection");
}

#[test]
fn a_password_is_in_no_argument_and_goes_only_where_it_is_asked_for() {
    let keys = Keys::new();
    let device = Device::new(&keys);
    device.program("sudo", SUDO);
    let mut target = target(&device, &keys);
    target
        .options
        .extend(["-o".to_owned(), "PubkeyAuthentication=no".to_owned()]);
    target.password = Some(balena_migrate::secret::Secret::new("hunter2"));
    let (done, over) = mpsc::channel();
    let watch = std::thread::spawn(move || {
        let mut seen = BTreeSet::new();
        // Also over when the test panics.
        while let Err(mpsc::RecvTimeoutError::Timeout) = over.recv_timeout(Duration::from_millis(2))
        {
            seen.extend(command_lines());
        }
        seen
    });
    let ssh =
        Ssh::answered_by(&Sys::new("/"), target.clone(), env!("CARGO_BIN_EXE_migdb")).unwrap();
    assert_eq!(ask(&ssh).rights, Rights::Password);
    let mut heard = Vec::new();
    let answer = ssh.run_as_root(
        Rights::Password,
        "x",
        "echo $SUDO_USER; cat",
        LIMIT,
        &mut |bytes| heard.extend_from_slice(bytes),
    );
    assert_eq!(answer.unwrap().code, Some(0));
    assert_eq!(heard, b"pi\n", "the command reads nothing of the password");
    drop(ssh);
    done.send(()).unwrap();
    let seen = watch.join().unwrap();
    assert!(
        seen.iter().any(|line| line.starts_with("ssh -T")),
        "{seen:?}"
    );
    assert!(
        !seen.iter().any(|line| line.contains("hunter2")),
        "{seen:?}"
    );

    target.password = Some(balena_migrate::secret::Secret::new("wrong"));
    let ssh = Ssh::answered_by(&Sys::new("/"), target, env!("CARGO_BIN_EXE_migdb")).unwrap();
    let error = ssh.script("asking", "true", LIMIT).unwrap_err();
    assert!(
        matches!(&error, SshError::Connection(why) if why.contains("Permission denied")),
        "{error}"
    );
}

#[test]
fn a_jump_host_is_not_told_the_password_of_the_device() {
    let keys = Keys::new();
    let (device, jump) = (Device::new(&keys), Device::new(&keys));
    let mut target = target(&device, &keys);
    target.password = Some(balena_migrate::secret::Secret::new("hunter2"));
    let through = |authentication: &str| {
        let mut target = target.clone();
        let command = format!(
            "ssh {} -o StrictHostKeyChecking=no {authentication} -p {} -l pi -W %h:%p 127.0.0.1",
            keys.options(),
            jump.port
        );
        let option = format!("ProxyCommand={command}");
        target.options.extend(["-o".to_owned(), option]);
        let migdb = env!("CARGO_BIN_EXE_migdb");
        let ssh = Ssh::answered_by(&Sys::new("/"), target, migdb).unwrap();
        ssh.script("asking", "true", LIMIT).map(drop)
    };
    through("").unwrap();
    // It would take that password.
    through("-o PubkeyAuthentication=no").unwrap_err();
    assert_eq!(jump.connections(), 2);
    assert_eq!(
        device.connections(),
        1,
        "the second one ended at the jump host"
    );
}

/// The command lines of all processes.
fn command_lines() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .collect()
}

#[test]
fn a_host_key_is_learned_once_and_a_changed_one_refused() {
    let keys = Keys::new();
    let device = Device::new(&keys);
    let mut strict = target(&device, &keys);
    strict.host_keys = "yes".to_owned();
    let ssh = Ssh::new(&Sys::new("/"), strict).unwrap();
    let error = ssh.script("asking", "true", LIMIT).unwrap_err().to_string();
    assert!(error.contains("Host key verification failed"), "{error}");

    ask(&connect(&device, &keys));
    let known = keys.dir.path().join("known_hosts");
    assert!(
        fs::read_to_string(&known)
            .unwrap()
            .contains(&format!("[127.0.0.1]:{}", device.port))
    );
    let other = Keys::new();
    let other_key = fs::read_to_string(other.dir.path().join("host.pub")).unwrap();
    fs::write(&known, format!("[127.0.0.1]:{} {other_key}", device.port)).unwrap();
    let error = connect(&device, &keys)
        .script("asking", "true", LIMIT)
        .unwrap_err()
        .to_string();
    assert!(error.contains("Host key verification failed"), "{error}");
}

#[test]
fn nobody_there_and_what_hangs_are_told_apart() {
    let keys = Keys::new();
    let device = Device::new(&keys);
    device.set_away(true);
    let error = connect(&device, &keys)
        .script("asking", "true", LIMIT)
        .unwrap_err();
    assert!(matches!(error, SshError::Connection(_)), "{error}");
    device.set_away(false);
    let start = Instant::now();
    let ssh = connect(&device, &keys);
    let error = ssh
        .script("the nap", "sleep 60", Duration::from_secs(2))
        .unwrap_err();
    assert_eq!(error.to_string(), "the nap did not end within 2 s");
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    let (answer, _) = ssh.script("asking", "exit 3", LIMIT).unwrap();
    assert_eq!(answer.code, Some(3));
}

/// A folder migratecfg with small files and a large one.
fn migratecfg(large: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let machine = Sys::new("/").uname().unwrap().machine;
    write(&format!("balena-migrate-{machine}"), b"#!/bin/sh\n");
    write("balena-migrate.conf", b"IMAGE_NAME=image.gz\n");
    write("system-connections/it's", b"[connection]\n");
    let mut random = fastrand::Rng::with_seed(3);
    let image: Vec<u8> = (0..large).map(|_| random.u8(..)).collect();
    write("sub/image.gz", &image);
    write(
        "log.txt",
        "the same again and again\n".repeat(100_000).as_bytes(),
    );
    dir
}

fn material(dir: &tempfile::TempDir) -> Material {
    Material::read(&Sys::new("/"), dir.path().to_str().unwrap()).unwrap()
}

/// Sends what is missing and gives the bytes that were to be sent.
fn send(ssh: &Ssh, material: &Material) -> Result<u64, TransferError> {
    let facts = ask(ssh);
    let sys = Sys::new("/");
    let files = material.files_for(&facts.machine).unwrap();
    let plan = Plan::new(&sys, &files, &facts)?;
    plan.send(&sys, ssh, LIMIT, None, &mut |_| {})?;
    Ok(plan.bytes())
}

fn same(here: &Path, there: &Path) {
    let (here, there) = (fs::read(here).unwrap(), fs::read(there).unwrap());
    assert!(here == there, "{} and {} bytes", here.len(), there.len());
}

#[test]
fn only_what_changed_is_sent() {
    let keys = Keys::new();
    let (device, dir) = (Device::new(&keys), migratecfg(3 << 20));
    let ssh = connect(&device, &keys);
    let all = send(&ssh, &material(&dir)).unwrap();
    assert!(all > 5 << 20);
    let there = device.home().join("migrate");
    for name in [
        "balena-migrate.conf",
        "system-connections/it's",
        "sub/image.gz",
        "log.txt",
    ] {
        same(&dir.path().join(name), &there.join(name));
        let mode = fs::metadata(there.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
    let mode = fs::metadata(there.join("balena-migrate"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o700, 0o700);
    assert_eq!(
        fs::read_dir(&there).unwrap().count(),
        5,
        "no list, no parts"
    );

    assert_eq!(send(&ssh, &material(&dir)).unwrap(), 0);
    fs::write(dir.path().join("balena-migrate.conf"), "IMAGE_NAME=other\n").unwrap();
    fs::write(there.join("log.txt"), "somebody was here").unwrap();
    let changed = 2_500_000 + "IMAGE_NAME=other\n".len() as u64;
    assert_eq!(send(&ssh, &material(&dir)).unwrap(), changed);
    same(&dir.path().join("log.txt"), &there.join("log.txt"));
}

#[test]
fn a_cut_transfer_goes_on_where_it_was_cut() {
    let keys = Keys::new();
    let (device, dir) = (Device::new(&keys), migratecfg(16 << 20));
    let material = material(&dir);
    let sys = Sys::new("/");
    let ssh = connect(&device, &keys);
    let facts = ask(&ssh);
    let files = material.files_for(&facts.machine).unwrap();
    let plan = Plan::new(&sys, &files, &facts).unwrap();
    let all = plan.bytes();
    let mut so_far = 0;
    let throttle = Throttle::new(16 << 20);
    let cut = plan.send(&sys, &ssh, LIMIT, Some(&throttle), &mut |bytes| {
        so_far += bytes;
        if so_far > all / 2 {
            device.cut();
        }
    });
    let error = cut.unwrap_err();
    assert!(
        matches!(error, TransferError::Ssh(SshError::Connection(_))),
        "{error}"
    );
    drop(ssh);

    let ssh = connect(&device, &keys);
    let rest = send(&ssh, &material).unwrap();
    assert!(rest < all * 3 / 4, "{rest} of {all} were sent again");
    same(
        &dir.path().join("sub/image.gz"),
        &device.home().join("migrate/sub/image.gz"),
    );
    assert!(
        !device
            .home()
            .join("migrate/sub/image.gz.migdb-part")
            .exists()
    );
}

#[test]
fn a_part_that_is_no_beginning_is_not_built_upon() {
    let keys = Keys::new();
    let (device, dir) = (Device::new(&keys), migratecfg(2 << 20));
    let part = device.home().join("migrate/sub/image.gz.migdb-part");
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, vec![7; 1 << 20]).unwrap();
    for path in [
        device.home().join("migrate"),
        device.home().join("migrate/sub"),
        part.clone(),
    ] {
        std::os::unix::fs::chown(path, Some(1000), Some(1000)).unwrap();
    }
    send(&connect(&device, &keys), &material(&dir)).unwrap();
    same(
        &dir.path().join("sub/image.gz"),
        &device.home().join("migrate/sub/image.gz"),
    );
}

#[test]
fn what_a_device_can_not_take_is_told() {
    let keys = Keys::new();
    let (device, dir) = (Device::new(&keys), migratecfg(2 << 20));
    let (material, sys) = (material(&dir), Sys::new("/"));
    let ssh = connect(&device, &keys);
    let mut facts = ask(&ssh);
    facts.free = Some(1000);
    let files = material.files_for(&facts.machine).unwrap();
    let error = Plan::new(&sys, &files, &facts).unwrap_err().to_string();
    assert!(
        error.ends_with("bytes have to be sent, and the home folder there has 1000 free"),
        "{error}"
    );

    device.program("sha256sum", "#!/bin/sh\necho damaged >&2\nexit 1\n");
    let error = send(&ssh, &material).unwrap_err().to_string();
    assert_eq!(error, "the device could not take the files: damaged");
}

#[test]
fn a_file_made_here_is_for_its_owner_only() {
    let keys = Keys::new();
    let device = Device::new(&keys);
    let ssh = connect(&device, &keys);
    transfer::send_bytes(&ssh, "config.json", b"{}", LIMIT).unwrap();
    let path = device.home().join("migrate/config.json");
    assert_eq!(fs::read(&path).unwrap(), b"{}");
    assert_eq!(
        fs::metadata(path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}
