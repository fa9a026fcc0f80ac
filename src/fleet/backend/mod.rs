//! What knows the devices of the fleet: gives them an identity, and says when they are online.
//!
//! A worker asks it only once the device was reached and has passed its checks. All requests can be
//! made again: the identity is chosen here and kept in the unit first.

pub mod api;
pub mod balena;
pub mod none;
pub mod token;

use std::time::Duration;

use crate::secret::Secret;

use super::settings::Settings;
use super::unit::Unit;

/// A backend.
pub trait Backend: Send + Sync {
    /// Whether it can be asked at all: it is there, and takes the token.
    fn prove(&self) -> Result<(), BackendError>;

    /// A new identity for a unit without one, if this backend wants any.
    fn new_device(&self) -> Result<Option<String>, BackendError>;

    /// Makes the unit's device known, if it is not yet, and gives its config.json; `None` when that
    /// is for balena-migrate.conf on the device to name.
    fn enrol(&self, unit: &Unit, settings: &Settings) -> Result<Option<Secret>, BackendError>;

    /// Whether the unit's device is online with the new system.
    fn look(&self, unit: &Unit, settings: &Settings) -> Result<Seen, BackendError>;
}

/// What a backend sees of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// It is online with the new system.
    pub online: bool,
    /// In words, for the log.
    pub what: String,
}

/// Why a backend could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BackendError {
    /// What is wrong; what to do.
    pub message: String,
    /// It may work later: after so long, if the backend says when.
    pub later: Option<Option<Duration>>,
}

impl BackendError {
    /// One that stays.
    pub fn lasting(message: impl Into<String>) -> BackendError {
        BackendError {
            message: message.into(),
            later: None,
        }
    }
}
