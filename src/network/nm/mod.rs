//! Reads NetworkManager's keyfiles.
//!
//! Called by [`super::carry`]. Of a connection everything stays that means the same in the new
//! system: addresses, DNS, band, priority. What ties it to the old one goes: uuid, interface name,
//! hardware address, permissions of users. What is lost and may matter is said.

mod enterprise;
mod ip;
mod wifi;
mod wired;

use super::Source;
use super::keyfile::{Document, Entry};
use super::model::{Connection, Dropped, Found, KeptSetting, Loss, Skipped};

/// Settings that stay as they are: group and key, `*` for every key of the group.
const KEPT: &[(&str, &str)] = &[
    ("connection", "autoconnect"),
    ("connection", "autoconnect-retries"),
    ("connection", "metered"),
    ("wifi", "band"),
    ("wifi", "bssid"),
    ("wifi", "channel"),
    ("wifi", "cloned-mac-address"),
    ("wifi", "mtu"),
    ("wifi", "powersave"),
    ("wifi-security", "group"),
    ("wifi-security", "pairwise"),
    ("wifi-security", "pmf"),
    ("wifi-security", "proto"),
    ("ethernet", "auto-negotiate"),
    ("ethernet", "cloned-mac-address"),
    ("ethernet", "duplex"),
    ("ethernet", "mtu"),
    ("ethernet", "speed"),
    ("ethernet", "wake-on-lan"),
    ("vlan", "egress-priority-map"),
    ("vlan", "flags"),
    ("vlan", "ingress-priority-map"),
    ("gsm", "*"),
    ("serial", "*"),
    ("ppp", "*"),
    ("ipv4", "*"),
    ("ipv6", "*"),
    ("proxy", "*"),
];

/// Settings that are made anew or mean nothing in the new system, and go without a word.
const SILENT: &[(&str, &str)] = &[
    ("connection", "autoconnect-priority"),
    ("connection", "id"),
    ("connection", "interface-name"),
    ("connection", "permissions"),
    ("connection", "timestamp"),
    ("connection", "type"),
    ("connection", "uuid"),
    ("wifi", "hidden"),
    ("wifi", "mac-address"),
    ("wifi", "mac-address-blacklist"),
    ("wifi", "mac-address-denylist"),
    ("wifi", "mac-address-randomization"),
    ("wifi", "mode"),
    ("wifi", "security"),
    ("wifi", "seen-bssids"),
    ("wifi", "ssid"),
    ("wifi-security", "auth-alg"),
    ("wifi-security", "key-mgmt"),
    ("wifi-security", "leap-password-flags"),
    ("wifi-security", "psk"),
    ("wifi-security", "psk-flags"),
    ("wifi-security", "wep-key-flags"),
    ("wifi-security", "wps-method"),
    ("ethernet", "mac-address"),
    ("ethernet", "mac-address-blacklist"),
    ("ethernet", "mac-address-denylist"),
    ("vlan", "id"),
    ("vlan", "interface-name"),
    ("vlan", "parent"),
    ("802-1x", "*"),
    ("user", "*"),
    (".nmmeta", "*"),
];

fn lists(table: &[(&str, &str)], group: &str, key: &str) -> bool {
    table
        .iter()
        .any(|row| row.0 == group && (row.1 == key || row.1 == "*"))
}

/// Reads the connections of the files that are ways into the network. Of two files for one
/// connection, the first counts: /etc hides /run, and that /usr/lib.
pub fn read(sources: &[&Source]) -> Found {
    let mut found = Found::default();
    let mut seen: Vec<String> = Vec::new();
    for source in sources {
        let uuid = uuid(source.bytes);
        if uuid.as_ref().is_some_and(|uuid| seen.contains(uuid)) {
            continue;
        }
        seen.extend(uuid);
        match read_one(source.path, source.bytes) {
            Ok(Some(connection)) => found.connections.push(connection),
            Ok(None) => {}
            Err(skipped) => found.skipped.push(*skipped),
        }
    }
    found
}

/// What tells connections apart.
fn uuid(bytes: &[u8]) -> Option<String> {
    let file = Document::parse(std::str::from_utf8(bytes).ok()?).ok()?;
    value(&file, "connection", "uuid").map(str::to_ascii_lowercase)
}

fn read_one(path: &str, bytes: &[u8]) -> Result<Option<Connection>, Box<Skipped>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| skip(path, 1, "this file is not UTF-8", "save it as UTF-8"))?;
    let file = Document::parse(text).map_err(|bad| {
        skip(
            path,
            bad.line,
            "this line is no setting of a keyfile",
            "correct it",
        )
    })?;
    let file = with_new_names(file);
    let Some(type_of) = file.get("connection", "type") else {
        return Err(skip(path, 1, "this connection has no type", "correct it"));
    };
    let connection = match type_of.value.trim_end() {
        "wifi" => wifi::read(path, &file)?,
        "ethernet" | "vlan" if is_port(&file) => return Ok(None),
        "ethernet" => wired::ethernet(path, &file)?,
        "vlan" => wired::vlan(path, &file)?,
        "gsm" => wired::gsm(path, &file)?,
        other => return other_type(path, other, type_of.line).map_or(Ok(None), Err),
    };
    let (kept, dropped) = sort_settings(path, &file);
    Ok(Some(Connection {
        ip: ip::read(&file),
        priority: value(&file, "connection", "autoconnect-priority")
            .and_then(|priority| priority.parse().ok())
            .filter(|priority| *priority != 0)
            .map(|priority: i32| priority.clamp(-999, 999)),
        kept,
        dropped,
        ..connection
    }))
}

/// Whether it is a part of a bridge or a bond, which has a file of its own.
fn is_port(file: &Document) -> bool {
    ["master", "controller"]
        .iter()
        .any(|key| file.get("connection", key).is_some())
}

fn value<'a>(file: &'a Document, group: &str, key: &str) -> Option<&'a str> {
    file.get(group, key).map(|entry| entry.value.trim_end())
}

fn skip(path: &str, line: usize, what: impl Into<String>, remedy: &str) -> Box<Skipped> {
    Box::new(Skipped {
        loss: Loss::Unnamed,
        place: format!("{path}:{line}"),
        what: what.into(),
        remedy: remedy.into(),
    })
}

/// Groups and types had longer names once, and both are still read.
fn with_new_names(file: Document) -> Document {
    let new_name = |old: &str| match old {
        "802-11-wireless" => Some("wifi"),
        "802-11-wireless-security" => Some("wifi-security"),
        "802-3-ethernet" => Some("ethernet"),
        _ => None,
    };
    file.map(|mut entry| {
        if let Some(group) = new_name(&entry.group) {
            entry.group = group.into();
        }
        let is_type = entry.group == "connection" && entry.key == "type";
        if let Some(value) = new_name(entry.value.trim_end()).filter(|_| is_type) {
            entry.value = value.into();
        }
        entry
    })
}

/// Connections of other types are not carried; those without which a device may be cut off are
/// named.
fn other_type(path: &str, type_name: &str, line: usize) -> Option<Box<Skipped>> {
    let carries = [
        "cdma",
        "pppoe",
        "adsl",
        "bond",
        "bridge",
        "team",
        "infiniband",
    ];
    carries.contains(&type_name).then(|| {
        let what = format!("a connection of type {type_name} is not carried by this version");
        let remedy = "make sure that the new system is reached by DHCP on the wire or by wifi";
        Box::new(Skipped::new(Loss::Other, path, line, what, remedy))
    })
}

/// Sorts the settings into those that stay and those whose loss is said.
fn sort_settings(path: &str, file: &Document) -> (Vec<KeptSetting>, Vec<Dropped>) {
    let mut kept = Vec::new();
    let mut dropped = Vec::new();
    for Entry {
        group,
        key,
        value,
        line,
    } in file.entries()
    {
        if lists(KEPT, group, key) {
            let value = match (group.as_str(), key.as_str(), value.trim_end()) {
                // The default of the old system may be another than that of the new one.
                ("ipv6", "addr-gen-mode", mode) if mode != "eui64" => "stable-privacy".into(),
                _ => value.clone(),
            };
            kept.push(KeptSetting::new(group, key, &value));
        } else if !lists(SILENT, group, key) {
            dropped.push(Dropped {
                place: format!("{path}:{line}"),
                setting: format!("[{group}] {key}"),
            });
        }
    }
    (kept, dropped)
}
