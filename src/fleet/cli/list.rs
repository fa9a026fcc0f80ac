//! `migdb list` and `migdb show`.

use anyhow::anyhow;
use serde_json::json;

use super::{Common, Exit, Failure, open, print};
use crate::fleet::moment::Moment;
use crate::fleet::store::State;
use crate::fleet::view::{Row, view};
use crate::sys::Sys;

/// Options of `list`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only units in this state; may be repeated
    #[arg(long, value_name = "STATE", value_parser = State::ALL.map(State::name))]
    state: Vec<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Options of `show`.
#[derive(Debug, clap::Args)]
pub struct ShowOptions {
    /// The unit
    #[arg(value_name = "UNIT_ID")]
    id: String,
}

/// Prints units as a table.
pub fn list(sys: &Sys, common: &Common, options: &Options) -> Result<Exit, Failure> {
    let settings = common.settings(sys, Vec::new())?;
    let mut entries = open(sys, &settings, false)?.all()?;
    if !options.state.is_empty() {
        entries.retain(|entry| options.state.iter().any(|name| name == entry.state.name()));
    }
    let now = Moment::now();
    let units = view(&entries, now).units;
    let text = match options.json {
        true => format!("{:#}\n", json!(units)),
        false => table(&units.iter().collect::<Vec<_>>(), now),
    };
    print(&text)?;
    Ok(Exit::Done)
}

/// Prints what is known of a unit.
pub fn show(sys: &Sys, common: &Common, options: &ShowOptions) -> Result<Exit, Failure> {
    let settings = common.settings(sys, Vec::new())?;
    let entries = open(sys, &settings, false)?.all()?;
    let mut found = entries
        .iter()
        .filter(|entry| entry.unit.id() == options.id)
        .peekable();
    if found.peek().is_none() {
        return Err(Failure(
            Exit::Refused,
            anyhow!("there is no unit {}; `migdb list` shows all", options.id),
        ));
    }
    for entry in found {
        let holder = entry
            .holder
            .as_ref()
            .map(|holder| format!(", held by {holder}"));
        print(&format!(
            "# {}{}\n{}",
            entry.state.name(),
            holder.unwrap_or_default(),
            entry.unit.text_without_secrets()
        ))?;
    }
    Ok(Exit::Done)
}

/// A line a unit, columns as wide as needed.
pub fn table(units: &[&Row], now: Moment) -> String {
    let header = ["unit", "state", "status", "host", "due", "message"].map(str::to_owned);
    let rows = units.iter().map(|unit| {
        [
            unit.id.clone(),
            unit.state.name().to_owned(),
            unit.status.to_owned(),
            unit.host.clone().unwrap_or_default(),
            due(unit, now),
            message(unit),
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = std::iter::zip(row, &widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// States in which something happens come first.
pub fn urgency(state: State) -> usize {
    let order = [
        State::Tmp,
        State::Fail,
        State::Process,
        State::Units,
        State::Done,
    ];
    order
        .iter()
        .position(|known| *known == state)
        .unwrap_or(order.len())
}

/// When a waiting unit is due.
fn due(unit: &Row, now: Moment) -> String {
    let waits = matches!(unit.state, State::Units | State::Process);
    match unit.due.map(Moment) {
        Some(due) if waits && due > now => format!("in {} s", due.since(now).as_secs()),
        _ => String::new(),
    }
}

/// Why it failed or waits, or what is done with it.
fn message(unit: &Row) -> String {
    let doing = || {
        let phase = unit.phase.as_deref()?;
        Some(match unit.percent {
            Some(percent) => format!("{phase}, {percent} %"),
            None => phase.to_owned(),
        })
    };
    match unit.state {
        State::Tmp => doing().or_else(|| unit.holder.clone()),
        _ => unit.message.clone(),
    }
    .unwrap_or_default()
}
