//! `migdb stats`.

use anyhow::Context;

use super::{Common, Exit, Failure, open, print};
use crate::config::path;
use crate::fleet::stats;
use crate::sys::Sys;

/// Options of `stats`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Write it to a file; `stdout` and `stderr` mean those
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Prints what became of the units.
pub fn stats(sys: &Sys, common: &Common, options: &Options) -> Result<Exit, Failure> {
    let settings = common.settings(sys, Vec::new())?;
    let stats = stats::stats(&open(sys, &settings, false)?.all()?);
    let text = match options.json {
        true => format!("{:#}\n", stats.json()),
        false => stats.csv(),
    };
    match options.output.as_deref() {
        None | Some("stdout") => print(&text)?,
        Some("stderr") => eprint!("{text}"),
        Some(file) => {
            let cwd = sys.current_dir().context("finding the current folder")?;
            sys.write_whole(&path::absolute(&cwd, file), text.as_bytes(), 0o644, None)
                .with_context(|| format!("writing {file}"))?;
        }
    }
    Ok(Exit::Done)
}
