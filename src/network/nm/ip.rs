//! The groups ipv4 and ipv6 of keyfiles.
//!
//! They are carried as they stand; what is read here is compared and shown.

use std::net::IpAddr;

use super::super::ip::{Address, Ip, Route};
use super::super::keyfile::Document;

/// Reads both groups. What can't be read is left out: NetworkManager does the same.
pub(super) fn read(file: &Document) -> Ip {
    let mut ip = Ip::default();
    for entry in file.entries() {
        let v6 = match entry.group.as_str() {
            "ipv4" => false,
            "ipv6" => true,
            _ => continue,
        };
        let value = entry.value.trim_end();
        let parts: Vec<&str> = value
            .split([',', ';', ' '])
            .filter(|part| !part.is_empty())
            .collect();
        match entry.key.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "method" => {
                let family = if v6 { &mut ip.v6 } else { &mut ip.v4 };
                family.auto = Some(matches!(value, "auto" | "dhcp"));
            }
            "address" | "addresses" => add_address(&mut ip, &parts),
            "gateway" => parts
                .first()
                .into_iter()
                .for_each(|gateway| set_gateway(&mut ip, gateway)),
            "route" | "routes" => add_route(&mut ip, &parts),
            "dns" => parts
                .iter()
                .filter_map(|server| server.parse().ok())
                .for_each(|server| ip.add_dns(server)),
            "dns-search" => parts.iter().for_each(|domain| ip.add_search(domain)),
            _ => {}
        }
    }
    ip
}

/// `address/prefix`, perhaps a gateway; long ago `address;prefix;gateway;`.
fn add_address(ip: &mut Ip, parts: &[&str]) {
    let (address, rest) = match parts {
        [address, rest @ ..] if address.contains('/') => (Address::parse(address, None), rest),
        [address, prefix, rest @ ..] => (Address::parse(address, Some(prefix)), rest),
        _ => return,
    };
    address
        .into_iter()
        .for_each(|address| ip.add_address(address));
    rest.first()
        .into_iter()
        .for_each(|gateway| set_gateway(ip, gateway));
}

fn set_gateway(ip: &mut Ip, gateway: &str) {
    if let Ok(gateway) = gateway.parse() {
        ip.set_gateway(gateway);
    }
}

fn add_route(ip: &mut Ip, parts: &[&str]) {
    let Some((to, rest)) = parts.split_first() else {
        return;
    };
    let Some(to) = Address::parse(to, None) else {
        return;
    };
    let via = rest.first().and_then(|via| via.parse().ok());
    ip.add_route(Route {
        to,
        via: via.filter(|via: &IpAddr| !via.is_unspecified()),
        metric: rest.get(1).and_then(|metric| metric.parse().ok()),
    });
}
