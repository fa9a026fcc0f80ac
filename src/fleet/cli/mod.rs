//! The command line of `migdb`: its grammar, its old names, and what each verb's end means.

mod add_unit;
mod list;
mod move_units;
mod retry;
mod show;
mod stats;
mod stop;
mod work;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, Parser, Subcommand};

use super::settings::{MIG_CFG, MIG_DB_DIR, MIG_LOG_TO, Setting, Settings, Wrong};
use super::store::address::{self, Address};
use super::store::directory::Directory;
use super::store::moving::{Movable, Role};
use super::store::postgres::Postgres;
use crate::config::path;
use crate::sys::Sys;

/// Migrates a fleet of devices to balenaOS, over ssh, from this machine.
///
/// Units (devices) wait in the folder db, or in PostgreSQL, until a worker
/// migrates them. Any number of workers can run, with PostgreSQL on any number
/// of hosts. The older tools' names work too: migdb-migrate is the same as
/// migdb migrate.
#[derive(Debug, Parser)]
#[command(name = "migdb", version, max_term_width = 80)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    common: Common,
}

/// Options of every verb.
#[derive(Debug, Args)]
struct Common {
    /// The folder with the folder db, or postgres://USER@HOST:PORT/DATABASE
    /// [default: .] (MIG_DB_DIR)
    #[arg(long, value_name = "BASE", global = true)]
    base: Option<String>,

    /// A file of settings in shell syntax; it is read, never run (MIG_CFG)
    #[arg(short, long, value_name = "FILE", global = true)]
    cfg: Option<String>,

    /// A folder for logs [default: db/log; with PostgreSQL migdb-log]
    /// (MIG_LOG_TO)
    #[arg(long, value_name = "FOLDER", global = true)]
    log_to: Option<String>,

    /// Colour on the terminal
    #[arg(long, value_name = "WHEN", global = true, num_args = 0..=1,
          default_value = "auto", default_missing_value = "always",
          ignore_case = true, value_parser = ["auto", "always", "never", "on", "off"],
          hide_possible_values = true)]
    color: String,

    /// How much to tell on standard error [default: info]
    #[arg(long, value_name = "LEVEL", global = true,
          value_parser = ["error", "warn", "info", "debug", "trace"])]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add a device, or many from a file
    AddUnit(Box<add_unit::Options>),
    /// Migrate waiting units, until stopped
    Migrate(Box<work::Options>),
    /// See whether migrated units are online, until stopped
    CheckDone(work::CheckOptions),
    /// Show all units and where they stand
    List(list::Options),
    /// Show one unit, without its password
    Show(list::ShowOptions),
    /// Show the units as they go, on this terminal
    Watch(show::WatchOptions),
    /// Show the units as they go, on a web page of this machine
    Serve(show::ServeOptions),
    /// What became of the units: a table for a spreadsheet, or JSON
    Stats(stats::Options),
    /// Let all workers end what they have in hand, and wait for that
    Stop(stop::Options),
    /// Give units that failed another chance
    Retry(retry::Options),
    /// Move all units into another store
    Move(move_units::Options),
}

/// How a verb ended. The numbers are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// Done.
    Done = 0,
    /// A fault.
    Fault = 1,
    /// Wrong usage or settings.
    Usage = 2,
    /// What was asked for can't be; nothing was changed.
    Refused = 3,
}

/// What a verb ends with when it can't do its work.
struct Failure(Exit, anyhow::Error);

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure(Exit::Fault, error)
    }
}

impl From<Vec<Wrong>> for Failure {
    fn from(wrong: Vec<Wrong>) -> Self {
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        Failure(Exit::Usage, anyhow!("{}", lines.join("\n")))
    }
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse_from(with_verb(std::env::args_os().collect()));
    let common = &arguments.common;
    start_log(common);
    let sys = Sys::new("/");
    let ended = match &arguments.verb {
        Verb::AddUnit(options) => add_unit::add_unit(&sys, common, options),
        Verb::Migrate(options) => work::migrate(&sys, common, options),
        Verb::CheckDone(options) => work::check_done(&sys, common, options),
        Verb::List(options) => list::list(&sys, common, options),
        Verb::Show(options) => list::show(&sys, common, options),
        Verb::Watch(options) => show::watch(&sys, common, options),
        Verb::Serve(options) => show::serve(&sys, common, options),
        Verb::Stats(options) => stats::stats(&sys, common, options),
        Verb::Stop(options) => stop::stop(&sys, common, options),
        Verb::Retry(options) => retry::retry(&sys, common, options),
        Verb::Move(options) => move_units::move_units(&sys, common, options),
    };
    let exit = ended.unwrap_or_else(|Failure(exit, error)| {
        eprintln!("migdb: {error:#}");
        exit
    });
    ExitCode::from(exit as u8)
}

/// `migdb-stats …` is `migdb stats …`.
fn with_verb(mut words: Vec<OsString>) -> Vec<OsString> {
    let program = words
        .first()
        .map(|word| word.to_string_lossy().into_owned());
    let name = program.as_deref().and_then(|path| path.rsplit('/').next());
    if let Some(verb) = name.and_then(|name| name.strip_prefix("migdb-")) {
        words.insert(1, verb.into());
    }
    words
}

fn start_log(common: &Common) {
    let style = match common.color.to_ascii_lowercase().as_str() {
        "always" | "on" => env_logger::WriteStyle::Always,
        "never" | "off" => env_logger::WriteStyle::Never,
        _ => env_logger::WriteStyle::Auto,
    };
    let level = common.log_level.as_deref().unwrap_or("info");
    let level = level.parse().unwrap_or(log::LevelFilter::Info);
    env_logger::Builder::new()
        // Others write what they send: tokens, and rows with passwords.
        .filter_level(log::LevelFilter::Off)
        .filter_module(env!("CARGO_CRATE_NAME"), level)
        .write_style(style)
        .format_timestamp_secs()
        .format_target(false)
        .init();
}

impl Common {
    /// The settings, with the options that only some verbs have.
    fn settings(
        &self,
        sys: &Sys,
        others: Vec<(Setting, Option<String>)>,
    ) -> Result<Settings, Failure> {
        let mut flags = others;
        flags.push((MIG_DB_DIR, self.base.clone()));
        flags.push((MIG_CFG, self.cfg.clone()));
        flags.push((MIG_LOG_TO, self.log_to.clone()));
        for (setting, value) in &flags {
            if value.as_deref().is_some_and(address::has_password) {
                return Err(Failure(
                    Exit::Usage,
                    anyhow!(
                        "others on this machine see the password in {}; give it by PGPASSWORD, ~/.pgpass or \
                         the file of --cfg",
                        setting.flag
                    ),
                ));
            }
        }
        Ok(Settings::gather(sys, &flags)?)
    }
}

/// Where a store is.
enum Base {
    /// The folder that `db` is in, absolute.
    Folder(String),
    Database(Box<Address>),
}

impl Base {
    fn read(sys: &Sys, said: &str) -> Result<Base, Failure> {
        if address::is_url(said) {
            let address = Address::parse(sys, said);
            let address = address.map_err(|error| Failure(Exit::Usage, error.into()))?;
            return Ok(Base::Database(Box::new(address)));
        }
        let cwd = sys.current_dir().context("finding the current folder")?;
        Ok(Base::Folder(path::absolute(&cwd, said)))
    }

    /// Opens the store; with `create` it is made when there is none.
    fn open(&self, sys: &Sys, create: bool) -> Result<Box<dyn Movable>, Failure> {
        let store: Box<dyn Movable> = match self {
            Base::Database(address) => Box::new(Postgres::open(address, create)?),
            Base::Folder(base) => {
                check_folder(sys, base, create)?;
                Box::new(Directory::open(base)?)
            }
        };
        Ok(store)
    }
}

fn check_folder(sys: &Sys, base: &str, create: bool) -> Result<(), Failure> {
    let wrong = if !sys.meta(base).is_ok_and(|meta| meta.is_dir) {
        "is no folder; name the one for db with --base or MIG_DB_DIR"
    } else if !create && !sys.exists(&format!("{base}/db")) {
        "has no folder db; name another one with --base or MIG_DB_DIR, or add a unit first"
    } else {
        return Ok(());
    };
    Err(Failure(Exit::Usage, anyhow!("{base} {wrong}")))
}

/// The base that the settings name.
fn base(sys: &Sys, settings: &Settings) -> Result<Base, Failure> {
    Base::read(sys, &settings.shared(&MIG_DB_DIR).unwrap_or_default())
}

/// The folder for logs, absolute.
fn logs(sys: &Sys, settings: &Settings) -> Result<String, Failure> {
    let cwd = sys.current_dir().context("finding the current folder")?;
    Ok(match (settings.shared(&MIG_LOG_TO), base(sys, settings)?) {
        (Some(folder), _) => path::absolute(&cwd, &folder),
        (None, Base::Folder(base)) => format!("{base}/db/log"),
        (None, Base::Database(_)) => path::absolute(&cwd, "migdb-log"),
    })
}

/// Opens the store that the settings name, and warns of what is half done with it.
fn open(sys: &Sys, settings: &Settings, create: bool) -> Result<Box<dyn Movable>, Failure> {
    let store = base(sys, settings)?.open(sys, create)?;
    for (role, which) in [(Role::From, "to"), (Role::To, "from")] {
        if let Some(other) = store.moving(role)? {
            log::warn!(
                "units are being moved {which} {}; if that was cut off, say `migdb move` again",
                other.shown
            );
        }
    }
    Ok(store)
}

/// Prints the result of a verb. A reader that went away is no fault of ours.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(anyhow::Error::new(error)
            .context("writing to standard output")
            .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound_and_its_help_fits_80_columns() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        command.build();
        for part in std::iter::once(&mut command.clone()).chain(command.get_subcommands_mut()) {
            for line in part.render_long_help().to_string().lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }

    #[test]
    fn the_old_names_are_verbs() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(
            with_verb(words(&["/usr/bin/migdb-check-done", "--base", "x"])),
            words(&["/usr/bin/migdb-check-done", "check-done", "--base", "x"])
        );
        assert_eq!(
            with_verb(words(&["migdb", "list"])),
            words(&["migdb", "list"])
        );
    }
}
