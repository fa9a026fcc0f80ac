//! Reads what started the kernel. Called by the collector.

use super::Firmware;
use crate::sys::Sys;

/// The variable of UEFI 32.5, under EFI_GLOBAL_VARIABLE.
const SECURE_BOOT: &str =
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Firmware of the machine.
pub(super) fn collect(sys: &Sys) -> Firmware {
    Firmware {
        efi: sys.exists("/sys/firmware/efi"),
        secure_boot: sys
            .read(SECURE_BOOT)
            .ok()
            .and_then(|bytes| secure_boot(&bytes)),
        device_tree_model: sys
            .read("/proc/device-tree/model")
            .ok()
            .map(|bytes| model(&bytes)),
    }
}

/// A file of efivarfs: four bytes of attributes, then the value (kernel: filesystems/efivarfs).
fn secure_boot(variable: &[u8]) -> Option<bool> {
    variable.get(4).map(|value| *value == 1)
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
    fn secure_boot_is_the_byte_behind_the_attributes() {
        assert_eq!(secure_boot(&[6, 0, 0, 0, 1]), Some(true));
        assert_eq!(secure_boot(&[6, 0, 0, 0, 0]), Some(false));
        assert_eq!(secure_boot(&[6, 0, 0, 0]), None);
    }

    #[test]
    fn model_without_its_end() {
        assert_eq!(
            model(b"Raspberry Pi 4 Model B Rev 1.4\0"),
            "Raspberry Pi 4 Model B Rev 1.4"
        );
    }
}
