//! What became of the units: the table of the older tools, and JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::moment::Moment;
use super::store::{Entry, State};
use super::unit::{Status, Unit, field};

/// A row: what became of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The unit.
    pub id: String,
    /// Its outcome, one word.
    pub state: &'static str,
    /// How often its migration was begun.
    pub migration_attempts: i64,
    /// How often a connection was tried in vain.
    pub connection_attempts: i64,
    /// When it was added, in seconds since 1970.
    pub created: Option<i64>,
    /// When its outcome was known.
    pub last: Option<i64>,
    /// Seconds from the first to the order to migrate.
    pub migration_offset: Option<i64>,
    /// Seconds from the first to the outcome.
    pub duration: Option<i64>,
    /// Its UUID in the backend.
    pub device: Option<String>,
    /// A stable word for why it failed.
    pub fail_code: Option<String>,
    /// Why it failed.
    pub fail_message: Option<String>,
    /// Anything odd.
    pub comment: String,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Units by state.
    pub states: BTreeMap<&'static str, usize>,
    /// Units that are done or failed, by outcome.
    pub outcomes: BTreeMap<&'static str, usize>,
    /// Those units, by id.
    pub units: Vec<Row>,
}

/// Outcomes, in the order of the older tools.
const OUTCOMES: [&str; 8] = [
    "DONE",
    "LOST",
    "NO_CONN",
    "TIMEOUT",
    "NO_SPACE",
    "READ_ONLY",
    "BCKUP",
    "OTHER",
];

const HEADER: [&str; 11] = [
    "id",
    "state",
    "mig.att.",
    "conn.att.",
    "created",
    "last",
    "mig.offs.",
    "duration",
    "balena id",
    "fail Msg",
    "comment",
];

/// Reckons. The older tools left several files of a unit; then the newest counts.
pub fn stats(entries: &[Entry]) -> Stats {
    let mut states: BTreeMap<&'static str, usize> = BTreeMap::new();
    for state in State::ALL {
        let count = entries.iter().filter(|entry| entry.state == state).count();
        states.insert(state.name(), count);
    }
    let mut by_id: BTreeMap<&str, Vec<&Unit>> = BTreeMap::new();
    for entry in entries {
        if matches!(entry.state, State::Done | State::Fail) {
            by_id.entry(entry.unit.id()).or_default().push(&entry.unit);
        }
    }
    let units: Vec<Row> = by_id.values().filter_map(|units| row(units)).collect();
    let mut outcomes: BTreeMap<&'static str, usize> = OUTCOMES.map(|word| (word, 0)).into();
    for row in &units {
        *outcomes.entry(row.state).or_default() += 1;
    }
    Stats {
        states,
        outcomes,
        units,
    }
}

fn row(units: &[&Unit]) -> Option<Row> {
    let done = |unit: &Unit| unit.status() == Status::Done && !unit.has_failed();
    let unit = units.iter().max_by_key(|unit| (done(unit), last(unit)))?;
    let created = unit.moment(field::CREATED);
    let last = last(unit);
    let from_created = |to: Option<Moment>| Some(to?.0 - created?.0);
    Some(Row {
        id: unit.id().to_owned(),
        state: outcome(unit),
        migration_attempts: unit.number(field::ATTEMPTS).unwrap_or(units.len() as i64),
        connection_attempts: unit.number(field::CONNECTIONS).unwrap_or(0),
        created: created.map(|moment| moment.0),
        last: last.map(|moment| moment.0),
        migration_offset: from_created(migrated(unit)),
        duration: from_created(last),
        device: unit.get(field::DEVICE).map(str::to_owned),
        fail_code: unit.get(field::FAIL_CODE).map(str::to_owned),
        fail_message: unit.get(field::FAIL_MESSAGE).map(str::to_owned),
        comment: match units.len() {
            1 => String::new(),
            n => format!("{n} unit files"),
        },
    })
}

fn last(unit: &Unit) -> Option<Moment> {
    unit.moment(field::FAILED)
        .or_else(|| unit.moment(field::STATUS_SINCE))
}

fn migrated(unit: &Unit) -> Option<Moment> {
    let time: jiff::Timestamp = unit.get(field::MIGRATED_TEXT)?.parse().ok()?;
    Some(Moment(time.as_second()))
}

/// The older tools' word for what became of a unit.
fn outcome(unit: &Unit) -> &'static str {
    if !unit.has_failed() && unit.status() == Status::Done {
        return "DONE";
    }
    match unit.get(field::FAIL_CODE) {
        Some("lost") => "LOST",
        Some("no-connection") => "NO_CONN",
        Some("timeout") => "TIMEOUT",
        Some("no-space") => "NO_SPACE",
        Some("read-only") => "READ_ONLY",
        Some(code) if code.starts_with("backup") => "BCKUP",
        // An older tool's unit that had been told to migrate.
        None if unit.status() == Status::Migrated => "LOST",
        _ => "OTHER",
    }
}

impl Stats {
    /// `;` between the columns of the older tools, a blank line, and a line for each outcome.
    pub fn csv(&self) -> String {
        let mut text = line(&HEADER.map(str::to_owned));
        for row in &self.units {
            text.push_str(&line(&cells(row)));
        }
        text.push('\n');
        for word in OUTCOMES {
            let count = self.outcomes.get(word).copied().unwrap_or(0);
            text.push_str(&line(&[word.to_owned(), count.to_string()]));
        }
        text
    }

    /// The same and the states, for scripts.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

fn cells(row: &Row) -> [String; 11] {
    let time = |seconds: Option<i64>| seconds.map_or(String::new(), |s| Moment(s).rfc_3339());
    let number = |number: Option<i64>| number.map_or(String::new(), |number| number.to_string());
    [
        row.id.clone(),
        row.state.to_owned(),
        row.migration_attempts.to_string(),
        row.connection_attempts.to_string(),
        time(row.created),
        time(row.last),
        number(row.migration_offset),
        number(row.duration),
        row.device.clone().unwrap_or_default(),
        row.fail_message.clone().unwrap_or_default(),
        row.comment.clone(),
    ]
}

/// A line without anything that would end a value, or the line, early.
fn line(cells: &[String]) -> String {
    let clean = |cell: &String| cell.replace(';', ",").replace(['\n', '\r'], " ");
    let cells: Vec<String> = cells.iter().map(clean).collect();
    cells.join(";") + "\n"
}
