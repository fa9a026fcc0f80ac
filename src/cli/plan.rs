//! `balena-migrate plan`: everything up to the question, and nothing after it. The beginning of
//! `run` is here too, so that both see the same.

use anyhow::{Context, anyhow};

use super::options::Options;
use super::{Exit, Failure, paint, screen};
use crate::check::{self, Subject};
use crate::config::{self, Config};
use crate::finding::{self, Finding};
use crate::host::{self, Host};
use crate::material::{self, DiskTests, Material};
use crate::plan::{self, Plan, text};
use crate::sys::Sys;

/// What was looked at and what came out of it.
pub struct Looked {
    pub config: Config,
    pub host: Host,
    pub material: Material,
    pub findings: Vec<Finding>,
    /// The plan, unless a finding stops it.
    pub plan: Option<Plan>,
    pub run_id: String,
}

/// `balena-migrate plan`.
pub fn plan(sys: &Sys, options: &Options, as_json: bool) -> Result<Exit, Failure> {
    let looked = look(sys, options, DiskTests::Never)?;
    if as_json {
        let value = match &looked.plan {
            Some(plan) => text::json(plan, &looked.findings),
            None => serde_json::json!({ "findings": looked.findings }),
        };
        screen::print(&format!("{value:#}\n"))?;
    } else {
        show(&looked)?;
    }
    Ok(match looked.plan {
        Some(_) => Exit::Done,
        None => Exit::Refused,
    })
}

/// Reads configuration, machine and files, checks, and plans.
pub fn look(sys: &Sys, options: &Options, tests: DiskTests) -> Result<Looked, Failure> {
    let config = load(sys, options)?;
    let host = host::collect::collect(sys).context("looking at this machine")?;
    let mut material = gather(sys, &config, &host, tests)?;
    let mut findings = findings(&config, &host, &material);
    // Hours of reading are for nothing if something else stops it anyway.
    if tests == DiskTests::Allowed && !finding::stops(&findings) {
        let mut progress = screen::Progress::new("looking for bad blocks");
        material.bad_blocks =
            material::scan_for_bad_blocks(sys, &config, &host, &mut |done, total| {
                progress.at(done, Some(total));
            });
        findings = self::findings(&config, &host, &material);
    }
    decide(sys, config, host, material, findings)
}

/// The plan anew, after a run that was taken back since it found no room behind the new system.
pub fn without_room(sys: &Sys, looked: Looked, reason: String) -> Result<Looked, Failure> {
    let Looked {
        config,
        host,
        mut material,
        ..
    } = looked;
    material.no_room = Some(reason);
    let findings = findings(&config, &host, &material);
    decide(sys, config, host, material, findings)
}

/// Plans, unless a finding stops it.
fn decide(
    sys: &Sys,
    config: Config,
    host: Host,
    material: Material,
    findings: Vec<Finding>,
) -> Result<Looked, Failure> {
    let subject = Subject {
        config: &config,
        host: &host,
        material: &material,
    };
    let run_id = random_id(sys)?;
    let plan = (!finding::stops(&findings)).then(|| plan::plan(&subject, &run_id));
    Ok(Looked {
        config,
        host,
        material,
        findings,
        plan,
        run_id,
    })
}

fn findings(config: &Config, host: &Host, material: &Material) -> Vec<Finding> {
    check::all(&Subject {
        config,
        host,
        material,
    })
}

/// The merged settings, with what is wrong with them said.
pub(super) fn load(sys: &Sys, options: &Options) -> Result<Config, Failure> {
    let cwd = sys.current_dir().context("finding the current folder")?;
    let config = config::load(sys, &cwd, &options.overrides())
        .map_err(|error| Failure(Exit::Usage, anyhow!("{error}")))?;
    if *config.log_debug && options.log_level.is_none() {
        log::set_max_level(log::LevelFilter::Debug);
    }
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    for setting in config.describe() {
        log::debug!("{setting}");
    }
    Ok(config)
}

fn gather(sys: &Sys, config: &Config, host: &Host, tests: DiskTests) -> Result<Material, Failure> {
    let mut progress = screen::Progress::new("reading the image");
    Ok(material::gather(sys, config, host, tests, &mut |bytes| {
        progress.at(bytes, None);
    })?)
}

/// A name for this run, from the kernel.
fn random_id(sys: &Sys) -> Result<String, Failure> {
    let path = "/proc/sys/kernel/random/uuid";
    let id = sys
        .read_text(path)
        .with_context(|| format!("reading {path}"))?;
    Ok(id.trim().to_owned())
}

/// Prints findings and plan.
pub fn show(looked: &Looked) -> Result<(), Failure> {
    let mut page = text::findings(&looked.findings);
    match &looked.plan {
        Some(plan) => {
            if !page.is_empty() {
                page.push('\n');
            }
            page.push_str(&text::plan(plan));
        }
        None => page.push_str("\nNothing was changed. Put the errors right and run again.\n"),
    }
    match screen::has_colour() {
        true => screen::print(&paint::page(&page)),
        false => screen::print(&page),
    }
}
