//! Waiting for a folder to change, or for a signal, without looking again and again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::{pipe2, read, write};

use super::{Sys, interrupt};

/// Folders that are watched, from when this was made.
pub struct Watch {
    inotify: Inotify,
    /// What is poked comes out of the first.
    poked: OwnedFd,
    poke: OwnedFd,
}

impl Sys {
    /// Begins to watch folders for files that come.
    pub fn watch(&self, folders: &[&str]) -> io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        for folder in folders {
            let what = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
            inotify.add_watch(&self.real(folder), what)?;
        }
        let (poked, poke) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Watch {
            inotify,
            poked,
            poke,
        })
    }
}

impl Watch {
    /// Waits for a file that came since the last call, a poke since then, a signal after
    /// [`interrupt::catch_first`], or the end of `limit`.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let inputs = [self.inotify.as_fd(), self.poked.as_fd()];
        let mut fds: Vec<PollFd> = inputs
            .into_iter()
            .chain(interrupt::wake())
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let news = self.inotify.read_events().map(drop);
        let pokes = read(&self.poked, &mut [0; 64]).map(drop);
        for read in [news, pokes] {
            match read {
                Ok(()) | Err(Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Ends a wait, the next one if there is none.
    pub fn poke(&self) {
        // A full pipe ends it as well.
        let _ = write(&self.poke, &[0]);
    }
}
