//! What holds for a board that u-boot starts, by whatever file. Called by [`super::u_env`] and
//! [`super::extlinux`].

use super::replaced::Replaced;
use super::{Armament, Entry, Files, gone};
use crate::finding::Finding;
use crate::host::Host;
use crate::host::u_boot::UBoot;
use crate::kernel_args;
use crate::step::OneShot;

/// The initramfs, beside the kernel.
const INITRAMFS: &str = "/boot/balena-migrate.img";

/// Permission bits of a file that is made; one that is there keeps its own.
const MODE: u32 = 0o644;

/// What u-boot reads beside the system's own kernel.
pub(super) fn files() -> Files {
    Files {
        initramfs: INITRAMFS.to_owned(),
        kernel: None,
    }
}

/// Has u-boot read `new` in the file `path`, which is `old` yet: with that back, the initramfs does nothing.
pub(super) fn armament(
    host: &Host,
    entry: &Entry,
    path: &str,
    old: &str,
    new: String,
    summary: String,
) -> Armament {
    let replaced = Replaced {
        path,
        old,
        new,
        mode: MODE,
    };
    let mut old_files = replaced.old_files(host);
    old_files.push(gone(&entry.initramfs));
    Armament {
        steps: replaced.steps(host),
        old_files,
        variables: Vec::new(),
        one_shot: OneShot::UBoot(path.to_owned()),
        summary,
    }
}

/// The new system starts from the disk that is overwritten.
pub(super) fn check_disk(host: &Host, board: &UBoot) -> Option<Finding> {
    if !board.is_beaglebone() {
        return None;
    }
    let root = host.root_disk()?;
    let what = match &board.emmc {
        Some(emmc) if *emmc == root.name => return None,
        Some(emmc) => format!(
            "/ is on {}, and this board starts what is on its eMMC ({emmc}) before that",
            root.name
        ),
        None => format!(
            "/ is on {}, which is no eMMC, and this board starts what is on its eMMC before that",
            root.name
        ),
    };
    let remedy = "move the whole system to the eMMC first, or write the image to the card on another machine";
    Some(Finding::error("boot-disk", what, remedy))
}

/// Whether the running kernel got all the arguments that a file gives it, and it gives some: u-boot has then
/// read that file.
pub(super) fn were_given(host: &Host, arguments: &str) -> bool {
    let running = kernel_args::split(&host.kernel.cmdline);
    let given = kernel_args::split(arguments);
    !given.is_empty() && given.iter().all(|argument| running.contains(argument))
}
