//! Files of the user's that are wrong, from the disk to the exact words about them. Beside the rows
//! here, tests/config.rs has those of the configuration file and tests/payload.rs those of images.
//!
//! Nothing on the disk changes, whatever is found.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use balena_migrate::bad_blocks;
use balena_migrate::check::{self, Subject};
use balena_migrate::config::{self, Overrides};
use balena_migrate::finding::{Finding, Severity};
use balena_migrate::host::Host;
use balena_migrate::material::{self, DiskTests};
use balena_migrate::sys::Sys;

/// A row: what it is, settings, files of /mig, and all that is said of them.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const DOWNLOAD: &str = "download config.json anew from the fleet's `Add device` dialog";

/// Codes of findings about the machine of these tests, which has neither kernel nor image.
const MACHINE: &[&str] = &["modules", "image", "network-none", "config-json-none"];

const GOOD_JSON: &str = r#"{"apiEndpoint": "https://a", "vpnEndpoint": "v", "apiKey": "k",
    "applicationId": 1, "deviceType": "intel-nuc"}"#;

const WRONG: &[Row] = &[
    (
        "config.json is not there",
        "BALENA_CONFIG=config.json",
        &[],
        &[
            "/mig/config.json can't be read: No such file or directory (os error 2); give BALENA_CONFIG the name of a file in HOME_DIR",
        ],
    ),
    (
        "config.json is a folder",
        "BALENA_CONFIG=dir",
        &[("dir/x", "")],
        &[
            "/mig/dir can't be read: Is a directory (os error 21); give BALENA_CONFIG the name of a file in HOME_DIR",
        ],
    ),
    (
        "config.json is blank",
        "BALENA_CONFIG=c",
        &[("c", "")],
        &["/mig/c:1:0: this is no JSON: EOF while parsing a value; DOWNLOAD"],
    ),
    (
        "config.json is cut off",
        "BALENA_CONFIG=c",
        &[("c", "{\"apiKey\": \"x\"")],
        &["/mig/c:1:14: this is no JSON: EOF while parsing an object; DOWNLOAD"],
    ),
    (
        "config.json is YAML",
        "BALENA_CONFIG=c",
        &[("c", "apiKey: x\n")],
        &["/mig/c:1:1: this is no JSON: expected value; DOWNLOAD"],
    ),
    (
        "config.json is a list",
        "BALENA_CONFIG=c",
        &[("c", "[1]")],
        &["/mig/c: this is no JSON object; DOWNLOAD"],
    ),
    (
        "a backup script that is not there",
        "BACKUP_SCRIPT=backup.sh",
        &[],
        &[
            "the backup script /mig/backup.sh is not there; give BACKUP_SCRIPT the name of a file in HOME_DIR",
        ],
    ),
    (
        "a backup script that can't be run",
        "BACKUP_SCRIPT=backup.sh",
        &[("backup.sh", "#!/bin/sh\n")],
        &["the backup script /mig/backup.sh is not executable; chmod +x /mig/backup.sh"],
    ),
    (
        "a list of networks that is not there",
        "MIGRATE_WIFI_CFG=wifis",
        &[],
        &[
            "/mig/wifis: this file can't be read: No such file or directory (os error 2); correct MIGRATE_WIFI_CFG (/mig/balena-migrate.conf:3:1)",
        ],
    ),
    (
        "a list of networks that the device does not have",
        "MIGRATE_WIFI_CFG=wifis",
        &[("wifis", "Home\n\n  Hafen\n")],
        &[
            "/mig/wifis:1: no wifi network `Home` is configured on this device; configure it here first, or remove it from the list",
            "/mig/wifis:3: no wifi network `  Hafen` is configured on this device; configure it here first, or remove it from the list",
        ],
    ),
    (
        "a network that the device does not have",
        "MIGRATE_WIFIS=Home",
        &[],
        &[
            "/mig/balena-migrate.conf:3:1: no wifi network `Home` is configured on this device; configure it here first, or remove it from the list",
        ],
    ),
    (
        "a keyfile that is not there",
        "COPY_NMGR_FILES=office",
        &[],
        &[
            "/mig/office: this file can't be read: No such file or directory (os error 2); give COPY_NMGR_FILES (--nwmgr-cfg) names of files in HOME_DIR",
        ],
    ),
    (
        "a keyfile that is none",
        "COPY_NMGR_FILES=office",
        &[("office", "network:\n  version: 2\n")],
        &[
            "/mig/office: this is no keyfile of NetworkManager; write it as nm-settings-keyfile(5) says, with a group [connection]",
        ],
    ),
    (
        "a keyfile that NetworkManager would not see",
        "COPY_NMGR_FILES='.office office~ office.orig12'",
        &[
            (".office", "[connection]\nid=x\n"),
            ("office~", "[connection]\nid=x\n"),
            ("office.orig12", "[connection]\nid=x\n"),
        ],
        &[
            "/mig/.office: NetworkManager ignores files whose name starts with a dot; give it a name such as office or office.nmconnection",
            "/mig/office~: NetworkManager ignores files whose name ends with ~; give it a name such as office or office.nmconnection",
            "/mig/office.orig12: NetworkManager ignores files whose name ends with a dot and six letters or digits; give it a name such as office or office.nmconnection",
        ],
    ),
    (
        "two keyfiles of one name",
        "COPY_NMGR_FILES='a/office b/office'",
        &[
            ("a/office", "[connection]\nid=x\n"),
            ("b/office", "[connection]\nid=y\n"),
        ],
        &[
            "/mig/b/office: another network file is to be office in the new system; give it another name",
        ],
    ),
    (
        "a wifi in config.json without a name",
        "BALENA_WIFI=TRUE\nBALENA_CONFIG=c",
        &[("c", GOOD_JSON)],
        &[
            "/mig/c: there is no wifiSsid, which BALENA_WIFI=TRUE asks for; remove BALENA_WIFI, or write wifiSsid and wifiKey",
        ],
    ),
    (
        "a wifi in config.json and no config.json",
        "BALENA_WIFI=TRUE",
        &[],
        &[
            "BALENA_WIFI=TRUE wants the wifi network in config.json, and no config.json is given; set BALENA_CONFIG, or remove BALENA_WIFI",
        ],
    ),
    (
        "a log drive that is not there",
        "LOG_DRIVE=/dev/sdz1",
        &[],
        &[
            "LOG_DRIVE=/dev/sdz1 is no disk, and no partition of one; give LOG_DRIVE a partition on another disk or a USB stick",
        ],
    ),
    (
        "another disk",
        "FLASH_TO=/dev/sdz",
        &[],
        &["FLASH_TO=/dev/sdz is no disk of this machine; its disks are: vda"],
    ),
    (
        "a root file system that is too full",
        "MIN_ROOT_AVAIL=99999999",
        &[],
        &[
            "/ has 1151212 kB free, less than MIN_ROOT_AVAIL=99999999; remove what is not needed, or lower MIN_ROOT_AVAIL",
        ],
    ),
];

/// What is wrong with config.json, one thing a row: the change to a good one, and what is said.
const WRONG_JSON: &[(&str, &str, &str)] = &[
    (
        "\"apiKey\": \"k\"",
        "\"x\": 1",
        "there is neither apiKey nor deviceApiKey: the new system could not log in",
    ),
    (
        "\"apiKey\": \"k\"",
        "\"apiKey\": \"\"",
        "there is neither apiKey nor deviceApiKey: the new system could not log in\napiKey is blank or no text",
    ),
    (
        "\"applicationId\": 1",
        "\"applicationId\": \"mine\"",
        "applicationId is no number",
    ),
    (
        "\"applicationId\": 1",
        "\"applicationId\": 0",
        "applicationId is no number",
    ),
    ("\"applicationId\": 1,", "", "there is no applicationId"),
    (
        "\"deviceType\": \"intel-nuc\"",
        "\"deviceType\": 1",
        "deviceType is blank or no text",
    ),
    (
        "\"vpnEndpoint\": \"v\"",
        "\"x\": 1",
        "there is no vpnEndpoint: the new system will have no remote access",
    ),
    (
        "\"vpnEndpoint\": \"v\"",
        "\"vpnEndpoint\": \"v\", \"vpnPort\": 70000",
        "vpnPort is no port",
    ),
];

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("it has a folder")).expect("making a folder");
    fs::write(path, bytes).expect("writing a file");
}

/// Every file below a folder, with its mode and content.
fn snapshot(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("listing a folder") {
        let path = entry.expect("reading an entry").path();
        let mode = path.metadata().expect("it is there").permissions().mode();
        if path.is_dir() {
            all.extend(snapshot(&path));
            all.insert(path.display().to_string(), (mode, Vec::new()));
        } else {
            let bytes = fs::read(&path).expect("reading a file");
            all.insert(path.display().to_string(), (mode, bytes));
        }
    }
    all
}

/// All that is said of the files.
fn said(settings: &str, files: &[(&str, &str)]) -> Vec<String> {
    let found = found(settings, files, DiskTests::Never);
    found.iter().map(ToString::to_string).collect()
}

/// All that is found; nothing may change.
fn found(settings: &str, files: &[(&str, &str)], tests: DiskTests) -> Vec<Finding> {
    let root = tempfile::tempdir().expect("making a folder");
    write(root.path(), "proc/self/exe", b"the program");
    for (name, text) in files {
        write(root.path(), &format!("mig/{name}"), text.as_bytes());
    }
    let before = snapshot(root.path());
    let text = format!(
        "IMAGE_NAME=x REQUIRE_NMGR_FILE=FALSE\nBALENA_API_HOST= BALENA_VPN_HOST=\n{settings}\n"
    );
    let file = "/mig/balena-migrate.conf";
    let config = config::merge(file, &text, "/mig", &Overrides::default()).expect("it is right");
    let mut config = config;
    if !settings.contains("MIGRATE_WIFI_CFG") {
        config.settings.migrate_wifi_cfg.value = None;
    }
    let mut host: Host =
        serde_json::from_str(include_str!("hosts/debian-12-bios.json")).expect("it is a snapshot");
    host.network.clear();
    let sys = Sys::new(root.path());
    let material = material::gather(&sys, &config, &host, tests, &mut |_| ())
        .expect("nothing is wrong with this machine");
    let subject = Subject {
        config: &config,
        host: &host,
        material: &material,
    };
    let found = check::all(&subject);
    assert_eq!(before, snapshot(root.path()), "{settings}");
    let found = found.into_iter();
    found
        .filter(|found| !MACHINE.contains(&found.code))
        .collect()
}

#[test]
fn what_is_wrong_with_the_files_is_said_and_nothing_changes() {
    for (name, settings, files, expected) in WRONG {
        let expected: Vec<String> = expected
            .iter()
            .map(|line| line.replace("DOWNLOAD", DOWNLOAD))
            .collect();
        assert_eq!(said(settings, files), expected, "{name}");
    }
}

#[test]
fn what_is_wrong_in_config_json_is_said_and_nothing_changes() {
    assert!(said("BALENA_CONFIG=c", &[("c", GOOD_JSON)]).is_empty());
    for (old, new, expected) in WRONG_JSON {
        assert!(GOOD_JSON.contains(old), "{old}");
        let json = GOOD_JSON.replace(old, new);
        let expected: Vec<String> = expected
            .lines()
            .map(|what| format!("/mig/c: {what}; {DOWNLOAD}"))
            .collect();
        assert_eq!(said("BALENA_CONFIG=c", &[("c", &json)]), expected, "{new}");
    }
}

/// No disk is that fast, and every disk is faster than nothing.
#[test]
fn the_speed_of_the_disk_is_measured_only_when_asked_for_and_leaves_nothing() {
    let files = &[("office", "")];
    let codes = |settings: &str, tests| -> Vec<(&str, Severity)> {
        let found = found(settings, files, tests);
        found
            .iter()
            .map(|found| (found.code, found.severity))
            .collect()
    };
    let allowed = DiskTests::Allowed;
    assert_eq!(
        codes("MIN_WRITE_SPEED=999999999", allowed),
        [("write-speed", Severity::Error)]
    );
    assert_eq!(
        codes("MIN_WRITE_SPEED=1\nWARN_WRITE_SPEED=999999999", allowed),
        [("write-speed", Severity::Warning)]
    );
    assert_eq!(codes("MIN_WRITE_SPEED=1", allowed), []);
    assert_eq!(codes("MIN_WRITE_SPEED=999999999", DiskTests::Never), []);
}

/// The disk of / in the snapshot, as a file that is good.
#[test]
fn the_disk_is_scanned_only_when_asked_for_and_what_is_found_is_said() {
    let root = tempfile::tempdir().expect("making a folder");
    let sys = Sys::new(root.path());
    let host: Host =
        serde_json::from_str(include_str!("hosts/debian-12-bios.json")).expect("it is a snapshot");
    let config = |settings: &str| {
        let text = format!("IMAGE_NAME=x\n{settings}\n");
        config::merge("c", &text, "/mig", &Overrides::default()).expect("it is right")
    };
    let mut seen = Vec::new();
    let mut scan = |settings: &str| {
        material::scan_for_bad_blocks(&sys, &config(settings), &host, &mut |done, total| {
            seen.push((done, total));
        })
    };
    let error = scan("MAX_BADBLOCKS=0").expect("it was asked for");
    let error = error.expect_err("there is no disk");
    assert!(
        error.starts_with("reading /dev/vda: No such file"),
        "{error}"
    );
    write(root.path(), "dev/vda", &vec![7; 3 << 20]);
    assert_eq!(scan(""), None);
    let found = scan("MAX_BADBLOCKS=50%").expect("it was asked for");
    let found = found.expect("the disk is there");
    assert_eq!((found.bad, found.limit), (0, 1536));
    assert_eq!(seen.last(), Some(&(3 << 20, 3 << 20)));
}

#[test]
fn bad_blocks_are_an_error_only_above_the_limit() {
    let text =
        "IMAGE_NAME=x MAX_BADBLOCKS=1% REQUIRE_NMGR_FILE=FALSE BALENA_API_HOST= BALENA_VPN_HOST=\n";
    let config = config::merge("c", text, "/mig", &Overrides::default()).expect("it is right");
    let host: Host =
        serde_json::from_str(include_str!("hosts/debian-12-bios.json")).expect("it is a snapshot");
    let root = tempfile::tempdir().expect("making a folder");
    write(root.path(), "proc/self/exe", b"the program");
    let sys = Sys::new(root.path());
    let mut material = material::gather(&sys, &config, &host, DiskTests::Never, &mut |_| ())
        .expect("nothing is wrong with this machine");
    let mut said = |bad: u64| {
        material.bad_blocks = Some(Ok(bad_blocks::Scan {
            bad,
            first: (12..12 + bad).take(5).collect(),
            limit: 6,
        }));
        let found = check::device::bad_blocks(&Subject {
            config: &config,
            host: &host,
            material: &material,
        });
        let found = found.into_iter();
        let found: Vec<_> = found
            .map(|found| (found.severity, found.to_string()))
            .collect();
        found
    };
    assert_eq!(said(0), []);
    assert_eq!(
        said(2),
        [(
            Severity::Warning,
            "the disk vda has 2 bad blocks, no more than MAX_BADBLOCKS=1%: block 12, 13; replace the \
             disk if you can: where some blocks are bad, more will be"
                .to_owned()
        )]
    );
    assert_eq!(
        said(7),
        [(
            Severity::Error,
            "the disk vda has 7 bad blocks or more, MAX_BADBLOCKS=1% lets 6 pass: block 12, 13, 14, \
             15, 16 …; replace the disk: the new system would be on it"
                .to_owned()
        )]
    );
}
