//! A part of this program in a process of its own, so that its death is not the end of PID 1.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// How often a child is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// `work` returned.
    Returned,
    /// It died, in words.
    Died(String),
}

/// Runs `work` in a child and waits for its end. `hangs` is asked again and again, with the time
/// since the start; when it says yes, the child is killed.
///
/// Must be called while this process has one thread only.
pub fn run(work: impl FnOnce(), hangs: &mut dyn FnMut(Duration) -> bool) -> io::Result<Exit> {
    // SAFETY: there is one thread, so no lock is held by a thread that the child lacks.
    match unsafe { fork() }? {
        ForkResult::Child => {
            work();
            std::process::exit(0)
        }
        ForkResult::Parent { child } => wait(child, hangs),
    }
}

/// Waits for `child`, and meanwhile for whatever else PID 1 has inherited.
fn wait(child: Pid, hangs: &mut dyn FnMut(Duration) -> bool) -> io::Result<Exit> {
    let start = Instant::now();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, 0)) if pid == child => return Ok(Exit::Returned),
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                return Ok(Exit::Died(format!("ended with code {code}")));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                return Ok(Exit::Died(format!("was ended by {signal}")));
            }
            Ok(WaitStatus::StillAlive) if hangs(start.elapsed()) => {
                // A process in an uninterruptible wait stays; PID 1 must not wait for it.
                let _ = kill(child, Signal::SIGKILL);
                let seconds = start.elapsed().as_secs();
                return Ok(Exit::Died(format!("was given up after {seconds} s")));
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(LOOK),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
