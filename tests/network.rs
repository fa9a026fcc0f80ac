//! Wifi networks from captured files of the old system to keyfiles of the new one.

use balena_migrate::config::{self, Overrides};
use balena_migrate::finding::{Finding, Severity};
use balena_migrate::host::{Host, NetworkFile, NetworkKind};
use balena_migrate::network::bind::Links;
use balena_migrate::network::select::{Selection, read_list};
use balena_migrate::network::{self, Network, Source};
use balena_migrate::sys::files::Sys;

const WPA: &str = include_str!("fixtures/network/wpa_supplicant.conf");
const CAFE: &str = include_str!("fixtures/network/cafe.nmconnection");
const OLD_NAMES: &str = include_str!("fixtures/network/old-names");
const ETHERNET: &str = include_str!("fixtures/network/eth-static.nmconnection");

fn wpa(text: &str) -> Source<'_> {
    Source {
        path: "wpa.conf",
        kind: NetworkKind::WpaSupplicant,
        bytes: text.as_bytes(),
    }
}

fn nm<'a>(path: &'a str, text: &'a str) -> Source<'a> {
    Source {
        path,
        kind: NetworkKind::NetworkManager,
        bytes: text.as_bytes(),
    }
}

/// Carries on a machine whose files are those of the test itself.
fn carry(sources: &[Source], selection: &Selection) -> Network {
    const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/network");
    network::carry(&Sys::new(FILES), sources, &Links::default(), selection)
}

fn all() -> Selection {
    Selection {
        all: true,
        listed: Vec::new(),
    }
}

fn list(text: &str) -> Selection {
    Selection {
        all: false,
        listed: read_list("wifis", text.as_bytes()),
    }
}

fn from_windows(text: &str) -> String {
    text.replace('\n', "\r\n")
}

fn texts(network: &Network) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("keyfiles are text");
    network
        .keyfiles
        .iter()
        .map(|keyfile| text(keyfile.bytes.expose()))
        .collect()
}

/// What was carried of wifi.
fn wifis(network: &Network) -> Vec<&str> {
    let whats = network.keyfiles.iter().map(|keyfile| keyfile.what.as_str());
    whats.filter(|what| what.starts_with("wifi ")).collect()
}

fn findings(network: &Network) -> Vec<String> {
    let line = |p: &Finding| format!("{:?} {} {p}", p.severity, p.code);
    network.findings.iter().map(line).collect()
}

/// All that was made of the sources, in a form to read.
fn shown(network: &Network) -> String {
    let mut shown = String::new();
    for (keyfile, text) in network.keyfiles.iter().zip(texts(network)) {
        shown += &format!(
            "### {}: {} from {}\n{text}\n",
            keyfile.name, keyfile.what, keyfile.place
        );
    }
    shown + "### findings\n" + &findings(network).join("\n") + "\n"
}

fn sources() -> [Source<'static>; 4] {
    [
        wpa(WPA),
        nm("cafe.nmconnection", CAFE),
        nm("old-names", OLD_NAMES),
        nm("eth-static.nmconnection", ETHERNET),
    ]
}

#[test]
fn everything_that_can_be_carried_is_carried() {
    const GOLDEN: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/network/carried.txt"
    );
    let shown = shown(&carry(&sources(), &all()));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(GOLDEN, &shown).expect("writing the golden file");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("reading the golden file");
    assert_eq!(shown, golden, "make it anew with BLESS=1");
}

#[test]
fn line_ends_of_windows_change_nothing() {
    let (wpa_text, cafe) = (from_windows(WPA), from_windows(CAFE));
    let unix = carry(&[wpa(WPA), nm("cafe", CAFE)], &all());
    assert_eq!(carry(&[wpa(&wpa_text), nm("cafe", &cafe)], &all()), unix);
}

#[test]
fn a_list_chooses_by_exact_name() {
    let carried = carry(&sources(), &list("\u{feff}Caf\u{e9}\r\n\r\nHome Net\n"));
    let ssids: Vec<&str> = wifis(&carried);
    assert_eq!(ssids, ["wifi Home Net", "wifi Caf\u{e9}"]);
    assert!(
        carried
            .findings
            .iter()
            .all(|p| p.severity == Severity::Warning)
    );
}

#[test]
fn a_listed_network_that_is_not_carried_is_an_error() {
    let carried = carry(
        &sources(),
        &list("home net\nelsewhere\noffice\nHome Net \n"),
    );
    assert!(wifis(&carried).is_empty());
    let errors: Vec<String> = findings(&carried)
        .into_iter()
        .filter(|line| line.starts_with("Error"))
        .collect();
    assert_eq!(
        errors,
        [
            "Error network-not-found wifis:1: no wifi network `home net` is configured on this \
             device; did you mean `Home Net`? The name must match exactly",
            "Error network-not-found wifis:2: no wifi network `elsewhere` is configured on this \
             device; configure it here first, or remove it from the list",
            "Error network-not-found wifis:4: no wifi network `Home Net ` is configured on this \
             device; did you mean `Home Net`? The name must match exactly",
            "Error network-skipped wpa.conf:47: wifi network `office`: the EAP method `leap` is not \
             carried; give the new system another way into the network",
        ]
    );
}

#[test]
fn without_a_selection_only_wires_are_carried() {
    let carried = carry(&sources(), &Selection::default());
    let whats: Vec<&str> = carried.keyfiles.iter().map(|k| k.what.as_str()).collect();
    assert_eq!(whats, ["wired automatic", "wired 10.0.0.2/24"]);
    let codes: Vec<&str> = carried.findings.iter().map(|f| f.code).collect();
    assert_eq!(codes, ["network-two"]);
}

#[test]
fn one_network_from_two_files_is_one_keyfile() {
    let twin =
        "network={\nssid=\"Caf\u{e9}\"\npsk=\" space first\\\"\nscan_ssid=1\npriority=20\n}\n";
    let carried = carry(&[wpa(twin), nm("cafe", CAFE)], &all());
    let [text] = texts(&carried).try_into().expect("one keyfile");
    assert!(text.contains("hidden=true"), "{text}");
    assert!(text.contains("autoconnect-priority=20"), "{text}");
    assert!(text.contains("address1=192.168.7.20/24"), "{text}");
}

#[test]
fn a_keyfile_hides_later_ones_of_its_uuid() {
    let file = |ssid: &str| format!("[connection]\ntype=wifi\nuuid=ab-1\n[wifi]\nssid={ssid}\n");
    let (etc, run) = (file("new"), file("old").replace("ab-1", "AB-1"));
    let carried = carry(&[nm("etc", &etc), nm("run", &run)], &all());
    assert_eq!(wifis(&carried), ["wifi new"]);
}

#[test]
fn two_keys_for_one_name_are_both_tried() {
    let text =
        "network={\nssid=\"a\"\npsk=\"password1\"\n}\nnetwork={\nssid=\"a\"\npsk=\"password2\"\n}";
    assert_eq!(carry(&[wpa(text)], &all()).keyfiles.len(), 2);
}

#[test]
fn ssids_are_text_only_when_nothing_can_be_misread() {
    for (written, expected) in [
        ("\"plain Net-1\"", "plain Net-1"),
        ("\"1234\"", "1234"),
        ("\"#a=[b]\"", "#a=[b]"),
        ("\" a\"", "32;97;"),
        ("\"a \"", "97;32;"),
        ("\"a;b\"", "97;59;98;"),
        ("\"a\\b\"", "97;92;98;"),
        ("\"\u{e4}\"", "195;164;"),
        ("00ff", "0;255;"),
        ("P\"a\\x20\\101\\e\"", "97;32;65;27;"),
    ] {
        let text = format!("network={{\nssid={written}\nkey_mgmt=NONE\n}}");
        let carried = carry(&[wpa(&text)], &all());
        let [keyfile] = texts(&carried).try_into().expect("one keyfile");
        assert!(
            keyfile.contains(&format!("\nssid={expected}\n")),
            "{written}: {keyfile}"
        );
    }
}

#[test]
fn what_no_keyfile_can_say_is_refused() {
    for (text, expected) in [
        (
            "ssid=\"\"\npsk=\"12345678\"",
            "c:2: the ssid has 0 bytes instead of 1 to 32",
        ),
        (
            "ssid=\"123456789012345678901234567890123\"",
            "c:2: the ssid has 33 bytes instead of 1 to 32",
        ),
        (
            "ssid=abc",
            "c:2: the ssid is neither in quotes nor hexadecimal",
        ),
        (
            "ssid=\"a",
            "c:2: the ssid is neither in quotes nor hexadecimal",
        ),
        (
            "ssid=\"a\"\npsk=plainword",
            "c:3: wifi network `a`: the psk is neither 8 to 63 characters in quotes nor 64 \
             hexadecimal digits",
        ),
        (
            "ssid=\"a\"\nkey_mgmt=SAE",
            "c:3: wifi network `a`: this network has neither sae_password nor psk",
        ),
        (
            "ssid=\"a\"\nkey_mgmt=SAE\npsk=0123",
            "c:4: wifi network `a`: WPA3 needs the password itself, in quotes",
        ),
        (
            "ssid=\"a\"\nkey_mgmt=DPP",
            "c:3: wifi network `a`: the key management `DPP` is not carried",
        ),
    ] {
        let text = format!("network={{\n{text}\n}}");
        let source = Source {
            path: "c",
            ..wpa(&text)
        };
        let carried = carry(&[source], &all());
        let [finding] = carried.findings.try_into().expect("one finding");
        assert_eq!(finding.sentence(), expected);
    }
}

#[test]
fn keyfiles_that_cannot_be_carried_are_refused() {
    let file = |rest: &str| format!("[connection]\ntype=wifi\n[wifi]\nssid=a\n{rest}");
    for (text, expected) in [
        (
            "type=wifi".into(),
            "k:1: this line is no setting of a keyfile",
        ),
        (
            "[connection]\nid=a".into(),
            "k:1: this connection has no type",
        ),
        (
            "[connection]\ntype=wifi".into(),
            "k:1: this wifi connection has no ssid",
        ),
        (
            file("mode=ap"),
            "k:5: wifi network `a`: this is a network that the device itself opens",
        ),
        (
            file("[wifi-security]\nkey-mgmt=wpa-psk\npsk-flags=1"),
            "k:6: wifi network `a`: the key of this network is not in the file",
        ),
        (
            file("[wifi-security]\nkey-mgmt=wpa-psk\npsk=\\q12345678"),
            "k:7: wifi network `a`: the psk is blank or has an escape that does not exist",
        ),
        (
            file("[wifi-security]\nkey-mgmt=wpa-psk\npsk=1234567"),
            "k:7: wifi network `a`: the psk is neither 8 to 63 characters nor 64 hexadecimal digits",
        ),
        (
            file("[wifi-security]\nkey-mgmt=wpa-eap"),
            "k:6: wifi network `a`: no EAP method is named",
        ),
        (
            file("[wifi-security]\nkey-mgmt=ieee8021x"),
            "k:6: wifi network `a`: the key management `ieee8021x` is not carried by this version",
        ),
        (
            file("[wifi-security]\nkey-mgmt=none\nwep-key0=12345"),
            "k:6: wifi network `a`: this network uses WEP, which is broken and not carried",
        ),
        (
            "[connection]\ntype=wifi\nmaster=br0\n[wifi]\nssid=a".into(),
            "k:3: wifi network `a`: wifi as a part of a bridge or a bond is not carried",
        ),
        (
            "[connection]\ntype=pppoe".into(),
            "k:2: a connection of type pppoe is not carried by this version",
        ),
        (
            "[connection]\ntype=vlan\n[vlan]\nparent=eth0".into(),
            "k:1: this VLAN has no id",
        ),
        (
            "[connection]\ntype=gsm\n[gsm]\napn=a\npin-flags=1".into(),
            "k:5: the pin of this modem is not in the file",
        ),
    ] {
        let text: String = text;
        let carried = carry(&[nm("k", &text)], &all());
        let [finding] = carried.findings.try_into().expect("one finding");
        assert_eq!(finding.sentence(), expected);
    }
}

#[test]
fn no_text_makes_the_readers_stumble() {
    let garbage: Vec<u8> = (0..=255)
        .chain(*b"\nnetwork={\nssid=P\"\\\"\npsk=\"\n}\n[a\n")
        .collect();
    for text in [WPA, CAFE, OLD_NAMES]
        .map(str::as_bytes)
        .into_iter()
        .chain([&garbage[..]])
    {
        for end in 0..=text.len() {
            for kind in [NetworkKind::WpaSupplicant, NetworkKind::NetworkManager] {
                let bytes = &text[..end];
                carry(
                    &[Source {
                        path: "x",
                        kind,
                        bytes,
                    }],
                    &all(),
                );
            }
        }
    }
}

fn host_with(network: Vec<NetworkFile>) -> Host {
    let captured = include_str!("hosts/debian-12-bios.json");
    let host: Host = serde_json::from_str(captured).expect("it is a host");
    Host { network, ..host }
}

#[test]
fn files_are_read_from_the_machine() {
    let root = tempfile::tempdir().expect("making a folder");
    for (path, text) in [
        ("etc/wpa_supplicant/wpa_supplicant.conf", WPA),
        ("mig/migrate-wifis", "Home Net\n"),
        ("mig/balena-migrate.conf", "IMAGE_NAME=x\n"),
        ("mig/other.conf", "IMAGE_NAME=x MIGRATE_WIFI_CFG=wifis"),
    ] {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("making a folder");
        std::fs::write(path, text).expect("writing a file");
    }
    let sys = Sys::new(root.path());
    let wpa_file = |path: &str| NetworkFile {
        path: path.into(),
        kind: NetworkKind::WpaSupplicant,
    };
    let files = [
        wpa_file("/etc/wpa_supplicant/wpa_supplicant.conf"),
        wpa_file("/etc/gone"),
    ];

    let load = |name: &str| {
        let overrides = Overrides {
            config: Some(name.into()),
            ..Overrides::default()
        };
        config::load(&sys, "/mig", &overrides).expect("it is right")
    };
    let host = host_with(files.to_vec());
    let carried = network::collect(&sys, &load("balena-migrate.conf"), &host);
    let ssids: Vec<&str> = wifis(&carried);
    assert_eq!(ssids, ["wifi Home Net"]);
    assert_eq!(carried.findings[0].place.as_deref(), Some("/etc/gone"));
    assert_eq!(carried.findings[0].severity, Severity::Warning);

    let carried = network::collect(&sys, &load("other.conf"), &host);
    assert!(wifis(&carried).is_empty());
    assert_eq!(
        carried.findings[0].to_string(),
        "/mig/wifis: this file can't be read: No such file or directory (os error 2); correct \
         MIGRATE_WIFI_CFG (/mig/other.conf:1:14)"
    );
    assert_eq!(carried.findings[0].severity, Severity::Error);
}
