//! The group 802-1x of keyfiles.
//!
//! All of it stays but the paths of certificates: their contents are put into the new keyfile. A
//! value that starts with `data:;base64,` is such a content already.

use super::super::keyfile::{Document, unescape};
use super::super::model::{Certificate, Eap, KeptSetting, Skipped};
use super::skip;

/// Settings that name a certificate or a key.
const CERTIFICATES: [&str; 6] = [
    "ca-cert",
    "client-cert",
    "private-key",
    "phase2-ca-cert",
    "phase2-client-cert",
    "phase2-private-key",
];

/// Settings that name files and folders of the old system that can't be put into a keyfile.
const OTHER_FILES: [&str; 3] = ["ca-path", "phase2-ca-path", "pac-file"];

/// Reads the group; `line` is where its lack is said.
pub(super) fn read(path: &str, file: &Document, line: usize) -> Result<Eap, Box<Skipped>> {
    let mut eap = Eap {
        settings: Vec::new(),
        certificates: Vec::new(),
    };
    for entry in file
        .entries()
        .iter()
        .filter(|entry| entry.group == "802-1x")
    {
        let refuse = |what: String, remedy: &str| Err(skip(path, entry.line, what, remedy));
        let value = entry.value.trim_end();
        if OTHER_FILES.contains(&entry.key.as_str()) {
            let what = format!("{} names files that can't be put into a keyfile", entry.key);
            return refuse(what, "name one certificate with ca-cert");
        }
        // 1: in a user's keyring, 2: never kept.
        if entry.key.ends_with("password-flags") && !matches!(value, "0" | "4") {
            let what = "the password of this network is not in the file".to_owned();
            return refuse(what, "store it for all users: 802-1x.password-flags 0");
        }
        let key = CERTIFICATES.iter().find(|key| **key == entry.key);
        let Some(key) = key.filter(|_| !value.starts_with("data:")) else {
            eap.settings
                .push(KeptSetting::new("802-1x", &entry.key, &entry.value));
            continue;
        };
        let Some(named) = certificate_path(path, value) else {
            return refuse(format!("{key} is not the path of a file"), "name a file");
        };
        eap.certificates.push(Certificate {
            key,
            path: named,
            line: entry.line,
            content: None,
        });
    }
    match eap.settings.iter().any(|setting| setting.key == "eap") {
        true => Ok(eap),
        false => Err(skip(
            path,
            line,
            "no EAP method is named",
            "add eap= to [802-1x]",
        )),
    }
}

/// `file:///path`, `/path`, or the name of a file beside the keyfile.
fn certificate_path(keyfile: &str, value: &str) -> Option<String> {
    let text = unescape(value)?;
    let text = text.strip_prefix("file://").unwrap_or(&text);
    if text.starts_with('/') {
        return Some(text.to_owned());
    }
    // A token on a smart card, or bytes as a list of numbers.
    if text.is_empty() || text.contains(':') || text.contains(';') {
        return None;
    }
    let (folder, _) = keyfile.rsplit_once('/')?;
    Some(format!("{folder}/{text}"))
}
