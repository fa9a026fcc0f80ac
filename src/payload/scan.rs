//! One pass over an image file: its hashes and sizes, its partitions, and what its boot partition
//! says about itself. Stage 1 calls it; the image is never unpacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::digest::Sha256Writer;
use super::table::{Found, HEAD_BYTES, SECTOR, Slot, TableError, TableParser};
use crate::handover::{Format, ImagePartition, TableIdentity};
use crate::superblock::{self, Superblock};

/// What one pass over an image file found.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// Compression.
    pub format: Format,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// SHA-256 of the file.
    pub file_sha256: String,
    /// Size of the uncompressed image in bytes.
    pub image_bytes: u64,
    /// SHA-256 of the uncompressed image.
    pub image_sha256: String,
    /// The image's partition table.
    pub table: TableIdentity,
    /// Partitions in which a file system was recognised, by number.
    pub partitions: Vec<ImagePartition>,
    /// What the boot partition says.
    pub boot: BootFiles,
}

/// Files on the image's boot partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootFiles {
    /// Names in its root folder.
    pub names: Vec<String>,
    /// os-release, as names and values.
    pub os_release: BTreeMap<String, String>,
    /// `slug` of device-type.json.
    pub device_type: Option<String>,
    /// Bytes that are free on it.
    pub free: u64,
}

/// Why an image can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// Not a compression that is known here.
    #[error("it is not a gzip file")]
    NotGzip,
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
        self.boot.names.iter().any(|name| name == flag)
            || self
                .partitions
                .iter()
                .any(|part| part.label.starts_with("flash-"))
    }

    /// The device type that the image was made for.
    pub fn slug(&self) -> Option<&str> {
        self.boot
            .os_release
            .get("SLUG")
            .map(String::as_str)
            .or(self.boot.device_type.as_deref())
    }
}

/// Labels of the partition that the machine boots from.
const BOOT_LABELS: [&str; 2] = ["resin-boot", "flash-boot"];

/// Scans an image file. `scratch` is an empty file that may grow to the size of the boot
/// partition, sparse; `progress` gets the bytes of `file` that were read so far.
pub fn scan(
    mut file: impl Read,
    scratch: File,
    progress: &mut dyn FnMut(u64),
) -> Result<Scan, ScanError> {
    let mut magic = [0; 2];
    file.read_exact(&mut magic)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ScanError::NotGzip,
            _ => ScanError::Stream(error),
        })?;
    if magic != [0x1f, 0x8b] {
        return Err(ScanError::NotGzip);
    }
    let format = Format::Gzip;
    let mut compressed = Hashed::new(magic.as_slice().chain(file));
    let mut watcher = Watcher::new(scratch);
    let mut image = Sha256Writer::default();
    {
        let mut stream = super::decoder(format, &mut compressed);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let filled = fill(&mut stream, &mut buffer).map_err(ScanError::Stream)?;
            if filled == 0 {
                break;
            }
            image
                .write_all(&buffer[..filled])
                .map_err(ScanError::Stream)?;
            watcher.feed(&buffer[..filled])?;
            progress(image.bytes());
        }
    }
    let (file_bytes, file_sha256) = (compressed.hash.bytes(), compressed.hash.hex());
    let (table, partitions, boot) = watcher.finish(image.bytes())?;
    Ok(Scan {
        format,
        file_bytes,
        file_sha256,
        image_bytes: image.bytes(),
        image_sha256: image.hex(),
        table,
        partitions,
        boot,
    })
}

/// Fills `buffer` as far as the stream reaches.
fn fill(stream: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Hashes what is read through it.
struct Hashed<R> {
    inner: R,
    hash: Sha256Writer,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Hashed<R> {
        Hashed {
            inner,
            hash: Sha256Writer::default(),
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.write_all(&buf[..n])?;
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
    partitions: Vec<ImagePartition>,
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
            partitions: Vec::new(),
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

    fn finish(
        mut self,
        image: u64,
    ) -> Result<(TableIdentity, Vec<ImagePartition>, BootFiles), ScanError> {
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
            Some(_) => read_boot_files(self.scratch).map_err(ScanError::Boot)?,
            None => BootFiles::default(),
        };
        Ok((table, self.partitions, boot))
    }
}

/// Reads what the boot partition says from its copy.
fn read_boot_files(mut copy: File) -> io::Result<BootFiles> {
    copy.rewind()?;
    let fs = fatfs::FileSystem::new(copy, fatfs::FsOptions::new())?;
    let root = fs.root_dir();
    let mut names = Vec::new();
    for entry in root.iter() {
        names.push(entry?.file_name());
    }
    let text = |name: &str| -> io::Result<Option<String>> {
        if !names.iter().any(|known| known == name) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        root.open_file(name)?
            .take(1 << 20)
            .read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    };
    let os_release = text("os-release")?.map(|text| os_release(&text));
    let device_type = text("device-type.json")?
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
        .and_then(|value| Some(value.get("slug")?.as_str()?.to_owned()));
    let stats = fs.stats()?;
    Ok(BootFiles {
        free: u64::from(stats.free_clusters()) * u64::from(stats.cluster_size()),
        os_release: os_release.unwrap_or_default(),
        device_type,
        names: names.clone(),
    })
}

/// Names and values of an os-release file (os-release(5)), without quotes.
fn os_release(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| {
            (
                name.trim().to_owned(),
                value.trim().trim_matches('"').to_owned(),
            )
        })
        .collect()
}
