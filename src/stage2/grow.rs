//! A part of phase 4: resin-data grows, in the partition table and then as a file system, when the
//! hand-over says that the backup needs it. Called by [`super::finish`].
//!
//! Doing it again is harmless: what is grown already stays as it is.

use anyhow::{Context, ensure};

use super::Work;
use super::find;
use super::let_go;
use super::machine::{Device, Disk, Mounted, Partition, read_full, write_full};
use super::progress::mib;
use super::stream::Block;
use crate::ext_space::ExtSpace;
use crate::handover::ImagePartition;
use crate::partition_table::{self, Goal, Piece};
use crate::payload::table::SECTOR;

/// Makes resin-data `data` end at `end` in the partition table on the disk, whose `first` sector is
/// not there yet. Gives that sector and resin-data as they are then.
pub fn table(
    work: &Work,
    disk: &Disk,
    first: &[u8],
    data: &ImagePartition,
    end: u64,
) -> anyhow::Result<(Vec<u8>, ImagePartition)> {
    ensure!(
        u64::from(disk.sector_bytes) == SECTOR,
        "the partition table of the image is not made for sectors of {} bytes",
        disk.sector_bytes
    );
    let mut device = let_go::take(work, disk)?;
    let goal = Goal {
        number: data.number,
        start: data.start,
        end,
        disk_bytes: disk.bytes,
    };
    let grown = partition_table::grow(first, goal, &mut |start, len| {
        read(&mut *device, start, len)
    })?;
    for piece in &grown.pieces {
        let block = Block::of(&piece.bytes);
        write_full(&mut *device, block.bytes(), piece.start)
            .context("writing the partition table")?;
    }
    device.sync().context("waiting for the disk")?;
    device.forget_cached().context("emptying the page cache")?;
    for piece in &grown.pieces {
        compare(&mut *device, piece)?;
    }
    work.log.say(format!(
        "resin-data has {} instead of {} now",
        mib(end - data.start),
        mib(data.bytes)
    ));
    let data = ImagePartition {
        bytes: end - data.start,
        ..data.clone()
    };
    Ok((grown.first, data))
}

/// Reads a part of the disk, which must be there in full.
fn read(device: &mut dyn Device, start: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let mut block = Block::new();
    let bytes = &mut block.all()[..len];
    match read_full(device, bytes, start)? {
        all if all == len => Ok(bytes.to_vec()),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

fn compare(device: &mut dyn Device, piece: &Piece) -> anyhow::Result<()> {
    let back =
        read(device, piece.start, piece.bytes.len()).context("reading the partition table back")?;
    ensure!(
        back == piece.bytes,
        "the disk did not keep the partition table"
    );
    Ok(())
}

/// How many blocks the unmounted file system on `partition` has to have to fill it.
pub fn blocks(work: &Work, partition: &Partition) -> anyhow::Result<u64> {
    let space = space(work, partition)?;
    Ok(space.blocks_in(partition.bytes))
}

/// Grows the mounted file system to `blocks`.
pub fn file_system(mounted: &dyn Mounted, blocks: u64) -> anyhow::Result<()> {
    mounted
        .grow(blocks)
        .with_context(|| format!("growing the file system of resin-data to {blocks} blocks"))
}

/// An error unless the unmounted file system on `partition` has `blocks`.
pub fn compare_size(work: &Work, partition: &Partition, blocks: u64) -> anyhow::Result<()> {
    let found = space(work, partition)?.blocks;
    ensure!(
        found == blocks,
        "the file system of resin-data has {found} blocks instead of {blocks}"
    );
    Ok(())
}

fn space(work: &Work, partition: &Partition) -> anyhow::Result<ExtSpace> {
    let head = find::head(work.machine, &partition.node).context("reading resin-data")?;
    ExtSpace::read(&head).context("resin-data has no ext4")
}
