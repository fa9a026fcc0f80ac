//! One migrated unit: whether it is online with the new system, or lost.

use std::time::Duration;

use anyhow::Result;

use crate::fleet::log::UnitLog;
use crate::fleet::moment::Moment;
use crate::fleet::settings::MIG_MAX_STATUS_AGE;
use crate::fleet::store::Claim;
use crate::fleet::unit::{Status, field};

use super::Shared;
use super::way::{Halt, Way};

/// Time to the next look.
const AGAIN: Duration = Duration::from_secs(60);

impl Shared<'_> {
    /// Looks once for a migrated unit, and lets it go.
    pub(super) fn check(&self, claim: Claim) -> Result<()> {
        let log = UnitLog::open(self.sys, &self.work.logs, claim.unit.id());
        let mut way = Way {
            store: self.store,
            claim,
            log,
        };
        let now = Moment::now();
        let seen = match self.backend.look(way.unit(), self.settings) {
            Ok(seen) => seen,
            Err(error) if error.later.is_some() => return way.halt(error.into(), self.settings),
            // A wrong token, and the like: that says nothing of the device.
            Err(error) => {
                let halt = Halt::Backend {
                    message: error.message,
                    after: None,
                };
                return way.halt(halt, self.settings);
            }
        };
        if seen.online {
            way.log.say("online", &seen.what);
            way.unit().set_status(Status::Done, now);
            return way.release();
        }
        let since = way.unit().moment(field::STATUS_SINCE).unwrap_or(now);
        let limit = self.time(&MIG_MAX_STATUS_AGE);
        if now.since(since) >= limit {
            let message = format!(
                "it is not online after {} s: {}",
                limit.as_secs(),
                seen.what
            );
            return way.halt(Halt::fail("lost", message), self.settings);
        }
        way.log.note("online", &seen.what);
        // Not later than the end of its time.
        let left = since.after(limit).since(now);
        let due = now.after(AGAIN.min(left.max(Duration::from_secs(1))));
        way.unit().set(field::DUE, &due.0.to_string());
        way.release()
    }
}
