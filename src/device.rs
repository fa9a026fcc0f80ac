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
    /// How the board's name in the device tree starts; `None` where there is no device tree.
    pub model: Option<&'static str>,
    /// Its image boots by EFI only.
    pub efi_only: bool,
}

/// Every device type that can be migrated to.
pub const DEVICES: &[Device] = &[
    Device {
        slug: "intel-nuc",
        aliases: &["nuc"],
        machines: &["x86_64"],
        model: None,
        efi_only: false,
    },
    Device {
        slug: "genericx86-64-ext",
        aliases: &[],
        machines: &["x86_64"],
        model: None,
        efi_only: false,
    },
    Device {
        slug: "generic-amd64",
        aliases: &[],
        machines: &["x86_64"],
        model: None,
        efi_only: true,
    },
    // For processors that none of the others fits.
    Device {
        slug: "qemux86",
        aliases: &[],
        machines: &["i686"],
        model: None,
        efi_only: false,
    },
];

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
    from: "12",
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
        let model = host.firmware.device_tree_model.as_deref();
        let is_board = match self.model {
            Some(start) => model.is_some_and(|model| model.starts_with(start)),
            None => true,
        };
        is_board && self.machines.contains(&host.processor())
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

/// The tested systems in words, such as `debian 12 to 13`.
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
        assert_eq!(Device::find("raspberrypi3"), None);
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
    fn only_tested_versions_are_tested() {
        assert!(is_tested(&os("debian", "12")));
        assert!(is_tested(&os("debian", "13")));
        assert!(!is_tested(&os("debian", "11")));
        assert!(!is_tested(&os("debian", "14")));
        assert!(!is_tested(&os("debian", "")));
        assert!(!is_tested(&os("ubuntu", "12")));
        assert_eq!(tested_systems(), "debian 12 to 13");
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("9") < version("12"));
        assert!(version("22.04") < version("22.10"));
    }
}
