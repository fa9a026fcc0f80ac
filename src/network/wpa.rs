//! Reads `wpa_supplicant.conf`.
//!
//! Called by [`super::carry`]. The rules are those of wpa_supplicant's own reader
//! (<https://w1.fi/cgit/hostap/plain/wpa_supplicant/wpa_supplicant.conf>): quoted values are text up
//! to the *last* quote on the line, others are hexadecimal; `#` starts a comment behind that quote.

use super::eap::{Phase2, Wanted};
use super::model::{
    Connection, Device, Eap, Ethernet, Found, Link, Loss, MAX_SSID_BYTES, Security, Skipped, Wifi,
    hex, is_password, wpa_psk,
};
use crate::secret::Secret;

/// Reads every network of a file. `path` names it in messages.
pub fn read(path: &str, bytes: &[u8]) -> Found {
    let mut found = Found::default();
    let mut block: Option<Block> = None;
    for (index, raw) in bytes.split(|&b| b == b'\n').enumerate() {
        let line = strip(raw);
        match &mut block {
            _ if line.is_empty() => {}
            Some(_) if line == b"}" => finish(path, block.take(), &mut found),
            Some(open) => open.add(index + 1, line),
            None if line.last() == Some(&b'{') => block = Some(Block::new(index + 1, line)),
            None => {}
        }
    }
    if let Some(open) = block {
        found.skipped.push(Skipped {
            loss: Loss::Unnamed,
            place: format!("{path}:{}", open.line),
            what: "this block is never closed".into(),
            remedy: "add a line with `}`".into(),
        });
    }
    found
}

/// A line without its comment and the blanks around it.
fn strip(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    if line.first() == Some(&b'#') {
        return b"";
    }
    let behind = line.iter().rposition(|&b| b == b'"').unwrap_or(0);
    let end = line[behind..]
        .iter()
        .position(|&b| b == b'#')
        .map_or(line.len(), |at| behind + at);
    line[..end].trim_ascii_end()
}

/// `network={ … }` or a block of another name.
struct Block {
    line: usize,
    is_network: bool,
    settings: Vec<Setting>,
}

struct Setting {
    line: usize,
    key: String,
    value: Vec<u8>,
}

impl Block {
    fn new(line: usize, head: &[u8]) -> Self {
        let name: Vec<u8> = head.iter().copied().filter(|b| *b != b' ').collect();
        Block {
            line,
            is_network: name == b"network={",
            settings: Vec::new(),
        }
    }

    fn add(&mut self, line: usize, text: &[u8]) {
        if let Some(at) = text.iter().position(|&b| b == b'=') {
            self.settings.push(Setting {
                line,
                key: String::from_utf8_lossy(text[..at].trim_ascii()).into_owned(),
                value: text[at + 1..].trim_ascii().to_vec(),
            });
        }
    }

    /// The last setting of that name, as wpa_supplicant has it.
    fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().rfind(|setting| setting.key == key)
    }

    /// Methods of `key_mgmt`, and its line.
    fn methods(&self) -> (String, usize) {
        self.get("key_mgmt")
            .map_or(("WPA-PSK".into(), self.line), |setting| {
                let text = String::from_utf8_lossy(&setting.value);
                (text.into_owned(), setting.line)
            })
    }

    fn has_method(&self, wanted: &[&str]) -> bool {
        let (methods, _) = self.methods();
        let mut methods = methods.split_ascii_whitespace();
        methods.any(|method| wanted.contains(&method))
    }

    fn number(&self, key: &str) -> Option<i64> {
        std::str::from_utf8(&self.get(key)?.value)
            .ok()?
            .parse()
            .ok()
    }
}

/// A setting of `wpa-…` in ifupdown's files: key without `wpa-`, value and line.
pub type Written = (String, String, usize);

/// Reads a network that ifupdown's options describe: wpa_supplicant's own, but texts may go without
/// quotes.
pub fn read_options(path: &str, line: usize, options: &[Written]) -> Found {
    const BARE: [&str; 5] = ["key-mgmt", "eap", "scan-ssid", "priority", "disabled"];
    let settings = options.iter().map(|(key, value, line)| {
        let is_key = key == "psk" && value.len() == 64;
        let is_bare = BARE.contains(&key.as_str()) || is_key || value.starts_with('"');
        Setting {
            line: *line,
            key: key.replace('-', "_"),
            value: match is_bare {
                true => value.as_bytes().to_vec(),
                false => format!("\"{value}\"").into_bytes(),
            },
        }
    });
    let block = Block {
        line,
        is_network: true,
        settings: settings.collect(),
    };
    let mut found = Found::default();
    finish(path, Some(block), &mut found);
    found
}

/// Why a network is not carried, and where the reason stands.
struct Refusal {
    line: usize,
    what: String,
    remedy: &'static str,
}

const CORRECT: &str = "correct the file";

/// Turns a block into a connection, or says why that can't be done.
fn finish(path: &str, block: Option<Block>, found: &mut Found) {
    let Some(block) = block.filter(|block| block.is_network) else {
        return;
    };
    match connection(path, &block) {
        Ok(connection) => found.connections.push(connection),
        Err((loss, refusal)) => found.skipped.push(refusal.into_skipped(path, loss)),
    }
}

fn connection(path: &str, block: &Block) -> Result<Connection, (Loss, Refusal)> {
    let place = format!("{path}:{}", block.line);
    // 802.1X on a wire has no name.
    let is_wired = block.has_method(&["IEEE8021X"]) && block.get("ssid").is_none();
    let mut connection = if is_wired {
        let eap = enterprise(block, block.line).map_err(|refusal| (Loss::Other, refusal))?;
        let (device, eap) = (Device::Any, Some(eap));
        Connection::new(Link::Ethernet(Ethernet { device, eap }), place)
    } else {
        let ssid = ssid(block).map_err(|refusal| (Loss::Unnamed, refusal))?;
        let security = security(block).map_err(|r| (Loss::Network(ssid.clone()), r))?;
        let hidden = block.number("scan_ssid") == Some(1);
        let wifi = Wifi {
            ssid,
            security,
            hidden,
        };
        Connection::new(Link::Wifi(wifi), place)
    };
    connection.priority = block
        .number("priority")
        .filter(|priority| *priority != 0)
        .map(|priority| priority.clamp(-999, 999) as i32);
    Ok(connection)
}

impl Refusal {
    fn into_skipped(self, path: &str, loss: Loss) -> Skipped {
        Skipped {
            loss,
            place: format!("{path}:{}", self.line),
            what: self.what,
            remedy: self.remedy.into(),
        }
    }
}

fn refuse<T>(line: usize, what: impl Into<String>, remedy: &'static str) -> Result<T, Refusal> {
    let what = what.into();
    Err(Refusal { line, what, remedy })
}

fn ssid(block: &Block) -> Result<Vec<u8>, Refusal> {
    let Some(setting) = block.get("ssid") else {
        return refuse(
            block.line,
            "this network has no ssid",
            "name the network, or remove it",
        );
    };
    match text_or_hex(&setting.value) {
        Some(ssid) if ssid.is_empty() || ssid.len() > MAX_SSID_BYTES => refuse(
            setting.line,
            format!(
                "the ssid has {} bytes instead of 1 to {MAX_SSID_BYTES}",
                ssid.len()
            ),
            CORRECT,
        ),
        Some(ssid) => Ok(ssid),
        None => refuse(
            setting.line,
            "the ssid is neither in quotes nor hexadecimal",
            "write it as ssid=\"name\"",
        ),
    }
}

fn security(block: &Block) -> Result<Security, Refusal> {
    if let Some(mode) = block.get("mode").filter(|mode| mode.value != b"0") {
        return refuse(
            mode.line,
            "this is a network that the device itself opens",
            "leave it out of the list",
        );
    }
    // 1: by the user; 2: a persistent group of Wi-Fi Direct.
    if let Some(disabled) = block
        .get("disabled")
        .filter(|disabled| disabled.value != b"0")
    {
        return refuse(
            disabled.line,
            "this network is disabled",
            "remove `disabled` to carry it",
        );
    }
    let (methods, line) = block.methods();
    let has = |wanted: &[&str]| block.has_method(wanted);
    if has(&["WPA-PSK", "WPA-PSK-SHA256", "FT-PSK"]) && block.get("psk").is_some() {
        return psk(block);
    }
    if has(&["SAE", "FT-SAE"]) {
        return sae(block, line);
    }
    if has(&["NONE"]) {
        return match block.settings.iter().find(|s| s.key.starts_with("wep_key")) {
            Some(key) => refuse(
                key.line,
                "this network uses WEP, which is broken and not carried",
                "move the access point to WPA2",
            ),
            None => Ok(Security::Open),
        };
    }
    if has(&["OWE"]) {
        return Ok(Security::Owe);
    }
    if has(&["WPA-EAP", "IEEE8021X", "WPA-EAP-SHA256", "FT-EAP"]) || block.get("eap").is_some() {
        return enterprise(block, line).map(Security::Eap);
    }
    if has(&["WPA-PSK", "WPA-PSK-SHA256", "FT-PSK"]) {
        return refuse(
            line,
            "this network has no psk",
            "write psk=\"phrase\" or key_mgmt=NONE",
        );
    }
    refuse(
        line,
        format!("the key management `{methods}` is not carried"),
        "give the new system another way into the network",
    )
}

fn psk(block: &Block) -> Result<Security, Refusal> {
    let Some(setting) = block.get("psk") else {
        return refuse(block.line, "this network has no psk", CORRECT);
    };
    if setting.value.starts_with(b"ext:") {
        return refuse(
            setting.line,
            "the psk is kept outside of this file",
            "write it into the file",
        );
    }
    // Unquoted it has to be the 64 digits themselves: they stay digits.
    let key = match setting.value.first() {
        Some(b'"' | b'P') => text_or_hex(&setting.value),
        _ => Some(setting.value.clone()).filter(|value| value.len() == 64),
    };
    match key.as_deref().and_then(wpa_psk) {
        Some(security) => Ok(security),
        None => refuse(
            setting.line,
            "the psk is neither 8 to 63 characters in quotes nor 64 hexadecimal digits",
            CORRECT,
        ),
    }
}

fn sae(block: &Block, line: usize) -> Result<Security, Refusal> {
    let Some(setting) = block.get("sae_password").or_else(|| block.get("psk")) else {
        return refuse(
            line,
            "this network has neither sae_password nor psk",
            CORRECT,
        );
    };
    match text_or_hex(&setting.value) {
        Some(key) if is_password(&key) && setting.value.first() == Some(&b'"') => {
            Ok(Security::Sae(Secret::new(key)))
        }
        _ => refuse(
            setting.line,
            "WPA3 needs the password itself, in quotes",
            CORRECT,
        ),
    }
}

fn enterprise(block: &Block, line: usize) -> Result<Eap, Refusal> {
    // Without `eap`, wpa_supplicant takes any; here one has to be named.
    let Some(eap) = block.get("eap") else {
        return refuse(line, "no EAP method is named", "add eap=PEAP, TTLS or TLS");
    };
    let text = |key: &str| text_or_hex(&block.get(key)?.value);
    let utf8 = |key: &str| String::from_utf8(text(key)?).ok();
    let file = |key: &str| Some((utf8(key)?, block.get(key)?.line));
    if let Some(hash) = block
        .get("password")
        .filter(|s| s.value.starts_with(b"hash:"))
    {
        return refuse(
            hash.line,
            "only a hash of the password is in the file",
            "write the password itself",
        );
    }
    for key in ["ca_cert", "client_cert", "private_key"] {
        let is_path = file(key).is_none_or(|(path, _)| path.starts_with('/'));
        if let Some(setting) = block.get(key).filter(|_| !is_path) {
            let what = format!("{key} is not the path of a file");
            return refuse(setting.line, what, "put it into a file of its own");
        }
    }
    let methods = String::from_utf8_lossy(&eap.value).to_ascii_lowercase();
    let phase1 = utf8("phase1").unwrap_or_default();
    let peap_version = phase1.split_ascii_whitespace().find_map(|word| {
        let version = word.strip_prefix("peapver=")?;
        matches!(version, "0" | "1").then(|| version.to_owned())
    });
    let wanted = Wanted {
        methods: methods
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect(),
        identity: utf8("identity"),
        anonymous_identity: utf8("anonymous_identity"),
        password: text("password").map(Secret::new),
        phase2: utf8("phase2").as_deref().and_then(phase2),
        peap_version,
        domain_suffix: utf8("domain_suffix_match"),
        domain: utf8("domain_match"),
        ca_cert: file("ca_cert"),
        client_cert: file("client_cert"),
        private_key: file("private_key"),
        private_key_password: text("private_key_passwd").map(Secret::new),
    };
    wanted.finish().or_else(|what| {
        refuse(
            eap.line,
            what,
            "give the new system another way into the network",
        )
    })
}

/// `auth=MSCHAPV2` or `autheap=MSCHAPV2`.
fn phase2(text: &str) -> Option<Phase2> {
    text.split_ascii_whitespace().find_map(|word| {
        let (key, method) = word.split_once('=')?;
        let method = method.to_ascii_lowercase();
        match key {
            "auth" => Some(Phase2::Auth(method)),
            "autheap" => Some(Phase2::InnerEap(method)),
            _ => None,
        }
    })
}

/// The bytes of `"text"`, `P"text with escapes"` or `hexadecimal digits`.
fn text_or_hex(value: &[u8]) -> Option<Vec<u8>> {
    if let Some(rest) = value.strip_prefix(b"\"") {
        return rest.strip_suffix(b"\"").map(<[u8]>::to_vec);
    }
    if let Some(rest) = value.strip_prefix(b"P\"") {
        return unescape(rest.strip_suffix(b"\"")?);
    }
    hex(std::str::from_utf8(value).ok()?)
}

/// Resolves the escapes of `P"…"`, which are those of C.
fn unescape(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some((&byte, rest)) = text.split_first() {
        text = rest;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escape, rest) = text.split_first()?;
        bytes.push(match escape {
            b'0'..=b'7' => number(&mut text, 8, 3)?,
            _ => {
                text = rest;
                match escape {
                    b'x' => number(&mut text, 16, 2)?,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'e' => 0x1b,
                    other => other,
                }
            }
        });
    }
    Some(bytes)
}

/// Takes a number of at most so many digits from the start of `text`.
fn number(text: &mut &[u8], radix: u32, most: usize) -> Option<u8> {
    let is_digit = |b: &&u8| char::from(**b).is_digit(radix);
    let count = text.iter().take(most).take_while(is_digit).count();
    let (digits, rest) = text.split_at(count);
    *text = rest;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}
