//! Restarting the machine, and keeping others from it. Only PID 1 calls this.

use std::convert::Infallible;
use std::io;

use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};

/// Restarts the machine at once; what is to last must be on the disks.
pub fn restart() -> io::Result<Infallible> {
    Ok(reboot(RebootMode::RB_AUTOBOOT)?)
}

/// Makes Ctrl-Alt-Del harmless: the kernel then sends PID 1 a SIGINT, which PID 1 gets only when
/// it asks for it.
pub fn ignore_ctrl_alt_del() -> io::Result<()> {
    Ok(set_cad_enabled(false)?)
}
