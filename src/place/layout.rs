//! From the blocks of a file to the disk: through its file system's device, which is a partition,
//! the disk itself, or a linear mapping over them.

use serde::{Deserialize, Serialize};

use super::manifest::join;
use crate::handover::Extent;
use crate::host::{Disk, Host, Mount};
use crate::sys::extents::{FileExtent, flags};

/// File systems whose FIEMAP tells bytes of the block device, and whose blocks stay where they
/// are. btrfs tells addresses of its own, f2fs moves blocks, and others have no FIEMAP.
const FILE_SYSTEMS: [&str; 4] = ["ext2", "ext3", "ext4", "xfs"];

/// Why a place on the disk can't be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The file system does not tell, or does not keep, where its blocks are.
    #[error("{0} does not say where on the disk a file is")]
    FileSystem(String),
    /// The file system is on another disk, on none, or on several.
    #[error("{0} is not on this disk alone")]
    OtherDisk(String),
    /// A mapping or an array is in between.
    #[error("{device} is a {kind}, through which the disk can't be told")]
    Mapping {
        /// Kernel name of the device.
        device: String,
        /// Kind of the mapping.
        kind: String,
    },
    /// A mapping encrypts.
    #[error("{0} is encrypted, so that no file in it has a plain place on the disk")]
    Encrypted(String),
    /// A flag of an extent.
    #[error("its blocks are {0}")]
    Extent(&'static str),
    /// A file that has not got blocks for all of it.
    #[error("it has holes")]
    Hole,
    /// The kernel said more than the device has.
    #[error("its blocks are outside of the device")]
    OutOfDevice,
}

/// How bytes of a file system's device lie on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Segment {
    /// First byte on the device.
    start: u64,
    /// Size in bytes.
    bytes: u64,
    /// First byte on the disk.
    on_disk: u64,
}

impl Layout {
    /// That of a mounted file system, all of which must be on `disk`.
    pub fn of_mount(host: &Host, disk: &Disk, mount: &Mount) -> Result<Layout, Refusal> {
        if !FILE_SYSTEMS.contains(&mount.fs_type.as_str()) {
            return Err(Refusal::FileSystem(mount.fs_type.clone()));
        }
        /// A mapping on a mapping on a mapping: nobody has more.
        const DEPTH: usize = 4;
        Layout::of_device(host, disk, &mount.device_name, DEPTH)
    }

    fn of_device(host: &Host, disk: &Disk, name: &str, depth: usize) -> Result<Layout, Refusal> {
        if disk.name == name {
            return Ok(Layout::whole(disk.bytes, 0));
        }
        if let Some((holder, part)) = host.partition(name) {
            return match holder.name == disk.name {
                true => Ok(Layout::whole(part.bytes, part.start)),
                false => Err(Refusal::OtherDisk(name.to_owned())),
            };
        }
        let unknown = |kind: &str| Refusal::Mapping {
            device: name.to_owned(),
            kind: kind.to_owned(),
        };
        let mapping = host.mappings.iter().find(|mapping| mapping.name == name);
        let Some(mapping) = mapping.filter(|mapping| depth > 0 && !mapping.targets.is_empty())
        else {
            return Err(unknown("device of a kind that is not known here"));
        };
        let mut segments = Vec::new();
        for target in &mapping.targets {
            if target.encrypts() {
                return Err(Refusal::Encrypted(name.to_owned()));
            }
            let below = target.below.as_ref().ok_or_else(|| unknown(&target.kind))?;
            let layout = Layout::of_device(host, disk, &below.name, depth - 1)?;
            let mut start = target.start;
            for extent in layout.on_disk(below.start, target.bytes)? {
                segments.push(Segment {
                    start,
                    bytes: extent.bytes,
                    on_disk: extent.start,
                });
                start += extent.bytes;
            }
        }
        Ok(Layout { segments })
    }

    /// A device that lies in one piece on the disk.
    pub fn whole(bytes: u64, on_disk: u64) -> Layout {
        Layout {
            segments: vec![Segment {
                start: 0,
                bytes,
                on_disk,
            }],
        }
    }

    /// The bytes of `region` of the disk that this device has.
    pub fn bytes_in(&self, region: &super::Region) -> u64 {
        let parts = self.segments.iter().map(|segment| {
            let end = (segment.on_disk + segment.bytes).min(region.end);
            end.saturating_sub(segment.on_disk.max(region.start))
        });
        parts.sum()
    }

    /// Where `bytes` of the device from `start` on are on the disk.
    fn on_disk(&self, start: u64, bytes: u64) -> Result<Vec<Extent>, Refusal> {
        let mut found = Vec::new();
        let mut at = start;
        let end = start.checked_add(bytes).ok_or(Refusal::OutOfDevice)?;
        while at < end {
            let segment = self
                .segments
                .iter()
                .find(|segment| segment.start <= at && at - segment.start < segment.bytes)
                .ok_or(Refusal::OutOfDevice)?;
            let inside = at - segment.start;
            let len = (segment.bytes - inside).min(end - at);
            found.push(Extent {
                start: segment.on_disk + inside,
                bytes: len,
            });
            at += len;
        }
        Ok(found)
    }

    /// Where a file of that size is on the disk, by what the kernel says of it.
    pub fn file(&self, bytes: u64, extents: &[FileExtent]) -> Result<Vec<Extent>, Refusal> {
        let mut found = Vec::new();
        let mut at = 0;
        for extent in extents {
            if at >= bytes {
                break; // xfs allocates some more behind the end
            }
            if let Some((_, what)) = UNUSABLE.iter().find(|(flag, _)| extent.flags & flag != 0) {
                return Err(Refusal::Extent(what));
            }
            if extent.logical != at {
                return Err(Refusal::Hole);
            }
            found.extend(self.on_disk(extent.physical, extent.bytes)?);
            at += extent.bytes;
        }
        match at < bytes {
            true => Err(Refusal::Hole),
            false => Ok(join(found)),
        }
    }
}

/// Flags of extents whose data is not, as it is, at the place that is told.
const UNUSABLE: [(u32, &str); 8] = [
    (flags::DELALLOC, "not allocated yet"),
    (flags::UNKNOWN, "at an unknown place"),
    (flags::ENCRYPTED, "encrypted"),
    (flags::ENCODED, "compressed"),
    (flags::INLINE, "among the metadata"),
    (flags::TAIL, "shared with the ends of other files"),
    (flags::NOT_ALIGNED, "not on block borders"),
    (flags::SHARED, "shared with other files"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn extent(logical: u64, physical: u64, bytes: u64, flags: u32) -> FileExtent {
        FileExtent {
            logical,
            physical,
            bytes,
            flags,
        }
    }

    #[test]
    fn a_file_on_a_partition_lies_behind_its_start() {
        let layout = Layout::whole(100 * MIB, 7 * MIB);
        let last = flags::LAST | flags::UNWRITTEN;
        let file = [extent(0, 3 * MIB, MIB, 0), extent(MIB, 9 * MIB, 4096, last)];
        let found = layout.file(MIB + 5, &file).unwrap();
        assert_eq!(
            found[0],
            Extent {
                start: 10 * MIB,
                bytes: MIB
            }
        );
        assert_eq!(
            found[1],
            Extent {
                start: 16 * MIB,
                bytes: 4096
            }
        );
    }

    #[test]
    fn an_extent_over_two_segments_is_split() {
        let segment = |start, bytes, on_disk| Segment {
            start,
            bytes,
            on_disk,
        };
        let layout = Layout {
            segments: vec![
                segment(0, 4 * MIB, 50 * MIB),
                segment(4 * MIB, 4 * MIB, 20 * MIB),
            ],
        };
        let found = layout
            .file(2 * MIB, &[extent(0, 3 * MIB, 2 * MIB, 0)])
            .unwrap();
        assert_eq!(
            found[0],
            Extent {
                start: 53 * MIB,
                bytes: MIB
            }
        );
        assert_eq!(
            found[1],
            Extent {
                start: 20 * MIB,
                bytes: MIB
            }
        );
    }

    #[test]
    fn blocks_that_are_not_the_data_as_it_is_are_refused() {
        let layout = Layout::whole(100 * MIB, 0);
        for (flag, what) in UNUSABLE {
            let found = layout.file(1, &[extent(0, 0, 4096, flag | flags::LAST)]);
            assert_eq!(found, Err(Refusal::Extent(what)));
        }
        let whole = |extents: &[FileExtent]| layout.file(8192, extents);
        assert_eq!(whole(&[]), Err(Refusal::Hole));
        assert_eq!(whole(&[extent(0, 0, 4096, 1)]), Err(Refusal::Hole));
        let gap = [extent(0, 0, 4096, 0), extent(8192, 8192, 4096, 1)];
        assert_eq!(whole(&gap), Err(Refusal::Hole));
        let behind = extent(0, 100 * MIB - 4096, 8192, 1);
        assert_eq!(whole(&[behind]), Err(Refusal::OutOfDevice));
        let overflow = extent(0, u64::MAX - 4095, 8192, 1);
        assert_eq!(whole(&[overflow]), Err(Refusal::OutOfDevice));
    }

    #[test]
    fn a_layout_knows_what_it_has_of_a_region() {
        let region = super::super::Region {
            start: 8 * MIB,
            end: 50 * MIB,
        };
        assert_eq!(Layout::whole(100 * MIB, 0).bytes_in(&region), 42 * MIB);
        assert_eq!(Layout::whole(10 * MIB, 4 * MIB).bytes_in(&region), 6 * MIB);
        assert_eq!(Layout::whole(10 * MIB, 60 * MIB).bytes_in(&region), 0);
    }
}
