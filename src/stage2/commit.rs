//! Phase 5, `commit`: the first sector of the image, which has the partition table and the start of
//! the boot loader, goes onto the disk. One sector is written whole or not at all: before it the
//! disk has no system, after it the new one.

use super::Work;
use super::finish::Filled;
use super::hold::hold;
use super::let_go::take;
use super::stop::Stop;
use super::stream::Block;
use super::{efi, first_sector};

/// The new system is complete on the disk, and the machine starts it.
pub struct Done {
    _private: (),
}

/// Makes the new system start, again and again until it succeeds or [`hold`] gives it up.
pub fn commit(work: &Work, filled: Filled) -> Result<Done, Stop> {
    let mut tries = 0;
    loop {
        match try_commit(work, &filled) {
            Ok(()) => return Ok(Done { _private: () }),
            Err(error) => {
                tries += 1;
                hold(work, tries, &error)?;
            }
        }
    }
}

fn try_commit(work: &Work, filled: &Filled) -> anyhow::Result<()> {
    let disk = filled.secured.disk();
    efi::announce(work, disk, &filled.first)?;
    let mut device = take(work, disk)?;
    first_sector::replace(&mut *device, &Block::of(&filled.first))
}
