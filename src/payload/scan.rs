//! One pass over an image file: its hashes and sizes, its partitions, and what its boot partition
//! says about itself. Stage 1 calls it; the image is never unpacked.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use md5::{Digest, Md5};

use super::FormatError;
pub use super::boot_files::{BootFiles, Bounded, DeviceType};
use super::digest::{Sha256Writer, hex};
use super::table::{Found, HEAD_BYTES, SECTOR, Slot, TableError, TableParser};
use crate::ext_space::ExtSpace;
use crate::handover::{BOOT_CODE_BYTES, Format, ImagePartition, TableIdentity};
use crate::superblock::{self, Superblock};

/// Labels that an OS image must have, one for each of its partitions.
pub const LABELS: [&str; 5] = [
    "resin-boot",
    "resin-rootA",
    "resin-rootB",
    "resin-state",
    "resin-data",
];

/// What one pass over an image file found.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// What the file is.
    pub format: Format,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// SHA-256 of the file.
    pub file_sha256: String,
    /// MD5 of the file, 32 lower-case hex digits, when it was asked for.
    pub file_md5: Option<String>,
    /// Memory that unpacking takes beyond small buffers, in bytes.
    pub unpack_memory: u64,
    /// Size of the uncompressed image in bytes.
    pub image_bytes: u64,
    /// SHA-256 of the uncompressed image.
    pub image_sha256: String,
    /// The image's partition table.
    pub table: TableIdentity,
    /// Partitions in which a file system was recognised, by number.
    pub partitions: Vec<ImagePartition>,
    /// Where the last partition ends in the image, in bytes, whatever is in it.
    pub partitions_end: u64,
    /// How much room resin-data has; none when it has no ext4.
    pub data_space: Option<ExtSpace>,
    /// Names of the partitions in a GPT; an MBR has none.
    pub partition_names: Vec<String>,
    /// The first sector has code for a BIOS.
    pub boot_code: bool,
    /// What the boot partition says.
    pub boot: BootFiles,
}

/// Why an image can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// Nothing that is known here.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The file can't be read, or its compressed stream is not whole.
    #[error("{0}")]
    Stream(io::Error),
    /// Its partition table is no use.
    #[error("{0}")]
    Table(#[from] TableError),
    /// It ends before its last partition does.
    #[error("it has {image} bytes, but its partition {number} reaches up to byte {end}")]
    Short {
        /// Size of the uncompressed image.
        image: u64,
        /// The partition.
        number: u32,
        /// Where the partition ends.
        end: u64,
    },
    /// A raw image with a part of a sector at its end.
    #[error("it has {0} bytes, which is no whole number of sectors (truncated or damaged file)")]
    Sectors(u64),
    /// Its boot partition can't be read.
    #[error("its boot partition can't be read: {0}")]
    Boot(io::Error),
}

impl Scan {
    /// The partition with one of these labels.
    pub fn partition(&self, label: &str) -> Option<&ImagePartition> {
        self.partitions.iter().find(|part| part.label == label)
    }

    /// Whether this is an installer that carries the OS image inside, and not the OS image.
    pub fn is_flasher(&self) -> bool {
        let flag = "balena-image-flasher";
        let labels = self.partitions.iter().map(|part| &part.label);
        self.boot.names.iter().any(|name| name == flag)
            || labels
                .chain(&self.partition_names)
                .any(|name| name.starts_with("flash-"))
    }

    /// The device type that the image was made for.
    pub fn slug(&self) -> Option<&str> {
        self.boot.slug()
    }
}

/// Labels of the partition that the machine boots from.
const BOOT_LABELS: [&str; 2] = ["resin-boot", "flash-boot"];

/// Scans an image file. `scratch` is an empty file that may grow to the size of the boot
/// partition, sparse; with `want_md5` the MD5 of the file is taken too; `progress` gets the bytes of
/// the image that were seen so far.
pub fn scan(
    mut file: impl Read + Seek,
    scratch: File,
    want_md5: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Scan, ScanError> {
    let format = super::recognise(&mut file)?;
    let mut hashed = Hashed::new(file, want_md5);
    let mut watcher = Watcher::new(scratch);
    let mut image = Sha256Writer::default();
    let unpack_memory = {
        let mut stream = super::decoder(format, &mut hashed);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let filled = super::read_full(&mut stream, &mut buffer).map_err(ScanError::Stream)?;
            if filled == 0 {
                break stream.memory();
            }
            image
                .write_all(&buffer[..filled])
                .map_err(ScanError::Stream)?;
            watcher.feed(&buffer[..filled])?;
            progress(image.bytes());
        }
    };
    // The directory of a zip lies behind the image, and is part of the file.
    io::copy(&mut hashed, &mut io::sink()).map_err(ScanError::Stream)?;
    if format == Format::Raw && image.bytes() % SECTOR != 0 {
        return Err(ScanError::Sectors(image.bytes()));
    }
    let seen = watcher.finish(image.bytes())?;
    Ok(Scan {
        format,
        file_bytes: hashed.hash.bytes(),
        file_sha256: hashed.hash.hex(),
        file_md5: hashed.md5.map(|md5| hex(&md5.finalize())),
        unpack_memory,
        image_bytes: image.bytes(),
        image_sha256: image.hex(),
        table: seen.table,
        partitions: seen.partitions,
        partitions_end: seen.partitions_end,
        data_space: seen.data_space,
        partition_names: seen.names,
        boot_code: seen.boot_code,
        boot: seen.boot,
    })
}

/// What [`Watcher`] saw of an image.
struct Seen {
    table: TableIdentity,
    partitions: Vec<ImagePartition>,
    partitions_end: u64,
    data_space: Option<ExtSpace>,
    names: Vec<String>,
    boot_code: bool,
    boot: BootFiles,
}

/// Hashes what is read through it.
struct Hashed<R> {
    inner: R,
    hash: Sha256Writer,
    md5: Option<Md5>,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R, want_md5: bool) -> Hashed<R> {
        Hashed {
            inner,
            hash: Sha256Writer::default(),
            md5: want_md5.then(Md5::new),
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.write_all(&buf[..n])?;
        if let Some(md5) = &mut self.md5 {
            md5.update(&buf[..n]);
        }
        Ok(n)
    }
}

/// What a piece of the image is wanted for.
#[derive(Clone, Copy)]
enum Purpose {
    /// The start of the image.
    Head,
    /// An extended boot record.
    Extended,
    /// The start of a partition.
    Partition(Slot),
}

/// A piece of the image that is collected as it streams past.
struct Want {
    start: u64,
    len: usize,
    purpose: Purpose,
    bytes: Vec<u8>,
}

/// The boot partition on its way into the scratch file.
struct Capture {
    slot: Slot,
    done: bool,
}

/// Sees every byte of the image once, in order.
struct Watcher {
    position: u64,
    head: Vec<u8>,
    parser: TableParser,
    table: Option<TableIdentity>,
    slots: Vec<Slot>,
    names: Vec<String>,
    partitions: Vec<ImagePartition>,
    data_space: Option<ExtSpace>,
    wants: Vec<Want>,
    scratch: File,
    capture: Option<Capture>,
}

impl Watcher {
    fn new(scratch: File) -> Watcher {
        Watcher {
            position: 0,
            head: Vec::new(),
            parser: TableParser::default(),
            table: None,
            slots: Vec::new(),
            names: Vec::new(),
            partitions: Vec::new(),
            data_space: None,
            wants: vec![Want {
                start: 0,
                len: HEAD_BYTES,
                purpose: Purpose::Head,
                bytes: Vec::new(),
            }],
            scratch,
            capture: None,
        }
    }

    /// Takes the next bytes, cut where a wanted piece ends, since what comes next depends on it.
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ScanError> {
        while !bytes.is_empty() {
            let until_next = self
                .wants
                .iter()
                .map(|want| want.start + want.len as u64)
                .map(|end| end.saturating_sub(self.position))
                .filter(|left| *left > 0)
                .min()
                .unwrap_or(u64::MAX);
            let now = bytes
                .len()
                .min(usize::try_from(until_next).unwrap_or(usize::MAX));
            self.take(&bytes[..now])?;
            bytes = &bytes[now..];
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        if self.head.len() < HEAD_BYTES {
            let missing = HEAD_BYTES - self.head.len();
            self.head.extend(&bytes[..bytes.len().min(missing)]);
        }
        for want in &mut self.wants {
            let skip = want.start.saturating_sub(self.position);
            if let Some(part) = usize::try_from(skip)
                .ok()
                .and_then(|skip| bytes.get(skip..))
            {
                let missing = want.len - want.bytes.len();
                want.bytes.extend(&part[..part.len().min(missing)]);
            }
        }
        self.write_capture(bytes).map_err(ScanError::Boot)?;
        self.position += bytes.len() as u64;
        while let Some(full) = self
            .wants
            .iter()
            .position(|want| want.bytes.len() == want.len)
        {
            let want = self.wants.swap_remove(full);
            self.act_on(want)?;
        }
        Ok(())
    }

    fn act_on(&mut self, want: Want) -> Result<(), ScanError> {
        match want.purpose {
            Purpose::Head => {
                let (table, found) = self.parser.head(&want.bytes)?;
                self.table = Some(table);
                self.follow(found)
            }
            Purpose::Extended => {
                let found = self.parser.extended(want.start, &want.bytes)?;
                self.follow(found)
            }
            Purpose::Partition(slot) => self.recognise(slot, &want.bytes),
        }
    }

    fn follow(&mut self, found: Found) -> Result<(), ScanError> {
        if let Some(next) = found.next {
            self.want(next, SECTOR as usize, Purpose::Extended)?;
        }
        self.names.extend(found.names);
        for slot in found.slots {
            self.slots.push(slot);
            let len = slot.bytes.min(superblock::HEAD_BYTES as u64) as usize;
            self.want(slot.start, len, Purpose::Partition(slot))?;
        }
        Ok(())
    }

    /// Registers a piece; what has passed already must still be in the head.
    fn want(&mut self, start: u64, len: usize, purpose: Purpose) -> Result<(), ScanError> {
        let bytes = match usize::try_from(start) {
            _ if start >= self.position => Vec::new(),
            Ok(from) if self.position <= self.head.len() as u64 => self.head[from..].to_vec(),
            _ => {
                return Err(ScanError::Table(TableError::Damaged(
                    "a partition lies before the record that names it".into(),
                )));
            }
        };
        self.wants.push(Want {
            start,
            len,
            purpose,
            bytes: bytes[..bytes.len().min(len)].to_vec(),
        });
        Ok(())
    }

    fn recognise(&mut self, slot: Slot, head: &[u8]) -> Result<(), ScanError> {
        let Some(Superblock { fs_type, label, .. }) = superblock::identify(head) else {
            return Ok(());
        };
        if fs_type == "vfat" && self.capture.is_none() && BOOT_LABELS.contains(&label.as_str()) {
            self.scratch.write_all(head).map_err(ScanError::Boot)?;
            self.capture = Some(Capture { slot, done: false });
        }
        if label == "resin-data" {
            self.data_space = ExtSpace::read(head);
        }
        self.partitions.push(ImagePartition {
            number: slot.number,
            label,
            fs_type: fs_type.to_owned(),
            start: slot.start,
            bytes: slot.bytes,
        });
        Ok(())
    }

    /// Copies the bytes of the boot partition; zeros become holes.
    fn write_capture(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(capture) = self.capture.as_mut().filter(|capture| !capture.done) else {
            return Ok(());
        };
        let left = capture.slot.start + capture.slot.bytes - self.position;
        let part = &bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        for block in part.chunks(4096) {
            if block.iter().all(|byte| *byte == 0) {
                self.scratch.seek(SeekFrom::Current(block.len() as i64))?;
            } else {
                self.scratch.write_all(block)?;
            }
        }
        if part.len() as u64 == left {
            capture.done = true;
            self.scratch.set_len(capture.slot.bytes)?;
        }
        Ok(())
    }

    fn finish(mut self, image: u64) -> Result<Seen, ScanError> {
        let table = self.table.ok_or(TableError::None)?;
        if let Some(slot) = self
            .slots
            .iter()
            .find(|slot| slot.start + slot.bytes > image)
        {
            return Err(ScanError::Short {
                image,
                number: slot.number,
                end: slot.start + slot.bytes,
            });
        }
        self.partitions.sort_by_key(|part| part.number);
        let boot = match self.capture {
            Some(_) => BootFiles::read(self.scratch).map_err(ScanError::Boot)?,
            None => BootFiles::default(),
        };
        let ends = self.slots.iter().map(|slot| slot.start + slot.bytes);
        Ok(Seen {
            table,
            partitions: self.partitions,
            partitions_end: ends.max().unwrap_or(0),
            data_space: self.data_space,
            names: self.names,
            boot_code: self
                .head
                .iter()
                .take(BOOT_CODE_BYTES)
                .any(|byte| *byte != 0),
            boot,
        })
    }
}
