//! What `util/bench migdb` needs: pretend devices, and what a command of the operator's side costs with
//! all that it starts.
//!
//!     fleet devices COUNT FOLDER   makes them, and FOLDER's fleet.csv, ssh-options and mig; then a line of
//!                                  how many were told to migrate exactly once for each line that it reads
//!     fleet cost COMMAND…          runs it; the last line has seconds, seconds of the processors, KiB of
//!                                  memory at most, and how many processes there were at most

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{SysconfVar, sysconf};

#[path = "../migdb/sshd.rs"]
#[allow(dead_code, reason = "the tests of migdb use the rest of it")]
mod sshd;

use sshd::{Device, Keys};

/// From one look at the memory to the next.
const LOOK: Duration = Duration::from_millis(200);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["devices", count, folder] if count.parse::<usize>().is_ok() => {
            devices(count.parse().unwrap_or(0), Path::new(folder))
        }
        ["cost", program, rest @ ..] => cost(Command::new(program).args(rest)),
        _ => {
            eprintln!("usage: fleet devices COUNT FOLDER | fleet cost COMMAND…");
            std::process::exit(2);
        }
    }
}

fn devices(count: usize, folder: &Path) -> io::Result<()> {
    let keys = Keys::new();
    let devices: Vec<Device> = (0..count).map(|_| Device::new(&keys)).collect();
    let units = devices.iter().enumerate();
    let lines = units.map(|(n, device)| format!("u{n},127.0.0.1,root,{}\n", device.port));
    let csv = format!("id,host,user,port\n{}", lines.collect::<String>());
    fs::write(folder.join("fleet.csv"), csv)?;
    fs::write(folder.join("ssh-options"), keys.options())?;
    let mig = folder.join("mig");
    fs::create_dir_all(&mig)?;
    // Both names: one for migdb, one for a loop that knows one kind of device.
    for name in ["balena-migrate-x86_64", "balena-migrate-aarch64"] {
        fs::write(mig.join(name), include_str!("../migdb/pretend.sh"))?;
    }
    fs::write(mig.join("balena-migrate.conf"), "IMAGE_NAME=image.gz\n")?;
    fs::write(mig.join("image.gz"), "image ".repeat(300_000))?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        line?;
        let orders = |device: &&Device| {
            let orders = fs::read_to_string(device.home().join("orders"));
            orders.is_ok_and(|orders| orders.lines().count() == 1)
        };
        println!("{}", devices.iter().filter(orders).count());
        io::stdout().flush()?;
    }
    Ok(())
}

/// Whatever the command leaves behind becomes our child, so that its time is counted once it ends.
fn cost(command: &mut Command) -> io::Result<()> {
    set_child_subreaper(true)?;
    let over = AtomicBool::new(false);
    let start = Instant::now();
    let (memory, processes, ended) = std::thread::scope(|scope| {
        let looking = scope.spawn(|| look(&over));
        let ended = run(command);
        over.store(true, Ordering::SeqCst);
        let (memory, processes) = looking.join().unwrap_or_default();
        (memory, processes, ended)
    });
    let seconds = start.elapsed().as_secs_f64();
    ended?;
    let processors = of_children()?;
    println!("{seconds:.2} {processors:.2} {memory} {processes}");
    Ok(())
}

fn run(command: &mut Command) -> io::Result<()> {
    // Waited for below, with all others.
    let child = command.spawn()?;
    let mut failed = None;
    loop {
        match wait() {
            Ok(status)
                if status
                    .pid()
                    .is_some_and(|pid| pid.as_raw() == child.id() as i32) =>
            {
                failed = Some(status).filter(|status| !matches!(status, WaitStatus::Exited(_, 0)));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match failed {
        Some(status) => Err(io::Error::other(format!("the command failed: {status:?}"))),
        None => Ok(()),
    }
}

/// Seconds of the processors of all that was waited for, and of what that has waited for (proc(5)).
fn of_children() -> io::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(13).take(2);
    let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
    let a_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(ticks / a_second as f64)
}

/// The most memory, in KiB, and the most processes below this one.
fn look(over: &AtomicBool) -> (u64, usize) {
    let (mut memory, mut processes) = (0, 0);
    while !over.load(Ordering::SeqCst) {
        let below = below(std::process::id());
        memory = memory.max(below.iter().filter_map(|&pid| own(pid)).sum());
        processes = processes.max(below.len());
        std::thread::sleep(LOOK);
    }
    (memory, processes)
}

/// Children, and theirs.
fn below(root: u32) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            found.insert(child);
            next.push(child);
        }
    }
    found
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have any character.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Its memory, of what it shares its share, in KiB.
fn own(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}
