//! What a machine is apart from its disks' contents and its memory: firmware, and the bus that its
//! disks are on. Turns these into QEMU's arguments.

use std::path::{Path, PathBuf};

use super::machine::copy_sparse;

/// What starts systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Firmware {
    #[default]
    Bios,
    /// OVMF, with variables of its own that outlive the machine's restarts.
    Uefi,
}

/// What its disks are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bus {
    #[default]
    Virtio,
    Nvme,
    Sata,
    Scsi,
}

/// What its processor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Processor {
    /// Code of 32 and of 64 bits.
    #[default]
    Bits64,
    /// Code of 32 bits alone.
    Bits32,
}

impl Processor {
    /// As QEMU calls it: these boot faster under emulation than max, which has more to emulate.
    pub fn name(self) -> &'static str {
        match self {
            Processor::Bits64 => "qemu64",
            Processor::Bits32 => "qemu32",
        }
    }
}

/// The firmware, and the bus of the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Board {
    pub firmware: Firmware,
    pub bus: Bus,
}

impl Board {
    /// A machine with UEFI firmware.
    pub const UEFI: Board = Board {
        firmware: Firmware::Uefi,
        bus: Bus::Virtio,
    };

    /// The firmware, with its variables in the file `variables`, which is made if it is not there.
    pub fn firmware_arguments(self, variables: &Path) -> Vec<String> {
        match self.firmware {
            Firmware::Bios => Vec::new(),
            Firmware::Uefi => {
                let (code, template) = (ovmf("OVMF_CODE_4M.fd"), ovmf("OVMF_VARS_4M.fd"));
                if !variables.exists() {
                    copy_sparse(&template, variables);
                }
                let flash = |unit, options: &str, file: &Path| {
                    let file = file.display();
                    format!("if=pflash,format=raw,unit={unit},{options}file={file}")
                };
                let code = flash(0, "readonly=on,", &code);
                let variables = flash(1, "", variables);
                ["-drive", &code, "-drive", &variables]
                    .map(str::to_owned)
                    .to_vec()
            }
        }
    }

    /// The second serial line, on the character device `id`; the guest calls it ttyS1.
    ///
    /// OVMF takes keys from every line that it knows, and so would GRUB's menu from the agent's: this
    /// one it does not take for a 16550.
    pub fn agent_line(self, id: &str) -> [String; 2] {
        match self.firmware {
            Firmware::Bios => ["-serial".to_owned(), format!("chardev:{id}")],
            Firmware::Uefi => {
                let device = format!("pci-serial,chardev={id},prog_if=0");
                ["-device".to_owned(), device]
            }
        }
    }

    /// What the disks are connected to, where the board itself has no such thing.
    pub fn controller(self) -> Option<&'static str> {
        match self.bus {
            Bus::Virtio | Bus::Nvme => None,
            Bus::Sata => Some("ich9-ahci,id=sata"),
            Bus::Scsi => Some("virtio-scsi-pci,id=scsi"),
        }
    }

    /// The disk number `n` on the block node `node`.
    pub fn disk(self, n: usize, node: &str, serial: &str, sector_bytes: u32) -> String {
        let errors = "werror=report,rerror=report";
        let kind = match self.bus {
            Bus::Virtio => format!("virtio-blk-pci,{errors}"),
            // It has no way but to report errors.
            Bus::Nvme => "nvme".to_owned(),
            Bus::Sata => format!("ide-hd,bus=sata.{n},{errors}"),
            Bus::Scsi => format!("scsi-hd,bus=scsi.0,{errors}"),
        };
        format!(
            "{kind},drive={node},serial={serial},\
             logical_block_size={sector_bytes},physical_block_size={sector_bytes}"
        )
    }
}

/// A file of Debian's package ovmf.
fn ovmf(name: &str) -> PathBuf {
    let path = Path::new("/usr/share/OVMF").join(name);
    assert!(
        path.exists(),
        "there is no {} (util/test installs what is needed)",
        path.display()
    );
    path
}
