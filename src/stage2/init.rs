//! PID 1: makes the machine usable, runs the job in a child, and outlives it.
//!
//! The kernel panics when PID 1 dies, so PID 1 does next to nothing. The child may panic, run out
//! of memory or be killed: before the first write that means the old system, afterwards another
//! child that goes on.

use std::path::PathBuf;
use std::time::Duration;

use super::kernel::Kernel;
use super::log;
use super::machine::Machine;
use super::overwrite;
use super::{explain, resume, run};
use crate::sys::child::{self, Exit};
use crate::sys::{Sys, console, mount, own_root, power};

/// What the kernel offers to be mounted, and where.
const MOUNTS: [(&str, &str); 5] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];

/// How long telling the old system about a fault may take.
const EXPLAIN_LIMIT: Duration = Duration::from_secs(60);

/// A child that says nothing for so long hangs: copying, unpacking and waiting all speak up within
/// seconds. Before the first write that means the old system.
const SILENCE: Duration = Duration::from_secs(600);

/// Between the death of a child and the next one.
const PAUSE: Duration = Duration::from_secs(10);

/// How long slow consoles are waited for before the restart.
const DRAIN: Duration = Duration::from_secs(3);

/// Stage 2 as PID 1: started by the kernel, or in the place of the first process of an initramfs that
/// a tool of the old system has built.
pub fn main() -> ! {
    let started_as = std::env::args_os().next().map(PathBuf::from);
    if let Err(error) = own_root::enter(&started_as.unwrap_or_default()) {
        eprintln!(
            "balena-migrate: stage 2 can't begin: {}: {error}",
            own_root::PATH
        );
        restart()
    }
    let failures: Vec<String> = MOUNTS
        .iter()
        .filter_map(|(fs_type, point)| {
            let error = mount::mount_kernel_fs(fs_type, point).err()?;
            Some(format!("mounting {point}: {error}"))
        })
        .collect();
    let kernel: &'static Kernel = match Kernel::new() {
        Ok(kernel) => Box::leak(Box::new(kernel)),
        Err(error) => {
            eprintln!("balena-migrate: stage 2 can't begin: {error}");
            restart()
        }
    };
    failures.iter().for_each(|failure| kernel.show(failure));
    for result in [power::ignore_ctrl_alt_del(), console::quieten_kernel()] {
        if let Err(error) = result {
            kernel.show(&format!("preparing the console: {error}"));
        }
    }
    say_panics(kernel);
    supervise(kernel);
    restart()
}

/// Runs children until one ends by itself, or the old system is told why none did.
fn supervise(kernel: &Kernel) {
    let mut silence = Silence::default();
    // After the first write a disk may take all the time it needs.
    let mut hangs = |time| silence.lasts(log_bytes(kernel), time) && !overwrite::is_marked(kernel);
    let mut ended = in_child(kernel, || drop(run(kernel)), &mut hangs);
    while let Err(how) = ended {
        if !overwrite::is_marked(kernel) {
            let mut hangs = |time| time > EXPLAIN_LIMIT;
            let told = in_child(kernel, || drop(explain(kernel, &how)), &mut hangs);
            if let Err(how) = told {
                kernel.show(&format!("telling the old system about it {how}"));
            }
            return;
        }
        kernel.show(&format!(
            "** stage 2 {how}; leave the machine on, it goes on"
        ));
        kernel.sleep(PAUSE);
        ended = in_child(kernel, || drop(resume(kernel)), &mut |_| false);
    }
}

/// How long the log has not grown.
#[derive(Default)]
struct Silence {
    bytes: u64,
    since: Duration,
}

impl Silence {
    /// Whether the log, now of `bytes`, has been silent for [`SILENCE`] at `time`.
    fn lasts(&mut self, bytes: u64, time: Duration) -> bool {
        if bytes != self.bytes {
            (self.bytes, self.since) = (bytes, time);
        }
        time - self.since > SILENCE
    }
}

/// Size of the log in memory, which the child writes.
fn log_bytes(kernel: &Kernel) -> u64 {
    let log = Sys::new(kernel.memory_dir()).meta(&format!("/{}", log::FILE));
    log.map_or(0, |meta| meta.bytes)
}

/// An error says how the child died.
fn in_child(
    kernel: &Kernel,
    work: impl FnOnce(),
    hangs: &mut dyn FnMut(Duration) -> bool,
) -> Result<(), String> {
    let work = || {
        work();
        kernel.drain_consoles(DRAIN);
    };
    match child::run(work, hangs) {
        Ok(Exit::Returned) => Ok(()),
        Ok(Exit::Died(how)) => Err(how),
        Err(error) => Err(format!("could not be started: {error}")),
    }
}

/// Shows a panic on all consoles and keeps it in the log, since stderr may lead nowhere.
fn say_panics(kernel: &'static Kernel) {
    std::panic::set_hook(Box::new(move |panic| {
        let text = format!("** fault: {panic}").replace('\n', " ");
        kernel.leave_screens();
        kernel.show(&text);
        let memory = Sys::new(kernel.memory_dir());
        if let Ok(mut file) = memory.append(&format!("/{}", log::FILE), 0o600) {
            let _ = file.line(&text);
        }
        kernel.drain_consoles(DRAIN);
    }));
}

/// Restarts the machine. What is to last is on the disks: every file system is unmounted.
fn restart() -> ! {
    let Err(error) = power::restart();
    eprintln!("balena-migrate: the machine does not restart: {error}");
    loop {
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_word() {
        let mut silence = Silence::default();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert!(!silence.lasts(100, minutes(9)));
        assert!(!silence.lasts(200, minutes(18)));
        assert!(!silence.lasts(200, minutes(28)));
        assert!(silence.lasts(200, minutes(29)));
    }
}
