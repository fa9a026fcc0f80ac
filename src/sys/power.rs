//! Restarting the machine or switching it off, and keeping others from it. Only stage 2 calls this.

use std::convert::Infallible;
use std::io;

use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};

/// Restarts the machine at once; what is to last must be on the disks.
pub fn restart() -> io::Result<Infallible> {
    Ok(reboot(RebootMode::RB_AUTOBOOT)?)
}

/// Switches the machine off at once; what is to last must be on the disks. A machine that can't
/// switch itself off halts.
pub fn off() -> io::Result<Infallible> {
    Ok(reboot(RebootMode::RB_POWER_OFF)?)
}

/// Makes Ctrl-Alt-Del harmless: the kernel then sends PID 1 a SIGINT, which PID 1 gets only when
/// it asks for it.
pub fn ignore_ctrl_alt_del() -> io::Result<()> {
    Ok(set_cad_enabled(false)?)
}
