//! The closed set of things that stage 1 can do to a machine, and what takes each of them back.
//!
//! The planner makes steps, the engine acts on them. A step says nothing about platforms: that
//! knowledge is in the texts and paths that the pure code puts into it.

pub mod by_tool;
pub mod core;
pub mod keep;
pub mod marks;

use serde::{Deserialize, Serialize};

use self::by_tool::ByTool;
use self::core::BuildCore;
use self::keep::Keep;
use self::marks::Marks;
use crate::backup::Volume;
use crate::efi::Variable;
use crate::growth::DataPlace;
use crate::handover::{Handover, Place};
use crate::initramfs::Recipe;
use crate::secret::Secret;

/// Where it is noted that the next boot goes to stage 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OneShot {
    /// In this grubenv, where GRUB clears it.
    Grubenv(String),
    /// In this variable of UEFI firmware, which is gone once it was taken.
    Variable(String),
    /// In this config.txt of a Raspberry Pi, where nobody but stage 2 takes it away.
    ConfigTxt(String),
    /// In this file of u-boot, where nobody but stage 2 takes it away either.
    UBoot(String),
    /// In this tryboot.txt of a Raspberry Pi, which is read after a reboot with [`TRYBOOT_REBOOT`].
    Tryboot(String),
}

/// The argument of a reboot(2) after which the firmware of a Raspberry Pi reads tryboot.txt: of the default
/// partition.
pub const TRYBOOT_REBOOT: &str = "0 tryboot";

impl OneShot {
    /// The file that the boot loader reads it in, if it is one.
    pub fn file(&self) -> Option<&str> {
        match self {
            OneShot::Grubenv(path)
            | OneShot::ConfigTxt(path)
            | OneShot::UBoot(path)
            | OneShot::Tryboot(path) => Some(path),
            OneShot::Variable(_) => None,
        }
    }

    /// Whether every boot starts stage 2 until the file is as it was. What it names must stay as long.
    pub fn lasts(&self) -> bool {
        matches!(self, OneShot::ConfigTxt(_) | OneShot::UBoot(_))
    }

    /// The argument that the reboot has to be given, if any.
    pub fn reboot_argument(&self) -> Option<&'static str> {
        matches!(self, OneShot::Tryboot(_)).then_some(TRYBOOT_REBOOT)
    }
}

/// One change to the machine.
pub enum Step {
    /// Make or replace a file.
    WriteFile {
        /// Its path.
        path: String,
        /// Its new content. Boot configuration may hold password hashes.
        content: Secret,
        /// Permission bits of a new file; one that is replaced keeps its own, and its owner.
        mode: u32,
        /// What the plan was made from; anything else there is an error.
        expect: Expect,
        /// Who else writes this file.
        writers: Writers,
    },
    /// Make a folder that is not there.
    MakeFolder {
        /// Its path.
        path: String,
    },
    /// Run the user's backup script and measure what it made.
    Backup {
        /// Program and arguments.
        argv: Vec<String>,
        /// Working folder.
        folder: String,
        /// The file it makes.
        creates: String,
    },
    /// Make the backup from files and folders.
    Archive {
        /// What goes into it.
        volumes: Vec<Volume>,
        /// The file to make.
        creates: String,
    },
    /// Put files onto the disk to overwrite, behind all that the flash touches.
    Keep(Box<Keep>),
    /// Complete the hand-over with the backup's size and hash, and write it.
    SealHandover {
        /// The document, without the backup.
        handover: Box<Handover>,
        /// The backup, if there is to be one.
        backup: Option<BackupPlace>,
        /// Bytes that the backup may have at most.
        backup_limit: u64,
        /// What brings stage 2 back after a power cut, if there is to be such a thing.
        core: Option<Box<BuildCore>>,
        /// resin-data of the image, which may have to grow for the backup.
        data: Box<DataPlace>,
        /// Folder of what was kept behind the new system by [`Step::Keep`], if anything was.
        kept: Option<String>,
    },
    /// Build the initramfs around the sealed hand-over.
    BuildInitramfs {
        /// The file to make.
        path: String,
        /// What goes into it.
        recipe: Box<Recipe>,
    },
    /// Have a tool of the distribution build another one around it.
    BuildByTool(Box<ByTool>),
    /// Make what brings stage 2 back after a power cut, in its places on the disk.
    BuildCore(Box<BuildCore>),
    /// Make or replace a file with what is in another.
    CopyFile {
        /// The file to read.
        from: String,
        /// The file to make.
        to: String,
    },
    /// Make or replace a variable of the firmware.
    WriteVariable {
        /// Its name, as efivarfs spells it.
        name: String,
        /// Its new value.
        variable: Variable,
        /// The plan was made for a name that nothing has: anything else there is an error.
        must_be_free: bool,
    },
}

/// The backup, as the hand-over will name it.
pub struct BackupPlace {
    /// Its path on this machine.
    pub path: String,
    /// Where it waits; what was kept behind the new system is named by the manifest instead.
    pub place: Place,
}

/// What the planner saw at the place of a file.
pub enum Expect {
    /// Whatever is there is saved and replaced.
    Anything,
    /// Exactly this content; `None` means that there was no file.
    Seen(Option<Vec<u8>>),
}

/// Who writes a file besides us, between our change and its undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writers {
    /// Only people: a change of theirs is not overwritten by an undo.
    People,
    /// People and tools, around lines of ours: an undo takes these out of what they have made of it.
    Around(Marks),
    /// The boot loader too, as grubenv: its changes don't matter.
    BootLoader,
}

impl Step {
    /// What the step does, in one line for the plan and the journal.
    pub fn describe(&self) -> String {
        match self {
            Step::WriteFile { path, .. } => format!("write {path}"),
            Step::MakeFolder { path } => format!("make the folder {path}"),
            Step::Backup { argv, .. } => format!("make the backup: run {}", argv.join(" ")),
            Step::Archive { volumes, creates } => {
                let names: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
                format!(
                    "make the backup {creates} of the volumes {}",
                    names.join(", ")
                )
            }
            Step::Keep(keep) => format!(
                "keep {} on {} behind the new system, in {}",
                keep.names(),
                keep.disk,
                keep.folder
            ),
            Step::SealHandover { .. } => format!("write {}", crate::handover::PATH),
            Step::BuildInitramfs { path, .. } => format!("build the initramfs {path}"),
            Step::BuildByTool(wanted) => {
                format!("build the initramfs {} by {}", wanted.path, wanted.program)
            }
            Step::BuildCore(core) => format!(
                "make what resumes the flash after a power cut, in {}",
                core.keep.folder
            ),
            Step::CopyFile { from, to } => format!("copy {from} to {to}"),
            Step::WriteVariable { name, .. } => format!("write the EFI variable {name}"),
        }
    }

    /// What taking it back means, in words for the plan.
    pub fn describe_undo(&self) -> String {
        match self {
            Step::WriteFile { path, expect, .. } => match expect {
                Expect::Seen(None) => format!("remove {path}"),
                Expect::Seen(Some(_)) => format!("put the old {path} back"),
                Expect::Anything => format!("put the old {path} back, or remove it"),
            },
            Step::Backup { creates, .. } | Step::Archive { creates, .. } => {
                format!("remove {creates}, or put the old one back")
            }
            Step::MakeFolder { path } => format!("remove {path}"),
            Step::Keep(keep) => format!("remove {}", keep.folder),
            Step::SealHandover { .. } => format!("remove {}", crate::handover::PATH),
            Step::BuildInitramfs { path, .. } => format!("remove {path}"),
            Step::BuildByTool(wanted) => format!("remove {}", wanted.path),
            Step::BuildCore(core) => format!("remove {}", core.keep.folder),
            Step::CopyFile { to, .. } => format!("remove {to}"),
            Step::WriteVariable {
                name, must_be_free, ..
            } => match must_be_free {
                true => format!("remove {name}"),
                false => format!("put the old {name} back, or remove it"),
            },
        }
    }
}

/// Takes a step back. Values are absolute, so that doing it twice is the same as doing it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "undo")]
pub enum Undo {
    /// Put a saved file back.
    Restore {
        /// Where it belongs.
        path: String,
        /// Where the old content is saved.
        saved: String,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// SHA-256 of what the step wrote: a file that is neither that nor the old one was
        /// changed by somebody and stays. `None` when such changes don't matter.
        ours: Option<String>,
        /// What marks our lines in it, where somebody's changes can be kept without these.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        marks: Option<Marks>,
    },
    /// Remove a file that was not there before.
    Remove {
        /// The file.
        path: String,
        /// As in [`Undo::Restore`].
        ours: Option<String>,
    },
    /// Remove a file that was not there, or move the old one back from where it was put aside.
    MoveBack {
        /// Where it belongs.
        path: String,
        /// Where it was put aside; nothing there means that it was not moved.
        aside: String,
        /// Whether there was one.
        existed: bool,
    },
    /// Remove a folder that was not there before, and all that is in it.
    RemoveFolder {
        /// The folder.
        path: String,
    },
    /// Put a variable of the firmware back, or remove it, unless somebody else has changed or removed
    /// it since: the firmware itself removes those that are for one boot.
    Variable {
        /// Its name, as efivarfs spells it.
        name: String,
        /// What it was, in hex digits; nothing when there was none.
        old: Option<String>,
        /// What the step made of it, in hex digits.
        ours: String,
    },
    /// Nothing to do.
    Nothing,
}

impl Undo {
    /// The file that it puts back or removes, if it is one.
    pub fn path(&self) -> Option<&str> {
        match self {
            Undo::Restore { path, .. }
            | Undo::Remove { path, .. }
            | Undo::MoveBack { path, .. } => Some(path),
            Undo::RemoveFolder { .. } | Undo::Variable { .. } | Undo::Nothing => None,
        }
    }
}
