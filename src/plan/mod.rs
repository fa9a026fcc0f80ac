//! The plan: what stage 1 will do, made by pure code from what was found.
//!
//! Called by the command line after the checks found no error; the engine applies it.

mod aside;
mod kept;
mod new_files;
mod sealed;
pub mod summary;
pub mod text;

use self::new_files::NewContent;
use self::summary::{DiskSummary, Grows, ImageSummary, Summary};
use crate::backup::{self, Origin};
use crate::boot::{self, Armament, BootLoader, Entry, Files};
use crate::check::initramfs;
use crate::check::memory::Need;
use crate::check::place::choose;
use crate::check::{Subject, resume};
use crate::config::Config;
use crate::engine::journal::DIR;
use crate::growth::DataPlace;
use crate::host::Host;
use crate::initramfs::tool::{self, Tool};
use crate::initramfs::{Compression, Recipe};
use crate::place::Waits;
use crate::step::by_tool::{self, ByTool};
use crate::step::core::{Aside, BuildCore};
use crate::step::{BackupPlace, OneShot, Step};
use crate::sys::identity::EXECUTABLE;
use crate::sys::own_root;

/// Folder for the report of stage 2 in the root of a file system that the journal is not on.
const REPORT_DIR: &str = "balena-migrate.report";

/// What stage 1 will do.
pub struct Plan {
    /// What a careful person reads before saying yes.
    pub summary: Summary,
    /// What the engine does.
    pub work: Steps,
    /// Where the next boot is noted, when it is armed.
    pub one_shot: Option<OneShot>,
    /// Folder in which stage 2 leaves its report.
    pub report: String,
}

/// The steps of a plan.
pub struct Steps {
    /// In order; those that the next boot can see come last.
    pub steps: Vec<Step>,
    /// When all are done, the next boot goes to stage 2.
    pub armed: bool,
}

/// Makes the plan. `run_id` names the run.
///
/// # Panics
///
/// When the checks found an error and it is called all the same.
pub fn plan(subject: &Subject, run_id: &str) -> Plan {
    let (config, host, material) = (subject.config, subject.host, subject.material);
    let scan = material.image.as_ref().expect("checked: the image");
    let disk = subject.target().expect("checked: the disk");
    let haven = host.haven(disk).expect("checked: the root");
    let journal = host.mount_of(DIR);
    let report = match journal.is_some_and(|mount| mount.uuid == haven.uuid) {
        true => DIR.to_owned(),
        false => format!("{}/{REPORT_DIR}", haven.point.trim_end_matches('/')),
    };
    let Ok(boot) = boot::of(host) else {
        panic!("checked: the boot loader");
    };
    let place = boot.loader.files(host);
    let tool = initramfs::tool(subject).expect("checked: the tool");
    let start = Start::of(tool, host, &place.initramfs);
    let arguments = start_arguments(config, host, &start);
    let armament = (!*config.no_setup).then(|| arm(host, boot.loader.as_ref(), &place, arguments));
    let new = new_files::of(subject);
    let choice = choose(subject)
        .expect("checked: the image")
        .expect("checked: its place");
    let backup = backup_place(subject, choice.backup);

    let (mut handover, mut files) = sealed::handover(
        subject,
        run_id,
        &sealed::Ahead {
            haven,
            report: &report,
            armament: armament.as_ref(),
            new: &new,
            payload: choice.payload,
        },
    );
    let (secrets, aside) = match aside::is_needed(host, &place.initramfs) {
        true => aside::take_out(&mut handover, &mut files, &report),
        false => (Vec::new(), Vec::new()),
    };
    let need = Need::of(subject, scan, choice.payload, choice.backup);
    let data = DataPlace::of(scan, disk.bytes).expect("checked: the labels");
    let means = resume::means(subject, scan, &choice);
    let stays = subject.old_system_stays();
    let power_cut_is_fatal = means.as_ref().err().filter(|_| !stays).cloned();
    let keep = kept::keep(
        subject,
        scan,
        &choice,
        &handover.payload.image,
        backup.as_ref(),
        means.as_ref().ok().map(|means| &means.firmware),
    );
    let core = means.ok().map(|means| {
        Box::new(BuildCore {
            keep: keep.clone().expect("a core is kept"),
            firmware: means.firmware,
            kernel: host.kernel.image.clone().expect("checked: the kernel"),
            arguments: resume_arguments(config, host, &start),
            initramfs: start.ours.clone(),
            aside: start.inside(aside),
            run_id: run_id.to_owned(),
        })
    });
    let summary = Summary {
        machine: host.hostname.clone(),
        system: host.os.pretty_name.clone(),
        disk: DiskSummary::of(host, disk),
        old_system: stays.then(|| summary::old_system(host)),
        image: ImageSummary {
            path: config.image_name.0.clone(),
            name: scan.boot.os_release.get("PRETTY_NAME").cloned(),
            device_type: scan.slug().map(str::to_owned),
            bytes: scan.file_bytes,
            unpacked_bytes: scan.image_bytes,
        },
        payload_waits_in: choice.payload,
        payload_waits_because: choice.why.clone(),
        power_cut_is_fatal,
        backup_waits_in: backup.as_ref().map(|_| choice.backup),
        memory_needed: need.total(),
        memory_total: host.memory.total,
        backup: backup.as_ref().map(|backup| backup.path.clone()),
        data_grows: Grows::of(subject, &data, backup.is_some()),
        new_files: new.iter().map(NewContent::summary).collect(),
        boot: match &armament {
            Some(armament) => match &boot.why {
                Some(why) => format!("{}, since {why}", armament.summary),
                None => armament.summary.clone(),
            },
            None => "left as it is (NO_SETUP)".to_owned(),
        },
        initramfs_by: start
            .by
            .as_ref()
            .map(|by| format!("{} by {}", place.initramfs, by.program)),
        log_drive: config.log_drive.value.as_ref().map(|drive| drive.0.clone()),
        new_grub: material.made_grub().map(|grub| grub.summary.clone()),
        pretend: *config.no_flash,
    };

    let mut steps = Vec::new();
    if report != DIR {
        steps.push(Step::MakeFolder {
            path: report.clone(),
        });
    }
    steps.extend(secrets);
    steps.extend(backup_step(subject));
    let kept = keep.as_ref().map(|keep| keep.folder.clone());
    steps.extend(keep.map(|keep| Step::Keep(Box::new(keep))));
    steps.push(Step::SealHandover {
        handover: Box::new(handover),
        backup_limit: match choice.backup {
            Waits::Memory => host.memory.total.saturating_sub(need.total()),
            Waits::Disk | Waits::Extents => u64::MAX,
        },
        data: Box::new(data),
        backup,
        kept,
        core: core.clone(),
    });
    steps.extend(copy_kernel(host, &place));
    steps.extend(start.by.as_ref().map(|_| Step::MakeFolder {
        path: tool::FOLDER.to_owned(),
    }));
    let root = start.root();
    steps.push(Step::BuildInitramfs {
        path: start.ours,
        recipe: Box::new(Recipe {
            root,
            executable: EXECUTABLE.to_owned(),
            modules: material.modules.clone(),
            files,
            compression: Compression::best(host.kernel.initramfs_formats.as_deref()),
        }),
    });
    steps.extend(start.by.map(|by| Step::BuildByTool(Box::new(by))));
    steps.extend(core.map(Step::BuildCore));
    let one_shot = armament.as_ref().map(|armament| armament.one_shot.clone());
    steps.extend(armament.into_iter().flat_map(|armament| armament.steps));
    Plan {
        summary,
        work: Steps {
            steps,
            armed: one_shot.is_some(),
        },
        one_shot,
        report,
    }
}

/// Puts a copy of the kernel where the boot loader can read it.
fn copy_kernel(host: &Host, place: &Files) -> Vec<Step> {
    let Some(to) = &place.kernel else {
        return Vec::new();
    };
    let (folder, _) = to.rsplit_once('/').expect("an absolute path");
    vec![
        Step::MakeFolder {
            path: folder.to_owned(),
        },
        Step::CopyFile {
            from: host.kernel.image.clone().expect("checked: the kernel"),
            to: to.clone(),
        },
    ]
}

/// How stage 2 starts.
struct Start {
    /// The initramfs that this program makes.
    ours: String,
    /// What makes another one around it.
    by: Option<ByTool>,
}

impl Start {
    /// With the initramfs at `path`, perhaps by a tool of the distribution.
    fn of(tool: Option<(Tool, &str)>, host: &Host, path: &str) -> Start {
        let by = tool.map(|(tool, program)| ByTool {
            tool,
            program: program.to_owned(),
            release: host.kernel.release.clone(),
            path: path.to_owned(),
        });
        Start {
            ours: match by {
                Some(_) => by_tool::ours(),
                None => path.to_owned(),
            },
            by,
        }
    }
}

impl Start {
    /// The folder of the initramfs that everything of ours is in; empty for its root.
    fn root(&self) -> &'static str {
        match self.by {
            Some(_) => own_root::PATH,
            None => "",
        }
    }

    /// The same files, with that folder before their paths in the initramfs.
    fn inside(&self, files: Vec<Aside>) -> Vec<Aside> {
        let files = files.into_iter().map(|file| Aside {
            content: format!("{}{}", self.root(), file.content),
            ..file
        });
        files.collect()
    }
}

fn arm(host: &Host, loader: &dyn BootLoader, place: &Files, arguments: Vec<String>) -> Armament {
    let image = host.kernel.image.as_ref().expect("checked: the kernel");
    let entry = Entry {
        kernel: place.kernel.as_ref().unwrap_or(image).clone(),
        initramfs: place.initramfs.clone(),
        arguments,
    };
    loader.arm(host, &entry)
}

/// The arguments of the kernel that starts stage 2, beside the old system.
fn start_arguments(config: &Config, host: &Host, start: &Start) -> Vec<String> {
    let Some(by) = &start.by else {
        return resume_arguments(config, host, start);
    };
    let more = by.tool.kernel_arguments().iter();
    boot::cmdline::for_bring_up(&host.given_cmdline())
        .into_iter()
        .chain(more.map(|argument| (*argument).to_owned()))
        .chain(debug(config))
        .collect()
}

/// The arguments of the kernel that starts stage 2 when there is no old system any more: nothing brings
/// up its root.
fn resume_arguments(config: &Config, host: &Host, start: &Start) -> Vec<String> {
    let init = match start.by {
        Some(_) => format!("{}/init", own_root::PATH),
        None => "/init".to_owned(),
    };
    boot::cmdline::for_stage2(&host.given_cmdline(), &init)
        .into_iter()
        .chain(debug(config))
        .collect()
}

fn debug(config: &Config) -> Option<String> {
    (*config.debug).then(|| "debug".to_owned())
}

/// The backup that will be made, or the one that lies there.
fn backup_place(subject: &Subject, waits: Waits) -> Option<BackupPlace> {
    let made = backup::origin(subject.config) != Origin::Existing;
    if !made && subject.material.old_backup.is_none() {
        return None;
    }
    let path = subject.config.backup_file.0.clone();
    let place = sealed::waiting(subject.host, &path, waits);
    Some(BackupPlace { path, place })
}

fn backup_step(subject: &Subject) -> Option<Step> {
    let creates = subject.config.backup_file.0.clone();
    match backup::origin(subject.config) {
        Origin::Script(script) => Some(Step::Backup {
            argv: vec![script.to_owned(), creates.clone()],
            folder: subject.config.home_dir.0.clone(),
            creates,
        }),
        Origin::Definition(_) | Origin::Directories(_) => Some(Step::Archive {
            volumes: subject.material.backup.volumes.clone(),
            creates,
        }),
        Origin::Existing => None,
    }
}
