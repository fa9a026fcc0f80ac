//! The boot that is to start stage 2: which one it is, and what became of it where stage 2 has left no report,
//! told from what the boot loader did to its own files. Called by [`super::status`] and [`super::run`].

use crate::boot::grub::INITRAMFS;
use crate::boot::{config_txt, grub, grub_entry, grubenv};
use crate::step::OneShot;
use crate::sys::Sys;

/// What GRUB's files say.
#[derive(Debug, PartialEq, Eq)]
enum Traces {
    /// grubenv is as it was armed.
    Untouched,
    /// Another entry was chosen for the next boot.
    Another(String),
    /// GRUB has cleared it.
    Cleared {
        /// Our entry is still there, which is the first thing that stage 2 takes away.
        entry_left: bool,
    },
    /// grubenv can't be read.
    Unknown,
}

/// What starts stage 2 once the machine is armed, as the beginning of a sentence.
pub(super) fn trigger(one_shot: Option<&OneShot>) -> String {
    match one_shot.and_then(OneShot::reboot_argument) {
        Some(argument) => format!("`reboot '{argument}'`, and no other boot,"),
        None => "The next boot".to_owned(),
    }
}

/// The end of a run without a report, in words.
pub(super) fn without_report(sys: &Sys, one_shot: &OneShot) -> String {
    match one_shot {
        OneShot::Grubenv(path) => by_grub(sys, path),
        OneShot::Variable(name) => by_variable(sys, name),
        OneShot::ConfigTxt(path) | OneShot::UBoot(path) | OneShot::Tryboot(path) => {
            by_firmware(sys, path, one_shot)
        }
    }
}

fn by_grub(sys: &Sys, grubenv: &str) -> String {
    let said = match traces(sys, grubenv) {
        Traces::Untouched => format!(
            "GRUB did not look at {grubenv},\nwhich still has next_entry={}: stage 2 was not \
             started.\n\
             - {}\n\
             - Was the machine restarted without its firmware (kexec), or from a snapshot?\n\
             - Does the GRUB of another system or disk start this one? The firmware's boot order \
             tells.\nThe next boot may still start stage 2.\n",
            grub_entry::ENTRY_ID,
            kernel_by(sys),
        ),
        Traces::Another(entry) => format!(
            "{grubenv}\nsays next_entry={entry} now: somebody has chosen another entry, and stage 2 was \
             not started.\n"
        ),
        Traces::Cleared { entry_left: true } => format!(
            "GRUB took the entry (next_entry is cleared in {grubenv}),\nand stage 2 has not reached this \
             disk: its files of the boot loader are not put back.\n\
             - {}\n\
             - Stage 2 did not find the disk: with LOG_DRIVE its log is on another one.\n\
             - Power was lost before that, or somebody cleared next_entry.\n",
            loading(sys),
        ),
        Traces::Cleared { entry_left: false } => format!(
            "GRUB took the entry (next_entry is cleared in {grubenv}),\nand stage 2 has put the files of \
             the boot loader back. It left no report:\n\
             - Power was lost right after that, or the machine stopped.\n\
             - The file system for its report was not found or is full: LOG_DRIVE may have the log.\n"
        ),
        Traces::Unknown => {
            format!("{grubenv}\ncan't be read, which would tell whether GRUB took the entry.\n")
        }
    };
    whole(&said)
}

/// The same where a variable of the firmware told what to start: whoever starts that removes it first.
fn by_variable(sys: &Sys, name: &str) -> String {
    let short = name.split('-').next().unwrap_or(name);
    let said = match sys.read_efi(name) {
        Err(error) => format!("{error}, which would tell whether stage 2 was started.\n"),
        Ok(Some(_)) => format!(
            "The variable {short} of the firmware is still there: stage 2 was not started.\n\
             - Was the machine restarted without its firmware (kexec)?\n\
             - Does the firmware heed {short}? Some have to be told so in their set-up.\n\
             The next boot may still start stage 2.\n"
        ),
        Ok(None) => format!(
            "The variable {short} was taken, and stage 2 left no report:\n\
             - The kernel or the initramfs could not be loaded: the console tells.\n\
             - Stage 2 did not find the disk: with LOG_DRIVE its log is on another one.\n\
             - Power was lost, or the firmware has forgotten its variables.\n"
        ),
    };
    whole(&said)
}

/// The same on boards: the first act of stage 2 is to put its files back.
fn by_firmware(sys: &Sys, path: &str, one_shot: &OneShot) -> String {
    let text = sys.read_text(path).unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_armed = text.contains(config_txt::BEGIN);
    let said = match (is_armed, one_shot.reboot_argument()) {
        (true, Some(argument)) => format!(
            "{path} is still there: stage 2 was not started.\n\
             - Was the machine restarted by another command than `reboot '{argument}'`, or by its power?\n\
             - Does a program in between pass the argument on? That of BusyBox does not.\n"
        ),
        (true, None) => format!(
            "{path} still names the initramfs of stage 2, which did not start:\n\
             - Does the firmware read another {name}, of another partition or card?\n\
             - The initramfs could not be loaded: the console tells.\n\
             The next boot may still start stage 2.\n"
        ),
        (false, _) => {
            "Stage 2 was started, and has put the files of the firmware back. It left no report:\n\
             - It did not find the disk: with LOG_DRIVE its log is on another one.\n\
             - Power was lost right after that, or the machine stopped.\n"
                .to_owned()
        }
    };
    whole(&said)
}

/// What all begin with.
fn whole(said: &str) -> String {
    format!(
        "A migration was armed, the machine was booted since, and this is the old system, whole.\n{said}"
    )
}

fn traces(sys: &Sys, grubenv: &str) -> Traces {
    let Ok(block) = sys.read_text(grubenv) else {
        return Traces::Unknown;
    };
    match grubenv::get(&block, "next_entry") {
        Some(grub_entry::ENTRY_ID) => Traces::Untouched,
        Some(entry) if !entry.is_empty() => Traces::Another(entry.to_owned()),
        _ => Traces::Cleared {
            entry_left: grub::has_entry(sys, grubenv),
        },
    }
}

/// Whether GRUB has started this system, which names the kernel's file in its arguments.
fn kernel_by(sys: &Sys) -> &'static str {
    let cmdline = sys.read_text("/proc/cmdline").unwrap_or_default();
    match cmdline.contains("BOOT_IMAGE=") {
        true => "Is there a grub.cfg in another place that GRUB reads instead?",
        false => {
            "This kernel was not started by GRUB: there is no BOOT_IMAGE in /proc/cmdline. What has \
                  started it?"
        }
    }
}

/// What may have kept GRUB from starting stage 2.
fn loading(sys: &Sys) -> String {
    match sys.exists(INITRAMFS) {
        true => "GRUB could not load the kernel or the initramfs, or the kernel died: the console tells."
            .to_owned(),
        false => format!("{INITRAMFS} is gone, which GRUB had to load."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efi::{self, Variable};
    use crate::sys::efivars;

    const GRUBENV: &str = "/boot/grub/grubenv";

    /// What is said of a machine with these lines in grubenv, after a change.
    fn said(lines: &str, change: impl FnOnce(&Sys)) -> String {
        let root = tempfile::tempdir().unwrap();
        let sys = Sys::new(root.path());
        for folder in ["/boot", "/boot/grub", "/proc", "/etc", "/etc/grub.d"] {
            sys.make_dir(folder, 0o755).unwrap();
        }
        let block = format!("{:#<1024}", format!("# GRUB Environment Block\n{lines}"));
        write(&sys, GRUBENV, &block);
        write(&sys, "/proc/cmdline", "BOOT_IMAGE=/vmlinuz ro\n");
        write(&sys, INITRAMFS, "");
        change(&sys);
        by_grub(&sys, GRUBENV)
    }

    fn write(sys: &Sys, path: &str, text: &str) {
        sys.write_whole(path, text.as_bytes(), 0o644, None).unwrap();
    }

    const ENTRY: &str = "### BEGIN balena-migrate ###\n";

    #[test]
    fn grub_did_not_look() {
        assert_eq!(
            said("next_entry=balena-migrate\n", |_| ()),
            "A migration was armed, the machine was booted since, and this is the old system, whole.\n\
             GRUB did not look at /boot/grub/grubenv,\n\
             which still has next_entry=balena-migrate: stage 2 was not started.\n\
             - Is there a grub.cfg in another place that GRUB reads instead?\n\
             - Was the machine restarted without its firmware (kexec), or from a snapshot?\n\
             - Does the GRUB of another system or disk start this one? The firmware's boot order \
             tells.\n\
             The next boot may still start stage 2.\n"
        );
        let other = said("next_entry=balena-migrate\n", |sys| {
            write(sys, "/proc/cmdline", "initrd=\\x ro\n");
        });
        assert!(
            other.contains(
                "- This kernel was not started by GRUB: there is no BOOT_IMAGE in /proc/cmdline. What \
                 has started it?\n"
            ),
            "{other}"
        );
    }

    #[test]
    fn grub_took_the_entry_and_nothing_came_back() {
        let never = "A migration was armed, the machine was booted since, and this is the old system, \
                     whole.\n\
                     GRUB took the entry (next_entry is cleared in /boot/grub/grubenv),\n\
                     and stage 2 has not reached this disk: its files of the boot loader are not put \
                     back.\n\
                     - GRUB could not load the kernel or the initramfs, or the kernel died: the console \
                     tells.\n\
                     - Stage 2 did not find the disk: with LOG_DRIVE its log is on another one.\n\
                     - Power was lost before that, or somebody cleared next_entry.\n";
        let custom = |sys: &Sys| write(sys, "/boot/grub/custom.cfg", ENTRY);
        assert_eq!(said("next_entry=\n", custom), never);
        let own = |sys: &Sys| write(sys, "/boot/grub/grub.cfg", ENTRY);
        assert_eq!(said("", own), never);
        let gone = said("next_entry=\n", |sys| {
            custom(sys);
            sys.remove_file(INITRAMFS).unwrap();
        });
        assert!(
            gone.contains("\n- /boot/balena-migrate.img is gone, which GRUB had to load.\n"),
            "{gone}"
        );
    }

    #[test]
    fn stage_2_was_there_and_left_no_report() {
        assert_eq!(
            said("saved_entry=0\n", |sys| {
                write(sys, "/boot/grub/custom.cfg", "menuentry mine {\n}\n");
            }),
            "A migration was armed, the machine was booted since, and this is the old system, whole.\n\
             GRUB took the entry (next_entry is cleared in /boot/grub/grubenv),\n\
             and stage 2 has put the files of the boot loader back. It left no report:\n\
             - Power was lost right after that, or the machine stopped.\n\
             - The file system for its report was not found or is full: LOG_DRIVE may have the log.\n"
        );
    }

    #[test]
    fn a_variable_that_was_taken_or_not() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join(&efivars::DIR[1..])).unwrap();
        let sys = Sys::new(root.path());
        let taken = by_variable(&sys, &efi::boot_next());
        assert!(
            taken.contains("\nThe variable BootNext was taken, and"),
            "{taken}"
        );
        let value = Variable::persistent(efi::numbers_value(&[2]));
        sys.write_efi(&efi::boot_next(), &value).unwrap();
        let left = by_variable(&sys, &efi::boot_next());
        assert!(
            left.contains(
                "\nThe variable BootNext of the firmware is still there: stage 2 was not started"
            ),
            "{left}"
        );
        assert!(left.ends_with("The next boot may still start stage 2.\n"));
    }

    #[test]
    fn a_file_of_a_board_that_was_taken_or_not() {
        let root = tempfile::tempdir().unwrap();
        let sys = Sys::new(root.path());
        sys.make_dir("/boot", 0o755).unwrap();
        for path in ["/boot/config.txt", "/boot/uEnv.txt"] {
            let one_shot = match path.ends_with("uEnv.txt") {
                true => OneShot::UBoot(path.to_owned()),
                false => OneShot::ConfigTxt(path.to_owned()),
            };
            write(&sys, path, config_txt::BEGIN);
            let left = without_report(&sys, &one_shot);
            let name = &path["/boot/".len()..];
            let asked = format!(
                "\n- Does the firmware read another {name}, of another partition or card?\n"
            );
            assert!(left.contains(&asked), "{left}");
            write(&sys, path, "as it was\n");
            let back = without_report(&sys, &one_shot);
            assert!(
                back.contains("\nStage 2 was started, and has put the files"),
                "{back}"
            );
        }
    }

    #[test]
    fn somebody_was_there_before() {
        let other = said("next_entry=2\n", |_| ());
        assert!(
            other.ends_with(
                "/boot/grub/grubenv\nsays next_entry=2 now: somebody has chosen another entry, and \
                 stage 2 was not started.\n"
            ),
            "{other}"
        );
        let gone = said("", |sys| sys.remove_file(GRUBENV).unwrap());
        assert!(
            gone.ends_with("can't be read, which would tell whether GRUB took the entry.\n"),
            "{gone}"
        );
    }
}
