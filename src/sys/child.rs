//! A part of this program in a process of its own, so that its death is not the end of PID 1.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// How often a child with a time limit is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// `work` returned.
    Returned,
    /// It died, in words.
    Died(String),
}

/// Runs `work` in a child and waits for its end; one that takes longer than `limit` is killed.
///
/// Must be called while this process has one thread only.
pub fn run(work: impl FnOnce(), limit: Option<Duration>) -> io::Result<Exit> {
    // SAFETY: there is one thread, so no lock is held by a thread that the child lacks.
    match unsafe { fork() }? {
        ForkResult::Child => {
            work();
            std::process::exit(0)
        }
        ForkResult::Parent { child } => wait(child, limit),
    }
}

/// Waits for `child`, and meanwhile for whatever else PID 1 has inherited.
fn wait(child: Pid, limit: Option<Duration>) -> io::Result<Exit> {
    let start = Instant::now();
    let flags = limit.map(|_| WaitPidFlag::WNOHANG);
    loop {
        match waitpid(None, flags) {
            Ok(WaitStatus::Exited(pid, 0)) if pid == child => return Ok(Exit::Returned),
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                return Ok(Exit::Died(format!("ended with code {code}")));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                return Ok(Exit::Died(format!("was ended by {signal}")));
            }
            Ok(WaitStatus::StillAlive) => match limit {
                Some(limit) if start.elapsed() > limit => {
                    // A process in an uninterruptible wait stays; PID 1 must not wait for it.
                    let _ = kill(child, Signal::SIGKILL);
                    return Ok(Exit::Died(format!(
                        "took longer than {} s",
                        limit.as_secs()
                    )));
                }
                _ => std::thread::sleep(LOOK),
            },
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
