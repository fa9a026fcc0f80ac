//! Who and where this process is.

use std::io;

use super::Sys;

/// This executable, also when its file was replaced or removed since it was started.
pub const EXECUTABLE: &str = "/proc/self/exe";

/// What uname(2) says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uname {
    /// Host name.
    pub nodename: String,
    /// Kernel release.
    pub release: String,
    /// Architecture of the kernel.
    pub machine: String,
}

impl Sys {
    /// The kernel's name for itself and for this machine.
    ///
    /// The kernel always answers for the real machine, whatever the root of this [`Sys`] is.
    pub fn uname(&self) -> io::Result<Uname> {
        let uname = nix::sys::utsname::uname()?;
        let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
        Ok(Uname {
            nodename: text(uname.nodename()),
            release: text(uname.release()),
            machine: text(uname.machine()),
        })
    }

    /// Effective user id of this process.
    pub fn euid(&self) -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    /// The current folder.
    pub fn current_dir(&self) -> io::Result<String> {
        std::env::current_dir()?
            .into_os_string()
            .into_string()
            .map_err(|_| io::Error::other("its name is not UTF-8"))
    }

    /// A variable of the environment; blank ones and those that are not UTF-8 count as not set.
    pub fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    /// Waits.
    pub fn sleep(&self, time: std::time::Duration) {
        std::thread::sleep(time);
    }

    /// Bytes of a memory page.
    pub fn page_bytes(&self) -> io::Result<u64> {
        let bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
        bytes
            .and_then(|bytes| u64::try_from(bytes).ok())
            .ok_or_else(|| io::Error::other("the kernel names no page size"))
    }
}
