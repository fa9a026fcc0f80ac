//! `/boot/extlinux/extlinux.conf`, by which u-boot starts distributions: a label of ours, and that as the
//! default.
//!
//! u-boot forgets nothing of it, so that stage 2 puts the old file back first of all.

use super::extlinux_conf::{self, Label};
use super::replaced::leftover;
use super::u_boot;
use super::{Armament, BootLoader, Entry, Files, not_once};
use crate::finding::Finding;
use crate::host::Host;
use crate::host::u_boot::{EXTLINUX, UBoot};

/// extlinux.conf.
pub struct Extlinux;

impl BootLoader for Extlinux {
    fn name(&self) -> &'static str {
        "extlinux.conf"
    }

    fn check(&self, host: &Host) -> Vec<Finding> {
        let Some((board, text)) = of(host) else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        findings.extend(u_boot::check_disk(host, board));
        findings.extend(leftover(EXTLINUX, text));
        findings.extend(check_place(host));
        findings.extend(check_label(host, text));
        findings.push(not_once("extlinux.conf"));
        findings
    }

    fn files(&self, _host: &Host) -> Files {
        u_boot::files()
    }

    fn arm(&self, host: &Host, entry: &Entry) -> Armament {
        let (_, old) = of(host).expect("checked: extlinux.conf");
        let label = running(host, old).expect("checked: its label");
        let initramfs = host.path_in_fs(&entry.initramfs);
        let initramfs = initramfs.expect("checked: its file system");
        let arguments = entry.arguments.join(" ");
        let new = extlinux_conf::armed(old, &label, &initramfs, &arguments);
        let summary = format!(
            "a label of ours in {EXTLINUX} is what u-boot starts by default: the kernel {} with an initramfs \
             and a command line of ours; stage 2 puts the old file back before anything else",
            label.kernel
        );
        u_boot::armament(host, entry, EXTLINUX, old, new, summary)
    }
}

/// The board, and the text of its extlinux.conf.
fn of(host: &Host) -> Option<(&UBoot, &str)> {
    let board = host.firmware.u_boot.as_ref()?;
    Some((board, board.extlinux.as_ref()?))
}

/// The label that has started the running kernel: it names its file, and all of its arguments were given.
fn running<'a>(host: &Host, text: &'a str) -> Option<Label<'a>> {
    let kernel = host.path_in_fs(host.kernel.image.as_ref()?)?;
    let mut labels = extlinux_conf::labels(text).into_iter();
    labels.find(|label| label.kernel == kernel && u_boot::were_given(host, label.arguments))
}

/// u-boot reads all of one file system, on the disk to overwrite.
fn check_place(host: &Host) -> Option<Finding> {
    let mount = host.mount_of(EXTLINUX)?;
    let root = host.root_disk()?;
    (mount.disks != [root.name.clone()]).then(|| {
        Finding::error(
            "extlinux",
            format!(
                "{EXTLINUX} is on {}, and / on {}: u-boot would go on to start from the disk that is not \
                 overwritten",
                mount.device_name, root.name
            ),
            "move the whole system to one disk first",
        )
    })
}

/// The running kernel was started by this file.
fn check_label(host: &Host, text: &str) -> Option<Finding> {
    if extlinux_conf::includes(text) {
        return Some(Finding::error(
            "extlinux",
            format!("{EXTLINUX} includes other files, which may start something else"),
            "put all of it into one file",
        ));
    }
    // Without its file, another check has said so.
    let image = host.kernel.image.as_ref()?;
    let beside = host.mount_of(image) == host.mount_of(EXTLINUX);
    (!beside || running(host, text).is_none()).then(|| {
        Finding::error(
            "extlinux",
            format!(
                "no label of {EXTLINUX} has started the running kernel: none names {image} with arguments that \
                 the kernel was given"
            ),
            "start the system by this file, then run again",
        )
    })
}
