//! The check of memory: what stage 2 keeps in it, and what it works with.

use super::Subject;
use super::place::choose;
use crate::backup::{self, Origin};
use crate::finding::Finding;
use crate::payload::scan::Scan;
use crate::place::Waits;

/// What stage 2 needs for itself: its buffers, the kernel's tables and caches that can't be freed.
const WORKING: u64 = 24 << 20;

/// What stage 2 needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The image file, when it waits in memory.
    pub image: u64,
    /// The backup, when it waits in memory and is there already.
    pub backup: u64,
    /// The initramfs, packed and unpacked: for a moment both are there.
    pub initramfs: u64,
    /// Stage 2 itself, and the memory that unpacking the image takes.
    pub working: u64,
    /// MEM_MIN_FREE_S1.
    pub reserve: u64,
}

impl Need {
    /// The need by what is known in stage 1, with image and backup waiting at these places.
    pub fn of(subject: &Subject, scan: &Scan, payload: Waits, backup: Waits) -> Need {
        let in_memory = |place: Waits, bytes: u64| match place {
            Waits::Memory => bytes,
            Waits::Disk | Waits::Extents => 0,
        };
        let backup_bytes = match backup::origin(subject.config) {
            Origin::Existing => subject.material.old_backup.unwrap_or(0),
            // It is made anew, of a size that nobody knows before.
            Origin::Script(_) | Origin::Definition(_) | Origin::Directories(_) => 0,
        };
        Need {
            image: in_memory(payload, scan.file_bytes),
            backup: in_memory(backup, backup_bytes),
            initramfs: 2 * subject.material.initramfs_bytes,
            working: WORKING + scan.unpack_memory,
            reserve: subject.config.mem_min_free_s1.bytes(),
        }
    }

    /// The need with the places that are chosen; `None` when there are none.
    pub fn chosen(subject: &Subject) -> Option<Need> {
        let scan = subject.material.image.as_ref().ok()?;
        let choice = choose(subject)?.ok()?;
        Some(Need::of(subject, scan, choice.payload, choice.backup))
    }

    /// For people, beside the `total` memory of the machine.
    pub fn in_words(self, total: u64) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        format!(
            "stage 2 needs {} MiB of memory and this machine has {}: image {}, backup {}, \
             initramfs {}, work {}, kept free (MEM_MIN_FREE_S1) {}",
            mib(self.total()),
            total >> 20,
            mib(self.image),
            mib(self.backup),
            mib(self.initramfs),
            mib(self.working),
            mib(self.reserve),
        )
    }

    /// All of it.
    pub fn total(self) -> u64 {
        self.image + self.backup + self.initramfs + self.working + self.reserve
    }
}

/// The machine has that much memory, wherever the image waits.
pub fn stage2(subject: &Subject) -> Vec<Finding> {
    let total = subject.host.memory.total;
    match Need::chosen(subject) {
        Some(need) if need.total() > total => vec![Finding::error(
            "memory",
            need.in_words(total),
            "use a machine with more memory, or lower MEM_MIN_FREE_S1",
        )],
        Some(_) => low(subject).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The boot loader puts the initramfs, as it is packed, where a 32-bit kernel reaches it at any time;
/// what is unpacked from it may be elsewhere.
fn low(subject: &Subject) -> Option<Finding> {
    let low = subject.host.memory.low?;
    let need = subject.material.initramfs_bytes + subject.host.kernel.room() + WORKING;
    (need > low).then(|| {
        Finding::error(
            "memory",
            format!(
                "kernel, initramfs and work need {} MiB of the low memory of a 32-bit kernel, which \
                 has {}",
                need.div_ceil(1 << 20),
                low >> 20
            ),
            "carry fewer files, or start the machine with a 64-bit kernel",
        )
    })
}

/// A backup that is yet to be made may fit: how well it packs is known when it is made.
pub fn backup(subject: &Subject) -> Vec<Finding> {
    let Some(Ok(choice)) = choose(subject) else {
        return Vec::new();
    };
    let Some(need) = Need::chosen(subject).filter(|_| choice.backup == Waits::Memory) else {
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
