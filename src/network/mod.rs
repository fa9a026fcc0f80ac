//! The way into the network: carried from the old system into keyfiles of the new one.
//!
//! Called by the command line, which hands the result to the checks and the planner. [`collect`]
//! reads the files and [`eap`] the certificates that they name; everything else is pure. One reader a
//! format makes [`model::Connection`]s, [`mod@bind`] ties them to hardware, [`mod@select`] chooses
//! among them, [`mod@write`] writes them down.

pub mod bind;
pub mod connman;
pub mod dhcpcd;
pub mod eap;
pub mod given;
pub mod ifupdown;
pub mod ini;
pub mod ip;
pub mod iwd;
pub mod keyfile;
pub mod model;
pub mod netplan;
pub mod networkd;
pub mod nm;
pub mod select;
pub mod wpa;
pub mod write;

use std::collections::BTreeMap;
use std::io;

use crate::config::{Config, Origin};
use crate::finding::{Finding, Severity};
use crate::host::{Host, NetworkKind};
use crate::secret::Secret;
use crate::sys::files::Sys;

use self::bind::{Links, bind};
use self::given::Given;
use self::model::{Found, Link};
use self::select::{Selection, read_list, select};

/// A network file and its content.
pub struct Source<'a> {
    /// Path, for messages.
    pub path: &'a str,
    /// Who reads it.
    pub kind: NetworkKind,
    /// Content. It may hold secrets.
    pub bytes: &'a [u8],
}

/// What goes into the new system, and what has to be said about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Keyfiles for `system-connections`.
    pub keyfiles: Vec<Keyfile>,
    /// What is wrong or lost.
    pub findings: Vec<Finding>,
}

/// A keyfile for NetworkManager in the new system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyfile {
    /// File name, such as `resin-wifi-01`. NetworkManager ignores names with an ending of six
    /// letters and digits, so there is none.
    pub name: String,
    /// Content.
    pub bytes: Secret,
    /// What it is, for people: `wifi Home`, `wired 10.0.0.2/24`.
    pub what: String,
    /// Where the network was found: `file:line`.
    pub place: String,
}

/// Makes keyfiles of the networks in `sources` that `selection` wants. `sys` is only asked for
/// certificates.
pub fn carry(sys: &Sys, sources: &[Source], links: &Links, selection: &Selection) -> Network {
    carry_beside(sys, sources, links, selection, &Given::default())
}

/// As [`carry`], beside what the user gives.
fn carry_beside(
    sys: &Sys,
    sources: &[Source],
    links: &Links,
    selection: &Selection,
    given: &Given,
) -> Network {
    let mut found = read(sources);
    eap::embed(sys, &mut found);
    let (connections, findings) = select(bind(found, links), selection);
    let connections = given.beside(connections);
    let mut numbers = BTreeMap::from([("wifi", given.names_taken)]);
    let mut keyfiles = Vec::new();
    for connection in &connections {
        let kind = match connection.link {
            Link::Wifi(_) => "wifi",
            Link::Ethernet(_) => "ethernet",
            Link::Vlan(_) => "vlan",
            Link::Gsm => "gsm",
        };
        let number = numbers.entry(kind).or_default();
        *number += 1;
        let name = format!("resin-{kind}-{number:02}");
        keyfiles.push(Keyfile {
            bytes: write::write(connection, &name),
            name,
            what: connection.label(),
            place: connection.place.clone(),
        });
    }
    Network { keyfiles, findings }
}

/// Reads every source, those of one kind together: their files may belong together.
fn read(sources: &[Source]) -> Found {
    /// The order decides between equal networks: the first is kept.
    const KINDS: [NetworkKind; 8] = [
        NetworkKind::WpaSupplicant,
        NetworkKind::NetworkManager,
        NetworkKind::Iwd,
        NetworkKind::Connman,
        NetworkKind::Netplan,
        NetworkKind::Ifupdown,
        NetworkKind::Dhcpcd,
        NetworkKind::Networkd,
    ];
    let mut found = Found::default();
    for kind in KINDS {
        let of_kind: Vec<&Source> = sources.iter().filter(|s| s.kind == kind).collect();
        let each = |read: fn(&str, &[u8]) -> Found| {
            let read = of_kind.iter().map(|source| read(source.path, source.bytes));
            read.collect()
        };
        let reads: Vec<Found> = match kind {
            NetworkKind::WpaSupplicant => each(wpa::read),
            NetworkKind::NetworkManager => vec![nm::read(&of_kind)],
            NetworkKind::Iwd => each(iwd::read),
            NetworkKind::Connman => each(connman::read),
            NetworkKind::Dhcpcd => each(dhcpcd::read),
            NetworkKind::Netplan => vec![netplan::read(&of_kind)],
            NetworkKind::Ifupdown => vec![ifupdown::read(&of_kind)],
            NetworkKind::Networkd => vec![networkd::read(&of_kind)],
        };
        for read in reads {
            found.connections.extend(read.connections);
            found.skipped.extend(read.skipped);
        }
    }
    found
}

/// Reads the network files of the device and the list of the configuration, and makes the keyfiles.
/// Files that can't be read are findings, not failures.
pub fn collect(sys: &Sys, config: &Config, host: &Host) -> Network {
    let mut unread = Vec::new();
    let selection = match *config.no_wifis {
        true => Selection::default(),
        false => Selection {
            all: *config.migrate_all_wifis,
            listed: listed(sys, config, &mut unread),
        },
    };
    let given = given::read(sys, config, &mut unread);
    let mut contents = Vec::new();
    for file in &host.network {
        match sys.read(&file.path) {
            Ok(bytes) => contents.push((file, Secret::new(bytes))),
            Err(error) => {
                let remedy = "run as root, or remove the file".to_string();
                unread.push(unreadable(&file.path, Severity::Warning, &error, remedy));
            }
        }
    }
    let sources: Vec<Source> = contents
        .iter()
        .map(|(file, content)| Source {
            path: &file.path,
            kind: file.kind,
            bytes: content.expose(),
        })
        .collect();
    let links = Links {
        interfaces: &host.interfaces,
        live: &host.addresses,
    };
    let mut network = carry_beside(sys, &sources, &links, &selection, &given);
    network.findings.splice(0..0, unread);
    network
}

/// The names in MIGRATE_WIFIS and in the list that MIGRATE_WIFI_CFG names. All of them are wanted
/// anyway with MIGRATE_ALL_WIFIS, so then only a list that was asked for is read, to say what is
/// missing.
fn listed(sys: &Sys, config: &Config, unread: &mut Vec<Finding>) -> Vec<select::Listed> {
    let setting = &config.migrate_wifi_cfg;
    let mut wanted = given::listed(config);
    let Some(list) = setting.as_ref() else {
        return wanted;
    };
    if *config.migrate_all_wifis && setting.from == Origin::Default {
        return wanted;
    }
    match sys.read(&list.0) {
        Ok(bytes) => wanted.extend(read_list(&list.0, &bytes)),
        Err(error) => {
            let remedy = format!("correct MIGRATE_WIFI_CFG ({})", setting.from);
            unread.push(unreadable(&list.0, Severity::Error, &error, remedy));
        }
    }
    wanted
}

fn unreadable(path: &str, severity: Severity, error: &io::Error, remedy: String) -> Finding {
    Finding {
        code: "network-unreadable",
        severity,
        place: Some(path.to_string()),
        what: format!("this file can't be read: {error}"),
        remedy,
    }
}
