//! The firmware itself: a boot entry that is in no boot order, and BootNext (UEFI specification 2.10,
//! 3.1.1). The kernel starts by its EFI stub and finds the initramfs by `initrd=`.
//!
//! The firmware removes BootNext before it starts the entry, so that whatever happens then, the boot
//! after it goes to the old system. That needs no boot loader that can write.

use super::{Armament, BootLoader, Entry, Files, esp};
use crate::efi::load_option::{ACTIVE, HardDrive, LoadOption, Node};
use crate::efi::{self, OUR_ENTRY, Variable};
use crate::finding::Finding;
use crate::host::Host;
use crate::host::uefi::Uefi;
use crate::step::{OneShot, Step};

/// UEFI firmware.
pub struct BootNext;

impl BootLoader for BootNext {
    fn name(&self) -> &'static str {
        "BootNext"
    }

    fn check(&self, host: &Host) -> Vec<Finding> {
        let Some(uefi) = &host.firmware.uefi else {
            return vec![Finding::error(
                "efi-variables",
                "what the firmware says of itself was not looked at",
                "capture the facts of this machine anew",
            )];
        };
        let mut findings = esp::check(host, uefi);
        if host.kernel.efi_initrd == Some(false) {
            findings.push(Finding::error(
                "efi-kernel",
                "the running kernel takes no initramfs from the firmware \
                 (CONFIG_EFI_GENERIC_STUB_INITRD_CMDLINE_LOADER is off)",
                "boot the distribution's own kernel",
            ));
        }
        findings
    }

    fn files(&self, host: &Host) -> Files {
        esp::files(host)
    }

    fn arm(&self, host: &Host, entry: &Entry) -> Armament {
        let uefi = host.firmware.uefi.as_ref().expect("checked: the firmware");
        let number = number(host, uefi, entry);
        let steps = vec![
            Step::WriteVariable {
                name: efi::boot_entry(number),
                variable: Variable::persistent(load_option(host, uefi, entry).to_bytes()),
                must_be_free: true,
            },
            Step::WriteVariable {
                name: efi::boot_next(),
                variable: Variable::persistent(efi::numbers_value(&[number])),
                must_be_free: false,
            },
        ];
        Armament {
            steps,
            old_files: esp::to_remove(&self.files(host)),
            variables: vec![efi::boot_next(), efi::boot_entry(number)],
            one_shot: OneShot::Variable(efi::boot_next()),
            summary: format!(
                "the firmware starts the entry Boot{number:04X} \"{OUR_ENTRY}\" at the next boot, \
                 once (BootNext); every boot after it is as before"
            ),
        }
    }
}

/// The number of our entry: that of the same one, which an earlier run has lost, or one that nothing has.
fn number(host: &Host, uefi: &Uefi, entry: &Entry) -> u16 {
    let partition = uefi.esp.as_ref().and_then(|esp| uefi.partitions.get(esp));
    let file = esp::firmware_path(host, &entry.kernel);
    let mut known = uefi.entries.iter();
    let same = known.find(|known| {
        known.description == OUR_ENTRY
            && known.partition.as_ref() == partition
            && known.file.as_ref() == Some(&file)
    });
    let taken: Vec<u16> = uefi.entries.iter().map(|entry| entry.number).collect();
    let taken = [taken, uefi.boot_order.clone()].concat();
    match same {
        Some(known) => known.number,
        None => efi::free_number(&taken).expect("65536 entries are more than any firmware has"),
    }
}

fn load_option(host: &Host, uefi: &Uefi, entry: &Entry) -> LoadOption {
    let initrd = format!("initrd={}", esp::firmware_path(host, &entry.initramfs));
    let words: Vec<&str> = [initrd.as_str()]
        .into_iter()
        .chain(entry.arguments.iter().map(String::as_str))
        .collect();
    LoadOption {
        attributes: ACTIVE,
        description: OUR_ENTRY.to_owned(),
        path: vec![
            Node::HardDrive(esp_drive(host, uefi)),
            Node::File(esp::firmware_path(host, &entry.kernel)),
        ],
        rest: Vec::new(),
        data: efi::utf16(&words.join(" ")),
    }
}

/// The EFI system partition in a device path.
fn esp_drive(host: &Host, uefi: &Uefi) -> HardDrive {
    let name = uefi
        .esp
        .as_ref()
        .expect("checked: the EFI system partition");
    let (disk, part) = host
        .partition(name)
        .expect("checked: the EFI system partition");
    let sector = u64::from(disk.sector_bytes);
    HardDrive {
        number: part.number,
        start: part.start / sector,
        sectors: part.bytes / sector,
        id: uefi.partitions[name].clone(),
    }
}
