//! Where the API is, and who asks: from the settings, the fleet's config.json, and what balena-cli has
//! of a login.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::config::path;
use crate::fleet::settings::{
    MIG_API_ENDPOINT, MIG_BALENA_TOKEN, MIG_BALENA_TOKEN_FILE, MIG_FLEET_CONFIG, Settings,
};
use crate::secret::Secret;
use crate::sys::Sys;

use super::BackendError;
use super::api::Api;
use super::balena::Balena;

/// balenaCloud's.
const CLOUD: &str = "https://api.balena-cloud.com";

/// The backend that the settings name.
pub fn balena(sys: &Sys, settings: &Settings) -> Result<Balena, BackendError> {
    let fleet_config = match settings.shared(&MIG_FLEET_CONFIG) {
        Some(file) => Some(fleet_config(sys, &file)?),
        None => None,
    };
    let endpoint = endpoint(sys, settings, fleet_config.as_ref());
    let is_here = |host: &str| {
        ["localhost", "127.", "[::1]"]
            .iter()
            .any(|here| host.starts_with(here))
    };
    if endpoint
        .strip_prefix("http://")
        .is_some_and(|host| !is_here(host))
    {
        log::warn!("{endpoint} is asked without TLS: who listens in learns the token");
    }
    let roots = match &fleet_config {
        Some(config) => root_certificate(config)?,
        None => Vec::new(),
    };
    let token = token(sys, settings)?;
    Ok(Balena::new(
        Api::new(sys, &endpoint, token, &roots)?,
        fleet_config,
    ))
}

fn fleet_config(sys: &Sys, file: &str) -> Result<Map<String, Value>, BackendError> {
    let text = read(sys, file)
        .map_err(|error| BackendError::lasting(format!("{file} can't be read: {error}")))?;
    serde_json::from_str(&text)
        .map_err(|error| BackendError::lasting(format!("{file} is no config.json: {error}")))
}

/// The setting, what balena-cli goes by, the fleet's config.json, balenaCloud.
fn endpoint(sys: &Sys, settings: &Settings, config: Option<&Map<String, Value>>) -> String {
    let of_config = || config?.get("apiEndpoint")?.as_str().map(str::to_owned);
    settings
        .shared(&MIG_API_ENDPOINT)
        .or_else(|| sys.variable("BALENARC_API_URL"))
        .or_else(|| {
            Some(format!(
                "https://api.{}",
                sys.variable("BALENARC_BALENA_URL")?
            ))
        })
        .or_else(of_config)
        .unwrap_or_else(|| CLOUD.to_owned())
}

/// `balenaRootCA`: PEM in base64, as balenaOS has it.
fn root_certificate(config: &Map<String, Value>) -> Result<Vec<u8>, BackendError> {
    let Some(text) = config.get("balenaRootCA").and_then(Value::as_str) else {
        return Ok(Vec::new());
    };
    let roots = STANDARD.decode(text.trim()).map_err(|error| {
        BackendError::lasting(format!(
            "balenaRootCA of the fleet's config.json is no base64: {error}"
        ))
    })?;
    match String::from_utf8_lossy(&roots).contains("BEGIN CERTIFICATE") {
        true => Ok(roots),
        false => Err(BackendError::lasting(
            "balenaRootCA of the fleet's config.json has no certificate in it; it is PEM in base64",
        )),
    }
}

fn token(sys: &Sys, settings: &Settings) -> Result<Secret, BackendError> {
    if let Some(token) = settings.shared(&MIG_BALENA_TOKEN) {
        return Ok(Secret::new(token));
    }
    let of_cli = || {
        let folder = sys.variable("BALENARC_DATA_DIRECTORY");
        let folder = folder.or_else(|| Some(format!("{}/.balena", sys.variable("HOME")?)));
        folder.map(|folder| format!("{folder}/token"))
    };
    let file = settings.shared(&MIG_BALENA_TOKEN_FILE).or_else(of_cli);
    let found = file.as_deref().map(|file| (file, read(sys, file)));
    match found {
        Some((_, Ok(text))) if !text.trim().is_empty() => Ok(Secret::new(text.trim())),
        found => {
            let looked = found.map(|(file, _)| format!(" (looked into {file})"));
            Err(BackendError::lasting(format!(
                "there is no token for the backend{}; set MIG_BALENA_TOKEN or log in with balena-cli, \
                 or say --backend none",
                looked.unwrap_or_default()
            )))
        }
    }
}

fn read(sys: &Sys, file: &str) -> std::io::Result<String> {
    sys.read_text(&path::absolute(&sys.current_dir()?, file))
}
