//! Reads what started the kernel. Called by the collector.

use super::{Disk, Firmware, Mount, boot_sector, raspberry_pi, u_boot, uefi};
use crate::efi;
use crate::sys::Sys;

/// Firmware of the machine.
pub(super) fn collect(sys: &Sys, disks: &[Disk], mounts: &[Mount]) -> Firmware {
    let is_efi = sys.exists("/sys/firmware/efi");
    let raspberry_pi = raspberry_pi::collect(sys, mounts);
    let is_other = !is_efi && raspberry_pi.is_none();
    let secure_boot = sys.read_efi(&efi::global("SecureBoot")).ok().flatten();
    Firmware {
        efi: is_efi,
        secure_boot: secure_boot.and_then(|variable| Some(*variable.value.first()? == 1)),
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
    fn model_without_its_end() {
        assert_eq!(
            model(b"Raspberry Pi 4 Model B Rev 1.4\0"),
            "Raspberry Pi 4 Model B Rev 1.4"
        );
    }
}
