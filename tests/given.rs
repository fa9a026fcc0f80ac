//! What the user gives of the network beside what the device has: the wifi in config.json, names of
//! networks, and the numbers in the names of keyfiles.

use std::path::Path;

use balena_migrate::config::{self, Overrides};
use balena_migrate::host::{Host, NetworkFile, NetworkKind};
use balena_migrate::network::{self, Network};
use balena_migrate::sys::Sys;

const WPA: &str = "network={\n ssid=\"Home\"\n psk=\"hidden123\"\n}\n\
                   network={\n ssid=\"Harbour Office\"\n psk=\"waves and wind\"\n}\n";

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("making a folder");
    std::fs::write(path, text).expect("writing a file");
}

/// What is carried from a device with two networks, with `settings` and this config.json.
fn collect(settings: &str, config_json: &str) -> Network {
    let root = tempfile::tempdir().expect("making a folder");
    write(root.path(), "wpa.conf", WPA);
    write(root.path(), "mig/config.json", config_json);
    let text = format!("IMAGE_NAME=x\nBALENA_CONFIG=config.json\nMIGRATE_WIFI_CFG=\n{settings}");
    let config = config::merge("c", &text, "/mig", &Overrides::default()).expect("it is right");
    let wpa = NetworkFile {
        path: "/wpa.conf".into(),
        kind: NetworkKind::WpaSupplicant,
    };
    let text = include_str!("hosts/debian-12-bios.json");
    let mut host: Host = serde_json::from_str(text).expect("it is a snapshot");
    host.network = vec![wpa];
    network::collect(&Sys::new(root.path()), &config, &host)
}

fn names(network: &Network) -> Vec<String> {
    let files = network.keyfiles.iter();
    files
        .map(|file| format!("{} {}", file.name, file.what))
        .collect()
}

fn said(network: &Network) -> Vec<String> {
    network.findings.iter().map(ToString::to_string).collect()
}

const HOME: &str = r#"{"wifiSsid": "Home", "wifiKey": "hidden123"}"#;

#[test]
fn the_wifi_of_config_json_becomes_a_keyfile() {
    let network = collect("BALENA_WIFI=TRUE\n", HOME);
    assert_eq!(names(&network), ["resin-wifi-01 wifi Home"]);
    let text = String::from_utf8(network.keyfiles[0].bytes.expose().to_vec()).expect("it is text");
    assert!(text.contains("ssid=Home\n"), "{text}");
    assert!(text.contains("key-mgmt=wpa-psk\npsk=hidden123\n"), "{text}");
    assert!(said(&network).is_empty());

    let open = collect(
        "BALENA_WIFI=TRUE\n",
        r#"{"wifiSsid": "Café", "wifiKey": ""}"#,
    );
    assert_eq!(names(&open), ["resin-wifi-01 wifi Café"]);
    assert!(names(&collect("", HOME)).is_empty(), "nobody asked for it");
}

#[test]
fn the_wifi_of_config_json_is_carried_once() {
    let both = collect("BALENA_WIFI=TRUE\nMIGRATE_ALL_WIFIS=TRUE\n", HOME);
    assert_eq!(
        names(&both),
        [
            "resin-wifi-01 wifi Home",
            "resin-wifi-02 wifi Harbour Office"
        ]
    );
    let other = r#"{"wifiSsid": "Home", "wifiKey": "another key"}"#;
    let both = collect("BALENA_WIFI=TRUE\nMIGRATE_ALL_WIFIS=TRUE\n", other);
    assert_eq!(names(&both).len(), 3, "either key may be the right one");
}

#[test]
fn a_wifi_of_config_json_that_is_none_is_said() {
    assert_eq!(
        said(&collect("BALENA_WIFI=TRUE\n", "{}")),
        [
            "/mig/config.json: there is no wifiSsid, which BALENA_WIFI=TRUE asks for; remove \
          BALENA_WIFI, or write wifiSsid and wifiKey"
        ]
    );
    assert_eq!(
        said(&collect(
            "BALENA_WIFI=TRUE\n",
            r#"{"wifiSsid": "Home", "wifiKey": "short"}"#
        )),
        [
            "/mig/config.json: wifiSsid is longer than 32 bytes, or wifiKey is no WPA key; write a \
          phrase of 8 to 63 characters or 64 hexadecimal digits"
        ]
    );
    assert_eq!(
        said(&collect("BALENA_WIFI=TRUE\nBALENA_CONFIG=\n", "{}")),
        [
            "BALENA_WIFI=TRUE wants the wifi network in config.json, and no config.json is given; set \
          BALENA_CONFIG, or remove BALENA_WIFI"
        ]
    );
}

#[test]
fn numbers_start_behind_those_of_the_image() {
    let first = |setting: &str| {
        let network = collect(&format!("MIGRATE_ALL_WIFIS=TRUE\n{setting}\n"), "{}");
        network.keyfiles[0].name.clone()
    };
    assert_eq!(first(""), "resin-wifi-01");
    assert_eq!(first("HAS_WIFI_CFG=TRUE"), "resin-wifi-02");
    assert_eq!(first("HAS_WIFI_CFG=3"), "resin-wifi-04");
    assert_eq!(first("HAS_WIFI_CFG=0"), "resin-wifi-01");
}

#[test]
fn networks_are_chosen_by_name_or_not_at_all() {
    let one = collect("MIGRATE_WIFIS='Harbour Office'\n", "{}");
    assert_eq!(names(&one), ["resin-wifi-01 wifi Harbour Office"]);
    let none = collect(
        "MIGRATE_WIFIS=Home MIGRATE_ALL_WIFIS=TRUE NO_WIFIS=TRUE\n",
        "{}",
    );
    assert!(names(&none).is_empty());
    assert!(said(&none).is_empty());
    assert_eq!(
        said(&collect("MIGRATE_WIFIS=Hone\n", "{}")),
        [
            "c:4:1: no wifi network `Hone` is configured on this device; did you mean `Home`? The \
          name must match exactly"
        ]
    );
}
