//! How much room an ext2, ext3 or ext4 has, and how much it would have if the kernel grew it while it
//! is mounted. Pure; both stages ask it whether the backup fits on resin-data.
//!
//! <https://www.kernel.org/doc/html/latest/filesystems/ext4/super.html>

use std::cmp::min;

/// Where the superblock lies.
const START: usize = 1024;

/// What the kernel keeps free for its own metadata, and never gives away: one block in so many,
const KEPT: u64 = 50;

/// but not more than so many blocks.
const KEPT_AT_MOST: u64 = 4096;

/// Blocks that a last group must have beside its own tables to be worth it: resize2fs thinks so too.
const SMALLEST_GROUP: u64 = 50;

/// Sizes from a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtSpace {
    /// Size of a block in bytes.
    pub block_bytes: u64,
    /// Size of the file system in blocks.
    pub blocks: u64,
    /// Blocks that no file has.
    pub free: u64,
    /// Number of the first block: 1 where blocks have 1024 bytes.
    first: u64,
    group_blocks: u64,
    /// Blocks of the inode table and the bitmaps of a group.
    group_tables: u64,
    /// Group descriptors in a block.
    descriptors: u64,
    /// Blocks kept for more group descriptors.
    reserved: u64,
    /// Only some groups have a copy of the superblock.
    is_sparse: bool,
    growth: Growth,
}

/// How far the kernel can grow it while it is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// Not at all.
    None,
    /// Until the blocks for group descriptors are full.
    Reserved,
    /// Until block numbers have no more bits.
    Numbers { bits: u32 },
}

impl ExtSpace {
    /// From the first bytes of a file system ([`crate::superblock::HEAD_BYTES`] are enough); none
    /// when it is another one.
    pub fn read(head: &[u8]) -> Option<ExtSpace> {
        const BIGALLOC: u32 = 0x200;
        const SPARSE_SUPER2: u32 = 0x200;
        const RESIZE_INODE: u32 = 0x10;
        const META_BG: u32 = 0x10;
        const INCOMPAT_64BIT: u32 = 0x80;
        const SPARSE_SUPER: u32 = 0x1;
        let le32 = |offset: usize| {
            let bytes = head.get(START + offset..START + offset + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let le16 = |offset: usize| Some(le32(offset)? & 0xffff);
        if le16(0x38)? != 0xef53 {
            return None;
        }
        let (compat, incompat, ro_compat) = (le32(0x5c)?, le32(0x60)?, le32(0x64)?);
        let is_64bit = incompat & INCOMPAT_64BIT != 0;
        let wide = |low: usize, high: usize| {
            let high = if is_64bit { le32(high)? } else { 0 };
            Some(u64::from(high) << 32 | u64::from(le32(low)?))
        };
        let block_bytes = 1024u64.checked_shl(le32(0x18)?)?;
        let inode_bytes = match le32(0x4c)? {
            0 => 128,
            _ => u64::from(le16(0x58)?),
        };
        let descriptor_bytes = match is_64bit {
            true => u64::from(le16(0xfe)?),
            false => 32,
        };
        let group_blocks = u64::from(le32(0x20)?);
        let sane = (1024..=65536).contains(&block_bytes)
            && group_blocks > 0
            && (32..=block_bytes).contains(&descriptor_bytes);
        if !sane {
            return None;
        }
        let growth = if ro_compat & BIGALLOC != 0 || compat & SPARSE_SUPER2 != 0 {
            Growth::None
        } else if incompat & META_BG != 0 {
            let bits = if is_64bit { 48 } else { 32 };
            Growth::Numbers { bits }
        } else if compat & RESIZE_INODE != 0 {
            Growth::Reserved
        } else {
            Growth::None
        };
        Some(ExtSpace {
            block_bytes,
            blocks: wide(0x04, 0x150)?,
            free: wide(0x0c, 0x158)?,
            first: u64::from(le32(0x14)?),
            group_blocks,
            group_tables: 2 + (u64::from(le32(0x28)?) * inode_bytes).div_ceil(block_bytes),
            descriptors: block_bytes / descriptor_bytes,
            reserved: u64::from(le16(0xce)?),
            is_sparse: ro_compat & SPARSE_SUPER != 0,
            growth,
        })
    }

    /// Blocks that it has once the kernel has grown it into `bytes`; never less than now.
    pub fn blocks_in(&self, bytes: u64) -> u64 {
        let wanted = min(bytes / self.block_bytes, self.most_blocks());
        let last = wanted.saturating_sub(self.first) % self.group_blocks;
        let blocks = match last < self.tables_of(self.group_of(wanted)) + SMALLEST_GROUP {
            true => wanted - last,
            false => wanted,
        };
        blocks.max(self.blocks)
    }

    /// Bytes that files can have in it once it has been grown to `blocks`.
    pub fn free_at(&self, blocks: u64) -> u64 {
        let tables: u64 = (self.groups(self.blocks)..self.groups(blocks))
            .map(|group| self.tables_of(group))
            .sum();
        let kept = min(blocks / KEPT, KEPT_AT_MOST);
        let free = (self.free + blocks.saturating_sub(self.blocks)).saturating_sub(tables + kept);
        free * self.block_bytes
    }

    /// The size in bytes up to which it can be grown while it is mounted.
    pub fn most_bytes(&self) -> u64 {
        self.most_blocks() * self.block_bytes
    }

    fn most_blocks(&self) -> u64 {
        let most = match self.growth {
            Growth::None => 0,
            Growth::Reserved => {
                let used = self.groups(self.blocks).div_ceil(self.descriptors);
                let groups = (used + self.reserved) * self.descriptors;
                min(groups * self.group_blocks, u64::from(u32::MAX))
            }
            Growth::Numbers { bits } => (1 << bits) - 1,
        };
        most.max(self.blocks)
    }

    fn groups(&self, blocks: u64) -> u64 {
        (blocks - self.first).div_ceil(self.group_blocks)
    }

    /// The group of the last of so many blocks.
    fn group_of(&self, blocks: u64) -> u64 {
        self.groups(blocks).saturating_sub(1)
    }

    /// Blocks of a group that are not for files.
    fn tables_of(&self, group: u64) -> u64 {
        let copies = match !self.is_sparse || has_copy(group) {
            true => 1 + self.reserved + self.groups(self.blocks).div_ceil(self.descriptors),
            false => 0,
        };
        self.group_tables + copies
    }
}

/// Groups 0, 1 and the powers of 3, 5 and 7 have a copy of the superblock.
fn has_copy(group: u64) -> bool {
    let is_power = |base: u64| {
        let mut left = group;
        while left > 1 && left.is_multiple_of(base) {
            left /= base;
        }
        left == 1
    };
    group <= 1 || [3, 5, 7].into_iter().any(is_power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_groups_have_copies() {
        let some: Vec<u64> = (0..50).filter(|group| has_copy(*group)).collect();
        assert_eq!(some, [0, 1, 3, 5, 7, 9, 25, 27, 49]);
    }
}
