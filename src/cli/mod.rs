//! The command line: its grammar, and what each verb's end means to the shell.

mod checksums;
mod extract;
mod facts;
mod lock;
mod one_shot;
pub mod options;
mod paint;
mod plan;
mod result;
mod run;
mod screen;
mod status;
mod undo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::options::Options;
use crate::sys::Sys;

/// Moves this machine to balenaOS, over the disk that it boots from.
///
/// Run it as root in a copy of the migratecfg folder. It checks everything, shows what it found
/// and what it will do, and asks once. Nothing is overwritten before the reboot, and whatever was
/// done until then can be undone.
#[derive(Debug, Parser)]
#[command(name = "balena-migrate", version, max_term_width = 80)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check, plan, ask, prepare and arm [default]
    Run {
        /// Print what came of it as one line of JSON, and nothing else; asks
        /// nothing
        #[arg(long)]
        json: bool,
    },
    /// Check and show the plan, change nothing
    Plan {
        /// Print findings and plan as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take back whatever an earlier run did
    Undo,
    /// Tell what is armed, or how the last run ended
    Status {
        /// Print it as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what is known of this machine as JSON, without secrets
    Facts,
    /// Write checksums.sha256 for all files of HOME_DIR; `run` and `plan`
    /// verify it
    Checksums,
    /// Take OS image and boot files out of a download of balenaOS, on any
    /// machine; `extract --help` tells more
    Extract,
    /// Reboot after a time, unless the run was undone
    #[command(hide = true)]
    RebootWhenDue {
        /// The run that asked for it
        #[arg(long)]
        run_id: String,
        /// Seconds to wait
        #[arg(long)]
        after: u64,
    },
}

/// How a verb ended. The numbers are a promise to the fleet tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A fault; everything was undone.
    Fault = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// The checks found an error; nothing was touched.
    Refused = 3,
    /// The undo is incomplete.
    UndoIncomplete = 4,
}

/// What a verb ends with when it can't do its work: how, and the message.
struct Failure(Exit, anyhow::Error);

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure(Exit::Fault, error)
    }
}

/// The whole of the program `extract`.
pub fn extract_main() -> ExitCode {
    extract::main(std::env::args_os().collect())
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    if let Some(arguments) = extract::called(std::env::args_os()) {
        return extract::main(arguments);
    }
    if let Some(said) = options::retired(std::env::args().skip(1)) {
        eprintln!("balena-migrate: {said}");
        return ExitCode::from(Exit::Usage as u8);
    }
    let arguments = Arguments::parse();
    start_log(arguments.options.log_level.as_deref());
    let sys = Sys::new("/");
    let options = &arguments.options;
    let ended = match arguments.verb.unwrap_or(Verb::Run { json: false }) {
        Verb::Run { json: false } => run::run(&sys, options),
        Verb::Run { json: true } => result::run(&sys, options),
        Verb::Plan { json } => plan::plan(&sys, options, json),
        Verb::Undo => undo::undo(&sys),
        Verb::Status { json } => status::status(&sys, json),
        Verb::Facts => facts::facts(&sys),
        Verb::Checksums => checksums::checksums(&sys, options),
        Verb::Extract => Err(Failure(
            Exit::Usage,
            anyhow::anyhow!("`extract` has options of its own: write it before all of them"),
        )),
        Verb::RebootWhenDue { run_id, after } => run::reboot_when_due(&sys, &run_id, after),
    };
    let exit = ended.unwrap_or_else(|Failure(exit, error)| {
        eprintln!("balena-migrate: {error:#}");
        exit
    });
    ExitCode::from(exit as u8)
}

/// Starts the log on standard error. LOG_DEBUG raises the level later, hence the two limits.
fn start_log(level: Option<&str>) {
    env_logger::Builder::new()
        .parse_filters(level.unwrap_or("debug"))
        // It warns of every image of balenaOS, which is as it has to be.
        .filter_module("fatfs", log::LevelFilter::Error)
        .format_timestamp_secs()
        .format_target(false)
        .init();
    if level.is_none() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_help_fits_80_columns() {
        let mut command = Arguments::command();
        command.build();
        for part in std::iter::once(&mut command.clone()).chain(command.get_subcommands_mut()) {
            if part.is_hide_set() {
                continue;
            }
            for line in part.render_long_help().to_string().lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }
}
