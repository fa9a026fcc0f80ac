//! Reads systemd-networkd's `.network` and `.netdev` files with their drop-ins.
//!
//! Called by [`super::carry`] with all files at once: a VLAN is spread over three.

use super::Source;
use super::ini::{self, Section};
use super::ip::{Address, Ip, Route};
use super::model::{Connection, Device, Found, Link, Loss, MAX_VLAN, Skipped, Vlan, mac};

const ANOTHER_WAY: &str = "give the new system another way into the network";

/// A unit: the sections of the file and of its drop-ins, in order.
struct Unit<'a> {
    path: &'a str,
    sections: Vec<Section>,
}

/// Reads the files.
pub fn read(sources: &[&Source]) -> Found {
    let mut units: Vec<Unit> = Vec::new();
    for source in sources {
        let mut sections = ini::parse(source.bytes);
        match units.last_mut() {
            Some(unit) if is_drop_in(source.path, unit.path) => unit.sections.append(&mut sections),
            _ => units.push(Unit {
                path: source.path,
                sections,
            }),
        }
    }
    let mut found = Found::default();
    let vlans: Vec<(String, u16)> = units.iter().filter_map(|u| vlan(u, &mut found)).collect();
    let parents: Vec<(String, Device)> = units.iter().flat_map(parents).collect();
    for unit in units.iter().filter(|unit| unit.path.ends_with(".network")) {
        let device = unit.device();
        let of_vlan = match &device {
            Device::Named(name) => vlans.iter().find(|(vlan, _)| vlan == name),
            _ => None,
        };
        let link = match of_vlan {
            None => None,
            Some((name, id)) => match parents.iter().find(|(vlan, _)| vlan == name) {
                Some((_, parent)) => Some(Link::Vlan(Vlan {
                    id: *id,
                    parent: parent.clone(),
                })),
                None => {
                    let what = format!("no file names the hardware below VLAN {name}");
                    found.skipped.push(unit.lost(1, what));
                    continue;
                }
            },
        };
        finish(unit, device, link, &mut found);
    }
    found
}

/// Drop-ins follow their unit and lie in a folder named after it.
fn is_drop_in(path: &str, unit: &str) -> bool {
    let unit = unit.rsplit('/').next().unwrap_or_default();
    let folder = path.rsplit('/').nth(1).unwrap_or_default();
    folder.strip_suffix(".d") == Some(unit)
}

/// Name and tag of a `.netdev`; other kinds of devices are said.
fn vlan(unit: &Unit, found: &mut Found) -> Option<(String, u16)> {
    if !unit.path.ends_with(".netdev") {
        return None;
    }
    let name = unit.value("NetDev", "Name")?;
    let kind = unit.value("NetDev", "Kind")?;
    if kind != "vlan" {
        let what = format!("{name}: a device of kind {kind} is not carried");
        found.skipped.push(unit.lost(1, what));
        return None;
    }
    let id = unit.value("VLAN", "Id").and_then(|id| id.parse().ok());
    match id.filter(|id| *id <= MAX_VLAN) {
        Some(id) => Some((name.to_owned(), id)),
        None => {
            found
                .skipped
                .push(unit.lost(1, format!("{name}: this VLAN has no Id")));
            None
        }
    }
}

/// Names of VLANs over the hardware of a `.network`.
fn parents<'a>(unit: &'a Unit) -> impl Iterator<Item = (String, Device)> + 'a {
    let device = unit.device();
    unit.values("Network", "VLAN")
        .map(move |name| (name.to_owned(), device.clone()))
}

fn finish(unit: &Unit, device: Device, link: Option<Link>, found: &mut Found) {
    // Parts of a bridge or a bond: the file of that device says what is lost.
    let masters = ["Bridge", "Bond"];
    if masters
        .iter()
        .any(|key| unit.value("Network", key).is_some())
    {
        return;
    }
    let mut ip = Ip::default();
    if let Err((line, text)) = unit.addresses(&mut ip) {
        found
            .skipped
            .push(unit.lost(line, format!("`{text}` is no address")));
        return;
    }
    let place = format!("{}:1", unit.path);
    found.connections.push(match link {
        Some(link) => Connection {
            ip,
            ..Connection::new(link, place)
        },
        None => Connection::wired(device, ip, place),
    });
}

impl Unit<'_> {
    fn sections<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Section> + 'a {
        self.sections
            .iter()
            .filter(move |section| section.name == name)
    }

    /// Every value of a key, without those that an empty one takes back.
    fn values<'a>(&'a self, section: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        let mut values = Vec::new();
        for entry in self.sections(section).flat_map(|section| &section.entries) {
            match entry.key == key {
                true if entry.value.is_empty() => values.clear(),
                true => values.push(entry.value.as_str()),
                false => {}
            }
        }
        values.into_iter()
    }

    fn value(&self, section: &str, key: &str) -> Option<&str> {
        let sections = self.sections.iter().rev();
        let mut named = sections.filter(|known| known.name == section);
        named.find_map(|section| section.value(key))
    }

    /// The hardware of [Match]: by address, or by names, which may hold `*`.
    fn device(&self) -> Device {
        let address = ["MACAddress", "PermanentMACAddress"]
            .iter()
            .find_map(|key| mac(self.value("Match", key)?));
        if let Some(mac) = address {
            return Device::Mac(mac);
        }
        match (self.value("Match", "Name"), self.value("Match", "Type")) {
            (Some(names), _) => Device::Named(names.to_owned()),
            (None, Some("wlan")) => Device::Named("wl*".to_owned()),
            (None, _) => Device::Named("e*".to_owned()),
        }
    }

    fn lost(&self, line: usize, what: String) -> Skipped {
        Skipped::new(Loss::Other, self.path, line, what, ANOTHER_WAY)
    }

    /// Reads [Network], [Address] and [Route]. An address that can't be read is the error.
    fn addresses(&self, ip: &mut Ip) -> Result<(), (usize, String)> {
        match self.value("Network", "DHCP").unwrap_or("no") {
            "yes" | "true" | "both" => {
                ip.v4.auto = Some(true);
                ip.v6.auto = Some(true);
            }
            "ipv4" | "v4" => ip.v4.auto = Some(true),
            "ipv6" | "v6" => ip.v6.auto = Some(true),
            _ => {}
        }
        if matches!(self.value("Network", "IPv6AcceptRA"), Some("no" | "false"))
            && ip.v6.auto.is_none()
        {
            ip.v6.auto = Some(false);
        }
        for section in self.sections("Network").chain(self.sections("Address")) {
            let lines = section
                .entries
                .iter()
                .filter(|entry| entry.key == "Address");
            for entry in lines.filter(|entry| !entry.value.is_empty()) {
                let address = Address::parse(&entry.value, None);
                ip.add_address(address.ok_or_else(|| (entry.line, entry.value.clone()))?);
            }
        }
        let gateways = self.values("Network", "Gateway");
        gateways
            .filter_map(|gateway| gateway.parse().ok())
            .for_each(|gateway| ip.set_gateway(gateway));
        for servers in self.values("Network", "DNS") {
            servers
                .split_ascii_whitespace()
                .filter_map(|server| server.parse().ok())
                .for_each(|server| ip.add_dns(server));
        }
        for domains in self.values("Network", "Domains") {
            // `~domain` only routes questions, it is not searched.
            let domains = domains.split_ascii_whitespace();
            let domains = domains.filter(|domain| !domain.starts_with('~'));
            domains.for_each(|domain| ip.add_search(domain));
        }
        self.sections("Route")
            .filter_map(route)
            .for_each(|route| ip.add_route(route));
        Ok(())
    }
}

fn route(section: &Section) -> Option<Route> {
    let via: Option<std::net::IpAddr> = section.value("Gateway").and_then(|via| via.parse().ok());
    let is_v6 = via.is_some_and(|via| via.is_ipv6());
    let to = section.value("Destination").unwrap_or("default");
    Some(Route {
        to: Address::parse_target(to, None, is_v6)?,
        via,
        metric: section
            .value("Metric")
            .and_then(|metric| metric.parse().ok()),
    })
}
