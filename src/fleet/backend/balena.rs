//! balenaCloud, openBalena, and what speaks their API (`recipes/balena-api.md` has real replies).
//!
//! A device is registered under a UUID that its unit has noted before: asked again, the same device is
//! found. Its config.json is the API's, or that of the fleet with the device's fields added where the
//! API can't make one.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Mutex;

use serde_json::{Map, Value, json};

use crate::fleet::moment::Moment;
use crate::fleet::settings::{MIG_APP, MIG_BALENA_VER, Settings};
use crate::fleet::unit::{Unit, field};
use crate::payload::digest::hex;
use crate::secret::Secret;
use crate::sys::Sys;

use super::api::{Api, Reply, encode, literal};
use super::{Backend, BackendError, Seen};

/// Minutes between two looks of a device for a new release, as the older tools had it.
const POLL_MINUTES: u32 = 10;

/// What is asked of a device to see whether it is online.
const DEVICE_FIELDS: &str = "id,uuid,is_online,api_heartbeat_state,overall_status,os_version";

/// The backend.
pub struct Balena {
    api: Api,
    /// A config.json of the fleet, for an API that makes none.
    fleet_config: Option<Map<String, Value>>,
    fleets: Mutex<HashMap<String, Fleet>>,
}

/// A fleet as the API knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fleet {
    id: u64,
    device_type: u64,
    device_type_slug: String,
}

impl Balena {
    /// `fleet_config` is a config.json of the fleet.
    pub fn new(api: Api, fleet_config: Option<Map<String, Value>>) -> Balena {
        Balena {
            api,
            fleet_config,
            fleets: Mutex::default(),
        }
    }

    /// A fleet by slug, name or number; asked for once.
    fn fleet(&self, name: &str) -> Result<Fleet, BackendError> {
        // Under the lock, so that only one asks.
        let mut fleets = self
            .fleets
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(fleet) = fleets.get(name) {
            return Ok(fleet.clone());
        }
        let filter = match (name.parse::<u64>(), name.contains('/')) {
            (Ok(id), _) => format!("id eq {id}"),
            (_, true) => format!("slug eq {}", literal(&name.to_lowercase())),
            (_, false) => format!("app_name eq {}", literal(name)),
        };
        let path = format!(
            "/v7/application?$filter={}&$select=id,slug,app_name,is_for__device_type",
            encode(&filter)
        );
        let found = self.api.list(&path)?;
        let fleet = match found.as_slice() {
            [one] => one,
            [] => {
                return Err(BackendError::lasting(format!(
                    "the backend has no fleet `{name}`, or the token may not see it; name it as \
                     organisation/fleet with --app"
                )));
            }
            _ => {
                return Err(BackendError::lasting(format!(
                    "the backend has several fleets `{name}`; name one as organisation/fleet with --app"
                )));
            }
        };
        let id = number(&fleet["id"]).ok_or_else(|| self.api.odd(&path))?;
        let device_type =
            number(&fleet["is_for__device_type"]["__id"]).ok_or_else(|| self.api.odd(&path))?;
        let fleet = Fleet {
            id,
            device_type,
            device_type_slug: self.slug_of(device_type)?,
        };
        fleets.insert(name.to_owned(), fleet.clone());
        Ok(fleet)
    }

    fn slug_of(&self, device_type: u64) -> Result<String, BackendError> {
        let filter = encode(&format!("id eq {device_type}"));
        let path = format!("/v7/device_type?$filter={filter}&$select=id,slug,name");
        let found = self.api.list(&path)?;
        let slug = found.first().and_then(|found| found["slug"].as_str());
        slug.map(str::to_owned).ok_or_else(|| self.api.odd(&path))
    }

    /// The device of that UUID, if there is one.
    fn device(&self, uuid: &str) -> Result<Option<Value>, BackendError> {
        let path = format!(
            "/v7/device(uuid={})?$select={DEVICE_FIELDS}",
            encode(&literal(uuid))
        );
        Ok(self.api.list(&path)?.into_iter().next())
    }

    /// The number of the unit's device, which is made when it is not there.
    fn register(&self, unit: &Unit, uuid: &str, fleet: &Fleet) -> Result<u64, BackendError> {
        let path = "/v7/device";
        if let Some(device) = self.device(uuid)? {
            return number(&device["id"]).ok_or_else(|| self.api.odd(path));
        }
        let body = json!({
            "belongs_to__application": fleet.id,
            "is_of__device_type": fleet.device_type,
            "uuid": uuid,
            "device_name": unit.id(),
        });
        match self.api.call("POST", path, Some(&body))? {
            Reply::Done(device) => number(&device["id"]).ok_or_else(|| self.api.odd(path)),
            // An earlier request got there, and its answer was lost.
            Reply::No(409, text) => match self.device(uuid)? {
                Some(device) => number(&device["id"]).ok_or_else(|| self.api.odd(path)),
                None => Err(self.api.refused(path, 409, &text)),
            },
            Reply::No(status, text) => Err(self.api.refused(path, status, &text)),
        }
    }

    /// A key of the device's own.
    fn device_key(&self, device: u64) -> Result<String, BackendError> {
        let path = format!("/api-key/device/{device}/device-key");
        let wanted = random_hex()?;
        let answer = self.api.post(&path, &json!({ "apiKey": wanted }))?;
        let key = answer.as_str().filter(|key| !key.is_empty());
        key.map(str::to_owned).ok_or_else(|| self.api.odd(&path))
    }

    /// A config.json of the fleet, from the API or from the operator.
    fn fleet_fields(
        &self,
        fleet: &Fleet,
        version: Option<String>,
    ) -> Result<Map<String, Value>, BackendError> {
        let path = "/download-config";
        let Some(version) = version else {
            return self.given(fleet).unwrap_or_else(|| {
                Err(BackendError::lasting(
                    "the version of the new system is not known; give it with --balena-ver, or a \
                     config.json of the fleet with --fleet-config",
                ))
            });
        };
        let body = json!({
            "appId": fleet.id,
            "deviceType": fleet.device_type_slug,
            "version": version,
            "network": "ethernet",
            "appUpdatePollInterval": POLL_MINUTES,
        });
        let answer = self.api.call("POST", path, Some(&body));
        match (answer, self.given(fleet)) {
            (Ok(Reply::Done(Value::Object(fields))), _) => Ok(fields),
            (_, Some(given)) => given,
            (Ok(Reply::Done(_)), None) => Err(self.api.odd(path)),
            (Ok(Reply::No(status, text)), None) => Err(self.api.refused(path, status, &text)),
            (Err(error), None) => Err(error),
        }
    }

    /// The operator's config.json of the fleet, when it is that fleet's.
    fn given(&self, fleet: &Fleet) -> Option<Result<Map<String, Value>, BackendError>> {
        let given = self.fleet_config.as_ref()?;
        Some(match number(&given["applicationId"]) == Some(fleet.id) {
            true => Ok(given.clone()),
            false => Err(BackendError::lasting(format!(
                "the config.json of --fleet-config is for fleet {}, and the unit is for fleet {}",
                given["applicationId"], fleet.id
            ))),
        })
    }
}

impl Backend for Balena {
    fn prove(&self) -> Result<(), BackendError> {
        let path = "/actor/v1/whoami";
        match self.api.call("GET", path, None)? {
            Reply::Done(Value::Object(_)) => Ok(()),
            Reply::Done(_) => Err(self.api.odd(path)),
            Reply::No(status, text) => Err(self.api.refused(path, status, &text)),
        }
    }

    fn new_device(&self) -> Result<Option<String>, BackendError> {
        random_hex().map(Some)
    }

    fn enrol(&self, unit: &Unit, settings: &Settings) -> Result<Option<Secret>, BackendError> {
        let name = settings.of(unit, &MIG_APP).ok_or_else(|| {
            BackendError::lasting("it has no fleet to be registered in; give one with --app")
        })?;
        let uuid = unit
            .get(field::DEVICE)
            .ok_or_else(|| BackendError::lasting("it has no UUID"))?;
        let fleet = self.fleet(&name)?;
        // First what may be missing, then what leaves a trace.
        let fields = self.fleet_fields(&fleet, settings.of(unit, &MIG_BALENA_VER))?;
        let device = self.register(unit, uuid, &fleet)?;
        let key = self.device_key(device)?;
        let config = of_device(fields, uuid, device, &key, Moment::now());
        Ok(Some(Secret::new(Value::Object(config).to_string())))
    }

    fn look(&self, unit: &Unit, _settings: &Settings) -> Result<Seen, BackendError> {
        let Some(uuid) = unit.get(field::DEVICE) else {
            return Ok(Seen {
                online: false,
                what: "it was not registered".to_owned(),
            });
        };
        Ok(match self.device(uuid)? {
            Some(device) => seen(&device),
            None => Seen {
                online: false,
                what: format!("the backend has no device {uuid}"),
            },
        })
    }
}

/// Whether a device is there with its new system. `is_online` alone stays true after the heartbeat is
/// lost; a device that was only registered has no OS version.
fn seen(device: &Value) -> Seen {
    let text = |name: &str| device[name].as_str().unwrap_or_default();
    let alive = text("api_heartbeat_state") == "online" || text("overall_status") == "idle";
    let version = text("os_version");
    Seen {
        online: alive && !version.is_empty(),
        what: format!(
            "the backend says: heartbeat {}, status {}, {}",
            text("api_heartbeat_state"),
            text("overall_status"),
            if version.is_empty() {
                "no OS version"
            } else {
                version
            },
        ),
    }
}

/// A fleet's config.json for one device, which logs in by its own key.
fn of_device(
    mut fields: Map<String, Value>,
    uuid: &str,
    device: u64,
    key: &str,
    now: Moment,
) -> Map<String, Value> {
    fields.remove("apiKey");
    fields.insert("uuid".to_owned(), uuid.into());
    fields.insert("deviceId".to_owned(), device.into());
    fields.insert("deviceApiKey".to_owned(), key.into());
    fields.insert("registered_at".to_owned(), now.0.into());
    fields
}

/// A number, which some write as text.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    }
}

/// 32 hexadecimal digits that nobody can guess.
fn random_hex() -> Result<String, BackendError> {
    let mut bytes = [0; 16];
    let read = Sys::new("/")
        .open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes));
    match read {
        Ok(()) => Ok(hex(&bytes)),
        Err(error) => Err(BackendError::lasting(format!(
            "reading /dev/urandom: {error}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn online_is_a_heartbeat_and_a_version() {
        let online = |heartbeat: &str, status: &str, version: Value| {
            seen(&json!({
                "is_online": true,
                "api_heartbeat_state": heartbeat,
                "overall_status": status,
                "os_version": version,
            }))
            .online
        };
        assert!(online(
            "online",
            "reduced-functionality",
            "balenaOS 6.0.0".into()
        ));
        assert!(online("unknown", "idle", "balenaOS 6.0.0".into()));
        assert!(!online("online", "idle", Value::Null), "registered only");
        assert!(!online("offline", "disconnected", "balenaOS 6.0.0".into()));
        assert!(!online("timeout", "configuring", "balenaOS 6.0.0".into()));
    }

    #[test]
    fn a_devices_config_has_its_own_key_and_not_the_fleets() {
        let Value::Object(fleet) = json!({"applicationId": "1", "apiKey": "fleet", "vpnPort": 443})
        else {
            unreachable!()
        };
        let config = of_device(fleet, "abcd", 7, "own", Moment(5));
        assert_eq!(
            Value::Object(config),
            json!({"applicationId": "1", "vpnPort": 443, "uuid": "abcd", "deviceId": 7,
                   "deviceApiKey": "own", "registered_at": 5})
        );
    }
}
