//! Phase 5, `commit`: the first sector of the image, which has the partition table and the start of
//! the boot loader, goes onto the disk. One sector is written whole or not at all: before it the
//! disk has no system, after it the new one.

use anyhow::{Context, ensure};

use super::Work;
use super::finish::Filled;
use super::hold::hold;
use super::let_go::take;
use super::machine::{read_full, write_full};
use super::stream::Block;

/// The new system is complete on the disk, and the machine starts it.
pub struct Done {
    _private: (),
}

/// Makes the new system start, again and again until it succeeds.
pub fn commit(work: &Work, filled: Filled) -> Done {
    let mut tries = 0;
    loop {
        match try_commit(work, &filled) {
            Ok(()) => return Done { _private: () },
            Err(error) => {
                tries += 1;
                hold(work, tries, &error);
            }
        }
    }
}

fn try_commit(work: &Work, filled: &Filled) -> anyhow::Result<()> {
    let mut device = take(work, filled.secured.disk())?;
    let first = Block::of(&filled.first);
    write_full(&mut *device, first.bytes(), 0)
        .and_then(|()| device.sync())
        .context("writing the first sector")?;
    device.forget_cached().context("emptying the page cache")?;
    let mut back = Block::of(&vec![0; filled.first.len()]);
    let back = &mut back.all()[..filled.first.len()];
    read_full(&mut *device, back, 0).context("reading the first sector back")?;
    ensure!(
        *back == *filled.first,
        "the disk did not keep the first sector"
    );
    Ok(())
}
