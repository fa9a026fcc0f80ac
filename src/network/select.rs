//! Chooses which connections go into the new system: of wifi all (MIGRATE_ALL_WIFIS) or those of a
//! list (MIGRATE_WIFI_CFG), and whatever is no wifi.
//!
//! Called by [`super::carry`]. A network of the list that can't be carried stops the migration: the
//! user counts on it, and the device may not be reachable without it.

use super::ip::Address;
use super::model::{Connection, Found, Link, Loss, Skipped, label};
use crate::finding::{Finding, Severity};

/// Which networks to carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Every network.
    pub all: bool,
    /// These networks.
    pub listed: Vec<Listed>,
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The network's name.
    pub ssid: Vec<u8>,
    /// Where it stands: `file:line`.
    pub place: String,
}

impl Selection {
    /// Whether networks are carried at all.
    pub fn is_empty(&self) -> bool {
        !self.all && self.listed.is_empty()
    }

    fn lists(&self, ssid: &[u8]) -> bool {
        self.listed.iter().any(|listed| listed.ssid == ssid)
    }

    fn wants(&self, ssid: &[u8]) -> bool {
        self.all || self.lists(ssid)
    }
}

/// Reads a list: one name on a line, exactly as it is. Blank lines are skipped; CR LF and a byte
/// order mark are tolerated.
pub fn read_list(path: &str, bytes: &[u8]) -> Vec<Listed> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes
        .split(|&b| b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .enumerate()
        .filter(|(_, ssid)| !ssid.trim_ascii().is_empty())
        .map(|(index, ssid)| Listed {
            ssid: ssid.to_vec(),
            place: format!("{path}:{}", index + 1),
        })
        .collect()
}

/// The connections to carry, each once, and what has to be said about them. What is no wifi is
/// always wanted: the device may be reached by nothing else.
pub fn select(found: Found, selection: &Selection) -> (Vec<Connection>, Vec<Finding>) {
    let ssids = |connections: &[Connection]| -> Vec<Vec<u8>> {
        let wifis = connections.iter().filter_map(Connection::wifi);
        wifis.map(|wifi| wifi.ssid.clone()).collect()
    };
    let known: Vec<String> = ssids(&found.connections).iter().map(|s| label(s)).collect();
    let mut chosen: Vec<Connection> = Vec::new();
    let mut findings = Vec::new();
    for connection in found.connections {
        let wifi = connection.wifi();
        if wifi.is_none_or(|wifi| selection.wants(&wifi.ssid)) {
            findings.extend(add(connection, &mut chosen));
        }
    }
    let chosen_ssids = ssids(&chosen);
    let is_chosen = |ssid: &[u8]| chosen_ssids.iter().any(|chosen| chosen == ssid);
    // A network that another file has in full is not missed.
    let missed: Vec<Skipped> = found
        .skipped
        .into_iter()
        .filter(|skipped| match &skipped.loss {
            Loss::Network(ssid) => selection.wants(ssid) && !is_chosen(ssid),
            Loss::Unnamed => !selection.is_empty(),
            Loss::Other => true,
        })
        .collect();
    let is_known = |ssid: &[u8]| {
        let is_missed =
            |missed: &Skipped| matches!(&missed.loss, Loss::Network(name) if name == ssid);
        is_chosen(ssid) || missed.iter().any(is_missed)
    };
    findings.extend(
        selection
            .listed
            .iter()
            .filter(|listed| !is_known(&listed.ssid))
            .map(|listed| not_found(listed, &known)),
    );
    findings.extend(missed.into_iter().map(|skipped| miss(skipped, selection)));
    findings.extend(chosen.iter().flat_map(losses));
    (chosen, findings)
}

/// Adds a connection, or merges it with the same one from elsewhere. Two keys for one name are two
/// connections: NetworkManager tries both, and either may be the right one. Of two configurations
/// for one wire it would take any: the first is made to win, and the other is said.
fn add(connection: Connection, chosen: &mut Vec<Connection>) -> Option<Finding> {
    if let Some(twin) = chosen.iter_mut().find(|other| is_same(other, &connection)) {
        merge(twin, connection);
        return None;
    }
    let is_rival = |other: &&Connection| is_same_hardware(&other.link, &connection.link);
    let rival = chosen.iter().rfind(is_rival);
    let rival = rival.map(|other| (other.place.clone(), other.priority.unwrap_or(0)));
    let Some((place, priority)) = rival else {
        chosen.push(connection);
        return None;
    };
    let what = format!(
        "{}: {place} configures the same hardware otherwise, and is tried first",
        connection.label()
    );
    let finding = Finding::warning("network-two", what, "remove the one that is not in use");
    let finding = finding.at(connection.place.clone());
    chosen.push(Connection {
        priority: Some((priority - 1).max(-999)),
        ..connection
    });
    Some(finding)
}

/// Whether two connections lead to the same network in the same way.
fn is_same(one: &Connection, other: &Connection) -> bool {
    match (&one.link, &other.link) {
        (Link::Wifi(a), Link::Wifi(b)) => a.ssid == b.ssid && a.security == b.security,
        (Link::Gsm, Link::Gsm) => one.kept == other.kept,
        (a, b) => is_same_hardware(a, b) && addresses(one) == addresses(other),
    }
}

fn is_same_hardware(one: &Link, other: &Link) -> bool {
    match (one, other) {
        (Link::Ethernet(a), Link::Ethernet(b)) => a.device == b.device,
        (Link::Vlan(a), Link::Vlan(b)) => a == b,
        _ => false,
    }
}

fn addresses(connection: &Connection) -> Vec<Address> {
    let mut addresses: Vec<Address> = connection.ip.addresses().copied().collect();
    addresses.sort_unstable();
    addresses
}

/// Adds to a connection what the same one says elsewhere and it does not say itself.
fn merge(twin: &mut Connection, other: Connection) {
    twin.priority = twin.priority.max(other.priority);
    match (&mut twin.link, other.link) {
        (Link::Wifi(twin), Link::Wifi(other)) => twin.hidden |= other.hidden,
        (Link::Ethernet(twin), Link::Ethernet(other)) => {
            twin.eap = twin.eap.take().or(other.eap);
        }
        _ => {}
    }
    if twin.kept.is_empty() {
        twin.kept = other.kept;
        twin.dropped = other.dropped;
    }
    if twin.ip.is_automatic() {
        twin.ip = other.ip;
    }
}

/// How a finding starts that is about a network.
fn named(ssid: &[u8]) -> String {
    format!("wifi network `{}`: ", label(ssid))
}

fn miss(skipped: Skipped, selection: &Selection) -> Finding {
    let (severity, what) = match &skipped.loss {
        Loss::Network(ssid) if selection.lists(ssid) => {
            (Severity::Error, named(ssid) + &skipped.what)
        }
        Loss::Network(ssid) => (Severity::Warning, named(ssid) + &skipped.what),
        Loss::Unnamed | Loss::Other => (Severity::Warning, skipped.what),
    };
    Finding {
        code: "network-skipped",
        severity,
        place: Some(skipped.place),
        what,
        remedy: skipped.remedy,
    }
}

fn not_found(listed: &Listed, known: &[String]) -> Finding {
    let wanted = label(&listed.ssid);
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&wanted, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Finding {
        code: "network-not-found",
        severity: Severity::Error,
        place: Some(listed.place.clone()),
        what: format!("no wifi network `{wanted}` is configured on this device"),
        remedy: match nearest {
            Some((_, name)) => format!("did you mean `{name}`? The name must match exactly"),
            None => "configure it here first, or remove it from the list".to_string(),
        },
    }
}

/// Warnings about a connection that is carried.
fn losses(connection: &Connection) -> Vec<Finding> {
    let named = match connection.wifi() {
        Some(wifi) => named(&wifi.ssid),
        None => format!("{}: ", connection.label()),
    };
    let warning = |place: &str, what: String, remedy: &str| Finding {
        code: "network-changed",
        severity: Severity::Warning,
        place: Some(place.to_string()),
        what,
        remedy: remedy.to_string(),
    };
    let dropped = connection.dropped.iter().map(|dropped| {
        warning(
            &dropped.place,
            format!("{named}{} is not carried", dropped.setting),
            "make sure that the new system can do without it",
        )
    });
    let manual = connection.kept.iter().any(|kept| {
        kept.group == "connection"
            && kept.key == "autoconnect"
            && kept.written().trim_end() == "false"
    });
    let manual = manual.then(|| {
        warning(
            &connection.place,
            format!("{named}it does not connect by itself, and will not in the new system"),
            "set autoconnect=true",
        )
    });
    dropped.chain(manual).collect()
}
