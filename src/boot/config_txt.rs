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

/// What the board is to start besides its kernel.
pub struct Additions<'a> {
    /// The initramfs, by its name on the boot partition.
    pub initramfs: &'a str,
    /// The file with the command line, by its name there.
    pub cmdline: &'a str,
    /// Names are taken with something in front of them (`os_prefix`), so ours say that they are whole.
    pub prefixed: bool,
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
fn names_initramfs(line: &str) -> bool {
    let line = line.trim_start();
    ["initramfs ", "initramfs\t", "ramfsfile=", "ramfsaddr="]
        .iter()
        .any(|start| line.starts_with(start))
}

fn block(additions: &Additions) -> String {
    let slash = if additions.prefixed { "/" } else { "" };
    let mut lines = vec![
        BEGIN.to_owned(),
        "[all]".to_owned(),
        "auto_initramfs=0".to_owned(),
        format!("initramfs {slash}{} followkernel", additions.initramfs),
        format!("cmdline={slash}{}", additions.cmdline),
    ];
    lines.extend(additions.gpu_mem.map(|mib| format!("gpu_mem={mib}")));
    lines.push(END.to_owned());
    debug_assert!(lines.iter().all(|line| line.len() <= LINE_LIMIT));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::raspberry_pi::board::MODELS;
    use crate::raspberry_pi::boot_files::{BootFiles, resolve};
    use crate::raspberry_pi::config_txt::Reader;

    const ADDITIONS: Additions = Additions {
        initramfs: "balena-migrate.img",
        cmdline: "balena-migrate.txt",
        prefixed: false,
        gpu_mem: None,
    };

    const BLOCK: &str = "# balena-migrate: begin. Stage 2 takes this away; so does `balena-migrate undo`.\n\
                         [all]\nauto_initramfs=0\ninitramfs balena-migrate.img followkernel\n\
                         cmdline=balena-migrate.txt\n# balena-migrate: end\n";

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
                let starts = |text: String| {
                    let texts = BTreeMap::from([("config.txt".to_owned(), text)]);
                    let reader = Reader {
                        model,
                        serial: None,
                        texts: &texts,
                        tryboot: false,
                    };
                    resolve(reader, "config.txt", &names)
                };
                let Ok(old) = starts(text.replace("[gpio4=1]", "[none]")) else {
                    panic!("{}: {text}", model.name);
                };
                let additions = Additions {
                    prefixed: !old.prefix.is_empty(),
                    ..ADDITIONS
                };
                let wanted = BootFiles {
                    initramfs: vec!["balena-migrate.img".into()],
                    cmdline: "balena-migrate.txt".into(),
                    ..old
                };
                assert_eq!(
                    starts(armed(text, &additions)),
                    Ok(wanted),
                    "{}: {text}",
                    model.name
                );
            }
        }
    }
}
