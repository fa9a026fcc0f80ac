//! What is kept behind the new system.

use crate::check::Subject;
use crate::check::place::{Choice, ground};
use crate::growth::DataPlace;
use crate::handover::Image;
use crate::payload::scan::Scan;
use crate::place::{self, Waits};
use crate::step::BackupPlace;
use crate::step::core::{self, CoreFirmware};
use crate::step::keep::{Content, Growth, Keep, Wanted};

/// What is kept behind the new system.
pub fn keep(
    subject: &Subject,
    scan: &Scan,
    choice: &Choice,
    image: &Image,
    backup: Option<&BackupPlace>,
    core: Option<&CoreFirmware>,
) -> Option<Keep> {
    if choice.payload != Waits::Extents && core.is_none() {
        return None;
    }
    let ground = ground(subject, scan).expect("checked: the image's place");
    let wanted = |name: &str, path: &str, sha256: Option<String>| Wanted {
        name: name.to_owned(),
        content: Content::Copy {
            path: path.to_owned(),
            in_place: subject
                .host
                .mount_of(path)
                .is_some_and(|mount| mount.device_name == ground.mount.device_name),
            sha256,
        },
        contiguous: false,
        by_firmware: false,
    };
    let path = &subject.config.image_name.0;
    let mut files = Vec::new();
    if choice.payload == Waits::Extents {
        files.push(wanted(place::PAYLOAD, path, Some(scan.file_sha256.clone())));
    }
    if choice.backup == Waits::Extents {
        files.extend(backup.map(|backup| wanted(place::BACKUP, &backup.path, None)));
    }
    if let Some(firmware) = core {
        /// What the hand-over may have beyond what was measured, with all its extents.
        const HANDOVER: u64 = 4 << 20;
        let kernel = &subject.host.kernel;
        files.extend(core::files(
            firmware,
            kernel.image.as_deref().expect("checked: the kernel"),
            kernel.room(),
            subject.material.initramfs_bytes + HANDOVER,
        ));
    }
    Some(Keep {
        folder: ground.folder(),
        layout: ground.layout.clone(),
        disk: ground.disk.name.clone(),
        disk_bytes: ground.disk.bytes,
        sector_bytes: ground.disk.sector_bytes,
        image: image.clone(),
        growth: DataPlace::of(scan, ground.disk.bytes).map(|data| Growth {
            data,
            backup: backup.map(|backup| backup.path.clone()),
            // What is installed goes to resin-boot.
            others: 0,
        }),
        files,
    })
}
