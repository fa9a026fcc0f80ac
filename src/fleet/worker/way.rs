//! How a unit's way through a worker ends, and the notes on it.

use std::time::Duration;

use anyhow::Result;

use crate::fleet::backend::BackendError;
use crate::fleet::device::Refusal;
use crate::fleet::log::UnitLog;
use crate::fleet::moment::Moment;
use crate::fleet::settings::{MIG_CONN_ATTEMPTS, MIG_RECONN_TIME, Settings};
use crate::fleet::ssh::SshError;
use crate::fleet::store::{Claim, Store};
use crate::fleet::transfer::TransferError;
use crate::fleet::unit::{Unit, field};

/// Time to the next look at a device that is busy: as long as from its last word to its reboot.
const BUSY: Duration = Duration::from_secs(10);

/// Why a unit goes no further now.
#[derive(Debug)]
pub enum Halt {
    /// It is given up.
    Fail {
        /// A stable word.
        code: String,
        /// Why.
        message: String,
    },
    /// The device, or the way to it, may be better later. So many tries are made.
    Unreachable(String),
    /// The device is at what an earlier worker told it.
    Busy(String),
    /// The backend may be better later.
    Backend {
        /// Why.
        message: String,
        /// When, if it says so.
        after: Option<Duration>,
    },
    /// The store has a fault: the unit is let alone.
    Store(anyhow::Error),
}

impl Halt {
    pub fn fail(code: &str, message: impl Into<String>) -> Halt {
        Halt::Fail {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

impl From<anyhow::Error> for Halt {
    fn from(error: anyhow::Error) -> Halt {
        Halt::Store(error)
    }
}

impl From<SshError> for Halt {
    fn from(error: SshError) -> Halt {
        match error {
            SshError::Connection(_) | SshError::Late { .. } => Halt::Unreachable(error.to_string()),
            SshError::Here(message) => Halt::fail("here", message),
        }
    }
}

impl From<TransferError> for Halt {
    fn from(error: TransferError) -> Halt {
        match error {
            TransferError::Ssh(error) => error.into(),
            TransferError::There(message) => Halt::fail("transfer", message),
            TransferError::Here(message) => Halt::fail("here", message),
            TransferError::NoSpace { .. } => Halt::fail("no-space", error.to_string()),
        }
    }
}

impl From<BackendError> for Halt {
    fn from(error: BackendError) -> Halt {
        match error.later {
            Some(after) => Halt::Backend {
                message: error.message,
                after,
            },
            None => Halt::fail("backend", error.message),
        }
    }
}

impl From<Refusal> for Halt {
    fn from(Refusal { code, message }: Refusal) -> Halt {
        Halt::Fail { code, message }
    }
}

/// A unit in hand: what happens to it is noted in it and in its log.
pub struct Way<'a> {
    pub store: &'a dyn Store,
    pub claim: Claim,
    pub log: UnitLog,
}

impl Way<'_> {
    pub fn unit(&mut self) -> &mut Unit {
        &mut self.claim.unit
    }

    /// Notes what is done now; it is on the disk when this returns.
    pub fn phase(&mut self, phase: &str, message: &str) -> Result<()> {
        self.log.say(phase, message);
        self.claim.unit.set(field::PHASE, phase);
        self.claim
            .unit
            .set(field::PHASE_SINCE, &Moment::now().0.to_string());
        self.claim.unit.clear(&[field::PERCENT]);
        self.store.save(&self.claim)
    }

    /// Lets the unit go, as far as it has come.
    pub fn release(mut self) -> Result<()> {
        self.claim
            .unit
            .clear(&[field::PHASE, field::PHASE_SINCE, field::PERCENT]);
        self.store.release(self.claim)
    }

    /// Lets the unit go after a halt: to be tried later, or given up.
    pub fn halt(mut self, halt: Halt, settings: &Settings) -> Result<()> {
        let now = Moment::now();
        let phase = self
            .claim
            .unit
            .get(field::PHASE)
            .unwrap_or("start")
            .to_owned();
        match halt {
            Halt::Store(error) => return Err(error),
            Halt::Fail { code, message } => self.give_up(&phase, &code, &message, now),
            Halt::Backend { message, after } => {
                let after = after.unwrap_or(Duration::from_secs(60));
                self.put_off(&phase, &message, after, now);
            }
            Halt::Busy(message) => self.put_off(&phase, &message, BUSY, now),
            Halt::Unreachable(message) => {
                let tries = self.claim.unit.count(field::CONNECTIONS);
                match tries >= settings.number(&MIG_CONN_ATTEMPTS).into() {
                    true => self.give_up(&phase, "no-connection", &message, now),
                    false => {
                        let first = settings.number(&MIG_RECONN_TIME).into();
                        self.put_off(&phase, &message, back_off(first, tries), now);
                    }
                }
            }
        }
        self.release()
    }

    fn give_up(&mut self, phase: &str, code: &str, message: &str, now: Moment) {
        self.log.say(phase, &format!("failed: {code}: {message}"));
        self.claim.unit.fail(code, message, now);
    }

    fn put_off(&mut self, phase: &str, message: &str, time: Duration, now: Moment) {
        self.log
            .say(phase, &format!("{message}; again in {} s", time.as_secs()));
        self.claim.unit.set(field::TRANSFER_FAILED, message);
        self.claim
            .unit
            .set(field::DUE, &now.after(time).0.to_string());
    }
}

/// Time to the next try after so many failed: twice as long each time, a day at most.
fn back_off(first: u64, failed: i64) -> Duration {
    const DAY: u64 = 86_400;
    let doublings = u32::try_from(failed - 1).unwrap_or(0).min(32);
    Duration::from_secs(first.saturating_mul(1 << doublings).min(DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_grow_to_a_day() {
        let pauses: Vec<u64> = (1..=5)
            .map(|failed| back_off(10, failed).as_secs())
            .collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160]);
        assert_eq!(back_off(600, 9).as_secs(), 86_400);
        assert_eq!(back_off(u64::MAX, i64::MAX).as_secs(), 86_400);
    }
}
