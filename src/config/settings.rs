//! The one table of settings: the parser, the merge, the sample file and the reference use it.
//!
//! A further setting is one more row. The order is that of the sample file. Where the README of the
//! shell tool and its code differed, the README's intent and the safe side were taken.

use super::kind::{DeviceFile, Folder, FsType, HomeFile, Kilobytes, Kind, Reboot, Refusal};
use super::{Origin, Sourced};

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name in the file.
    pub name: &'static str,
    /// How a value is written.
    pub syntax: &'static str,
    /// The value when it is not set; empty for none.
    pub default: &'static str,
    /// There is no migration without a value.
    pub required: bool,
    /// The option of the command line that sets it too.
    pub flag: Option<&'static str>,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
}

impl Setting {
    /// The row of that name.
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }
}

/// Makes [`SETTINGS`], [`Settings`] and its reader from the rows.
macro_rules! settings {
    ($($name:ident $field:ident: $kind:ty = $default:literal, $flag:expr, $doc:literal;)*) => {
        /// Every setting, in the order of the sample file.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: stringify!($name),
            syntax: <$kind as Kind>::SYNTAX,
            default: $default,
            required: $default.is_empty() && !<$kind as Kind>::BLANK_IS_NONE,
            flag: $flag,
            doc: $doc,
        }),*];

        /// The value of every setting, each with the place that it came from.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Settings {
            $(#[doc = $doc] pub $field: Sourced<$kind>,)*
        }

        impl Settings {
            /// Reads every setting from the text that `text_of` has for it. All that is wrong is
            /// handed to `refused`, and then there are no settings.
            pub(super) fn read(
                home: &str,
                text_of: impl Fn(&Setting) -> Sourced<String>,
                mut refused: impl FnMut(&'static Setting, Origin, Refusal),
            ) -> Option<Settings> {
                let mut rows = SETTINGS.iter();
                $(let $field = read_one::<$kind>(rows.next()?, home, &text_of, &mut refused);)*
                Some(Settings { $($field: $field?,)* })
            }
        }
    };
}

settings! {
    IMAGE_NAME image_name: HomeFile = "", None,
        "The balenaOS image to install. Required.";
    BALENA_CONFIG balena_config: Option<HomeFile> = "", Some("--balena-cfg"),
        "The config.json of the fleet or the device. It goes to resin-boot.";
    HOME_DIR home_dir: Folder = "./", Some("--home"),
        "The folder with the image and all other files that are named here. A relative path starts \
         at the current folder.";
    DO_REBOOT do_reboot: Option<Reboot> = "", Some("--reboot"),
        "Reboot into the migration this many seconds after stage 1; TRUE means 1. It is also the \
         consent of a run without a terminal. Not set: you reboot by hand.";
    NO_FLASH no_flash: bool = "FALSE", Some("--pretend"),
        "TRUE: rehearse. Stage 2 stops just before the first write and boots the old system. Not set \
         means that the disk is overwritten.";
    NO_SETUP no_setup: bool = "FALSE", None,
        "TRUE: build everything but leave the boot configuration alone.";
    MIGRATE_ALL_WIFIS migrate_all_wifis: bool = "FALSE", None,
        "TRUE: carry every wifi network that is configured on the device.";
    MIGRATE_WIFI_CFG migrate_wifi_cfg: Option<HomeFile> = "migrate-wifis", None,
        "A file with the names (SSIDs) of the wifi networks to carry, one on a line, exactly as \
         they are. The default is only used when there is such a file.";
    REQUIRE_NMGR_FILE require_nmgr_file: bool = "TRUE", None,
        "FALSE: migrate also without any network file, as for a device on wired DHCP.";
    BACKUP_SCRIPT backup_script: Option<HomeFile> = "", None,
        "A program that makes the backup. It is called with the path of the backup.tgz to write, and \
         must end with exit code 0.";
    LOG_DRIVE log_drive: Option<DeviceFile> = "", None,
        "A partition on another disk, such as a USB stick, that gets the log of stage 2.";
    LOG_FS_TYPE log_fs_type: FsType = "ext4", None,
        "The file system of LOG_DRIVE.";
    MEM_MIN_FREE_S1 mem_min_free_s1: Kilobytes = "65536", None,
        "Memory that must stay free in stage 2 by the reckoning of stage 1.";
    MEM_MIN_FREE_S2 mem_min_free_s2: Kilobytes = "65536", None,
        "Memory that must stay free in stage 2 once the image and the backup are loaded.";
}

/// Settings of the older tools that this version does not know yet. A value for one of them is an
/// error: ignoring it would do something else than was asked for.
pub const NOT_YET: &[&str] = &[
    "BACKUP_DEFINITION",
    "BACKUP_DIRECTORIES",
    "BACKUP_FILE",
    "BALENA_API_HOST",
    "BALENA_API_PORT",
    "BALENA_CONNECT_TIMEOUT",
    "BALENA_VPN_HOST",
    "BALENA_VPN_PORT",
    "BALENA_WIFI",
    "COPY_NMGR_FILES",
    "DEBUG",
    "DEBUG_FUNCTS",
    "GRUB_BOOT_DEV",
    "GRUB_BOOT_IMG",
    "GRUB_CFG",
    "GRUB_CORE_IMG",
    "GRUB_INSTALL",
    "HAS_WIFI_CFG",
    "LOG_DEBUG",
    "MAX_BADBLOCKS",
    "MIN_ROOT_AVAIL",
    "MIN_WRITE_SPEED",
    "MK_INITRAM_RETAIN",
    "MK_INITRAM_VERBOSE",
    "TERM_EXIT",
    "WARN_WRITE_SPEED",
];

/// Reads one setting; a blank value stands for the default unless it means "none".
fn read_one<T: Kind>(
    setting: &'static Setting,
    home: &str,
    text_of: &impl Fn(&Setting) -> Sourced<String>,
    refused: &mut impl FnMut(&'static Setting, Origin, Refusal),
) -> Option<Sourced<T>> {
    let Sourced { value: text, from } = text_of(setting);
    let text = match text.is_empty() && !T::BLANK_IS_NONE {
        true => setting.default,
        false => text.as_str(),
    };
    match T::read(text, home) {
        Ok(value) => Some(Sourced { value, from }),
        Err(refusal) => {
            refused(setting, from, refusal);
            None
        }
    }
}
