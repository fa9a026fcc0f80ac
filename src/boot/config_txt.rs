//! config.txt of a Raspberry Pi: a block at its end that adds our initramfs and our command line to the
//! kernel that the board starts anyway.
//!
//! Nothing in it counts for one boot only: stage 2 puts the old file back before anything else.

use crate::raspberry_pi::config_txt::LINE_LIMIT;
use crate::step::marks::Marks;

/// Before the lines of ours.
pub const BEGIN: &str =
    "# balena-migrate: begin. Stage 2 takes this away; so does `balena-migrate undo`.";

/// Behind them.
pub(super) const END: &str = "# balena-migrate: end";

/// What makes a comment of a line that has to be out of the way.
pub(super) const OUT_OF_THE_WAY: &str = "#balena-migrate# ";

/// What tells lines of ours from the others, in every text file that a boot loader reads.
pub fn marks() -> Marks {
    Marks {
        begin: BEGIN.to_owned(),
        end: END.to_owned(),
        aside: OUT_OF_THE_WAY.to_owned(),
    }
}

/// The memory of the graphics processor, for boards of all sizes and of each: these come before the other.
const GPU_MEM: [&str; 4] = ["gpu_mem", "gpu_mem_256", "gpu_mem_512", "gpu_mem_1024"];

/// What the board is to start.
pub struct Additions<'a> {
    /// The initramfs, by its name on the boot partition.
    pub initramfs: &'a str,
    /// The file with the command line, by its name there.
    pub cmdline: &'a str,
    /// The kernel that starts anyway, by its name there.
    pub kernel: &'a str,
    /// Whether it has 64 bits, on boards that start kernels of both kinds.
    pub arm_64bit: Option<bool>,
    /// What is put in front of names that don't say that they are whole (`os_prefix`); mostly nothing.
    pub prefix: &'a str,
    /// The memory of the graphics processor, in MiB, where it is to be another.
    pub gpu_mem: Option<u32>,
}

/// config.txt with the additions.
pub fn armed(text: &str, additions: &Additions) -> String {
    let mut armed = String::new();
    for line in text.split_inclusive('\n') {
        if names_initramfs(line) {
            armed.push_str(OUT_OF_THE_WAY);
        }
        armed.push_str(line);
    }
    if !armed.is_empty() && !armed.ends_with('\n') {
        armed.push('\n');
    }
    armed.push_str(&block(additions));
    armed
}

/// Whether a line names an initramfs, in whatever section. Of several, firmware of some years took the
/// files of all.
pub(super) fn names_initramfs(line: &str) -> bool {
    let line = line.trim_start();
    ["initramfs ", "initramfs\t", "ramfsfile=", "ramfsaddr="]
        .iter()
        .any(|start| line.starts_with(start))
}

/// The kernel is named, since what the firmware chooses without that may change with what is there, or with
/// its next version.
fn block(additions: &Additions) -> String {
    let name = |name: &str| by_name(name, additions.prefix);
    let mut lines = vec![
        BEGIN.to_owned(),
        "[all]".to_owned(),
        format!("kernel={}", name(additions.kernel)),
    ];
    let bits = additions.arm_64bit.map(u8::from);
    lines.extend(bits.map(|bit| format!("arm_64bit={bit}")));
    lines.extend([
        "auto_initramfs=0".to_owned(),
        format!("initramfs {} followkernel", name(additions.initramfs)),
        format!("cmdline={}", name(additions.cmdline)),
    ]);
    for mib in additions.gpu_mem.iter() {
        lines.extend(GPU_MEM.map(|setting| format!("{setting}={mib}")));
    }
    lines.push(END.to_owned());
    debug_assert!(lines.iter().all(|line| line.len() <= LINE_LIMIT));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// How a file of the boot partition is named where `prefix` is put in front. Of what is below it the rest
/// is the name: it is the kernel that shows whether the prefix leads to anything.
fn by_name(name: &str, prefix: &str) -> String {
    match name.strip_prefix(prefix) {
        Some(rest) => rest.to_owned(),
        None => format!("/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::raspberry_pi::board::{Bits64, MODELS};
    use crate::raspberry_pi::boot_files::{BootFiles, resolve};
    use crate::raspberry_pi::config_txt::Reader;

    const ADDITIONS: Additions = Additions {
        initramfs: "balena-migrate.img",
        cmdline: "balena-migrate.txt",
        kernel: "kernel8.img",
        arm_64bit: None,
        prefix: "",
        gpu_mem: None,
    };

    const BLOCK: &str = "# balena-migrate: begin. Stage 2 takes this away; so does `balena-migrate undo`.\n\
                         [all]\nkernel=kernel8.img\nauto_initramfs=0\n\
                         initramfs balena-migrate.img followkernel\ncmdline=balena-migrate.txt\n\
                         # balena-migrate: end\n";

    #[test]
    fn the_block_ends_whatever_section_is_open() {
        assert_eq!(armed("", &ADDITIONS), BLOCK);
        assert_eq!(
            armed("[pi4]\nx=1", &ADDITIONS),
            format!("[pi4]\nx=1\n{BLOCK}")
        );
    }

    #[test]
    fn what_names_an_initramfs_is_out_of_the_way_and_all_else_stays() {
        let text =
            "dtparam=audio=on\r\n  initramfs a.img followkernel\r\ninitramfsx=1\nramfsfile=b\n";
        let wanted = "dtparam=audio=on\r\n#balena-migrate#   initramfs a.img followkernel\r\ninitramfsx=1\n\
                      #balena-migrate# ramfsfile=b\n";
        assert_eq!(armed(text, &ADDITIONS), format!("{wanted}{BLOCK}"));
    }

    #[test]
    fn names_below_a_prefix_and_elsewhere() {
        let additions = Additions {
            kernel: "current/vmlinuz",
            arm_64bit: Some(true),
            prefix: "current/",
            gpu_mem: Some(16),
            ..ADDITIONS
        };
        assert_eq!(
            block(&additions).lines().collect::<Vec<_>>()[1..],
            [
                "[all]",
                "kernel=vmlinuz",
                "arm_64bit=1",
                "auto_initramfs=0",
                "initramfs /balena-migrate.img followkernel",
                "cmdline=/balena-migrate.txt",
                "gpu_mem=16",
                "gpu_mem_256=16",
                "gpu_mem_512=16",
                "gpu_mem_1024=16",
                END
            ]
        );
    }

    /// Every model, by every kind of file, starts the kernel that it has started before.
    #[test]
    fn each_board_starts_its_old_kernel_with_what_is_added() {
        let texts = [
            "",
            "auto_initramfs=1\narm_64bit=1\n[cm4]\notg_mode=1\n[all]\n",
            "[pi4]\nkernel=uncommon.img\ninitramfs a.img followkernel\n[none]\n",
            "os_prefix=current/\ninitramfs initrd.img followkernel\n[board-type=0x99]",
            "kernel=/whole.img\n[gpio4=1]\ncmdline=other.txt\n",
        ];
        let names = [
            "kernel.img",
            "kernel7.img",
            "kernel7l.img",
            "kernel8.img",
            "initramfs8",
        ];
        let names: BTreeSet<String> = names
            .iter()
            .flat_map(|name| [(*name).to_owned(), format!("current/{name}")])
            .collect();
        for model in MODELS {
            for text in texts {
                let starts = |text: String, runs_64| {
                    let texts = BTreeMap::from([("config.txt".to_owned(), text)]);
                    let reader = Reader {
                        model,
                        serial: None,
                        texts: &texts,
                        tryboot: false,
                        runs_64,
                    };
                    resolve(reader, "config.txt", &names)
                };
                for runs_64 in [false, true] {
                    let Ok(old) = starts(text.replace("[gpio4=1]", "[none]"), runs_64) else {
                        panic!("{}: {text}", model.name);
                    };
                    let additions = Additions {
                        kernel: &old.kernel,
                        arm_64bit: (model.bits_64 == Bits64::Either).then_some(runs_64),
                        prefix: &old.prefix,
                        ..ADDITIONS
                    };
                    let wanted = BootFiles {
                        initramfs: vec!["balena-migrate.img".into()],
                        cmdline: "balena-migrate.txt".into(),
                        ..old.clone()
                    };
                    // Also after an update of the firmware, which may choose otherwise.
                    for next in [false, true] {
                        let found = starts(armed(text, &additions), next);
                        assert_eq!(found, Ok(wanted.clone()), "{}: {text}", model.name);
                    }
                }
            }
        }
    }
}
