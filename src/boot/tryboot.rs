//! `tryboot` of a Raspberry Pi: after a reboot that asks for it the firmware reads tryboot.txt instead of
//! config.txt, for that one boot. Whatever becomes of it, the boot after it goes to the old system.
//!
//! <https://www.raspberrypi.com/documentation/computers/raspberry-pi.html#fail-safe-os-updates-tryboot>

use super::boot_partition;
use super::raspberry_pi::{self, ConfigTxt, Texts};
use super::{Armament, BootLoader, Entry, Files, OldBootFile, gone};
use crate::finding::{Finding, stops};
use crate::host::Host;
use crate::host::raspberry_pi::{CONFIG, RaspberryPi, TRYBOOT};
use crate::raspberry_pi::board::Bits64;
use crate::secret::Secret;
use crate::step::{Expect, OneShot, Step, TRYBOOT_REBOOT, Writers};

/// The first kernel of the makers whose driver passes the argument on.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// tryboot.txt.
pub struct Tryboot;

impl BootLoader for Tryboot {
    fn name(&self) -> &'static str {
        "tryboot"
    }

    fn check(&self, host: &Host) -> Vec<Finding> {
        let findings = ConfigTxt.check(host);
        let Some(board) = &host.firmware.raspberry_pi else {
            return findings;
        };
        if stops(&findings) {
            return findings;
        }
        let why = why_not(host, board);
        why.map(|why| {
            let remedy = "bring the firmware and the kernel up to date";
            Finding::error(
                "tryboot",
                format!("there is no tryboot here: {why}"),
                remedy,
            )
        })
        .into_iter()
        .collect()
    }

    fn files(&self, host: &Host) -> Files {
        ConfigTxt.files(host)
    }

    fn arm(&self, host: &Host, entry: &Entry) -> Armament {
        let Texts {
            boot,
            starts,
            old,
            new,
        } = raspberry_pi::texts(host);
        let path = format!("{}/{TRYBOOT}", boot.point);
        let cmdline = raspberry_pi::cmdline_file(boot);
        let seen = boot
            .texts
            .get(TRYBOOT)
            .map(|text| text.clone().into_bytes());
        debug_assert_ne!(old, new);
        let steps = vec![
            raspberry_pi::write_cmdline(&cmdline, entry),
            Step::WriteFile {
                path: path.clone(),
                content: Secret::new(new),
                mode: raspberry_pi::MODE,
                expect: Expect::Seen(seen.clone()),
                writers: Writers::People,
            },
        ];
        Armament {
            steps,
            old_files: vec![
                OldBootFile {
                    path: path.clone(),
                    old: seen.map(|bytes| (bytes, raspberry_pi::MODE)),
                },
                gone(&cmdline),
                gone(&entry.initramfs),
            ],
            variables: Vec::new(),
            one_shot: OneShot::Tryboot(path),
            summary: format!(
                "a reboot with \"{TRYBOOT_REBOOT}\" starts the kernel {} with an initramfs and a command line \
                 of ours, once ({TRYBOOT}); every other boot is as before, by {CONFIG}",
                starts.kernel
            ),
        }
    }
}

/// Why the firmware or the kernel can't do it.
fn why_not(host: &Host, board: &RaspberryPi) -> Option<String> {
    let model = board.model()?;
    let boot = board.boot.as_ref()?;
    if model.bits_64 != Bits64::Always && !board.knows_tryboot {
        return Some(format!(
            "the firmware in {} is older than it, or that of the board",
            boot.point
        ));
    }
    if let Some(first) = boot_partition::before(host, boot) {
        return Some(format!(
            "{} is started before the partition at {}, and uses it up",
            first.name, boot.point
        ));
    }
    if let Some(what) = boot_partition::autoboot_at_tryboot(board, boot) {
        return Some(what);
    }
    if !board.passes_argument || version(&host.kernel.release) < OLDEST_KERNEL {
        return Some(format!(
            "the kernel {} does not pass the argument of a reboot to the firmware",
            host.kernel.release
        ));
    }
    if boot.names.contains(TRYBOOT) && !boot.texts.contains_key(TRYBOOT) {
        return Some(format!(
            "{}/{TRYBOOT} can't be put back as it was",
            boot.point
        ));
    }
    // A section of config.txt for such boots would count.
    (board.boots() != board.boots_by_tryboot()).then(|| {
        format!(
            "{}/{CONFIG} has another kernel or command line for it",
            boot.point
        )
    })
}

/// The first two numbers of a release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn releases_of_kernels() {
        assert_eq!(version("5.10.103-v7+"), (5, 10));
        assert_eq!(version("6.12.47+rpt-rpi-v8"), (6, 12));
        assert_eq!(version("4.19.66-v7+"), (4, 19));
    }
}
