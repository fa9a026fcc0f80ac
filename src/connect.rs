//! Whether balena's API and VPN answer from this machine: the new system will need them.
//!
//! Called by [`crate::material`] before anything is done. Which hosts, by settings, config.json and
//! defaults ([`endpoints`]), and through which proxy ([`ProxySettings`]) is pure; the tries are made
//! by [`crate::sys::net`], all at once and once each.

use std::time::Duration;

use crate::config::balena::BalenaConfig;
use crate::config::kind::network::{HostName, Port};
use crate::config::{Config, Origin, Sourced};
use crate::endpoint::{Endpoint, host_and_port};
use crate::finding::Finding;
use crate::secret::Secret;
use crate::sys::Sys;
use crate::sys::net::Proxy;

/// A host that must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What it is to the new system: `API` or `VPN`.
    pub role: &'static str,
    /// The code of the finding when it does not answer.
    code: &'static str,
    /// The option that turns the check off.
    skip: &'static str,
    /// Where it is.
    pub at: Endpoint,
}

/// The hosts to ask. Settings win over config.json, config.json over the defaults.
pub fn endpoints(config: &Config, json: Option<&BalenaConfig>) -> Vec<Peer> {
    let api = endpoint(
        &config.balena_api_host,
        &config.balena_api_port,
        json.and_then(BalenaConfig::api),
    );
    let vpn = endpoint(
        &config.balena_vpn_host,
        &config.balena_vpn_port,
        json.and_then(BalenaConfig::vpn),
    );
    let api = api.map(|at| Peer {
        role: "API",
        code: "api-unreachable",
        skip: "--no-api-check",
        at,
    });
    let vpn = vpn.map(|at| Peer {
        role: "VPN",
        code: "vpn-unreachable",
        skip: "--no-vpn-check",
        at,
    });
    api.into_iter().chain(vpn).collect()
}

/// A blank host means that nobody is asked.
fn endpoint(
    host: &Sourced<Option<HostName>>,
    port: &Sourced<Port>,
    from_json: Option<Endpoint>,
) -> Option<Endpoint> {
    let set = host.value.as_ref()?;
    let from_json = from_json.filter(|_| host.from == Origin::Default);
    Some(match from_json {
        Some(at) if port.from == Origin::Default => at,
        Some(at) => Endpoint { port: port.0, ..at },
        None => Endpoint {
            host: set.0.clone(),
            port: port.0,
        },
    })
}

/// The proxies of the environment, as curl(1) reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exempt: Vec<String>,
}

impl ProxySettings {
    /// Reads `http_proxy`, `https_proxy` and `no_proxy`, also in capitals but for the first, which a
    /// web server could be made to set. Values that mean no proxy known here are findings.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> (ProxySettings, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut proxy = |names: &[&str]| {
            let (name, value) = names
                .iter()
                .find_map(|name| Some((name, variable(name)?)))?;
            let proxy = read_proxy(&value);
            if proxy.is_none() {
                findings.push(Finding::warning(
                    "proxy",
                    format!("{name} in the environment is no HTTP proxy, and is not used"),
                    "write it as http://proxy:3128",
                ));
            }
            proxy
        };
        let settings = ProxySettings {
            http: proxy(&["http_proxy"]),
            https: proxy(&["https_proxy", "HTTPS_PROXY"]),
            exempt: variable("no_proxy")
                .or_else(|| variable("NO_PROXY"))
                .unwrap_or_default()
                .split(',')
                .map(|name| name.trim().to_ascii_lowercase())
                .filter(|name| !name.is_empty())
                .collect(),
        };
        (settings, findings)
    }

    /// The proxy to a host; `None` means straight.
    pub fn of(&self, to: &Endpoint) -> Option<&Proxy> {
        let host = to.host.to_ascii_lowercase();
        let is_exempt = self.exempt.iter().any(|name| {
            let name = name.trim_start_matches('.');
            name == "*"
                || host == name
                || host
                    .strip_suffix(name)
                    .is_some_and(|rest| rest.ends_with('.'))
        });
        match to.port {
            _ if is_exempt => None,
            80 => self.http.as_ref(),
            _ => self.https.as_ref(),
        }
    }
}

/// Reads `[http://][user:password@]host[:port][/]`.
fn read_proxy(value: &str) -> Option<Proxy> {
    /// What curl takes when no port is named.
    const PORT: u16 = 1080;
    let rest = match value.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return None,
        None => value,
    };
    let rest = rest.split('/').next()?;
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    let authorization = user.map(|user| {
        let user = unescape(user);
        Secret::new(format!("Basic {}", base64(&user)))
    });
    Some(Proxy {
        at: host_and_port(place, PORT)?,
        authorization,
    })
}

/// Resolves `%40` and its like, by which a password can have any character in a URL.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(hex.unwrap_or(first));
        rest = if hex.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for digit in 0..4 {
            text.push(match digit <= group.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]),
                false => '=',
            });
        }
    }
    text
}

/// Asks all hosts at once; who does not answer within the time is an error.
pub fn check(sys: &Sys, config: &Config, json: Option<&BalenaConfig>) -> Vec<Finding> {
    let peers = endpoints(config, json);
    if peers.is_empty() {
        return Vec::new();
    }
    let (proxies, mut findings) = ProxySettings::read(|name| sys.variable(name));
    let timeout = Duration::from_secs(config.balena_connect_timeout.0);
    let proxies = &proxies;
    std::thread::scope(|scope| {
        let tries: Vec<_> = peers
            .iter()
            .map(|peer| scope.spawn(move || ask(sys, peer, proxies, timeout)))
            .collect();
        for one in tries {
            findings.extend(one.join().expect("a try does not panic"));
        }
    });
    findings
}

fn ask(sys: &Sys, peer: &Peer, proxies: &ProxySettings, timeout: Duration) -> Option<Finding> {
    let error = match sys.reach(&peer.at, proxies.of(&peer.at), timeout) {
        Ok(()) => {
            log::debug!("the {} {} answers", peer.role, peer.at);
            return None;
        }
        Err(error) => error,
    };
    Some(Finding::error(
        peer.code,
        format!(
            "the {} {} can't be reached from here: {error}",
            peer.role, peer.at
        ),
        format!(
            "the new system will need it: put the network right, or say {} if it will have another",
            peer.skip
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(of: &[(&str, &str)]) -> (ProxySettings, Vec<Finding>) {
        ProxySettings::read(|name| {
            let value = of.iter().find(|(known, _)| *known == name);
            value.map(|(_, value)| (*value).to_owned())
        })
    }

    fn at(host: &str, port: u16) -> Endpoint {
        Endpoint {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn a_proxy_is_read_as_curl_reads_it() {
        for (value, expected) in [
            ("http://proxy:3128", Some(at("proxy", 3128))),
            ("http://proxy:3128/", Some(at("proxy", 3128))),
            ("proxy", Some(at("proxy", 1080))),
            ("http://me:pw@proxy:8080", Some(at("proxy", 8080))),
            ("http://[fe80::1]:8080", Some(at("fe80::1", 8080))),
            ("socks5://proxy:1", None),
            ("http://proxy:0", None),
            ("http://", None),
        ] {
            assert_eq!(read_proxy(value).map(|proxy| proxy.at), expected, "{value}");
        }
        let named = read_proxy("http://Aladdin:open%20sesame@proxy").expect("it is a proxy");
        let authorization = named.authorization.expect("it has a user");
        assert_eq!(
            authorization.expose(),
            b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
    }

    #[test]
    fn the_environment_says_which_proxy() {
        let (found, findings) = proxies(&[
            ("http_proxy", "http://a:1"),
            ("HTTPS_PROXY", "http://b:2"),
            ("no_proxy", "localhost, .example.com,10.0.0.1"),
        ]);
        assert!(findings.is_empty());
        let of = |host: &str, port| found.of(&at(host, port)).map(|proxy| proxy.at.port);
        assert_eq!(of("api.balena-cloud.com", 443), Some(2));
        assert_eq!(of("api.balena-cloud.com", 80), Some(1));
        assert_eq!(of("api.example.com", 443), None);
        assert_eq!(of("example.com", 443), None);
        assert_eq!(of("badexample.com", 443), Some(2));
        assert_eq!(of("10.0.0.1", 443), None);
        let (everything, _) = proxies(&[("https_proxy", "http://b:2"), ("NO_PROXY", "*")]);
        assert_eq!(everything.of(&at("x", 443)), None);
    }

    #[test]
    fn a_value_that_is_no_proxy_is_said_without_its_password() {
        let (found, findings) = proxies(&[("https_proxy", "socks5://me:secret@b:2")]);
        assert_eq!(found.of(&at("x", 443)), None);
        assert_eq!(findings.len(), 1);
        assert!(!findings[0].to_string().contains("secret"));
    }
}
