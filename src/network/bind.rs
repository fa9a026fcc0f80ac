//! Binds connections to hardware: names of interfaces change from system to system, addresses of
//! the hardware don't.
//!
//! Called by [`super::carry`] between the readers and the choice. A fixed address that a file gives
//! to a wifi interface goes to the wifi networks, which other files have.

use std::net::IpAddr;

use super::ip::Ip;
use super::model::{Connection, Device, Found, Link, Loss, Skipped};
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
    for connection in found.connections {
        if connection.is_default() {
            continue;
        }
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

enum Bound {
    Connection(Connection),
    ForWifi(Connection),
    Lost(Skipped),
}

fn bind_one(mut connection: Connection, links: &Links) -> Bound {
    let device = match &mut connection.link {
        Link::Ethernet(ethernet) => &mut ethernet.device,
        Link::Vlan(vlan) => &mut vlan.parent,
        Link::Wifi(_) | Link::Gsm => return Bound::Connection(connection),
    };
    let interface = match device {
        Device::Any => None,
        Device::Mac(mac) => links.interfaces.iter().find(|known| known.mac == *mac),
        Device::Named(name) => {
            let Some(interface) = links.named(name) else {
                let what = format!("`{name}` is no network hardware of this machine");
                return Bound::Lost(lost(&connection, what));
            };
            *device = Device::Mac(interface.mac.clone());
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
