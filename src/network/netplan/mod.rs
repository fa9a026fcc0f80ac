//! Reads netplan's YAML (netplan-yaml(5)).
//!
//! Called by [`super::carry`] with all files at once, in the order of their names: later ones change
//! what earlier ones say.

mod access;
mod addresses;

use serde_yaml::{Mapping, Value};

use super::Source;
use super::keyfile::escape;
use super::model::{
    Connection, Device, Ethernet, Found, KeptSetting, Link, Loss, MAX_VLAN, Skipped, Vlan, mac,
};

const ANOTHER_WAY: &str = "give the new system another way into the network";

/// Reads the files.
pub fn read(sources: &[&Source]) -> Found {
    let mut plan = Plan {
        sources,
        network: Value::Mapping(Mapping::new()),
        found: Found::default(),
    };
    for source in sources {
        plan.add(source);
    }
    for (kind, id, device) in plan.devices() {
        plan.device(&kind, &id, &device);
    }
    plan.found
}

/// All files together.
struct Plan<'a> {
    sources: &'a [&'a Source<'a>],
    network: Value,
    found: Found,
}

impl Plan<'_> {
    fn add(&mut self, source: &Source) {
        match serde_yaml::from_slice::<Value>(source.bytes) {
            Ok(file) => {
                if let Some(network) = file.get("network") {
                    merge(&mut self.network, network.clone());
                }
            }
            Err(error) => {
                let line = error.location().map_or(1, |location| location.line());
                // The text of the error may quote the file, which may hold secrets.
                let what = "this file is no YAML that can be read";
                let (loss, remedy) = (Loss::Other, "correct it: netplan generate");
                let skipped = Skipped::new(loss, source.path, line.max(1), what, remedy);
                self.found.skipped.push(skipped);
            }
        }
    }

    /// Kind, id and settings of every device.
    fn devices(&self) -> Vec<(String, String, Value)> {
        let mut devices = Vec::new();
        for (kind, of_kind) in self.network.as_mapping().into_iter().flatten() {
            for (id, device) in of_kind.as_mapping().into_iter().flatten() {
                if let (Some(kind), Some(id)) = (text(kind), text(id)) {
                    devices.push((kind, id, device.clone()));
                }
            }
        }
        devices
    }

    fn device(&mut self, kind: &str, id: &str, settings: &Value) {
        let made = match kind {
            "ethernets" => self.ethernet(id, settings),
            "vlans" => self.vlan(id, settings),
            "modems" => Ok(vec![self.modem(id, settings)]),
            "wifis" => {
                let place = self.place(id);
                let read = access::read(&place, settings);
                self.found.skipped.extend(read.skipped);
                Ok(read.connections)
            }
            "bridges" | "bonds" | "vrfs" => {
                let what = format!("{id}: one of {kind} is not carried");
                Err(self.lost(id, what))
            }
            // Tunnels need a network below them, which is carried or not by itself.
            _ => Ok(Vec::new()),
        };
        match made {
            Ok(connections) => self.found.connections.extend(connections),
            Err(skipped) => self.found.skipped.push(*skipped),
        }
    }

    fn ethernet(&self, id: &str, settings: &Value) -> Result<Vec<Connection>, Box<Skipped>> {
        let eap = match settings.get("auth") {
            Some(auth) => {
                let eap = access::enterprise(auth, line_of(&self.place(id)));
                Some(eap.map_err(|what| self.lost(id, what))?)
            }
            None => None,
        };
        let device = hardware(id, settings);
        let link = Link::Ethernet(Ethernet { device, eap });
        Ok(vec![Connection {
            ip: addresses::read(settings).map_err(|what| self.lost(id, what))?,
            ..Connection::new(link, self.place(id))
        }])
    }

    fn vlan(&self, name: &str, settings: &Value) -> Result<Vec<Connection>, Box<Skipped>> {
        let id = settings.get("id").and_then(Value::as_u64);
        let id = id.and_then(|id| u16::try_from(id).ok());
        let link = settings.get("link").and_then(text);
        let (Some(id), Some(link)) = (id.filter(|id| *id <= MAX_VLAN), link) else {
            return Err(self.lost(name, format!("{name}: this VLAN has no id or no link")));
        };
        let below = self
            .network
            .get("ethernets")
            .and_then(|all| all.get(link.as_str()));
        let parent = below.map_or(Device::Named(link.clone()), |below| hardware(&link, below));
        Ok(vec![Connection {
            ip: addresses::read(settings).map_err(|what| self.lost(name, what))?,
            ..Connection::new(Link::Vlan(Vlan { id, parent }), self.place(name))
        }])
    }

    fn modem(&self, id: &str, settings: &Value) -> Connection {
        let mut connection = Connection::new(Link::Gsm, self.place(id));
        for key in ["apn", "number", "username", "password", "pin", "network-id"] {
            if let Some(value) = settings.get(key).and_then(text) {
                let setting = KeptSetting::new("gsm", key, &escape(&value));
                connection.kept.push(setting);
            }
        }
        if settings.get("auto-config").and_then(Value::as_bool) == Some(true) {
            connection
                .kept
                .push(KeptSetting::new("gsm", "auto-config", "true"));
        }
        connection
    }

    fn lost(&self, id: &str, what: String) -> Box<Skipped> {
        Box::new(Skipped {
            loss: Loss::Other,
            place: self.place(id),
            what,
            remedy: ANOTHER_WAY.to_owned(),
        })
    }

    /// Where a device is first described. The YAML reader keeps no lines, so its id is looked for.
    fn place(&self, id: &str) -> String {
        for source in self.sources {
            let text = String::from_utf8_lossy(source.bytes);
            let is_head = |line: &str| {
                let line = line.trim();
                let rest = line.trim_start_matches(['"', '\'']).strip_prefix(id);
                rest.is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
            };
            if let Some(at) = text.lines().position(is_head) {
                return format!("{}:{}", source.path, at + 1);
            }
        }
        let path = self.sources.first().map_or("", |source| source.path);
        format!("{path}:1")
    }
}

fn line_of(place: &str) -> usize {
    let line = place
        .rsplit_once(':')
        .and_then(|(_, line)| line.parse().ok());
    line.unwrap_or(1)
}

/// Adds a file to the ones before: mappings and lists grow, anything else is replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Mapping(into), Value::Mapping(from)) => {
            for (key, value) in from {
                match into.get_mut(&key) {
                    Some(there) => merge(there, value),
                    None => {
                        into.insert(key, value);
                    }
                }
            }
        }
        (Value::Sequence(into), Value::Sequence(from)) => {
            for value in from {
                if !into.contains(&value) {
                    into.push(value);
                }
            }
        }
        (into, from) => *into = from,
    }
}

/// By the address or the name that `match` gives, or else by the id.
fn hardware(id: &str, settings: &Value) -> Device {
    let by = settings.get("match");
    let by = |key| by.and_then(|by| by.get(key)).and_then(text);
    if let Some(mac) = by("macaddress").as_deref().and_then(mac) {
        return Device::Mac(mac);
    }
    // What the interface was renamed to is what the snapshot knows it by.
    let name = settings.get("set-name").and_then(text);
    Device::Named(name.or_else(|| by("name")).unwrap_or_else(|| id.to_owned()))
}

/// A scalar as it was meant: passwords and names may look like numbers. Of fractions, and of what is
/// too long for a number, it can't be told what was written.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Every scalar of a list.
fn texts<'a>(value: Option<&'a Value>) -> impl Iterator<Item = String> + 'a {
    let list = value.and_then(Value::as_sequence);
    list.into_iter().flatten().filter_map(text)
}
