//! The one table of settings: the parser, the merge, the sample file and the reference use it.
//!
//! A further setting is one more row. The order is that of the sample file. Where the README of the
//! shell tool and its code differed, the README's intent and the safe side were taken.

use super::kind::limit::{BadBlocks, Seconds, Speed};
use super::kind::network::{HomeFiles, HostName, Port, Ssids, TakenNames};
use super::kind::word::{GrubDevice, InitramfsBuilder, PayloadPlace, TermExit};
use super::kind::{
    DeviceFile, Folder, Folders, FsType, HomeFile, Kilobytes, Kind, Reboot, Refusal,
};
use super::{Origin, Sourced};
use crate::handover::{LogLevel, Power};

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

            /// Every setting with its value and where that came from, for the log.
            pub fn describe(&self) -> Vec<String> {
                vec![$(format!(
                    "{} is {:?} ({})", stringify!($name), self.$field.value, self.$field.from
                )),*]
            }
        }
    };
}

settings! {
    IMAGE_NAME image_name: HomeFile = "", Some("--image"),
        "The balenaOS image to install. Required.";
    BALENA_CONFIG balena_config: Option<HomeFile> = "", Some("--balena-cfg"),
        "The config.json of the fleet or the device. It goes to resin-boot.";
    HOME_DIR home_dir: Folder = "./", Some("--home"),
        "The folder with the image and all other files that are named here. A relative path starts \
         at the current folder. `extract --home` sets it to where that folder will be on the device.";
    DO_REBOOT do_reboot: Option<Reboot> = "", Some("--reboot"),
        "Reboot into the migration this many seconds after stage 1; TRUE means 1. It is also the \
         consent of a run without a terminal. Not set: you reboot by hand.";
    NO_FLASH no_flash: bool = "FALSE", Some("--pretend"),
        "TRUE: rehearse. Stage 2 stops just before the first write and boots the old system. Not set \
         means that the disk is overwritten.";
    TERM_EXIT term_exit: TermExit = "exit 0", None,
        "How a rehearsal ends. Stage 2 always puts the boot configuration back and restarts the old \
         system, so both values mean that.";
    NO_SETUP no_setup: bool = "FALSE", None,
        "TRUE: build everything but leave the boot configuration alone.";
    FLASH_TO flash_to: Option<DeviceFile> = "", Some("--flash-to"),
        "The disk to overwrite, all of it. Not set: the one that holds /. Where it is another one, the \
         old system stays whole, and starts again if the flash can't be ended; nothing may be mounted \
         or in use on it. By a BIOS the new system starts once that disk is first in the boot order, \
         which is yours to set; UEFI firmware gets an entry for it.";
    PAYLOAD payload: PayloadPlace = "auto", Some("--payload"),
        "Where the image waits while the disk is overwritten. disk: on another disk, where it is. \
         extents: on this disk, in space behind the new system. memory: in memory, all of it. auto: \
         the first of these that is possible. `plan` says which, and why.";
    INITRAMFS initramfs: InitramfsBuilder = "auto", Some("--initramfs"),
        "What builds the initramfs of stage 2. builtin: this program, which needs no tool. \
         initramfs-tools or dracut: that tool of this machine, which brings up the root in its own way \
         before stage 2 starts. auto: builtin; no machine that this version migrates needs more.";
    NO_OS_CHECK no_os_check: bool = "FALSE", Some("--no-os-check"),
        "TRUE: no warning about a distribution that this version was not tested on.";
    KEEP_NAME keep_name: bool = "TRUE", Some("--no-keep-name"),
        "The new system gets the host name of this one, as `hostname` in its config.json. Your file \
         stays as it is, and a `hostname` in it wins. FALSE: the new system names itself.";
    MIGRATE_ALL_WIFIS migrate_all_wifis: bool = "FALSE", None,
        "TRUE: carry every wifi network that is configured on the device.";
    MIGRATE_WIFI_CFG migrate_wifi_cfg: Option<HomeFile> = "migrate-wifis", None,
        "A file with the names (SSIDs) of the wifi networks to carry, one on a line, exactly as \
         they are. The default is only used when there is such a file.";
    MIGRATE_WIFIS migrate_wifis: Ssids = "", Some("--wifi"),
        "Names (SSIDs) of wifi networks to carry, beside those of MIGRATE_WIFI_CFG.";
    NO_WIFIS no_wifis: bool = "FALSE", Some("--no-wifis"),
        "TRUE: carry no wifi network of the device, whatever else is set. COPY_NMGR_FILES and \
         BALENA_WIFI are not concerned.";
    BALENA_WIFI balena_wifi: bool = "FALSE", None,
        "TRUE: make a network file of `wifiSsid` and `wifiKey` in config.json.";
    HAS_WIFI_CFG has_wifi_cfg: TakenNames = "FALSE", None,
        "How many network files resin-wifi-01, -02 … the image has inside. The names of those that \
         are made start behind them: TRUE or 1 start at resin-wifi-02.";
    COPY_NMGR_FILES copy_nmgr_files: HomeFiles = "", Some("--nwmgr-cfg"),
        "Keyfiles of NetworkManager for the new system, as for a static address or a modem. They go \
         to system-connections on resin-boot as they are.";
    REQUIRE_NMGR_FILE require_nmgr_file: bool = "TRUE", Some("--no-nwmgr-check"),
        "FALSE: migrate also without any network file, as for a device on wired DHCP.";
    BALENA_API_HOST balena_api_host: Option<HostName> = "api.balena-cloud.com", Some("--no-api-check"),
        "A host that must answer before anything is done. Not set: that of apiEndpoint in \
         config.json, or else the default. Blank: no check. The proxy of https_proxy and no_proxy \
         in the environment is used; sudo keeps them with -E only.";
    BALENA_API_PORT balena_api_port: Port = "443", None,
        "Its port. Not set: that of apiEndpoint in config.json, if the host comes from there.";
    BALENA_VPN_HOST balena_vpn_host: Option<HostName> = "vpn.balena-cloud.com", Some("--no-vpn-check"),
        "Another host that must answer. Not set: vpnEndpoint in config.json, or else the default. \
         Blank: no check.";
    BALENA_VPN_PORT balena_vpn_port: Port = "443", None,
        "Its port. Not set: vpnPort in config.json, if the host comes from there.";
    BALENA_CONNECT_TIMEOUT balena_connect_timeout: Seconds = "20", Some("--check-timeout"),
        "How long these hosts may take to answer. Both are asked at once, and once.";
    BACKUP_SCRIPT backup_script: Option<HomeFile> = "", None,
        "A program that makes the backup. It is called with the path of the backup file to write, \
         and must end with exit code 0.";
    BACKUP_DEFINITION backup_definition: Option<HomeFile> = "", Some("--backup-cfg"),
        "A YAML file that says which files and folders go into which volume; README.md has the rules. \
         Only used without BACKUP_SCRIPT.";
    BACKUP_DIRECTORIES backup_directories: Option<Folders> = "", None,
        "Folders for the backup. Each becomes a volume with the name of its last part. Only used \
         without BACKUP_SCRIPT and BACKUP_DEFINITION.";
    BACKUP_FILE backup_file: HomeFile = "backup.tgz", None,
        "The backup: what is made, or a file that is there already. It becomes \
         backup.tgz on resin-data.";
    MIN_ROOT_AVAIL min_root_avail: Kilobytes = "10240", None,
        "Space that must be free in the file system of /.";
    MIN_WRITE_SPEED min_write_speed: Option<Speed> = "", Some("--write-speed"),
        "Refuse a disk that writes slower. It is measured by a file of at most 64 MiB, for at most 5 \
         seconds, that is gone afterwards; `plan` does not measure, as it changes nothing.";
    WARN_WRITE_SPEED warn_write_speed: Option<Speed> = "", None,
        "Warn of a disk that writes slower.";
    MAX_BADBLOCKS max_badblocks: Option<BadBlocks> = "", Some("--bad-blocks"),
        "Refuse a disk with more bad blocks of 1024 bytes, by number or by percentage of all its blocks; \
         0 refuses any. `run` reads all of the disk for it once the other checks found no error, which \
         takes as long as it takes to read the disk, and stops when there are too many; nothing is \
         written. `plan` does not scan.";
    LOG_DRIVE log_drive: Option<DeviceFile> = "", Some("--log-to"),
        "A partition on another disk, such as a USB stick, that gets the log of stage 2.";
    LOG_FS_TYPE log_fs_type: FsType = "ext4", None,
        "The file system of LOG_DRIVE.";
    LOG_DEBUG log_debug: bool = "FALSE", None,
        "TRUE: stage 1 tells more, as with --log-level debug.";
    S2_LOG_LEVEL s2_log_level: LogLevel = "info", Some("--s2-log-level"),
        "How much stage 2 shows on the consoles. error and warn: phases, warnings and endings. info: \
         each step and its progress too. debug and trace: each mount, file and retry too. The log has \
         everything up to info at least.";
    POWER power: Power = "hold", None,
        "What stage 2 does when the disk can't be written after the first write. hold: the machine \
         stays on, says why on every console, and tries for ever. off: it is switched off once at \
         least 8 tries have failed over at least an hour. It is never restarted into a disk that is \
         overwritten in part. Where the old system is on another disk, that starts again after 6 tries \
         instead.";
    DEBUG debug: bool = "FALSE", None,
        "TRUE: the kernel of stage 2 gets the argument `debug` and tells all on the console.";
    MEM_MIN_FREE_S1 mem_min_free_s1: Kilobytes = "65536", None,
        "Memory that must stay free in stage 2 by the reckoning of stage 1.";
    MEM_MIN_FREE_S2 mem_min_free_s2: Kilobytes = "65536", None,
        "Memory that must stay free in stage 2 once the image and the backup are loaded.";
    GRUB_INSTALL grub_install: bool = "FALSE", None,
        "TRUE: install GRUB in the new system, for balenaOS before 2.26, whose images have no boot \
         loader: from GRUB_BOOT_IMG and GRUB_CORE_IMG on a BIOS, else made with the GRUB of this \
         machine. Refused for images that have one.";
    GRUB_BOOT_DEV grub_boot_dev: GrubDevice = "hd0", None,
        "The disk of the new system as GRUB names it, for a GRUB that does not find resin-boot by its \
         label. Only in a grub.cfg that is made here.";
    GRUB_CFG grub_cfg: Option<HomeFile> = "", None,
        "The grub.cfg for GRUB_INSTALL, best that of the flasher image. Without it one is made that is \
         known to start balenaOS up to 2.13.";
    GRUB_BOOT_IMG grub_boot_img: Option<HomeFile> = "", None,
        "The boot.img of the flasher image, for GRUB_INSTALL on a BIOS.";
    GRUB_CORE_IMG grub_core_img: Option<HomeFile> = "", None,
        "The core.img of the flasher image, for GRUB_INSTALL on a BIOS.";
}

/// Settings of the older tools that make no sense any more, and what to do instead.
pub const RETIRED: &[(&str, &str)] = &[
    (
        "DEBUG_FUNCTS",
        "remove it, and set LOG_DEBUG=TRUE to be told more",
    ),
    (
        "MK_INITRAM_RETAIN",
        "remove it: the initramfs stays in /boot until `undo`",
    ),
    (
        "MK_INITRAM_VERBOSE",
        "remove it, and set LOG_DEBUG=TRUE to be told more",
    ),
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
