//! Wifi networks of keyfiles.

use super::super::keyfile::{Document, read_ssid, unescape};
use super::super::model::{
    Connection, Link, Loss, MAX_SSID_BYTES, Security, Skipped, Wifi, wpa_psk,
};
use super::{enterprise, skip, value};
use crate::secret::Secret;

/// The network, without the settings that are carried as they are.
pub(super) fn read(path: &str, file: &Document) -> Result<Connection, Box<Skipped>> {
    let ssid = ssid(path, file)?;
    network(path, file, ssid.clone()).map_err(|mut skipped| {
        skipped.loss = Loss::Network(ssid);
        skipped
    })
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

fn network(path: &str, file: &Document, ssid: Vec<u8>) -> Result<Connection, Box<Skipped>> {
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
    let wifi = Wifi {
        ssid,
        security: security(path, file)?,
        hidden: value(file, "wifi", "hidden").is_some_and(|hidden| matches!(hidden, "true" | "1")),
    };
    Ok(Connection::new(Link::Wifi(wifi), format!("{path}:1")))
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
        "owe" => Ok(Security::Owe),
        "wpa-eap" => enterprise::read(path, file, method.line).map(Security::Eap),
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
