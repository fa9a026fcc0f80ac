//! Binds connections to hardware: names of interfaces change from system to system, addresses of
//! the hardware don't.
//!
//! Called by [`super::carry`] between the readers and the choice. A fixed address that a file gives
//! to a wifi interface goes to the wifi networks, which other files have.

use std::net::IpAddr;

use super::ip::Ip;
use super::model::{Connection, Device, Ethernet, Found, Link, Loss, Skipped, Vlan};
use crate::host::Interface;

/// The network hardware of the machine, and what it uses now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Links<'a> {
    /// Hardware.
    pub interfaces: &'a [Interface],
    /// Addresses that the machine has now; none when that is not known.
    pub live: &'a [IpAddr],
}

impl Links<'_> {
    fn named(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|known| known.name == name)
    }

    /// What the new system finds it by. An address that was made up may be another there; the only
    /// wire of a machine needs none.
    fn stable_name(&self, interface: &Interface) -> Device {
        let wires = self.interfaces.iter().filter(|known| !known.wireless);
        match interface.made_up && wires.count() == 1 {
            true => Device::Any,
            false => Device::Mac(interface.mac.clone()),
        }
    }

    /// Whether an address is one that the machine has now.
    fn is_live(&self, ip: &Ip) -> bool {
        ip.addresses()
            .any(|address| self.live.contains(&address.ip))
    }
}

/// Binds all that was found.
pub fn bind(found: Found, links: &Links) -> Found {
    let mut bound = Found {
        connections: Vec::new(),
        skipped: found.skipped,
    };
    let mut for_wifi: Vec<Connection> = Vec::new();
    let wanted = found.connections.into_iter().filter(|c| !c.is_default());
    for connection in wanted.flat_map(|connection| expand(connection, links)) {
        match bind_one(connection, links) {
            Bound::Connection(connection) => bound.connections.push(connection),
            Bound::ForWifi(connection) => for_wifi.push(connection),
            Bound::Lost(skipped) => bound.skipped.push(skipped),
        }
    }
    for addresses in for_wifi {
        give_to_wifi(addresses, &mut bound);
    }
    bound
}

/// One connection for each piece of hardware that a pattern such as `en* eth0` means.
fn expand(connection: Connection, links: &Links) -> Vec<Connection> {
    let (Link::Ethernet(Ethernet { device, .. }) | Link::Vlan(Vlan { parent: device, .. })) =
        &connection.link
    else {
        return vec![connection];
    };
    let Device::Named(patterns) = device else {
        return vec![connection];
    };
    let patterns: Vec<&str> = patterns.split_ascii_whitespace().collect();
    let is_meant = |interface: &&Interface| {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| matches(pattern.as_bytes(), interface.name.as_bytes()))
    };
    let meant: Vec<&Interface> = links.interfaces.iter().filter(is_meant).collect();
    if meant.is_empty() {
        return vec![connection];
    }
    let on = |interface: &&Interface| {
        let mut connection = connection.clone();
        if let Some(device) = connection.device_mut() {
            *device = Device::Named(interface.name.clone());
        }
        connection
    };
    meant.iter().map(on).collect()
}

/// Whether a name fits a pattern with `*` and `?`. After a mismatch only the last star is tried
/// again, so that no pattern takes long.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, from)) = star else {
                    return false;
                };
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

enum Bound {
    Connection(Connection),
    ForWifi(Connection),
    Lost(Skipped),
}

fn bind_one(mut connection: Connection, links: &Links) -> Bound {
    // A VLAN has to name what is below it.
    let is_vlan = matches!(connection.link, Link::Vlan(_));
    let Some(device) = connection.device_mut() else {
        return Bound::Connection(connection);
    };
    let interface = match device {
        Device::Any => None,
        Device::Mac(mac) => links.interfaces.iter().find(|known| known.mac == *mac),
        Device::Named(name) => {
            let Some(interface) = links.named(name) else {
                let what = format!("`{name}` is no network hardware of this machine");
                return Bound::Lost(lost(&connection, what));
            };
            *device = match is_vlan {
                true => Device::Mac(interface.mac.clone()),
                false => links.stable_name(interface),
            };
            Some(interface)
        }
    };
    let is_up = interface.is_some_and(|interface| interface.up);
    if interface.is_some_and(|interface| interface.wireless) {
        return Bound::ForWifi(connection);
    }
    let is_known = !links.live.is_empty() && connection.ip.addresses().next().is_some();
    if is_known && is_up && !links.is_live(&connection.ip) {
        let what = "the hardware is up, but without this address: the file is not in use";
        return Bound::Lost(lost(&connection, what.to_owned()));
    }
    Bound::Connection(connection)
}

fn lost(connection: &Connection, what: String) -> Skipped {
    Skipped {
        loss: Loss::Other,
        place: connection.place.clone(),
        what: format!("{}: {what}", connection.label()),
        remedy: "make sure that the new system is reached without it".to_owned(),
    }
}

/// Gives addresses to the wifi networks whose own files say nothing about them.
fn give_to_wifi(addresses: Connection, bound: &mut Found) {
    let mut given = false;
    for connection in &mut bound.connections {
        let has_own = |group: &str| connection.kept.iter().any(|kept| kept.group == group);
        let is_free = connection.ip.is_automatic() && !has_own("ipv4") && !has_own("ipv6");
        if connection.wifi().is_some() && is_free {
            connection.ip = addresses.ip.clone();
            given = true;
        }
    }
    if !given {
        let what = "no wifi network was found to use it with".to_owned();
        bound.skipped.push(lost(&addresses, what));
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_of_names() {
        for (pattern, name) in [
            ("en*", "enp3s0"),
            ("eth?", "eth0"),
            ("*", "x"),
            ("e*s0*", "enp3s0"),
        ] {
            assert!(
                matches(pattern.as_bytes(), name.as_bytes()),
                "{pattern} {name}"
            );
        }
        for (pattern, name) in [
            ("en*", "eth0"),
            ("eth?", "eth10"),
            ("", "x"),
            ("*1", "eth0"),
        ] {
            assert!(
                !matches(pattern.as_bytes(), name.as_bytes()),
                "{pattern} {name}"
            );
        }
    }
}
