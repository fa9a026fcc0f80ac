//! 802.1X as the older systems' files have it, in NetworkManager's words, and the reading of the
//! certificates that they name.
//!
//! [`Wanted`] is filled by the readers; [`embed`] is called by [`super::carry`].

use super::keyfile::escape;
use super::model::{Certificate, Connection, Eap, Found, KeptSetting, Skipped};
use crate::secret::Secret;
use crate::sys::files::Sys;

/// What a file says about 802.1X. Names are those of wpa_supplicant in lower case.
#[derive(Default)]
pub struct Wanted {
    /// Outer methods, such as `peap`, the first that is offered wins.
    pub methods: Vec<String>,
    /// Who is asking.
    pub identity: Option<String>,
    /// Who is asking, as everybody may hear it.
    pub anonymous_identity: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Inner method.
    pub phase2: Option<Phase2>,
    /// Version of PEAP.
    pub peap_version: Option<String>,
    /// Ending of the server's name.
    pub domain_suffix: Option<String>,
    /// Full name of the server.
    pub domain: Option<String>,
    /// Certificate of the authority: file and line.
    pub ca_cert: Option<(String, usize)>,
    /// Certificate of this device.
    pub client_cert: Option<(String, usize)>,
    /// Its key.
    pub private_key: Option<(String, usize)>,
    /// What unlocks the key.
    pub private_key_password: Option<Secret>,
}

/// The method inside of the tunnel.
pub enum Phase2 {
    /// A method of its own, such as `mschapv2`.
    Auth(String),
    /// An EAP method in the tunnel of TTLS.
    InnerEap(String),
}

const METHODS: [&str; 4] = ["peap", "ttls", "tls", "pwd"];
const INNER: [&str; 6] = ["mschapv2", "mschap", "pap", "chap", "gtc", "md5"];

impl Wanted {
    /// The settings for NetworkManager, or why there are none.
    pub fn finish(self) -> Result<Eap, String> {
        let known: Vec<&str> = self
            .methods
            .iter()
            .map(String::as_str)
            .filter(|method| METHODS.contains(method))
            .collect();
        if known.is_empty() {
            let methods = self.methods.join(" ");
            return Err(format!("the EAP method `{methods}` is not carried"));
        }
        let is_tls = known.contains(&"tls");
        let has_tunnel = known.contains(&"peap") || known.contains(&"ttls");
        if is_tls && self.private_key.is_none() {
            return Err("EAP-TLS without a private key in a file is not carried".into());
        }
        let mut settings = Settings::default();
        let methods: String = known.iter().map(|method| format!("{method};")).collect();
        settings.written("eap", &methods);
        settings.text("identity", self.identity);
        settings.text("anonymous-identity", self.anonymous_identity);
        if !is_tls && self.password.is_none() {
            return Err("the password of this network is not in the file".into());
        }
        settings.secret("password", self.password)?;
        settings.text("phase1-peapver", self.peap_version);
        if has_tunnel {
            let (key, method) = match self.phase2 {
                Some(Phase2::Auth(method)) => ("phase2-auth", method),
                Some(Phase2::InnerEap(method)) => ("phase2-autheap", method),
                // What wpa_supplicant tries first when the file leaves it open.
                None => ("phase2-auth", "mschapv2".to_owned()),
            };
            if !INNER.contains(&method.as_str()) {
                return Err(format!("the inner method `{method}` is not carried"));
            }
            settings.text(key, Some(method));
        }
        settings.text("domain-suffix-match", self.domain_suffix);
        settings.text("domain-match", self.domain);
        let mut certificates = Vec::new();
        let mut add = |key, file: Option<(String, usize)>| {
            certificates.extend(file.map(|(path, line)| Certificate {
                key,
                path,
                line,
                content: None,
            }));
        };
        add("ca-cert", self.ca_cert);
        if is_tls {
            add("client-cert", self.client_cert);
            add("private-key", self.private_key);
            match self.private_key_password {
                // 4: none is needed. Without it NetworkManager would ask somebody.
                None => settings.written("private-key-password-flags", "4"),
                password => settings.secret("private-key-password", password)?,
            }
        }
        Ok(Eap {
            settings: settings.0,
            certificates,
        })
    }
}

#[derive(Default)]
struct Settings(Vec<KeptSetting>);

impl Settings {
    fn written(&mut self, key: &str, value: &str) {
        self.0.push(KeptSetting::new("802-1x", key, value));
    }

    fn text(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.written(key, &escape(&value));
        }
    }

    fn secret(&mut self, key: &str, value: Option<Secret>) -> Result<(), String> {
        let Some(value) = value else {
            return Ok(());
        };
        let text = std::str::from_utf8(value.expose())
            .map_err(|_| format!("the {} is not UTF-8", key.replace('-', " ")))?;
        self.written(key, &escape(text));
        Ok(())
    }
}

/// Reads the certificates that connections name. A connection without one of them is no way into
/// the network, or one that trusts anybody: it is lost.
pub fn embed(sys: &Sys, found: &mut Found) {
    let connections = std::mem::take(&mut found.connections);
    for mut connection in connections {
        match embed_one(sys, &mut connection) {
            Ok(()) => found.connections.push(connection),
            Err(skipped) => found.skipped.push(*skipped),
        }
    }
}

fn embed_one(sys: &Sys, connection: &mut Connection) -> Result<(), Box<Skipped>> {
    let loss = connection.loss();
    let place = connection.place.clone();
    let file = place
        .rsplit_once(':')
        .map_or(place.as_str(), |(file, _)| file);
    let Some(eap) = connection.eap_mut() else {
        return Ok(());
    };
    for certificate in &mut eap.certificates {
        let path = &certificate.path;
        let content = sys.read(path).map_err(|error| {
            let what = format!("the {} {path} can't be read: {error}", certificate.key);
            let remedy = "correct the path, or remove the network";
            Box::new(Skipped::new(
                loss.clone(),
                file,
                certificate.line,
                what,
                remedy,
            ))
        })?;
        certificate.content = Some(Secret::new(content));
    }
    // PKCS#12 has both in one file, and NetworkManager wants it named as both.
    let find = |key| eap.certificates.iter().find(|c| c.key == key);
    if let (Some(key), None) = (find("private-key"), find("client-cert")) {
        let certificate = Certificate {
            key: "client-cert",
            ..key.clone()
        };
        eap.certificates.push(certificate);
    }
    Ok(())
}
