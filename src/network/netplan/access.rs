//! Access points of wifi, and 802.1X.

use serde_yaml::Value;

use super::super::eap::{Phase2, Wanted};
use super::super::model::{
    Connection, Eap, Found, Link, Loss, MAX_SSID_BYTES, Security, Skipped, Wifi, wpa_psk,
};
use super::{ANOTHER_WAY, addresses, line_of, text};
use crate::secret::Secret;

/// Reads the networks of a device that is described at `place`.
pub(super) fn read(place: &str, settings: &Value) -> Found {
    let mut found = Found::default();
    let points = settings.get("access-points").and_then(Value::as_mapping);
    for (name, point) in points.into_iter().flatten() {
        let Some(name) = text(name) else {
            continue;
        };
        let ssid = name.into_bytes();
        match network(place, &ssid, settings, point) {
            Ok(connection) => found.connections.push(connection),
            Err(what) => found.skipped.push(Skipped {
                loss: Loss::Network(ssid),
                place: place.to_owned(),
                what,
                remedy: ANOTHER_WAY.to_owned(),
            }),
        }
    }
    found
}

fn network(place: &str, ssid: &[u8], device: &Value, point: &Value) -> Result<Connection, String> {
    if !(1..=MAX_SSID_BYTES).contains(&ssid.len()) {
        return Err(format!("the ssid is not 1 to {MAX_SSID_BYTES} bytes"));
    }
    let mode = point.get("mode").and_then(text);
    if mode.is_some_and(|mode| mode != "infrastructure") {
        return Err("this is a network that the device itself opens".to_owned());
    }
    let wifi = Wifi {
        ssid: ssid.to_vec(),
        security: security(point, line_of(place))?,
        hidden: point.get("hidden").and_then(Value::as_bool) == Some(true),
    };
    Ok(Connection {
        ip: addresses::read(device)?,
        ..Connection::new(Link::Wifi(wifi), place.to_owned())
    })
}

fn security(point: &Value, line: usize) -> Result<Security, String> {
    let auth = point.get("auth");
    let of_auth = |key: &str| auth.and_then(|auth| auth.get(key)).and_then(text);
    let password = point.get("password").and_then(text);
    let password = password.or_else(|| of_auth("password"));
    let is_given = |map: Option<&Value>| map.is_some_and(|map| map.get("password").is_some());
    if password.is_none() && (is_given(Some(point)) || is_given(auth)) {
        return Err("the password is no text: put it in quotes".to_owned());
    }
    let method = of_auth("key-management");
    let method = method.unwrap_or_else(|| match password {
        Some(_) => "psk".to_owned(),
        None => "none".to_owned(),
    });
    let key = || password.clone().ok_or("this network has no password");
    match method.as_str() {
        "none" => Ok(Security::Open),
        "psk" => wpa_psk(key()?.as_bytes()).ok_or_else(|| {
            "the password is neither 8 to 63 characters nor 64 hexadecimal digits".to_owned()
        }),
        "sae" => Ok(Security::Sae(Secret::new(key()?))),
        "eap" | "eap-sha256" | "802.1x" => match auth {
            Some(auth) => enterprise(auth, line).map(Security::Eap),
            None => Err("there is no auth for this network".to_owned()),
        },
        other => Err(format!("the key management `{other}` is not carried")),
    }
}

/// Reads `auth`, of a network or of a wire. `line` is where its certificates are said to be named.
pub(super) fn enterprise(auth: &Value, line: usize) -> Result<Eap, String> {
    let of = |key: &str| auth.get(key).and_then(text);
    let file = |key: &str| Some((of(key)?, line));
    let wanted = Wanted {
        methods: of("method").into_iter().collect(),
        identity: of("identity"),
        anonymous_identity: of("anonymous-identity"),
        password: of("password").map(Secret::new),
        phase2: of("phase2-auth").map(|method| Phase2::Auth(method.to_ascii_lowercase())),
        peap_version: None,
        domain_suffix: None,
        domain: None,
        ca_cert: file("ca-certificate"),
        client_cert: file("client-certificate"),
        private_key: file("client-key"),
        private_key_password: of("client-key-password").map(Secret::new),
    };
    wanted.finish()
}
