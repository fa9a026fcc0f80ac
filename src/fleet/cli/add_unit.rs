//! `migdb add-unit`.

use anyhow::{Context, anyhow};

use super::{Common, Exit, Failure, open, print};
use crate::config::path;
use crate::fleet::add::{self, Defaults};
use crate::fleet::moment::Moment;
use crate::fleet::settings::{
    self, MIG_APP, MIG_BALENA_VER, MIG_CFG_ARCHIVE, MIG_CFG_DIR, MIG_SSH_HOST, MIG_SSH_OPTS,
    MIG_SSH_PASSWD, MIG_SSH_PORT, MIG_SSH_USER, SETTINGS, Setting, Settings,
};
use crate::fleet::store::{AddError, Store};
use crate::fleet::unit::Unit;
use crate::sys::Sys;

/// Options of the devices that a unit, or a worker for units without, can have.
#[derive(Debug, clap::Args)]
pub struct DeviceOptions {
    /// Its name or address for ssh (MIG_SSH_HOST)
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,

    /// The user there (MIG_SSH_USER)
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,

    /// Their password for ssh and sudo; `-` reads it from standard input,
    /// since others on this machine see what stands here (MIG_SSH_PASSWD)
    #[arg(long, value_name = "PASSWORD")]
    pub passwd: Option<String>,

    /// The port there [default: 22] (MIG_SSH_PORT)
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<String>,

    /// Options for ssh (MIG_SSH_OPTS, MIG_DEF_SSH_OPTS)
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    pub ssh_opts: Option<String>,

    /// The fleet to register it in (MIG_APP)
    #[arg(long, value_name = "FLEET")]
    pub app: Option<String>,

    /// The version of the new system (MIG_BALENA_VER)
    #[arg(long, value_name = "VERSION")]
    pub balena_ver: Option<String>,

    /// The folder migratecfg (MIG_CFG_DIR)
    #[arg(long, alias = "mig-cfg-dir", value_name = "FOLDER")]
    pub cfg_dir: Option<String>,

    /// The content of that folder as a compressed archive (MIG_CFG_ARCHIVE)
    #[arg(long, value_name = "FILE")]
    pub cfg_tgz: Option<String>,
}

impl DeviceOptions {
    /// The settings that they set; `ssh_opts` is the one of two that the verb means.
    pub fn settings(&self, ssh_opts: Setting) -> Result<Vec<(Setting, Option<String>)>, Failure> {
        Ok(vec![
            (MIG_SSH_HOST, self.host.clone()),
            (MIG_SSH_USER, self.user.clone()),
            (MIG_SSH_PASSWD, secret(self.passwd.as_ref())?),
            (MIG_SSH_PORT, self.port.clone()),
            (ssh_opts, self.ssh_opts.clone()),
            (MIG_APP, self.app.clone()),
            (MIG_BALENA_VER, self.balena_ver.clone()),
            (MIG_CFG_DIR, self.cfg_dir.clone()),
            (MIG_CFG_ARCHIVE, self.cfg_tgz.clone()),
        ])
    }
}

/// What an option says that is a secret; `-` means a line of standard input.
pub fn secret(said: Option<&String>) -> Result<Option<String>, Failure> {
    if said.is_none_or(|said| said != "-") {
        return Ok(said.cloned());
    }
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .context("reading a secret from standard input")?;
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Options of `add-unit`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The device's name in the fleet, once among all units
    #[arg(value_name = "UNIT_ID", required_unless_present_any = ["csv", "list"],
          conflicts_with_all = ["csv", "list"])]
    id: Option<String>,

    /// Units from a CSV file whose first line names columns: id, host, user, …
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    csv: Option<String>,

    /// Units from a list, each line an id, and a host if it is not the id
    #[arg(long, value_name = "FILE")]
    list: Option<String>,

    /// Leave out units that are there already
    #[arg(long)]
    skip_existing: bool,

    #[command(flatten)]
    device: DeviceOptions,
}

/// Adds units: all, or none.
pub fn add_unit(sys: &Sys, common: &Common, options: &Options) -> Result<Exit, Failure> {
    let settings = common.settings(sys, options.device.settings(MIG_SSH_OPTS)?)?;
    let mut units = units(sys, &settings, options)?;
    let store = open(sys, &settings, true)?;
    if options.skip_existing {
        leave_out_existing(store.as_ref(), &mut units)?;
    }
    match store.add(&units) {
        Ok(()) => {}
        Err(AddError::Fault(error)) => return Err(error.into()),
        Err(error) => return Err(Failure(Exit::Refused, error.into())),
    }
    match units.as_slice() {
        [unit] => print(&format!("unit {} was added\n", unit.id()))?,
        units => print(&format!("{} units were added\n", units.len()))?,
    }
    Ok(Exit::Done)
}

fn units(sys: &Sys, settings: &Settings, options: &Options) -> Result<Vec<Unit>, Failure> {
    let defaults = Defaults {
        values: values(sys, settings)?,
        now: Moment::now(),
    };
    if let Some(file) = &options.csv {
        return Ok(add::from_csv(file, &read(sys, file)?, &defaults)?);
    }
    if let Some(file) = &options.list {
        return Ok(add::from_list(file, &read(sys, file)?, &defaults)?);
    }
    let id = options.id.as_deref().unwrap_or_default();
    let unit = defaults
        .unit(id)
        .map_err(|error| Failure(Exit::Usage, error.into()))?;
    let wrong = settings::check_unit(&unit);
    match wrong.is_empty() {
        true => Ok(vec![unit]),
        false => Err(wrong.into()),
    }
}

/// What is written into the units: all that was set, as the older tool did. Paths are made absolute,
/// since workers run elsewhere.
fn values(sys: &Sys, settings: &Settings) -> Result<Vec<(&'static str, String)>, Failure> {
    let cwd = sys.current_dir().context("finding the current folder")?;
    let mut values = Vec::new();
    for setting in SETTINGS.iter().filter(|setting| setting.of_unit) {
        let Some(value) = settings.said(setting) else {
            continue;
        };
        let is_path = [MIG_CFG_DIR.name, MIG_CFG_ARCHIVE.name].contains(&setting.name);
        let value = match is_path {
            true => path::absolute(&cwd, &value),
            false => value,
        };
        values.push((setting.name, value));
    }
    Ok(values)
}

fn read(sys: &Sys, file: &str) -> Result<String, Failure> {
    let cwd = sys.current_dir().context("finding the current folder")?;
    let text = match file {
        "-" => std::io::read_to_string(std::io::stdin()),
        file => sys.read_text(&path::absolute(&cwd, file)),
    };
    text.map_err(|error| Failure(Exit::Usage, anyhow!("{file} can't be read: {error}")))
}

fn leave_out_existing(store: &dyn Store, units: &mut Vec<Unit>) -> Result<(), Failure> {
    let there = store.all()?;
    units.retain(|unit| {
        let known = there.iter().any(|entry| entry.unit.id() == unit.id());
        if known {
            log::info!("unit {} is there already", unit.id());
        }
        !known
    });
    Ok(())
}
