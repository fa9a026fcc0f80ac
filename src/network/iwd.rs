//! Reads the networks that iwd knows: a file each, `NAME.psk`, `.open` or `.8021x`, where a name
//! that is not plain is written as `=` and hexadecimal digits (iwd.network(5)).
//!
//! Called by [`super::carry`].

use super::eap::{Phase2, Wanted};
use super::ini::{self, Section};
use super::ip::{Address, Ip};
use super::keyfile::unescape;
use super::model::{
    Connection, Eap, Found, Link, Loss, MAX_SSID_BYTES, Security, Skipped, Wifi, hex, wpa_psk,
};
use crate::secret::Secret;

const ANOTHER_WAY: &str = "give the new system another way into the network";

/// Reads a file.
pub fn read(path: &str, bytes: &[u8]) -> Found {
    let mut found = Found::default();
    let file = File {
        path,
        sections: ini::parse(bytes),
    };
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((name, kind)) = name.rsplit_once('.') else {
        return found;
    };
    let ssid = match name.strip_prefix('=') {
        Some(digits) => hex(digits),
        None => Some(name.as_bytes().to_vec()),
    };
    let Some(ssid) = ssid.filter(|ssid| (1..=MAX_SSID_BYTES).contains(&ssid.len())) else {
        let what = "the name of this file is no name of a network";
        let skipped = Skipped::new(Loss::Unnamed, path, 1, what, "remove the file");
        found.skipped.push(skipped);
        return found;
    };
    match file.security(kind) {
        Ok(security) => found.connections.push(file.connection(ssid, security)),
        Err((line, what)) => {
            let loss = Loss::Network(ssid);
            let skipped = Skipped::new(loss, path, line, what, ANOTHER_WAY);
            found.skipped.push(skipped);
        }
    }
    found
}

struct File<'a> {
    path: &'a str,
    sections: Vec<Section>,
}

/// Where, and why not.
type Refusal = (usize, String);

impl File<'_> {
    fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    fn value(&self, section: &str, key: &str) -> Option<String> {
        unescape(self.section(section)?.value(key)?)
    }

    fn connection(&self, ssid: Vec<u8>, security: Security) -> Connection {
        let settings = self.section("Settings");
        let wifi = Wifi {
            ssid,
            security,
            hidden: settings.is_some_and(|settings| settings.is_set("Hidden")),
        };
        Connection {
            ip: self.ip(),
            ..Connection::new(Link::Wifi(wifi), format!("{}:1", self.path))
        }
    }

    fn ip(&self) -> Ip {
        let mut ip = Ip::default();
        for group in ["IPv4", "IPv6"] {
            let value = |key| self.value(group, key);
            let mask = value("Netmask");
            if let Some(address) = value("Address")
                && let Some(address) = Address::parse(&address, mask.as_deref())
            {
                ip.add_address(address);
            }
            if let Some(gateway) = value("Gateway").and_then(|gateway| gateway.parse().ok()) {
                ip.set_gateway(gateway);
            }
            for server in value("DNS").unwrap_or_default().split_ascii_whitespace() {
                server
                    .parse()
                    .into_iter()
                    .for_each(|server| ip.add_dns(server));
            }
            for key in ["DomainName", "DomainNames"] {
                let domains = value(key).unwrap_or_default();
                domains
                    .split_ascii_whitespace()
                    .for_each(|domain| ip.add_search(domain));
            }
        }
        ip
    }

    fn security(&self, kind: &str) -> Result<Security, Refusal> {
        if let Some(section) = self.section("Security")
            && let Some(sealed) = section.get("EncryptedSecurity")
        {
            let what = "the key is sealed with a secret of this system";
            return Err((sealed.line, what.to_owned()));
        }
        match kind {
            "open" => Ok(Security::Open),
            "psk" => self.personal(),
            _ => self.enterprise().map(Security::Eap),
        }
    }

    /// The phrase is preferred: with the derived key alone there is no WPA3.
    fn personal(&self) -> Result<Security, Refusal> {
        let line = self.section("Security").map_or(1, |section| section.line);
        let key = self
            .value("Security", "Passphrase")
            .or_else(|| self.value("Security", "PreSharedKey"));
        let Some(key) = key else {
            return Err((line, "there is no key in this file".to_owned()));
        };
        wpa_psk(key.as_bytes()).ok_or_else(|| {
            let what = "the key is neither 8 to 63 characters nor 64 hexadecimal digits";
            (line, what.to_owned())
        })
    }

    fn enterprise(&self) -> Result<Eap, Refusal> {
        let Some(section) = self.section("Security") else {
            return Err((1, "there is no group [Security]".to_owned()));
        };
        let value = |key: &str| self.value("Security", key);
        let method = value("EAP-Method").unwrap_or_default();
        let of_method = |key: &str| value(&format!("EAP-{method}-{key}"));
        let inner = |key: &str| of_method(&format!("Phase2-{key}"));
        let has_tunnel = matches!(method.as_str(), "PEAP" | "TTLS");
        let file = |key: &str| {
            let full = format!("EAP-{method}-{key}");
            Some((value(&full)?, section.get(&full)?.line))
        };
        for key in ["CACert", "ClientCert", "ClientKey"] {
            if let Some((path, line)) = file(key)
                && !path.starts_with('/')
            {
                let what = format!("EAP-{method}-{key} is not the path of a file");
                return Err((line, what));
            }
        }
        let phase2 = inner("Method").map(|inner| match inner.strip_prefix("Tunneled-") {
            Some(plain) => Phase2::Auth(plain.to_ascii_lowercase()),
            None if method == "TTLS" => Phase2::InnerEap(inner.to_ascii_lowercase()),
            None => Phase2::Auth(inner.to_ascii_lowercase()),
        });
        // In a tunnel the outer identity is the one that everybody may hear.
        let (identity, anonymous_identity) = match inner("Identity") {
            Some(identity) => (Some(identity), value("EAP-Identity")),
            None => (value("EAP-Identity"), None),
        };
        let password = match has_tunnel {
            true => inner("Password"),
            false => of_method("Password").or_else(|| value("EAP-Password")),
        };
        let mask = of_method("ServerDomainMask");
        if let Some(mask) = &mask
            && (mask.contains(';') || mask.trim_start_matches("*.").contains('*'))
        {
            return Err((
                section.line,
                format!("the mask of servers `{mask}` is not carried"),
            ));
        }
        let (domain_suffix, domain) = match mask {
            Some(mask) => match mask.strip_prefix("*.") {
                Some(suffix) => (Some(suffix.to_owned()), None),
                None => (None, Some(mask)),
            },
            None => (None, None),
        };
        let wanted = Wanted {
            methods: vec![method.to_ascii_lowercase()],
            identity,
            anonymous_identity,
            password: password.map(Secret::new),
            phase2,
            domain_suffix,
            domain,
            peap_version: None,
            ca_cert: file("CACert"),
            client_cert: file("ClientCert"),
            private_key: file("ClientKey"),
            private_key_password: of_method("ClientKeyPassphrase").map(Secret::new),
        };
        wanted.finish().map_err(|what| (section.line, what))
    }
}
