//! The part of the disk that the flash leaves alone.

use serde::{Deserialize, Serialize};

use crate::handover::Extent;

/// Nothing is kept in the last bytes of the disk: stage 2 wipes what old partition tables, arrays
/// and pools left there.
const TAIL: u64 = 4 << 20;

/// The region starts at a multiple of this.
const STEP: u64 = 4 << 20;

/// A part of a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// The first byte behind it; not before `start`.
    pub end: u64,
}

/// How the extents of a file lie to a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// All of them are in it, and on borders of sectors.
    Inside,
    /// Some are.
    Partly,
    /// None is.
    Outside,
}

impl Region {
    /// What is left of a disk of that size behind the new system: the image, and resin-data where
    /// it grows beyond the image.
    pub fn behind(image_bytes: u64, data_end: Option<u64>, disk_bytes: u64) -> Region {
        let new_system = image_bytes.max(data_end.unwrap_or(0));
        let start = new_system.next_multiple_of(STEP);
        Region {
            start,
            end: disk_bytes.saturating_sub(TAIL).max(start),
        }
    }

    /// The part of it whose sectors of `sector_bytes` are counted in 32 bits: an MBR can name no other, and
    /// many a BIOS reads no other.
    pub fn in_reach_of_firmware(&self, sector_bytes: u32) -> Region {
        let reach = u64::from(u32::MAX) * u64::from(sector_bytes);
        Region {
            start: self.start,
            end: self.end.min(reach).max(self.start),
        }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// How `extents` lie to it.
    pub fn fit(&self, extents: &[Extent], sector_bytes: u32) -> Fit {
        let is_inside = |extent: &Extent| {
            self.start <= extent.start
                && extent.end() <= self.end
                && extent.start.is_multiple_of(sector_bytes.into())
                && extent.bytes.is_multiple_of(sector_bytes.into())
        };
        let touches = |extent: &Extent| extent.start < self.end && self.start < extent.end();
        if !extents.is_empty() && extents.iter().all(is_inside) {
            Fit::Inside
        } else if extents.iter().any(touches) {
            Fit::Partly
        } else {
            Fit::Outside
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn it_starts_behind_the_image_and_behind_grown_resin_data() {
        let region = |bytes, data_end| Region::behind(bytes, data_end, 1000 * MIB);
        let plain = region(9 * MIB, None);
        assert_eq!((plain.start, plain.end), (12 * MIB, 996 * MIB));
        assert_eq!(region(8 * MIB, None).start, 8 * MIB);
        assert_eq!(region(8 * MIB, Some(40 * MIB + 1)).start, 44 * MIB);
        assert_eq!(region(8 * MIB, Some(7 * MIB)).start, 8 * MIB);
        assert_eq!(region(999 * MIB, None).bytes(), 0);
        assert_eq!(region(2000 * MIB, None).bytes(), 0);
    }

    #[test]
    fn firmware_reaches_the_first_2_tib_or_with_larger_sectors_more() {
        let region = Region::behind(9 * MIB, None, 3 << 40);
        let near = region.in_reach_of_firmware(512);
        assert_eq!((near.start, near.end), (12 * MIB, (2 << 40) - 512));
        assert_eq!(region.in_reach_of_firmware(4096), region);
        let far = Region {
            start: 5 << 40,
            end: 6 << 40,
        };
        assert_eq!(far.in_reach_of_firmware(512).bytes(), 0);
    }

    #[test]
    fn extents_are_kept_when_all_of_them_lie_in_it_on_sectors() {
        let region = Region {
            start: 8 * MIB,
            end: 100 * MIB,
        };
        let fit = |parts: &[(u64, u64)]| {
            let extents: Vec<Extent> = parts
                .iter()
                .map(|(start, bytes)| Extent {
                    start: *start,
                    bytes: *bytes,
                })
                .collect();
            region.fit(&extents, 4096)
        };
        assert_eq!(fit(&[(8 * MIB, MIB), (99 * MIB, MIB)]), Fit::Inside);
        assert_eq!(fit(&[(8 * MIB, MIB), (7 * MIB, MIB)]), Fit::Partly);
        assert_eq!(fit(&[(8 * MIB - 4096, MIB)]), Fit::Partly);
        assert_eq!(fit(&[(99 * MIB, MIB + 4096)]), Fit::Partly);
        assert_eq!(fit(&[(7 * MIB, MIB), (100 * MIB, MIB)]), Fit::Outside);
        assert_eq!(fit(&[(8 * MIB + 512, MIB)]), Fit::Partly, "half a sector");
        assert_eq!(fit(&[(8 * MIB, 512)]), Fit::Partly, "half a sector");
        assert_eq!(fit(&[]), Fit::Outside);
    }
}
