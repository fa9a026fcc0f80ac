//! A connection as every reader finds it and the keyfile writer needs it.

use super::ip::Ip;
use crate::secret::Secret;

/// A way into the network that can be carried into the new system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// What it goes over.
    pub link: Link,
    /// Addresses, routes and name servers.
    pub ip: Ip,
    /// Higher is tried first, -999 to 999 as NetworkManager has it; `None` is 0.
    pub priority: Option<i32>,
    /// Further settings of a NetworkManager keyfile, to be written as they are. Those of the
    /// groups ipv4 and ipv6 win over `ip`: they are what `ip` was read from.
    pub kept: Vec<KeptSetting>,
    /// Settings that stay behind although they may matter, in words, each with its line.
    pub dropped: Vec<Dropped>,
    /// Where it was found: `file:line`.
    pub place: String,
}

/// What a connection goes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// A wifi network.
    Wifi(Wifi),
    /// A wire.
    Ethernet(Ethernet),
    /// A tagged network on a wire.
    Vlan(Vlan),
    /// A modem. What it needs is in the groups gsm, serial and ppp of the kept settings.
    Gsm,
}

/// A wifi network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wifi {
    /// The network's name: 1 to 32 bytes of any value.
    pub ssid: Vec<u8>,
    /// How to get in.
    pub security: Security,
    /// The network does not announce its name.
    pub hidden: bool,
}

/// A wired connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ethernet {
    /// On which hardware.
    pub device: Device,
    /// 802.1X on the wire.
    pub eap: Option<Eap>,
}

/// A tagged network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vlan {
    /// Tag, 0 to 4094.
    pub id: u16,
    /// The hardware below it.
    pub parent: Device,
}

/// A piece of network hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// Whichever there is.
    Any,
    /// By its address, in capitals with colons.
    Mac(String),
    /// By its name in the old system, not yet bound to an address.
    Named(String),
}

/// How to get into a wifi network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// Anybody can.
    Open,
    /// Anybody can, encrypted.
    Owe,
    /// WPA or WPA2 personal: a phrase of 8 to 63 bytes, or 64 hexadecimal digits. Where the access
    /// point has WPA3 too, NetworkManager uses it with the same phrase.
    WpaPsk(Secret),
    /// WPA3 personal only.
    Sae(Secret),
    /// Enterprise.
    Eap(Eap),
}

/// 802.1X.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eap {
    /// Settings of the group 802-1x without the certificates.
    pub settings: Vec<KeptSetting>,
    /// Certificates and keys.
    pub certificates: Vec<Certificate>,
}

/// A certificate or key in a file of the old system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// NetworkManager's key for it, such as `ca-cert`.
    pub key: &'static str,
    /// The file, absolute.
    pub path: String,
    /// The line that names it.
    pub line: usize,
    /// What is in it, once it is read.
    pub content: Option<Secret>,
}

/// A setting of a keyfile in its written form. It may be a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSetting {
    /// Group, such as `ipv4`.
    pub group: String,
    /// Key, such as `method`.
    pub key: String,
    /// Value, with the escapes of the file format.
    pub value: Secret,
}

/// A setting that stays behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Where it stands: `file:line`.
    pub place: String,
    /// Its name, such as `[connection] secondaries`.
    pub setting: String,
}

/// A network, or a part of a file, that can't be carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// What is lost.
    pub loss: Loss,
    /// Where it stands: `file:line`.
    pub place: String,
    /// Why.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// What is lost when something can't be carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The wifi network of this name.
    Network(Vec<u8>),
    /// A wifi network, or several, whose names are not known.
    Unnamed,
    /// Another way into the network, which no selection of wifi networks chooses or refuses.
    Other,
}

/// What the readers made of their files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What can be carried, in the order of the files.
    pub connections: Vec<Connection>,
    /// What can't.
    pub skipped: Vec<Skipped>,
}

/// Longest name of a network in bytes (IEEE 802.11).
pub const MAX_SSID_BYTES: usize = 32;

/// Largest tag of a VLAN (IEEE 802.1Q; 4095 is reserved).
pub const MAX_VLAN: u16 = 4094;

impl Connection {
    /// A connection with automatic addresses and nothing special.
    pub fn new(link: Link, place: String) -> Connection {
        Connection {
            link,
            ip: Ip::default(),
            priority: None,
            kept: Vec::new(),
            dropped: Vec::new(),
            place,
        }
    }

    /// A wire with these addresses.
    pub fn wired(device: Device, ip: Ip, place: String) -> Connection {
        let link = Link::Ethernet(Ethernet { device, eap: None });
        Connection {
            ip,
            ..Connection::new(link, place)
        }
    }

    /// The wifi network, if it is one.
    pub fn wifi(&self) -> Option<&Wifi> {
        match &self.link {
            Link::Wifi(wifi) => Some(wifi),
            _ => None,
        }
    }

    /// What 802.1X needs, if it is used.
    pub fn eap_mut(&mut self) -> Option<&mut Eap> {
        match &mut self.link {
            Link::Wifi(wifi) => match &mut wifi.security {
                Security::Eap(eap) => Some(eap),
                _ => None,
            },
            Link::Ethernet(ethernet) => ethernet.eap.as_mut(),
            Link::Vlan(_) | Link::Gsm => None,
        }
    }

    /// The hardware that it is bound to, or is to be.
    pub fn device_mut(&mut self) -> Option<&mut Device> {
        match &mut self.link {
            Link::Ethernet(ethernet) => Some(&mut ethernet.device),
            Link::Vlan(vlan) => Some(&mut vlan.parent),
            Link::Wifi(_) | Link::Gsm => None,
        }
    }

    /// What is lost without it.
    pub fn loss(&self) -> Loss {
        match self.wifi() {
            Some(wifi) => Loss::Network(wifi.ssid.clone()),
            None => Loss::Other,
        }
    }

    /// Whether a system without any file would do the same: DHCP on a wire.
    pub fn is_default(&self) -> bool {
        match &self.link {
            Link::Ethernet(ethernet) => {
                let is_special = |kept: &KeptSetting| kept.group == "ethernet";
                ethernet.eap.is_none()
                    && self.ip.is_automatic()
                    && !self.kept.iter().any(is_special)
            }
            _ => false,
        }
    }

    /// For people: `wifi Home`, `wired 10.0.0.2/24`.
    pub fn label(&self) -> String {
        let addresses: Vec<String> = self.ip.addresses().map(ToString::to_string).collect();
        let addresses = match addresses.is_empty() {
            true => "automatic".to_owned(),
            false => addresses.join(" "),
        };
        match &self.link {
            Link::Wifi(wifi) => format!("wifi {}", label(&wifi.ssid)),
            Link::Ethernet(_) => format!("wired {addresses}"),
            Link::Vlan(vlan) => format!("VLAN {} {addresses}", vlan.id),
            Link::Gsm => "modem".to_owned(),
        }
    }
}

impl KeptSetting {
    /// A setting with its value in written form.
    pub fn new(group: &str, key: &str, written: &str) -> KeptSetting {
        KeptSetting {
            group: group.to_owned(),
            key: key.to_owned(),
            value: Secret::new(written),
        }
    }

    /// The value as it is written.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(self.value.expose()).into_owned()
    }
}

impl Skipped {
    /// A loss and its reason.
    pub fn new(
        loss: Loss,
        path: &str,
        line: usize,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Skipped {
        Skipped {
            loss,
            place: format!("{path}:{line}"),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// A network's name for people: text as it is, anything else as `\x` escapes.
pub fn label(ssid: &[u8]) -> String {
    match std::str::from_utf8(ssid) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_string(),
        _ => ssid.escape_ascii().to_string(),
    }
}

/// Takes the key of WPA personal: a phrase or 64 hexadecimal digits.
pub fn wpa_psk(key: &[u8]) -> Option<Security> {
    let is_key = match key.len() {
        8..=63 => is_password(key),
        64 => key.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    };
    is_key.then(|| Security::WpaPsk(Secret::new(key)))
}

/// Whether a keyfile can hold `key`: those are UTF-8.
pub fn is_password(key: &[u8]) -> bool {
    !key.is_empty() && std::str::from_utf8(key).is_ok()
}

/// A hardware address in capitals with colons; `None` when it is none.
pub fn mac(text: &str) -> Option<String> {
    let pairs: Vec<&str> = text.trim().split([':', '-']).collect();
    let is_pair = |pair: &&str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
    (pairs.len() == 6 && pairs.iter().all(is_pair)).then(|| pairs.join(":").to_ascii_uppercase())
}

/// The bytes of hexadecimal digits.
pub fn hex(digits: &str) -> Option<Vec<u8>> {
    let is_hex = digits.len().is_multiple_of(2) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let at = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    is_hex.then(|| (0..digits.len()).step_by(2).map(at).collect())?
}
