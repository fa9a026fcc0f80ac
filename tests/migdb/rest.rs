//! Workers with nothing to do.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::pretend::Pretend;

/// How often the threads of a process were woken, and what it took of the processors in ticks.
fn effort(pid: u32) -> (u64, u64) {
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let woken = tasks.map(|task| {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = |line: &str| Some(number(line.strip_prefix("voluntary_ctxt_switches:")?));
        status.lines().find_map(line).unwrap()
    });
    let woken = woken.sum();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2).map(number).sum();
    (woken, ticks)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < patience, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nothing looks whether there is something to do: who adds a unit wakes them.
#[test]
fn workers_at_rest_sleep_until_a_unit_comes() {
    let mut pretend = Pretend::new(0);
    let mut command = pretend.command(&["migrate", "--jobs", "8", "--check-done"]);
    let mut worker = command.stderr(Stdio::null()).spawn().unwrap();
    until("it starts", || pretend.fleet.names("tmp").len() == 1);
    std::thread::sleep(Duration::from_secs(1));
    let before = effort(worker.id());
    std::thread::sleep(Duration::from_secs(4));
    let after = effort(worker.id());
    // It looks for what the dead held each half a minute.
    assert!(after.0 - before.0 <= 4, "woken: {before:?} {after:?}");
    assert!(after.1 - before.1 <= 1, "busy: {before:?} {after:?}");

    pretend.online(0);
    pretend.add(1, |_, _| {});
    let start = Instant::now();
    until("it is migrated", || pretend.fleet.names("done").len() == 1);
    assert!(start.elapsed() < Duration::from_secs(25), "it was told");
    pretend.fleet.ok(&["stop"]);
    assert!(worker.wait().unwrap().success());
}
