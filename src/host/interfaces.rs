//! The network hardware of the device and the addresses that it has now. Called by the collector.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Interface;
use crate::sys::Sys;

const CLASS: &str = "/sys/class/net";

/// Interfaces with a device behind them, sorted by name: no bridges, tunnels, VLANs or loopback.
pub(super) fn collect(sys: &Sys) -> Vec<Interface> {
    let mut interfaces = Vec::new();
    for name in sys.list(CLASS).unwrap_or_default() {
        let dir = format!("{CLASS}/{name}");
        let read = |file: &str| {
            let text = sys.read_text(&format!("{dir}/{file}")).ok()?;
            Some(text.trim().to_owned())
        };
        let Some(mac) = read("address").filter(|mac| mac.len() == 17) else {
            continue;
        };
        if sys.exists(&format!("{dir}/device")) {
            interfaces.push(Interface {
                mac: mac.to_ascii_uppercase(),
                up: read("operstate").is_some_and(|state| state == "up"),
                wireless: ["wireless", "phy80211"]
                    .iter()
                    .any(|file| sys.exists(&format!("{dir}/{file}"))),
                // 0: the hardware's own. 1: random, 2: another's, 3: set by a program.
                made_up: read("addr_assign_type").is_some_and(|kind| kind != "0"),
                name,
            });
        }
    }
    interfaces
}

/// Addresses of this machine in the files of /proc/net that every user may read.
pub(super) fn addresses(sys: &Sys) -> Vec<IpAddr> {
    let v4 = sys.read_text("/proc/net/fib_trie").unwrap_or_default();
    let v6 = sys.read_text("/proc/net/if_inet6").unwrap_or_default();
    let mut addresses: Vec<IpAddr> = local_v4(&v4)
        .into_iter()
        .map(IpAddr::V4)
        .chain(local_v6(&v6).into_iter().map(IpAddr::V6))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// In fib_trie an address of this machine is a leaf `|-- 10.0.0.2` followed by `/32 host LOCAL`.
fn local_v4(text: &str) -> Vec<Ipv4Addr> {
    let mut local = Vec::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            local.extend(leaf);
        }
    }
    local
}

/// if_inet6 starts each line with 32 hexadecimal digits.
fn local_v6(text: &str) -> Vec<Ipv6Addr> {
    text.lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .filter(|digits| digits.len() == 32)
        .filter_map(|digits| u128::from_str_radix(digits, 16).ok())
        .map(Ipv6Addr::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_hardware_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("sys/class/net");
        for (name, mac, state, device) in [
            ("eth0", "52:54:00:aa:bb:0c", "up", true),
            ("lo", "00:00:00:00:00:00", "unknown", false),
            ("wlan0", "b8:27:eb:00:00:01", "down", true),
            ("eth0.10", "52:54:00:aa:bb:0c", "up", false),
        ] {
            let folder = class.join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("address"), format!("{mac}\n")).unwrap();
            fs::write(folder.join("operstate"), format!("{state}\n")).unwrap();
            let kind = if name == "wlan0" { "3\n" } else { "0\n" };
            fs::write(folder.join("addr_assign_type"), kind).unwrap();
            if device {
                symlink("../../../pci", folder.join("device")).unwrap();
            }
        }
        symlink("../../phy0", class.join("wlan0/phy80211")).unwrap();
        let found = collect(&Sys::new(dir.path()));
        let shown: Vec<String> = found
            .iter()
            .map(|i| format!("{} {} {} {} {}", i.name, i.mac, i.up, i.wireless, i.made_up))
            .collect();
        assert_eq!(
            shown,
            [
                "eth0 52:54:00:AA:BB:0C true false false",
                "wlan0 B8:27:EB:00:00:01 false true true",
            ]
        );
    }

    #[test]
    fn addresses_of_the_machine() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.2.0\n        /24 link UNICAST\n     \
                    |-- 10.0.2.15\n        /32 host LOCAL\n     |-- 10.0.2.255\n        /32 link \
                    BROADCAST\n";
        assert_eq!(local_v4(trie), [Ipv4Addr::new(10, 0, 2, 15)]);
        let inet6 = "fd000000000000000000000000000002 02 40 00 80     eth0\n";
        assert_eq!(local_v6(inet6), ["fd00::2".parse::<Ipv6Addr>().unwrap()]);
    }
}
