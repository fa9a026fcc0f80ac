//! A unit: what is known of one device, as the older tools' unit files have it.
//!
//! A unit file is a list of assignments in shell syntax, read and never executed. Fields that this
//! version does not know stay in it. The older tools appended some values without quotes; such lines
//! are taken as they stand.

use std::fmt;

use super::moment::Moment;
use super::settings::Setting;
use crate::config::shell;
use crate::secret::Secret;

/// Names of the fields beside the settings, in the order in which they come about.
pub mod field {
    /// Its name in the fleet, once among all states.
    pub const ID: &str = "UNIT_ID";
    /// See [`super::Status`].
    pub const STATUS: &str = "STATUS";
    /// When it was added.
    pub const CREATED: &str = "CREATE_TS";
    /// The same as text.
    pub const CREATED_TEXT: &str = "CREATE_ISOTS";
    /// Not to be touched before this moment.
    pub const DUE: &str = "DUE_TS";
    /// When STATUS was set.
    pub const STATUS_SINCE: &str = "STATUS_TS";
    /// When it was told to reboot into the migration.
    pub const MIGRATED_TEXT: &str = "MIGRATED_ISOTS";
    /// When it was seen with the new system.
    pub const DONE_TEXT: &str = "DONE_ISOTS";
    /// How often the connection was tried in vain.
    pub const CONNECTIONS: &str = "MIG_CONN_RETRIES";
    /// How often the migration was begun.
    pub const ATTEMPTS: &str = "MIG_ATTEMPTS";
    /// Why the last connection or transfer failed.
    pub const TRANSFER_FAILED: &str = "TRANSFER_FAIL_MSG";
    /// Its UUID in the fleet's backend. It stays when a unit fails, for the next try.
    pub const DEVICE: &str = "DEVICE_ID";
    /// What a worker does with it just now.
    pub const PHASE: &str = "PHASE";
    /// Since when.
    pub const PHASE_SINCE: &str = "PHASE_TS";
    /// How far that is.
    pub const PERCENT: &str = "PERCENT";
    /// The log of its tries.
    pub const LOG: &str = "UNIT_OUTPUT_LOG";
    /// When it failed.
    pub const FAILED: &str = "FAIL_TS";
    /// A stable word for why, for scripts.
    pub const FAIL_CODE: &str = "FAIL_CODE";
    /// Why, in a sentence.
    pub const FAIL_MESSAGE: &str = "FAIL_MSG";
}

/// What has been done with a unit. It outlives its worker: a unit that comes back from a dead one
/// goes on from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Nothing that the device would notice at its next boot.
    Init,
    /// The device was told to migrate; whether it has begun is not known yet.
    Ordered,
    /// The device said that it is armed.
    Migrated,
    /// It was seen with the new system.
    Done,
}

impl Status {
    const ALL: [Status; 4] = [
        Status::Init,
        Status::Ordered,
        Status::Migrated,
        Status::Done,
    ];

    /// The word in the unit file.
    pub fn word(self) -> &'static str {
        match self {
            Status::Init => "INIT",
            Status::Ordered => "ORDERED",
            Status::Migrated => "MIGRATED",
            Status::Done => "DONE",
        }
    }
}

/// A device on its way. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Unit {
    fields: Vec<(String, String)>,
}

/// Why a text is no unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoUnit {
    /// No unit can have that id.
    #[error(
        "`{0}` can't be a unit id; use letters, digits, `.`, `_` and `-`, and begin with a letter or digit"
    )]
    Id(String),
    /// A line that is no assignment.
    #[error("line {line}: {what}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong; what to do.
        what: String,
    },
    /// There is no UNIT_ID.
    #[error("there is no UNIT_ID; each unit file needs one")]
    Nameless,
}

impl Unit {
    /// A new one. `now` is when it was added.
    pub fn new(id: &str, now: Moment) -> Result<Unit, NoUnit> {
        check_id(id)?;
        let mut unit = Unit::default();
        unit.set(field::ID, id);
        unit.set(field::STATUS, Status::Init.word());
        unit.set(field::CREATED, &now.0.to_string());
        unit.set(field::CREATED_TEXT, &now.iso());
        Ok(unit)
    }

    /// Reads a unit file.
    pub fn parse(text: &str) -> Result<Unit, NoUnit> {
        // No database takes it, and no shell.
        if let Some(at) = text.lines().position(|line| line.contains('\0')) {
            return Err(NoUnit::Line {
                line: at + 1,
                what: "it has a NUL byte; remove it".to_owned(),
            });
        }
        let mut unit = Unit::default();
        match shell::parse(text) {
            Ok(assignments) => {
                for assignment in assignments {
                    unit.set(&assignment.name, &assignment.value);
                }
            }
            Err(_) => unit.read_lines(text)?,
        }
        match unit.get(field::ID) {
            Some(_) => Ok(unit),
            None => Err(NoUnit::Nameless),
        }
    }

    /// Reads line by line, for what the older tools appended without quotes.
    fn read_lines(&mut self, text: &str) -> Result<(), NoUnit> {
        for (at, line) in text.lines().enumerate() {
            match shell::parse(line) {
                Ok(assignments) => {
                    for assignment in assignments {
                        self.set(&assignment.name, &assignment.value);
                    }
                }
                Err(error) => match bare(line) {
                    Some((name, value)) => self.set(name, value),
                    None => {
                        return Err(NoUnit::Line {
                            line: at + 1,
                            what: error.what.to_string(),
                        });
                    }
                },
            }
        }
        Ok(())
    }

    /// The unit file.
    pub fn text(&self) -> String {
        let line = |(name, value): &(String, String)| format!("{name}={}\n", shell::quote(value));
        self.fields.iter().map(line).collect()
    }

    /// The same without what must not be seen.
    pub fn text_without_secrets(&self) -> String {
        let mut shown = self.clone();
        for (name, value) in &mut shown.fields {
            if Setting::find(name).is_some_and(|setting| setting.secret) {
                *value = "(left out)".to_owned();
            }
        }
        shown.text()
    }

    /// A field; a blank one counts as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, value)| field == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    /// A field that is a moment.
    pub fn moment(&self, name: &str) -> Option<Moment> {
        self.number(name).map(Moment)
    }

    /// A setting that nobody may see.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.get(name).map(Secret::new)
    }

    /// Sets a field, where it stands or at the end.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.fields.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.fields.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Takes fields away.
    pub fn clear(&mut self, names: &[&str]) {
        self.fields
            .retain(|(name, _)| !names.contains(&name.as_str()));
    }

    /// Counts a field one up, from 0.
    pub fn count(&mut self, name: &str) -> i64 {
        let count = self.number(name).unwrap_or(0).saturating_add(1);
        self.set(name, &count.to_string());
        count
    }

    /// All fields as they stand.
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// Its name in the fleet.
    pub fn id(&self) -> &str {
        self.get(field::ID).unwrap_or_default()
    }

    /// What has been done with it; INIT where its file says nothing that is known.
    pub fn status(&self) -> Status {
        let word = self.get(field::STATUS);
        Status::ALL
            .into_iter()
            .find(|status| Some(status.word()) == word)
            .unwrap_or(Status::Init)
    }

    /// Notes what has been done with it.
    pub fn set_status(&mut self, status: Status, now: Moment) {
        self.set(field::STATUS, status.word());
        self.set(field::STATUS_SINCE, &now.0.to_string());
        match status {
            Status::Init | Status::Ordered => {}
            Status::Migrated => self.set(field::MIGRATED_TEXT, &now.iso()),
            Status::Done => self.set(field::DONE_TEXT, &now.iso()),
        }
    }

    /// Gives it up, for now.
    pub fn fail(&mut self, code: &str, message: &str, now: Moment) {
        self.set(field::FAILED, &now.0.to_string());
        self.set(field::FAIL_CODE, code);
        self.set(field::FAIL_MESSAGE, message);
    }

    /// Whether it was given up.
    pub fn has_failed(&self) -> bool {
        self.get(field::FAILED).is_some()
    }

    /// A new chance for one that was given up: counters start again, what the backend knows of it
    /// stays. `from_scratch` also forgets that the device was told to migrate.
    pub fn retry(&mut self, from_scratch: bool, now: Moment) {
        self.clear(&[
            field::FAILED,
            field::FAIL_CODE,
            field::FAIL_MESSAGE,
            field::TRANSFER_FAILED,
            field::CONNECTIONS,
            field::DUE,
        ]);
        if from_scratch {
            self.clear(&[field::MIGRATED_TEXT, field::DONE_TEXT]);
            self.set_status(Status::Init, now);
        } else if self.status() == Status::Migrated {
            // The time in which it has to come online starts again.
            self.set(field::STATUS_SINCE, &now.0.to_string());
        }
    }

    /// From when on a worker may touch it.
    pub fn due(&self) -> Moment {
        self.moment(field::DUE).unwrap_or(Moment(i64::MIN))
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unit({:?})", self.text_without_secrets())
    }
}

/// `NAME=anything`, with a value that opens no quote.
fn bare(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (is_name && !value.starts_with(['"', '\''])).then_some((name, value.trim_end()))
}

/// An id is part of file names and of lines that a person reads.
fn check_id(id: &str) -> Result<(), NoUnit> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    match id.as_bytes() {
        [first, ..] if first.is_ascii_alphanumeric() && id.len() <= 128 && id.bytes().all(good) => {
            Ok(())
        }
        _ => Err(NoUnit::Id(id.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_read_as_it_was_written() {
        let mut unit = Unit::new("pi-7.lab", Moment(1_784_000_000)).unwrap();
        unit.set("MIG_SSH_PASSWD", "it's $HOME `x` \\ \"q\"\nline");
        unit.set("NOT_OURS", "stays");
        assert_eq!(Unit::parse(&unit.text()).unwrap(), unit);
        assert!(unit.text().starts_with(
            "UNIT_ID=pi-7.lab\nSTATUS=INIT\nCREATE_TS=1784000000\nCREATE_ISOTS=2026-07-14T03:33:20Z\n"
        ));
    }

    #[test]
    fn what_the_older_tools_appended_is_read() {
        let text = "UNIT_ID=\"a\"\nSTATUS=\"INIT\"\nSTATUS=\"MIGRATED\"\nDUE_TS=12\n\
                    FAIL_MSG=could not get (it) & more\n";
        let unit = Unit::parse(text).unwrap();
        assert_eq!(unit.status(), Status::Migrated);
        assert_eq!(unit.due(), Moment(12));
        assert_eq!(unit.get("FAIL_MSG"), Some("could not get (it) & more"));
    }

    #[test]
    fn nothing_in_it_is_run_or_expanded() {
        let unit = Unit::parse("UNIT_ID=a\nMIG_APP=$(touch /tmp/x)\n").unwrap();
        assert_eq!(unit.get("MIG_APP"), Some("$(touch /tmp/x)"));
        assert!(matches!(
            Unit::parse("UNIT_ID=a\nMIG_APP=\"$(id)\"\n"),
            Err(NoUnit::Line { line: 2, .. })
        ));
    }

    #[test]
    fn its_password_is_not_shown() {
        let mut unit = Unit::new("a", Moment(0)).unwrap();
        unit.set("MIG_SSH_PASSWD", "hunter2");
        assert!(!unit.text_without_secrets().contains("hunter2"));
        assert!(!format!("{unit:?}").contains("hunter2"));
        assert!(unit.text().contains("hunter2"));
    }

    #[test]
    fn ids_are_fit_for_file_names() {
        for bad in [
            "",
            "a/b",
            "..",
            "-a",
            "a b",
            "ä",
            "a\n",
            "a@h",
            &"x".repeat(129),
        ] {
            assert!(Unit::new(bad, Moment(0)).is_err(), "{bad:?}");
        }
        for good in ["0", "raspberry_pi.7-b"] {
            assert!(Unit::new(good, Moment(0)).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_retry_keeps_the_registration_and_what_the_device_was_told() {
        let mut unit = Unit::new("a", Moment(0)).unwrap();
        unit.set(field::DEVICE, "uuid");
        unit.set_status(Status::Migrated, Moment(5));
        unit.count(field::CONNECTIONS);
        unit.fail("lost", "not seen", Moment(9));
        unit.retry(false, Moment(20));
        assert!(!unit.has_failed());
        assert_eq!(unit.status(), Status::Migrated);
        assert_eq!(unit.moment(field::STATUS_SINCE), Some(Moment(20)));
        assert_eq!(unit.get(field::DEVICE), Some("uuid"));
        assert_eq!(unit.number(field::CONNECTIONS), None);
        unit.retry(true, Moment(30));
        assert_eq!(unit.status(), Status::Init);
        assert_eq!(unit.get(field::DEVICE), Some("uuid"));
    }
}
