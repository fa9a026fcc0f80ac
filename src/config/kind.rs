//! The kinds of value that a setting can have: how each is written, read and refused.
//!
//! Used by the table in [`crate::config::settings`]. A reader gets the text with quotes resolved;
//! what it refuses it says as `what; what to do`.

pub mod limit;
pub mod network;
pub mod word;

use super::path;

/// A type that a setting can have.
pub trait Kind: Sized {
    /// How a value is written, for the reference: `TRUE or FALSE`.
    const SYNTAX: &'static str;

    /// Whether a blank value says "none"; otherwise it says "as if it were not set".
    const BLANK_IS_NONE: bool = false;

    /// Reads a value. Relative paths start at `home`.
    fn read(text: &str, home: &str) -> Result<Self, Refusal>;
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong with it, as the rest of a sentence that starts with the setting's name.
    pub what: String,
    /// What to write instead.
    pub remedy: String,
}

pub(crate) fn refuse<T>(what: impl Into<String>, remedy: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        what: what.into(),
        remedy: remedy.into(),
    })
}

impl<T: Kind> Kind for Option<T> {
    const SYNTAX: &'static str = T::SYNTAX;
    const BLANK_IS_NONE: bool = true;

    fn read(text: &str, home: &str) -> Result<Self, Refusal> {
        match text {
            "" => Ok(None),
            text => T::read(text, home).map(Some),
        }
    }
}

impl Kind for bool {
    const SYNTAX: &'static str = "TRUE or FALSE";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => refuse(
                format!("is `{text}`, which is neither TRUE nor FALSE"),
                "write TRUE or FALSE",
            ),
        }
    }
}

/// A file of the working folder, as an absolute path without `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeFile(pub String);

impl Kind for HomeFile {
    const SYNTAX: &'static str = "a file, relative to HOME_DIR";

    fn read(text: &str, home: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return refuse("is not set", "write the name of the file");
        }
        if text.chars().any(char::is_control) {
            return refuse(
                "has a control character in it",
                "write the name on one line, and check where its quote is closed",
            );
        }
        if text.ends_with('/') {
            return refuse(format!("is `{text}`, a folder"), "write the name of a file");
        }
        Ok(HomeFile(path::absolute(home, text)))
    }
}

/// A folder, as an absolute path without `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(pub String);

impl Kind for Folder {
    const SYNTAX: &'static str = "a folder";

    fn read(text: &str, home: &str) -> Result<Self, Refusal> {
        if text.chars().any(char::is_control) {
            return refuse(
                "has a control character in it",
                "write the name on one line, and check where its quote is closed",
            );
        }
        Ok(Folder(path::absolute(home, text)))
    }
}

/// Folders, as absolute paths without `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders(pub Vec<String>);

impl Kind for Folders {
    const SYNTAX: &'static str = "folders, with blanks between them";

    fn read(text: &str, home: &str) -> Result<Self, Refusal> {
        let folders = text.split_ascii_whitespace();
        let folders: Vec<String> = folders.map(|path| path::absolute(home, path)).collect();
        match folders.is_empty() {
            true => refuse(
                "has no folder in it",
                "write its path, or nothing between the quotes",
            ),
            false => Ok(Folders(folders)),
        }
    }
}

/// A device file, such as `/dev/sdb1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFile(pub String);

impl Kind for DeviceFile {
    const SYNTAX: &'static str = "a device file, such as /dev/sdb1";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match text.strip_prefix("/dev/") {
            Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => {
                Ok(DeviceFile(path::absolute("/", text)))
            }
            _ => refuse(
                format!("is `{text}`, which is not a device file"),
                "write it as /dev/sdb1 or /dev/disk/by-uuid/…",
            ),
        }
    }
}

/// A file system that stage 2 can mount and write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsType(pub String);

/// The file systems of [`FsType`], as the kernel names them.
const FS_TYPES: [&str; 4] = ["ext4", "ext3", "ext2", "vfat"];

impl Kind for FsType {
    const SYNTAX: &'static str = "ext4, ext3, ext2 or vfat";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match text {
            text if FS_TYPES.contains(&text) => Ok(FsType(text.into())),
            text => refuse(
                format!("is `{text}`, which stage 2 can't write"),
                format!("use a file system of type {}", Self::SYNTAX),
            ),
        }
    }
}

/// When to reboot at the end of stage 1: after so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reboot {
    /// Seconds to wait; 0 is at once.
    pub seconds: u64,
}

/// A day: more is a slip of the finger rather than a wish.
const MAX_REBOOT_SECONDS: u64 = 86_400;

impl Kind for Option<Reboot> {
    const SYNTAX: &'static str = "seconds, TRUE (1 second) or FALSE";
    const BLANK_IS_NONE: bool = true;

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match text.to_ascii_lowercase().as_str() {
            "" | "false" | "no" | "off" => Ok(None),
            "true" | "yes" | "on" => Ok(Some(Reboot { seconds: 1 })),
            digits => match number(digits) {
                Some(seconds) if seconds <= MAX_REBOOT_SECONDS => Ok(Some(Reboot { seconds })),
                Some(_) => refuse(
                    format!("is {text} seconds, more than a day"),
                    format!("write at most {MAX_REBOOT_SECONDS}"),
                ),
                None => refuse(
                    format!("is `{text}`, which is no number of seconds"),
                    "write a number such as 10, or FALSE to reboot by hand",
                ),
            },
        }
    }
}

/// An amount of memory, written in kB of 1024 bytes as in /proc/meminfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kilobytes(pub u64);

impl Kilobytes {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0 * 1024
    }
}

impl Kind for Kilobytes {
    const SYNTAX: &'static str = "a number of kB";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match number(text).filter(|n| n.checked_mul(1024).is_some()) {
            Some(n) => Ok(Kilobytes(n)),
            None => refuse(
                format!("is `{text}`, which is no number of kB"),
                "write digits only, such as 65536 for 64 MB",
            ),
        }
    }
}

/// A number of plain digits: no sign, no unit.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse().ok(),
        false => None,
    }
}
