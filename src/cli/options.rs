//! The options of every verb that reads the configuration, and what they say to it.
//!
//! Options that set a setting of the file name it in their help; the table of settings names them
//! too, and a test compares.

use crate::config::Overrides;

/// Options of every verb that reads the configuration.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The configuration file [default: balena-migrate.conf]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<String>,

    /// The folder with the image and the other files (HOME_DIR)
    #[arg(long, value_name = "FOLDER", global = true)]
    pub home: Option<String>,

    /// The balenaOS image to install (IMAGE_NAME)
    #[arg(short, long, value_name = "FILE", global = true)]
    pub image: Option<String>,

    /// The config.json of the fleet or the device (BALENA_CONFIG)
    #[arg(long, value_name = "FILE", global = true)]
    pub balena_cfg: Option<String>,

    /// Reboot this many seconds after stage 1 (DO_REBOOT)
    #[arg(short, long, value_name = "SECONDS", global = true)]
    pub reboot: Option<u64>,

    /// Go on without asking
    #[arg(short, long, global = true)]
    pub yes: bool,

    /// Rehearse: stage 2 stops just before the first write and boots the
    /// old system (NO_FLASH)
    #[arg(long, global = true)]
    pub pretend: bool,

    /// The disk to overwrite, if not the one that holds / (FLASH_TO)
    #[arg(short, long, value_name = "DISK", global = true)]
    pub flash_to: Option<String>,

    /// Where the image waits: auto, memory, disk or extents (PAYLOAD)
    #[arg(long, value_name = "PLACE", global = true)]
    pub payload: Option<String>,

    /// What builds the initramfs: auto, builtin, initramfs-tools or dracut
    /// (INITRAMFS)
    #[arg(long, value_name = "TOOL", global = true)]
    pub initramfs: Option<String>,

    /// Carry this wifi network of the device; may be repeated (MIGRATE_WIFIS)
    #[arg(long, value_name = "SSID", global = true)]
    pub wifi: Vec<String>,

    /// Carry no wifi network of the device (NO_WIFIS)
    #[arg(long, global = true, conflicts_with = "wifi")]
    pub no_wifis: bool,

    /// A NetworkManager keyfile for the new system; may be repeated
    /// (COPY_NMGR_FILES)
    #[arg(long, value_name = "FILE", global = true)]
    pub nwmgr_cfg: Vec<String>,

    /// Migrate also without any network file (REQUIRE_NMGR_FILE)
    #[arg(long, global = true)]
    pub no_nwmgr_check: bool,

    /// Do not give the new system this one's host name (KEEP_NAME)
    #[arg(long, global = true)]
    pub no_keep_name: bool,

    /// No warning about an untested distribution (NO_OS_CHECK)
    #[arg(long, global = true)]
    pub no_os_check: bool,

    /// Do not ask whether the API answers (BALENA_API_HOST)
    #[arg(long, global = true)]
    pub no_api_check: bool,

    /// Do not ask whether the VPN answers (BALENA_VPN_HOST)
    #[arg(long, global = true)]
    pub no_vpn_check: bool,

    /// How long they may take to answer (BALENA_CONNECT_TIMEOUT)
    #[arg(long, value_name = "SECONDS", global = true)]
    pub check_timeout: Option<String>,

    /// What the backup is made of (BACKUP_DEFINITION)
    #[arg(long, value_name = "FILE", global = true)]
    pub backup_cfg: Option<String>,

    /// Refuse a disk that writes slower, in kB/s (MIN_WRITE_SPEED)
    #[arg(long, value_name = "KB", global = true)]
    pub write_speed: Option<String>,

    /// Refuse a disk with more bad blocks (MAX_BADBLOCKS)
    #[arg(long, value_name = "N", global = true)]
    pub bad_blocks: Option<String>,

    /// A partition on another disk for the log of stage 2 (LOG_DRIVE)
    #[arg(short, long, value_name = "PARTITION", global = true)]
    pub log_to: Option<String>,

    /// How much stage 2 tells (S2_LOG_LEVEL)
    #[arg(long, value_name = "LEVEL", global = true)]
    pub s2_log_level: Option<String>,

    /// How much to tell on standard error [default: info]
    #[arg(long, value_name = "LEVEL", global = true,
          value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: Option<String>,
}

/// The options that set nothing in the file, for the reference.
pub const PLAIN: &[(&str, &str)] = &[
    (
        "--config FILE, -c",
        "the configuration file; `balena-migrate.conf` unless given",
    ),
    ("--yes, -y", "go on without asking"),
    (
        "--log-level LEVEL",
        "how much stage 1 tells on standard error: error, warn, info, debug or trace",
    ),
    (
        "--json",
        "of `plan`: findings and plan as JSON; of `run` and `status`: what came of it, as a line of JSON",
    ),
];

/// Options of the older tools that make no sense any more, and what to do instead.
pub const RETIRED: &[(&str, &str)] = &[
    (
        "--change-dt-to",
        "leave it out: download config.json and image for the right device",
    ),
    (
        "--download-only",
        "images are not downloaded; get one from the dashboard",
    ),
    (
        "--fallback-log",
        "leave it out: the log of stage 2 is always kept",
    ),
    (
        "--fallback-log-dir",
        "leave it out: `balena-migrate status` names the log of stage 2",
    ),
    (
        "--fallback-log-filename",
        "leave it out: `balena-migrate status` names the log of stage 2",
    ),
    (
        "--log-file",
        "send standard error to a file: balena-migrate 2>stage1.log",
    ),
    ("--no-ack", "say --yes"),
    (
        "--no-cleanup",
        "leave it out: `balena-migrate undo` removes what a run made",
    ),
    (
        "--no-dt-check",
        "leave it out: an image for another device would not boot",
    ),
    (
        "--no-efi-setup",
        "leave it out: no boot loader is installed beside that of the image",
    ),
    (
        "--no-fail-on-efi",
        "leave it out: no boot loader is installed beside that of the image",
    ),
    (
        "--report-hup-progress",
        "leave it out: progress is shown on the console",
    ),
    (
        "--stage2",
        "leave it out: stage 2 is started by the boot loader",
    ),
    (
        "--tar-internal",
        "leave it out: no tar of the system is used",
    ),
    ("--work-dir", "say --home"),
];

/// What to say about the first retired option among `arguments`.
pub fn retired(arguments: impl Iterator<Item = String>) -> Option<String> {
    arguments
        .take_while(|argument| argument != "--")
        .find_map(|argument| {
            let name = argument.split('=').next().unwrap_or_default();
            let (name, instead) = RETIRED.iter().find(|(retired, _)| *retired == name)?;
            Some(format!("{name} is an option of an older tool; {instead}"))
        })
}

impl Options {
    /// What the options say to the configuration.
    pub fn overrides(&self) -> Overrides {
        let given = |value: &Option<String>| value.clone();
        let says = |flag: bool, text: &str| flag.then(|| text.to_owned());
        // One on a line, with a line break at the end: names may have blanks in them.
        let lines =
            |values: &[String]| (!values.is_empty()).then(|| format!("{}\n", values.join("\n")));
        let all = [
            ("IMAGE_NAME", given(&self.image)),
            ("BALENA_CONFIG", given(&self.balena_cfg)),
            ("DO_REBOOT", self.reboot.map(|seconds| seconds.to_string())),
            ("NO_FLASH", says(self.pretend, "TRUE")),
            ("FLASH_TO", given(&self.flash_to)),
            ("PAYLOAD", given(&self.payload)),
            ("INITRAMFS", given(&self.initramfs)),
            ("MIGRATE_WIFIS", lines(&self.wifi)),
            ("NO_WIFIS", says(self.no_wifis, "TRUE")),
            ("COPY_NMGR_FILES", lines(&self.nwmgr_cfg)),
            ("REQUIRE_NMGR_FILE", says(self.no_nwmgr_check, "FALSE")),
            ("KEEP_NAME", says(self.no_keep_name, "FALSE")),
            ("NO_OS_CHECK", says(self.no_os_check, "TRUE")),
            ("BALENA_API_HOST", says(self.no_api_check, "")),
            ("BALENA_VPN_HOST", says(self.no_vpn_check, "")),
            ("BALENA_CONNECT_TIMEOUT", given(&self.check_timeout)),
            ("BACKUP_DEFINITION", given(&self.backup_cfg)),
            ("MIN_WRITE_SPEED", given(&self.write_speed)),
            ("MAX_BADBLOCKS", given(&self.bad_blocks)),
            ("LOG_DRIVE", given(&self.log_to)),
            ("S2_LOG_LEVEL", given(&self.s2_log_level)),
        ];
        Overrides {
            config: self.config.clone(),
            home: self.home.clone(),
            values: all
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Parser};

    use super::*;
    use crate::config::settings::SETTINGS;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn overrides(words: &[&str]) -> Overrides {
        let words = ["balena-migrate"].iter().chain(words);
        Line::try_parse_from(words)
            .expect("it is right")
            .options
            .overrides()
    }

    /// Every option of the table sets the setting that it stands beside.
    #[test]
    fn options_and_table_agree() {
        let command = Options::augment_args(clap::Command::default());
        for setting in SETTINGS {
            let Some(flag) = setting.flag else { continue };
            let id = flag.trim_start_matches("--").replace('-', "_");
            let option = command
                .get_arguments()
                .find(|option| option.get_id() == id.as_str())
                .unwrap_or_else(|| panic!("{flag} is no option"));
            let help = option.get_help().expect("it has a help").to_string();
            assert!(help.ends_with(&format!("({})", setting.name)), "{help}");
            let said = match option.get_action().takes_values() {
                true => overrides(&[flag, "7"]),
                false => overrides(&[flag]),
            };
            let is_set = match setting.name {
                "HOME_DIR" => said.home.is_some(),
                name => said.values.len() == 1 && said.values.contains_key(name),
            };
            assert!(is_set, "{flag}: {said:?}");
        }
        let settings = command.get_arguments().filter(|option| {
            let help = option.get_help().expect("it has a help").to_string();
            help.ends_with(')')
        });
        let in_table = SETTINGS.iter().filter(|setting| setting.flag.is_some());
        assert_eq!(settings.count(), in_table.count());
    }

    #[test]
    fn the_reboot_has_both_old_spellings() {
        for words in [["-r", "10"], ["--reboot", "10"]] {
            assert_eq!(overrides(&words).values["DO_REBOOT"], "10");
        }
        assert_eq!(overrides(&["--reboot=10"]).values["DO_REBOOT"], "10");
    }

    #[test]
    fn repeated_values_stay_apart() {
        let said = overrides(&["--wifi", "a b", "--wifi", "c", "--nwmgr-cfg", "my file"]);
        assert_eq!(said.values["MIGRATE_WIFIS"], "a b\nc\n");
        assert_eq!(said.values["COPY_NMGR_FILES"], "my file\n");
    }

    #[test]
    fn an_option_of_an_older_tool_says_what_replaced_it() {
        let said = |words: &[&str]| retired(words.iter().map(|word| word.to_string()));
        assert_eq!(
            said(&["run", "--no-ack"]).as_deref(),
            Some("--no-ack is an option of an older tool; say --yes")
        );
        assert!(said(&["--work-dir=/x"]).is_some_and(|said| said.ends_with("say --home")));
        assert_eq!(said(&["--wifi", "x", "--", "--no-ack"]), None);
    }
}
