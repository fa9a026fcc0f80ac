//! Pretend devices: a real sshd for each connection to a loopback port, with a home folder, users and
//! keys of its own in a mount namespace. Nothing of this machine is changed.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// SHA-512 of `hunter2`, by `openssl passwd -6 -salt migdb`.
const PASSWORD_HASH: &str = include_str!("hunter2.shadow");

/// The operator's side: a key pair and a known_hosts of its own.
pub struct Keys {
    pub dir: tempfile::TempDir,
}

impl Keys {
    pub fn new() -> Keys {
        let dir = tempfile::Builder::new()
            .prefix("migdb-keys")
            .tempdir()
            .unwrap();
        for name in ["id", "host"] {
            let done = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.path().join(name))
                .status()
                .unwrap();
            assert!(done.success());
        }
        Keys { dir }
    }

    /// Options for ssh that keep it to these files.
    pub fn options(&self) -> String {
        let dir = self.dir.path().display();
        format!(
            "-F /dev/null -i {dir}/id -o IdentitiesOnly=yes -o UserKnownHostsFile={dir}/known_hosts"
        )
    }
}

/// A pretend device. It is gone when this is dropped.
pub struct Device {
    pub port: u16,
    /// What it keeps, and its `home`.
    pub dir: tempfile::TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    ended: AtomicBool,
    /// It answers no connection, as in a reboot.
    away: AtomicBool,
    connections: AtomicUsize,
    running: Mutex<Vec<Child>>,
}

/// Who can log in, beside root with the key: `pi`, by the key or the password `hunter2`, whose sudo asks
/// for that.
const PASSWD: &str = "root:x:0:0::HOME:/bin/sh\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n\
                      pi:x:1000:1000::HOME:/bin/sh\n";

const CONFIG: &str = "HostKey KEYS/host\nAuthorizedKeysFile KEYS/id.pub\nStrictModes no\nUsePAM no\n\
                      PasswordAuthentication yes\nKbdInteractiveAuthentication no\nPidFile none\n\
                      PermitRootLogin yes\nMaxStartups 100\nMaxSessions 20\nUseDNS no\nSetEnv PATH=DIR/bin:/usr/bin:/bin\n";

/// Puts the device's users in place and becomes its sshd, on the connection that is standard input.
const ENTER: &str = "mount --make-rprivate / && mount --bind \"$1/passwd\" /etc/passwd && \
                     mount --bind \"$1/shadow\" /etc/shadow && mount -t tmpfs none /run && \
                     mkdir /run/sshd && exec /usr/sbin/sshd -i -f \"$1/config\" -E \"$1/sshd.log\"";

impl Device {
    pub fn new(keys: &Keys) -> Device {
        let dir = tempfile::Builder::new()
            .prefix("migdb-dev")
            .tempdir()
            .unwrap();
        let at = dir.path().to_str().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["home", "bin"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        std::os::unix::fs::chown(dir.path().join("home"), Some(1000), Some(1000)).unwrap();
        let keys_at = keys.dir.path();
        fs::set_permissions(keys_at, fs::Permissions::from_mode(0o711)).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("passwd", &PASSWD.replace("HOME", &format!("{at}/home")));
        let hash = PASSWORD_HASH.trim();
        write(
            "shadow",
            &format!(
                "root:*:19000:0:99999:7:::\nsshd:*:19000::::::\npi:{hash}:19000:0:99999:7:::\n"
            ),
        );
        let config = CONFIG
            .replace("DIR", at)
            .replace("KEYS", &keys_at.display().to_string());
        write("config", &config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            ended: AtomicBool::new(false),
            away: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            running: Mutex::new(Vec::new()),
        });
        let device = Device {
            port,
            dir,
            shared: shared.clone(),
        };
        let folder = device.dir.path().to_owned();
        std::thread::spawn(move || serve(&listener, &folder, &shared));
        device
    }

    /// Makes an empty file in its home.
    pub fn flag(&self, name: &str) {
        fs::write(self.home().join(name), "").unwrap();
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Puts a program first on the device's PATH.
    pub fn program(&self, name: &str, script: &str) {
        let path = self.dir.path().join("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Answers no more, or again.
    pub fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
    }

    /// How many connections it has had.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        end(&self.shared);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        end(&self.shared);
    }
}

/// Ends the device's processes: sshd is the first of a process namespace, and in the group of what
/// made that.
fn end(shared: &Shared) {
    for child in shared.running.lock().unwrap().iter_mut() {
        if matches!(child.try_wait(), Ok(None)) {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        }
        let _ = child.wait();
    }
}

fn serve(listener: &TcpListener, folder: &Path, shared: &Shared) {
    for stream in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        if shared.away.load(Ordering::SeqCst) {
            continue;
        }
        let stdin = OwnedFd::from(stream);
        let stdout = stdin.try_clone().unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "sh", "-c", ENTER, "sh"])
            .arg(folder)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut running = shared.running.lock().unwrap();
        running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        running.push(child);
    }
}
