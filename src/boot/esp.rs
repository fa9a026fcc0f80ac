//! The EFI system partition as a place for what the firmware, or a boot loader without drivers for
//! other file systems, is to start: copies of the kernel and the initramfs in a folder of our own.

use super::{Files, OldBootFile};
use crate::finding::Finding;
use crate::host::uefi::{Access, Uefi};
use crate::host::{Host, Mount};

/// Our folder.
const FOLDER: &str = "EFI/balena-migrate";

/// Where the EFI system partition of this machine is mounted.
pub fn mount(host: &Host) -> Option<&Mount> {
    host.firmware.uefi.as_ref()?.esp_mount(&host.mounts)
}

/// The files in our folder.
///
/// # Panics
///
/// When the partition is not mounted.
pub fn files(host: &Host) -> Files {
    let point = &mount(host)
        .expect("checked: the EFI system partition")
        .point;
    let point = point.trim_end_matches('/');
    Files {
        initramfs: format!("{point}/{FOLDER}/initramfs.img"),
        kernel: Some(format!("{point}/{FOLDER}/linux.efi")),
    }
}

/// A file of that partition as the firmware names it.
pub fn firmware_path(host: &Host, path: &str) -> String {
    let inside = host.path_in_fs(path);
    inside
        .expect("checked: the EFI system partition")
        .replace('/', "\\")
}

/// What stage 2 removes: the initramfs holds keys, and on another disk than the one that is
/// overwritten it would stay for ever.
pub fn to_remove(files: &Files) -> Vec<OldBootFile> {
    let paths = files.kernel.iter().chain([&files.initramfs]);
    paths
        .map(|path| OldBootFile {
            path: path.clone(),
            old: None,
        })
        .collect()
}

/// What keeps a kernel on that partition from being started by a variable of the firmware.
pub fn check(host: &Host, uefi: &Uefi) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(check_variables(uefi));
    findings.extend(check_mount(host, uefi));
    findings.extend(check_kernel(host));
    findings
}

/// What keeps entries for the firmware from being made.
pub fn check_variables(uefi: &Uefi) -> Option<Finding> {
    const MOUNT: &str = "mount -t efivarfs efivarfs /sys/firmware/efi/efivars";
    let (what, remedy) = match uefi.variables {
        Access::Writable => return None,
        Access::ReadOnly => (
            "the variables of the firmware are mounted read-only",
            "mount -o remount,rw /sys/firmware/efi/efivars".to_owned(),
        ),
        Access::NotMounted => (
            "the variables of the firmware are not mounted",
            format!("{MOUNT}; if that fails, boot a kernel without efi=noruntime"),
        ),
    };
    Some(Finding::error("efi-variables", what, remedy))
}

fn check_mount(host: &Host, uefi: &Uefi) -> Option<Finding> {
    let Some(name) = &uefi.esp else {
        return Some(Finding::error(
            "esp",
            "no EFI system partition was found",
            "mount the partition that the firmware starts this system from at /boot/efi",
        ));
    };
    if !uefi.partitions.contains_key(name) {
        return Some(Finding::error(
            "esp",
            format!("the partition table that names the EFI system partition {name} can't be read"),
            "look at it with a tool for partition tables, and run as root",
        ));
    }
    let mount = uefi.esp_mount(&host.mounts);
    let uuid = mount.and_then(|mount| mount.uuid.as_ref());
    uuid.is_none().then(|| {
        Finding::error(
            "esp-mount",
            format!("the EFI system partition {name} is not mounted"),
            format!("mkdir -p /boot/efi && mount /dev/{name} /boot/efi"),
        )
    })
}

fn check_kernel(host: &Host) -> Option<Finding> {
    let bits = host.firmware.bits();
    let image = host.kernel.image.as_ref()?;
    (host.kernel.efi_stub != Some(bits)).then(|| {
        Finding::error(
            "efi-kernel",
            format!("{image} is no program for the {bits}-bit firmware of this machine"),
            "boot the distribution's own kernel (CONFIG_EFI_STUB) for the firmware's bits",
        )
    })
}
