//! Reads ifupdown's interfaces(5), with the options of the packages wpasupplicant, vlan and
//! resolvconf.
//!
//! Called by [`super::carry`] with all files at once: stanzas of one interface may lie in several.

use super::Source;
use super::ip::{Address, Ip, Route};
use super::model::{Connection, Device, Found, Link, Loss, MAX_VLAN, Skipped, Vlan};
use super::wpa;

const ANOTHER_WAY: &str = "give the new system another way into the network";

/// Reads the files.
pub fn read(sources: &[&Source]) -> Found {
    let mut found = Found::default();
    let mut interfaces: Vec<Interface> = Vec::new();
    for source in sources {
        for stanza in stanzas(source.path, source.bytes) {
            add(stanza, &mut interfaces);
        }
    }
    for interface in interfaces {
        finish(interface, &mut found);
    }
    found
}

/// A line `key value`, its continuations joined.
struct Setting {
    key: String,
    value: String,
    line: usize,
}

/// `iface NAME FAMILY METHOD` and what belongs to it.
struct Stanza {
    path: String,
    line: usize,
    name: String,
    family: String,
    method: String,
    settings: Vec<Setting>,
}

/// All that the stanzas of one interface say.
struct Interface {
    path: String,
    line: usize,
    name: String,
    method: String,
    ip: Ip,
    settings: Vec<Setting>,
}

fn stanzas(path: &str, bytes: &[u8]) -> Vec<Stanza> {
    /// What starts something else than an option.
    const OTHERS: [&str; 7] = [
        "auto",
        "mapping",
        "source",
        "source-directory",
        "no-auto-down",
        "no-scripts",
        "rename",
    ];
    let mut stanzas: Vec<Stanza> = Vec::new();
    let mut is_inside = false;
    for Setting { key, value, line } in settings(bytes) {
        if key == "iface" {
            let mut words = value.split_ascii_whitespace().map(str::to_owned);
            let mut word = || words.next().unwrap_or_default();
            is_inside = true;
            stanzas.push(Stanza {
                path: path.to_owned(),
                line,
                name: word(),
                family: word(),
                method: word(),
                settings: Vec::new(),
            });
        } else if OTHERS.contains(&key.as_str()) || key.starts_with("allow-") {
            is_inside = false;
        } else if let Some(stanza) = stanzas.last_mut().filter(|_| is_inside) {
            stanza.settings.push(Setting { key, value, line });
        }
    }
    stanzas
}

fn settings(bytes: &[u8]) -> Vec<Setting> {
    let text = String::from_utf8_lossy(bytes);
    let mut settings = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let mut line = line.trim().to_owned();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        while let Some(start) = line.strip_suffix('\\') {
            let next = lines.next().map_or("", |(next, _)| next.trim());
            line = format!("{start}{next}");
        }
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((&line, ""));
        settings.push(Setting {
            key: key.to_owned(),
            value: value.trim().to_owned(),
            line: number,
        });
    }
    settings
}

/// Adds a stanza to its interface. `eth0:1` is only a second address of `eth0`.
fn add(stanza: Stanza, interfaces: &mut Vec<Interface>) {
    let name = stanza.name.split(':').next().unwrap_or_default().to_owned();
    let ip = addresses(&stanza);
    let known = interfaces.iter_mut().find(|known| known.name == name);
    let Some(known) = known else {
        interfaces.push(Interface {
            path: stanza.path,
            line: stanza.line,
            name,
            method: stanza.method,
            ip,
            settings: stanza.settings,
        });
        return;
    };
    for (family, more) in [(&mut known.ip.v4, ip.v4), (&mut known.ip.v6, ip.v6)] {
        family.auto = family.auto.or(more.auto);
        family.addresses.extend(more.addresses);
        family.gateway = family.gateway.or(more.gateway);
        family.routes.extend(more.routes);
        family.dns.extend(more.dns);
        family.search.extend(more.search);
    }
    known.settings.extend(stanza.settings);
}

fn addresses(stanza: &Stanza) -> Ip {
    let mut ip = Ip::default();
    let value = |key: &str| {
        let setting = stanza.settings.iter().find(|setting| setting.key == key);
        setting.map(|setting| setting.value.as_str())
    };
    let is_v6 = stanza.family == "inet6";
    match stanza.method.as_str() {
        "static" => {
            let address = value("address").and_then(|a| Address::parse(a, value("netmask")));
            address
                .into_iter()
                .for_each(|address| ip.add_address(address));
            if let Some(gateway) = value("gateway").and_then(|gateway| gateway.parse().ok()) {
                ip.set_gateway(gateway);
            }
        }
        "dhcp" | "auto" => {
            let family = if is_v6 { &mut ip.v6 } else { &mut ip.v4 };
            family.auto = Some(true);
        }
        _ => {}
    }
    for setting in &stanza.settings {
        let words = || setting.value.split_ascii_whitespace();
        match setting.key.as_str() {
            "dns-nameservers" | "dns-nameserver" => words()
                .filter_map(|server| server.parse().ok())
                .for_each(|server| ip.add_dns(server)),
            "dns-search" | "dns-domain" => words().for_each(|domain| ip.add_search(domain)),
            "up" | "post-up" => route(&setting.value)
                .into_iter()
                .for_each(|route| ip.add_route(route)),
            _ => {}
        }
    }
    ip
}

/// `ip route add NETWORK via ROUTER`, or `route add -net NETWORK netmask MASK gw ROUTER`.
fn route(command: &str) -> Option<Route> {
    let words: Vec<&str> = command
        .split_ascii_whitespace()
        .take_while(|word| !matches!(*word, "||" | "&&" | ";"))
        .collect();
    let after = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1).copied()
    };
    let program = words.first()?.rsplit('/').next()?;
    let add = words
        .iter()
        .position(|word| matches!(*word, "add" | "replace"))?;
    let target = words
        .iter()
        .skip(add + 1)
        .find(|word| !matches!(**word, "-net" | "-host" | "to"))?;
    let via: Option<std::net::IpAddr> = match program {
        "ip" if words
            .iter()
            .any(|word| matches!(*word, "route" | "ro" | "r")) =>
        {
            after("via")
        }
        "route" => after("gw"),
        _ => return None,
    }
    .and_then(|via| via.parse().ok());
    let is_v6 = via.is_some_and(|via| via.is_ipv6());
    Some(Route {
        to: Address::parse_target(target, after("netmask"), is_v6)?,
        via,
        metric: after("metric").and_then(|metric| metric.parse().ok()),
    })
}

impl Interface {
    fn get(&self, keys: &[&str]) -> Option<&Setting> {
        let is_wanted = |setting: &&Setting| keys.contains(&setting.key.as_str());
        self.settings.iter().find(is_wanted)
    }

    /// The device below a VLAN, and its tag: by option, as `eth0.10`, or as `vlan10`.
    fn vlan(&self) -> Option<(u16, String)> {
        let option = self.get(&["vlan-raw-device", "vlan_raw_device"]);
        let dotted = self.name.rsplit_once('.');
        let tag = match (self.get(&["vlan-id", "vlan_id"]), dotted) {
            (Some(id), _) => id.value.as_str(),
            (None, Some((_, id))) => id,
            (None, None) => self
                .name
                .strip_prefix("vlan")
                .filter(|_| option.is_some())?,
        };
        let parent = match (option, dotted) {
            (Some(option), _) => option.value.as_str(),
            (None, Some((parent, _))) => parent,
            (None, None) => return None,
        };
        let id = tag.parse().ok().filter(|id| *id <= MAX_VLAN)?;
        Some((id, parent.to_owned()))
    }

    fn lost(&self, setting: &Setting, loss: Loss, what: &str) -> Skipped {
        let (path, line) = (&self.path, setting.line);
        Skipped::new(
            loss,
            path,
            line,
            format!("{}: {what}", self.name),
            ANOTHER_WAY,
        )
    }
}

fn finish(interface: Interface, found: &mut Found) {
    let place = format!("{}:{}", interface.path, interface.line);
    if matches!(interface.method.as_str(), "loopback" | "ppp" | "tunnel") {
        if interface.method == "ppp" {
            let what = "a dialled connection is not carried";
            let skipped = Skipped::new(
                Loss::Other,
                &interface.path,
                interface.line,
                what,
                ANOTHER_WAY,
            );
            found.skipped.push(skipped);
        }
        return;
    }
    let parts = [
        "bridge_ports",
        "bridge-ports",
        "bond-slaves",
        "bond_slaves",
        "slaves",
    ];
    if let Some(setting) = interface.get(&parts) {
        let what = "a bridge or a bond is not carried";
        found
            .skipped
            .push(interface.lost(setting, Loss::Other, what));
        return;
    }
    if is_wifi(&interface, found) {
        return;
    }
    let connection = match interface.vlan() {
        Some((id, parent)) => {
            let parent = Device::Named(parent);
            let link = Link::Vlan(Vlan { id, parent });
            Connection {
                ip: interface.ip,
                ..Connection::new(link, place)
            }
        }
        None => Connection::wired(Device::Named(interface.name), interface.ip, place),
    };
    // An interface that is only brought up needs no file, and neither does a VLAN's parent.
    let is_idle = interface.method == "manual" && connection.ip.is_automatic();
    if !is_idle {
        found.connections.push(connection);
    }
}

/// Reads the wifi network that the stanza describes itself, if it does. One whose networks lie in
/// wpa_supplicant's file gets only its addresses from here.
fn is_wifi(interface: &Interface, found: &mut Found) -> bool {
    let options: Vec<wpa::Written> = interface
        .settings
        .iter()
        .filter_map(|setting| {
            let key = setting.key.strip_prefix("wpa-")?;
            Some((key.to_owned(), setting.value.clone(), setting.line))
        })
        .collect();
    if options.iter().any(|(key, ..)| key == "ssid") {
        let mut read = wpa::read_options(&interface.path, interface.line, &options);
        for connection in &mut read.connections {
            connection.ip = interface.ip.clone();
        }
        found.connections.extend(read.connections);
        found.skipped.extend(read.skipped);
        return true;
    }
    if let Some(setting) = interface.get(&["wpa-conf", "wpa-roam"])
        && !setting.value.starts_with("/etc/wpa_supplicant/")
    {
        let what = "this file of networks is not read";
        found
            .skipped
            .push(interface.lost(setting, Loss::Unnamed, what));
    }
    let Some(name) = interface.get(&["wireless-essid"]) else {
        return false;
    };
    let ssid = name.value.trim_matches('"').as_bytes().to_vec();
    let what = match interface.get(&["wireless-key", "wireless-key1"]) {
        Some(_) => "this network uses WEP, which is broken and not carried",
        None => "a network without any key, by wireless-essid, is not carried",
    };
    let (path, loss) = (&interface.path, Loss::Network(ssid));
    let skipped = Skipped::new(loss, path, name.line, what, ANOTHER_WAY);
    found.skipped.push(skipped);
    true
}
