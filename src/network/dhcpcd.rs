//! Reads the fixed addresses of dhcpcd.conf(5), as older Raspberry Pi OS has them.
//!
//! Called by [`super::carry`]. Settings before the first `interface` are for all of them.

use super::ip::{Address, Ip};
use super::model::{Connection, Device, Found, Loss, Skipped};

const ANOTHER_WAY: &str = "give the new system another way into the network";

/// A block of the file.
struct Block {
    line: usize,
    head: Head,
    ip: Ip,
}

enum Head {
    Global,
    Interface(String),
    Other(&'static str),
}

/// Reads the file.
pub fn read(path: &str, bytes: &[u8]) -> Found {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Found::default();
    let mut blocks = vec![Block {
        line: 1,
        head: Head::Global,
        ip: Ip::default(),
    }];
    for (line, number) in text.lines().zip(1..) {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let head = match word {
            "interface" => Head::Interface(rest.trim().to_owned()),
            "ssid" => Head::Other("settings for a single wifi network are not carried"),
            "profile" => Head::Other("an address for when DHCP fails is not carried"),
            _ => {
                if let Some(block) = blocks.last_mut() {
                    apply(&mut block.ip, word, rest.trim());
                }
                continue;
            }
        };
        blocks.push(Block {
            line: number,
            head,
            ip: Ip::default(),
        });
    }
    let everywhere = blocks.remove(0).ip;
    for block in blocks {
        finish(path, block, &everywhere, &mut found);
    }
    found
}

fn finish(path: &str, block: Block, everywhere: &Ip, found: &mut Found) {
    let mut ip = block.ip;
    match block.head {
        Head::Interface(name) => {
            for (family, all) in [(&mut ip.v4, &everywhere.v4), (&mut ip.v6, &everywhere.v6)] {
                if family.dns.is_empty() {
                    family.dns.clone_from(&all.dns);
                }
                if family.search.is_empty() {
                    family.search.clone_from(&all.search);
                }
            }
            let place = format!("{path}:{}", block.line);
            let device = Device::Named(name);
            found.connections.push(Connection::wired(device, ip, place));
        }
        Head::Other(what) if !ip.is_automatic() => {
            let skipped = Skipped::new(Loss::Other, path, block.line, what, ANOTHER_WAY);
            found.skipped.push(skipped);
        }
        Head::Other(_) | Head::Global => {}
    }
}

/// Applies a line: `static name=value`, `inform address`, `nodhcp`, …
fn apply(ip: &mut Ip, word: &str, rest: &str) {
    let (name, value) = match (word, rest.split_once('=')) {
        ("static", Some((name, value))) => (name.trim(), value.trim()),
        ("inform", _) => ("ip_address", rest),
        ("nodhcp" | "noipv4", _) => {
            ip.v4.auto = Some(false);
            return;
        }
        ("noipv6" | "noipv6rs", _) => {
            ip.v6.auto = Some(false);
            return;
        }
        _ => return,
    };
    let words = || value.split_ascii_whitespace();
    match name {
        "ip_address" | "ip6_address" => {
            let address = words().next().and_then(|text| Address::parse(text, None));
            address
                .into_iter()
                .for_each(|address| ip.add_address(address));
        }
        "routers" => {
            let gateway = words().next().and_then(|gateway| gateway.parse().ok());
            gateway
                .into_iter()
                .for_each(|gateway| ip.set_gateway(gateway));
        }
        "domain_name_servers" => words()
            .filter_map(|server| server.parse().ok())
            .for_each(|server| ip.add_dns(server)),
        "domain_name" | "domain_search" => words().for_each(|domain| ip.add_search(domain)),
        _ => {}
    }
}
