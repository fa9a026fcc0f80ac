//! `extract`, as a verb and as a program of its own: the grammar of the older `extract.sh`, and what a
//! person sees of it.

mod summary;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context, anyhow};
use clap::{CommandFactory, Parser};

use super::screen::{self, Progress};
use super::{Exit, Failure};
use crate::extract;
use crate::extract::list::list;
use crate::extract::open::Notice;
use crate::extract::pack::Packing;
use crate::extract::take::take;
use crate::extract::wanted::{All, Item, Target, Wanted};
use crate::shown::shown;
use crate::sys::files::Gate;
use crate::sys::{Sys, interrupt};

/// Takes the OS image and the boot files out of a download of balenaOS.
///
/// It runs anywhere, as any user, and mounts nothing. IMAGE is a flasher image or an OS image, in a zip,
/// gz, xz, zst or bz2 file or as it is. With --out-dir, or --config alone, it takes out all there is.
#[derive(Debug, Parser)]
#[command(name = "extract", version, max_term_width = 80)]
pub struct Arguments {
    /// The image file
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Write the OS image to this file; of an image that is no flasher, that
    /// itself. - is standard output: what goes there is proven by exit code 0
    /// alone
    #[arg(long, value_name = "FILE")]
    img: Option<String>,

    /// What the OS image is written as: gz, zst or raw [default: by the end
    /// of its name, else gz]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true, value_parser = ["gz", "zst", "raw"])]
    format: Option<String>,

    /// Write the grub.cfg that the installer gives the new system
    #[arg(long, value_name = "FILE")]
    grub: Option<String>,

    /// Write GRUB's boot.img
    #[arg(long, value_name = "FILE")]
    grub_boot: Option<String>,

    /// Write GRUB's core.img
    #[arg(long, value_name = "FILE")]
    grub_core: Option<String>,

    /// Write the config.json that came with the download
    #[arg(long, value_name = "FILE")]
    balena_cfg: Option<String>,

    /// Write all there is to this folder; a config.json that is there stays
    #[arg(long, value_name = "FOLDER")]
    out_dir: Option<String>,

    /// Make or update this balena-migrate.conf: its keys are set in place,
    /// comments stay. Alone it takes all there is, to its HOME_DIR where that is
    /// a folder here, else beside it
    #[arg(short, long, value_name = "FILE")]
    config: Option<String>,

    /// HOME_DIR for it: where its folder will be on the device. Here the files
    /// go beside it
    #[arg(long, value_name = "FOLDER", requires = "config")]
    home: Option<String>,

    /// Say what is in the image, and write nothing
    #[arg(short, long, conflicts_with_all = ["img", "grub", "grub_boot", "grub_core", "balena_cfg",
          "out_dir", "config", "home", "force"])]
    list: bool,

    /// The list as JSON
    #[arg(long, requires = "list")]
    json: bool,

    /// Replace files that are there
    #[arg(short, long)]
    force: bool,
}

/// The arguments of `extract`, when that is the verb.
pub fn called(arguments: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let arguments: Vec<OsString> = arguments.skip(1).collect();
    (arguments.first()? == "extract").then_some(arguments)
}

/// Parses the command line of `extract` and does what it says.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let arguments = Arguments::parse_from(arguments);
    super::start_log(Some("warn"));
    let exit = run(&arguments).unwrap_or_else(|Failure(exit, error)| {
        match exit {
            // It has the usage behind it, and nothing of an image.
            Exit::Usage => eprintln!("extract: {error:#}"),
            _ => eprintln!("extract: {}", shown(format!("{error:#}"))),
        }
        exit
    });
    ExitCode::from(exit as u8)
}

fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let sys = Sys::new("/");
    // What is half written goes away again.
    interrupt::catch().context("catching signals")?;
    let screen = Rc::new(Screen::new());
    let notice: Rc<dyn Notice> = screen.clone();
    let image = absolute(&arguments.image)?;
    if arguments.list {
        let found = extract::find(&sys, &image, &notice)?;
        let listing = list(&arguments.image, &found, &*notice).context(image)?;
        screen.clear();
        match arguments.json {
            true => {
                let json = serde_json::to_string_pretty(&listing).context("writing the list")?;
                screen::print(&format!("{json}\n"))?;
            }
            false => screen::print(&listing.text())?,
        }
        return Ok(Exit::Done);
    }
    let wanted = wanted(arguments).map_err(|error| Failure(Exit::Usage, error))?;
    let taken = take(&sys, &image, &wanted, &notice)?;
    screen.clear();
    let text = summary::text(&arguments.image, &wanted, &taken);
    match to_stdout(&wanted) {
        true => eprint!("{text}"),
        false => screen::print(&text)?,
    }
    Ok(Exit::Done)
}

/// What is asked for, with absolute paths.
fn wanted(arguments: &Arguments) -> anyhow::Result<Wanted> {
    let named = [
        (Item::GrubCfg, &arguments.grub),
        (Item::BootImg, &arguments.grub_boot),
        (Item::CoreImg, &arguments.grub_core),
        (Item::BalenaCfg, &arguments.balena_cfg),
    ];
    let mut items = Vec::new();
    for (item, path) in named {
        if let Some(path) = path {
            items.push((item, target(path)?));
        }
    }
    let img = arguments.img.as_deref().map(target).transpose()?;
    let config = arguments.config.as_deref().map(absolute).transpose()?;
    let all = match &arguments.out_dir {
        Some(folder) => Some(All::To(absolute(folder)?.trim_end_matches('/').to_owned())),
        None if img.is_some() || !items.is_empty() => None,
        None => config.as_ref().map(|_| All::Home),
    };
    if img.is_none() && items.is_empty() && all.is_none() {
        let usage = Arguments::command().render_usage();
        return Err(anyhow!(
            "say what to take out: --img FILE for the OS image, --out-dir FOLDER for all there is, \
             or --list to see what that would be\n\n{usage}"
        ));
    }
    let wanted = Wanted {
        packing: packing(arguments)?,
        img,
        items,
        all,
        config,
        home: arguments.home.clone(),
        force: arguments.force,
    };
    let dashes = targets(&wanted).filter(|to| **to == Target::Stdout).count();
    if dashes > 1 {
        return Err(anyhow!(
            "only one file can go to standard output; give the others names"
        ));
    }
    if dashes > 0
        && io::IsTerminal::is_terminal(&io::stdout())
        && wanted.img == Some(Target::Stdout)
    {
        return Err(anyhow!(
            "the OS image does not go to a terminal; send standard output to a file or a program"
        ));
    }
    Ok(wanted)
}

/// As it was said, or else by the end of the name.
fn packing(arguments: &Arguments) -> anyhow::Result<Packing> {
    /// Ends of names that promise what is not written.
    const OTHERS: [&str; 16] = [
        "7z", "br", "bz2", "gzip", "lz", "lz4", "lzma", "lzo", "rar", "tar", "tbz2", "tgz", "txz",
        "xz", "zip", "zstd",
    ];
    if let Some(format) = &arguments.format {
        return Ok(Packing::find(format).unwrap_or(Packing::Gz));
    }
    let name = arguments.img.as_deref().unwrap_or_default();
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    let end = end.to_ascii_lowercase();
    if OTHERS.contains(&end.as_str()) {
        return Err(anyhow!(
            "{name} looks like {end}, but the OS image is written as gz, zst or raw; give it a name that \
             ends so, or say --format"
        ));
    }
    Ok(Packing::find(&end).unwrap_or(Packing::Gz))
}

fn targets(wanted: &Wanted) -> impl Iterator<Item = &Target> {
    let items = wanted.items.iter().map(|(_, target)| target);
    wanted.img.iter().chain(items)
}

fn to_stdout(wanted: &Wanted) -> bool {
    targets(wanted).any(|target| *target == Target::Stdout)
}

fn target(path: &str) -> anyhow::Result<Target> {
    match path {
        "-" => Ok(Target::Stdout),
        path => absolute(path).map(Target::File),
    }
}

/// The kernel resolves what is left in it: `..` behind a link is not what it looks like.
fn absolute(path: &str) -> anyhow::Result<String> {
    let path = path.strip_prefix("./").unwrap_or(path);
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let folder = std::env::current_dir().context("looking for the current folder")?;
    let folder = folder
        .to_str()
        .context("the current folder's name is not UTF-8")?;
    Ok(format!("{}/{path}", folder.trim_end_matches('/')))
}

/// Progress and remarks on standard error; stops at a signal.
struct Screen {
    gate: Gate,
    progress: RefCell<Option<(&'static str, Progress)>>,
}

impl Screen {
    fn new() -> Screen {
        Screen {
            gate: interrupt::gate(),
            progress: RefCell::new(None),
        }
    }

    /// Takes the line with the progress away.
    fn clear(&self) {
        self.progress.replace(None);
    }
}

impl Notice for Screen {
    fn tell(&self, line: String) {
        self.clear();
        eprintln!("{line}");
    }

    fn at(&self, what: &'static str, bytes: u64, total: Option<u64>) -> io::Result<()> {
        (self.gate)(what)?;
        match &mut *self.progress.borrow_mut() {
            Some((known, progress)) if *known == what => progress.at(bytes, total),
            other => *other = Some((what, Progress::new(what))),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extract_is_a_verb_where_it_comes_first() {
        let called = |words: &[&str]| called(words.iter().map(OsString::from)).is_some();
        assert!(called(&["./balena-migrate", "extract", "--list", "x"]));
        assert!(!called(&["./balena-migrate", "plan"]));
        assert!(!called(&["./balena-migrate"]));
        assert!(!called(&["./balena-migrate", "--config", "extract"]));
    }

    #[test]
    fn the_grammar_is_sound_and_its_help_fits_80_columns() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        for line in command.render_long_help().to_string().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
