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
    let Some(image_slug) = subject.material.image.as_ref().ok().and_then(Scan::slug) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if !device::fits(subject.host, image_slug) {
        findings.push(Finding::error(
            "image-device",
            format!(
                "the image is made for the device type {image_slug}, which does not fit this \
                 machine"
            ),
            format!(
                "use an image for {}",
                device::slugs(subject.host).join(" or ")
            ),
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
