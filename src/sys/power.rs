//! Restarting the machine or switching it off, and keeping others from it: for stage 2 at once, for the old
//! system in its orderly way.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};

use super::Sys;

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

/// The same as [`restart`], with an argument for the firmware.
fn restart_with(argument: &str) -> io::Result<Infallible> {
    let argument = CString::new(argument)?;
    // SAFETY: reboot(2) reads the argument up to its NUL, and it lives until the call returns.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_reboot,
            libc::LINUX_REBOOT_MAGIC1,
            libc::LINUX_REBOOT_MAGIC2,
            libc::LINUX_REBOOT_CMD_RESTART2,
            argument.as_ptr(),
        )
    };
    Err(Errno::result(failed)
        .err()
        .map_or_else(|| io::Error::other("reboot(2) came back"), io::Error::from))
}

impl Sys {
    /// Asks the running system to reboot, the orderly way first. `argument` is for the firmware.
    ///
    /// Only systemd passes one on, with which it ends all services first. Of other programs some refuse it,
    /// and some reboot without it: there this process syncs, has the kernel put its file systems into a
    /// state as after an unmount, and calls the kernel itself.
    ///
    /// # Errors
    ///
    /// When nothing has worked. Else it may return before the machine goes.
    pub fn ask_for_reboot(&self, argument: Option<&str>) -> io::Result<()> {
        let Some(argument) = argument else {
            return self.reboot_by_any(&[
                &["systemctl", "reboot"],
                &["shutdown", "-r", "now"],
                &["reboot"],
            ]);
        };
        if self.exists("/run/systemd/system")
            && self.reboot_by_any(&[&["reboot", argument]]).is_ok()
        {
            return Ok(());
        }
        self.sync();
        // Without that key of the kernel the journals of the file systems do.
        let _ = std::fs::write(self.real("/proc/sysrq-trigger"), "u");
        match restart_with(argument)? {}
    }

    fn reboot_by_any(&self, ways: &[&[&str]]) -> io::Result<()> {
        for argv in ways {
            let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
            if self.run(&argv, None).is_ok_and(|ended| ended.success) {
                return Ok(());
            }
        }
        Err(io::Error::other(
            "none of the system's programs could restart this machine",
        ))
    }
}
