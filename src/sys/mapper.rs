//! Device-mapper devices (`linux/dm-ioctl.h`): their tables, for the collector of the host snapshot,
//! and their removal, for stage 2.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::Sys;

/// The door to the device mapper.
const CONTROL: &str = "/dev/mapper/control";

/// Unit of starts and lengths in a table, whatever the sectors of the disk are.
const SECTOR: u64 = 512;

/// One target of a table: a part of the mapped device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// First byte on the mapped device.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// What it is, such as `linear` or `crypt`.
    pub kind: String,
    /// For `linear`: the device below as `major:minor`, and the first byte there. Parameters of
    /// other targets may be secret and are not kept.
    pub below: Option<(String, u64)>,
}

/// `struct dm_ioctl`, which is followed by the answer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Head {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    _open_count: i32,
    flags: u32,
    _event: u32,
    _padding: u32,
    dev: u64,
    _name: [u8; 128],
    _uuid: [u8; 129],
    _data: [u8; 7],
}

/// Bytes for an answer: a table has some dozens of bytes for each target.
const ROOM: usize = 256 << 10;

#[repr(C)]
struct Request {
    head: Head,
    answer: [u8; ROOM],
}

/// `struct dm_target_spec`.
const SPEC_BYTES: usize = 40;

impl Head {
    /// A request about the device with these numbers, of `bytes` with the room for its answer.
    fn new(major: u32, minor: u32, bytes: usize, flags: u32) -> Head {
        Head {
            version: [4, 0, 0],
            data_size: bytes as u32,
            data_start: size_of::<Head>() as u32,
            target_count: 0,
            _open_count: 0,
            flags,
            _event: 0,
            _padding: 0,
            // As the kernel packs a device number (`huge_encode_dev`).
            dev: u64::from(minor & 0xff) | u64::from(major) << 8 | u64::from(minor & !0xff) << 12,
            _name: [0; 128],
            _uuid: [0; 129],
            _data: [0; 7],
        }
    }
}

/// Removes the device-mapper device with these numbers, written as `major:minor`. EBUSY while
/// something uses it.
pub fn remove(number: &str) -> io::Result<()> {
    let (major, minor) = number
        .trim()
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| io::Error::other("it has no device number"))?;
    let control = File::open(CONTROL)?;
    let mut head = Head::new(major, minor, size_of::<Head>(), 0);
    // SAFETY: `head` is a whole `struct dm_ioctl` of the size that it says, and lives as long as
    // the call.
    unsafe { ioctls::dm_dev_remove(control.as_raw_fd(), &mut head) }?;
    Ok(())
}

impl Sys {
    /// The table of the device-mapper device with these numbers.
    pub fn mapper_table(&self, major: u32, minor: u32) -> io::Result<Vec<Target>> {
        /// The table rather than the status.
        const TABLE: u32 = 1 << 4;
        /// The answer did not fit.
        const FULL: u32 = 1 << 8;
        let control = File::open(self.real(CONTROL))?;
        let mut request = Box::new(Request {
            head: Head::new(major, minor, size_of::<Request>(), TABLE),
            answer: [0; ROOM],
        });
        // SAFETY: `data_size` says how much room there is behind the pointer, which is to a whole
        // `Request` that lives as long as the call.
        unsafe {
            ioctls::dm_table_status(
                control.as_raw_fd(),
                std::ptr::from_mut::<Request>(&mut request).cast(),
            )
        }?;
        if request.head.flags & FULL != 0 {
            return Err(io::Error::other("the table is too long"));
        }
        // The kernel may say that the answer starts elsewhere than we proposed.
        let start = (request.head.data_start as usize)
            .checked_sub(size_of::<Head>())
            .unwrap_or(ROOM);
        let answer = request.answer.get(start..).unwrap_or_default();
        parse(answer, request.head.target_count)
            .ok_or_else(|| io::Error::other("the table can't be understood"))
    }
}

mod ioctls {
    nix::ioctl_readwrite!(dm_dev_remove, 0xfd, 4, super::Head);
    nix::ioctl_readwrite!(dm_table_status, 0xfd, 12, super::Head);
}

/// Reads `count` targets. Each says where the next one starts, counted from the start of `answer`.
fn parse(answer: &[u8], count: u32) -> Option<Vec<Target>> {
    let mut targets = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        let spec = answer.get(at..)?;
        let number = |at: usize| {
            let field = spec.get(at..at + 8)?;
            Some(u64::from_ne_bytes(field.try_into().ok()?))
        };
        let next = spec.get(20..24)?;
        let kind = text(spec.get(24..SPEC_BYTES)?)?;
        let below = match kind {
            "linear" => Some(linear(text(spec.get(SPEC_BYTES..)?)?)?),
            _ => None,
        };
        targets.push(Target {
            start: number(0)?.checked_mul(SECTOR)?,
            bytes: number(8)?.checked_mul(SECTOR)?,
            kind: kind.to_owned(),
            below,
        });
        at = u32::from_ne_bytes(next.try_into().ok()?) as usize;
    }
    Some(targets)
}

/// Text that ends at a NUL.
fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&bytes[..end]).ok()
}

/// `8:1 2048`: the device, and the first sector there.
fn linear(parameters: &str) -> Option<(String, u64)> {
    let (device, sector) = parameters.trim().split_once(' ')?;
    let start = sector.parse::<u64>().ok()?.checked_mul(SECTOR)?;
    Some((device.to_owned(), start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(targets: &[(u64, u64, &str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (start, length, kind, parameters) in targets {
            let mut spec = Vec::new();
            spec.extend(start.to_ne_bytes());
            spec.extend(length.to_ne_bytes());
            spec.extend([0; 4]);
            let room = (parameters.len() + 1).next_multiple_of(8);
            let next = (bytes.len() + SPEC_BYTES + room) as u32;
            spec.extend(next.to_ne_bytes());
            spec.extend(kind.bytes());
            spec.resize(SPEC_BYTES, 0);
            spec.extend(parameters.bytes());
            spec.resize(SPEC_BYTES + room, 0);
            bytes.extend(spec);
        }
        bytes
    }

    #[test]
    fn a_table_of_two_targets() {
        let answer = answer(&[
            (0, 2048, "linear", "254:1 384"),
            (2048, 8, "crypt", "aes-xts-plain64 00112233 0 8:2 4096"),
        ]);
        let targets = parse(&answer, 2).unwrap();
        assert_eq!(targets[0].bytes, 1 << 20);
        assert_eq!(targets[0].below, Some(("254:1".to_owned(), 384 * 512)));
        assert_eq!(
            (targets[1].start, targets[1].kind.as_str()),
            (1 << 20, "crypt")
        );
        assert_eq!(targets[1].below, None, "nothing of a key is kept");
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert_eq!(parse(&[], 0), Some(Vec::new()));
        assert_eq!(parse(&[], 1), None);
        let whole = answer(&[(0, 8, "linear", "254:1 384"), (8, 8, "linear", "254:1 0")]);
        for len in 0..whole.len() - 8 {
            assert_eq!(parse(&whole[..len], 2), None, "{len} bytes");
        }
        assert_eq!(parse(&answer(&[(0, 8, "linear", "254:1 x")]), 1), None);
        assert_eq!(
            parse(&answer(&[(u64::MAX, 8, "linear", "254:1 0")]), 1),
            None
        );
        assert_eq!(size_of::<Head>(), 312);
    }
}
