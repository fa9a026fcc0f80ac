//! What a person and a monitor see: the table in a terminal, the web page, the metrics.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use balena_migrate::fleet::moment::Moment;
use balena_migrate::fleet::store::{State, Store};
use balena_migrate::fleet::unit::{Status, field};

use crate::fleet::{Fleet, claim, unit};

/// A fleet of which a unit is done, one failed, one is in hand, two wait.
fn fleet() -> (Fleet, balena_migrate::fleet::store::Claim) {
    let fleet = Fleet::new();
    let store = fleet.open();
    let units = ["done-1", "failed-1"].map(|id| {
        let mut unit = unit(id);
        unit.set("MIG_SSH_HOST", "10.0.0.7");
        unit.set("MIG_SSH_PASSWD", "hunter2");
        unit
    });
    store.add(&units).unwrap();
    while let Some(mut held) = claim(&store, State::Units) {
        match held.unit.id() {
            "done-1" => held.unit.set_status(Status::Done, Moment::now()),
            _ => held
                .unit
                .fail("disk-size", "the disk is too small <b>", Moment::now()),
        }
        store.release(held).unwrap();
    }
    store.add(&[unit("busy-1")]).unwrap();
    let mut held = claim(&store, State::Units).unwrap();
    held.unit.set(field::PHASE, "transfer");
    held.unit.set(field::PERCENT, "50");
    store.save(&held).unwrap();
    store.add(&[unit("waits-1"), unit("waits-2")]).unwrap();
    fleet.write(
        "db/log/failed-1.jsonl",
        "{\"time\":\"T\",\"phase\":\"check\",\"message\":\"too small\"}\n",
    );
    (fleet, held)
}

/// `migdb serve`, ended with the test.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn new(fleet: &Fleet) -> Serving {
        let mut command = fleet.command(&["serve", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("http://")
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        Serving { child, address }
    }

    fn open(&self, path: &str, host: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        stream
    }

    fn get(&self, path: &str) -> String {
        let mut text = String::new();
        self.open(path, &self.address)
            .read_to_string(&mut text)
            .unwrap();
        text
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_the_log_is_a_units() {
    let (fleet, _held) = fleet();
    let serving = Serving::new(&fleet);
    let page = serving.get("/");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(
        page.contains("Content-Security-Policy: default-src 'self'"),
        "{page}"
    );
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "{page}"
    );
    let units = serving.get("/units.json");
    assert!(units.contains("\"failCode\":\"disk-size\""), "{units}");
    assert!(!units.contains("hunter2"), "{units}");
    assert!(serving.get("/log/failed-1").contains("too small"));
    for path in [
        "/log/waits-1",
        "/log/nobody",
        "/log/../units.json",
        "/log/..%2f..%2ffleet",
        "/x",
    ] {
        let answer = serving.get(path);
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
}

#[test]
fn only_this_machine_is_answered() {
    let (fleet, _held) = fleet();
    let serving = Serving::new(&fleet);
    let mut text = String::new();
    serving
        .open("/units.json", "evil.example")
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.starts_with("HTTP/1.1 403 "), "{text}");
    let ended = fleet.migdb(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.err.contains("0.0.0.0:0 can be reached by others"),
        "{ended:?}"
    );
}

#[test]
fn an_open_page_is_told_what_changes() {
    let (fleet, mut held) = fleet();
    let serving = Serving::new(&fleet);
    let mut events = BufReader::new(serving.open("/events", &serving.address));
    let mut next = |wanted: &str| {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let mut line = String::new();
            assert!(
                events.read_line(&mut line).unwrap() > 0 && Instant::now() < patience,
                "{wanted}"
            );
            if line.starts_with("data: ") && line.contains(wanted) {
                return;
            }
        }
    };
    next("\"id\":\"busy-1\",\"state\":\"tmp\"");
    held.unit.set_status(Status::Done, Moment::now());
    fleet.open().release(held).unwrap();
    next("\"id\":\"busy-1\",\"state\":\"done\"");
}

#[test]
fn prometheus_finds_the_counts() {
    let (fleet, _held) = fleet();
    let metrics = Serving::new(&fleet).get("/metrics");
    for line in [
        "# TYPE migdb_units gauge",
        "migdb_units{state=\"units\"} 2",
        "migdb_units{state=\"tmp\"} 1",
        "migdb_units{state=\"done\"} 1",
        "migdb_failed_units{code=\"disk-size\"} 1",
        "migdb_done_last_hour 1",
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line}: {metrics}");
    }
}

#[test]
fn the_terminal_shows_the_busy_first() {
    let (fleet, _held) = fleet();
    let shown = fleet.ok(&["watch", "--once"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines[0].starts_with("done 1  fail 1  process 0  tmp 1  units 2   1 done in the last hour"),
        "{shown}"
    );
    assert!(lines[3].starts_with("busy-1    tmp"), "{shown}");
    assert!(lines[3].ends_with("transfer, 37 %"), "{shown}");
    assert!(lines[4].starts_with("failed-1  fail"), "{shown}");
}

/// Where the picture is kept.
fn artefact(name: &str) -> PathBuf {
    let cache = std::env::var_os("BALENA_MIGRATE_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/balena-migrate");
    let folder = cache.unwrap_or_else(home).join("logs");
    fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

fn chromium(profile: &Path, args: &[&str], url: &str) -> std::process::Output {
    Command::new("timeout")
        .args(["-k", "10", "120", "chromium"])
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1200,700",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        // Events never end: the page is taken as it is then.
        .args(["--timeout=8000"])
        .args(args)
        .arg(url)
        .output()
        .unwrap()
}

#[test]
#[ignore = "needs Chromium: `util/test` runs it"]
fn a_browser_draws_the_fleet() {
    let (fleet, _held) = fleet();
    let serving = Serving::new(&fleet);
    let url = format!("http://{}/", serving.address);
    let profile = tempfile::tempdir().unwrap();
    let picture = artefact("migdb-serve.png");
    let _ = fs::remove_file(&picture);
    chromium(
        profile.path(),
        &[&format!("--screenshot={}", picture.display())],
        &url,
    );
    assert!(
        fs::metadata(&picture).unwrap().len() > 5_000,
        "{}",
        picture.display()
    );
    let drawn = chromium(profile.path(), &["--dump-dom"], &url);
    let drawn = String::from_utf8_lossy(&drawn.stdout).into_owned();
    for part in [
        "<button>busy-1</button>",
        "width: 37%",
        "<b>2</b>waiting",
        "disk-size: the disk is too small &lt;b&gt;",
    ] {
        assert!(drawn.contains(part), "{part}: {drawn}");
    }
}
