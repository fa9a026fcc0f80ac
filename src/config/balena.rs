//! config.json: what makes the new system a device of a fleet.
//!
//! Called by the checks and the planner. All that is wrong with the file is reported at once. The
//! file goes to the new system as it is but for the host name ([`super::hostname`]), so this is a
//! look at it, not a translation.

use serde_json::{Map, Value};

use crate::endpoint::{Endpoint, host_and_port};
use crate::finding::{Finding, Severity};
use crate::secret::Secret;

/// A config.json that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalenaConfig {
    /// The file, for messages.
    pub file: String,
    device_type: Option<String>,
    api: Option<Endpoint>,
    vpn: Option<Endpoint>,
    wifi: Option<Wifi>,
    /// The whole file. It has keys in it.
    pub bytes: Secret,
    /// All that is wrong with it.
    pub findings: Vec<Finding>,
}

/// The wifi network that config.json names in `wifiSsid` and `wifiKey`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wifi {
    /// The network's name.
    pub ssid: String,
    /// Its phrase; blank for an open network.
    pub key: Secret,
}

/// Where a config.json comes from.
const DOWNLOAD: &str = "download config.json anew from the fleet's `Add device` dialog";

impl BalenaConfig {
    /// `deviceType`: a slug, such as `intel-nuc`.
    pub fn device_type(&self) -> Option<&str> {
        self.device_type.as_deref()
    }

    /// Host and port of `apiEndpoint`.
    pub fn api(&self) -> Option<Endpoint> {
        self.api.clone()
    }

    /// `vpnEndpoint` and `vpnPort`.
    pub fn vpn(&self) -> Option<Endpoint> {
        self.vpn.clone()
    }

    /// The wifi network in it.
    pub fn wifi(&self) -> Option<&Wifi> {
        self.wifi.as_ref()
    }
}

/// Looks at a config.json. `file` names it in messages.
pub fn inspect(file: &str, bytes: Vec<u8>) -> BalenaConfig {
    let mut findings = Findings::new(file);
    let empty = Map::new();
    let parsed = serde_json::from_slice::<Value>(&bytes);
    let object = match &parsed {
        Ok(Value::Object(object)) => {
            check_keys(object, &mut findings);
            object
        }
        Ok(_) => {
            findings.error("config-json-syntax", "this is no JSON object", DOWNLOAD);
            &empty
        }
        Err(error) => {
            findings.syntax(error);
            &empty
        }
    };
    BalenaConfig {
        file: file.to_string(),
        device_type: text(object, "deviceType").map(str::to_string),
        api: text(object, "apiEndpoint").and_then(api),
        vpn: text(object, "vpnEndpoint").and_then(|host| {
            let port = match object.get("vpnPort") {
                Some(port) => number(port).and_then(|port| u16::try_from(port).ok())?,
                None => HTTPS,
            };
            host_and_port(host, port)
        }),
        wifi: text(object, "wifiSsid").map(|ssid| Wifi {
            ssid: ssid.to_string(),
            key: Secret::new(text(object, "wifiKey").unwrap_or_default()),
        }),
        findings: findings.found,
        bytes: Secret::new(bytes),
    }
}

/// The port of https, and of the VPN.
const HTTPS: u16 = 443;

/// Host and port of a web address.
fn api(address: &str) -> Option<Endpoint> {
    let (rest, port) = match address.strip_prefix("https://") {
        Some(rest) => (rest, HTTPS),
        None => (address.strip_prefix("http://")?, 80),
    };
    host_and_port(rest.split('/').next()?, port)
}

/// What has to be in the file for the new system to come online.
fn check_keys(object: &Map<String, Value>, findings: &mut Findings) {
    check_api(object, findings);
    check_text(object, "deviceType", findings);
    check_id(object, "applicationId", findings);
    check_authentication(object, findings);
    check_uuid(object, findings);
    if !is_text(object, "vpnEndpoint") {
        findings.warning(
            "config-json-vpn",
            "there is no vpnEndpoint: the new system will have no remote access",
            DOWNLOAD,
        );
    }
    if let Some(port) = object.get("vpnPort")
        && number(port).is_none_or(|port| !(1..=65535).contains(&port))
    {
        findings.warning("config-json-vpn", "vpnPort is no port", DOWNLOAD);
    }
}

fn check_api(object: &Map<String, Value>, findings: &mut Findings) {
    let Some(api) = check_text(object, "apiEndpoint", findings) else {
        return;
    };
    let host = api
        .strip_prefix("https://")
        .or_else(|| api.strip_prefix("http://"));
    if host.is_none_or(|host| host.is_empty() || host.contains(char::is_whitespace)) {
        findings.error(
            "config-json-value",
            &format!("apiEndpoint is `{api}`, which is no web address"),
            "write it as https://api.balena-cloud.com",
        );
    }
}

/// A device proves itself by its own key once it is registered, by the fleet's key until then.
fn check_authentication(object: &Map<String, Value>, findings: &mut Findings) {
    let fleet_key = is_text(object, "apiKey");
    let device_key = is_text(object, "deviceApiKey");
    if !fleet_key && !device_key {
        findings.error(
            "config-json-key",
            "there is neither apiKey nor deviceApiKey: the new system could not log in",
            DOWNLOAD,
        );
    }
    if device_key && !fleet_key && !object.contains_key("uuid") {
        findings.error(
            "config-json-key",
            "there is a deviceApiKey but no uuid: the key belongs to a device",
            "add the uuid of the device, or use a config.json with an apiKey",
        );
    }
    for key in ["apiKey", "deviceApiKey"] {
        if object.contains_key(key) && !is_text(object, key) {
            findings.error(
                "config-json-value",
                &format!("{key} is blank or no text"),
                DOWNLOAD,
            );
        }
    }
}

fn check_uuid(object: &Map<String, Value>, findings: &mut Findings) {
    let Some(uuid) = object.get("uuid") else {
        return;
    };
    let is_good = uuid.as_str().is_some_and(|uuid| {
        matches!(uuid.len(), 32 | 62) && uuid.bytes().all(|b| b.is_ascii_hexdigit())
    });
    if !is_good {
        findings.error(
            "config-json-value",
            "uuid is not 32 or 62 hexadecimal digits",
            "write the device's uuid as the dashboard has it, or leave it out to register anew",
        );
    }
}

/// A number of the backend, which some tools write as text.
fn check_id(object: &Map<String, Value>, key: &str, findings: &mut Findings) {
    match object.get(key) {
        None => findings.missing(key),
        Some(value) if number(value).is_some_and(|id| id > 0) => {}
        Some(_) => findings.error(
            "config-json-value",
            &format!("{key} is no number"),
            DOWNLOAD,
        ),
    }
}

fn check_text<'a>(
    object: &'a Map<String, Value>,
    key: &str,
    findings: &mut Findings,
) -> Option<&'a str> {
    match object.get(key) {
        None => findings.missing(key),
        Some(Value::String(text)) if !text.is_empty() => return Some(text),
        Some(_) => {
            let what = format!("{key} is blank or no text");
            findings.error("config-json-value", &what, DOWNLOAD);
        }
    }
    None
}

fn is_text(object: &Map<String, Value>, key: &str) -> bool {
    text(object, key).is_some()
}

/// A text that is not blank.
fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    let text = object.get(key)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    }
}

/// Collects what is wrong with one file.
struct Findings<'a> {
    file: &'a str,
    found: Vec<Finding>,
}

impl<'a> Findings<'a> {
    fn new(file: &'a str) -> Self {
        let found = Vec::new();
        Findings { file, found }
    }

    fn add(&mut self, code: &'static str, severity: Severity, what: &str, remedy: &str) {
        self.found.push(Finding {
            code,
            severity,
            place: Some(self.file.to_string()),
            what: what.to_string(),
            remedy: remedy.to_string(),
        });
    }

    fn error(&mut self, code: &'static str, what: &str, remedy: &str) {
        self.add(code, Severity::Error, what, remedy);
    }

    fn warning(&mut self, code: &'static str, what: &str, remedy: &str) {
        self.add(code, Severity::Warning, what, remedy);
    }

    fn missing(&mut self, key: &str) {
        self.error(
            "config-json-missing",
            &format!("there is no {key}"),
            DOWNLOAD,
        );
    }

    /// The parser's message ends in ` at line 1 column 2`; the place says that.
    fn syntax(&mut self, error: &serde_json::Error) {
        let message = error.to_string();
        let tail = format!(" at line {} column {}", error.line(), error.column());
        self.found.push(Finding {
            code: "config-json-syntax",
            severity: Severity::Error,
            place: Some(format!("{}:{}:{}", self.file, error.line(), error.column())),
            what: format!("this is no JSON: {}", message.trim_end_matches(&tail)),
            remedy: DOWNLOAD.to_string(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A config.json as the dashboard makes it, with `change` made to it.
    fn config(change: impl Fn(&mut Map<String, Value>)) -> Vec<u8> {
        let text = include_str!("../../tests/fixtures/config/config.json");
        let mut value: Value = serde_json::from_str(text).expect("the fixture is JSON");
        change(value.as_object_mut().expect("the fixture is an object"));
        value.to_string().into_bytes()
    }

    fn findings(bytes: &[u8]) -> Vec<String> {
        let found = inspect("c.json", bytes.to_vec()).findings;
        found
            .iter()
            .map(|p| format!("{:?} {p}", p.severity))
            .collect()
    }

    #[test]
    fn a_good_file_is_good() {
        let read = inspect("c.json", config(|_| {}));
        assert_eq!(read.findings, []);
        assert_eq!(read.device_type(), Some("genericx86-64-ext"));
        assert!(!format!("{read:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        assert_eq!(
            findings(b"{\"uuid\": \"12\", \"apiKey\": 5}"),
            [
                format!("Error c.json: there is no apiEndpoint; {DOWNLOAD}"),
                format!("Error c.json: there is no deviceType; {DOWNLOAD}"),
                format!("Error c.json: there is no applicationId; {DOWNLOAD}"),
                format!(
                    "Error c.json: there is neither apiKey nor deviceApiKey: the new system could \
                     not log in; {DOWNLOAD}"
                ),
                format!("Error c.json: apiKey is blank or no text; {DOWNLOAD}"),
                "Error c.json: uuid is not 32 or 62 hexadecimal digits; write the device's uuid as \
                 the dashboard has it, or leave it out to register anew"
                    .to_string(),
                format!(
                    "Warning c.json: there is no vpnEndpoint: the new system will have no remote \
                     access; {DOWNLOAD}"
                ),
            ]
        );
    }

    #[test]
    fn hosts_and_the_wifi_are_read() {
        let at = |host: &str, port| {
            Some(Endpoint {
                host: host.into(),
                port,
            })
        };
        let read = inspect("c", config(|_| {}));
        assert_eq!(read.api(), at("api.balena-cloud.com", 443));
        assert_eq!(read.vpn(), at("cloudlink.balena-cloud.com", 443));
        assert_eq!(read.wifi(), None);
        let read = inspect(
            "c",
            config(|c| {
                c.insert("apiEndpoint".into(), "http://api.test:8080/".into());
                c.insert("vpnPort".into(), "1194".into());
                c.insert("wifiSsid".into(), "Home".into());
                c.insert("wifiKey".into(), "hidden123".into());
            }),
        );
        assert_eq!(read.api(), at("api.test", 8080));
        assert_eq!(read.vpn(), at("cloudlink.balena-cloud.com", 1194));
        assert_eq!(read.wifi().map(|wifi| wifi.ssid.as_str()), Some("Home"));
        assert!(!format!("{read:?}").contains("hidden123"));
    }

    #[test]
    fn syntax_errors_have_a_place() {
        assert_eq!(
            findings(b"{\n  \"apiKey\": \"x\",\n}\n"),
            [format!(
                "Error c.json:3:1: this is no JSON: trailing comma; {DOWNLOAD}"
            )]
        );
        assert_eq!(
            findings(b"[]"),
            [format!("Error c.json: this is no JSON object; {DOWNLOAD}")]
        );
        assert_eq!(findings(b"").len(), 1);
        assert_eq!(findings(b"\xff").len(), 1);
    }

    #[test]
    fn values_are_checked() {
        type Change = fn(&mut Map<String, Value>);
        let table: [(Change, &str); 7] = [
            (|c| drop(c.insert("uuid".into(), "0".repeat(62).into())), ""),
            (|c| drop(c.insert("applicationId".into(), "12".into())), ""),
            (
                |c| drop(c.insert("applicationId".into(), "mine".into())),
                "applicationId is no number",
            ),
            (
                |c| drop(c.insert("apiEndpoint".into(), "api.balena-cloud.com".into())),
                "apiEndpoint is `api.balena-cloud.com`, which is no web address",
            ),
            (
                |c| {
                    let key = c.remove("apiKey").expect("the fixture has one");
                    c.insert("deviceApiKey".into(), key);
                },
                "there is a deviceApiKey but no uuid: the key belongs to a device",
            ),
            (
                |c| drop(c.insert("deviceType".into(), "".into())),
                "deviceType is blank or no text",
            ),
            (
                |c| drop(c.insert("vpnPort".into(), 0.into())),
                "vpnPort is no port",
            ),
        ];
        for (change, expected) in table {
            let found = inspect("c.json", config(change)).findings;
            let what: Vec<&str> = found.iter().map(|p| p.what.as_str()).collect();
            let expected: Vec<&str> = expected.lines().collect();
            assert_eq!(what, expected);
        }
    }
}
