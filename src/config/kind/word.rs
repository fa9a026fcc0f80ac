//! Kinds of value that are one of a few words.

use super::{Kind, Refusal, refuse};
use crate::handover::{LogLevel, Power};

/// What the older tool did at the end of a rehearsal. Both words mean one thing here: the boot
/// configuration is put back, and the machine restarts into the old system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermExit;

impl Kind for TermExit {
    const SYNTAX: &'static str = "`exit 0` or `reboot -f`";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match text.trim() {
            "exit 0" | "reboot -f" => Ok(TermExit),
            _ => refuse(
                format!("is `{text}`, and stage 2 runs no commands"),
                "remove the line: stage 2 always puts the boot configuration back and restarts \
                 the old system",
            ),
        }
    }
}

impl Kind for LogLevel {
    const SYNTAX: &'static str = "error, warn, info, debug or trace";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match text {
            "error" => Ok(LogLevel::Error),
            "warn" => Ok(LogLevel::Warn),
            "info" => Ok(LogLevel::Info),
            "debug" => Ok(LogLevel::Debug),
            "trace" => Ok(LogLevel::Trace),
            _ => refuse(
                format!("is `{text}`, which is no level"),
                format!("write {}", Self::SYNTAX),
            ),
        }
    }
}

impl Kind for Power {
    const SYNTAX: &'static str = "hold or off";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match text {
            "hold" => Ok(Power::Hold),
            "off" => Ok(Power::Off),
            _ => refuse(
                format!("is `{text}`, which is neither hold nor off"),
                "write hold to let the machine try for ever, or off to have it switched off",
            ),
        }
    }
}

/// Where the image is to wait while the disk is overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadPlace {
    /// At the best place that is possible.
    Auto,
    /// In memory.
    Memory,
    /// On another disk.
    Disk,
    /// On the disk that is overwritten, behind the new system.
    Extents,
}

impl Kind for PayloadPlace {
    const SYNTAX: &'static str = "auto, memory, disk or extents";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match text {
            "auto" => Ok(PayloadPlace::Auto),
            "memory" => Ok(PayloadPlace::Memory),
            "disk" => Ok(PayloadPlace::Disk),
            "extents" => Ok(PayloadPlace::Extents),
            _ => refuse(
                format!("is `{text}`, which is no place for the image"),
                format!("write {}", Self::SYNTAX),
            ),
        }
    }
}

/// What builds the initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitramfsBuilder {
    /// What the machine needs.
    Auto,
    /// This program.
    Builtin,
    /// The host's initramfs-tools.
    InitramfsTools,
    /// The host's dracut.
    Dracut,
}

impl Kind for InitramfsBuilder {
    const SYNTAX: &'static str = "auto, builtin, initramfs-tools or dracut";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match text {
            "auto" => Ok(InitramfsBuilder::Auto),
            "builtin" => Ok(InitramfsBuilder::Builtin),
            "initramfs-tools" => Ok(InitramfsBuilder::InitramfsTools),
            "dracut" => Ok(InitramfsBuilder::Dracut),
            _ => refuse(
                format!("is `{text}`, which builds no initramfs here"),
                format!("write {}", Self::SYNTAX),
            ),
        }
    }
}

/// A disk as GRUB names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrubDevice(pub String);

impl Kind for GrubDevice {
    const SYNTAX: &'static str = "a disk as GRUB names it, such as hd0";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        let number = text.strip_prefix("hd").unwrap_or_default();
        match !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
            true => Ok(GrubDevice(text.into())),
            false => refuse(
                format!("is `{text}`, which is no name of GRUB's for a disk"),
                "write a name such as hd0",
            ),
        }
    }
}
