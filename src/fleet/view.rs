//! The fleet at a glance: a row for each unit, counts, throughput and time left. `list`, `watch` and
//! `serve` show it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::moment::Moment;
use super::settings::MIG_SSH_HOST;
use super::store::{Entry, State};
use super::unit::{Status, Unit, field};

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its name.
    pub id: String,
    /// Where it is.
    pub state: State,
    /// What has been done with it.
    pub status: &'static str,
    /// Its host.
    pub host: Option<String>,
    /// Its UUID in the backend.
    pub device: Option<String>,
    /// Who has it.
    pub holder: Option<String>,
    /// What is done with it just now.
    pub phase: Option<String>,
    /// How far that is.
    pub percent: Option<i64>,
    /// When it got where it is, in seconds since 1970.
    pub since: Option<i64>,
    /// When a waiting one is due.
    pub due: Option<i64>,
    /// A stable word for why it failed.
    pub fail_code: Option<String>,
    /// What is to be known of it.
    pub message: Option<String>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Units by state.
    pub counts: BTreeMap<&'static str, usize>,
    /// Units that were done in the last hour.
    pub done_per_hour: usize,
    /// Seconds until all are done at that rate; `None` when it is not known.
    pub seconds_left: Option<u64>,
    /// By id.
    pub units: Vec<Row>,
}

const HOUR: Duration = Duration::from_secs(3600);

/// Looks at all units.
pub fn view(entries: &[Entry], now: Moment) -> View {
    let count = |state: State| entries.iter().filter(|entry| entry.state == state).count();
    let left = count(State::Units) + count(State::Tmp) + count(State::Process);
    let done: Vec<Moment> = entries
        .iter()
        .filter(|entry| entry.state == State::Done)
        .filter_map(|entry| entry.unit.moment(field::STATUS_SINCE))
        .filter(|done| now.since(*done) < HOUR)
        .collect();
    View {
        counts: State::ALL.map(|state| (state.name(), count(state))).into(),
        done_per_hour: done.len(),
        seconds_left: seconds_left(left, &done, now),
        units: entries.iter().map(row).collect(),
    }
}

/// At the rate of the last hour, or since the first of it when that is younger.
fn seconds_left(left: usize, done: &[Moment], now: Moment) -> Option<u64> {
    let first = *done.iter().min()?;
    // One alone says nothing of a rate.
    let spans = done.len().checked_sub(1).filter(|spans| *spans > 0)?;
    Some(now.since(first).as_secs().max(1) * left as u64 / spans as u64)
}

fn row(entry: &Entry) -> Row {
    let unit = &entry.unit;
    let text = |name: &str| unit.get(name).map(str::to_owned);
    Row {
        id: unit.id().to_owned(),
        state: entry.state,
        status: unit.status().word(),
        host: text(MIG_SSH_HOST.name),
        device: text(field::DEVICE),
        holder: entry.holder.clone(),
        phase: text(field::PHASE),
        percent: percent(entry),
        since: since(unit).map(|since| since.0),
        due: unit.moment(field::DUE).map(|due| due.0),
        fail_code: text(field::FAIL_CODE),
        message: text(field::FAIL_MESSAGE).or_else(|| text(field::TRANSFER_FAILED)),
    }
}

fn since(unit: &Unit) -> Option<Moment> {
    [
        field::FAILED,
        field::PHASE_SINCE,
        field::STATUS_SINCE,
        field::CREATED,
    ]
    .into_iter()
    .find_map(|name| unit.moment(name))
}

/// Of the way of a unit; the transfer is most of what is waited for here.
fn percent(entry: &Entry) -> Option<i64> {
    match (entry.state, entry.unit.status()) {
        (State::Done, _) => Some(100),
        (State::Fail, _) => None,
        (_, Status::Migrated | Status::Done) => Some(90),
        (_, Status::Ordered) => Some(80),
        (State::Tmp, Status::Init) => Some(match entry.unit.get(field::PHASE) {
            Some("transfer") => 5 + entry.unit.number(field::PERCENT).unwrap_or(0) * 65 / 100,
            Some("undo" | "check" | "enrol") => 75,
            _ => 0,
        }),
        (_, Status::Init) => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: State, change: impl FnOnce(&mut Unit)) -> Entry {
        let mut unit = Unit::new("a", Moment(0)).unwrap();
        change(&mut unit);
        Entry {
            state,
            unit,
            holder: None,
        }
    }

    #[test]
    fn the_time_left_follows_from_the_last_hour() {
        let done = |at: i64| {
            entry(State::Done, |unit| {
                unit.set_status(Status::Done, Moment(at))
            })
        };
        let waits = || entry(State::Units, |_| {});
        let now = Moment(10_000);
        let seen = view(
            &[done(100), done(9_000), done(9_500), waits(), waits()],
            now,
        );
        assert_eq!(seen.done_per_hour, 2);
        assert_eq!(seen.seconds_left, Some(2_000), "one in 1000 s, two to go");
        assert_eq!(seen.counts["units"], 2);
        assert_eq!(view(&[done(9_000), waits()], now).seconds_left, None);
    }

    #[test]
    fn a_transfer_moves_the_bar() {
        let transfer = |percent: &str| {
            let held = entry(State::Tmp, |unit| {
                unit.set(field::PHASE, "transfer");
                unit.set(field::PERCENT, percent);
            });
            percent_of(&held)
        };
        assert_eq!(transfer("0"), Some(5));
        assert_eq!(transfer("100"), Some(70));
        let ordered = entry(State::Tmp, |unit| {
            unit.set_status(Status::Ordered, Moment(0))
        });
        assert_eq!(percent_of(&ordered), Some(80));
        assert_eq!(percent_of(&entry(State::Fail, |_| {})), None);
    }

    fn percent_of(entry: &Entry) -> Option<i64> {
        percent(entry)
    }
}
