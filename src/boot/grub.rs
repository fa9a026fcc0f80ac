//! GRUB 2 started by a BIOS: an entry with an id, and `next_entry` in grubenv.
//!
//! GRUB clears `next_entry` before it starts the entry, so that whatever happens then, the boot
//! after it goes to the old system. That needs a GRUB that can write grubenv: not on LVM, RAID,
//! btrfs or any other place where its blocks aren't plain.

use super::{Armament, BootLoader, Entry, OldBootFile, grubenv};
use crate::finding::Finding;
use crate::host::{self, Host};
use crate::secret::Secret;
use crate::step::{Expect, Step, Writers};

/// Id of our menu entry.
pub const ENTRY_ID: &str = "balena-migrate";

/// Our script where grub.cfg does not source custom.cfg.
const SCRIPT: &str = "/etc/grub.d/42_balena_migrate";

const BEGIN_MARK: &str = "### BEGIN balena-migrate ###";
const END_MARK: &str = "### END balena-migrate ###";

/// File systems on which GRUB can write a block in place.
const WRITABLE: [&str; 4] = ["ext2", "ext3", "ext4", "vfat"];

/// GRUB 2 on a BIOS machine.
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
        findings.extend(check_writable(host, grub));
        findings.extend(check_grubenv(grub));
        if !grub.sources_custom_cfg && !grub.can_regenerate {
            findings.push(Finding::error(
                "grub-entry",
                format!(
                    "{}/grub.cfg does not source custom.cfg, and there is no update-grub to add an \
                     entry with",
                    grub.dir
                ),
                "install the distribution's GRUB scripts, or source custom.cfg in grub.cfg",
            ));
        }
        findings
    }

    fn arm(&self, host: &Host, entry: &Entry) -> Armament {
        let grub = host.grub.as_ref().expect("checked: there is GRUB");
        let text = menu_entry(host, entry);
        let (mut steps, mut old_files) = match grub.sources_custom_cfg {
            true => through_custom_cfg(grub, &text),
            false => (through_script(&text), Vec::new()),
        };
        let path = format!("{}/grubenv", grub.dir);
        let old = grub.grubenv.clone();
        let new = grubenv::set(
            old.as_deref().unwrap_or(&grubenv::empty()),
            "next_entry",
            ENTRY_ID,
        )
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
            grubenv: Some(path),
            summary: format!(
                "GRUB starts the entry \"{ENTRY_ID}\" at the next boot, once; every boot after it \
                 is as before"
            ),
        }
    }
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
                "GRUB can't write grubenv in {} ({} on {}): it would start stage 2 at every boot",
                grub.dir, mount.fs_type, mount.device_name
            ),
            "use a /boot partition of its own with ext4",
        )
    })
}

fn check_grubenv(grub: &host::Grub) -> Option<Finding> {
    let block = grub.grubenv.as_deref()?;
    let error = grubenv::set(block, "next_entry", ENTRY_ID).err()?;
    Some(Finding::error(
        "grubenv",
        format!("{}/grubenv can't be used: {error}", grub.dir),
        format!("make a new one: grub-editenv {}/grubenv create", grub.dir),
    ))
}

/// The entry in custom.cfg, before what the user has there.
fn through_custom_cfg(grub: &host::Grub, text: &str) -> (Vec<Step>, Vec<OldBootFile>) {
    let path = format!("{}/custom.cfg", grub.dir);
    let old = grub.custom_cfg.as_ref().map(|file| file.text.clone());
    let mode = grub.custom_cfg.as_ref().map_or(0o644, |file| file.mode);
    let content = format!("{text}{}", old.as_deref().unwrap_or(""));
    let seen = old.map(String::into_bytes);
    let old_file = OldBootFile {
        path: path.clone(),
        old: seen.clone().map(|bytes| (bytes, mode)),
    };
    let step = Step::WriteFile {
        path,
        content: Secret::new(content),
        mode,
        expect: Expect::Seen(seen),
        writers: Writers::People,
    };
    (vec![step], vec![old_file])
}

/// The entry by a script in /etc/grub.d and a new grub.cfg.
///
/// Stage 2 does not take it back: an entry that is never the default is harmless, and making
/// grub.cfg anew takes the old system's tools.
fn through_script(text: &str) -> Vec<Step> {
    let update = || vec!["update-grub".to_owned()];
    vec![
        Step::RunAtUndo { argv: update() },
        Step::WriteFile {
            path: SCRIPT.to_owned(),
            content: Secret::new(format!("#!/bin/sh\nexec tail -n +3 \"$0\"\n{text}")),
            mode: 0o755,
            expect: Expect::Anything,
            writers: Writers::People,
        },
        Step::RunTool { argv: update() },
    ]
}

/// The menu entry. `--unrestricted` lets it start without the password of a locked menu.
///
/// When the kernel or the initramfs can't be loaded, GRUB would wait at its menu for somebody who
/// never comes: the entry restarts the machine instead, which starts the old system now that
/// `next_entry` is cleared. Going back to grub.cfg would not do: a kernel that is loaded in place of
/// another one gets the command line of the first (seen with GRUB 2.06).
fn menu_entry(host: &Host, entry: &Entry) -> String {
    let place = |path: &str| host.path_in_fs(path).unwrap_or_else(|| path.to_owned());
    let uuid = host
        .mount_of(&entry.initramfs)
        .and_then(|mount| mount.uuid.as_deref())
        .unwrap_or_default();
    let arguments: Vec<String> = entry.arguments.iter().map(|word| quote(word)).collect();
    format!(
        "{BEGIN_MARK}\n\
         menuentry 'balena-migrate: move this machine to balenaOS' --id {ENTRY_ID} --unrestricted {{\n\
         \tinsmod part_msdos\n\
         \tinsmod part_gpt\n\
         \tinsmod ext2\n\
         \tsearch --no-floppy --fs-uuid --set=root {uuid}\n\
         \techo 'Starting balena-migrate, stage 2 ...'\n\
         \tif linux {} {}; then\n\
         \t\tif initrd {}; then boot; fi\n\
         \tfi\n\
         \techo 'balena-migrate: stage 2 could not be started; the old system starts again.'\n\
         \tsleep 5\n\
         \treboot\n\
         }}\n\
         {END_MARK}\n",
        quote(&place(&entry.kernel)),
        arguments.join(" "),
        quote(&place(&entry.initramfs)),
    )
}

/// A word as GRUB's script language takes it literally (GNU GRUB manual, "Quoting").
pub(super) fn quote(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-=,:@+%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}
