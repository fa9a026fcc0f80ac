//! GRUB 2: an entry with an id, and `next_entry` in grubenv.
//!
//! GRUB clears `next_entry` before it starts the entry, so that whatever happens then, the boot
//! after it goes to the old system. That needs a GRUB that can write grubenv: not on LVM, RAID,
//! btrfs or any other place where its blocks aren't plain.

use super::grub_entry::{self, BEGIN_MARK, ENTRY_ID, MENU_SECONDS};
use super::{Armament, BootLoader, Entry, Files, OldBootFile, grubenv};
use crate::finding::Finding;
use crate::host::{self, ConfigFile, Host};
use crate::secret::Secret;
use crate::step::{Expect, OneShot, Step, Writers};
use crate::sys::Sys;

/// The initramfs. Not named `initrd.img-*`, so that no tool of the distribution takes it for its own.
pub const INITRAMFS: &str = "/boot/balena-migrate.img";

/// File systems on which GRUB can write a block in place: those whose data has no checksums and lies
/// where the file says. GRUB replays no journal: whoever arms or disarms it has to see to that
/// ([`Sys::settle`]).
pub const WRITABLE: [&str; 5] = ["ext2", "ext3", "ext4", "vfat", "xfs"];

/// GRUB 2.
pub struct Grub;

impl BootLoader for Grub {
    fn name(&self) -> &'static str {
        "GRUB"
    }

    fn check(&self, host: &Host) -> Vec<Finding> {
        let Some(grub) = &host.grub else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        findings.extend(check_next_entry(grub));
        findings.extend(check_later_default(grub));
        findings.extend(check_writable(host, grub));
        findings.extend(check_grubenv(grub));
        findings.extend(check_files(host));
        findings.extend(check_menu(grub));
        if !grub.sources_custom_cfg && grub.grub_cfg.is_none() {
            findings.push(Finding::error(
                "grub-entry",
                format!(
                    "{}/grub.cfg does not source custom.cfg, and is a link or no UTF-8, so that no entry can \
                     be added to it",
                    grub.dir
                ),
                "make it a file of UTF-8 text, or let it source custom.cfg as 41_custom does",
            ));
        }
        findings
    }

    fn files(&self, _host: &Host) -> Files {
        Files {
            initramfs: INITRAMFS.to_owned(),
            kernel: None,
        }
    }

    fn arm(&self, host: &Host, entry: &Entry) -> Armament {
        let grub = host.grub.as_ref().expect("checked: there is GRUB");
        let text = grub_entry::text(host, entry);
        let (entry, old_entry) = match grub.sources_custom_cfg {
            true => through_custom_cfg(grub, &text),
            false => through_grub_cfg(grub, &text),
        };
        let (mut steps, mut old_files) = (vec![entry], vec![old_entry]);
        let path = format!("{}/grubenv", grub.dir);
        let old = grub.grubenv.clone();
        let new = grubenv::armed(old.as_deref().unwrap_or(&grubenv::empty()), ENTRY_ID)
            .expect("checked: grubenv is sound and has room");
        let seen = old.map(String::into_bytes);
        old_files.push(OldBootFile {
            path: path.clone(),
            old: seen.clone().map(|bytes| (bytes, 0o644)),
        });
        steps.push(Step::WriteFile {
            path: path.clone(),
            content: Secret::new(new),
            mode: 0o644,
            expect: Expect::Seen(seen),
            writers: Writers::BootLoader,
        });
        Armament {
            steps,
            old_files,
            variables: Vec::new(),
            one_shot: OneShot::Grubenv(path),
            summary: summary(grub),
        }
    }
}

/// Whether our entry is where [`Grub::arm`] puts it, in the folder of that grubenv.
pub fn has_entry(sys: &Sys, grubenv: &str) -> bool {
    let folder = grubenv.rsplit_once('/').map_or("", |(folder, _)| folder);
    ["custom.cfg", "grub.cfg"].iter().any(|name| {
        let text = sys.read(&format!("{folder}/{name}")).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(BEGIN_MARK)
    })
}

/// What GRUB will do, for the plan.
fn summary(grub: &host::Grub) -> String {
    let mut text = format!(
        "GRUB starts the entry \"{ENTRY_ID}\" at the next boot, once; every boot after it is as before"
    );
    if grub.menu.waits {
        text.push_str(&format!(
            "; its menu, which waits for ever, waits {MENU_SECONDS} seconds then"
        ));
    }
    if !grub.sources_custom_cfg {
        text.push_str("; the entry is at the end of grub.cfg, which does not source custom.cfg");
    }
    text
}

fn check_next_entry(grub: &host::Grub) -> Option<Finding> {
    (!grub.honours_next_entry).then(|| {
        Finding::error(
            "grub-next-entry",
            format!(
                "{}/grub.cfg does not look at next_entry, so GRUB can't start an entry just once",
                grub.dir
            ),
            "let the distribution's update-grub write grub.cfg, then run again",
        )
    })
}

/// A default that is set behind the place where GRUB takes the one-shot.
fn check_later_default(grub: &host::Grub) -> Option<Finding> {
    let statement = grub.later_default.as_deref()?;
    Some(Finding::error(
        "grub-default",
        format!("`{statement}` makes GRUB start another entry than the one for the next boot"),
        "name the default in GRUB_DEFAULT of /etc/default/grub instead, and let grub.cfg be written anew",
    ))
}

fn check_writable(host: &Host, grub: &host::Grub) -> Option<Finding> {
    let mount = host.mount_of(&grub.dir)?;
    let plain = host
        .disks
        .iter()
        .flat_map(|disk| &disk.partitions)
        .any(|part| part.name == mount.device_name);
    (!plain || !WRITABLE.contains(&mount.fs_type.as_str())).then(|| {
        Finding::error(
            "grub-write",
            format!(
                "GRUB can't write grubenv in {} ({}): it would start stage 2 at every boot",
                grub.dir,
                mount.in_words()
            ),
            "use a /boot partition of its own with ext4",
        )
    })
}

fn check_grubenv(grub: &host::Grub) -> Option<Finding> {
    let path = format!("{}/grubenv", grub.dir);
    let editenv = editenv(grub);
    if let Some(target) = &grub.grubenv_link {
        return Some(Finding::error(
            "grubenv",
            format!("{path} is a link to {target}, which GRUB can't follow to another file system"),
            format!("make it a file: rm {path} && {editenv} {path} create"),
        ));
    }
    let error = grubenv::armed(grub.grubenv.as_deref()?, ENTRY_ID).err()?;
    Some(Finding::error(
        "grubenv",
        format!("{path} can't be used: {error}"),
        format!("make a new one: {editenv} {path} create"),
    ))
}

/// The distribution's tool for grubenv.
fn editenv(grub: &host::Grub) -> &'static str {
    match grub.dir.as_str() {
        "/boot/grub" => "grub-editenv",
        _ => "grub2-editenv",
    }
}

/// The entry finds the kernel and the initramfs by the UUIDs of their file systems.
fn check_files(host: &Host) -> Option<Finding> {
    let kernel = host.kernel.image.as_deref();
    let unknown = |path: &&str| {
        host.mount_of(path)
            .is_some_and(|mount| mount.uuid.is_none())
    };
    let path = [kernel.unwrap_or(INITRAMFS), INITRAMFS]
        .into_iter()
        .find(unknown)?;
    let mount = host.mount_of(path)?;
    Some(Finding::error(
        "grub-search",
        format!(
            "the file system of {path} ({}) has no UUID known here that GRUB could find it by",
            mount.in_words()
        ),
        "use a /boot partition of its own with ext4",
    ))
}

/// What keeps the old system from coming back by itself. Stage 2 starts all the same.
fn check_menu(grub: &host::Grub) -> Vec<Finding> {
    let mut findings = Vec::new();
    if grub.menu.waits {
        findings.push(Finding::warning(
            "grub-timeout",
            "GRUB's menu waits for somebody at every boot (timeout -1): stage 2 starts without, but should \
             the old system have to come back, somebody must start it",
            "set GRUB_TIMEOUT to some seconds, and let grub.cfg be written anew",
        ));
    }
    findings.extend(check_recordfail(grub));
    if grub.menu.locked {
        findings.push(Finding::warning(
            "grub-password",
            "GRUB wants a password at every boot: stage 2 starts without, but should the old system have \
             to come back, somebody must type it",
            "give the menu entries of the old system --unrestricted",
        ));
    }
    findings
}

/// Ubuntu's GRUB notes in grubenv that an entry was started, and the system that it is up.
fn check_recordfail(grub: &host::Grub) -> Option<Finding> {
    if !grub.menu.waits_after_failure {
        return None;
    }
    let block = grub.grubenv.as_deref().unwrap_or_default();
    Some(match grubenv::get(block, "recordfail") {
        Some("1") => Finding::error(
            "grub-recordfail",
            "grubenv says that the last boot did not end well (recordfail=1), and GRUB's menu waits for \
             somebody then (GRUB_RECORDFAIL_TIMEOUT=-1): the old system could not come back by itself",
            format!(
                "{} {}/grubenv unset recordfail, and see why grub-common.service does not",
                editenv(grub),
                grub.dir
            ),
        ),
        _ => Finding::warning(
            "grub-recordfail",
            "after a boot that did not end well GRUB's menu waits for somebody \
             (GRUB_RECORDFAIL_TIMEOUT=-1): if power goes while the old system comes back, somebody must \
             start it",
            "set GRUB_RECORDFAIL_TIMEOUT=30, and run update-grub",
        ),
    })
}

/// The entry in custom.cfg, before what the user has there.
fn through_custom_cfg(grub: &host::Grub, text: &str) -> (Step, OldBootFile) {
    let old = grub.custom_cfg.as_ref();
    let content = format!("{text}{}", old.map_or("", |file| &file.text));
    replace(grub, "custom.cfg", old, content, Writers::People)
}

/// The entry at the end of grub.cfg, where what the scripts in /etc/grub.d print comes last. No tool of the
/// distribution makes it anew: what people have changed in it would be lost for ever.
///
/// Should an update do that before the next boot, GRUB finds no such entry, and starts the old system.
fn through_grub_cfg(grub: &host::Grub, text: &str) -> (Step, OldBootFile) {
    let old = grub.grub_cfg.as_ref().expect("checked: the file");
    let content = format!("{}\n{text}", old.text.trim_end_matches('\n'));
    let writers = Writers::Around(grub_entry::marks());
    replace(grub, "grub.cfg", Some(old), content, writers)
}

/// Gives one of GRUB's files, which is `old` yet, another content.
fn replace(
    grub: &host::Grub,
    name: &str,
    old: Option<&ConfigFile>,
    content: String,
    writers: Writers,
) -> (Step, OldBootFile) {
    let path = format!("{}/{name}", grub.dir);
    let mode = old.map_or(0o644, |file| file.mode);
    let seen = old.map(|file| file.text.clone().into_bytes());
    let old_file = OldBootFile {
        path: path.clone(),
        old: seen.clone().map(|bytes| (bytes, mode)),
    };
    let step = Step::WriteFile {
        path,
        content: Secret::new(content),
        mode,
        expect: Expect::Seen(seen),
        writers,
    };
    (step, old_file)
}
