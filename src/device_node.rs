//! How block devices are named: sysfs spells a slash in the name of a device file as an exclamation mark
//! (`cciss!c0d0` is `/dev/cciss/c0d0`).

/// The device file of a device that sysfs calls `name`.
pub fn of(name: &str) -> String {
    format!("/dev/{}", name.replace('!', "/"))
}

/// What sysfs calls the device of a device file; `None` when that is not under /dev.
pub fn sysfs_name(node: &str) -> Option<String> {
    Some(node.strip_prefix("/dev/")?.replace('/', "!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_slash_goes_there_and_back() {
        assert_eq!(of("cciss!c0d0"), "/dev/cciss/c0d0");
        assert_eq!(sysfs_name("/dev/cciss/c0d0").unwrap(), "cciss!c0d0");
        assert_eq!(of("sda"), "/dev/sda");
        assert_eq!(sysfs_name("/sys/block/sda"), None);
    }
}
