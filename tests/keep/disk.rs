//! A disk that is not there: it stands in for the kernel that tells where files are. The files are
//! real ones of the test's machine; each gets the lowest free blocks of the made-up disk when it is
//! first asked for, and a read of the disk reads the files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Mutex;

use balena_migrate::place::Layout;
use balena_migrate::sys::extents::{FileExtent, Media, flags};
use balena_migrate::sys::files::Space;

pub const MIB: u64 = 1 << 20;

const BLOCK: u64 = 4096;

pub struct Disk {
    pub bytes: u64,
    /// Where the one partition starts.
    pub start: u64,
    /// Bytes of the partition that are taken by others: from, to.
    pub taken: Vec<(u64, u64)>,
    /// Flags of every extent besides LAST.
    pub flags: u32,
    /// The disk has something else at the places that are told.
    pub lies: bool,
    files: Mutex<BTreeMap<u64, OnDisk>>,
}

struct OnDisk {
    file: File,
    ranges: Vec<Range<u64>>,
}

impl Disk {
    pub fn new(bytes: u64, taken: Vec<(u64, u64)>) -> Disk {
        Disk {
            bytes,
            start: MIB,
            taken,
            flags: 0,
            lies: false,
            files: Mutex::default(),
        }
    }

    pub fn layout(&self) -> Layout {
        Layout::whole(self.part_bytes(), self.start)
    }

    fn part_bytes(&self) -> u64 {
        self.bytes - self.start
    }

    /// What is free of the partition. Files that were removed are forgotten.
    fn free(&self, files: &mut BTreeMap<u64, OnDisk>) -> Vec<Range<u64>> {
        files.retain(|_, on_disk| on_disk.file.metadata().unwrap().nlink() > 0);
        let mut used: Vec<Range<u64>> = files
            .values()
            .flat_map(|on_disk| on_disk.ranges.clone())
            .chain(self.taken.iter().map(|(from, to)| *from..*to))
            .collect();
        used.sort_by_key(|range| range.start);
        let mut free = Vec::new();
        let mut at = 0;
        for range in used {
            if at < range.start {
                free.push(at..range.start);
            }
            at = at.max(range.end);
        }
        free.push(at..self.part_bytes());
        free
    }
}

impl Media for Disk {
    fn extents(&self, file: &File) -> io::Result<Vec<FileExtent>> {
        let mut files = self.files.lock().unwrap();
        let meta = file.metadata()?;
        if !files.contains_key(&meta.ino()) {
            let mut left = meta.len().next_multiple_of(BLOCK);
            let free = self.free(&mut files);
            // In one piece where that goes, else in what there is.
            let whole = free.iter().find(|gap| gap.end - gap.start >= left);
            let gaps = whole.map_or(free.clone(), |gap| vec![gap.clone()]);
            let mut ranges = Vec::new();
            for gap in gaps {
                let len = left.min(gap.end - gap.start);
                ranges.push(gap.start..gap.start + len);
                left -= len;
                if left == 0 {
                    break;
                }
            }
            assert_eq!(left, 0, "there is room on the stand-in disk");
            // An open file keeps its number.
            let file = file.try_clone()?;
            files.insert(meta.ino(), OnDisk { file, ranges });
        }
        let ranges = &files[&meta.ino()].ranges;
        let mut logical = 0;
        Ok(ranges
            .iter()
            .enumerate()
            .map(|(number, range)| {
                let extent = FileExtent {
                    logical,
                    physical: range.start,
                    bytes: range.end - range.start,
                    flags: match number + 1 == ranges.len() {
                        true => self.flags | flags::LAST,
                        false => self.flags,
                    },
                };
                logical += extent.bytes;
                extent
            })
            .collect())
    }

    fn read_raw(
        &self,
        node: &Path,
        ranges: &[Range<u64>],
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        assert!(node.ends_with("dev/vda"), "{}", node.display());
        let files = self.files.lock().unwrap();
        for range in ranges {
            let mut at = range.start - self.start;
            let end = range.end - self.start;
            assert!(at.is_multiple_of(512) && end.is_multiple_of(512));
            while at < end {
                let mut block = vec![0; BLOCK.min(end - at) as usize];
                let from = if self.lies { at + BLOCK } else { at };
                for on_disk in files.values() {
                    let mut logical = 0;
                    for range in &on_disk.ranges {
                        if range.contains(&from) {
                            on_disk
                                .file
                                .read_at(&mut block, logical + from - range.start)?;
                        }
                        logical += range.end - range.start;
                    }
                }
                take(&block)?;
                at += block.len() as u64;
            }
        }
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let mut files = self.files.lock().unwrap();
        let gaps = self.free(&mut files);
        let free = gaps.iter().map(|gap| gap.end - gap.start).sum();
        Ok(Space {
            bytes: self.part_bytes(),
            free,
            available: free,
        })
    }
}
