//! The first sector of the disk, which says what the firmware starts: putting another one there is the
//! switch between two systems. A sector is written whole or not at all, so a power cut leaves
//! either. Used by [`super::rearm`] and [`super::commit`].

use anyhow::{Context, ensure};

use super::machine::{Device, read_full, write_full};
use super::stream::Block;

/// Puts `sector` there and makes sure that the medium has it.
pub fn replace(device: &mut dyn Device, sector: &Block) -> anyhow::Result<()> {
    write_full(device, sector.bytes(), 0)
        .and_then(|()| device.sync())
        .context("writing the first sector")?;
    let read = read(device, sector.bytes().len())?;
    ensure!(
        read.bytes() == sector.bytes(),
        "the disk did not keep the first sector"
    );
    Ok(())
}

/// Whether the medium has `sector` there, for sure.
pub fn is(device: &mut dyn Device, sector: &Block) -> bool {
    read(device, sector.bytes().len()).is_ok_and(|read| read.bytes() == sector.bytes())
}

/// The first `len` bytes, from the medium.
pub fn read(device: &mut dyn Device, len: usize) -> anyhow::Result<Block> {
    let mut block = Block::new();
    let read = device
        .forget_cached()
        .and_then(|()| read_full(device, &mut block.all()[..len], 0))
        .context("reading the first sector")?;
    ensure!(read == len, "the disk ends in its first sector");
    block.fill_to(len);
    Ok(block)
}
