//! A boot entry as the firmware keeps it: EFI_LOAD_OPTION (UEFI specification 2.10, 3.1.3) with its
//! device path (10.3). What is not known here survives a round trip byte by byte.

use serde::{Deserialize, Serialize};

use super::{numbers, text, utf16};
use crate::superblock;

/// LOAD_OPTION_ACTIVE: the firmware tries it in its turn.
pub const ACTIVE: u32 = 1;

/// Type and subtype of the nodes that are known here.
const HARD_DRIVE: (u8, u8) = (4, 1);
const FILE: (u8, u8) = (4, 4);
const END: (u8, u8) = (0x7f, 0xff);

/// Bytes of a node before what is its own.
const NODE_HEAD: usize = 4;

/// A boot entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOption {
    /// LOAD_OPTION_*.
    pub attributes: u32,
    /// Its name in the firmware's menu.
    pub description: String,
    /// What to start: the first device path, without its end.
    pub path: Vec<Node>,
    /// Further device paths, as they are.
    pub rest: Vec<u8>,
    /// What the program gets; of a Linux kernel its arguments in UTF-16.
    pub data: Vec<u8>,
}

/// A node of a device path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A partition.
    HardDrive(HardDrive),
    /// A file on what the nodes before it name; the separators are backslashes.
    File(String),
    /// Any other.
    Other {
        /// Type and subtype.
        kind: (u8, u8),
        /// What follows its length.
        body: Vec<u8>,
    },
}

/// A partition as a device path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardDrive {
    /// Its number, from 1.
    pub number: u32,
    /// Its first sector.
    pub start: u64,
    /// Its size in sectors.
    pub sectors: u64,
    /// What it is known by.
    pub id: PartitionId,
}

/// What a partition is known by, whatever disk the firmware finds first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum PartitionId {
    /// Its own GUID, lower case with hyphens.
    Gpt(String),
    /// The disk's signature, 8 lower-case hex digits, and its first sector.
    Mbr(String, u64),
}

impl LoadOption {
    /// Takes the value of a `Boot####` variable; `None` when it is none.
    pub fn parse(value: &[u8]) -> Option<LoadOption> {
        let attributes = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
        let paths_len = usize::from(u16::from_le_bytes(value.get(4..6)?.try_into().ok()?));
        let after = value.get(6..)?;
        let name_units = after.chunks_exact(2).position(|unit| unit == [0, 0])?;
        let (name, after) = after.split_at_checked(2 * (name_units + 1))?;
        let (paths, data) = after.split_at_checked(paths_len)?;
        let (path, rest) = parse_path(paths)?;
        Some(LoadOption {
            attributes,
            description: text(name),
            path,
            rest: rest.to_vec(),
            data: data.to_vec(),
        })
    }

    /// The value of the variable.
    ///
    /// # Panics
    ///
    /// When the device paths together have 64 KiB.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut paths: Vec<u8> = self.path.iter().flat_map(Node::to_bytes).collect();
        paths.extend(node(END, &[]));
        paths.extend(&self.rest);
        let len = u16::try_from(paths.len()).expect("device paths below 64 KiB");
        let mut bytes = self.attributes.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(utf16(&self.description));
        bytes.extend(paths);
        bytes.extend(&self.data);
        bytes
    }

    /// The partition that it starts from, if it names one.
    pub fn partition(&self) -> Option<&HardDrive> {
        self.path.iter().find_map(|node| match node {
            Node::HardDrive(drive) => Some(drive),
            _ => None,
        })
    }

    /// The file that it starts, if it names one.
    pub fn file(&self) -> Option<&str> {
        self.path.iter().find_map(|node| match node {
            Node::File(path) => Some(path.as_str()),
            _ => None,
        })
    }
}

/// The nodes up to the end of the first device path, and what follows it.
fn parse_path(mut bytes: &[u8]) -> Option<(Vec<Node>, &[u8])> {
    let mut nodes = Vec::new();
    loop {
        let kind = (*bytes.first()?, *bytes.get(1)?);
        let len = usize::from(u16::from_le_bytes(
            bytes.get(2..NODE_HEAD)?.try_into().ok()?,
        ));
        let (whole, after) = bytes.split_at_checked(len)?;
        let body = whole.get(NODE_HEAD..)?;
        bytes = after;
        if kind == END {
            return Some((nodes, bytes));
        }
        nodes.push(Node::parse(kind, body));
    }
}

/// A node around its body.
fn node(kind: (u8, u8), body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(NODE_HEAD + body.len()).expect("a node below 64 KiB");
    let mut bytes = vec![kind.0, kind.1];
    bytes.extend(len.to_le_bytes());
    bytes.extend(body);
    bytes
}

impl Node {
    fn parse(kind: (u8, u8), body: &[u8]) -> Node {
        let known = match kind {
            HARD_DRIVE => HardDrive::parse(body).map(Node::HardDrive),
            FILE => Some(Node::File(text(body))),
            _ => None,
        };
        // A name with a fault in it, or bytes behind its end, would not come out as it went in.
        known
            .filter(|known| known.body() == body)
            .unwrap_or_else(|| Node::Other {
                kind,
                body: body.to_vec(),
            })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let kind = match self {
            Node::HardDrive(_) => HARD_DRIVE,
            Node::File(_) => FILE,
            Node::Other { kind, .. } => *kind,
        };
        node(kind, &self.body())
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Node::HardDrive(drive) => drive.to_bytes(),
            Node::File(path) => utf16(path),
            Node::Other { body, .. } => body.clone(),
        }
    }
}

impl HardDrive {
    /// Table 10.49 of the specification: number, start, size, signature, format and kind of the
    /// signature.
    fn parse(body: &[u8]) -> Option<HardDrive> {
        let le = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
        let start = le(4)?;
        let signature: [u8; 16] = body.get(20..36)?.try_into().ok()?;
        let id = match body.get(36..)? {
            [1, 1] => {
                let disk = u32::from_le_bytes(signature[..4].try_into().ok()?);
                PartitionId::Mbr(format!("{disk:08x}"), start)
            }
            [2, 2] => PartitionId::Gpt(superblock::guid(&signature)),
            _ => return None,
        };
        Some(HardDrive {
            number: u32::from_le_bytes(body.get(..4)?.try_into().ok()?),
            start,
            sectors: le(12)?,
            id,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut signature = [0; 16];
        let kind = match &self.id {
            PartitionId::Mbr(disk, _) => {
                let disk = u32::from_str_radix(disk, 16).unwrap_or(0);
                signature[..4].copy_from_slice(&disk.to_le_bytes());
                [1, 1]
            }
            PartitionId::Gpt(guid) => {
                signature = superblock::guid_bytes(guid).unwrap_or_default();
                [2, 2]
            }
        };
        let mut bytes = self.number.to_le_bytes().to_vec();
        bytes.extend(self.start.to_le_bytes());
        bytes.extend(self.sectors.to_le_bytes());
        bytes.extend(signature);
        bytes.extend(kind);
        bytes
    }
}

/// The arguments of a Linux kernel, as its EFI stub takes them from [`LoadOption::data`].
pub fn arguments(data: &[u8]) -> String {
    // It stops at the first NUL.
    let units: Vec<u16> = numbers(data)
        .into_iter()
        .take_while(|unit| *unit != 0)
        .collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entry of a Debian on GPT, byte by byte after the specification.
    #[rustfmt::skip]
    const DEBIAN: &[u8] = &[
        // Attributes: active. Length of the device path: 42 + 52 + 4.
        0x01, 0, 0, 0, 98, 0,
        // "debian"
        b'd', 0, b'e', 0, b'b', 0, b'i', 0, b'a', 0, b'n', 0, 0, 0,
        // Media, hard drive, 42 bytes.
        4, 1, 42, 0,
        // Partition 1 from sector 2048 on with 1048576 sectors.
        1, 0, 0, 0,
        0, 8, 0, 0, 0, 0, 0, 0,
        0, 0, 0x10, 0, 0, 0, 0, 0,
        // d0ccc1f1-4f10-4247-8c5b-d15a978fa46b; GPT, by GUID.
        0xf1, 0xc1, 0xcc, 0xd0, 0x10, 0x4f, 0x47, 0x42,
        0x8c, 0x5b, 0xd1, 0x5a, 0x97, 0x8f, 0xa4, 0x6b,
        2, 2,
        // Media, file, 52 bytes: "\EFI\debian\shimx64.efi"
        4, 4, 52, 0,
        b'\\', 0, b'E', 0, b'F', 0, b'I', 0, b'\\', 0, b'd', 0, b'e', 0, b'b', 0, b'i', 0, b'a', 0,
        b'n', 0, b'\\', 0, b's', 0, b'h', 0, b'i', 0, b'm', 0, b'x', 0, b'6', 0, b'4', 0, b'.', 0,
        b'e', 0, b'f', 0, b'i', 0, 0, 0,
        // End.
        0x7f, 0xff, 4, 0,
    ];

    fn debian() -> LoadOption {
        LoadOption {
            attributes: ACTIVE,
            description: "debian".to_owned(),
            path: vec![
                Node::HardDrive(HardDrive {
                    number: 1,
                    start: 2048,
                    sectors: 1 << 20,
                    id: PartitionId::Gpt("d0ccc1f1-4f10-4247-8c5b-d15a978fa46b".to_owned()),
                }),
                Node::File("\\EFI\\debian\\shimx64.efi".to_owned()),
            ],
            rest: Vec::new(),
            data: Vec::new(),
        }
    }

    #[test]
    fn an_entry_after_the_specification() {
        assert_eq!(LoadOption::parse(DEBIAN), Some(debian()));
        assert_eq!(debian().to_bytes(), DEBIAN);
        let option = debian();
        assert_eq!(option.file(), Some("\\EFI\\debian\\shimx64.efi"));
        assert_eq!(option.partition().unwrap().number, 1);
    }

    #[test]
    fn an_mbr_is_known_by_its_signature() {
        let mut option = debian();
        let id = PartitionId::Mbr("cafef00d".to_owned(), 8192);
        option.path[0] = Node::HardDrive(HardDrive {
            number: 1,
            start: 8192,
            sectors: 81920,
            id,
        });
        let bytes = option.to_bytes();
        let body = 6 + 14 + NODE_HEAD;
        assert_eq!(bytes[body + 20..body + 24], [0x0d, 0xf0, 0xfe, 0xca]);
        assert_eq!(bytes[body + 24..body + 36], [0; 12]);
        assert_eq!(bytes[body + 36..body + 38], [1, 1]);
        assert_eq!(LoadOption::parse(&bytes), Some(option));
    }

    #[test]
    fn the_arguments_of_a_kernel_are_its_data() {
        let mut option = debian();
        option.data = utf16("console=tty0 initrd=\\x");
        let bytes = option.to_bytes();
        let read = LoadOption::parse(&bytes).unwrap();
        assert_eq!(arguments(&read.data), "console=tty0 initrd=\\x");
    }

    #[test]
    fn whatever_can_be_read_is_written_as_it_was() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut read = 0;
        for round in 0..20_000 {
            let mut bytes = match round % 2 {
                0 => DEBIAN.to_vec(),
                _ => debian().to_bytes(),
            };
            bytes.extend((0..random.usize(..9)).map(|_| random.u8(..)));
            for _ in 0..random.usize(..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            if round % 3 == 0 {
                bytes.truncate(random.usize(bytes.len() / 2..=bytes.len()));
            }
            if let Some(option) = LoadOption::parse(&bytes) {
                // A description that is no proper UTF-16 is shown, and not kept.
                if option.description.contains('\u{fffd}') {
                    continue;
                }
                assert_eq!(option.to_bytes(), bytes, "{option:?}");
                read += 1;
            }
        }
        assert!(read > 5_000, "{read} were read");
    }

    #[test]
    fn what_is_cut_off_is_none() {
        for len in 0..DEBIAN.len() {
            assert_eq!(LoadOption::parse(&DEBIAN[..len]), None, "{len} bytes");
        }
    }
}
