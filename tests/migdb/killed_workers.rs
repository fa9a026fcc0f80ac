//! Real workers that are killed at any moment, on pretend devices with a real sshd: each device migrates,
//! once, and each unit arrives.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::pretend::Pretend;

/// Processes of workers at a time: one lives for as many pauses, which is long enough to reach the order.
const WORKERS: usize = 4;

/// Milliseconds from one kill to the next.
const PAUSE: std::ops::Range<u64> = 20..1200;

/// So many units wait at least, so that each kill meets workers at work; and no more, so that the unit of a
/// dead one is soon in hand again.
const WAITING: usize = 2;

const MIGRATE: [&str; 6] = [
    "migrate",
    "--jobs",
    "1",
    "--check-done",
    "--reconn-time",
    "1",
];

#[derive(Default)]
struct Workers(Vec<Child>);

impl Workers {
    fn start(&mut self, pretend: &Pretend) {
        let mut command = pretend.command(&MIGRATE);
        self.0.push(command.stderr(Stdio::null()).spawn().unwrap());
    }

    fn kill(&mut self, which: usize) {
        let mut child = self.0.remove(which);
        assert_eq!(child.try_wait().unwrap(), None, "a worker ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// New units, online as soon as they are looked for. Some devices prepare for a while, others take the
/// order and answer late: time for a kill in the middle, and for the next worker to come.
fn add(pretend: &mut Pretend, count: usize) {
    let first = pretend.devices.len();
    (first..first + count).for_each(|n| pretend.online(n));
    pretend.add(count, |n, device| match n % 4 {
        0 => fs::write(device.home().join("prepares"), "3\n").unwrap(),
        1 | 2 => device.flag("slow"),
        _ => {}
    });
}

/// Every other device that was told to migrate is in its reboot, and answers no more.
fn let_them_reboot(pretend: &Pretend) {
    for n in (0..pretend.devices.len()).step_by(2) {
        if pretend.orders(n) > 0 {
            pretend.devices[n].set_away(true);
        }
    }
}

fn kill_workers(kills: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pretend = Pretend::new(0);
    add(&mut pretend, 2 * WAITING);
    let mut workers = Workers::default();
    (0..WORKERS).for_each(|_| workers.start(&pretend));
    let start = Instant::now();
    for _ in 0..kills {
        if pretend.fleet.names("units").len() < WAITING {
            add(&mut pretend, WAITING);
        }
        std::thread::sleep(Duration::from_millis(random.u64(PAUSE)));
        let_them_reboot(&pretend);
        workers.kill(random.usize(..WORKERS));
        workers.start(&pretend);
    }
    let all = pretend.devices.len();
    println!(
        "{kills} kills in {:.0} s; of {all} units {} were done by then",
        start.elapsed().as_secs_f64(),
        pretend.fleet.names("done").len()
    );
    let patience = Instant::now() + Duration::from_secs(60 + all as u64);
    while pretend.fleet.names("done").len() < all && Instant::now() < patience {
        let_them_reboot(&pretend);
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(workers);
    let listed = pretend.fleet.ok(&["list"]);
    for n in 0..all {
        let shown = pretend.show(n);
        assert!(shown.starts_with("# done\n"), "{shown}\n{listed}");
        assert_eq!(pretend.orders(n), 1, "{shown}");
    }
    for state in ["units", "process", "fail"] {
        assert_eq!(pretend.fleet.names(state), [] as [&str; 0], "{state}");
    }
    println!("all of them after {:.0} s", start.elapsed().as_secs_f64());
}

#[test]
fn twenty_kills_lose_no_unit_and_migrate_none_twice() {
    kill_workers(20, 11);
}

#[test]
#[ignore = "200 kills take minutes"]
fn two_hundred_kills_lose_no_unit_and_migrate_none_twice() {
    kill_workers(200, 12);
}
