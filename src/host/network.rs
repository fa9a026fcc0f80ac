//! Finds the network configuration files of the device, without reading more of them than which
//! others they include. Called by the collector.

use super::{NetworkFile, NetworkKind};
use crate::sys::Sys;

const WPA_SUPPLICANT: &str = "/etc/wpa_supplicant";
const CONNMAN: &str = "/var/lib/connman";
const IWD: &str = "/var/lib/iwd";
const DHCPCD: &str = "/etc/dhcpcd.conf";
const INTERFACES: &str = "/etc/network/interfaces";

/// Folders of keyfiles, first to last by which wins, and whether the user edits files there.
const KEYFILES: [(&str, bool); 3] = [
    ("/etc/NetworkManager/system-connections", true),
    ("/run/NetworkManager/system-connections", false),
    ("/usr/lib/NetworkManager/system-connections", false),
];

/// Folders of systemd-networkd and of netplan, first to last by which wins: a file hides those of
/// its name in the later folders.
const NETWORKD: [&str; 2] = ["/etc/systemd/network", "/run/systemd/network"];
const NETPLAN: [&str; 3] = ["/etc/netplan", "/run/netplan", "/lib/netplan"];

/// All network files, sorted within their folders. A folder that can't be listed has none.
pub fn collect(sys: &Sys) -> Vec<NetworkFile> {
    let mut files = regular_files(sys, WPA_SUPPLICANT, NetworkKind::WpaSupplicant, |name| {
        name.starts_with("wpa_supplicant") && name.ends_with(".conf")
    });
    for (dir, edited) in KEYFILES {
        files.extend(regular_files(
            sys,
            dir,
            NetworkKind::NetworkManager,
            |name| is_keyfile(name, edited),
        ));
    }
    files.extend(regular_files(sys, IWD, NetworkKind::Iwd, |name| {
        let kinds = [".psk", ".open", ".8021x"];
        kinds.iter().any(|kind| name.ends_with(kind))
    }));
    files.extend(connman(sys));
    files.extend(hiding(sys, &NETPLAN, NetworkKind::Netplan, is_netplan));
    files.extend(ifupdown(sys));
    if is_file(sys, DHCPCD) {
        files.push(file(DHCPCD.to_owned(), NetworkKind::Dhcpcd));
    }
    files.extend(networkd(sys));
    files
}

fn file(path: String, kind: NetworkKind) -> NetworkFile {
    NetworkFile { path, kind }
}

fn is_file(sys: &Sys, path: &str) -> bool {
    sys.meta(path).is_ok_and(|meta| meta.is_file)
}

fn is_netplan(name: &str) -> bool {
    name.ends_with(".yaml") && !name.starts_with('.')
}

fn regular_files(
    sys: &Sys,
    dir: &str,
    kind: NetworkKind,
    wanted: impl Fn(&str) -> bool,
) -> Vec<NetworkFile> {
    let mut files = Vec::new();
    for name in sys.list(dir).unwrap_or_default() {
        let path = format!("{dir}/{name}");
        if wanted(&name) && is_file(sys, &path) {
            files.push(file(path, kind));
        }
    }
    files
}

/// Files of several folders, without those that a file of an earlier folder hides.
fn hiding(
    sys: &Sys,
    dirs: &[&str],
    kind: NetworkKind,
    wanted: impl Fn(&str) -> bool,
) -> Vec<NetworkFile> {
    let mut files: Vec<NetworkFile> = Vec::new();
    for dir in dirs {
        for found in regular_files(sys, dir, kind, &wanted) {
            if !files.iter().any(|other| name_of(other) == name_of(&found)) {
                files.push(found);
            }
        }
    }
    files.sort_by(|a, b| name_of(a).cmp(name_of(b)));
    files
}

fn name_of(file: &NetworkFile) -> &str {
    file.path.rsplit('/').next().unwrap_or_default()
}

/// A folder for each network that was joined, and files of networks that were given to it.
fn connman(sys: &Sys) -> Vec<NetworkFile> {
    let kind = NetworkKind::Connman;
    let mut files = regular_files(sys, CONNMAN, kind, |name| name.ends_with(".config"));
    for name in sys.list(CONNMAN).unwrap_or_default() {
        let path = format!("{CONNMAN}/{name}/settings");
        if is_file(sys, &path) {
            files.push(file(path, kind));
        }
    }
    files
}

/// Units, each followed by its drop-ins. What netplan has rendered is read from its own files.
fn networkd(sys: &Sys) -> Vec<NetworkFile> {
    let kind = NetworkKind::Networkd;
    let is_unit = |name: &str| {
        let is_ours = name.ends_with(".network") || name.ends_with(".netdev");
        is_ours && !name.contains("-netplan-")
    };
    let mut files = Vec::new();
    for unit in hiding(sys, &NETWORKD, kind, is_unit) {
        let dirs: Vec<String> = NETWORKD
            .iter()
            .map(|dir| format!("{dir}/{}.d", name_of(&unit)))
            .collect();
        let dirs: Vec<&str> = dirs.iter().map(String::as_str).collect();
        files.push(unit);
        files.extend(hiding(sys, &dirs, kind, |name| name.ends_with(".conf")));
    }
    files
}

/// /etc/network/interfaces and what it includes, each once.
fn ifupdown(sys: &Sys) -> Vec<NetworkFile> {
    let mut paths: Vec<String> = Vec::new();
    let mut waiting = vec![INTERFACES.to_owned()];
    while let Some(path) = waiting.pop() {
        if paths.contains(&path) || !is_file(sys, &path) {
            continue;
        }
        let text = sys.read(&path).unwrap_or_default();
        let mut included = Vec::new();
        for line in String::from_utf8_lossy(&text).lines() {
            let mut words = line.split_ascii_whitespace();
            match (words.next(), words.next()) {
                (Some("source"), Some(pattern)) => included.extend(matching(sys, pattern)),
                (Some("source-directory"), Some(dir)) => {
                    let dir = absolute(dir.trim_end_matches('/'));
                    included.extend(inside(sys, &dir, is_plain_name));
                }
                _ => {}
            }
        }
        paths.push(path);
        waiting.extend(included.into_iter().rev());
    }
    let kind = NetworkKind::Ifupdown;
    paths.into_iter().map(|path| file(path, kind)).collect()
}

/// Names are relative to the folder of the main file.
fn absolute(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/etc/network/{path}"),
    }
}

fn inside(sys: &Sys, dir: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let names = sys.list(dir).unwrap_or_default();
    let wanted = names.into_iter().filter(|name| wanted(name));
    wanted.map(|name| format!("{dir}/{name}")).collect()
}

/// What ifupdown's `source-directory` takes.
fn is_plain_name(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Files that a pattern with at most one `*`, in its last part, means.
fn matching(sys: &Sys, pattern: &str) -> Vec<String> {
    let pattern = absolute(pattern);
    let Some((dir, last)) = pattern.rsplit_once('/') else {
        return Vec::new();
    };
    let Some((start, end)) = last.split_once('*') else {
        // A folder is read like those of `source-directory`.
        return match sys.meta(&pattern).is_ok_and(|meta| meta.is_dir) {
            true => inside(sys, &pattern, is_plain_name),
            false => vec![pattern],
        };
    };
    inside(sys, dir, |name| {
        let is_long = name.len() >= start.len() + end.len();
        !name.starts_with('.') && is_long && name.starts_with(start) && name.ends_with(end)
    })
}

/// Whether NetworkManager reads a file of that name, as its `nm_keyfile_utils_ignore_filename`
/// decides: files of any name in /etc, unless they look like an editor's or a certificate.
fn is_keyfile(name: &str, edited: bool) -> bool {
    if name.starts_with('.') {
        return false;
    }
    if name.ends_with(".nmconnection") {
        return name.len() > ".nmconnection".len();
    }
    let left_over = ["~", ".swp", ".swpx", ".pem", ".der"];
    edited && !left_over.iter().any(|end| name.ends_with(end)) && !is_temporary(name)
}

/// Whether the name ends as mkstemp makes names: a dot and six letters or digits.
fn is_temporary(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, suffix)| {
        suffix.len() == 6 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_that_network_manager_reads() {
        for name in ["home.nmconnection", "Wired connection 1", "a.b"] {
            assert!(is_keyfile(name, true), "{name}");
        }
        for name in [
            ".home.nmconnection",
            ".nmconnection",
            "x~",
            "ca.pem",
            "home.a1B2c3",
        ] {
            assert!(!is_keyfile(name, true), "{name}");
        }
        assert!(!is_keyfile("Wired connection 1", false));
        assert!(is_keyfile("home.nmconnection", false));
    }

    #[test]
    fn folders_are_searched_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "etc/wpa_supplicant/wpa_supplicant-wlan0.conf",
            "etc/wpa_supplicant/wpa_supplicant.conf",
            "etc/wpa_supplicant/functions.sh",
            "etc/NetworkManager/system-connections/home.nmconnection",
            "run/NetworkManager/system-connections/netplan-eth0.nmconnection",
            "var/lib/iwd/=68656c6c6f.psk",
            "var/lib/iwd/.known_network.freq",
            "var/lib/connman/settings",
            "var/lib/connman/office.config",
            "var/lib/connman/ethernet_525400aabb0c_cable/settings",
            "etc/netplan/50-cloud-init.yaml",
            "run/netplan/50-cloud-init.yaml",
            "etc/network/interfaces.d/eth0",
            "etc/network/interfaces.d/eth1.cfg",
            "etc/dhcpcd.conf",
            "etc/systemd/network/20-wired.network",
            "etc/systemd/network/20-wired.network.d/dns.conf",
            "etc/systemd/network/10-eth.link",
            "run/systemd/network/10-netplan-eth0.network",
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir(
            dir.path()
                .join("etc/NetworkManager/system-connections/a folder"),
        )
        .unwrap();
        fs::write(
            dir.path().join("etc/network/interfaces"),
            "source /etc/network/interfaces.d/*.cfg\nsource-directory interfaces.d\n",
        )
        .unwrap();
        let found = collect(&Sys::new(dir.path()));
        let paths: Vec<&str> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf",
                "/etc/wpa_supplicant/wpa_supplicant.conf",
                "/etc/NetworkManager/system-connections/home.nmconnection",
                "/run/NetworkManager/system-connections/netplan-eth0.nmconnection",
                "/var/lib/iwd/=68656c6c6f.psk",
                "/var/lib/connman/office.config",
                "/var/lib/connman/ethernet_525400aabb0c_cable/settings",
                "/etc/netplan/50-cloud-init.yaml",
                "/etc/network/interfaces",
                "/etc/network/interfaces.d/eth1.cfg",
                "/etc/network/interfaces.d/eth0",
                "/etc/dhcpcd.conf",
                "/etc/systemd/network/20-wired.network",
                "/etc/systemd/network/20-wired.network.d/dns.conf",
            ]
        );
        assert_eq!(found[0].kind, NetworkKind::WpaSupplicant);
        assert_eq!(found[2].kind, NetworkKind::NetworkManager);
    }
}
