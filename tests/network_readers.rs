//! Every reader on files as they lie on a machine, from finding them to the keyfiles made of them.
//!
//! A folder of `fixtures/network` is a machine; `carried.txt` in it shows what is carried. The same
//! keyfiles are loaded by a real NetworkManager in `network_manager/`.

use std::net::IpAddr;
use std::path::Path;

use balena_migrate::host::{self, Interface, NetworkKind};
use balena_migrate::network::bind::Links;
use balena_migrate::network::select::Selection;
use balena_migrate::network::{self, Network, Source};
use balena_migrate::sys::files::Sys;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/network");
const READERS: [&str; 7] = [
    "networkmanager",
    "iwd",
    "connman",
    "netplan",
    "ifupdown",
    "dhcpcd",
    "networkd",
];

/// A file of a machine.
struct File {
    path: String,
    kind: NetworkKind,
    bytes: Vec<u8>,
}

/// The files of a machine, found as on a device.
fn files(reader: &str) -> Vec<File> {
    let sys = Sys::new(Path::new(FIXTURES).join(reader));
    let found = host::network::collect(&sys);
    assert!(!found.is_empty(), "{reader}");
    found
        .into_iter()
        .map(|file| File {
            bytes: sys.read(&file.path).expect("it was found"),
            path: file.path,
            kind: file.kind,
        })
        .collect()
}

fn interfaces() -> Vec<Interface> {
    let interface = |name: &str, mac: &str, wireless| Interface {
        name: name.into(),
        mac: mac.into(),
        up: true,
        wireless,
        made_up: false,
    };
    vec![
        interface("eth0", "52:54:00:00:00:01", false),
        interface("eth1", "52:54:00:00:00:02", false),
        interface("wan0", "52:54:00:00:00:09", false),
        interface("wlan0", "B8:27:EB:00:00:01", true),
    ]
}

fn sources(files: &[File]) -> Vec<Source<'_>> {
    let mut sources = Vec::new();
    for file in files {
        sources.push(Source {
            path: &file.path,
            kind: file.kind,
            bytes: &file.bytes,
        });
    }
    sources
}

/// Certificates are beside the machines.
fn carry(files: &[File], live: &[IpAddr]) -> Network {
    let sources = sources(files);
    let selection = Selection {
        all: true,
        listed: Vec::new(),
    };
    let interfaces = interfaces();
    let links = Links {
        interfaces: &interfaces,
        live,
    };
    network::carry(&Sys::new(FIXTURES), &sources, &links, &selection)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("keyfiles are text")
}

fn shown(network: &Network) -> String {
    let mut shown = String::new();
    for keyfile in &network.keyfiles {
        let content = text(keyfile.bytes.expose());
        shown += &format!(
            "### {}: {} from {}\n{content}\n",
            keyfile.name, keyfile.what, keyfile.place
        );
    }
    shown += "### findings\n";
    for finding in &network.findings {
        shown += &format!("{} {} {finding}\n", finding.severity, finding.code);
    }
    shown
}

#[test]
fn each_reader_carries_what_it_should() {
    for reader in READERS {
        let shown = shown(&carry(&files(reader), &[]));
        let path = Path::new(FIXTURES).join(reader).join("carried.txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &shown).expect("writing the golden file");
        }
        let golden = std::fs::read_to_string(&path).expect("reading the golden file");
        assert_eq!(shown, golden, "{reader}: make it anew with BLESS=1");
    }
}

#[test]
fn no_end_of_a_file_makes_a_reader_stumble() {
    for reader in READERS {
        let mut files = files(reader);
        for index in 0..files.len() {
            let whole = files[index].bytes.clone();
            for end in 0..whole.len() {
                files[index].bytes.truncate(whole.len() - end);
                carry(&files, &[]);
            }
            files[index].bytes = whole;
        }
    }
}

#[test]
fn line_ends_of_windows_change_nothing() {
    for reader in READERS
        .into_iter()
        .filter(|reader| *reader != "networkmanager")
    {
        let unix = files(reader);
        let mut windows = files(reader);
        for file in &mut windows {
            file.bytes = text(&file.bytes).replace('\n', "\r\n").into_bytes();
        }
        assert_eq!(
            shown(&carry(&windows, &[])),
            shown(&carry(&unix, &[])),
            "{reader}"
        );
    }
}

#[test]
fn garbage_is_no_network() {
    let garbage: Vec<u8> = (0..=255).cycle().take(2000).collect();
    for reader in READERS {
        let mut files = files(reader);
        for file in &mut files {
            file.bytes.clone_from(&garbage);
        }
        let carried = carry(&files, &[]);
        // The file's name alone makes an open network of iwd.
        assert!(
            carried.keyfiles.iter().all(|k| k.what == "wifi Station"),
            "{reader}"
        );
    }
}

/// The same wires are described by several systems here: each is carried once.
#[test]
fn one_network_in_the_files_of_two_systems_is_one_keyfile() {
    let mut both = files("ifupdown");
    both.extend(files("networkd"));
    let carried = carry(&both, &[]);
    let names: Vec<&str> = carried.keyfiles.iter().map(|k| k.what.as_str()).collect();
    let count = |what: &str| names.iter().filter(|name| **name == what).count();
    let wire = "wired 192.168.30.2/24 192.168.31.2/24 fd00:30::2/64";
    assert_eq!(count(wire), 1, "{names:?}");
    assert_eq!(count("VLAN 20 10.20.0.2/24"), 1, "{names:?}");
    // The same tag, on two wires.
    assert_eq!(count("VLAN 30 automatic"), 2, "{names:?}");
}

#[test]
fn a_file_that_the_running_system_does_not_use_is_left_behind() {
    let live = ["127.0.0.1", "192.168.30.2"].map(|ip| ip.parse().expect("it is an address"));
    let mut both = files("networkd");
    both.extend(files("dhcpcd"));
    let carried = carry(&both, &live);
    let wires: Vec<&str> = carried
        .keyfiles
        .iter()
        .filter(|keyfile| keyfile.name.starts_with("resin-ethernet"))
        .map(|keyfile| keyfile.place.as_str())
        .collect();
    // Of dhcpcd's, only name servers for the other wire are left, which claim no address.
    assert_eq!(
        wires,
        [
            "/etc/dhcpcd.conf:27",
            "/etc/systemd/network/10-wired.network:1"
        ]
    );
    let finding = carried
        .findings
        .iter()
        .find(|finding| finding.what.contains("in use"));
    assert_eq!(
        finding.expect("it is said").sentence(),
        "/etc/dhcpcd.conf:16: wired 192.168.0.10/24 fd51:42f8:caae:d92e::ff/64: the hardware is up, \
         but without this address: the file is not in use"
    );
}

/// A made-up address is no name for hardware, and the only wire of a machine needs none.
#[test]
fn a_made_up_address_binds_nothing_where_there_is_one_wire() {
    let mut interfaces = interfaces();
    interfaces.retain(|interface| interface.name == "eth0" || interface.wireless);
    interfaces[0].made_up = true;
    let files = files("networkd");
    let sources = sources(&files);
    let links = Links {
        interfaces: &interfaces,
        live: &[],
    };
    let selection = Selection::default();
    let carried = network::carry(&Sys::new(FIXTURES), &sources, &links, &selection);
    let is_wire = |keyfile: &&network::Keyfile| keyfile.name == "resin-ethernet-01";
    let wire = carried
        .keyfiles
        .iter()
        .find(is_wire)
        .expect("it is carried");
    let content = text(wire.bytes.expose());
    assert!(content.contains("192.168.30.2/24"), "{content}");
    assert!(!content.contains("mac-address"), "{content}");
}
