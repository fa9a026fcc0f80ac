//! Boot loaders: what starts stage 2 once, and only once.

pub mod boot_next;
mod boot_partition;
pub mod cmdline;
pub mod config_txt;
pub mod core_esp;
pub mod core_fat;
pub mod core_image;
pub mod esp;
pub mod extlinux;
mod extlinux_conf;
pub mod grub;
pub mod grub_entry;
pub mod grubenv;
pub mod raspberry_pi;
mod replaced;
pub mod systemd_boot;
pub mod tryboot;
mod u_boot;
pub mod u_env;

use crate::finding::{Finding, stops};
use crate::host::Host;
use crate::host::u_boot::{EXTLINUX, U_ENV, UBoot};
use crate::step::{OneShot, Step};

/// Files that a boot loader wants where it can read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The initramfs.
    pub initramfs: String,
    /// A copy of the kernel, when the loader can't read the system's own.
    pub kernel: Option<String>,
}

/// What the next boot is to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The kernel, as this system names the file.
    pub kernel: String,
    /// The initramfs, as this system names the file.
    pub initramfs: String,
    /// The kernel's arguments.
    pub arguments: Vec<String>,
}

/// A boot loader that can start an entry once.
pub trait BootLoader {
    /// Its name, for the plan.
    fn name(&self) -> &'static str;

    /// What keeps it from starting an entry once, and from going back to the old system by itself
    /// afterwards. Called with the other checks, before there is a plan.
    fn check(&self, host: &Host) -> Vec<Finding>;

    /// Where kernel and initramfs are to be. Only called when [`BootLoader::check`] found no error.
    fn files(&self, host: &Host) -> Files;

    /// The change to the boot configuration. Only called when [`BootLoader::check`] found no error.
    fn arm(&self, host: &Host, entry: &Entry) -> Armament;
}

/// The change to a boot configuration.
pub struct Armament {
    /// The steps; each leaves a bootable system, and the last one is what makes the next boot go
    /// to the entry.
    pub steps: Vec<Step>,
    /// The files that change, as they were: stage 2 puts them back first of all.
    pub old_files: Vec<OldBootFile>,
    /// EFI variables that were not there before: stage 2 removes them first of all.
    pub variables: Vec<String>,
    /// Where the next boot is noted.
    pub one_shot: OneShot,
    /// The change in words, for the plan.
    pub summary: String,
}

/// A file of the boot configuration before the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldBootFile {
    /// Its path on this system.
    pub path: String,
    /// Its content and mode, or nothing where there was no file.
    pub old: Option<(Vec<u8>, u32)>,
}

/// A file that was not there before.
fn gone(path: &str) -> OldBootFile {
    OldBootFile {
        path: path.to_owned(),
        old: None,
    }
}

/// The boot loader that is armed.
pub struct Choice {
    /// It.
    pub loader: Box<dyn BootLoader>,
    /// Why not one that would come before it.
    pub why: Option<String>,
}

/// The boot loader of this machine, by what was found on it: the first that can start an entry once.
///
/// # Errors
///
/// What keeps the last of them from it: the others need more to be put right.
pub fn of(host: &Host) -> Result<Choice, Vec<Finding>> {
    let mut why = Vec::new();
    let mut last = vec![match &host.firmware.u_boot {
        Some(board) => no_u_boot(board),
        None => no_grub(),
    }];
    for loader in candidates(host) {
        let mut findings = loader.check(host);
        if host.firmware.efi && loader.name() == grub::Grub.name() {
            findings.extend(grub_not_running(host));
        }
        if !stops(&findings) {
            return Ok(Choice {
                loader,
                why: (!why.is_empty()).then(|| why.join("; ")),
            });
        }
        let reason = findings.iter().find(|finding| stops(&[(*finding).clone()]));
        why.extend(reason.map(Finding::sentence));
        last = findings;
    }
    // What comes last has said its own, which may have kept the others from it too.
    let own = why.pop();
    why.retain(|reason| Some(reason) != own.as_ref());
    if let (Some(first), false) = (last.first_mut(), why.is_empty()) {
        first.what = format!("{}; {}", why.join("; "), first.what);
    }
    Err(last)
}

/// The boot loaders that a machine may be armed by, best first.
fn candidates(host: &Host) -> Vec<Box<dyn BootLoader>> {
    let mut loaders: Vec<Box<dyn BootLoader>> = Vec::new();
    if host.firmware.raspberry_pi.is_some() {
        loaders.push(Box::new(tryboot::Tryboot));
        loaders.push(Box::new(raspberry_pi::ConfigTxt));
        return loaders;
    }
    if let Some(board) = &host.firmware.u_boot {
        // The u-boot that knows uEnv.txt looks for that before extlinux.conf.
        if board.u_env.is_some() {
            loaders.push(Box::new(u_env::UEnv));
        }
        if board.extlinux.is_some() {
            loaders.push(Box::new(extlinux::Extlinux));
        }
        return loaders;
    }
    if host.grub.is_some() {
        loaders.push(Box::new(grub::Grub));
    }
    if host.firmware.efi {
        if systemd_boot::is_running(host) {
            loaders.push(Box::new(systemd_boot::SystemdBoot));
        }
        loaders.push(Box::new(boot_next::BootNext));
    }
    loaders
}

fn no_grub() -> Finding {
    Finding::error(
        "boot-loader",
        "no GRUB configuration was found in /boot/grub or /boot/grub2",
        "this version starts stage 2 by GRUB 2; mount /boot if it is on a partition of its own",
    )
}

fn no_u_boot(board: &UBoot) -> Finding {
    Finding::error(
        "boot-loader",
        format!(
            "on this board ({}) neither {U_ENV} nor {EXTLINUX} was found",
            board.board
        ),
        "this version starts stage 2 by a file that u-boot reads; mount /boot if it is on a partition of its own",
    )
}

/// What is said where nothing but stage 2 takes away what starts stage 2. `file` is what has to be put back.
fn not_once(file: &str) -> Finding {
    Finding::warning(
        "boot-once",
        format!(
            "{file} starts stage 2 at every boot until stage 2 has put the old file back, which is the first \
             thing that it does: a kernel or an initramfs that does not come up would be started again and \
             again"
        ),
        "rehearse with --pretend on one machine of this kind first",
    )
}

/// On UEFI machines GRUB's files may be there while something else starts the system.
fn grub_not_running(host: &Host) -> Option<Finding> {
    let uefi = host.firmware.uefi.as_ref()?;
    let grub = host.grub.as_ref()?;
    let other = uefi
        .loader
        .as_ref()
        .map(|loader| loader.info.as_str())
        .filter(|info| !info.starts_with("GRUB"));
    let started = host.kernel.cmdline.split_whitespace();
    let by_grub = started
        .into_iter()
        .any(|word| word.starts_with("BOOT_IMAGE="));
    let ours = host
        .mount_of(&grub.dir)
        .and_then(|mount| mount.uuid.as_ref());
    let stub = uefi.grub_stub.as_ref();
    // RHEL 8 has its whole configuration there, which looks for /boot.
    let whole = format!("{}/grub.cfg", grub.dir);
    let elsewhere = stub
        .filter(|stub| stub.path != whole)
        .filter(|stub| stub.fs_uuid.is_some() && stub.fs_uuid.as_ref() != ours);
    let what = match (other, elsewhere) {
        (Some(info), _) => format!("{info} started this system, and not GRUB"),
        (None, _) if !by_grub => "this system was not started by GRUB".to_owned(),
        (None, Some(stub)) => format!(
            "{} leads GRUB to another file system than that of {}",
            stub.path, grub.dir
        ),
        (None, None) => return None,
    };
    let remedy = "start this system by GRUB, then run again";
    Some(Finding::error("grub-not-running", what, remedy))
}
