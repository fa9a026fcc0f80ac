//! A wifi network as every reader finds it and the keyfile writer needs it.

use crate::secret::Secret;

/// A wifi network that can be carried into the new system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The network's name: 1 to 32 bytes of any value.
    pub ssid: Vec<u8>,
    /// How to get in.
    pub security: Security,
    /// The network does not announce its name.
    pub hidden: bool,
    /// Higher is tried first, -999 to 999 as NetworkManager has it; `None` is 0.
    pub priority: Option<i32>,
    /// Further settings of a NetworkManager keyfile, to be written as they are.
    pub kept: Vec<KeptSetting>,
    /// Settings that stay behind although they may matter, in words, each with its line.
    pub dropped: Vec<Dropped>,
    /// Where it was found: `file:line`.
    pub place: String,
}

/// How to get into a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// Anybody can.
    Open,
    /// WPA or WPA2 personal: a phrase of 8 to 63 bytes, or 64 hexadecimal digits. Where the access
    /// point has WPA3 too, NetworkManager uses it with the same phrase.
    WpaPsk(Secret),
    /// WPA3 personal only.
    Sae(Secret),
}

/// A setting of a keyfile in its written form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSetting {
    /// Group, such as `ipv4`.
    pub group: String,
    /// Key, such as `method`.
    pub key: String,
    /// Value, with the escapes of the file format.
    pub value: String,
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

/// What a reader made of its file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What can be carried, in the order of the file.
    pub connections: Vec<Connection>,
    /// What can't.
    pub skipped: Vec<Skipped>,
}

/// Longest name of a network in bytes (IEEE 802.11).
pub const MAX_SSID_BYTES: usize = 32;

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
