//! Reads NetworkManager's keyfiles.
//!
//! Called by [`super::carry`]. Of a wifi network everything stays that means the same in the new
//! system: addresses, DNS, band, priority. What ties it to the old one goes: uuid, interface name,
//! hardware address, permissions of users. What is lost and may matter is said.

use super::keyfile::{Document, Entry, read_ssid, unescape};
use super::model::{
    Connection, Dropped, Found, KeptSetting, Loss, MAX_SSID_BYTES, Security, Skipped, wpa_psk,
};
use crate::secret::Secret;

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
    ("user", "*"),
    (".nmmeta", "*"),
];

fn lists(table: &[(&str, &str)], group: &str, key: &str) -> bool {
    table
        .iter()
        .any(|row| row.0 == group && (row.1 == key || row.1 == "*"))
}

/// Reads the connection of a file, if it is one of wifi. `path` names it in messages.
pub fn read(path: &str, bytes: &[u8]) -> Found {
    let mut found = Found::default();
    match read_one(path, bytes) {
        Ok(Some(connection)) => found.connections.push(connection),
        Ok(None) => {}
        Err(skipped) => found.skipped.push(*skipped),
    }
    found
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
    match file
        .get("connection", "type")
        .map(|entry| entry.value.trim_end())
    {
        Some("wifi") => {}
        Some(other) => return other_type(path, other, &file).map_or(Ok(None), Err),
        None => return Err(skip(path, 1, "this connection has no type", "correct it")),
    }
    let ssid = ssid(path, &file)?;
    match wifi(path, &file, ssid.clone()) {
        Ok(connection) => Ok(Some(connection)),
        Err(mut skipped) => {
            skipped.loss = Loss::Network(ssid);
            Err(skipped)
        }
    }
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

/// Connections other than wifi are not carried; those without which a device may be cut off are
/// named.
fn other_type(path: &str, type_name: &str, file: &Document) -> Option<Box<Skipped>> {
    let manual = ["ipv4", "ipv6"]
        .iter()
        .filter_map(|group| file.get(group, "method"))
        .find(|method| method.value.trim_end() == "manual");
    let (line, what) = match (type_name, manual) {
        ("ethernet", Some(method)) => (
            method.line,
            "the fixed address of a wired connection".into(),
        ),
        ("gsm" | "cdma" | "vlan" | "pppoe" | "adsl" | "bond", _) => {
            (1, format!("a connection of type {type_name}"))
        }
        _ => return None,
    };
    Some(Box::new(Skipped {
        loss: Loss::Other,
        place: format!("{path}:{line}"),
        what: format!("{what} is not carried by this version"),
        remedy: "make sure that the new system is reached by DHCP on the wire or by wifi".into(),
    }))
}

fn ssid(path: &str, file: &Document) -> Result<Vec<u8>, Box<Skipped>> {
    let entry = file
        .get("wifi", "ssid")
        .ok_or_else(|| skip(path, 1, "this wifi connection has no ssid", "correct it"))?;
    match read_ssid(&entry.value) {
        Some(ssid) if (1..=MAX_SSID_BYTES).contains(&ssid.len()) => Ok(ssid),
        _ => Err(skip(
            path,
            entry.line,
            format!("the ssid is not 1 to {MAX_SSID_BYTES} bytes"),
            "correct it",
        )),
    }
}

fn wifi(path: &str, file: &Document, ssid: Vec<u8>) -> Result<Connection, Box<Skipped>> {
    let value = |group, key| file.get(group, key).map(|entry| entry.value.trim_end());
    if let Some(mode) = file.get("wifi", "mode")
        && !matches!(mode.value.trim_end(), "infrastructure" | "")
    {
        return Err(skip(
            path,
            mode.line,
            "this is a network that the device itself opens",
            "leave it out of the list",
        ));
    }
    if let Some(port) = ["master", "controller"]
        .iter()
        .find_map(|key| file.get("connection", key))
    {
        return Err(skip(
            path,
            port.line,
            "wifi as a part of a bridge or a bond is not carried",
            "give the new system another way into the network",
        ));
    }
    let (kept, dropped) = sort_settings(path, file);
    Ok(Connection {
        ssid,
        security: security(path, file)?,
        hidden: value("wifi", "hidden").is_some_and(|hidden| matches!(hidden, "true" | "1")),
        priority: value("connection", "autoconnect-priority")
            .and_then(|priority| priority.parse().ok())
            .filter(|priority| *priority != 0)
            .map(|priority: i32| priority.clamp(-999, 999)),
        kept,
        dropped,
        place: format!("{path}:1"),
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
                ("ipv6", "addr-gen-mode", mode) if mode != "eui64" => "stable-privacy".into(),
                _ => value.clone(),
            };
            let (group, key) = (group.clone(), key.clone());
            kept.push(KeptSetting { group, key, value });
        } else if !lists(SILENT, group, key) {
            dropped.push(Dropped {
                place: format!("{path}:{line}"),
                setting: format!("[{group}] {key}"),
            });
        }
    }
    (kept, dropped)
}

fn security(path: &str, file: &Document) -> Result<Security, Box<Skipped>> {
    if !file.has_group("wifi-security") {
        return Ok(Security::Open);
    }
    let Some(method) = file.get("wifi-security", "key-mgmt") else {
        let what = "there is a group wifi-security without key-mgmt";
        return Err(skip(path, 1, what, "correct it"));
    };
    match method.value.trim_end() {
        "wpa-psk" => {
            let (key, line) = psk(path, file, method.line)?;
            let what = "the psk is neither 8 to 63 characters nor 64 hexadecimal digits";
            wpa_psk(&key).ok_or_else(|| skip(path, line, what, "correct it"))
        }
        "sae" => psk(path, file, method.line).map(|(key, _)| Security::Sae(Secret::new(key))),
        "none" if file.get("wifi-security", "wep-key0").is_none() => Ok(Security::Open),
        "none" => Err(skip(
            path,
            method.line,
            "this network uses WEP, which is broken and not carried",
            "move the access point to WPA2",
        )),
        other => Err(skip(
            path,
            method.line,
            format!("the key management `{other}` is not carried by this version"),
            "give the new system another way into the network",
        )),
    }
}

/// The key and its line.
fn psk(path: &str, file: &Document, line: usize) -> Result<(Vec<u8>, usize), Box<Skipped>> {
    // The flag says that a user's keyring or nobody has the key, not this file.
    let Some(entry) = file.get("wifi-security", "psk") else {
        return Err(skip(
            path,
            line,
            "the key of this network is not in the file",
            "store it for all users: nmcli connection modify NAME wifi-sec.psk-flags 0 \
             wifi-sec.psk KEY",
        ));
    };
    match unescape(&entry.value).filter(|key| !key.is_empty()) {
        Some(key) => Ok((key.into_bytes(), entry.line)),
        None => Err(skip(
            path,
            entry.line,
            "the psk is blank or has an escape that does not exist",
            "correct it",
        )),
    }
}
