//! The host name of the old system, put into the config.json of the new one (KEEP_NAME).
//!
//! Called by [`crate::material`]. Only the copy that goes to the new system is changed.

use serde_json::Value;

use super::balena::BalenaConfig;
use crate::secret::Secret;

/// Puts `hostname` in, unless the file has one; whether it did. All other bytes stay as they are:
/// numbers and the order of keys are the user's.
pub fn keep(json: &mut BalenaConfig, name: &str) -> bool {
    let bytes = json.bytes.expose();
    let is_open = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(object)) => !object.is_empty() && !object.contains_key("hostname"),
        _ => false,
    };
    let brace = bytes.iter().position(|&b| b == b'{');
    let Some(brace) = brace.filter(|_| is_open) else {
        return false;
    };
    let (before, after) = bytes.split_at(brace + 1);
    let line = format!("\n  \"hostname\": \"{name}\",");
    json.bytes = Secret::new([before, line.as_bytes(), after].concat());
    true
}

/// Whether the new system can have this host name (RFC 1123, and the 64 bytes of Linux).
pub fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 64 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::balena::inspect;

    #[test]
    fn the_host_name_goes_in_and_nothing_else_changes() {
        let old = b" {\"apiKey\": \"x\", \"big\": 12345678901234567890123}\n";
        let mut read = inspect("c", old.to_vec());
        assert!(keep(&mut read, "old-pi"));
        assert_eq!(
            String::from_utf8_lossy(read.bytes.expose()),
            " {\n  \"hostname\": \"old-pi\",\"apiKey\": \"x\", \"big\": 12345678901234567890123}\n"
        );
        assert!(!keep(&mut read, "again"));
        for settled in ["{\"hostname\": \"mine\"}", "{}", "[]", "{"] {
            let mut read = inspect("c", settled.into());
            assert!(!keep(&mut read, "old-pi"), "{settled}");
            assert_eq!(read.bytes.expose(), settled.as_bytes());
        }
    }

    #[test]
    fn host_names_are_those_of_the_internet() {
        for good in ["a", "old-pi", "pi.local", "3com"] {
            assert!(is_host_name(good), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", "-a", "a-", "a_b", "a b", "a..b", "ä", "(none)", &long] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }
}
