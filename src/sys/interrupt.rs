//! SIGINT, SIGTERM and SIGHUP: the engine stops at its next change and takes back what was done.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use nix::fcntl::OFlag;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::files::Gate;

/// The signal that came first, or 0.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32) {
    CAUGHT.store(signal, Ordering::SeqCst);
}

/// From now on the signals are only noted.
pub fn catch() -> io::Result<()> {
    handle(note)
}

fn handle(handler: extern "C" fn(i32)) -> io::Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(handler),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handlers do only what is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Read by everybody who waits: something is in it once a signal has come.
static WAKE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();

extern "C" fn note_or_end(signal: i32) {
    if CAUGHT.swap(signal, Ordering::SeqCst) != 0 {
        // SAFETY: _exit(2) is async-signal-safe.
        unsafe { nix::libc::_exit(128 + signal) };
    }
    if let Some((_, to)) = WAKE.get() {
        // SAFETY: write(2) is async-signal-safe, and the byte outlives the call.
        unsafe { nix::libc::write(to.as_raw_fd(), [0u8].as_ptr().cast(), 1) };
    }
}

/// From now on the first signal is only noted; the second one ends the process at once.
pub fn catch_first() -> io::Result<()> {
    let pipe = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // Who called before has made one that serves as well.
    let _ = WAKE.set(pipe);
    handle(note_or_end)
}

/// Whether a signal has come.
pub fn caught() -> bool {
    CAUGHT.load(Ordering::SeqCst) != 0
}

/// Readable once a signal has come, after [`catch_first`].
#[cfg(feature = "fleet")]
pub(super) fn wake() -> Option<std::os::fd::BorrowedFd<'static>> {
    WAKE.get().map(|(from, _)| std::os::fd::AsFd::as_fd(from))
}

/// A gate that is shut once a signal has come.
pub fn gate() -> Gate {
    Arc::new(|_| match CAUGHT.load(Ordering::SeqCst) {
        0 => Ok(()),
        signal => {
            let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
            Err(io::Error::new(
                io::ErrorKind::Interrupted,
                format!("interrupted by {name}"),
            ))
        }
    })
}
