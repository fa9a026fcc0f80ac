//! Why stage 2 stops: before the first write or, where the old system is on another disk, also
//! afterwards.

use std::fmt;

use anyhow::Error;

/// The reason, with a name that programs can rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The hand-over document is missing or is not one.
    Handover,
    /// No disk of the machine is the one to overwrite.
    DiskNotFound,
    /// More than one disk, or file system, answers to the description.
    DiskAmbiguous,
    /// Something holds the disk, or it can't be opened for writing.
    DiskBusy,
    /// The end of the disk can't be read: it may have less room than it says.
    DiskEnd,
    /// The image is larger than the disk.
    ImageSize,
    /// The image lacks what stage 2 has to find in it after the flash.
    ImageLayout,
    /// Too little memory for the image.
    Memory,
    /// The image file can't be found or read.
    PayloadMissing,
    /// The image file is not the one that stage 1 saw.
    PayloadHash,
    /// The image file can't be unpacked to the image that stage 1 saw.
    PayloadDamaged,
    /// What waits on the disk does not lie outside of what the flash touches.
    PayloadExtents,
    /// The backup can't be found or read.
    BackupMissing,
    /// The backup is not the one that stage 1 made.
    BackupHash,
    /// The backup does not fit into the data partition of the image.
    BackupSize,
    /// A file for the new system is damaged.
    InstallFile,
    /// What would resume the flash after a power cut is not as stage 1 made it.
    ResumeRecord,
    /// The firmware takes no entry for the new system, and would go on to start another disk.
    EfiEntry,
    /// A disk beside that of the old system can't be overwritten.
    DiskWrite,
    /// A fault in stage 2 itself.
    Fault,
}

impl Code {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Code::Handover => "handover",
            Code::DiskNotFound => "disk-not-found",
            Code::DiskAmbiguous => "disk-ambiguous",
            Code::DiskBusy => "disk-busy",
            Code::DiskEnd => "disk-end",
            Code::ImageSize => "image-size",
            Code::ImageLayout => "image-layout",
            Code::Memory => "memory",
            Code::PayloadMissing => "payload-missing",
            Code::PayloadHash => "payload-hash",
            Code::PayloadDamaged => "payload-damaged",
            Code::PayloadExtents => "payload-extents",
            Code::BackupMissing => "backup-missing",
            Code::BackupHash => "backup-hash",
            Code::BackupSize => "backup-size",
            Code::InstallFile => "install-file",
            Code::ResumeRecord => "resume-record",
            Code::EfiEntry => "efi-entry",
            Code::DiskWrite => "disk-write",
            Code::Fault => "fault",
        }
    }

    /// What the user can do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Code::Handover => {
                "Run balena-migrate again, with the same version of it for both stages."
            }
            Code::DiskNotFound => {
                "Look in the log for what was seen of each disk and which modules failed to load, \
                 then run balena-migrate again."
            }
            Code::DiskAmbiguous => "Take the copy of the disk out of the machine and try again.",
            Code::DiskBusy => "Look in the log for what holds the disk.",
            Code::DiskEnd => "Replace the disk: it fails, or has less room than it says.",
            Code::ImageSize => "Use a smaller image or a larger disk.",
            Code::ImageLayout => "Use an unmodified balenaOS image for this device type.",
            Code::Memory => {
                "Use a smaller image or backup, or lower MEM_MIN_FREE_S2; swap does not help."
            }
            Code::PayloadMissing => "Put the image back where it was and run balena-migrate again.",
            Code::PayloadHash | Code::PayloadDamaged => {
                "Check the disk and its file system, get the image anew and run balena-migrate again."
            }
            Code::BackupMissing | Code::BackupHash => {
                "Check the disk and its file system, then run balena-migrate again."
            }
            Code::PayloadExtents => {
                "Run balena-migrate again; if it recurs, report it with the log."
            }
            Code::BackupSize => "Back up less, and run balena-migrate again.",
            Code::ResumeRecord => {
                "Check the disk and its file system, then run balena-migrate again."
            }
            Code::InstallFile => "Run balena-migrate again; if it recurs, check the memory.",
            Code::EfiEntry => {
                "Make room among the variables of the firmware (efibootmgr -B -b NUMBER removes an entry that \
                 is not needed), and run balena-migrate again."
            }
            Code::DiskWrite => {
                "Replace the disk or name another one in FLASH_TO, and run balena-migrate again."
            }
            Code::Fault => "Please report this with the log.",
        }
    }
}

/// Stage 2 stops here: the old system is intact.
#[derive(Debug)]
pub struct Stop {
    /// Which reason.
    pub code: Code,
    /// What was wrong.
    pub cause: Error,
}

impl Stop {
    /// For a person: what was wrong and what to do.
    pub fn reason(&self) -> String {
        format!("{:#}. {}", self.cause, self.code.remedy())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.reason())
    }
}

/// Turns an error into a [`Stop`] at the place that knows which reason it is.
pub trait OrStop<T> {
    /// The value, or a stop with `code`.
    fn or_stop(self, code: Code) -> Result<T, Stop>;
}

impl<T, E: Into<Error>> OrStop<T> for Result<T, E> {
    fn or_stop(self, code: Code) -> Result<T, Stop> {
        self.map_err(|error| Stop {
            code,
            cause: error.into(),
        })
    }
}
