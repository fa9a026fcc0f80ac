//! SIGINT, SIGTERM and SIGHUP: the engine stops at its next change and takes back what was done.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::files::Gate;

/// The signal that came first, or 0.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32) {
    CAUGHT.store(signal, Ordering::SeqCst);
}

/// From now on the signals are only noted.
pub fn catch() -> io::Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(note),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
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
