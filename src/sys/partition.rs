//! The partitions of a disk that the kernel knows, set without a partition table. Used by stage 2,
//! which puts files into the new system before that has its table.

use std::ffi::{c_char, c_int, c_longlong, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// A partition as the kernel is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Number, from 1.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Makes the kernel forget the partitions `known` of the disk at `node`, and know `wanted`. EBUSY
/// while a partition is in use.
pub fn set(node: &Path, known: &[u32], wanted: &[Section]) -> io::Result<()> {
    let disk = File::open(node)?;
    for number in known {
        let gone = Section {
            number: *number,
            start: 0,
            bytes: 0,
        };
        match change(&disk, DELETE, gone) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => {}
            deleted => deleted?,
        }
    }
    for section in wanted {
        change(&disk, ADD, *section)?;
    }
    Ok(())
}

/// From linux/blkpg.h.
const ADD: c_int = 1;

/// From linux/blkpg.h.
const DELETE: c_int = 2;

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start: c_longlong,
    length: c_longlong,
    number: c_int,
    device_name: [c_char; 64],
    volume_name: [c_char; 64],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgArgument {
    operation: c_int,
    flags: c_int,
    data_bytes: c_int,
    data: *mut c_void,
}

fn change(disk: &File, operation: c_int, section: Section) -> io::Result<()> {
    let number = |value: u64| c_longlong::try_from(value).map_err(io::Error::other);
    let mut partition = BlkpgPartition {
        start: number(section.start)?,
        length: number(section.bytes)?,
        number: c_int::try_from(section.number).map_err(io::Error::other)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = BlkpgArgument {
        operation,
        flags: 0,
        data_bytes: size_of::<BlkpgPartition>() as c_int,
        data: (&raw mut partition).cast(),
    };
    // SAFETY: the kernel reads both structures, which have the layout it expects and live until
    // it is done, and the descriptor is open as long as `disk` lives.
    unsafe { ioctls::blkpg(disk.as_raw_fd(), &raw const argument) }?;
    Ok(())
}

mod ioctls {
    use super::BlkpgArgument;
    nix::ioctl_write_ptr_bad!(blkpg, nix::request_code_none!(0x12, 105), BlkpgArgument);
}
