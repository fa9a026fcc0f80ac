//! The backup: what of the old system goes into the volumes of the new one, as `backup.tgz`.
//!
//! It comes from the first of these that is set: BACKUP_SCRIPT makes it, BACKUP_DEFINITION or
//! BACKUP_DIRECTORIES say what we put into it, or BACKUP_FILE is there already. [`prepare`] is called
//! when stage 1 gathers its material, and says all that is wrong before anything is done;
//! [`archive`] is called by the engine and makes the file; [`inspect`] reads one that others made.
//!
//! balenaOS unpacks the file in its supervisor, whose `tar` is that of BusyBox: that, besides GNU
//! tar, must be able to read what we make. `migratecfg/README.md` has the rules for users.

pub mod archive;
pub mod definition;
pub mod gzip;
pub mod header;
pub mod inspect;
pub mod survey;
pub mod walk;
mod yaml;

use regex::bytes::Regex;

use crate::config::Config;
use crate::finding::Finding;
use crate::shown::shown;
use crate::sys::Sys;

/// A volume of the application on the new system, and what goes into it.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// What goes into it.
    pub items: Vec<Item>,
}

/// A file or a folder that goes into a volume.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its absolute path.
    pub source: String,
    /// Where it goes, without `/` at either end and without `.` and `..`; empty is the volume itself.
    pub target: String,
    /// The target is a folder, into which a single file goes under its own name.
    pub into: bool,
    /// Only what is in the folder `source` and has a name that this matches.
    pub filter: Option<Regex>,
    /// Where the user asked for it, such as `backup.yml:12`.
    pub place: String,
}

/// Where the backup comes from, by the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A script of the user makes it.
    Script(&'a str),
    /// We make it by this definition.
    Definition(&'a str),
    /// We make it from these folders.
    Directories(&'a [String]),
    /// The BACKUP_FILE is used as it is; there may be none.
    Existing,
}

/// Where the backup comes from: the first setting that is set wins.
pub fn origin(config: &Config) -> Origin<'_> {
    if let Some(script) = &config.backup_script.value {
        return Origin::Script(&script.0);
    }
    if let Some(definition) = &config.backup_definition.value {
        return Origin::Definition(&definition.0);
    }
    match &config.backup_directories.value {
        Some(directories) => Origin::Directories(&directories.0),
        None => Origin::Existing,
    }
}

/// Where a backup from an earlier day waits while a new one is made.
pub fn aside(path: &str) -> String {
    format!("{path}.before-balena-migrate")
}

/// What is known of the backup before anything is done.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// What we put into it; empty when we don't make it.
    pub volumes: Vec<Volume>,
    /// What is wrong or worth knowing.
    pub findings: Vec<Finding>,
    /// What we put into it, measured.
    pub size: survey::Size,
}

/// Reads the definition, looks at every source, and at a backup that is there already.
pub fn prepare(sys: &Sys, config: &Config) -> Prepared {
    let mut prepared = Prepared {
        findings: unused(config),
        ..Prepared::default()
    };
    let (volumes, findings) = match origin(config) {
        Origin::Script(_) => return prepared,
        Origin::Existing => {
            prepared
                .findings
                .extend(inspect::existing(sys, &config.backup_file.0));
            return prepared;
        }
        Origin::Definition(path) => definition::read(sys, path, &config.home_dir.0),
        Origin::Directories(folders) => {
            let place = config.backup_directories.from.to_string();
            definition::of_directories(folders, &place)
        }
    };
    prepared.findings.extend(findings);
    let survey = survey::survey(
        sys,
        &volumes,
        &survey::own_files(sys, &config.backup_file.0),
    );
    prepared.findings.extend(survey.findings);
    prepared.size = survey.size;
    prepared.volumes = volumes;
    prepared
}

/// Settings that another one overrides.
fn unused(config: &Config) -> Vec<Finding> {
    let set = [
        ("BACKUP_SCRIPT", config.backup_script.value.is_some()),
        (
            "BACKUP_DEFINITION",
            config.backup_definition.value.is_some(),
        ),
        (
            "BACKUP_DIRECTORIES",
            config.backup_directories.value.is_some(),
        ),
    ];
    let mut set = set
        .into_iter()
        .filter(|(_, set)| *set)
        .map(|(name, _)| name);
    let Some(wins) = set.next() else {
        return Vec::new();
    };
    let unused = set.map(|name| {
        Finding::warning(
            "backup-unused",
            format!("{name} is not used, since {wins} is set too"),
            format!("remove {name} or {wins}"),
        )
    });
    unused.collect()
}

/// What is wrong with `name` as the name of a volume, as the rest of a sentence.
pub fn refuse_volume_name(name: &[u8]) -> Option<&'static str> {
    if name.is_empty() {
        return Some("is empty");
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    let first = name.first().is_some_and(plain);
    let rest = name.iter().all(|byte| plain(byte) || b"_.-".contains(byte));
    (!first || !rest).then_some(
        "is no name of a volume: those are of letters, digits, `_`, `.` and `-`, and begin with a \
         letter or a digit",
    )
}
