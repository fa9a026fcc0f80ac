//! New units: one from options, or many from a CSV file or a list.
//!
//! Called by `migdb add-unit`. Everything that is wrong in a file is told at once, with its line.

use std::collections::HashMap;

use super::moment::Moment;
use super::settings::{self, SETTINGS, Setting, Wrong};
use super::unit::Unit;

/// Reads units from CSV with a header. A column is a setting by its name or its option without the
/// dashes (`MIG_SSH_HOST` or `host`), and `UNIT_ID` or `id`. `defaults` fill in what a row leaves
/// blank.
pub fn from_csv(file: &str, text: &str, defaults: &Defaults) -> Result<Vec<Unit>, Vec<Wrong>> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .flexible(false)
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let columns = reader
        .headers()
        .map_err(|error| vec![broken(file, &error)])
        .and_then(|header| columns(file, header))?;
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                wrong.push(broken(file, &error));
                continue;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        let values = columns.iter().zip(&record);
        let values = values.map(|(column, value)| (*column, value.to_owned()));
        rows.push((line, values.collect()));
    }
    collect(file, rows, defaults, wrong)
}

/// Reads units from a list: a line is an id, and a host if that is another word. Blank lines and what
/// follows `#` are left out.
pub fn from_list(file: &str, text: &str, defaults: &Defaults) -> Result<Vec<Unit>, Vec<Wrong>> {
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for (at, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [id, rest @ ..] if rest.len() < 2 => {
                let host = rest.first().unwrap_or(id);
                let values = [(Column::Id, *id), (HOST, *host)];
                let owned = values.map(|(column, value)| (column, value.to_owned()));
                rows.push((at, owned.to_vec()));
            }
            _ => wrong.push(Wrong {
                place: format!("{file}:{at}"),
                what: "there are more than two words".to_owned(),
                remedy: "write an id and a host, or use --csv".to_owned(),
            }),
        }
    }
    collect(file, rows, defaults, wrong)
}

/// Values for units that have none of their own, and when they are added.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// By the name of the setting.
    pub values: Vec<(&'static str, String)>,
    /// Now.
    pub now: Moment,
}

impl Defaults {
    /// A unit of that id.
    pub fn unit(&self, id: &str) -> Result<Unit, super::unit::NoUnit> {
        let mut unit = Unit::new(id, self.now)?;
        for (name, value) in &self.values {
            unit.set(name, value);
        }
        Ok(unit)
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy)]
enum Column {
    Id,
    Of(&'static str),
}

const HOST: Column = Column::Of(settings::MIG_SSH_HOST.name);

fn columns(file: &str, header: &csv::StringRecord) -> Result<Vec<Column>, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let mut columns = Vec::new();
    for name in header {
        match column(name) {
            Some(column) => columns.push(column),
            None => wrong.push(Wrong {
                place: format!("{file}:1"),
                what: format!("there is no setting `{name}` that a unit can have"),
                remedy: format!("name the columns id, {}", names().join(", ")),
            }),
        }
    }
    if !columns.iter().any(|column| matches!(column, Column::Id)) {
        wrong.push(Wrong {
            place: format!("{file}:1"),
            what: "there is no column `id`".to_owned(),
            remedy: "give the file a first line with the names of its columns".to_owned(),
        });
    }
    match wrong.is_empty() {
        true => Ok(columns),
        false => Err(wrong),
    }
}

fn column(name: &str) -> Option<Column> {
    if name == "id" || name == super::unit::field::ID {
        return Some(Column::Id);
    }
    of_unit()
        .find(|setting| setting.name == name || setting.flag.trim_start_matches('-') == name)
        .map(|setting| Column::Of(setting.name))
}

fn of_unit() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.of_unit)
}

fn names() -> Vec<&'static str> {
    of_unit()
        .map(|setting| setting.flag.trim_start_matches('-'))
        .collect()
}

/// Makes units of rows, each once.
fn collect(
    file: &str,
    rows: Vec<(u64, Vec<(Column, String)>)>,
    defaults: &Defaults,
    mut wrong: Vec<Wrong>,
) -> Result<Vec<Unit>, Vec<Wrong>> {
    let mut units = Vec::new();
    let mut lines: HashMap<String, u64> = HashMap::new();
    for (line, values) in rows {
        let place = format!("{file}:{line}");
        let unit = match unit_of(&place, &values, defaults) {
            Ok(unit) => unit,
            Err(error) => {
                wrong.push(error);
                continue;
            }
        };
        wrong.extend(settings::check_unit(&unit).into_iter().map(|error| Wrong {
            place: place.clone(),
            ..error
        }));
        if let Some(before) = lines.insert(unit.id().to_owned(), line) {
            wrong.push(Wrong {
                place,
                what: format!("unit {} is in line {before} already", unit.id()),
                remedy: "leave one of them out".to_owned(),
            });
        }
        units.push(unit);
    }
    match wrong.is_empty() {
        true => Ok(units),
        false => Err(wrong),
    }
}

fn unit_of(place: &str, values: &[(Column, String)], defaults: &Defaults) -> Result<Unit, Wrong> {
    let id = values
        .iter()
        .find(|(column, _)| matches!(column, Column::Id))
        .map_or("", |(_, value)| value.as_str());
    let mut unit = defaults.unit(id).map_err(|error| {
        let text = error.to_string();
        let (what, remedy) = text.split_once("; ").unwrap_or((&text, "mend it"));
        Wrong {
            place: place.to_owned(),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        }
    })?;
    for (column, value) in values {
        if let Column::Of(name) = column
            && !value.is_empty()
        {
            unit.set(name, value);
        }
    }
    Ok(unit)
}

fn broken(file: &str, error: &csv::Error) -> Wrong {
    let line = error.position().map_or(1, csv::Position::line);
    let what = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("there are {len} values, and the first line has {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        _ => error.to_string(),
    };
    Wrong {
        place: format!("{file}:{line}"),
        what,
        remedy: "put values with a comma in double quotes".to_owned(),
    }
}
