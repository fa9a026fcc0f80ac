//! What stage 2 must find in the new system after the flash, looked for in the stream before it:
//! nothing may come as a surprise once the disk is overwritten.

use anyhow::{anyhow, ensure};

use super::progress::mib;
use super::stop::{Code, OrStop, Stop};
use crate::handover::{Handover, ImagePartition, Target};
use crate::superblock::{self, HEAD_BYTES};

/// Room that a file system needs beside the contents of the files put on it, and for the log.
const MARGIN: u64 = 2 << 20;

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
        match ext_free_bytes(&self.data.bytes) {
            Some(free) if free < backup + files + MARGIN => Err(Stop {
                code: Code::BackupSize,
                cause: anyhow!(
                    "the backup has {}, the data partition of the image only {} free",
                    mib(backup),
                    mib(free)
                ),
            }),
            _ => Ok(()),
        }
    }
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

/// Free bytes of the ext2, ext3 or ext4 that begins with `head`.
/// <https://www.kernel.org/doc/html/latest/filesystems/ext4/super.html>
fn ext_free_bytes(head: &[u8]) -> Option<u64> {
    const START: usize = 1024;
    const MAGIC: u16 = 0xef53;
    const INCOMPAT_64BIT: u32 = 0x80;
    let le32 = |offset: usize| {
        let bytes = head.get(START + offset..START + offset + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if le32(0x38)? as u16 != MAGIC {
        return None;
    }
    let high = match le32(0x60)? & INCOMPAT_64BIT {
        0 => 0,
        _ => le32(0x158)?,
    };
    let blocks = u64::from(high) << 32 | u64::from(le32(0x0c)?);
    blocks.checked_mul(1024u64.checked_shl(le32(0x18)?)?)
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
