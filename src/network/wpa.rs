//! Reads `wpa_supplicant.conf`.
//!
//! Called by [`super::carry`]. The rules are those of wpa_supplicant's own reader
//! (<https://w1.fi/cgit/hostap/plain/wpa_supplicant/wpa_supplicant.conf>): quoted values are text up
//! to the *last* quote on the line, others are hexadecimal; `#` starts a comment behind that quote.

use super::model::{
    Connection, Found, Loss, MAX_SSID_BYTES, Security, Skipped, is_password, wpa_psk,
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

    fn number(&self, key: &str) -> Option<i64> {
        std::str::from_utf8(&self.get(key)?.value)
            .ok()?
            .parse()
            .ok()
    }
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
    let ssid = match ssid(&block) {
        Ok(ssid) => ssid,
        Err(refusal) => {
            return found
                .skipped
                .push(refusal.into_skipped(path, Loss::Unnamed));
        }
    };
    match security(&block) {
        Ok(security) => found.connections.push(Connection {
            ssid,
            security,
            hidden: block.number("scan_ssid") == Some(1),
            priority: block
                .number("priority")
                .filter(|priority| *priority != 0)
                .map(|priority| priority.clamp(-999, 999) as i32),
            kept: Vec::new(),
            dropped: Vec::new(),
            place: format!("{path}:{}", block.line),
        }),
        Err(refusal) => found
            .skipped
            .push(refusal.into_skipped(path, Loss::Network(ssid))),
    }
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
    let methods = block.get("key_mgmt");
    let line = methods.map_or(block.line, |setting| setting.line);
    let methods = methods.map_or("WPA-PSK".into(), |setting| {
        String::from_utf8_lossy(&setting.value).into_owned()
    });
    let has = |wanted: &[&str]| {
        methods
            .split_ascii_whitespace()
            .any(|m| wanted.contains(&m))
    };
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
    if block.get("eap").is_some() || has(&["WPA-EAP", "IEEE8021X", "WPA-EAP-SHA256", "FT-EAP"]) {
        return refuse(
            line,
            "enterprise networks (802.1X) are not carried by this version",
            "give the new system another way into the network",
        );
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

/// The bytes of `"text"`, `P"text with escapes"` or `hexadecimal digits`.
fn text_or_hex(value: &[u8]) -> Option<Vec<u8>> {
    if let Some(rest) = value.strip_prefix(b"\"") {
        return rest.strip_suffix(b"\"").map(<[u8]>::to_vec);
    }
    if let Some(rest) = value.strip_prefix(b"P\"") {
        return unescape(rest.strip_suffix(b"\"")?);
    }
    let is_hex = value.len().is_multiple_of(2) && value.iter().all(u8::is_ascii_hexdigit);
    let hex = std::str::from_utf8(value).ok().filter(|_| is_hex)?;
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok())
        .collect()
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
