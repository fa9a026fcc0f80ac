//! Reads what started the kernel. Called by the collector.

use super::{Disk, Firmware, Mount, boot_sector, raspberry_pi, u_boot, uefi};
use crate::efi;
use crate::sys::Sys;

/// What started the kernel has told it (kernel: arch/x86/zero-page).
pub(super) const BOOT_PARAMS: &str = "/sys/kernel/boot_params/data";

/// Firmware of the machine. `machine` is that of `uname -m`.
pub(super) fn collect(sys: &Sys, disks: &[Disk], mounts: &[Mount], machine: &str) -> Firmware {
    let is_efi = sys.exists("/sys/firmware/efi");
    let raspberry_pi = raspberry_pi::collect(sys, mounts, machine);
    let is_other = !is_efi && raspberry_pi.is_none();
    let secure_boot = by_variable(sys);
    Firmware {
        efi: is_efi,
        secure_boot,
        kernel_secure_boot: (is_efi && secure_boot.is_none())
            .then(|| by_boot_params(&sys.read(BOOT_PARAMS).ok()?))
            .flatten(),
        bios_disk: (!is_efi).then(|| boot_sector::first_disk(sys)).flatten(),
        uefi: is_efi.then(|| uefi::collect(sys, disks, mounts)),
        device_tree_model: sys
            .read("/proc/device-tree/model")
            .ok()
            .map(|bytes| model(&bytes)),
        raspberry_pi,
        u_boot: is_other.then(|| u_boot::collect(sys)).flatten(),
    }
}

/// What the firmware itself says of Secure Boot; `None` where its variables can't be read.
fn by_variable(sys: &Sys) -> Option<bool> {
    match sys.read_efi(&efi::global("SecureBoot")).ok()? {
        Some(variable) => Some(*variable.value.first()? == 1),
        // Firmware that knows nothing of it has other variables.
        None => (!sys.efi_variables().is_empty()).then_some(false),
    }
}

/// What the kernel was told: `None` where it was started past its EFI stub, or the stub could not tell.
fn by_boot_params(data: &[u8]) -> Option<bool> {
    /// Where `secure_boot` is, one of the kernel's `enum efi_secureboot_mode`.
    const SECURE_BOOT: usize = 0x1ec;
    match data.get(SECURE_BOOT)? {
        2 => Some(false),
        3 => Some(true),
        _ => None,
    }
}

/// A device-tree string ends in a NUL.
fn model(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim_end_matches('\0')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_was_told_of_secure_boot() {
        let of = |mode: u8| {
            let mut data = vec![0; 4096];
            data[0x1ec] = mode;
            by_boot_params(&data)
        };
        assert_eq!([0, 1, 2, 3].map(of), [None, None, Some(false), Some(true)]);
        assert_eq!(by_boot_params(&[3; 0x1ec]), None);
    }

    #[test]
    fn model_without_its_end() {
        assert_eq!(
            model(b"Raspberry Pi 4 Model B Rev 1.4\0"),
            "Raspberry Pi 4 Model B Rev 1.4"
        );
    }
}
