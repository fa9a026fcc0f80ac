//! The check of memory: stage 2 keeps the image and the backup in it.

use super::Subject;
use crate::backup::{self, Origin};
use crate::finding::Finding;

/// What stage 2 needs for itself: its buffers, the kernel's tables and caches that can't be freed.
const WORKING: u64 = 24 << 20;

/// What stage 2 needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The image file.
    pub image: u64,
    /// The backup, when it is there already.
    pub backup: u64,
    /// The initramfs, packed and unpacked: for a moment both are there.
    pub initramfs: u64,
    /// Stage 2 itself, and the memory that unpacking the image takes.
    pub working: u64,
    /// MEM_MIN_FREE_S1.
    pub reserve: u64,
}

impl Need {
    /// The need by what is known in stage 1; `None` without a usable image.
    pub fn of(subject: &Subject) -> Option<Need> {
        let scan = subject.material.image.as_ref().ok()?;
        Some(Need {
            image: scan.file_bytes,
            backup: match backup::origin(subject.config) {
                Origin::Existing => subject.material.old_backup.unwrap_or(0),
                // It is made anew, of a size that nobody knows before.
                Origin::Script(_) | Origin::Definition(_) | Origin::Directories(_) => 0,
            },
            initramfs: 2 * subject.material.initramfs_bytes,
            working: WORKING + scan.unpack_memory,
            reserve: subject.config.mem_min_free_s1.bytes(),
        })
    }

    /// All of it.
    pub fn total(self) -> u64 {
        self.image + self.backup + self.initramfs + self.working + self.reserve
    }
}

/// The machine has that much memory.
pub fn stage2(subject: &Subject) -> Vec<Finding> {
    let Some(need) = Need::of(subject) else {
        return Vec::new();
    };
    let total = subject.host.memory.total;
    if need.total() <= total {
        return Vec::new();
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    vec![Finding::error(
        "memory",
        format!(
            "stage 2 needs {} MiB of memory and this machine has {}: image {}, backup {}, \
             initramfs {}, work {}, kept free (MEM_MIN_FREE_S1) {}",
            mib(need.total()),
            total >> 20,
            mib(need.image),
            mib(need.backup),
            mib(need.initramfs),
            mib(need.working),
            mib(need.reserve),
        ),
        "use a smaller image or backup, or a machine with more memory",
    )]
}

/// A backup that is yet to be made may fit: how well it packs is known when it is made.
pub fn backup(subject: &Subject) -> Vec<Finding> {
    let Some(need) = Need::of(subject) else {
        return Vec::new();
    };
    let packed = subject.material.backup.size.packed;
    let room = subject.host.memory.total.saturating_sub(need.total());
    if packed <= room {
        return Vec::new();
    }
    vec![Finding::warning(
        "backup-memory",
        format!(
            "the backup may have up to {} MiB, and stage 2 has room in memory for {}",
            packed.div_ceil(1 << 20),
            room >> 20
        ),
        "put less into the backup; one that does not fit stops the run, and all is undone",
    )]
}
