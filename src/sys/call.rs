//! Programs of the operator's machine: with input, output and a time limit. `migdb` calls ssh so.

use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Sys;
use crate::secret::Secret;

/// A program to call. Nothing secret may stand in `argv`: everybody on the machine can see it.
#[derive(Debug)]
pub struct Call {
    /// The program, found on PATH, and its arguments.
    pub argv: Vec<String>,
    /// Variables of its environment, which only its user can see.
    pub variables: Vec<(&'static str, Secret)>,
    /// It is ended after so long, with all that it has started.
    pub limit: Duration,
}

/// What a program reads.
pub type Feed<'a> = &'a mut (dyn FnMut(&mut dyn Write) -> io::Result<()> + Send);

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its exit code; `None` when a signal or the limit ended it.
    pub code: Option<i32>,
    /// It took longer than its limit.
    pub late: bool,
    /// What it wrote to standard error, the end of it if that was much.
    pub errors: String,
    /// Why its input could not be made, other than that it did not want it.
    pub feed_failed: Option<String>,
}

/// More of standard error than anybody reads, in bytes.
const MUCH: usize = 1 << 18;

impl Answer {
    /// The last line of standard error with anything in it.
    pub fn complaint(&self) -> Option<&str> {
        let lines = self.errors.lines().map(str::trim);
        lines.rev().find(|line| !line.is_empty())
    }
}

impl Sys {
    /// Calls a program. `feed` makes its input, `heard` gets its output as it comes.
    ///
    /// It is ended when this thread dies. Its standard error goes to a file, since what it leaves
    /// running may keep that open.
    pub fn call(
        &self,
        call: &Call,
        feed: Option<Feed<'_>>,
        heard: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Answer> {
        self.pass(&format!("calling {}", call.argv.join(" ")))?;
        let mut complaint = self.scratch()?;
        let mut child = start(call, feed.is_some(), complaint.try_clone()?)?;
        let until = Instant::now() + call.limit;
        let (ended, fed) = std::thread::scope(|scope| {
            let stdin = child.stdin.take();
            let feeding = feed.zip(stdin).map(|(feed, mut stdin)| {
                scope.spawn(move || feed(&mut stdin).and_then(|()| stdin.flush()))
            });
            let ended = listen(&mut child, until, heard);
            if !matches!(ended, Ok(Some(_))) {
                // Also to end what waits for the child to read.
                let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
                let _ = child.wait();
            }
            (ended, feeding.map(std::thread::ScopedJoinHandle::join))
        });
        let status = ended?;
        let mut text = Vec::new();
        complaint.rewind()?;
        complaint.read_to_end(&mut text)?;
        Ok(Answer {
            code: status.and_then(|status| status.code()),
            late: status.is_none(),
            errors: String::from_utf8_lossy(&text[text.len().saturating_sub(MUCH)..]).into_owned(),
            feed_failed: match fed {
                Some(Ok(Err(error))) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Some(error.to_string())
                }
                Some(Err(_)) => Some("its maker panicked".to_owned()),
                _ => None,
            },
        })
    }
}

fn start(call: &Call, fed: bool, complaint: std::fs::File) -> io::Result<Child> {
    let (program, arguments) = call
        .argv
        .split_first()
        .ok_or_else(|| io::Error::other("no program named"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(if fed { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(complaint)
        // Ctrl-C is for this process, which lets the call end first.
        .process_group(0);
    for (name, value) in &call.variables {
        use std::os::unix::ffi::OsStrExt;
        command.env(name, std::ffi::OsStr::from_bytes(value.expose()));
    }
    // SAFETY: prctl(2) is async-signal-safe, and nothing else runs between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
    }
    command.spawn()
}

/// Hands on the output of a child until its end; `None` when that did not come in time.
fn listen(
    child: &mut Child,
    until: Instant,
    heard: &mut dyn FnMut(&[u8]),
) -> io::Result<Option<ExitStatus>> {
    let end = pidfd(child)?;
    if let Some(mut stdout) = child.stdout.take() {
        let mut buffer = vec![0; 1 << 16];
        loop {
            if !ready(stdout.as_fd(), until)? {
                return Ok(None);
            }
            match stdout.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => heard(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    match ready(end.as_fd(), until)? {
        true => child.wait().map(Some),
        false => Ok(None),
    }
}

/// Waits until there is something to read; `false` when that did not come in time.
fn ready(fd: BorrowedFd<'_>, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // In whole milliseconds, rounded up, so that the last one is waited for.
        let left = left.as_millis().saturating_add(1).min(i32::MAX as u128) as i32;
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(0) if Instant::now() >= until => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A file that can be read once the child has ended (pidfd_open(2), Linux 5.3).
fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers, and the descriptor that it gives is ours alone.
    unsafe {
        match libc::syscall(libc::SYS_pidfd_open, child.id(), 0) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd as i32)),
        }
    }
}
