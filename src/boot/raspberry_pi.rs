//! The firmware of a Raspberry Pi: config.txt on its boot partition.
//!
//! There is no "once" in config.txt: the firmware starts stage 2 at every boot until the old file is
//! back. Stage 2 puts it back before anything else, so that what can keep the old system away is only a
//! power cut in the seconds before, and that starts stage 2 again.

use super::boot_partition::{self, CMDLINE, INITRAMFS};
use super::config_txt::{self, Additions};
use super::replaced::{Replaced, leftover};
use super::{Armament, BootLoader, Entry, Files, cmdline, gone, not_once};
use crate::finding::Finding;
use crate::host::Host;
use crate::host::raspberry_pi::{AUTOBOOT, BootPartition, CONFIG, RaspberryPi, TRYBOOT};
use crate::raspberry_pi::board::Bits64;
use crate::raspberry_pi::boot_files::BootFiles;
use crate::secret::Secret;
use crate::step::{Expect, OneShot, Step, Writers};

/// Up to so much memory every bit of it counts.
const SMALL: u64 = 512 << 20;

/// The least that a graphics processor does with, in MiB. It is then given a firmware of its own.
const GPU_MEM: u32 = 16;

/// config.txt.
pub struct ConfigTxt;

impl BootLoader for ConfigTxt {
    fn name(&self) -> &'static str {
        "config.txt"
    }

    fn check(&self, host: &Host) -> Vec<Finding> {
        let Some(board) = &host.firmware.raspberry_pi else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        findings.extend(check_model(board));
        let Some(boot) = &board.boot else {
            findings.push(no_boot_partition());
            return findings;
        };
        findings.extend(boot_partition::check_disk(host, board, boot));
        findings.extend(check_text(boot));
        findings.extend(check_leftover(boot));
        findings.extend(boot_partition::check_autoboot(board, boot));
        findings.extend(check_boots(board));
        findings.extend(check_included(boot));
        findings.extend(check_arguments(host));
        findings.push(not_once(CONFIG));
        findings.extend(boot_partition::menu_first(host, boot));
        findings
    }

    fn files(&self, host: &Host) -> Files {
        let (boot, _) = checked(host);
        Files {
            initramfs: format!("{}/{INITRAMFS}", boot.point),
            kernel: None,
        }
    }

    fn arm(&self, host: &Host, entry: &Entry) -> Armament {
        let Texts {
            boot,
            starts,
            old,
            new,
        } = texts(host);
        let config = format!("{}/{CONFIG}", boot.point);
        let cmdline = cmdline_file(boot);
        let replaced = Replaced {
            path: &config,
            old: &old,
            new,
            mode: MODE,
        };
        let mut old_files = replaced.old_files(host);
        old_files.extend([gone(&cmdline), gone(&entry.initramfs)]);
        let mut steps = vec![write_cmdline(&cmdline, entry)];
        steps.extend(replaced.steps(host));
        Armament {
            steps,
            old_files,
            variables: Vec::new(),
            one_shot: OneShot::ConfigTxt(config),
            summary: format!(
                "config.txt gives the kernel {} an initramfs and a command line of ours; stage 2 puts the \
                 old config.txt back before anything else",
                starts.kernel
            ),
        }
    }
}

/// Permission bits of all files on FAT, unless its mount says otherwise.
pub(super) const MODE: u32 = 0o755;

/// What the firmware reads, and is to read.
pub(super) struct Texts<'a> {
    /// The boot partition.
    pub(super) boot: &'a BootPartition,
    /// What starts from it.
    pub(super) starts: BootFiles,
    /// config.txt as it is.
    pub(super) old: String,
    /// The same with what starts stage 2.
    pub(super) new: String,
}

/// The texts, where a check found no error.
pub(super) fn texts(host: &Host) -> Texts<'_> {
    let (boot, starts) = checked(host);
    let old = boot.texts[CONFIG].clone();
    let board = host.firmware.raspberry_pi.as_ref();
    let either = |board: &&RaspberryPi| {
        let model = board.model();
        model.is_some_and(|model| model.bits_64 == Bits64::Either)
    };
    let new = config_txt::armed(
        &old,
        &Additions {
            initramfs: INITRAMFS,
            cmdline: CMDLINE,
            kernel: &starts.kernel,
            arm_64bit: board.filter(either).map(|board| board.runs_64),
            prefix: &starts.prefix,
            gpu_mem: gpu_mem(host, boot),
        },
    );
    Texts {
        boot,
        starts,
        old,
        new,
    }
}

/// config.txt for a boot partition that starts nothing but stage 2, where a check found no error.
pub fn for_stage2(host: &Host) -> String {
    texts(host).new
}

/// The path of our file with the kernel's command line.
pub(super) fn cmdline_file(boot: &BootPartition) -> String {
    format!("{}/{CMDLINE}", boot.point)
}

pub(super) fn write_cmdline(path: &str, entry: &Entry) -> Step {
    Step::WriteFile {
        path: path.to_owned(),
        content: Secret::new(format!("{}\n", entry.arguments.join(" "))),
        mode: MODE,
        expect: Expect::Anything,
        writers: Writers::People,
    }
}

/// The boot partition, and what starts from it.
fn checked(host: &Host) -> (&BootPartition, BootFiles) {
    let board = host.firmware.raspberry_pi.as_ref();
    let board = board.expect("checked: the board");
    let boot = board.boot.as_ref().expect("checked: the boot partition");
    (boot, board.boots().expect("checked: config.txt"))
}

fn check_model(board: &RaspberryPi) -> Option<Finding> {
    board.model().is_none().then(|| {
        Finding::error(
            "board",
            format!(
                "no Raspberry Pi is known with the revision code {:x}",
                board.revision
            ),
            "send the output of `balena-migrate facts` with your report",
        )
    })
}

fn no_boot_partition() -> Finding {
    Finding::error(
        "boot-partition",
        "no FAT file system with config.txt is mounted at /boot/firmware or /boot",
        "mount the partition that the firmware starts from, as /etc/fstab of the distribution does",
    )
}

fn check_text(boot: &BootPartition) -> Option<Finding> {
    (!boot.texts.contains_key(CONFIG)).then(|| {
        Finding::error(
            "config-txt",
            format!(
                "{}/{CONFIG} is too long, or has bytes that are no UTF-8 text",
                boot.point
            ),
            "write it anew, without such bytes",
        )
    })
}

fn check_leftover(boot: &BootPartition) -> Option<Finding> {
    leftover(&format!("{}/{CONFIG}", boot.point), boot.texts.get(CONFIG)?)
}

/// What the firmware starts is known, and is a kernel.
fn check_boots(board: &RaspberryPi) -> Option<Finding> {
    board.model()?;
    let boot = board.boot.as_ref()?;
    boot.texts.get(CONFIG)?;
    let starts = match board.boots() {
        Ok(starts) => starts,
        Err(why) => {
            return Some(Finding::error(
                "config-txt",
                format!("what the firmware starts can't be told: {why}"),
                "take the section out of config.txt, or end it with [all] and the setting again",
            ));
        }
    };
    if starts.u_boot() {
        return Some(Finding::error(
            "u-boot",
            format!(
                "the firmware starts {} and not Linux, so that its initramfs does not reach Linux",
                starts.kernel
            ),
            "let the firmware start the kernel: Ubuntu 20.10 and later do, after an upgrade too",
        ));
    }
    let known = boot.names.contains(&starts.kernel);
    (!known).then(|| {
        Finding::error(
            "config-txt",
            format!(
                "by {CONFIG} the firmware starts {}, which is not in {}",
                starts.kernel, boot.point
            ),
            "send the output of `balena-migrate facts` with your report",
        )
    })
}

/// A file that config.txt includes stays as it is, and of several initramfs firmware of some years took the
/// files of all.
fn check_included(boot: &BootPartition) -> Option<Finding> {
    let names = |name: &&String| ![CONFIG, AUTOBOOT, TRYBOOT].contains(&name.as_str());
    let mut included = boot.texts.iter().filter(|(name, _)| names(name));
    let (name, _) = included.find(|(_, text)| text.lines().any(config_txt::names_initramfs))?;
    Some(Finding::error(
        "config-txt",
        format!(
            "{name}, which {CONFIG} includes, names an initramfs, beside which ours might not start"
        ),
        format!("move that line from {}/{name} to {CONFIG}", boot.point),
    ))
}

/// The kernel passes over what is behind its limit, and the last argument is what starts stage 2.
fn check_arguments(host: &Host) -> Option<Finding> {
    /// `COMMAND_LINE_SIZE` of arch/arm/include/uapi/asm/setup.h and of arm64; the last byte is a NUL.
    const LIMITS: [usize; 2] = [1024, 2048];
    let given = host.given_cmdline();
    let firmware = host.kernel.cmdline.len().saturating_sub(given.len());
    let ours = cmdline::for_stage2(&given, "/init").join(" ").len();
    let (need, limit) = (
        firmware + 1 + ours,
        LIMITS[usize::from(!host.has_32_bit_kernel())],
    );
    (need >= limit).then(|| {
        Finding::error(
            "arguments",
            format!(
                "the kernel takes less than {limit} bytes of arguments, and with those of the firmware and \
                 of the running kernel stage 2 would have {need}"
            ),
            "make the command line of this system shorter, reboot, then run again",
        )
    })
}

/// What a small machine gives the graphics processor while stage 2 runs. With so little it is started from
/// files of its own.
fn gpu_mem(host: &Host, boot: &BootPartition) -> Option<u32> {
    let model = host.firmware.raspberry_pi.as_ref()?.model()?;
    let files = match model.sections.contains(&"pi4") {
        true => ["start4cd.elf", "fixup4cd.dat"],
        false => ["start_cd.elf", "fixup_cd.dat"],
    };
    let chosen = ["start_x", "start_file", "start_debug"];
    let sets = |line: &str| {
        chosen
            .iter()
            .any(|name| line.trim_start().starts_with(name))
    };
    let fits = host.memory.total <= SMALL
        && files.iter().all(|name| boot.names.contains(*name))
        && !boot.texts.values().flat_map(|text| text.lines()).any(sets);
    fits.then_some(GPU_MEM)
}
