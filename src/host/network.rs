//! Finds the network configuration files of the device, without reading them. Called by the
//! collector.

use super::{NetworkFile, NetworkKind};
use crate::sys::Sys;

const WPA_SUPPLICANT: &str = "/etc/wpa_supplicant";

/// Folders of keyfiles, first to last by which wins, and whether the user edits files there.
const KEYFILES: [(&str, bool); 3] = [
    ("/etc/NetworkManager/system-connections", true),
    ("/run/NetworkManager/system-connections", false),
    ("/usr/lib/NetworkManager/system-connections", false),
];

/// All network files, sorted within their folders. A folder that can't be listed has none.
pub(super) fn collect(sys: &Sys) -> Vec<NetworkFile> {
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
    files
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
        if wanted(&name) && sys.meta(&path).is_ok_and(|meta| meta.is_file) {
            files.push(NetworkFile { path, kind });
        }
    }
    files
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
        let found = collect(&Sys::new(dir.path()));
        let paths: Vec<&str> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf",
                "/etc/wpa_supplicant/wpa_supplicant.conf",
                "/etc/NetworkManager/system-connections/home.nmconnection",
                "/run/NetworkManager/system-connections/netplan-eth0.nmconnection",
            ]
        );
        assert_eq!(found[0].kind, NetworkKind::WpaSupplicant);
        assert_eq!(found[2].kind, NetworkKind::NetworkManager);
    }
}
