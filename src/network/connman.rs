//! Reads connman's networks: `settings` of those that it has joined, and `*.config` of those that
//! it was given (connman-service.config(5)).
//!
//! Called by [`super::carry`]. A file of settings is about the service that its folder is named
//! after, such as `wifi_b827eb000001_486f6d65_managed_psk` or `ethernet_525400aabb0c_cable`.

use super::eap::{Phase2, Wanted};
use super::ini::{self, Section};
use super::ip::{Address, Ip};
use super::keyfile::unescape;
use super::model::{
    Connection, Device, Eap, Found, Link, Loss, MAX_SSID_BYTES, Security, Skipped, Wifi, hex, mac,
    wpa_psk,
};
use crate::secret::Secret;

const ANOTHER_WAY: &str = "give the new system another way into the network";

/// Reads a file.
pub fn read(path: &str, bytes: &[u8]) -> Found {
    let mut found = Found::default();
    for section in ini::parse(bytes) {
        let service = match section.name.strip_prefix("service_") {
            Some(_) => given(&section),
            None => joined(&section),
        };
        let Some(service) = service else {
            continue;
        };
        match service.connection(path, &section) {
            Ok(connection) => found.connections.push(connection),
            Err(skipped) => found.skipped.push(*skipped),
        }
    }
    found
}

/// What a section is about.
struct Service {
    kind: Kind,
    ip: Ip,
}

enum Kind {
    Wifi {
        ssid: Option<Vec<u8>>,
        security: String,
    },
    Ethernet(Device),
}

/// A section of `settings`; those that nobody has joined are only remembered.
fn joined(section: &Section) -> Option<Service> {
    let mut parts = section.name.split('_');
    let kind = parts.next()?;
    let address = parts.next()?;
    if !section.is_set("Favorite") && kind == "wifi" {
        return None;
    }
    let kind = match kind {
        "wifi" => Kind::Wifi {
            ssid: ssid(section).or_else(|| hex(parts.next()?)),
            security: section.name.rsplit('_').next()?.to_owned(),
        },
        "ethernet" => Kind::Ethernet(Device::Mac(colons(address)?)),
        _ => return None,
    };
    let mut ip = Ip::default();
    for group in ["IPv4", "IPv6"] {
        let value = |key: &str| section.value(&format!("{group}.{key}"));
        match value("method") {
            Some("manual" | "fixed") => {}
            Some("off") => {
                let family = if group == "IPv4" {
                    &mut ip.v4
                } else {
                    &mut ip.v6
                };
                family.auto = Some(false);
                continue;
            }
            _ => continue,
        }
        let address = Address::parse(value("local_address")?, value("netmask_prefixlen"));
        address
            .into_iter()
            .for_each(|address| ip.add_address(address));
        if let Some(gateway) = value("gateway").and_then(|gateway| gateway.parse().ok()) {
            ip.set_gateway(gateway);
        }
    }
    add_names(&mut ip, section, "Nameservers", "Domains");
    Some(Service { kind, ip })
}

/// A section of `*.config`.
fn given(section: &Section) -> Option<Service> {
    let has_key = |key| section.value(key).is_some();
    let kind = match section.value("Type")? {
        "wifi" => Kind::Wifi {
            ssid: ssid(section),
            security: match section.value("Security") {
                Some(security) => security.to_owned(),
                None if has_key("EAP") => "ieee8021x".to_owned(),
                None if has_key("Passphrase") => "psk".to_owned(),
                None => "none".to_owned(),
            },
        },
        "ethernet" => Kind::Ethernet(match (section.value("MAC"), section.value("DeviceName")) {
            (Some(address), _) => Device::Mac(mac(address)?),
            (None, Some(name)) => Device::Named(name.to_owned()),
            (None, None) => Device::Any,
        }),
        _ => return None,
    };
    let mut ip = Ip::default();
    for group in ["IPv4", "IPv6"] {
        // `address/mask/gateway`, or a word.
        let mut parts = section.value(group).unwrap_or_default().split('/');
        let (Some(address), mask) = (parts.next(), parts.next()) else {
            continue;
        };
        let address = Address::parse(address, mask);
        address
            .into_iter()
            .for_each(|address| ip.add_address(address));
        if let Some(gateway) = parts.next().and_then(|gateway| gateway.trim().parse().ok()) {
            ip.set_gateway(gateway);
        }
    }
    add_names(&mut ip, section, "Nameservers", "SearchDomains");
    Some(Service { kind, ip })
}

/// The name of a network: hexadecimal wins, as it is exact.
fn ssid(section: &Section) -> Option<Vec<u8>> {
    let by_name = || Some(unescape(section.value("Name")?)?.into_bytes());
    section.value("SSID").and_then(hex).or_else(by_name)
}

/// `525400aabb0c` as an address.
fn colons(digits: &str) -> Option<String> {
    let bytes = hex(digits)?;
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    mac(&pairs.join(":"))
}

fn add_names(ip: &mut Ip, section: &Section, servers: &str, domains: &str) {
    let list = |key: &str| {
        let value = section.value(key).unwrap_or_default();
        value.split([';', ',', ' ']).filter(|part| !part.is_empty())
    };
    for server in list(servers).filter_map(|server| server.parse().ok()) {
        ip.add_dns(server);
    }
    list(domains).for_each(|domain| ip.add_search(domain));
}

impl Service {
    fn connection(self, path: &str, section: &Section) -> Result<Connection, Box<Skipped>> {
        let place = format!("{path}:{}", section.line);
        let skip = |loss, what: String| {
            Box::new(Skipped::new(loss, path, section.line, what, ANOTHER_WAY))
        };
        let (ssid, security) = match self.kind {
            Kind::Ethernet(device) => return Ok(Connection::wired(device, self.ip, place)),
            Kind::Wifi { ssid, security } => (ssid, security),
        };
        let Some(ssid) = ssid.filter(|ssid| (1..=MAX_SSID_BYTES).contains(&ssid.len())) else {
            return Err(skip(Loss::Unnamed, "this network has no name".to_owned()));
        };
        let security = security_of(&security, section)
            .map_err(|what| skip(Loss::Network(ssid.clone()), what))?;
        let wifi = Wifi {
            ssid,
            security,
            hidden: section.is_set("Hidden"),
        };
        Ok(Connection {
            ip: self.ip,
            ..Connection::new(Link::Wifi(wifi), place)
        })
    }
}

fn security_of(security: &str, section: &Section) -> Result<Security, String> {
    let phrase = section.value("Passphrase").and_then(unescape);
    match security {
        "none" => Ok(Security::Open),
        "wep" => Err("this network uses WEP, which is broken and not carried".to_owned()),
        "psk" => {
            let key = phrase.ok_or("there is no passphrase in this file")?;
            wpa_psk(key.as_bytes()).ok_or_else(|| {
                "the passphrase is neither 8 to 63 characters nor 64 hexadecimal digits".to_owned()
            })
        }
        "ieee8021x" => enterprise(section).map(Security::Eap),
        other => Err(format!("the security `{other}` is not carried")),
    }
}

fn enterprise(section: &Section) -> Result<Eap, String> {
    let value = |key: &str| section.value(key).and_then(unescape);
    let file = |key: &str| {
        let path = value(key)?;
        let line = section.get(key)?.line;
        Some((
            path.strip_prefix("file://").unwrap_or(&path).to_owned(),
            line,
        ))
    };
    let Some(method) = value("EAP") else {
        return Err("no EAP method is named in this file".to_owned());
    };
    let phase2 = value("Phase2").map(|method| {
        let method = method.to_ascii_lowercase();
        match method.strip_prefix("eap-") {
            Some(method) => Phase2::InnerEap(method.to_owned()),
            None => Phase2::Auth(method),
        }
    });
    let wanted = Wanted {
        methods: vec![method.to_ascii_lowercase()],
        identity: value("Identity"),
        anonymous_identity: value("AnonymousIdentity"),
        password: value("Passphrase").map(Secret::new),
        phase2,
        peap_version: None,
        domain_suffix: value("DomainSuffixMatch"),
        domain: value("DomainMatch"),
        ca_cert: file("CACertFile"),
        client_cert: file("ClientCertFile"),
        private_key: file("PrivateKeyFile"),
        private_key_password: value("PrivateKeyPassphrase").map(Secret::new),
    };
    wanted.finish()
}
