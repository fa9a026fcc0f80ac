//! The settings of `migdb`: one table, and what counts when several places say something.
//!
//! Called by the command line and the workers. An option wins over the unit, the unit over the
//! environment, the environment over the `--cfg` file, that over the default. The file has shell
//! syntax and is parsed, never executed.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::{path, shell};
use crate::sys::Sys;

use super::unit::Unit;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name in the environment, in the `--cfg` file and in unit files.
    pub name: &'static str,
    /// The option of the command line.
    pub flag: &'static str,
    /// The value when nobody sets it; empty for none.
    pub default: &'static str,
    /// A unit can have a value of its own.
    pub of_unit: bool,
    /// It must not be seen.
    pub secret: bool,
    /// How a value is written.
    pub kind: Kind,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number from 0.
    Number,
    /// A TCP port.
    Port,
    /// What ssh does about host keys.
    HostKeys,
    /// A backend.
    Backend,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $name:ident = $flag:literal, $default:literal, $of_unit:literal, $secret:literal, $kind:ident;)*) => {
        $($(#[doc = $doc])* pub const $name: Setting = Setting {
            name: stringify!($name),
            flag: $flag,
            default: $default,
            of_unit: $of_unit,
            secret: $secret,
            kind: Kind::$kind,
        };)*

        /// All of them.
        pub const SETTINGS: &[Setting] = &[$($name),*];
    };
}

settings! {
    /// The folder with the folder `db`, or the URL of a database of PostgreSQL.
    MIG_DB_DIR = "--base", ".", false, true, Text;
    /// The same of another store, which units are moved to.
    MIG_DB_TO = "--to", "", false, true, Text;
    /// The `--cfg` file.
    MIG_CFG = "--cfg", "", false, false, Text;
    /// Where logs go, a folder; `db/log` when not set.
    MIG_LOG_TO = "--log-to", "", false, false, Text;
    /// The fleet that devices are registered in: a slug, or a name.
    MIG_APP = "--app", "", true, false, Text;
    /// The version of the new system, for its config.json.
    MIG_BALENA_VER = "--balena-ver", "", true, false, Text;
    /// The folder migratecfg as a compressed archive of its content.
    MIG_CFG_ARCHIVE = "--cfg-tgz", "", true, false, Text;
    /// The folder migratecfg.
    MIG_CFG_DIR = "--cfg-dir", "", true, false, Text;
    /// The device's name or address for ssh.
    MIG_SSH_HOST = "--host", "", true, false, Text;
    /// The user there.
    MIG_SSH_USER = "--user", "", true, false, Text;
    /// Their password, for ssh and sudo.
    MIG_SSH_PASSWD = "--passwd", "", true, true, Text;
    /// The port there.
    MIG_SSH_PORT = "--port", "22", true, false, Port;
    /// Options for ssh; a unit's, in place of MIG_DEF_SSH_OPTS.
    MIG_SSH_OPTS = "--ssh-opts", "", true, false, Text;
    /// Options for ssh of units that have none.
    MIG_DEF_SSH_OPTS = "--ssh-opts", "", false, false, Text;
    /// What to do about host keys that are not known: ssh's StrictHostKeyChecking.
    MIG_HOST_KEYS = "--host-keys", "accept-new", false, false, HostKeys;
    /// Kilobytes a second that all transfers together send at most.
    MIG_LIMIT_RATE = "--limit-rate", "", false, false, Number;
    /// Seconds that a unit waits after it was added.
    MIG_MIN_AGE = "--min-age", "0", false, false, Number;
    /// Seconds from the device's order to the first look whether it is online.
    MIG_DURATION = "--dur", "180", false, false, Number;
    /// Seconds in which a migrated device has to come online.
    MIG_MAX_STATUS_AGE = "--max-age", "900", false, false, Number;
    /// How often the connection is tried.
    MIG_CONN_ATTEMPTS = "--conn-attempts", "3", false, false, Number;
    /// Seconds to the second try; twice as long to each one after it, a day at most.
    MIG_RECONN_TIME = "--reconn-time", "600", false, false, Number;
    /// Seconds that the transfer may take.
    MIG_TX_TIMEOUT = "--tx-timeout", "1200", false, false, Number;
    /// Seconds that a program on the device may take.
    MIG_EXEC_TIMEOUT = "--exec-timeout", "600", false, false, Number;
    /// What knows the devices: balena, or none (their config.json is given).
    MIG_BACKEND = "--backend", "balena", false, false, Backend;
    /// The address of the backend's API.
    MIG_API_ENDPOINT = "--api-endpoint", "", false, false, Text;
    /// A file with the API token or key.
    MIG_BALENA_TOKEN_FILE = "--balena-token-file", "", false, false, Text;
    /// A config.json of the fleet, for an API that makes none; also names the API and its root
    /// certificate.
    MIG_FLEET_CONFIG = "--fleet-config", "", false, false, Text;
    /// Without a backend: the unit's config.json. Not set: what balena-migrate.conf says.
    MIG_CONFIG_JSON = "--config-json", "", true, false, Text;
    /// Without a backend: a command for sh that succeeds once the unit is online; MIG_SSH_HOST and
    /// UNIT_ID are in its environment. Not set: ssh answers on port 22222, as balenaOS's does.
    MIG_ONLINE = "--online", "", true, false, Text;
    /// The API token or key of the backend.
    MIG_BALENA_TOKEN = "--balena-token", "", false, true, Text;
}

impl Setting {
    /// The row of that name.
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    fn check(&self, value: &str) -> Result<(), &'static str> {
        match self.kind {
            Kind::Text => Ok(()),
            Kind::Number => match value.parse::<u32>() {
                Ok(_) => Ok(()),
                Err(_) => Err("write a whole number from 0"),
            },
            Kind::Backend => match ["balena", "none"].contains(&value) {
                true => Ok(()),
                false => Err("write balena or none"),
            },
            Kind::HostKeys => match ["accept-new", "yes", "no"].contains(&value) {
                true => Ok(()),
                false => Err("write accept-new, yes (only known ones) or no (any)"),
            },
            Kind::Port => match value.parse::<u16>() {
                Ok(1..) => Ok(()),
                _ => Err("write a number from 1 to 65535"),
            },
        }
    }
}

/// A value that a setting can't have, or a name that is none: `place: what; what to do`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {remedy}")]
pub struct Wrong {
    /// An option, a file with line and column, a variable, or a unit.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// What the command line, the environment and the `--cfg` file say. Its `Debug` has no secret.
#[derive(Clone, Default)]
pub struct Settings {
    flags: BTreeMap<&'static str, String>,
    environment: BTreeMap<&'static str, String>,
    file: BTreeMap<&'static str, String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |map: &BTreeMap<&str, String>| map.keys().copied().collect::<Vec<_>>().join(" ");
        write!(
            f,
            "Settings(flags: {}; environment: {}; file: {})",
            names(&self.flags),
            names(&self.environment),
            names(&self.file)
        )
    }
}

impl Settings {
    /// Puts together what the command line says with the environment and the `--cfg` file, which is
    /// relative to the current folder. All that is wrong is told at once.
    pub fn gather(sys: &Sys, flags: &[(Setting, Option<String>)]) -> Result<Settings, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut settings = Settings::default();
        for (setting, value) in flags {
            let Some(value) = value else { continue };
            note(
                setting,
                setting.flag,
                value,
                &mut settings.flags,
                &mut wrong,
            );
        }
        for setting in SETTINGS {
            if let Some(value) = sys.variable(setting.name) {
                let place = format!("the variable {}", setting.name);
                note(
                    setting,
                    &place,
                    &value,
                    &mut settings.environment,
                    &mut wrong,
                );
            }
        }
        if let Some(file) = settings.shared(&MIG_CFG) {
            match read(sys, &file) {
                Ok(text) => settings.file = values(&file, &text, &mut wrong),
                Err(error) => wrong.push(error),
            }
        }
        match wrong.is_empty() {
            true => Ok(settings),
            false => Err(wrong),
        }
    }

    /// The value for a unit.
    pub fn of(&self, unit: &Unit, setting: &Setting) -> Option<String> {
        let of_unit = match setting.of_unit {
            true => unit.get(setting.name),
            false => None,
        };
        self.first(setting, of_unit)
    }

    /// The value for all units alike.
    pub fn shared(&self, setting: &Setting) -> Option<String> {
        self.first(setting, None)
    }

    /// The value that somebody set for all units alike.
    pub fn said(&self, setting: &Setting) -> Option<String> {
        [&self.flags, &self.environment, &self.file]
            .into_iter()
            .find_map(|map| map.get(setting.name).cloned())
            .filter(|value| !value.is_empty())
    }

    /// A number for all units alike.
    pub fn number(&self, setting: &Setting) -> u32 {
        let value = self.shared(setting);
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    fn first(&self, setting: &Setting, of_unit: Option<&str>) -> Option<String> {
        let said = |map: &BTreeMap<&str, String>| map.get(setting.name).cloned();
        let of_unit = of_unit.map(str::to_owned);
        // One host for all units would be the same machine for all.
        let (before, of_unit) = match setting.name == MIG_SSH_HOST.name {
            true => (of_unit, None),
            false => (None, of_unit),
        };
        before
            .or_else(|| said(&self.flags))
            .or(of_unit)
            .or_else(|| said(&self.environment))
            .or_else(|| said(&self.file))
            .or_else(|| (!setting.default.is_empty()).then(|| setting.default.to_owned()))
            .filter(|value| !value.is_empty())
    }
}

/// What is wrong with the settings of one unit.
pub fn check_unit(unit: &Unit) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for (name, value) in unit.fields() {
        if let Some(setting) = Setting::find(name).filter(|_| !value.is_empty()) {
            let place = format!("unit {}", unit.id());
            note(setting, &place, value, &mut BTreeMap::new(), &mut wrong);
        }
    }
    wrong
}

fn note(
    setting: &Setting,
    place: &str,
    value: &str,
    into: &mut BTreeMap<&'static str, String>,
    wrong: &mut Vec<Wrong>,
) {
    match setting.check(value) {
        Ok(()) => {
            into.insert(setting.name, value.to_owned());
        }
        Err(remedy) => wrong.push(Wrong {
            place: place.to_owned(),
            what: format!("{} can't be `{value}`", setting.name),
            remedy: remedy.to_owned(),
        }),
    }
}

fn read(sys: &Sys, file: &str) -> Result<String, Wrong> {
    let path = sys.current_dir().map(|cwd| path::absolute(&cwd, file));
    path.and_then(|path| sys.read_text(&path))
        .map_err(|error| Wrong {
            place: file.to_owned(),
            what: format!("it can't be read ({error})"),
            remedy: "name a file that is there with --cfg or MIG_CFG".to_owned(),
        })
}

/// The values of a `--cfg` file.
fn values(file: &str, text: &str, wrong: &mut Vec<Wrong>) -> BTreeMap<&'static str, String> {
    let mut values = BTreeMap::new();
    let assignments = match shell::parse(text) {
        Ok(assignments) => assignments,
        Err(error) => {
            let (what, remedy) = halves(&error.what.to_string());
            let place = format!("{file}:{}", error.at);
            wrong.push(Wrong {
                place,
                what,
                remedy,
            });
            return values;
        }
    };
    for assignment in assignments {
        let place = format!("{file}:{}", assignment.at);
        match Setting::find(&assignment.name) {
            Some(setting) if assignment.value.is_empty() => {
                values.remove(setting.name);
            }
            Some(setting) => note(setting, &place, &assignment.value, &mut values, wrong),
            None => wrong.push(Wrong {
                place,
                what: format!("{} is not a setting", assignment.name),
                remedy: hint(&assignment.name),
            }),
        }
    }
    values
}

/// `what; what to do` in two.
fn halves(text: &str) -> (String, String) {
    let (what, remedy) = text.split_once("; ").unwrap_or((text, "mend this line"));
    (what.to_owned(), remedy.to_owned())
}

fn hint(name: &str) -> String {
    let names = SETTINGS.iter().map(|setting| setting.name);
    match crate::config::nearest(name, names) {
        Some(near) => format!("did you mean {near}?"),
        None => "`migdb help migrate` names them all".to_owned(),
    }
}
