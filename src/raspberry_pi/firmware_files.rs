//! The files of a boot partition that the firmware of a board reads: what another boot partition has to have
//! for it to start the same kernel.

use std::collections::BTreeMap;

use super::board::{Bits64, Model};
use super::boot_files::BootFiles;

/// Ends of the names of firmware, of device trees, and of what is put over those.
const KINDS: [&str; 5] = [".bin", ".elf", ".dat", ".dtb", ".dtbo"];

/// Beginnings of the names of what replaces the boot EEPROM: that is not done twice.
const UPDATES: [&str; 3] = ["recovery", "pieeprom", "vl805"];

/// The files that a board begins with; another boot partition has one of its own.
const FIRST: [&str; 3] = ["config.txt", "tryboot.txt", "autoboot.txt"];

/// Whether the firmware reads the file `path` beside those, given what it `starts`; of that, the kernel.
/// `texts` are the files of settings.
pub fn is_read(path: &str, starts: &BootFiles, texts: &BTreeMap<String, String>) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let is_update = UPDATES.iter().any(|start| name.starts_with(start));
    let is_kind = KINDS.iter().any(|end| name.ends_with(end));
    let is_included = texts.contains_key(path) && !FIRST.contains(&path);
    path == starts.kernel || is_included || is_kind && !is_update
}

/// What a board of this `model` does not start without, and is not among the `paths` of a partition's files: the
/// beginning of a name. Newer boards have more of the firmware in themselves.
pub fn missing<'a>(
    model: &Model,
    paths: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'static str> {
    let needed: &[&str] = match model.bits_64 {
        Bits64::Always => &[],
        _ if model.sections.contains(&"pi4") => &["start4"],
        _ => &["bootcode.bin", "start"],
    };
    let is_there = |name: &str| paths.clone().any(|path| path.starts_with(name));
    needed.iter().copied().find(|name| !is_there(name))
}

#[cfg(test)]
mod tests {
    use super::super::board::MODELS;
    use super::*;

    #[test]
    fn what_each_board_does_not_start_without() {
        let model = |name: &str| MODELS.iter().find(|model| model.name == name).unwrap();
        let of = |name, paths: &[&'static str]| missing(model(name), paths.iter().copied());
        assert_eq!(of("3 Model B", &["bootcode.bin", "start_cd.elf"]), None);
        assert_eq!(of("3 Model B", &["start.elf"]), Some("bootcode.bin"));
        assert_eq!(of("Zero", &["bootcode.bin"]), Some("start"));
        assert_eq!(of("4 Model B", &["start4.elf"]), None);
        assert_eq!(of("4 Model B", &["start.elf"]), Some("start4"));
        assert_eq!(of("5", &[]), None);
    }

    #[test]
    fn the_kernel_that_is_started_and_what_the_firmware_needs_for_it() {
        let starts = BootFiles {
            kernel: "kernel8.img".to_owned(),
            initramfs: vec!["initramfs8".to_owned()],
            cmdline: "cmdline.txt".to_owned(),
            prefix: String::new(),
        };
        let texts = ["config.txt", "extra.txt"].map(|name| (name.to_owned(), String::new()));
        let texts = BTreeMap::from(texts);
        for (path, wanted) in [
            ("bootcode.bin", true),
            ("start4.elf", true),
            ("FIXUP.DAT", true),
            ("bcm2710-rpi-3-b.dtb", true),
            ("overlays/vc4-kms-v3d.dtbo", true),
            ("extra.txt", true),
            ("config.txt", false),
            ("kernel8.img", true),
            ("kernel7.img", false),
            ("initramfs8", false),
            ("cmdline.txt", false),
            ("recovery.bin", false),
            ("issue.txt", false),
            ("overlays/README", false),
        ] {
            assert_eq!(is_read(path, &starts, &texts), wanted, "{path}");
        }
    }
}
