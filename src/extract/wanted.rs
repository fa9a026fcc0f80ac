//! What is asked of `extract`, and what came of it.

use super::pack::Packing;

/// Where something goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `-`.
    Stdout,
    /// An absolute path.
    File(String),
}

impl Target {
    /// The path, where it is a file.
    pub fn path(&self) -> Option<&str> {
        match self {
            Target::Stdout => None,
            Target::File(path) => Some(path),
        }
    }
}

/// A file of the boot partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// The grub.cfg that the installer gives the new system.
    GrubCfg,
    /// GRUB's boot.img.
    BootImg,
    /// GRUB's core.img.
    CoreImg,
    /// The config.json that came with the download.
    BalenaCfg,
}

impl Item {
    /// All of them.
    pub const ALL: [Item; 4] = [Item::GrubCfg, Item::BootImg, Item::CoreImg, Item::BalenaCfg];

    /// Where it may be, the first that is there.
    pub(super) fn paths(self) -> &'static [&'static str] {
        match self {
            Item::GrubCfg => &[
                "grub.cfg_internal",
                "grub/grub.cfg_internal",
                "EFI/BOOT/grub.cfg_internal",
            ],
            Item::BootImg => &["grub/boot.img"],
            Item::CoreImg => &["grub/core.img"],
            Item::BalenaCfg => &["config.json"],
        }
    }

    /// What it is called in a folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            Item::GrubCfg => "grub.cfg",
            Item::BootImg => "boot.img",
            Item::CoreImg => "core.img",
            Item::BalenaCfg => "config.json",
        }
    }

    /// The setting that names it.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Item::GrubCfg => "GRUB_CFG",
            Item::BootImg => "GRUB_BOOT_IMG",
            Item::CoreImg => "GRUB_CORE_IMG",
            Item::BalenaCfg => "BALENA_CONFIG",
        }
    }
}

/// Where all that there is goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum All {
    /// To this folder, which is made if need be.
    To(String),
    /// To the folder that relative names in the configuration start at.
    Home,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where the OS image goes.
    pub img: Option<Target>,
    /// What it is written as.
    pub packing: Packing,
    /// Files that have to be there, and where they go.
    pub items: Vec<(Item, Target)>,
    /// All that there is, under its usual name.
    pub all: Option<All>,
    /// The configuration that gets to know of it.
    pub config: Option<String>,
    /// HOME_DIR for the configuration: where its folder will be on the device.
    pub home: Option<String>,
    /// Files that are there may be replaced.
    pub force: bool,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The setting that names it; none for the signature.
    pub setting: Option<&'static str>,
    /// Where it is.
    pub target: Target,
    /// Its SHA-256.
    pub sha256: String,
}
