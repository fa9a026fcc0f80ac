//! What the first bytes of a disk or a partition say: which partition table, which file system.
//!
//! Pure on byte slices. The host snapshot and stage 2 both name disks and file systems by what is
//! read here, so that the two stages can't spell the same thing in two ways.

use crate::handover::TableIdentity;
use crate::payload::digest::unhex;
use crate::shown::shown;

/// How many bytes from the start of a partition [`identify`] wants to see: the btrfs superblock,
/// which lies farthest behind, ends here. Fewer bytes only hide what lies beyond them.
pub const HEAD_BYTES: usize = 0x11000;

/// A file system, or a container such as LVM, that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// The kernel's name of the type (`ext4`, `vfat` …); blkid's for what can't be mounted
    /// (`swap`, `LVM2_member`, `linux_raid_member`, `crypto_LUKS`).
    pub fs_type: &'static str,
    /// As `/dev/disk/by-uuid` spells it.
    pub uuid: String,
    /// Label, empty when it has none.
    pub label: String,
}

/// Recognises what a partition holds by its first [`HEAD_BYTES`].
///
/// Containers come first: a member of an array or a mapping must never pass for the file system
/// that a part of it looks like. RAID superblocks at the end of the device (0.90, 1.0) are not seen.
pub fn identify(head: &[u8]) -> Option<Superblock> {
    let parsers = [luks, lvm2, md, swap, btrfs, xfs, ext, fat];
    parsers.iter().find_map(|parse| parse(Bytes(head)))
}

/// The identity of the partition table that a disk starts with.
///
/// `head` needs the first two sectors of `sector_bytes` each. `None` when there is no table, or one
/// that is unknown here; a file system that fills the whole disk is not taken for an MBR.
pub fn table_identity(head: &[u8], sector_bytes: u32) -> Option<TableIdentity> {
    const PROTECTIVE: u8 = 0xee;
    let head = Bytes(head);
    if head.at(510, 2)? != [0x55, 0xaa] {
        return None;
    }
    let entries = head.at(446, 64)?;
    let mut types = Vec::new();
    for entry in entries.chunks_exact(16) {
        if entry[0] & 0x7f != 0 {
            return None; // not a boot flag: this is the boot code of a file system
        }
        types.push(entry[4]);
    }
    if types.contains(&PROTECTIVE) {
        let header = sector_bytes as usize;
        head.expect(header, b"EFI PART")?;
        return Some(TableIdentity::Gpt(guid(
            head.at(header + 56, 16)?.try_into().ok()?,
        )));
    }
    types
        .iter()
        .any(|kind| *kind != 0)
        .then(|| head.le32(0x1b8))?
        .map(|id| TableIdentity::Mbr(format!("{id:08x}")))
}

/// Offsets into a slice that may be too short for them.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn at(self, offset: usize, len: usize) -> Option<&'a [u8]> {
        self.0.get(offset..offset.checked_add(len)?)
    }

    fn byte(self, offset: usize) -> Option<u8> {
        self.0.get(offset).copied()
    }

    fn le16(self, offset: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.at(offset, 2)?.try_into().ok()?))
    }

    fn le32(self, offset: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.at(offset, 4)?.try_into().ok()?))
    }

    /// `Some` when `magic` is at `offset`.
    fn expect(self, offset: usize, magic: &[u8]) -> Option<()> {
        (self.at(offset, magic.len())? == magic).then_some(())
    }

    /// Text that ends at the first NUL, without blanks at its end; terminals see it.
    fn text(self, offset: usize, len: usize) -> Option<String> {
        let field = self.at(offset, len)?;
        let end = field.iter().position(|b| *b == 0).unwrap_or(len);
        Some(shown(String::from_utf8_lossy(&field[..end]).trim_end()))
    }

    fn uuid(self, offset: usize) -> Option<String> {
        self.at(offset, 16).map(hyphenated)
    }
}

/// 16 bytes in the order in which they are stored, as `8-4-4-4-12` lower-case hex digits.
fn hyphenated(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Where the bytes of a GUID's text are in its binary form: the first three fields are little-endian
/// (UEFI specification, appendix A).
const GUID_ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/// A GUID in lower case with hyphens.
pub fn guid(bytes: &[u8; 16]) -> String {
    hyphenated(&GUID_ORDER.map(|index| bytes[index]))
}

/// The binary form of a GUID; `None` when the text is none.
pub fn guid_bytes(text: &str) -> Option<[u8; 16]> {
    let shown: [u8; 16] = unhex(&text.replace('-', ""))?.try_into().ok()?;
    Some(GUID_ORDER.map(|index| shown[index]))
}

fn luks(head: Bytes) -> Option<Superblock> {
    head.expect(0, b"LUKS\xba\xbe")?;
    // LUKS1 has a cipher name where LUKS2 has the label.
    let label = match head.at(6, 2)? {
        [0, 2] => head.text(24, 48)?,
        _ => String::new(),
    };
    Some(Superblock {
        fs_type: "crypto_LUKS",
        uuid: head.text(168, 40)?,
        label,
    })
}

fn lvm2(head: Bytes) -> Option<Superblock> {
    // The label may be in any of the first four sectors; LVM's sectors have 512 bytes always.
    let label = (0..4)
        .map(|sector| sector * 512)
        .find(|start| head.expect(*start, b"LABELONE").is_some())?;
    head.expect(label + 24, b"LVM2 001")?;
    let header = label.checked_add(usize::try_from(head.le32(label + 20)?).ok()?)?;
    let id = head.text(header, 32)?;
    let mut uuid = String::with_capacity(38);
    for (index, letter) in id.chars().enumerate() {
        if matches!(index, 6 | 10 | 14 | 18 | 22 | 26) {
            uuid.push('-');
        }
        uuid.push(letter);
    }
    Some(Superblock {
        fs_type: "LVM2_member",
        uuid,
        label: String::new(),
    })
}

fn md(head: Bytes) -> Option<Superblock> {
    // Version 1.1 lies at the start, 1.2 after 4 KiB.
    let start = [0, 4096]
        .into_iter()
        .find(|start| head.le32(*start) == Some(0xa92b_4efc) && head.le32(start + 4) == Some(1))?;
    Some(Superblock {
        fs_type: "linux_raid_member",
        uuid: head.uuid(start + 16)?,
        label: head.text(start + 32, 32)?,
    })
}

fn swap(head: Bytes) -> Option<Superblock> {
    // The signature ends the first page, of whatever size pages had on the machine that made it.
    [0x1000, 0x2000, 0x4000, 0x8000, 0x10000]
        .into_iter()
        .find_map(|page| head.expect(page - 10, b"SWAPSPACE2"))?;
    Some(Superblock {
        fs_type: "swap",
        uuid: head.uuid(0x40c)?,
        label: head.text(0x41c, 16)?,
    })
}

fn btrfs(head: Bytes) -> Option<Superblock> {
    head.expect(0x10040, b"_BHRfS_M")?;
    Some(Superblock {
        fs_type: "btrfs",
        uuid: head.uuid(0x10020)?,
        label: head.text(0x1012b, 256)?,
    })
}

fn xfs(head: Bytes) -> Option<Superblock> {
    head.expect(0, b"XFSB")?;
    Some(Superblock {
        fs_type: "xfs",
        uuid: head.uuid(32)?,
        label: head.text(108, 12)?,
    })
}

fn ext(head: Bytes) -> Option<Superblock> {
    const START: usize = 1024;
    const HAS_JOURNAL: u32 = 0x4;
    const JOURNAL_DEV: u32 = 0x8;
    // What the drivers of ext2 and ext3 knew: any other feature makes it an ext4.
    const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
    const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;

    if head.le16(START + 0x38)? != 0xef53 {
        return None;
    }
    let compat = head.le32(START + 0x5c)?;
    let incompat = head.le32(START + 0x60)?;
    let ro_compat = head.le32(START + 0x64)?;
    if incompat & JOURNAL_DEV != 0 {
        return None; // the outside journal of another file system
    }
    let fs_type = if incompat & !EXT3_INCOMPAT != 0 || ro_compat & !EXT3_RO_COMPAT != 0 {
        "ext4"
    } else if compat & HAS_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    };
    Some(Superblock {
        fs_type,
        uuid: head.uuid(START + 0x68)?,
        label: head.text(START + 0x78, 16)?,
    })
}

fn fat(head: Bytes) -> Option<Superblock> {
    head.expect(510, &[0x55, 0xaa])?;
    if !matches!(head.byte(0)?, 0xeb | 0xe9) {
        return None;
    }
    let (sector, cluster, reserved) = (head.le16(11)?, head.byte(13)?, head.le16(14)?);
    let (fats, media) = (head.byte(16)?, head.byte(21)?);
    let geometry = matches!(sector, 512 | 1024 | 2048 | 4096)
        && cluster.is_power_of_two()
        && reserved != 0
        && matches!(fats, 1 | 2)
        && (media == 0xf0 || media >= 0xf8);
    if !geometry {
        return None;
    }
    // FAT32 has no 16-bit length of a table; its longer parameter block moves the fields below.
    let id = if head.le16(22)? == 0 { 0x43 } else { 0x27 };
    let serial = head.le32(id)?;
    let label = match head.text(id + 4, 11)? {
        name if name == "NO NAME" => String::new(),
        name => name,
    };
    Some(Superblock {
        fs_type: "vfat",
        uuid: format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff),
        label,
    })
}
