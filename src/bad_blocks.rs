//! Blocks of a disk that can't be read (MAX_BADBLOCKS): all of it is read, nothing is written.
//!
//! Called by [`crate::material`], in a run whose other checks found no error.

use std::io;
use std::ops::Range;

use nix::libc::{EILSEQ, EIO, ENODATA, EREMOTEIO, ETIMEDOUT};

use crate::config::kind::limit::BadBlocks;
use crate::sys::surface::Surface;

/// Bytes of a block, as `badblocks` counts them.
pub const BLOCK: u64 = 1024;

/// Bytes that are read at once where all is well.
pub const PIECE: u64 = 1 << 20;

/// Bad blocks that are named.
const NAMED: usize = 5;

/// What the kernel says when a disk can't give back what it has: an error of the transfer, of the
/// medium, of the disk's own check, of the disk, and no answer at all.
const BAD: [i32; 5] = [EIO, ENODATA, EILSEQ, EREMOTEIO, ETIMEDOUT];

/// A disk as the scan sees it; tests have one that is broken.
pub trait Medium {
    /// Size in bytes.
    fn bytes(&mut self) -> io::Result<u64>;

    /// Reads up to `len` bytes, at most [`PIECE`], at `offset`; says how many it read. Both are
    /// multiples of the sector size.
    fn read(&mut self, offset: u64, len: u64) -> io::Result<u64>;
}

impl Medium for Surface {
    fn bytes(&mut self) -> io::Result<u64> {
        Surface::bytes(self)
    }

    fn read(&mut self, offset: u64, len: u64) -> io::Result<u64> {
        Surface::read(self, offset, len)
    }
}

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Bad blocks; where they are more than the limit, the scan has stopped there.
    pub bad: u64,
    /// The numbers of the first ones.
    pub first: Vec<u64>,
    /// How many there may be.
    pub limit: u64,
}

impl Scan {
    /// Whether there are more than there may be.
    pub fn is_over_limit(&self) -> bool {
        self.bad > self.limit
    }

    /// The places of the first bad blocks, for a person.
    pub fn places(&self) -> String {
        let numbers: Vec<String> = self.first.iter().map(u64::to_string).collect();
        let more = match self.bad > self.first.len() as u64 {
            true => " …",
            false => "",
        };
        format!("block {}{more}", numbers.join(", "))
    }
}

/// Reads all of a disk whose sectors have `sector` bytes, up to one bad block more than `limit`.
/// `progress` gets the bytes that are done and those in all.
///
/// # Errors
///
/// Those that tell nothing about a block, as when the disk is gone.
pub fn scan(
    medium: &mut dyn Medium,
    sector: u64,
    limit: BadBlocks,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Scan> {
    let total = medium.bytes()?;
    let mut found = Scan {
        bad: 0,
        first: Vec::new(),
        limit: limit.of(total.div_ceil(BLOCK)),
    };
    let mut at = 0;
    while at < total && !found.is_over_limit() {
        let end = total.min(at + PIECE);
        if !is_readable(medium, at..end)? {
            search(medium, sector, at..end, &mut found)?;
        }
        at = end;
        progress(at, total);
    }
    Ok(found)
}

/// Finds the bad blocks in a piece that can't be read as a whole.
fn search(
    medium: &mut dyn Medium,
    sector: u64,
    piece: Range<u64>,
    found: &mut Scan,
) -> io::Result<()> {
    let step = sector.max(BLOCK);
    let mut at = piece.start;
    while at < piece.end && !found.is_over_limit() {
        let end = piece.end.min(at + step);
        if !is_readable(medium, at..end)? {
            for block in at / BLOCK..end.div_ceil(BLOCK) {
                found.bad += 1;
                if found.first.len() < NAMED {
                    found.first.push(block);
                }
            }
        }
        at = end;
    }
    Ok(())
}

fn is_readable(medium: &mut dyn Medium, range: Range<u64>) -> io::Result<bool> {
    let mut at = range.start;
    while at < range.end {
        match medium.read(at, range.end - at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => at += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error().is_some_and(|code| BAD.contains(&code)) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with bad sectors, which counts what is read of it.
    struct Broken {
        bytes: u64,
        sector: u64,
        bad: Vec<u64>,
        error: i32,
        /// Bytes that one read gives at most.
        most: u64,
        reads: u32,
        furthest: u64,
    }

    impl Broken {
        fn new(bytes: u64, sector: u64, bad: &[u64]) -> Broken {
            Broken {
                bytes,
                sector,
                bad: bad.to_vec(),
                error: EIO,
                most: PIECE,
                reads: 0,
                furthest: 0,
            }
        }

        fn scan(&mut self, limit: BadBlocks) -> Scan {
            let sector = self.sector;
            scan(self, sector, limit, &mut |_, _| ()).unwrap()
        }
    }

    impl Medium for Broken {
        fn bytes(&mut self) -> io::Result<u64> {
            Ok(self.bytes)
        }

        fn read(&mut self, offset: u64, len: u64) -> io::Result<u64> {
            assert_eq!((offset % self.sector, len % self.sector), (0, 0));
            assert!(offset + len <= self.bytes && len <= PIECE);
            self.reads += 1;
            self.furthest = self.furthest.max(offset + len);
            let len = len.min(self.most);
            let sectors = offset / self.sector..(offset + len) / self.sector;
            match self.bad.iter().any(|bad| sectors.contains(bad)) {
                true => Err(io::Error::from_raw_os_error(self.error)),
                false => Ok(len),
            }
        }
    }

    const MIB: u64 = 1 << 20;
    const NO_LIMIT: BadBlocks = BadBlocks::Percent(100);

    #[test]
    fn a_good_disk_is_read_to_its_end_in_big_pieces() {
        let mut disk = Broken::new(5 * MIB + 512, 512, &[]);
        let mut seen = Vec::new();
        let found = scan(&mut disk, 512, BadBlocks::Blocks(0), &mut |done, total| {
            seen.push((done, total));
        });
        assert_eq!(found.unwrap().bad, 0);
        assert_eq!((disk.reads, disk.furthest), (6, 5 * MIB + 512));
        assert_eq!(seen.last(), Some(&(5 * MIB + 512, 5 * MIB + 512)));
    }

    #[test]
    fn bad_sectors_are_counted_by_blocks_of_1024_bytes() {
        // Two sectors of one block, one of another, and the last one, which has no other half.
        let last = 3 * MIB / 512;
        let mut disk = Broken::new(3 * MIB + 512, 512, &[2050, 2051, 4000, last]);
        let found = disk.scan(NO_LIMIT);
        assert_eq!((found.bad, found.first), (3, vec![1025, 2000, 3072]));
        let mut disk = Broken::new(3 * MIB, 4096, &[256]);
        let found = disk.scan(NO_LIMIT);
        assert_eq!(found.bad, 4, "a sector of 4096 bytes has four blocks");
        assert_eq!(found.places(), "block 1024, 1025, 1026, 1027");
    }

    #[test]
    fn short_reads_are_completed() {
        let mut disk = Broken::new(2 * MIB, 512, &[3000]);
        disk.most = 4096;
        assert_eq!(disk.scan(NO_LIMIT).first, [1500]);
    }

    #[test]
    fn the_scan_stops_as_soon_as_the_limit_is_exceeded() {
        let bad: Vec<u64> = (0..20_000).collect();
        let mut disk = Broken::new(100 * MIB, 512, &bad);
        let found = disk.scan(BadBlocks::Blocks(9));
        assert_eq!((found.bad, found.is_over_limit()), (10, true));
        assert_eq!(disk.reads, 11, "the piece, and ten blocks of it");
        assert_eq!(found.places(), "block 0, 1, 2, 3, 4 …");
        assert!(!disk.scan(BadBlocks::Blocks(10_000)).is_over_limit());
    }

    #[test]
    fn a_percentage_is_of_all_blocks() {
        // 1 % of 2048 blocks are 20.48: 20 may be bad.
        let bad: Vec<u64> = (0..20).map(|block| block * 2).collect();
        let mut disk = Broken::new(2 * MIB, 512, &bad);
        let found = disk.scan(BadBlocks::Percent(1));
        assert_eq!((found.limit, found.is_over_limit()), (20, false));
        disk.bad.push(1000);
        assert!(disk.scan(BadBlocks::Percent(1)).is_over_limit());
    }

    #[test]
    fn what_says_nothing_about_a_block_ends_the_scan() {
        let mut disk = Broken::new(2 * MIB, 512, &[0]);
        disk.error = nix::libc::ENODEV;
        let ended = scan(&mut disk, 512, NO_LIMIT, &mut |_, _| ());
        assert_eq!(ended.unwrap_err().raw_os_error(), Some(nix::libc::ENODEV));
        for error in BAD {
            disk.error = error;
            assert_eq!(disk.scan(NO_LIMIT).bad, 1);
        }
    }
}
