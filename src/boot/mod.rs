//! Boot loaders: what starts stage 2 once, and only once.

pub mod boot_next;
pub mod cmdline;
pub mod core_esp;
pub mod core_image;
pub mod esp;
pub mod grub;
pub mod grub_entry;
pub mod grubenv;
pub mod systemd_boot;

use crate::finding::{Finding, stops};
use crate::host::Host;
use crate::step::Step;

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
    /// grubenv, when that is where the one-shot is armed.
    pub grubenv: Option<String>,
    /// The EFI variable that is gone once the one-shot was taken, when that is where it is armed.
    pub pending: Option<String>,
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
    let mut last = vec![no_grub()];
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
    // What comes last has said its own.
    why.pop();
    if let (Some(first), false) = (last.first_mut(), why.is_empty()) {
        first.what = format!("{}; {}", why.join("; "), first.what);
    }
    Err(last)
}

/// The boot loaders that a machine may be armed by, best first.
fn candidates(host: &Host) -> Vec<Box<dyn BootLoader>> {
    let mut loaders: Vec<Box<dyn BootLoader>> = Vec::new();
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
