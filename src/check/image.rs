//! Checks of the OS image: whole, of the right kind, for this machine.

use super::Subject;
use crate::device;
use crate::finding::Finding;
use crate::payload::scan::Scan;

/// Labels that an OS image must have, one for each of its partitions.
const LABELS: [&str; 5] = [
    "resin-boot",
    "resin-rootA",
    "resin-rootB",
    "resin-state",
    "resin-data",
];

/// The image is a whole disk image of balenaOS that fits the disk.
pub fn image(subject: &Subject) -> Vec<Finding> {
    let path = &subject.config.image_name.0;
    let scan = match &subject.material.image {
        Ok(scan) => scan,
        Err(reason) => {
            return vec![Finding::error(
                "image",
                format!("the image {path} can't be used: {reason}"),
                "download it again, and compress it with gzip",
            )];
        }
    };
    if scan.is_flasher() {
        return vec![Finding::error(
            "image-flasher",
            format!("{path} is a flasher image: an installer that carries the OS image inside"),
            format!("take the OS image out of it: extract --img balenaos.img.gz {path}"),
        )];
    }
    let mut findings = Vec::new();
    findings.extend(labels(path, scan));
    findings.extend(fits(subject, path, scan));
    findings
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
    let disk = subject.host.root_disk()?;
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

/// The image is made for this kind of machine, and config.json names the same kind.
pub fn device_type(subject: &Subject) -> Vec<Finding> {
    let Ok(scan) = &subject.material.image else {
        return Vec::new();
    };
    let Some(image_slug) = scan.slug() else {
        return vec![Finding::warning(
            "image-device-unknown",
            "neither os-release nor device-type.json on the image's boot partition says which \
             device it is made for",
            "make sure that it is an unmodified balenaOS image for this machine",
        )];
    };
    let mut findings = Vec::new();
    if !device::fits(subject.host, image_slug) {
        findings.push(Finding::error(
            "image-device",
            format!(
                "the image is made for the device type {image_slug}, which does not fit this \
                 machine"
            ),
            match device::slugs(subject.host).as_slice() {
                [] => "this version knows no device type that fits it".to_owned(),
                slugs => format!("use an image for {}", slugs.join(" or ")),
            },
        ));
    }
    let wanted = subject
        .material
        .config_json
        .as_ref()
        .and_then(|json| json.device_type());
    if let Some(wanted) = wanted.filter(|wanted| !device::same_slug(wanted, image_slug)) {
        findings.push(Finding::error(
            "config-json-device",
            format!("config.json is for the device type {wanted}, the image for {image_slug}"),
            "download config.json and the image for the same device type",
        ));
    }
    findings
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
    let need: u64 = config_json
        .chain(keyfiles)
        .chain(copied)
        .map(|content| content.expose().len() as u64 + CLUSTER)
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
