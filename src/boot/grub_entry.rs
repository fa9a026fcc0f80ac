//! The text of our menu entry in GRUB's script language. Called by [`super::grub`].

use super::Entry;
use crate::host::{Host, Mount};
use crate::step::marks::Marks;

/// Id of our menu entry.
pub const ENTRY_ID: &str = "balena-migrate";

/// The line before our entry.
pub const BEGIN_MARK: &str = "### BEGIN balena-migrate ###";

const END_MARK: &str = "### END balena-migrate ###";

/// What marks it, in a grub.cfg that tools write too.
pub(super) fn marks() -> Marks {
    Marks {
        begin: BEGIN_MARK.to_owned(),
        end: END_MARK.to_owned(),
        // Nothing is in its way there.
        aside: "### balena-migrate ###".to_owned(),
    }
}

/// Seconds at the menu where GRUB would wait for somebody.
pub const MENU_SECONDS: u32 = 10;

/// The entry.
///
/// It is there only when it is what GRUB is about to start, so that no other entry gets another number,
/// by which GRUB_DEFAULT may name it, and so that nobody starts stage 2 from the menu by accident.
/// A menu that waits for ever does not then. `--unrestricted` lets the entry start without the password
/// of a locked menu.
///
/// When the kernel or the initramfs can't be loaded, GRUB would wait at its menu for somebody who
/// never comes: the entry restarts the machine instead, which starts the old system now that
/// `next_entry` is cleared. Going back to grub.cfg would not do: a kernel that is loaded in place of
/// another one gets the command line of the first (seen with GRUB 2.06).
pub(super) fn text(host: &Host, entry: &Entry) -> String {
    let place = |path: &str| quote(&host.path_in_fs(path).unwrap_or_else(|| path.to_owned()));
    let mount = |path: &str| host.mount_of(path).expect("checked: the file system");
    let (kernel, initramfs) = (mount(&entry.kernel), mount(&entry.initramfs));
    let arguments: Vec<String> = entry.arguments.iter().map(|word| quote(word)).collect();
    let mut modules = vec!["part_msdos", "part_gpt"];
    for module in [kernel, initramfs].into_iter().flat_map(modules_for) {
        if !modules.contains(&module) {
            modules.push(module);
        }
    }
    let insmods: String = modules
        .iter()
        .map(|module| format!("\t\tinsmod {module}\n"))
        .collect();
    let second_search = match kernel.uuid == initramfs.uuid {
        true => String::new(),
        false => format!("\t\t\t{}", search(initramfs)),
    };
    format!(
        "{BEGIN_MARK}\n\
         if [ \"${{default}}\" = {ENTRY_ID} ]; then\n\
         \tif [ -z \"${{timeout}}\" -o \"${{timeout}}\" = -1 ]; then set timeout={MENU_SECONDS}; fi\n\
         \tmenuentry 'balena-migrate: move this machine to balenaOS' --id {ENTRY_ID} --unrestricted {{\n\
         {insmods}\
         \t\t{}\
         \t\techo 'Starting balena-migrate, stage 2 ...'\n\
         \t\tif linux {} {}; then\n\
         {second_search}\
         \t\t\tif initrd {}; then boot; fi\n\
         \t\tfi\n\
         \t\techo 'balena-migrate: stage 2 could not be started; the old system starts again.'\n\
         \t\tsleep 5\n\
         \t\treboot\n\
         \t}}\n\
         fi\n\
         {END_MARK}\n",
        search(kernel),
        place(&entry.kernel),
        arguments.join(" "),
        place(&entry.initramfs),
    )
}

fn search(mount: &Mount) -> String {
    let uuid = mount.uuid.as_deref().expect("checked: the file system");
    format!("search --no-floppy --fs-uuid --set=root {uuid}\n")
}

/// The modules of GRUB that read a file system where it lies.
fn modules_for(mount: &Mount) -> Vec<&'static str> {
    let below: &[&str] = match mount.device_name.as_str() {
        name if name.starts_with("dm-") => &["lvm"],
        name if name.starts_with("md") => &["mdraid09", "mdraid1x"],
        _ => &[],
    };
    let file_system = match mount.fs_type.as_str() {
        "ext2" | "ext3" | "ext4" => Some("ext2"),
        "vfat" => Some("fat"),
        "xfs" => Some("xfs"),
        "btrfs" => Some("btrfs"),
        // GRUB has more of them, and looks through all when it searches.
        _ => None,
    };
    below.iter().copied().chain(file_system).collect()
}

/// A word as GRUB's script language takes it literally (GNU GRUB manual, "Quoting").
pub(super) fn quote(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-=,:@+%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}
