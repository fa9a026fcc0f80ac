//! Networks that the user gives beside those of the device: the wifi in config.json (BALENA_WIFI),
//! names of networks (MIGRATE_WIFIS), and whole keyfiles (COPY_NMGR_FILES).
//!
//! Called by [`super::collect`], and for the keyfiles by [`crate::material`], which ships them as
//! they are.

use super::ip::Ip;
use super::keyfile::Document;
use super::model::{Connection, Link, MAX_SSID_BYTES, Security, Wifi, wpa_psk};
use super::select::Listed;
use crate::config::kind::HomeFile;
use crate::config::{Config, balena};
use crate::finding::Finding;
use crate::secret::Secret;
use crate::sys::files::Sys;

/// What is carried whatever the selection says, and how keyfiles are named.
#[derive(Default)]
pub struct Given {
    /// The networks.
    pub connections: Vec<Connection>,
    /// How many names of wifi keyfiles are in use in the image (HAS_WIFI_CFG).
    pub names_taken: u32,
}

impl Given {
    /// The given networks, then the `chosen` ones of the device that are not the same.
    pub fn beside(&self, chosen: Vec<Connection>) -> Vec<Connection> {
        let is_given = |one: &Connection| {
            self.connections
                .iter()
                .any(|given| match (given.wifi(), one.wifi()) {
                    (Some(given), Some(one)) => {
                        given.ssid == one.ssid && given.security == one.security
                    }
                    _ => false,
                })
        };
        let chosen = chosen.into_iter().filter(|one| !is_given(one));
        self.connections.iter().cloned().chain(chosen).collect()
    }
}

/// A keyfile that goes to the new system as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its name in `system-connections`.
    pub name: String,
    /// Where it lies.
    pub path: String,
    /// Content.
    pub bytes: Secret,
}

/// Reads what the settings give.
pub fn read(sys: &Sys, config: &Config, findings: &mut Vec<Finding>) -> Given {
    let wifi = match *config.balena_wifi {
        true => from_config_json(sys, config, findings),
        false => None,
    };
    Given {
        connections: wifi.into_iter().collect(),
        names_taken: config.has_wifi_cfg.0,
    }
}

/// The networks of MIGRATE_WIFIS.
pub fn listed(config: &Config) -> Vec<Listed> {
    let wifis = &config.migrate_wifis;
    let listed = wifis.value.0.iter().map(|ssid| Listed {
        ssid: ssid.clone().into_bytes(),
        place: wifis.from.to_string(),
    });
    listed.collect()
}

/// The wifi of config.json. A file that can't be read is said elsewhere.
fn from_config_json(sys: &Sys, config: &Config, findings: &mut Vec<Finding>) -> Option<Connection> {
    let Some(file) = &config.balena_config.value else {
        findings.push(Finding::error(
            "balena-wifi",
            "BALENA_WIFI=TRUE wants the wifi network in config.json, and no config.json is given",
            "set BALENA_CONFIG, or remove BALENA_WIFI",
        ));
        return None;
    };
    let json = balena::inspect(&file.0, sys.read(&file.0).ok()?);
    let Some(wifi) = json.wifi() else {
        let none = Finding::warning(
            "balena-wifi",
            "there is no wifiSsid, which BALENA_WIFI=TRUE asks for",
            "remove BALENA_WIFI, or write wifiSsid and wifiKey",
        );
        findings.push(none.at(&file.0));
        return None;
    };
    let security = match wifi.key.expose() {
        b"" => Some(Security::Open),
        key => wpa_psk(key),
    };
    let ssid = wifi.ssid.clone().into_bytes();
    match security.filter(|_| ssid.len() <= MAX_SSID_BYTES) {
        Some(security) => Some(Connection {
            link: Link::Wifi(Wifi {
                ssid,
                security,
                // Nobody says whether it announces its name; the older tool took it for hidden.
                hidden: true,
            }),
            ip: Ip::default(),
            priority: None,
            kept: Vec::new(),
            dropped: Vec::new(),
            place: file.0.clone(),
        }),
        None => {
            let bad = Finding::error(
                "balena-wifi",
                "wifiSsid is longer than 32 bytes, or wifiKey is no WPA key",
                "write a phrase of 8 to 63 characters or 64 hexadecimal digits",
            );
            findings.push(bad.at(&file.0));
            None
        }
    }
}

/// Reads the files of COPY_NMGR_FILES. Whatever is wrong with one stops the migration: the user
/// counts on it. `made` are the names of the other keyfiles.
pub fn copied(sys: &Sys, files: &[HomeFile], made: &[&str]) -> (Vec<Copied>, Vec<Finding>) {
    let mut copied: Vec<Copied> = Vec::new();
    let mut findings = Vec::new();
    for HomeFile(path) in files {
        let name = path
            .rsplit_once('/')
            .map_or(path.as_str(), |(_, name)| name);
        let is_taken = made.contains(&name) || copied.iter().any(|other| other.name == name);
        match read_copied(sys, path, name, is_taken) {
            Ok(bytes) => copied.push(Copied {
                name: name.to_owned(),
                path: path.clone(),
                bytes: Secret::new(bytes),
            }),
            Err((what, remedy)) => {
                findings.push(Finding::error("network-file", what, remedy).at(path));
            }
        }
    }
    (copied, findings)
}

fn read_copied(
    sys: &Sys,
    path: &str,
    name: &str,
    is_taken: bool,
) -> Result<Vec<u8>, (String, &'static str)> {
    const NAME: &str = "give it a name such as office or office.nmconnection";
    if let Some(why) = ignored(name) {
        return Err((
            format!("NetworkManager ignores files whose name {why}"),
            NAME,
        ));
    }
    if is_taken {
        let what = format!("another network file is to be {name} in the new system");
        return Err((what, "give it another name"));
    }
    let bytes = sys.read(path).map_err(|error| {
        (
            format!("this file can't be read: {error}"),
            "give COPY_NMGR_FILES (--nwmgr-cfg) names of files in HOME_DIR",
        )
    })?;
    let is_keyfile = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| Document::parse(text).ok())
        .is_some_and(|document| document.has_group("connection"));
    match is_keyfile {
        true => Ok(bytes),
        false => Err((
            "this is no keyfile of NetworkManager".to_owned(),
            "write it as nm-settings-keyfile(5) says, with a group [connection]",
        )),
    }
}

/// Why NetworkManager passes a file by (`nm_keyfile_utils_ignore_filename` in its source).
fn ignored(name: &str) -> Option<&'static str> {
    // What mkstemp(3) leaves: a dot and six letters or digits.
    let is_temporary = name.rsplit_once('.').is_some_and(|(_, ending)| {
        ending.len() == 6 && ending.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    match name {
        name if name.starts_with('.') => Some("starts with a dot"),
        name if name.ends_with('~') => Some("ends with ~"),
        name if name.ends_with(".pem") || name.ends_with(".der") => Some("ends with .pem or .der"),
        _ if is_temporary => Some("ends with a dot and six letters or digits"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_network_manager_ignores_are_known() {
        for good in [
            "office",
            "office.nmconnection",
            "a.conf",
            "eth0.12",
            "x.abc-ef",
        ] {
            assert_eq!(ignored(good), None, "{good}");
        }
        for bad in [".office", "office~", "office.backup", "ca.pem", "a.AbC123"] {
            assert!(ignored(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn keyfiles_go_as_they_are_or_not_at_all() {
        let dir = tempfile::tempdir().expect("making a folder");
        let sys = Sys::new(dir.path());
        let good = b"# mine\n[connection]\nid=office\ntype=ethernet\n";
        for (name, bytes) in [
            ("/office", &good[..]),
            ("/text", b"hello"),
            ("/resin-wifi-01", good),
            ("/a.backup", good),
        ] {
            sys.write_whole(name, bytes, 0o600, None)
                .expect("writing a file");
        }
        let files = [
            "/office",
            "/text",
            "/gone",
            "/resin-wifi-01",
            "/a.backup",
            "/./office",
        ];
        let files = files.map(|name| HomeFile(name.into()));
        let (copied, findings) = copied(&sys, &files, &["resin-wifi-01"]);
        assert_eq!(copied.len(), 1);
        assert_eq!(copied[0].bytes.expose(), good);
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "/text: this is no keyfile of NetworkManager; write it as nm-settings-keyfile(5) \
                 says, with a group [connection]",
                "/gone: this file can't be read: No such file or directory (os error 2); give \
                 COPY_NMGR_FILES (--nwmgr-cfg) names of files in HOME_DIR",
                "/resin-wifi-01: another network file is to be resin-wifi-01 in the new system; \
                 give it another name",
                "/a.backup: NetworkManager ignores files whose name ends with a dot and six \
                 letters or digits; give it a name such as office or office.nmconnection",
                "/./office: another network file is to be office in the new system; give it \
                 another name",
            ]
        );
    }
}
