//! A PostgreSQL of this test program's own: Debian's, in a temporary folder, on a socket there and on a
//! free port of the loopback. It ends with the test program, however that ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::fleet::Ended;
use crate::tls::Authority;

/// The user that a password is asked of, over TCP.
pub const ASKED: &str = "asked";
pub const PASSWORD: &str = "hunter2:@/x";

pub struct Cluster {
    pub dir: PathBuf,
    pub port: u16,
    pub authority: Authority,
    programs: PathBuf,
    /// The server ends when nobody holds its input any more.
    _server: Child,
}

/// A database, and a URL of it.
#[derive(Clone)]
pub struct Database {
    pub name: String,
    pub url: String,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The server, started by the first who asks.
pub fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(Cluster::start)
}

/// PostgreSQL does not run as root: then Debian's own user runs it.
fn user() -> Option<(u32, u32)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<&str> = line.expect("no user postgres").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

fn programs() -> PathBuf {
    let versions =
        fs::read_dir("/usr/lib/postgresql").expect("install Debian's package postgresql");
    let mut versions: Vec<PathBuf> = versions.map(|version| version.unwrap().path()).collect();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    versions.sort_by_key(number);
    versions.pop().unwrap().join("bin")
}

/// The data, the server, and the end of both once nobody holds the other end of its input.
const RUN: &str = r#"
    cd "$DIR" && trap '' INT HUP TERM &&
    "$BIN/initdb" -D data -A trust -U postgres -E UTF8 --locale=C --no-sync > initdb.log 2>&1 &&
    cp hba data/pg_hba.conf && cp key data/server.key && chmod 600 data/server.key &&
    cp certificate data/server.crt && {
        (trap - INT HUP TERM; exec "$BIN/postgres" -D data -k "$DIR" -p "$PORT" \
            -c listen_addresses=127.0.0.1 -c ssl=on -c fsync=off -c full_page_writes=off \
            -c max_connections=200 -c shared_buffers=16MB > log 2>&1 < /dev/null) &
        while kill -0 $! && ! "$BIN/pg_isready" -q -h "$DIR" -p "$PORT"; do sleep 0.1; done
        kill -0 $! && echo ready
        cat > /dev/null
        kill -QUIT $!
        wait
    }
    cd / && rm -rf "$DIR"
"#;

impl Cluster {
    fn start() -> Cluster {
        // The path of a socket has 107 bytes at most (unix(7)).
        let dir = tempfile::Builder::new()
            .prefix("migdb-postgres-")
            .tempdir_in("/tmp")
            .unwrap()
            .keep();
        let authority = Authority::new();
        let (certificate, key) = authority.certificate("localhost");
        fs::write(dir.join("certificate"), certificate).unwrap();
        fs::write(dir.join("key"), key).unwrap();
        let hba = format!(
            "local all all trust\nhost all {ASKED} 127.0.0.1/32 scram-sha-256\n\
             host all all 127.0.0.1/32 trust\n"
        );
        fs::write(dir.join("hba"), hba).unwrap();
        let port = free_port();
        let mut command = Command::new("sh");
        if let Some((user, group)) = user() {
            chown(&dir, Some(user), Some(group)).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
            command.uid(user).gid(group);
        }
        let programs = programs();
        let mut child = command
            .args(["-c", RUN])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("DIR", &dir)
            .env("BIN", &programs)
            .env("PORT", port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "see {}", dir.display());
        let cluster = Cluster {
            dir,
            port,
            authority,
            programs,
            _server: child,
        };
        cluster.sql(
            "postgres",
            &format!("CREATE USER {ASKED} SUPERUSER PASSWORD '{PASSWORD}'"),
        );
        cluster
    }

    /// What psql prints, without ornaments.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let output = Command::new(self.programs.join("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
            ])
            .args([
                "-h",
                self.dir.to_str().unwrap(),
                "-p",
                &self.port.to_string(),
            ])
            .args(["-d", database, "-c", statement])
            .output()
            .unwrap();
        let ended: Ended = crate::fleet::ended(output);
        assert_eq!(ended.code, Some(0), "{statement}: {ended:?}");
        ended.out
    }

    /// A new and empty database.
    pub fn database(&self) -> Database {
        let name = format!("fleet{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        let folder = socket_folder(&self.dir);
        Database {
            url: format!("postgres://postgres@{folder}:{}/{name}", self.port),
            name,
        }
    }
}

/// Nobody listens there just now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn socket_folder(dir: &Path) -> String {
    dir.to_str().unwrap().replace('/', "%2F")
}
