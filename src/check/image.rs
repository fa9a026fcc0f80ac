//! Checks of the OS image: whole, of the right kind, for this machine.

use super::Subject;
use crate::backup::{self, Origin};
use crate::config::shell::quote;
use crate::device;
use crate::efi;
use crate::finding::Finding;
use crate::growth::{DataPlace, TooLarge};
use crate::handover::Firmware;
use crate::host::Host;
use crate::host::raspberry_pi::CONFIG;
use crate::payload::scan::{LABELS, Scan};
use crate::payload::table;

/// The image is a whole disk image of balenaOS that fits the disk.
pub fn image(subject: &Subject) -> Vec<Finding> {
    let path = &subject.config.image_name.0;
    let scan = match &subject.material.image {
        Ok(scan) => scan,
        Err(reason) => {
            return vec![Finding::error(
                "image",
                format!("the image {path} can't be used: {reason}"),
                "give IMAGE_NAME a balenaOS image; if this is one, download it again",
            )];
        }
    };
    if scan.is_flasher() {
        return vec![Finding::error(
            "image-flasher",
            format!("{path} is a flasher image: an installer that carries the OS image inside"),
            format!("take the OS image out of it: {}", extract_command(path)),
        )];
    }
    let mut findings = Vec::new();
    findings.extend(labels(path, scan));
    findings.extend(fits(subject, path, scan));
    findings.extend(sector_size(subject, path));
    findings.extend(firmware(subject, path, scan));
    findings
}

/// The firmware of this machine finds something to start on the image.
fn firmware(subject: &Subject, path: &str, scan: &Scan) -> Option<Finding> {
    let firmware = &subject.host.firmware;
    // GRUB_INSTALL is the answer to an image that lacks its boot loader.
    let gets_grub = subject.material.new_grub.is_some();
    if firmware.kind() == Firmware::Board {
        return for_board(subject.host, path, scan);
    }
    if !firmware.efi {
        let slug = scan
            .slug()
            .filter(|slug| !device::boots(subject.host, slug));
        let what = match slug {
            Some(slug) => format!("is made for {slug}, which starts by UEFI firmware alone"),
            None if !scan.boot_code && !gets_grub => {
                "has no boot code in its first sector".to_owned()
            }
            None => return None,
        };
        return Some(Finding::error(
            "image-firmware",
            format!("{path} {what}, and this machine was started by a BIOS"),
            "use an image that starts by a BIOS, or start this machine by UEFI firmware",
        ));
    }
    let bits = firmware.bits();
    let wanted = efi::removable_loader(bits);
    let has = |name: &&str| scan.boot.efi_loaders.iter().any(|known| known == name);
    // Without its boot partition there is more to say.
    let is_known = scan.partition("resin-boot").is_some();
    (is_known && !gets_grub && !has(&wanted)).then(|| {
        Finding::error(
            "image-firmware",
            format!(
                "{path} has no EFI/BOOT/{wanted} on resin-boot, which the {bits}-bit UEFI firmware \
                 of this machine would start"
            ),
            "use an image that starts by UEFI firmware, or start this machine by its BIOS",
        )
    })
}

/// The boot partition has what the firmware of a board looks for.
fn for_board(host: &Host, path: &str, scan: &Scan) -> Option<Finding> {
    let wanted = match &host.firmware.u_boot {
        Some(board) => board.loader(),
        None => &[CONFIG],
    };
    let has = |wanted: &str| {
        let mut names = scan.boot.names.iter();
        names.any(|name| name.eq_ignore_ascii_case(wanted))
    };
    let missing = wanted.iter().find(|name| !has(name))?;
    // Without its boot partition there is more to say.
    let is_known = scan.partition("resin-boot").is_some();
    is_known.then(|| {
        Finding::error(
            "image-firmware",
            format!(
                "{path} has no {missing} on resin-boot, which the firmware of this board would start by"
            ),
            "use an image for this board",
        )
    })
}

fn labels(path: &str, scan: &Scan) -> Option<Finding> {
    let missing: Vec<&str> = LABELS
        .into_iter()
        .filter(|label| scan.partition(label).is_none())
        .collect();
    (!missing.is_empty()).then(|| {
        Finding::error(
            "image-labels",
            format!(
                "{path} is not a balenaOS image: it has no file system with the label {}",
                missing.join(", ")
            ),
            "give IMAGE_NAME a balenaOS image that fits this machine",
        )
    })
}

fn fits(subject: &Subject, path: &str, scan: &Scan) -> Option<Finding> {
    let disk = subject.target()?;
    (scan.image_bytes > disk.bytes).then(|| {
        Finding::error(
            "image-size",
            format!(
                "{path} unpacks to {} bytes, the disk {} has {}",
                scan.image_bytes, disk.name, disk.bytes
            ),
            "use a larger disk or a smaller image",
        )
    })
}

/// Partition tables count in sectors of the disk, and balenaOS makes its images for one size.
fn sector_size(subject: &Subject, path: &str) -> Option<Finding> {
    let disk = subject.target()?;
    (u64::from(disk.sector_bytes) != table::SECTOR).then(|| {
        Finding::error(
            "image-sector-size",
            format!(
                "the disk {} has sectors of {} bytes, the partition table of {path} is made for \
                 sectors of {}: the new system would not be found on it",
                disk.name,
                disk.sector_bytes,
                table::SECTOR
            ),
            format!("use a disk with sectors of {} bytes", table::SECTOR),
        )
    })
}

/// The command line that takes the OS image out of the flasher image at `path`.
fn extract_command(path: &str) -> String {
    /// What image files of all formats end in.
    const ENDS: [&str; 10] = [
        ".gz",
        ".zip",
        ".xz",
        ".zst",
        ".zstd",
        ".bz2",
        ".img",
        ".raw",
        ".wic",
        ".balenaos-img",
    ];
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let mut stem = name;
    while let Some(shorter) = ENDS.iter().find_map(|end| stem.strip_suffix(end)) {
        stem = shorter;
    }
    let mut image = format!("{stem}.img.gz");
    if image == name {
        // It must not overwrite what it reads.
        image = format!("{stem}-os.img.gz");
    }
    format!(
        "balena-migrate extract --img {} {}",
        quote(&image),
        quote(path)
    )
}

/// The image is made for this kind of machine, and config.json names the same kind.
pub fn device_type(subject: &Subject) -> Vec<Finding> {
    let Ok(scan) = &subject.material.image else {
        return Vec::new();
    };
    if let Some(finding) = contradiction(scan) {
        return vec![finding];
    }
    let host = subject.host;
    let known = scan.boot.device_type.as_ref();
    let arch = known.and_then(|known| known.arch.as_deref());
    let wrong_arch = arch.filter(|arch| device::arch_fits(host, arch) == Some(false));
    let Some(image_slug) = scan.slug() else {
        return vec![match wrong_arch {
            Some(arch) => wrong_machine(subject, "the architecture", arch),
            None => unknown_device(),
        }];
    };
    // A board that was renamed: device-type.json knows names that are newer or older than this program.
    let names: Vec<&str> = known
        .map(|known| known.aliases.iter().map(String::as_str))
        .into_iter()
        .flatten()
        .chain([image_slug])
        .collect();
    let mut findings = Vec::new();
    if !names.iter().any(|name| device::fits(host, name)) {
        findings.push(wrong_machine(subject, "the device type", image_slug));
    } else if let Some(arch) = wrong_arch {
        findings.push(wrong_machine(subject, "the architecture", arch));
    }
    let config_json = subject.material.config_json.as_ref();
    let wanted = config_json.and_then(|json| json.device_type());
    let is_wanted = |wanted: &&str| names.iter().any(|name| device::same_slug(wanted, name));
    if let Some(wanted) = wanted.filter(|wanted| !is_wanted(wanted)) {
        findings.push(Finding::error(
            "config-json-device",
            format!("config.json is for the device type {wanted}, the image for {image_slug}"),
            "download config.json and the image for the same device type",
        ));
    }
    findings
}

/// Two files of the image that name different devices: nobody knows what it was made for.
fn contradiction(scan: &Scan) -> Option<Finding> {
    let known = scan.boot.device_type.as_ref()?;
    let (release, json) = (scan.boot.os_release.get("SLUG")?, known.slug.as_deref()?);
    let same = device::same_slug(release, json) || known.aliases.contains(release);
    (!same && !release.is_empty()).then(|| {
        Finding::error(
            "image-device-contradiction",
            format!(
                "on the image's boot partition os-release names the device type {release}, \
                 device-type.json names {json}"
            ),
            "download the image again; somebody has changed this one",
        )
    })
}

/// `kind` says what `made_for` is.
fn wrong_machine(subject: &Subject, kind: &str, made_for: &str) -> Finding {
    let host = subject.host;
    let what = format!("the image is made for {kind} {made_for}, which does not fit this machine");
    let slugs = device::slugs(host);
    if device::wants_long_mode(host, made_for) {
        return Finding::error(
            "image-device",
            format!(
                "{what}: its processor has no 64-bit mode (no lm among the flags in /proc/cpuinfo)"
            ),
            format!(
                "use a 64-bit machine, or an image for 32 bits ({})",
                slugs.join(" or ")
            ),
        );
    }
    Finding::error(
        "image-device",
        what,
        match slugs.as_slice() {
            [] => "this version knows no device type that fits it".to_owned(),
            slugs => format!("use an image for {}", slugs.join(" or ")),
        },
    )
}

fn unknown_device() -> Finding {
    Finding::warning(
        "image-device-unknown",
        "neither os-release nor device-type.json on the image's boot partition says which \
         device it is made for",
        "make sure that it is an unmodified balenaOS image for this machine",
    )
}

/// What GRUB_INSTALL asks for can be made.
pub fn new_grub(subject: &Subject) -> Vec<Finding> {
    match &subject.material.new_grub {
        None => Vec::new(),
        Some(Ok(new_grub)) => new_grub.findings.clone(),
        Some(Err(finding)) => vec![finding.clone()],
    }
}

/// What goes into the image's boot partition fits: stage 2 could not finish otherwise.
pub fn boot_room(subject: &Subject) -> Vec<Finding> {
    let Ok(scan) = &subject.material.image else {
        return Vec::new();
    };
    /// The largest cluster of FAT: what a file, or a folder, takes at most beyond its size.
    const CLUSTER: u64 = 32 << 10;
    let material = subject.material;
    let config_json = material.config_json.iter().map(|json| &json.bytes);
    let keyfiles = material.keyfiles.iter().map(|keyfile| &keyfile.bytes);
    let copied = material.copied.iter().map(|copied| &copied.bytes);
    let new_grub = material.made_grub().into_iter();
    let grub_files = new_grub.flat_map(|grub| grub.files.iter().map(|file| file.bytes.len()));
    let need: u64 = config_json
        .chain(keyfiles)
        .chain(copied)
        .map(|content| content.expose().len())
        .chain(grub_files)
        .map(|bytes| bytes as u64 + CLUSTER)
        .sum();
    if scan.partition("resin-boot").is_none() || need + CLUSTER <= scan.boot.free {
        return Vec::new();
    }
    vec![Finding::error(
        "image-boot-room",
        format!(
            "resin-boot of the image has {} KiB free, config.json and the network files need {} KiB",
            scan.boot.free >> 10,
            (need + CLUSTER) >> 10
        ),
        "carry fewer networks",
    )]
}

/// The backup has room on resin-data, which can grow for it.
pub fn data_room(subject: &Subject) -> Vec<Finding> {
    let disk = subject.target();
    let image = subject.material.image.as_ref().ok();
    let data = image
        .zip(disk)
        .and_then(|(scan, disk)| DataPlace::of(scan, disk.bytes));
    let Some(data) = data else {
        return Vec::new();
    };
    if backup::origin(subject.config) == Origin::Existing {
        let bytes = subject.material.old_backup.unwrap_or(0);
        let finding = |error: TooLarge| {
            let remedy = "put less into the backup, or use a larger disk";
            Finding::error("backup-size", error.to_string(), remedy)
        };
        return data.end_for(bytes).err().map(finding).into_iter().collect();
    }
    // How well a backup packs is known when it is made.
    let packed = subject.material.backup.size.packed;
    let finding = |error: TooLarge| {
        Finding::warning(
            "backup-size",
            format!("if it does not pack well, {error}"),
            "put less into the backup; what does not fit stops the run, and all is undone",
        )
    };
    data.end_for(packed)
        .err()
        .map(finding)
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::extract_command;

    #[test]
    fn the_extract_command_is_one_to_copy() {
        for (path, command) in [
            (
                "/root/migratecfg/balena.img.zip",
                "balena-migrate extract --img balena.img.gz /root/migratecfg/balena.img.zip",
            ),
            (
                "/home/balena.img.gz",
                "balena-migrate extract --img balena-os.img.gz /home/balena.img.gz",
            ),
            (
                "/home/intel nuc's.img",
                "balena-migrate extract --img 'intel nuc'\\''s.img.gz' '/home/intel nuc'\\''s.img'",
            ),
            (
                "/home/flasher",
                "balena-migrate extract --img flasher.img.gz /home/flasher",
            ),
        ] {
            assert_eq!(extract_command(path), command);
        }
    }
}
