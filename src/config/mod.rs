//! The configuration: `balena-migrate.conf` and the command line, merged into typed settings.
//!
//! Called by the command line, first of all. [`merge`] is pure; [`load`] finds the file and reads
//! it. Options win over the file, the file over the defaults. Everything that is wrong is reported
//! at once, each with file, line and column and what to do about it.

pub mod balena;
pub mod edit;
pub mod hostname;
pub mod kind;
pub(crate) mod path;
pub mod reference;
pub mod sample;
pub mod settings;
pub mod shell;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::ops::Deref;

use crate::sys::files::Sys;

use self::settings::{RETIRED, SETTINGS, Setting, Settings};
use self::shell::{Assignment, Position};

/// The file that is read when the command line names none.
pub const DEFAULT_FILE: &str = "balena-migrate.conf";

/// The merged configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The settings.
    pub settings: Settings,
    /// The configuration file, as it was found.
    pub file: String,
    /// What is worth a warning, each `file:line:column: what; what to do`.
    pub warnings: Vec<String>,
}

impl Deref for Config {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

/// A value and the place that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub from: Origin,
}

impl<T> Deref for Sourced<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Where a value came from. Displayed, it names the place for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File {
        /// The file, as it was found.
        file: String,
        /// Where the name stands.
        at: Position,
    },
    /// This option of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { file, at } => write!(f, "{file}:{at}"),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// What the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config`: the configuration file.
    pub config: Option<String>,
    /// `--home`: HOME_DIR.
    pub home: Option<String>,
    /// The text that other options have for the settings of these names.
    pub values: BTreeMap<&'static str, String>,
}

impl Overrides {
    /// The text that the command line has for a setting.
    fn text_of(&self, setting: &Setting) -> Option<String> {
        match setting.name {
            "HOME_DIR" => self.home.clone(),
            name => self.values.get(name).cloned(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No such file.
    #[error(
        "there is no configuration file, looked for {}; write one as in \
         balena-migrate-sample.conf, or name yours with --config",
        looked.join(" and ")
    )]
    Missing {
        /// The paths that were tried.
        looked: Vec<String>,
    },
    /// The file is there but can't be read.
    #[error("{file}: {source}; make it readable for root")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file is not text.
    #[error("{file}:{line}: this line is not UTF-8; save the file as UTF-8")]
    NotUtf8 {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
    },
    /// Something in it, or in the options, is wrong.
    #[error("{}", list(.0))]
    Wrong(Vec<ConfigError>),
}

fn list(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// A thing that is wrong in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// `file:line:column`, an option, or the file when a setting is missing from it.
    pub place: String,
    /// The place in the file, if it is one.
    pub at: Option<Position>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong in the configuration. The texts read `what; what to do`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The line can't be read.
    #[error("{0}")]
    Syntax(shell::Wrong),
    /// No setting has that name.
    #[error("{name} is not a setting; {}", hint(.nearest))]
    Unknown {
        /// The name.
        name: String,
        /// The setting with the most similar name, if any is similar.
        nearest: Option<&'static str>,
    },
    /// A setting of the older tools that makes no sense any more.
    #[error("{name} means nothing to this version; {instead}")]
    Retired {
        /// The name.
        name: String,
        /// What to do.
        instead: &'static str,
    },
    /// A value that the setting can't have.
    #[error("{name} {what}; {remedy}")]
    Value {
        /// The name.
        name: &'static str,
        /// What is wrong with the value.
        what: String,
        /// What to write.
        remedy: String,
    },
}

fn hint(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(name) => format!("did you mean {name}?"),
        None => "balena-migrate-sample.conf has them all".to_string(),
    }
}

/// Finds the configuration file, reads it and merges it with the command line.
///
/// `cwd` is the current folder, absolute. A relative file is looked for in HOME_DIR as far as
/// `--home` gives it, then in `cwd`.
pub fn load(sys: &Sys, cwd: &str, overrides: &Overrides) -> Result<Config, LoadError> {
    let places = places(cwd, overrides);
    for file in &places {
        let bytes = match sys.read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => {
                let file = file.clone();
                return Err(LoadError::Unreadable { file, source });
            }
        };
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            LoadError::NotUtf8 {
                file: file.clone(),
                line: 1 + good.iter().filter(|&&b| b == b'\n').count(),
            }
        })?;
        let mut config = merge(file, &text, cwd, overrides).map_err(LoadError::Wrong)?;
        forget_missing_default(sys, &mut config);
        return Ok(config);
    }
    Err(LoadError::Missing { looked: places })
}

/// Paths to try for the configuration file, absolute, without repetition.
fn places(cwd: &str, overrides: &Overrides) -> Vec<String> {
    let name = overrides.config.as_deref().unwrap_or(DEFAULT_FILE);
    let mut places = Vec::new();
    for folder in overrides.home.as_deref().into_iter().chain(["."]) {
        let place = path::absolute(&path::absolute(cwd, folder), name);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// The list of wifi networks has a default name that nobody promised to use.
fn forget_missing_default(sys: &Sys, config: &mut Config) {
    let list = &mut config.settings.migrate_wifi_cfg;
    if list.from == Origin::Default && list.as_ref().is_some_and(|file| !sys.exists(&file.0)) {
        list.value = None;
    }
}

/// Merges the text of the configuration `file` with the command line.
///
/// `cwd` is the current folder, absolute: where a relative HOME_DIR starts.
pub fn merge(
    file: &str,
    text: &str,
    cwd: &str,
    overrides: &Overrides,
) -> Result<Config, Vec<ConfigError>> {
    let assignments = shell::parse(text).map_err(|error| {
        vec![ConfigError {
            place: format!("{file}:{}", error.at),
            at: Some(error.at),
            problem: Problem::Syntax(error.what),
        }]
    })?;
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    let set = last_of_each(file, assignments, &mut errors, &mut warnings);
    let text_of = |setting: &Setting| text_of(setting, file, &set, overrides);

    let home_dir = Setting::find("HOME_DIR").map(text_of);
    let home = path::absolute(cwd, home_dir.as_ref().map_or(".", |text| &text.value));
    let settings = Settings::read(&home, text_of, |setting, from, refusal| {
        let (place, at) = match from {
            Origin::Default => (file.to_string(), None),
            Origin::File { at, .. } => (from.to_string(), Some(at)),
            Origin::Flag(flag) => (flag.to_string(), None),
        };
        errors.push(ConfigError {
            place,
            at,
            problem: Problem::Value {
                name: setting.name,
                what: refusal.what,
                remedy: refusal.remedy,
            },
        });
    });
    match settings {
        Some(mut settings) if errors.is_empty() => {
            // Its own text was relative to `cwd`, not to itself.
            settings.home_dir.value.0 = home;
            Ok(Config {
                settings,
                file: file.to_string(),
                warnings,
            })
        }
        _ => {
            errors.sort_by_key(|error| (error.at.is_none(), error.at));
            Err(errors)
        }
    }
}

/// The assignment that counts for each setting: the last one, as in a shell.
fn last_of_each(
    file: &str,
    assignments: Vec<Assignment>,
    errors: &mut Vec<ConfigError>,
    warnings: &mut Vec<String>,
) -> HashMap<&'static str, Assignment> {
    let mut set: HashMap<&'static str, Assignment> = HashMap::new();
    for assignment in assignments {
        let at = assignment.at;
        let place = format!("{file}:{at}");
        let Some(setting) = Setting::find(&assignment.name) else {
            if let Some(problem) = unknown(assignment) {
                errors.push(ConfigError {
                    place,
                    at: Some(at),
                    problem,
                });
            }
            continue;
        };
        let name = setting.name;
        if let Some(before) = set.insert(name, assignment) {
            let line = before.at.line;
            warnings.push(format!(
                "{place}: {name} was set in line {line} already; this value counts, remove the other"
            ));
        }
    }
    set
}

/// What to say about a name that is no setting. A blank value for a setting of the older tools asks
/// for nothing, and their sample files had many.
fn unknown(Assignment { name, value, .. }: Assignment) -> Option<Problem> {
    if let Some((_, instead)) = RETIRED.iter().find(|(retired, _)| *retired == name) {
        return (!value.is_empty()).then_some(Problem::Retired { name, instead });
    }
    let nearest = nearest(&name, SETTINGS.iter().map(|setting| setting.name));
    Some(Problem::Unknown { name, nearest })
}

/// The name most like `name`, if one is like it at all.
pub(crate) fn nearest(
    name: &str,
    names: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    // Below this, suggestions are noise.
    const ALIKE: f64 = 0.75;
    let name = name.to_ascii_uppercase();
    names
        .map(|known| (strsim::jaro_winkler(&name, known), known))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// The text of a setting and its origin: option, file, default.
fn text_of(
    setting: &Setting,
    file: &str,
    set: &HashMap<&'static str, Assignment>,
    overrides: &Overrides,
) -> Sourced<String> {
    if let Some(value) = overrides.text_of(setting) {
        let from = Origin::Flag(setting.flag.unwrap_or(setting.name));
        return Sourced { value, from };
    }
    match set.get(setting.name) {
        Some(assignment) => Sourced {
            value: assignment.value.clone(),
            from: Origin::File {
                file: file.to_string(),
                at: assignment.at,
            },
        },
        None => Sourced {
            value: setting.default.to_string(),
            from: Origin::Default,
        },
    }
}
