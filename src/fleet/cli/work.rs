//! `migdb migrate` and `migdb check-done`.

use anyhow::{Context, anyhow};

use super::add_unit::{DeviceOptions, secret};
use super::{Common, Exit, Failure, logs, open, print};
use crate::fleet::backend::none::NoBackend;
use crate::fleet::backend::{Backend, BackendError, token};
use crate::fleet::settings::{
    MIG_API_ENDPOINT, MIG_BACKEND, MIG_BALENA_TOKEN, MIG_BALENA_TOKEN_FILE, MIG_CONFIG_JSON,
    MIG_CONN_ATTEMPTS, MIG_DEF_SSH_OPTS, MIG_DURATION, MIG_EXEC_TIMEOUT, MIG_FLEET_CONFIG,
    MIG_HOST_KEYS, MIG_LIMIT_RATE, MIG_MAX_STATUS_AGE, MIG_MIN_AGE, MIG_ONLINE, MIG_RECONN_TIME,
    MIG_TX_TIMEOUT, Setting, Settings,
};
use crate::fleet::worker::{Canary, Ended, Planned, Shared, Work};
use crate::sys::{Sys, interrupt};

/// Options of `migrate`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Units at a time
    #[arg(short, long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,

    /// Only bring the folder there and let the devices check themselves; tell
    /// which are ready, and leave all units where they are
    #[arg(long)]
    plan_only: bool,

    /// Also do the work of check-done
    #[arg(long, conflicts_with = "plan_only")]
    check_done: bool,

    /// End when no unit is left to do
    #[arg(long)]
    until_empty: bool,

    /// Begin so many units, and the others once these came to an end
    #[arg(long, value_name = "N", conflicts_with = "plan_only")]
    first: Option<usize>,

    /// With --first: end when more of the units that were begun fail
    #[arg(long, value_name = "PERCENT", default_value_t = 0, requires = "first",
          value_parser = clap::value_parser!(u32).range(0..=100))]
    max_fail: u32,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    backend: BackendOptions,

    /// What to do about new host keys: accept-new, yes (only known ones) or no
    /// (any) [default: accept-new] (MIG_HOST_KEYS)
    #[arg(long, value_name = "POLICY")]
    host_keys: Option<String>,

    /// Send at most so many kB a second, all together (MIG_LIMIT_RATE)
    #[arg(long, value_name = "KB")]
    limit_rate: Option<String>,

    /// Seconds that a unit waits after it was added (MIG_MIN_AGE)
    #[arg(long, value_name = "SECONDS")]
    min_age: Option<String>,

    /// Seconds to the first look for a migrated unit [default: 180]
    /// (MIG_DURATION)
    #[arg(long, alias = "mig-dur", value_name = "SECONDS")]
    dur: Option<String>,

    /// How often a connection is tried [default: 3] (MIG_CONN_ATTEMPTS)
    #[arg(long, value_name = "N")]
    conn_attempts: Option<String>,

    /// Seconds to the second try, then twice as long each time, a day at most
    /// [default: 600] (MIG_RECONN_TIME)
    #[arg(long, value_name = "SECONDS")]
    reconn_time: Option<String>,

    /// Seconds that the transfer may take [default: 1200] (MIG_TX_TIMEOUT)
    #[arg(long, value_name = "SECONDS")]
    tx_timeout: Option<String>,

    /// Seconds that balena-migrate may take there [default: 600]
    /// (MIG_EXEC_TIMEOUT)
    #[arg(long, value_name = "SECONDS")]
    exec_timeout: Option<String>,
}

/// Options of what knows the devices.
#[derive(Debug, clap::Args)]
struct BackendOptions {
    /// What knows the devices: balena or none [default: balena] (MIG_BACKEND)
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,

    /// The token or key for the API; `-` reads it from standard input, since
    /// others on this machine see what stands here [default: what balena-cli
    /// has] (MIG_BALENA_TOKEN)
    #[arg(long, value_name = "TOKEN")]
    balena_token: Option<String>,

    /// A file with it (MIG_BALENA_TOKEN_FILE)
    #[arg(long, value_name = "FILE")]
    balena_token_file: Option<String>,

    /// The address of the API [default: that of --fleet-config, or of
    /// balenaCloud] (MIG_API_ENDPOINT)
    #[arg(long, value_name = "URL")]
    api_endpoint: Option<String>,

    /// A config.json of the fleet, for an API that makes none; its apiEndpoint
    /// and balenaRootCA count too (MIG_FLEET_CONFIG)
    #[arg(long, value_name = "FILE")]
    fleet_config: Option<String>,

    /// Without a backend: the config.json for units that have none of their own
    /// (MIG_CONFIG_JSON)
    #[arg(long, value_name = "FILE")]
    config_json: Option<String>,

    /// Without a backend: a command that succeeds once a unit is online; it has
    /// MIG_SSH_HOST and UNIT_ID [default: ssh answers on port 22222]
    /// (MIG_ONLINE)
    #[arg(long, value_name = "COMMAND")]
    online: Option<String>,

    /// Seconds in which a migrated unit has to come online [default: 900]
    /// (MIG_MAX_STATUS_AGE)
    #[arg(long, value_name = "SECONDS")]
    max_age: Option<String>,
}

/// Options of `check-done`.
#[derive(Debug, clap::Args)]
pub struct CheckOptions {
    /// Units at a time
    #[arg(short, long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,

    /// End when no unit is left to do
    #[arg(long)]
    until_empty: bool,

    #[command(flatten)]
    backend: BackendOptions,
}

impl BackendOptions {
    fn settings(&self) -> Result<Vec<(Setting, Option<String>)>, Failure> {
        Ok(vec![
            (MIG_BACKEND, self.backend.clone()),
            (MIG_BALENA_TOKEN, secret(self.balena_token.as_ref())?),
            (MIG_BALENA_TOKEN_FILE, self.balena_token_file.clone()),
            (MIG_API_ENDPOINT, self.api_endpoint.clone()),
            (MIG_FLEET_CONFIG, self.fleet_config.clone()),
            (MIG_CONFIG_JSON, self.config_json.clone()),
            (MIG_ONLINE, self.online.clone()),
            (MIG_MAX_STATUS_AGE, self.max_age.clone()),
        ])
    }
}

impl Options {
    fn settings(&self) -> Result<Vec<(Setting, Option<String>)>, Failure> {
        let mut settings = self.device.settings(MIG_DEF_SSH_OPTS)?;
        settings.extend(self.backend.settings()?);
        settings.extend([
            (MIG_HOST_KEYS, self.host_keys.clone()),
            (MIG_LIMIT_RATE, self.limit_rate.clone()),
            (MIG_MIN_AGE, self.min_age.clone()),
            (MIG_DURATION, self.dur.clone()),
            (MIG_CONN_ATTEMPTS, self.conn_attempts.clone()),
            (MIG_RECONN_TIME, self.reconn_time.clone()),
            (MIG_TX_TIMEOUT, self.tx_timeout.clone()),
            (MIG_EXEC_TIMEOUT, self.exec_timeout.clone()),
        ]);
        Ok(settings)
    }
}

/// Migrates units, or looks which could be.
pub fn migrate(sys: &Sys, common: &Common, options: &Options) -> Result<Exit, Failure> {
    let settings = common.settings(sys, options.settings()?)?;
    let work = Work {
        jobs: options.jobs.into(),
        migrate: true,
        check: options.check_done,
        plan_only: options.plan_only,
        until_empty: options.until_empty || options.plan_only,
        canary: options.first.map(|first| Canary {
            first,
            percent: options.max_fail,
        }),
        logs: logs(sys, &settings)?,
    };
    run(sys, &settings, &work)
}

/// Looks for migrated units.
pub fn check_done(sys: &Sys, common: &Common, options: &CheckOptions) -> Result<Exit, Failure> {
    let settings = common.settings(sys, options.backend.settings()?)?;
    let work = Work {
        jobs: options.jobs.into(),
        migrate: false,
        check: true,
        plan_only: false,
        until_empty: options.until_empty,
        canary: None,
        logs: logs(sys, &settings)?,
    };
    run(sys, &settings, &work)
}

fn run(sys: &Sys, settings: &Settings, work: &Work) -> Result<Exit, Failure> {
    let store = open(sys, settings, false)?;
    let backend = backend(sys, settings)?;
    interrupt::catch_first().context("preparing for signals")?;
    let rate = match settings.number(&MIG_LIMIT_RATE) {
        0 => None,
        kb => Some(u64::from(kb) * 1000),
    };
    let shared = Shared::new(sys, store.as_ref(), settings, backend.as_ref(), work, rate);
    let ended = shared.run()?;
    if work.plan_only {
        print(&report(&shared.planned()))?;
    }
    match ended {
        Ended::Empty | Ended::Stopped => Ok(Exit::Done),
        Ended::Halted(reason) => Err(Failure(Exit::Refused, anyhow!("{reason}"))),
    }
}

/// What the settings name, once it has said that it can be asked.
fn backend(sys: &Sys, settings: &Settings) -> Result<Box<dyn Backend>, Failure> {
    let wrong = |error: BackendError| Failure(Exit::Usage, error.into());
    let backend: Box<dyn Backend> = match settings.shared(&MIG_BACKEND).as_deref() {
        Some("none") => Box::new(NoBackend::new(sys)),
        _ => Box::new(token::balena(sys, settings).map_err(wrong)?),
    };
    backend.prove().map_err(|error| match error.later {
        Some(_) => Failure(Exit::Fault, error.into()),
        None => wrong(error),
    })?;
    Ok(backend)
}

/// Units that are not ready first, and a line that sums up.
fn report(planned: &[Planned]) -> String {
    let (ready, not): (Vec<&Planned>, Vec<&Planned>) =
        planned.iter().partition(|planned| planned.code == "ready");
    let mut text = String::new();
    for planned in &not {
        text.push_str(&format!(
            "{}: {}: {}\n",
            planned.unit, planned.code, planned.message
        ));
    }
    for planned in &ready {
        text.push_str(&format!("{}: ready\n", planned.unit));
    }
    text.push_str(&format!(
        "{} of {} units are ready\n",
        ready.len(),
        planned.len()
    ));
    text
}
