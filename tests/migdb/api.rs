//! A stand-in for the balena API: it answers the requests of a fleet migrator as a running
//! open-balena-api does, and nothing else. `sdk.rs` shows that a real client takes it for one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};
use tiny_http::{Header, Method, Request, Response, Server};

pub const TOKEN: &str = "a-user-token";

/// What the server keeps.
#[derive(Default)]
pub struct Kept {
    pub devices: Vec<Map<String, Value>>,
    keys: Vec<String>,
    /// Answers for the next requests in place of the right ones: status and Retry-After.
    pub faults: VecDeque<(u16, Option<u32>)>,
    /// It does what a request asks that begins so, and loses its answer, once.
    pub lose_answer_to: Option<String>,
    /// No image store: it can't make a config.json.
    pub no_image_store: bool,
    /// Method and path of each request, in their order.
    pub requests: Vec<String>,
}

pub struct Api {
    pub url: String,
    pub kept: Arc<Mutex<Kept>>,
    server: Arc<Server>,
}

/// Status and body.
type Answer = (u16, Value);

impl Api {
    pub fn new() -> Api {
        let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
        let kept = Arc::new(Mutex::new(Kept::default()));
        let url = format!("http://{}", server.server_addr());
        let api = Api {
            url,
            kept: kept.clone(),
            server: server.clone(),
        };
        std::thread::spawn(move || {
            for request in server.incoming_requests() {
                serve(request, &kept);
            }
        });
        api
    }

    pub fn requests(&self, beginning: &str) -> usize {
        let kept = self.kept.lock().unwrap();
        kept.requests
            .iter()
            .filter(|request| request.starts_with(beginning))
            .count()
    }

    pub fn device(&self, name: &str) -> Map<String, Value> {
        let kept = self.kept.lock().unwrap();
        kept.devices
            .iter()
            .find(|device| device["device_name"] == name)
            .unwrap()
            .clone()
    }

    /// The device `name` with its new system: a state GET and PATCH with the device's key.
    pub fn comes_online(&self, name: &str) {
        let mut kept = self.kept.lock().unwrap();
        let device = kept
            .devices
            .iter_mut()
            .find(|device| device["device_name"] == name)
            .unwrap();
        device.insert("api_heartbeat_state".to_owned(), "online".into());
        device.insert("overall_status".to_owned(), "idle".into());
        device.insert("os_version".to_owned(), "balenaOS 6.0.0".into());
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.server.unblock();
    }
}

fn serve(mut request: Request, kept: &Mutex<Kept>) {
    let mut body = String::new();
    request.as_reader().read_to_string(&mut body).unwrap();
    let body: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
    let mut kept = kept.lock().unwrap();
    let url = decode(request.url());
    kept.requests.push(format!("{} {url}", request.method()));
    if let Some((status, after)) = kept.faults.pop_front() {
        let mut response = Response::from_string("trouble").with_status_code(status);
        if let Some(after) = after {
            response.add_header(Header::from_bytes("Retry-After", after.to_string()).unwrap());
        }
        let _ = request.respond(response);
        return;
    }
    let bearer = request
        .headers()
        .iter()
        .find(|header| header.field.equiv("Authorization"))
        .and_then(|header| header.value.as_str().strip_prefix("Bearer "))
        .unwrap_or_default()
        .to_owned();
    let (status, answer) = route(request.method(), &url, &bearer, &body, &mut kept);
    if kept
        .lose_answer_to
        .as_ref()
        .is_some_and(|lost| format!("{} {url}", request.method()).starts_with(lost.as_str()))
    {
        kept.lose_answer_to = None;
        let _ = request.respond(Response::from_string("").with_status_code(502));
        return;
    }
    let response = match answer {
        Value::String(text) if status != 200 || text == "OK" => Response::from_string(text),
        value => Response::from_string(value.to_string())
            .with_header(Header::from_bytes("Content-Type", "application/json").unwrap()),
    };
    let _ = request.respond(response.with_status_code(status));
}

fn route(method: &Method, url: &str, bearer: &str, body: &Value, kept: &mut Kept) -> Answer {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    if path == "/ping" {
        return (200, "OK".into());
    }
    let is_known = bearer == TOKEN || kept.keys.iter().any(|key| key == bearer);
    if !is_known {
        return match path {
            "/device/register" => (401, json!({"error": "API key required"})),
            _ => (401, "Unauthorized".into()),
        };
    }
    // Both versions of the model answer.
    let path = path
        .strip_prefix("/v6/")
        .or(path.strip_prefix("/v7/"))
        .unwrap_or(path);
    let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method, words.as_slice()) {
        (Method::Get, ["user", "v1", "whoami"]) => (
            200,
            json!({"id": 2, "username": "admin", "email": "admin@example.org"}),
        ),
        (Method::Get, ["actor", "v1", "whoami"]) => (
            200,
            json!({"id": 2, "actorType": "user", "actorTypeId": 2, "username": "admin", "email": "admin@example.org"}),
        ),
        (Method::Get, ["application"]) => (200, select(query, &[fleet()])),
        (Method::Get, ["application(1)"]) => (200, select(query, &[fleet()])),
        (Method::Get, ["device_type"]) => (200, select(query, &[device_type()])),
        (Method::Post, ["api-key", "application", "1", "provisioning"]) => {
            (200, new_key(kept, None).into())
        }
        (Method::Post, ["api-key", "v2", ""]) => {
            assert_eq!(body["actorType"], "application", "{body}");
            (200, new_key(kept, None).into())
        }
        (Method::Post, ["device", "register"]) => register(body, kept),
        (Method::Post, ["device"]) => match make_device(body, kept) {
            Ok(device) => (201, Value::Object(device)),
            Err(answer) => answer,
        },
        (Method::Post, ["api-key", "device", _id, "device-key"]) => {
            let wanted = body["apiKey"].as_str().map(str::to_owned);
            (200, new_key(kept, wanted).into())
        }
        (Method::Get, [device]) if device.starts_with("device") => {
            let found = find(device, query, kept);
            (
                200,
                select(query.split("$filter").next().unwrap_or(""), &found),
            )
        }
        (Method::Delete, [device]) if device.starts_with("device") => {
            let found = find(device, query, kept);
            kept.devices.retain(|device| !found.contains(device));
            (200, "OK".into())
        }
        (Method::Post, ["download-config"]) => match kept.no_image_store {
            true => (500, "no image store".into()),
            false => (200, config(body, kept)),
        },
        _ => (
            404,
            format!("the stand-in does not know {method} {url}").into(),
        ),
    }
}

fn fleet() -> Map<String, Value> {
    let fleet = json!({"id": 1, "slug": "admin/fleet1", "app_name": "fleet1", "uuid": "f1",
        "is_for__device_type": {"__id": 117}, "organization": {"__id": 1}});
    fleet.as_object().unwrap().clone()
}

fn device_type() -> Map<String, Value> {
    let kind = json!({"id": 117, "slug": "genericx86-64-ext", "name": "Generic x86_64"});
    kind.as_object().unwrap().clone()
}

/// A key that opens the API; the one that was asked for, if any.
fn new_key(kept: &mut Kept, wanted: Option<String>) -> String {
    let key = wanted.unwrap_or_else(|| format!("key-{}", kept.keys.len()));
    kept.keys.push(key.clone());
    key
}

fn make_device(body: &Value, kept: &mut Kept) -> Result<Map<String, Value>, Answer> {
    if kept
        .devices
        .iter()
        .any(|device| device["uuid"] == body["uuid"])
    {
        return Err((409, "\"uuid\" must be unique.".into()));
    }
    let good = body["uuid"]
        .as_str()
        .is_some_and(|uuid| matches!(uuid.len(), 32 | 62));
    if !good || body["belongs_to__application"] != 1 || body["is_of__device_type"] != 117 {
        return Err((400, "it is no device".into()));
    }
    let device = json!({
        "id": kept.devices.len() + 1, "uuid": body["uuid"], "device_name": body["device_name"],
        "belongs_to__application": {"__id": 1}, "is_of__device_type": {"__id": 117},
        "is_online": false, "is_connected_to_vpn": false, "api_heartbeat_state": "unknown",
        "overall_status": "configuring", "os_version": null, "last_connectivity_event": null,
    });
    let device = device.as_object().unwrap().clone();
    kept.devices.push(device.clone());
    Ok(device)
}

fn register(body: &Value, kept: &mut Kept) -> Answer {
    let device = json!({"uuid": body["uuid"], "belongs_to__application": body["application"],
        "is_of__device_type": 117, "device_name": body["uuid"]});
    match make_device(&device, kept) {
        Err(answer) => answer,
        Ok(device) => {
            let key = new_key(kept, body["api_key"].as_str().map(str::to_owned));
            (
                201,
                json!({"id": device["id"], "uuid": device["uuid"], "api_key": key}),
            )
        }
    }
}

fn config(body: &Value, kept: &mut Kept) -> Value {
    assert_eq!(
        (&body["appId"], body["version"].is_null()),
        (&json!(1), false),
        "{body}"
    );
    let kind = body.get("deviceType").cloned();
    let kind = kind.unwrap_or_else(|| device_type()["slug"].clone());
    let minutes = body["appUpdatePollInterval"].as_u64().unwrap_or(10);
    json!({
        "applicationId": 1, "deviceType": kind, "userId": 2,
        "appUpdatePollInterval": (minutes * 60_000).to_string(), "listenPort": 48484, "vpnPort": 443,
        "apiEndpoint": "https://api.example.org", "vpnEndpoint": "vpn.example.org",
        "registryEndpoint": "registry.example.org", "apiKey": new_key(kept, None),
    })
}

/// Devices that `device(uuid='…')`, `device(id)` or a filter on the UUID name.
fn find(path: &str, query: &str, kept: &Kept) -> Vec<Map<String, Value>> {
    let key = |text: &str| text.split('\'').nth(1).map(str::to_owned);
    let id = path
        .strip_prefix("device(")
        .and_then(|rest| rest.strip_suffix(')')?.parse::<u64>().ok());
    let filter = query
        .split('&')
        .find_map(|part| part.strip_prefix("$filter="));
    let id = id.or_else(|| {
        let ids = filter?.strip_prefix("id in (")?;
        ids.strip_suffix(')')?.parse().ok()
    });
    let uuid = key(path).or_else(|| filter.and_then(key));
    let wanted = |device: &&Map<String, Value>| match (&uuid, id) {
        (_, Some(id)) => device["id"] == id,
        (Some(uuid), _) => device["uuid"]
            .as_str()
            .is_some_and(|own| own.starts_with(uuid.as_str())),
        (None, None) => false,
    };
    kept.devices.iter().filter(wanted).cloned().collect()
}

/// `{"d":[…]}` of what a filter lets through, with the fields that are selected.
fn select(query: &str, all: &[Map<String, Value>]) -> Value {
    let part = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name));
    let passes = |member: &&Map<String, Value>| match part("$filter=") {
        None => true,
        Some(filter) => filter.split(" or ").any(|term| holds(term, member)),
    };
    let fields: Option<Vec<&str>> = part("$select=").map(|fields| fields.split(',').collect());
    let chosen = all.iter().filter(passes).map(|member| match &fields {
        None => member.clone(),
        Some(fields) => {
            let field = |&name: &&str| (name.to_owned(), member[name].clone());
            fields.iter().map(field).collect()
        }
    });
    let mut chosen: Vec<Map<String, Value>> = chosen.collect();
    if part("$expand=is_for__device_type(").is_some() {
        let mut kind = device_type();
        kind.insert(
            "is_of__cpu_architecture".to_owned(),
            json!([{"slug": "amd64"}]),
        );
        for member in &mut chosen {
            member.insert("is_for__device_type".to_owned(), json!([kind]));
        }
    }
    json!({ "d": chosen })
}

/// `field eq value`, or an alias of a device type, of which each has only its slug.
fn holds(term: &str, member: &Map<String, Value>) -> bool {
    let alias = "device_type_alias/any(dta:dta/is_referenced_by__alias eq ";
    let (field, value) = match term.strip_prefix(alias) {
        Some(rest) => ("slug", rest.trim_end_matches(')')),
        None => term.split_once(" eq ").unwrap(),
    };
    match value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')) {
        Some(text) => member.get(field).is_some_and(|own| own == text),
        None => member[field] == value.parse::<u64>().unwrap(),
    }
}

/// Percent-decodes.
fn decode(url: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = url.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (
            first,
            after
                .get(..2)
                .and_then(|digits| std::str::from_utf8(digits).ok()),
        ) {
            (b'%', Some(digits)) => {
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    String::from_utf8(bytes).unwrap()
}
