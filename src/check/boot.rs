//! Checks of what will start stage 2.

use super::{Subject, initramfs};
use crate::boot;
use crate::finding::Finding;
use crate::host::raspberry_pi::RaspberryPi;

/// The new system's boot loader is not signed for Secure Boot.
pub fn secure_boot(subject: &Subject) -> Vec<Finding> {
    const LOOK: &str = "let the firmware be asked: mount -t efivarfs efivarfs /sys/firmware/efi/efivars; if that \
                        fails, boot a kernel without efi=noruntime, which those with PREEMPT_RT have by default";
    let firmware = &subject.host.firmware;
    let setup_mode = firmware.uefi.as_ref().and_then(|uefi| uefi.setup_mode);
    let found = match (firmware.secure_boot, firmware.kernel_secure_boot) {
        (Some(false), _) => return Vec::new(),
        _ if setup_mode == Some(true) => return Vec::new(),
        (Some(true), _) | (None, Some(true)) => Finding::error(
            "secure-boot",
            "Secure Boot is on, and would not start balenaOS",
            "turn Secure Boot off in the firmware's set-up",
        ),
        (None, None) if !firmware.efi => return Vec::new(),
        (None, Some(false)) => Finding::warning(
            "secure-boot",
            "the variables of the firmware can't be read, and that Secure Boot is off is known from the kernel \
             alone: it takes for off too what only shim was told not to check (mokutil --disable-validation)",
            LOOK,
        ),
        (None, None) => Finding::error(
            "secure-boot",
            "nobody can say whether Secure Boot is on, which would not start balenaOS: the variables of the \
             firmware can't be read, and the kernel was told nothing of it",
            LOOK,
        ),
    };
    vec![found]
}

/// A boot loader that can start an entry once.
pub fn loader(subject: &Subject) -> Vec<Finding> {
    match boot::of(subject.host) {
        Ok(choice) => choice.loader.check(subject.host),
        Err(findings) => findings,
    }
}

/// The running kernel's file, and the modules that stage 2 needs.
pub fn kernel(subject: &Subject) -> Vec<Finding> {
    let mut findings = subject.material.module_findings.clone();
    let host = subject.host;
    let board = host.firmware.raspberry_pi.as_ref();
    // Where u-boot starts Linux, nobody can tell, and the boot loader's own check has said so.
    let by_u_boot = board.is_some_and(|board| board.boots().is_ok_and(|starts| starts.u_boot()));
    if host.kernel.image.is_none() && !by_u_boot {
        let release = &host.kernel.release;
        let (what, to_do) = match board.and_then(RaspberryPi::kernel) {
            Some(next) => (
                format!(
                    "the firmware would start {next}, which is not the running kernel {release} or can't be read"
                ),
                "reboot, so that the installed kernel runs, then run again",
            ),
            None => (
                format!("the file of the running kernel {release} was not found in /boot"),
                "reboot into an installed kernel; a kernel upgrade may have removed the running one",
            ),
        };
        findings.push(Finding::error("kernel", what, to_do));
    }
    findings
}

/// What is secret has a place for root alone: the initramfs, or where that is not one, the file system with the
/// report of stage 2.
pub fn secrets(subject: &Subject) -> Vec<Finding> {
    let host = subject.host;
    let (Ok(choice), Some(target)) = (boot::of(host), subject.target()) else {
        return Vec::new();
    };
    let files = choice.loader.files(host);
    let places = [host.mount_of(&files.initramfs), host.haven(target)];
    let [Some(mount), Some(haven)] = places else {
        return Vec::new();
    };
    if !mount.everybody_reads || !haven.everybody_reads {
        return Vec::new();
    }
    let (name, point) = (&haven.device_name, &haven.point);
    vec![Finding::error(
        "esp-open",
        format!(
            "everybody may read {point}, and stage 2 reaches nothing else where the keys of config.json and of \
             the networks could wait for it"
        ),
        format!("umount {point} && mount -o umask=0077 /dev/{name} {point}, and in /etc/fstab too"),
    )]
}

/// Room for the initramfs, and for the kernel where the boot loader needs a copy.
pub fn room(subject: &Subject) -> Vec<Finding> {
    /// Left free beside it: file systems that are full to the last block break other things.
    const MARGIN: u64 = 4 << 20;
    /// What came out of trials (<https://github.com/raspberrypi/rpi-image-gen/issues/63>).
    const BOARD_LIMIT: u64 = 96 << 20;
    let host = subject.host;
    let files = match boot::of(host) {
        Ok(choice) => choice.loader.files(host),
        Err(_) => boot::Files {
            initramfs: "/boot".to_owned(),
            kernel: None,
        },
    };
    let kernel = match files.kernel {
        Some(_) => host.kernel.room(),
        None => 0,
    };
    let tool = match initramfs::tool(subject) {
        Ok(Some(_)) => host.initramfs_tools.room(),
        Ok(None) | Err(_) => 0,
    };
    let need = subject.material.initramfs_bytes + tool + kernel + MARGIN;
    let Some(mount) = host.mount_of(&files.initramfs) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let initramfs_bytes = subject.material.initramfs_bytes + tool;
    if host.firmware.raspberry_pi.is_some() && initramfs_bytes > BOARD_LIMIT {
        findings.push(Finding::error(
            "initramfs-size",
            format!(
                "the initramfs takes about {} MiB, and the firmware of a Raspberry Pi loads {} at most",
                initramfs_bytes >> 20,
                BOARD_LIMIT >> 20
            ),
            "let INITRAMFS be auto, which makes a small one",
        ));
    }
    if mount.read_only {
        findings.push(Finding::error(
            "boot-read-only",
            format!("{} is mounted read-only", mount.point),
            format!("mount -o remount,rw {}", mount.point),
        ));
    }
    // Nothing could be measured when the size is 0.
    if mount.bytes > 0 && mount.free < need {
        findings.push(Finding::error(
            "boot-room",
            format!(
                "{} has {} KiB free, {} {} KiB",
                mount.point,
                mount.free >> 10,
                match files.kernel {
                    Some(_) => "kernel and initramfs need",
                    None => "the initramfs needs",
                },
                need.div_ceil(1024)
            ),
            "remove old kernels or other files from it",
        ));
    }
    findings
}
