//! The configuration file: what it means, and the exact words for everything that is wrong in it.

use std::process::Command;

use balena_migrate::cli::options;
use balena_migrate::config::kind::{DeviceFile, Folder, FsType, HomeFile, Kilobytes, Reboot};
use balena_migrate::config::reference::reference;
use balena_migrate::config::sample::sample_conf;
use balena_migrate::config::settings::{RETIRED, SETTINGS, Setting};
use balena_migrate::config::{self, Config, LoadError, Origin, Overrides, shell};
use balena_migrate::sys::files::Sys;

/// Merges a text that must be right, as the file `c` read in the folder `/mig`.
fn good(text: &str) -> Config {
    merge(text, &Overrides::default())
}

fn merge(text: &str, overrides: &Overrides) -> Config {
    config::merge("c", text, "/mig", overrides).unwrap_or_else(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{text:?}: {errors:#?}")
    })
}

fn home_file(path: &str) -> HomeFile {
    HomeFile(path.into())
}

#[test]
fn values_are_what_a_shell_assigns() {
    let texts = [
        "A=plain",
        "A=",
        "A= # comment",
        "A=a#b",
        "A=#b",
        "A=a #b",
        "  A=a\t",
        "# A=b\n\n\nA=a # c",
        "A='a b'",
        "A=\"a b\"",
        "A=a'b c'd\"e f\"g",
        "A=''",
        "A='a\\b'",
        "A=a\\ b",
        "A=a\\\\b",
        "A=\\$x",
        "A=\\#x",
        "A=\"a\\\"b\"",
        "A=\"a\\$b\"",
        "A=\"a\\`b\"",
        "A=\"a\\\\b\"",
        "A=\"a\\nb\"",
        "A=\"a'b\"",
        "A='a\"b'",
        "A='$x `y`'",
        "A=5$",
        "A=\"5$ b\"",
        "A=\"5$\"",
        "A=a\\\nb",
        "A=\"a\\\nb\"",
        "A='a\\\nb'",
        "A='a\nb'",
        "A=a;",
        "A=b; A=a",
        "A=b A=a",
        "A=a=b",
        "A=*.img?",
        "A=a~b",
        "A='~/b'",
        "A=\\~/b",
        "A=a:b",
        "A={a,b}",
        "A=a!b",
        "A=a%b@c,d+e[f]",
        "export A=a",
        "export \\\n A=a",
        "export A='a b' B=c",
        "A=a\nexport A",
        "A=ä",
        "A=a\u{a0}b",
    ];
    for text in texts {
        let read = shell::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let ours = &read
            .iter()
            .rfind(|a| a.name == "A")
            .expect("A is set")
            .value;
        let script = format!("{text}\nprintf %s \"$A\"");
        let output = Command::new("sh")
            .args(["-c", &script])
            .output()
            .expect("running sh");
        assert_eq!(*ours, String::from_utf8_lossy(&output.stdout), "{text:?}");
    }
}

#[test]
fn files_from_windows_are_read() {
    let text = "\u{feff}IMAGE_NAME=os.img.gz\r\nHOME_DIR='/a b' \\\r\n NO_SETUP=TRUE\r\nLOG_FS_TYPE=vfat\r";
    let config = good(text);
    assert_eq!(*config.image_name, home_file("/a b/os.img.gz"));
    assert!(*config.no_setup);
    assert_eq!(config.log_fs_type.0, "vfat");
    assert_eq!(config.no_setup.from.to_string(), "c:3:2");
}

#[test]
fn errors_say_where_what_and_what_to_do() {
    let table: &[(&str, &[&str])] = &[
        (
            "IMAGE_NAME = x",
            &[
                "c:1:11: there is a blank before `=`; write IMAGE_NAME=value without blanks around `=`",
            ],
        ),
        (
            "IMAGE_NAME =x",
            &[
                "c:1:11: there is a blank before `=`; write IMAGE_NAME=value without blanks around `=`",
            ],
        ),
        (
            "IMAGE_NAME= x",
            &[
                "c:1:12: there is a blank after `IMAGE_NAME=`; write IMAGE_NAME=value without blanks around `=`",
            ],
        ),
        (
            "IMAGE_NAME=a b",
            &[
                "c:1:14: `b` is not NAME=value; this file is read, not run: remove it, or quote the value that it belongs to",
            ],
        ),
        (
            "1A=x",
            &["c:1:1: `1A` can't be a name; use letters, digits and `_`"],
        ),
        (
            "IMAGE-NAME=x",
            &["c:1:1: `IMAGE-NAME` can't be a name; use letters, digits and `_`"],
        ),
        (
            "IMAGE_NAME+=x",
            &["c:1:11: `+=` is not supported; write the whole value after `=`"],
        ),
        (
            "IMAGE_NAME=(a b)",
            &[
                "c:1:12: arrays are not supported; write the values in quotes, with blanks between them",
            ],
        ),
        (
            "IMAGE_NAME[0]=x",
            &[
                "c:1:11: arrays are not supported; write the values in quotes, with blanks between them",
            ],
        ),
        (
            "IMAGE_NAME=$HOME/x",
            &[
                "c:1:12: `$HOME` would be expanded by a shell, but this file is read, not run; write the value itself, or put it in single quotes if the character is meant",
            ],
        ),
        (
            "IMAGE_NAME=\"${X}\"",
            &[
                "c:1:13: `${` would be expanded by a shell, but this file is read, not run; write the value itself, or put it in single quotes if the character is meant",
            ],
        ),
        (
            "IMAGE_NAME=$(ls)",
            &[
                "c:1:12: `$(` would be expanded by a shell, but this file is read, not run; write the value itself, or put it in single quotes if the character is meant",
            ],
        ),
        (
            "IMAGE_NAME=`ls`",
            &[
                "c:1:12: a backtick would run a command, but this file is read, not run; write the value itself, or put it in single quotes if the character is meant",
            ],
        ),
        (
            "IMAGE_NAME=\"`ls`\"",
            &[
                "c:1:13: a backtick would run a command, but this file is read, not run; write the value itself, or put it in single quotes if the character is meant",
            ],
        ),
        (
            "IMAGE_NAME=$'x'",
            &["c:1:12: `$'` quotes are not supported; use plain quotes"],
        ),
        (
            "IMAGE_NAME=$\"x\"",
            &["c:1:12: `$\"` quotes are not supported; use plain quotes"],
        ),
        (
            "HOME_DIR=~/x",
            &[
                "c:1:10: `~` would be somebody's home directory; write the whole path, or put it in quotes if the character is meant",
            ],
        ),
        (
            "HOME_DIR=a:~/x",
            &[
                "c:1:12: `~` would be somebody's home directory; write the whole path, or put it in quotes if the character is meant",
            ],
        ),
        (
            "IMAGE_NAME=a&b",
            &[
                "c:1:13: `&` means something to a shell; put the value in quotes if the character is meant",
            ],
        ),
        (
            "IMAGE_NAME=a|b",
            &[
                "c:1:13: `|` means something to a shell; put the value in quotes if the character is meant",
            ],
        ),
        (
            "IMAGE_NAME=a>b",
            &[
                "c:1:13: `>` means something to a shell; put the value in quotes if the character is meant",
            ],
        ),
        (
            "IMAGE_NAME=a(1).img",
            &[
                "c:1:13: `(` means something to a shell; put the value in quotes if the character is meant",
            ],
        ),
        (
            "IMAGE_NAME=a;b",
            &[
                "c:1:14: `b` is not NAME=value; this file is read, not run: remove it, or quote the value that it belongs to",
            ],
        ),
        (
            "IMAGE_NAME=a;;",
            &[
                "c:1:14: `;` means something to a shell; put the value in quotes if the character is meant",
            ],
        ),
        (
            "; IMAGE_NAME=a",
            &[
                "c:1:1: `;` means something to a shell; put the value in quotes if the character is meant",
            ],
        ),
        (
            "IMAGE_NAME='a",
            &["c:1:12: this ' is never closed; add the closing one"],
        ),
        (
            "\n\nIMAGE_NAME=\"a\n",
            &["c:3:12: this \" is never closed; add the closing one"],
        ),
        (
            "IMAGE_NAME=“a”",
            &["c:1:12: `“` is a typographic quote; use \" or '"],
        ),
        (
            "IMAGE_NAME=a\\",
            &["c:1:13: the file ends in a backslash; remove it"],
        ),
        (
            "IMAGE_NAME=a\0b",
            &["c:1:13: there is a NUL character; save the file as plain UTF-8 text"],
        ),
        (
            "source other.conf",
            &[
                "c:1:1: `source` is not NAME=value; this file is read, not run: remove it, or quote the value that it belongs to",
            ],
        ),
        (
            ". ./x",
            &[
                "c:1:1: `.` is not NAME=value; this file is read, not run: remove it, or quote the value that it belongs to",
            ],
        ),
        (
            "if true; then",
            &[
                "c:1:1: `if` is not NAME=value; this file is read, not run: remove it, or quote the value that it belongs to",
            ],
        ),
        (
            "rm -rf /",
            &[
                "c:1:1: `rm` is not NAME=value; this file is read, not run: remove it, or quote the value that it belongs to",
            ],
        ),
        (
            "export -n A",
            &[
                "c:1:8: `-n` is not NAME=value; this file is read, not run: remove it, or quote the value that it belongs to",
            ],
        ),
        (
            "[section]",
            &[
                "c:1:1: `[section]` is not NAME=value; this file is read, not run: remove it, or quote the value that it belongs to",
            ],
        ),
        (
            "IMAGE_NAME",
            &[
                "c:1:1: `IMAGE_NAME` is not NAME=value; this file is read, not run: remove it, or quote the value that it belongs to",
            ],
        ),
        (
            "IMAGE_NAME: x",
            &[
                "c:1:1: `IMAGE_NAME:` is not NAME=value; this file is read, not run: remove it, or quote the value that it belongs to",
            ],
        ),
        (
            "IMAGE_NAME=a export NO_FLASH=TRUE",
            &[
                "c:1:14: `export` is not NAME=value; this file is read, not run: remove it, or quote the value that it belongs to",
            ],
        ),
        (
            "IMAGE_NAME=a\r\nNO_FLASH=TRU\r\n",
            &["c:2:1: NO_FLASH is `TRU`, which is neither TRUE nor FALSE; write TRUE or FALSE"],
        ),
        (
            "",
            &["c: IMAGE_NAME is not set; write the name of the file"],
        ),
        (
            "IMAGE_NAME=",
            &["c:1:1: IMAGE_NAME is not set; write the name of the file"],
        ),
        (
            "IMAGE_FILE=a\nIMAGE_NAME=b",
            &["c:1:1: IMAGE_FILE is not a setting; did you mean IMAGE_NAME?"],
        ),
        (
            "image_name=x",
            &[
                "c:1:1: image_name is not a setting; did you mean IMAGE_NAME?",
                "c: IMAGE_NAME is not set; write the name of the file",
            ],
        ),
        (
            "NOFLASH=TRUE\nIMAGE_NAME=x",
            &["c:1:1: NOFLASH is not a setting; did you mean NO_FLASH?"],
        ),
        (
            "FOO=bar\nIMAGE_NAME=x",
            &["c:1:1: FOO is not a setting; balena-migrate-sample.conf has them all"],
        ),
        (
            "IMAGE_NAME=x\nDO_REBOOT=soon",
            &[
                "c:2:1: DO_REBOOT is `soon`, which is no number of seconds; write a number such as 10, or FALSE to reboot by hand",
            ],
        ),
        (
            "IMAGE_NAME=x\nDO_REBOOT=-1",
            &[
                "c:2:1: DO_REBOOT is `-1`, which is no number of seconds; write a number such as 10, or FALSE to reboot by hand",
            ],
        ),
        (
            "IMAGE_NAME=x\nDO_REBOOT=100000",
            &["c:2:1: DO_REBOOT is 100000 seconds, more than a day; write at most 86400"],
        ),
        (
            "IMAGE_NAME=x\nMEM_MIN_FREE_S1=64M",
            &[
                "c:2:1: MEM_MIN_FREE_S1 is `64M`, which is no number of kB; write digits only, such as 65536 for 64 MB",
            ],
        ),
        (
            "IMAGE_NAME=x\nLOG_DRIVE=sdb1",
            &[
                "c:2:1: LOG_DRIVE is `sdb1`, which is not a device file; write it as /dev/sdb1 or /dev/disk/by-uuid/…",
            ],
        ),
        (
            "IMAGE_NAME=x\nLOG_FS_TYPE=ntfs",
            &[
                "c:2:1: LOG_FS_TYPE is `ntfs`, which stage 2 can't write; use a file system of type ext4, ext3, ext2 or vfat",
            ],
        ),
        (
            "IMAGE_NAME=dir/",
            &["c:1:1: IMAGE_NAME is `dir/`, a folder; write the name of a file"],
        ),
        (
            "IMAGE_NAME='a\nb'",
            &[
                "c:1:1: IMAGE_NAME has a control character in it; write the name on one line, and check where its quote is closed",
            ],
        ),
        (
            "DO_REBOOT=10\nMK_INITRAM_VERBOSE=TRUE\nIMAGE_NAME=x",
            &[
                "c:2:1: MK_INITRAM_VERBOSE means nothing to this version; remove it, and set LOG_DEBUG=TRUE to be told more",
            ],
        ),
        (
            "MK_INITRAM_RETAIN=TRUE\nIMAGE_NAME=x",
            &[
                "c:1:1: MK_INITRAM_RETAIN means nothing to this version; remove it: the initramfs stays in /boot until `undo`",
            ],
        ),
        (
            "DEBUG_FUNCTS='main clean'\nIMAGE_NAME=x",
            &[
                "c:1:1: DEBUG_FUNCTS means nothing to this version; remove it, and set LOG_DEBUG=TRUE to be told more",
            ],
        ),
        (
            "IMAGE_NAME=x\nTERM_EXIT=panic",
            &[
                "c:2:1: TERM_EXIT is `panic`, and stage 2 runs no commands; remove the line: stage 2 always puts the boot configuration back and restarts the old system",
            ],
        ),
        (
            "IMAGE_NAME=x\nMAX_BADBLOCKS=few",
            &[
                "c:2:1: MAX_BADBLOCKS is `few`, which is neither a number nor a percentage; write a number such as 0, or a percentage up to 100%",
            ],
        ),
        (
            "IMAGE_NAME=x\nMAX_BADBLOCKS=101%",
            &[
                "c:2:1: MAX_BADBLOCKS is `101%`, which is neither a number nor a percentage; write a number such as 0, or a percentage up to 100%",
            ],
        ),
        (
            "IMAGE_NAME=x\nMIN_WRITE_SPEED=2MB",
            &[
                "c:2:1: MIN_WRITE_SPEED is `2MB`, which is no number of kB a second; write digits only, such as 2000",
            ],
        ),
        (
            "IMAGE_NAME=x\nWARN_WRITE_SPEED=-5",
            &[
                "c:2:1: WARN_WRITE_SPEED is `-5`, which is no number of kB a second; write digits only, such as 2000",
            ],
        ),
        (
            "IMAGE_NAME=x\nMIN_ROOT_AVAIL=10M",
            &[
                "c:2:1: MIN_ROOT_AVAIL is `10M`, which is no number of kB; write digits only, such as 65536 for 64 MB",
            ],
        ),
        (
            "IMAGE_NAME=x\nBALENA_CONNECT_TIMEOUT=0",
            &[
                "c:2:1: BALENA_CONNECT_TIMEOUT is `0`, which is no number of seconds from 1 to 600; write a number such as 20",
            ],
        ),
        (
            "IMAGE_NAME=x\nBALENA_CONNECT_TIMEOUT=20s",
            &[
                "c:2:1: BALENA_CONNECT_TIMEOUT is `20s`, which is no number of seconds from 1 to 600; write a number such as 20",
            ],
        ),
        (
            "IMAGE_NAME=x\nBALENA_API_PORT=https",
            &[
                "c:2:1: BALENA_API_PORT is `https`, which is no port; write a number from 1 to 65535",
            ],
        ),
        (
            "IMAGE_NAME=x\nBALENA_VPN_PORT=65536",
            &[
                "c:2:1: BALENA_VPN_PORT is `65536`, which is no port; write a number from 1 to 65535",
            ],
        ),
        (
            "IMAGE_NAME=x\nBALENA_API_HOST=https://api.balena-cloud.com",
            &[
                "c:2:1: BALENA_API_HOST is `https://api.balena-cloud.com`, a web address; write the name of the host only, such as api.balena-cloud.com",
            ],
        ),
        (
            "IMAGE_NAME=x\nBALENA_VPN_HOST='my vpn'",
            &[
                "c:2:1: BALENA_VPN_HOST is `my vpn`, which is no name of a host; write a name such as api.balena-cloud.com",
            ],
        ),
        (
            "IMAGE_NAME=x\nHAS_WIFI_CFG=some",
            &[
                "c:2:1: HAS_WIFI_CFG is `some`, which is neither TRUE, FALSE nor a number up to 50; write how many resin-wifi files the image has inside",
            ],
        ),
        (
            "IMAGE_NAME=x\nCOPY_NMGR_FILES='office dir/'",
            &["c:2:1: COPY_NMGR_FILES is `dir/`, a folder; write the name of a file"],
        ),
        (
            "IMAGE_NAME=x\nGRUB_BOOT_DEV=/dev/sda",
            &[
                "c:2:1: GRUB_BOOT_DEV is `/dev/sda`, which is no name of GRUB's for a disk; write a name such as hd0",
            ],
        ),
        (
            "IMAGE_NAME=x\nFLASH_TO=sda",
            &[
                "c:2:1: FLASH_TO is `sda`, which is not a device file; write it as /dev/sdb1 or /dev/disk/by-uuid/…",
            ],
        ),
        (
            "IMAGE_NAME=x\nS2_LOG_LEVEL=loud",
            &[
                "c:2:1: S2_LOG_LEVEL is `loud`, which is no level; write error, warn, info, debug or trace",
            ],
        ),
        (
            "IMAGE_NAME=x\nKEEP_NAME=old",
            &["c:2:1: KEEP_NAME is `old`, which is neither TRUE nor FALSE; write TRUE or FALSE"],
        ),
        (
            "IMAGE_NAME=x\nGRUB_INSTALL=FLASH",
            &[
                "c:2:1: GRUB_INSTALL is `FLASH`, which is neither TRUE nor FALSE; write TRUE or FALSE",
            ],
        ),
        (
            "NO_FLASH=maybe\nNO_SETUP=perhaps\nXYZZY=1\n",
            &[
                "c:1:1: NO_FLASH is `maybe`, which is neither TRUE nor FALSE; write TRUE or FALSE",
                "c:2:1: NO_SETUP is `perhaps`, which is neither TRUE nor FALSE; write TRUE or FALSE",
                "c:3:1: XYZZY is not a setting; balena-migrate-sample.conf has them all",
                "c: IMAGE_NAME is not set; write the name of the file",
            ],
        ),
    ];
    for (text, expected) in table {
        let errors = config::merge("c", text, "/mig", &Overrides::default())
            .expect_err(&format!("{text:?} is wrong"));
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, *expected, "{text:?}");
    }
}

#[test]
fn no_text_makes_the_reader_stumble() {
    let text = "\u{feff}export A='x\ny' B=\"\\$ \\\r\n\"; # c\r\nC=$'~\\\0`ä$(\r\r";
    for (start, _) in text.char_indices() {
        for (end, _) in text[start..].char_indices() {
            let _ = shell::parse(&text[start..start + end]);
        }
    }
}

#[test]
fn defaults_flash_and_ask() {
    let config = good("IMAGE_NAME=os.img.gz");
    assert_eq!(*config.image_name, home_file("/mig/os.img.gz"));
    assert_eq!(*config.home_dir, Folder("/mig".into()));
    assert_eq!(*config.balena_config, None);
    assert_eq!(*config.do_reboot, None);
    assert!(!*config.no_flash, "the mission is to migrate");
    assert!(!*config.no_setup);
    assert!(!*config.migrate_all_wifis);
    assert_eq!(
        *config.migrate_wifi_cfg,
        Some(home_file("/mig/migrate-wifis"))
    );
    assert!(*config.require_nmgr_file, "an unreachable device is lost");
    assert_eq!(*config.backup_script, None);
    assert_eq!(*config.log_drive, None);
    assert_eq!(*config.log_fs_type, FsType("ext4".into()));
    assert_eq!(config.mem_min_free_s1.bytes(), 64 << 20);
    assert_eq!(*config.mem_min_free_s2, Kilobytes(65536));
    assert_eq!(config.no_flash.from, Origin::Default);
    assert!(config.warnings.is_empty());
}

#[test]
fn blank_values_mean_not_set() {
    let blanks: String = SETTINGS
        .iter()
        .filter(|setting| setting.name != "IMAGE_NAME")
        .map(|setting| format!("{}=\n", setting.name))
        .collect();
    let config = good(&format!("IMAGE_NAME=os.img.gz\n{blanks}"));
    let defaults = good("IMAGE_NAME=os.img.gz");
    assert_eq!(*config.no_flash, *defaults.no_flash);
    assert_eq!(*config.require_nmgr_file, *defaults.require_nmgr_file);
    assert_eq!(*config.home_dir, *defaults.home_dir);
    assert_eq!(*config.mem_min_free_s1, *defaults.mem_min_free_s1);
    assert_eq!(
        *config.migrate_wifi_cfg, None,
        "blank says that there is no list"
    );
}

#[test]
fn values_are_typed() {
    let reboot = |text: &str| *good(&format!("IMAGE_NAME=x\nDO_REBOOT={text}")).do_reboot;
    assert_eq!(reboot("TRUE"), Some(Reboot { seconds: 1 }));
    assert_eq!(reboot("10"), Some(Reboot { seconds: 10 }));
    assert_eq!(reboot("0"), Some(Reboot { seconds: 0 }));
    assert_eq!(reboot("FALSE"), None);
    for (text, expected) in [("TRUE", true), ("true", true), ("Yes", true), ("1", true)]
        .into_iter()
        .chain([
            ("FALSE", false),
            ("no", false),
            ("0", false),
            ("off", false),
        ])
    {
        assert_eq!(
            *good(&format!("IMAGE_NAME=x\nNO_FLASH={text}")).no_flash,
            expected,
            "{text}"
        );
    }
    let config = good("IMAGE_NAME=x LOG_DRIVE=/dev/disk/by-uuid/1234 BALENA_CONFIG=/srv/c.json");
    assert_eq!(
        *config.log_drive,
        Some(DeviceFile("/dev/disk/by-uuid/1234".into()))
    );
    assert_eq!(*config.balena_config, Some(home_file("/srv/c.json")));
}

#[test]
fn lists_are_split_at_blanks_or_at_lines() {
    let files = |text: &str| {
        let config = good(&format!("IMAGE_NAME=x\nCOPY_NMGR_FILES={text}"));
        let files = config.copy_nmgr_files.value.0.iter();
        files.map(|file| file.0.clone()).collect::<Vec<_>>()
    };
    assert_eq!(files("'office  modem'"), ["/mig/office", "/mig/modem"]);
    assert_eq!(
        files("'my office\nmodem\n'"),
        ["/mig/my office", "/mig/modem"]
    );
    assert!(files("").is_empty());
    let config = good("IMAGE_NAME=x MIGRATE_WIFIS='Harbour Office\n\ncafe'");
    assert_eq!(config.migrate_wifis.value.0, ["Harbour Office", "cafe"]);
}

#[test]
fn both_endings_of_a_rehearsal_are_one() {
    for text in ["'exit 0'", "\"reboot -f\"", ""] {
        good(&format!("IMAGE_NAME=x\nTERM_EXIT={text}"));
    }
    let taken = |text: &str| {
        good(&format!("IMAGE_NAME=x\nHAS_WIFI_CFG={text}"))
            .has_wifi_cfg
            .0
    };
    assert_eq!(
        [taken("TRUE"), taken("3"), taken("FALSE"), taken("")],
        [1, 3, 0, 0]
    );
}

#[test]
fn paths_start_at_home_dir_and_home_dir_at_the_current_folder() {
    let config = good("BALENA_CONFIG=config.json\nHOME_DIR=../other/.\nIMAGE_NAME=img/os.gz");
    assert_eq!(*config.home_dir, Folder("/other".into()));
    assert_eq!(*config.image_name, home_file("/other/img/os.gz"));
    assert_eq!(*config.balena_config, Some(home_file("/other/config.json")));
}

#[test]
fn options_win_over_the_file() {
    let overrides = Overrides {
        config: None,
        home: Some("/h".into()),
        values: [
            ("BALENA_CONFIG", "mine.json"),
            ("DO_REBOOT", "5"),
            ("NO_FLASH", "TRUE"),
        ]
        .map(|(name, text)| (name, text.to_owned()))
        .into(),
    };
    let text = "IMAGE_NAME=x\nHOME_DIR=/f\nBALENA_CONFIG=c.json\nDO_REBOOT=FALSE\nNO_FLASH=FALSE";
    let config = merge(text, &overrides);
    assert_eq!(*config.image_name, home_file("/h/x"));
    assert_eq!(*config.balena_config, Some(home_file("/h/mine.json")));
    assert_eq!(*config.do_reboot, Some(Reboot { seconds: 5 }));
    assert!(*config.no_flash);
    assert_eq!(config.no_flash.from, Origin::Flag("--pretend"));
    assert_eq!(config.image_name.from.to_string(), "c:1:1");
}

#[test]
fn the_last_assignment_counts_with_a_warning() {
    let config = good("IMAGE_NAME=a\nIMAGE_NAME=b\n");
    assert_eq!(*config.image_name, home_file("/mig/b"));
    assert_eq!(
        config.warnings,
        ["c:2:1: IMAGE_NAME was set in line 1 already; this value counts, remove the other"]
    );
}

#[test]
fn blank_values_of_the_older_tools_ask_for_nothing() {
    good("IMAGE_NAME=x\nDEBUG=\nGRUB_CFG=\"\"\n");
}

#[test]
fn the_file_is_looked_for_in_home_dir_then_in_the_current_folder() {
    let root = tempfile::tempdir().expect("making a folder");
    let sys = Sys::new(root.path());
    let write = |path: &str, bytes: &[u8]| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("making a folder");
        std::fs::write(path, bytes).expect("writing a file");
    };
    let load = |overrides: &Overrides| config::load(&sys, "/cwd", overrides);
    let home = Overrides {
        home: Some("sub".into()),
        ..Overrides::default()
    };

    let error = load(&home).expect_err("there is none");
    assert_eq!(
        error.to_string(),
        "there is no configuration file, looked for /cwd/sub/balena-migrate.conf and \
         /cwd/balena-migrate.conf; write one as in balena-migrate-sample.conf, or name yours with \
         --config"
    );

    write("cwd/balena-migrate.conf", b"IMAGE_NAME=a");
    let config = load(&home).expect("it is in the current folder");
    assert_eq!(config.file, "/cwd/balena-migrate.conf");
    assert_eq!(*config.image_name, home_file("/cwd/sub/a"));
    assert_eq!(
        *config.migrate_wifi_cfg, None,
        "nobody named it and it is not there"
    );

    write("cwd/sub/migrate-wifis", b"net\n");
    let config = load(&home).expect("as before");
    assert_eq!(
        *config.migrate_wifi_cfg,
        Some(home_file("/cwd/sub/migrate-wifis"))
    );

    write(
        "cwd/sub/balena-migrate.conf",
        b"IMAGE_NAME=a\nBACKUP_SCRIPT=\xff\n",
    );
    let error = load(&home).expect_err("it is not UTF-8");
    assert!(
        matches!(error, LoadError::NotUtf8 { line: 2, .. }),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "/cwd/sub/balena-migrate.conf:2: this line is not UTF-8; save the file as UTF-8"
    );

    write("cwd/sub/balena-migrate.conf", b"IMAGE_NAM=a");
    assert_eq!(
        load(&home).expect_err("it has an error").to_string(),
        "/cwd/sub/balena-migrate.conf:1:1: IMAGE_NAM is not a setting; did you mean IMAGE_NAME?\n\
         /cwd/sub/balena-migrate.conf: IMAGE_NAME is not set; write the name of the file"
    );
}

#[test]
fn the_sample_is_the_table() {
    const SAMPLE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/migratecfg/balena-migrate-sample.conf"
    );
    let made = sample_conf();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(SAMPLE, &made).expect("writing the sample");
    }
    let there = std::fs::read_to_string(SAMPLE).expect("reading the sample");
    assert_eq!(there, made, "make it anew with BLESS=1");
    assert!(made.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn the_reference_is_the_tables() {
    const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migratecfg/REFERENCE.md");
    let made = reference(options::PLAIN, options::RETIRED);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(REFERENCE, &made).expect("writing the reference");
    }
    let there = std::fs::read_to_string(REFERENCE).expect("reading the reference");
    assert_eq!(there, made, "make it anew with BLESS=1");
}

/// Every name of the two READMEs and of the older sample is a setting, or says why it is none.
#[test]
fn no_name_of_the_older_tools_is_unknown() {
    let names = "BACKUP_DEFINITION BACKUP_DIRECTORIES BACKUP_FILE BACKUP_SCRIPT BALENA_API_HOST \
                 BALENA_API_PORT BALENA_CONFIG BALENA_CONNECT_TIMEOUT BALENA_VPN_HOST \
                 BALENA_VPN_PORT BALENA_WIFI COPY_NMGR_FILES DEBUG DEBUG_FUNCTS DO_REBOOT \
                 GRUB_BOOT_DEV GRUB_BOOT_IMG GRUB_CFG GRUB_CORE_IMG GRUB_INSTALL HAS_WIFI_CFG \
                 HOME_DIR IMAGE_NAME LOG_DEBUG LOG_DRIVE LOG_FS_TYPE MAX_BADBLOCKS \
                 MEM_MIN_FREE_S1 MEM_MIN_FREE_S2 MIGRATE_ALL_WIFIS MIGRATE_WIFI_CFG \
                 MIN_ROOT_AVAIL MIN_WRITE_SPEED MK_INITRAM_RETAIN MK_INITRAM_VERBOSE NO_FLASH \
                 NO_SETUP REQUIRE_NMGR_FILE TERM_EXIT WARN_WRITE_SPEED";
    for name in names.split_whitespace() {
        let known =
            Setting::find(name).is_some() || RETIRED.iter().any(|(retired, _)| *retired == name);
        assert!(known, "{name}");
    }
}

#[test]
fn the_sample_shows_the_defaults() {
    let sample = sample_conf().replace("IMAGE_NAME=\n", "IMAGE_NAME=os.img.gz\n");
    let as_it_is = good(&sample);
    let mut uncommented = String::new();
    for line in sample.lines() {
        match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => uncommented.push_str(rest),
            _ => uncommented.push_str(line),
        }
        uncommented.push('\n');
    }
    let written_out = good(&uncommented);
    for setting in SETTINGS {
        assert!(
            uncommented.contains(&format!("\n{}=", setting.name)),
            "{}",
            setting.name
        );
    }
    assert_eq!(*as_it_is.no_flash, *written_out.no_flash);
    assert_eq!(*as_it_is.home_dir, *written_out.home_dir);
    assert_eq!(*as_it_is.migrate_wifi_cfg, *written_out.migrate_wifi_cfg);
    assert_eq!(*as_it_is.log_drive, *written_out.log_drive);
    assert_eq!(*as_it_is.mem_min_free_s2, *written_out.mem_min_free_s2);
}
