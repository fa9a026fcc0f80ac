//! The machines that can be migrated: which balenaOS device types fit them, and on which systems
//! that was tried.
//!
//! One table each; the checks ask them. A further board or system is one more row. Device types are
//! those of balena's device contracts (<https://github.com/balena-io/contracts>).

use crate::host::{Host, Os};

/// A balenaOS device type and the machines that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The slug, as in `deviceType` of config.json and SLUG of the image.
    pub slug: &'static str,
    /// Older names of the same type.
    pub aliases: &'static [&'static str],
    /// `uname -m` of the best kernels that the processors run which it is made for.
    pub machines: &'static [&'static str],
    /// The machines among these.
    pub kind: Kind,
    /// Its image boots by EFI only.
    pub efi_only: bool,
}

/// The kind of machines that a device type is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All that are no boards.
    Pc,
    /// The Raspberry Pis that name it ([`crate::raspberry_pi::board::MODELS`]).
    RaspberryPi,
    /// The board that the device tree calls so, first of all its names.
    Board(&'static str),
}

/// Every device type that can be migrated to.
pub const DEVICES: &[Device] = &[
    Device {
        slug: "intel-nuc",
        aliases: &["nuc"],
        machines: &["x86_64"],
        kind: Kind::Pc,
        efi_only: false,
    },
    Device {
        slug: "genericx86-64-ext",
        aliases: &[],
        machines: &["x86_64"],
        kind: Kind::Pc,
        efi_only: false,
    },
    Device {
        slug: "generic-amd64",
        aliases: &[],
        machines: &["x86_64"],
        kind: Kind::Pc,
        efi_only: true,
    },
    // For processors that none of the others fits.
    Device {
        slug: "qemux86",
        aliases: &[],
        machines: &["i686"],
        kind: Kind::Pc,
        efi_only: false,
    },
    pi(
        "raspberry-pi",
        &["raspberrypi"],
        &["armv6l", "armv7l", "aarch64"],
    ),
    pi("raspberry-pi2", &[], &["armv7l", "aarch64"]),
    pi("raspberrypi3", &[], &["armv7l", "aarch64"]),
    pi("raspberrypi3-64", &[], &["aarch64"]),
    // A Compute Module 3 on a carrier of balena's own.
    pi("fincm3", &[], &["armv7l", "aarch64"]),
    pi("raspberrypi0-2w-64", &[], &["aarch64"]),
    pi("raspberrypi4-64", &[], &["aarch64"]),
    pi("raspberrypi400-64", &[], &["aarch64"]),
    pi("raspberrypicm4-ioboard", &[], &["aarch64"]),
    pi("raspberrypi5", &[], &["aarch64"]),
    beaglebone("beaglebone-black", "ti,am335x-bone-black"),
    beaglebone("beaglebone-green", "ti,am335x-bone-green"),
];

const fn beaglebone(slug: &'static str, board: &'static str) -> Device {
    Device {
        slug,
        aliases: &[],
        machines: &["armv7l"],
        kind: Kind::Board(board),
        efi_only: false,
    }
}

const fn pi(
    slug: &'static str,
    aliases: &'static [&'static str],
    machines: &'static [&'static str],
) -> Device {
    Device {
        slug,
        aliases,
        machines,
        kind: Kind::RaspberryPi,
        efi_only: false,
    }
}

/// A distribution and the versions of it that were tested.
struct Tested {
    /// ID of /etc/os-release.
    id: &'static str,
    /// Oldest VERSION_ID.
    from: &'static str,
    /// Newest VERSION_ID.
    to: &'static str,
}

/// The systems that whole migrations were run on. Others are likely to work: not being here is worth
/// a warning, no more.
const TESTED: &[Tested] = &[Tested {
    id: "debian",
    from: "11",
    to: "13",
}];

impl Device {
    /// The device type of that slug or older name.
    pub fn find(slug: &str) -> Option<&'static Device> {
        DEVICES
            .iter()
            .find(|device| device.slug == slug || device.aliases.contains(&slug))
    }

    /// Whether the device type fits a machine, whatever starts that.
    fn fits(&self, host: &Host) -> bool {
        let firmware = &host.firmware;
        match (self.kind, &firmware.raspberry_pi, &firmware.u_boot) {
            (Kind::RaspberryPi, Some(board), _) => board
                .model()
                .is_some_and(|model| model.slugs.contains(&self.slug)),
            (Kind::Board(name), None, Some(board)) => board.board == name,
            (Kind::Pc, None, None) => self.machines.contains(&host.processor()),
            _ => false,
        }
    }

    /// Whether the firmware of a machine, as it boots now, can start its image.
    fn boots(&self, host: &Host) -> bool {
        host.firmware.efi || !self.efi_only
    }
}

/// Whether the device type `slug` fits a machine, whatever starts that. Unknown slugs fit none.
pub fn fits(host: &Host, slug: &str) -> bool {
    Device::find(slug).is_some_and(|device| device.fits(host))
}

/// Whether the firmware of a machine can start images of the device type `slug`, as far as that is known.
pub fn boots(host: &Host, slug: &str) -> bool {
    Device::find(slug).is_none_or(|device| device.boots(host))
}

/// The slugs that fit a machine, as it boots now.
pub fn slugs(host: &Host) -> Vec<&'static str> {
    DEVICES
        .iter()
        .filter(|device| device.fits(host) && device.boots(host))
        .map(|device| device.slug)
        .collect()
}

/// Whether two slugs name one device type, be it by an older name.
pub fn same_slug(a: &str, b: &str) -> bool {
    a == b || Device::find(a).is_some_and(|device| Device::find(b) == Some(device))
}

/// Whether code of an architecture, by balena's name of it, runs on a machine; `None` for names that
/// are not known here.
pub fn arch_fits(host: &Host, arch: &str) -> Option<bool> {
    Some(processors(arch)?.contains(&host.processor()))
}

/// `uname -m` of the best kernels on the processors that run the code of an architecture.
fn processors(arch: &str) -> Option<&'static [&'static str]> {
    // Newer processors run the code of older ones.
    Some(match arch {
        "amd64" => &["x86_64"],
        "i386" => &["i686", "x86_64"],
        "aarch64" => &["aarch64"],
        "armv7hf" => &["armv7l", "aarch64"],
        "rpi" => &["armv6l", "armv7l", "aarch64"],
        _ => return None,
    })
}

/// Whether `made_for`, a slug or an architecture, would fit if the processor had the 64-bit mode of
/// x86.
pub fn wants_long_mode(host: &Host, made_for: &str) -> bool {
    let device = Device::find(made_for).map(|device| device.machines);
    let machines = device.or_else(|| processors(made_for)).unwrap_or_default();
    host.processor() == "i686" && machines.contains(&"x86_64") && !machines.contains(&"i686")
}

/// Whether whole migrations were run on this system.
pub fn is_tested(os: &Os) -> bool {
    let version = version(&os.version_id);
    TESTED.iter().any(|tested| {
        tested.id == os.id
            && (self::version(tested.from)..=self::version(tested.to)).contains(&version)
    })
}

/// The tested systems in words, such as `debian 11 to 13`.
pub fn tested_systems() -> String {
    let systems: Vec<String> = TESTED
        .iter()
        .map(|tested| match tested.from == tested.to {
            true => format!("{} {}", tested.id, tested.from),
            false => format!("{} {} to {}", tested.id, tested.from, tested.to),
        })
        .collect();
    systems.join(", ")
}

/// A VERSION_ID as numbers that compare: `22.04` is `[22, 4]`.
fn version(text: &str) -> Vec<u32> {
    text.split('.')
        .map_while(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raspberry_pi::board::MODELS;

    fn os(id: &str, version_id: &str) -> Os {
        Os {
            id: id.into(),
            version_id: version_id.into(),
            ..Os::default()
        }
    }

    #[test]
    fn slugs_and_older_names_are_found() {
        assert!(same_slug("nuc", "intel-nuc"));
        assert!(same_slug("raspberrypi3", "raspberrypi3"));
        assert!(!same_slug("raspberrypi3", "raspberrypi4-64"));
        assert!(!same_slug("intel-nuc", "generic-amd64"));
        assert!(Device::find("generic-amd64").is_some_and(|device| device.efi_only));
        assert_eq!(Device::find("raspberrypi3+"), None);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = DEVICES
            .iter()
            .flat_map(|device| device.aliases.iter().chain([&device.slug]).copied())
            .collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_type_of_a_raspberry_pi_is_known() {
        for slug in MODELS.iter().flat_map(|model| model.slugs) {
            assert!(
                Device::find(slug).is_some_and(|device| device.kind == Kind::RaspberryPi),
                "{slug}"
            );
        }
    }

    #[test]
    fn only_tested_versions_are_tested() {
        assert!(is_tested(&os("debian", "11")));
        assert!(is_tested(&os("debian", "13")));
        assert!(!is_tested(&os("debian", "10")));
        assert!(!is_tested(&os("debian", "14")));
        assert!(!is_tested(&os("debian", "")));
        assert!(!is_tested(&os("ubuntu", "12")));
        assert_eq!(tested_systems(), "debian 11 to 13");
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("9") < version("12"));
        assert!(version("22.04") < version("22.10"));
    }
}
