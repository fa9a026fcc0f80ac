//! Points in time as unit files have them: whole seconds since 1970, and ISO 8601 in UTC.

use std::time::{Duration, SystemTime};

/// Whole seconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

impl Moment {
    /// What the clock of this machine says.
    pub fn now() -> Moment {
        SystemTime::now().into()
    }

    /// So much later.
    pub fn after(self, time: Duration) -> Moment {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Moment(self.0.saturating_add(seconds))
    }

    /// Time from `earlier` to this; zero when it is not earlier.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// `2026-11-22T12:07:57Z`; the bare number for what no calendar has.
    pub fn iso(self) -> String {
        self.with_format("%Y-%m-%dT%H:%M:%SZ")
    }

    /// `2026-11-22 12:07:57+00:00`, as the older tools' statistics have it.
    pub fn rfc_3339(self) -> String {
        self.with_format("%Y-%m-%d %H:%M:%S+00:00")
    }

    fn with_format(self, format: &str) -> String {
        match jiff::Timestamp::from_second(self.0) {
            Ok(time) => time.strftime(format).to_string(),
            Err(_) => self.0.to_string(),
        }
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Moment {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        Moment(since.map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_utc() {
        let moment = Moment(1_784_000_000);
        assert_eq!(moment.iso(), "2026-07-14T03:33:20Z");
        assert_eq!(moment.rfc_3339(), "2026-07-14 03:33:20+00:00");
        assert_eq!(Moment(i64::MAX).iso(), i64::MAX.to_string());
    }

    #[test]
    fn a_clock_that_was_set_back_gives_no_time() {
        assert_eq!(Moment(5).since(Moment(9)), Duration::ZERO);
        assert_eq!(
            Moment(i64::MAX).after(Duration::from_secs(1)),
            Moment(i64::MAX)
        );
    }
}
