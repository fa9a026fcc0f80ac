//! The kernel command line of stage 2: the running one, less what belongs to the old root and its
//! comfort.
//!
//! Console and hardware options must survive: some machines don't boot without their `nomodeset`
//! or `no_timer_check`, and nobody sees stage 2 without the right `console=`.

use crate::kernel_args;

/// Arguments, by their names up to `=`, that mean the old root, the old initramfs or comfort.
/// See Documentation/admin-guide/kernel-parameters.txt and the man pages of dracut and systemd.
const DROPPED: &[&str] = &[
    "BOOT_IMAGE",
    "boot",
    "break",
    "crashkernel",
    "cryptdevice",
    "cryptopts",
    "debug",
    "emergency",
    "fastboot",
    "fsck.mode",
    "fsck.repair",
    "init",
    "initrd",
    "ip",
    "loglevel",
    "nfsroot",
    "noplymouth",
    "noresume",
    "panic",
    "quiet",
    "rdinit",
    "recovery",
    "rescue",
    "resume",
    "resume_offset",
    "rhgb",
    "ro",
    "root",
    "rootdelay",
    "rootflags",
    "rootfstype",
    "rootwait",
    "rw",
    "single",
    "splash",
    "vt.handoff",
    "zswap.enabled",
];

/// Beginnings of names that belong to the old initramfs or the old init.
const DROPPED_PREFIXES: &[&str] = &["rd.", "systemd.", "plymouth.", "luks.", "udev."];

/// The arguments of stage 2's kernel, from the running kernel's. `init` is stage 2 in its initramfs.
///
/// `panic=30` sends a machine whose stage 2 dies back to the old system, since the entry is gone.
pub fn for_stage2(running: &str, init: &str) -> Vec<String> {
    kernel_args::split(running)
        .into_iter()
        // What follows `--` goes to the old init.
        .take_while(|argument| argument != "--")
        .filter(|argument| !is_dropped(argument))
        .chain(["panic=30".to_owned(), format!("rdinit={init}")])
        .collect()
}

/// The arguments of a kernel whose initramfs brings up the old root, and then starts stage 2: from the
/// running kernel's, less its comfort and what asks somebody at the console.
///
/// A root that is not found ends in a restart by `panic=30` too. Nothing may resume the memory of the
/// old system from a swap partition.
pub fn for_bring_up(running: &str) -> Vec<String> {
    kernel_args::split(running)
        .into_iter()
        .take_while(|argument| argument != "--")
        .filter(|argument| !is_comfort(argument))
        .chain(["ro", "noresume", "panic=30"].map(str::to_owned))
        .collect()
}

/// Arguments of [`DROPPED`] that belong to the bring-up of the root.
const BRING_UP: &[&str] = &[
    "boot",
    "cryptdevice",
    "cryptopts",
    "fastboot",
    "fsck.mode",
    "fsck.repair",
    "ip",
    "nfsroot",
    "root",
    "rootdelay",
    "rootflags",
    "rootfstype",
    "rootwait",
];

/// Beginnings of such names.
const BRING_UP_PREFIXES: &[&str] = &["rd.", "luks.", "udev."];

/// Names that ask for a shell or a debugger, or choose what happens in place of that.
const SHELL_PREFIXES: &[&str] = &["rd.break", "rd.debug", "rd.emergency", "rd.shell"];

fn is_comfort(argument: &str) -> bool {
    let name = argument.split('=').next().unwrap_or(argument);
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let brings_up = BRING_UP.contains(&name) || starts(BRING_UP_PREFIXES);
    is_dropped(argument) && (!brings_up || starts(SHELL_PREFIXES))
}

fn is_dropped(argument: &str) -> bool {
    let name = argument.split('=').next().unwrap_or(argument);
    // Run levels: a single digit, or S.
    let run_level = matches!(name, "1" | "2" | "3" | "4" | "5" | "S" | "s");
    run_level
        || DROPPED.contains(&name)
        || DROPPED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_and_hardware_options_survive() {
        let line = "BOOT_IMAGE=/boot/vmlinuz-6.1 root=UUID=1-2 ro quiet splash console=tty0 \
                    console=ttyS0,115200 no_timer_check nomodeset resume=UUID=3 \
                    crashkernel=384M-:128M init=/bin/systemd pci=noaer i915.modeset=0";
        assert_eq!(
            for_stage2(line, "/init"),
            [
                "console=tty0",
                "console=ttyS0,115200",
                "no_timer_check",
                "nomodeset",
                "pci=noaer",
                "i915.modeset=0",
                "panic=30",
                "rdinit=/init"
            ]
        );
    }

    #[test]
    fn what_other_distributions_add() {
        let stays = |line: &str| {
            let mut words = for_stage2(line, "/init");
            words.truncate(words.len() - 2);
            words.join(" ")
        };
        assert_eq!(
            stays(
                "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-6.8 root=UUID=1 ro rootflags=subvol=root rhgb quiet"
            ),
            ""
        );
        assert_eq!(
            stays(
                "root=/dev/mapper/rl-root ro crashkernel=1G-4G:192M resume=/dev/mapper/rl-swap \
                 rd.lvm.lv=rl/root rd.luks.uuid=luks-1 console=ttyS0"
            ),
            "console=ttyS0"
        );
        assert_eq!(
            stays(
                "root=UUID=1 splash=silent resume=/dev/sda3 mitigations=auto quiet security=apparmor"
            ),
            "mitigations=auto security=apparmor"
        );
        assert_eq!(stays("root=UUID=1 rw loglevel=3 quiet"), "");
    }

    #[test]
    fn the_bring_up_of_the_root_keeps_what_it_needs() {
        let bring_up = |line: &str| for_bring_up(line).join(" ");
        assert_eq!(
            bring_up(
                "BOOT_IMAGE=/boot/vmlinuz-6.1 root=UUID=1-2 rw quiet splash rootflags=subvol=@ \
                 console=ttyS0 resume=UUID=3 crashkernel=384M init=/bin/systemd fsck.mode=force \
                 systemd.unit=rescue.target -- single"
            ),
            "root=UUID=1-2 rootflags=subvol=@ console=ttyS0 fsck.mode=force ro noresume panic=30"
        );
        assert_eq!(
            bring_up("root=/dev/mapper/rl-root ro rd.lvm.lv=rl/root rd.break=pre-mount rd.shell"),
            "root=/dev/mapper/rl-root rd.lvm.lv=rl/root ro noresume panic=30"
        );
    }

    #[test]
    fn quoted_blanks_stay_together_and_the_old_inits_arguments_go() {
        assert_eq!(
            for_stage2(
                "dyndbg=\"file drivers/usb/* +p\" panic=5 single -- systemd.x 3",
                "/init"
            ),
            [
                "dyndbg=\"file drivers/usb/* +p\"",
                "panic=30",
                "rdinit=/init"
            ]
        );
    }
}
