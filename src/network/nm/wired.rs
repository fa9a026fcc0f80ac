//! Wires, VLANs and modems of keyfiles.

use super::super::keyfile::Document;
use super::super::model::{
    Connection, Device, Eap, Ethernet, Link, Loss, MAX_VLAN, Skipped, Vlan, mac,
};
use super::{enterprise, value};

const ANOTHER_WAY: &str = "give the new system another way into the network";

/// A wire, without the settings that are carried as they are.
pub(super) fn ethernet(path: &str, file: &Document) -> Result<Connection, Box<Skipped>> {
    for group in ["ipv4", "ipv6"] {
        if let Some(method) = file.get(group, "method")
            && method.value.trim_end() == "shared"
        {
            let what = "a wire that others get their addresses from is not carried";
            return Err(lost(path, method.line, what));
        }
    }
    let eap: Option<Eap> = match file.has_group("802-1x") {
        true => Some(enterprise::read(path, file, 1).map_err(|mut skipped| {
            skipped.loss = Loss::Other;
            skipped
        })?),
        false => None,
    };
    let device = hardware(file, "interface-name");
    let link = Link::Ethernet(Ethernet { device, eap });
    Ok(Connection::new(link, format!("{path}:1")))
}

/// A tagged network.
pub(super) fn vlan(path: &str, file: &Document) -> Result<Connection, Box<Skipped>> {
    let id = value(file, "vlan", "id").and_then(|id| id.parse().ok());
    let Some(id) = id.filter(|id| *id <= MAX_VLAN) else {
        return Err(lost(path, 1, "this VLAN has no id"));
    };
    let parent = match hardware(file, "") {
        Device::Any => parent(file),
        bound => Some(bound),
    };
    let Some(parent) = parent else {
        let what = format!("the hardware below VLAN {id} is not named in the file");
        return Err(lost(path, 1, &what));
    };
    let link = Link::Vlan(Vlan { id, parent });
    Ok(Connection::new(link, format!("{path}:1")))
}

/// The parent by name; the uuid of another connection names no hardware.
fn parent(file: &Document) -> Option<Device> {
    if let Some(parent) = value(file, "vlan", "parent") {
        return (parent.len() < 16).then(|| Device::Named(parent.to_owned()));
    }
    let (parent, _) = value(file, "connection", "interface-name")?.rsplit_once('.')?;
    Some(Device::Named(parent.to_owned()))
}

/// A modem.
pub(super) fn gsm(path: &str, file: &Document) -> Result<Connection, Box<Skipped>> {
    for key in ["password-flags", "pin-flags"] {
        // 1: in a user's keyring, 2: never kept, 4: none needed.
        if let Some(flags) = file.get("gsm", key)
            && !matches!(flags.value.trim_end(), "0" | "4")
        {
            let what = format!(
                "the {} of this modem is not in the file",
                &key[..key.len() - 6]
            );
            return Err(lost(path, flags.line, &what));
        }
    }
    Ok(Connection::new(Link::Gsm, format!("{path}:1")))
}

/// By address, or else by the name that a key of the connection gives.
fn hardware(file: &Document, name_key: &str) -> Device {
    if let Some(mac) = value(file, "ethernet", "mac-address").and_then(mac) {
        return Device::Mac(mac);
    }
    match value(file, "connection", name_key) {
        Some(name) if !name.is_empty() => Device::Named(name.to_owned()),
        _ => Device::Any,
    }
}

fn lost(path: &str, line: usize, what: &str) -> Box<Skipped> {
    Box::new(Skipped::new(Loss::Other, path, line, what, ANOTHER_WAY))
}
