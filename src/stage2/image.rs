//! What stage 2 must find in the new system after the flash, looked for in the stream before it:
//! nothing may come as a surprise once the disk is overwritten.

use anyhow::{anyhow, ensure};

use super::progress::mib;
use super::stop::{Code, OrStop, Stop};
use crate::ext_space::ExtSpace;
use crate::growth;
use crate::handover::{Handover, ImagePartition, Target};
use crate::superblock::{self, HEAD_BYTES};

/// The first bytes of the partitions that get files, collected while the image passes by.
pub struct Heads {
    passed: u64,
    boot: Head,
    data: Head,
}

struct Head {
    partition: ImagePartition,
    bytes: Vec<u8>,
}

impl Heads {
    /// For the image of `handover`.
    pub fn new(handover: &Handover) -> Heads {
        let head = |partition: &ImagePartition| Head {
            partition: partition.clone(),
            bytes: Vec::with_capacity(HEAD_BYTES),
        };
        let image = &handover.payload.image;
        Heads {
            passed: 0,
            boot: head(&image.boot),
            data: head(&image.data),
        }
    }

    /// The next bytes of the image.
    pub fn add(&mut self, bytes: &[u8]) {
        self.boot.take(self.passed, bytes);
        self.data.take(self.passed, bytes);
        self.passed += bytes.len() as u64;
    }

    /// Whether the partitions are what the hand-over says, and have room for what they get.
    pub fn check(&self, handover: &Handover) -> Result<(), Stop> {
        self.boot.check().or_stop(Code::ImageLayout)?;
        self.data.check().or_stop(Code::ImageLayout)?;
        let backup = handover.backup.as_ref().map_or(0, |backup| backup.bytes);
        let files: u64 = handover
            .install
            .iter()
            .filter(|file| file.partition == Target::Data)
            .map(|file| file.bytes)
            .sum();
        let data_bytes = data_bytes(handover).or_stop(Code::ImageSize)?;
        let Some(space) = ExtSpace::read(&self.data.bytes) else {
            return Ok(());
        };
        let blocks = data_bytes.map_or(space.blocks, |bytes| space.blocks_in(bytes));
        let room = space.free_at(blocks);
        if room >= growth::need(backup + files) {
            return Ok(());
        }
        Err(Stop {
            code: Code::BackupSize,
            cause: anyhow!(
                "the backup has {}, and resin-data room for {}",
                mib(backup),
                mib(room)
            ),
        })
    }
}

/// Size of resin-data when it has to grow.
fn data_bytes(handover: &Handover) -> anyhow::Result<Option<u64>> {
    let image = &handover.payload.image;
    let Some(end) = image.data_end else {
        return Ok(None);
    };
    ensure!(
        end <= growth::end_of(handover.disk.bytes),
        "resin-data is to end at byte {end}, which the disk does not have"
    );
    let bytes = end.checked_sub(image.data.start);
    let bytes = bytes.filter(|bytes| *bytes >= image.data.bytes);
    Ok(Some(bytes.ok_or_else(|| {
        anyhow!("resin-data is to end at byte {end}, where it would be smaller")
    })?))
}

impl Head {
    /// Takes what lies in the head of `bytes`, which are at `offset` of the image.
    fn take(&mut self, offset: u64, bytes: &[u8]) {
        let next = self.partition.start + self.bytes.len() as u64;
        let missing = HEAD_BYTES - self.bytes.len();
        let Some(skip) = next
            .checked_sub(offset)
            .and_then(|n| usize::try_from(n).ok())
        else {
            return;
        };
        if let Some(here) = bytes.get(skip..) {
            self.bytes
                .extend_from_slice(&here[..here.len().min(missing)]);
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        is_partition(&self.bytes, &self.partition)
    }
}

/// An error unless `head` is the head of `partition`.
pub fn is_partition(head: &[u8], partition: &ImagePartition) -> anyhow::Result<()> {
    let found = superblock::identify(head)
        .ok_or_else(|| anyhow!("there is no file system where {} must be", partition.label))?;
    ensure!(
        found.label == partition.label && found.fs_type == partition.fs_type,
        "there is {} {:?} where {} {:?} must be",
        found.fs_type,
        found.label,
        partition.fs_type,
        partition.label
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_collected_over_any_block_borders() {
        let partition = ImagePartition {
            number: 1,
            label: "resin-boot".to_owned(),
            fs_type: "vfat".to_owned(),
            start: 1000,
            bytes: 1 << 20,
        };
        let image: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        for block in [1, 7, 999, 1000, 1001, 65_536, 200_000] {
            let mut head = Head {
                partition: partition.clone(),
                bytes: Vec::new(),
            };
            let mut offset = 0;
            for bytes in image.chunks(block) {
                head.take(offset, bytes);
                offset += bytes.len() as u64;
            }
            assert!(
                head.bytes == image[1000..1000 + HEAD_BYTES],
                "blocks of {block}"
            );
        }
    }
}
