//! `/boot/uEnv.txt` of BeagleBones: settings of u-boot's environment, by which it starts the kernel that
//! `uname_r` names.
//!
//! What u-boot does is in its environment, as scripts that run each other; a file may replace any of them. Ours
//! replaces the one that loads the initramfs (`loadrd`), and the kernel's arguments (`cmdline`): kernel, device
//! tree and overlays stay what u-boot has chosen before.
//! <https://github.com/beagleboard/u-boot> (include/environment/ti/boot.h)
//!
//! There is no "once": u-boot reads the file at every boot, and stage 2 puts the old one back first of all.

use super::config_txt::{BEGIN, END, OUT_OF_THE_WAY};
use super::replaced::leftover;
use super::u_boot;
use super::{Armament, BootLoader, Entry, Files, not_once};
use crate::finding::Finding;
use crate::host::Host;
use crate::host::u_boot::{FIRST_U_ENV, U_ENV, UBoot};

/// Bytes of a command that u-boot takes (CONFIG_SYS_CBSIZE of the AM335x). The kernel's arguments are set by
/// one, in which u-boot's own come first.
const COMMAND_BYTES: usize = 1024;

/// Of these, what is not arguments that the running kernel has.
const OTHER_BYTES: usize = 64;

/// uEnv.txt.
pub struct UEnv;

impl BootLoader for UEnv {
    fn name(&self) -> &'static str {
        "uEnv.txt"
    }

    fn check(&self, host: &Host) -> Vec<Finding> {
        let Some((board, text)) = of(host) else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        findings.extend(u_boot::check_disk(host, board));
        findings.extend(leftover(U_ENV, text));
        findings.extend(check_place(host));
        findings.extend(check_read(host, text));
        findings.extend(check_scripts(board, text));
        findings.extend(check_initramfs(host, board));
        findings.extend(check_length(host));
        findings.push(not_once("uEnv.txt"));
        findings
    }

    fn files(&self, _host: &Host) -> Files {
        u_boot::files()
    }

    fn arm(&self, host: &Host, entry: &Entry) -> Armament {
        let (_, old) = of(host).expect("checked: uEnv.txt");
        let new = armed(old, &entry.initramfs, &entry.arguments.join(" "));
        let summary = format!(
            "{U_ENV} has u-boot load our initramfs, with a command line of ours, for the kernel {}; stage 2 \
             puts the old file back before anything else",
            host.kernel.release
        );
        u_boot::armament(host, entry, U_ENV, old, new, summary)
    }
}

/// The board, and the text of its uEnv.txt.
fn of(host: &Host) -> Option<(&UBoot, &str)> {
    let board = host.firmware.u_boot.as_ref()?;
    Some((board, board.u_env.as_ref()?))
}

/// The value that a text sets; of several lines the last one counts.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let lines = text.lines().map(str::trim_start);
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.next_back().map_or("", str::trim_end)
}

/// u-boot reads the file of the first partition, and the initramfs of the same one.
fn check_place(host: &Host) -> Option<Finding> {
    let root = host.mount_of("/")?;
    let part = host.partition(&root.device_name);
    let is_first = part.is_some_and(|(_, part)| part.number == 1);
    let in_root = host.mount_of(U_ENV).is_some_and(|mount| mount.point == "/");
    (!is_first || !in_root).then(|| {
        Finding::error(
            "u-env",
            format!(
                "{U_ENV} is not on the first partition, with /: u-boot may read another one before it"
            ),
            "send the output of `balena-migrate facts` with your report",
        )
    })
}

/// The running kernel was started by this file.
fn check_read(host: &Host, text: &str) -> Option<Finding> {
    let (release, cmdline) = (value(text, "uname_r"), value(text, "cmdline"));
    let (what, remedy) = if release != host.kernel.release {
        (
            format!(
                "{U_ENV} has u-boot start the kernel `{release}`, and {} runs",
                host.kernel.release
            ),
            "set uname_r there to the kernel that is to run, reboot, then run again",
        )
    } else if !u_boot::were_given(host, cmdline) {
        (
            format!(
                "the running kernel did not get the arguments `{cmdline}` that {U_ENV} sets: nobody can tell \
                 that u-boot has read it"
            ),
            "set cmdline there, to quiet for one, reboot, then run again",
        )
    } else {
        return None;
    };
    Some(Finding::error("u-env", what, remedy))
}

/// No file has changed the scripts that ours relies on.
fn check_scripts(board: &UBoot, text: &str) -> Option<Finding> {
    let first = board.first_u_env.as_deref().unwrap_or_default();
    let files = [
        (FIRST_U_ENV, first, &["uenvcmd", "loadrd", "uname_boot"][..]),
        (U_ENV, text, &["loadrd", "uname_boot", "netinstall_enable"]),
    ];
    let mut sets = files.iter().flat_map(|(path, text, names)| {
        let set = names.iter().filter(|name| !value(text, name).is_empty());
        set.map(move |name| (*path, *name))
    });
    let (path, name) = sets.next()?;
    Some(Finding::error(
        "u-env",
        format!("{path} sets {name}: what u-boot starts depends on it"),
        format!("take {name} out of {path}, reboot, then run again"),
    ))
}

/// u-boot runs `loadrd` only where there is an initramfs by the kernel's name.
fn check_initramfs(host: &Host, board: &UBoot) -> Option<Finding> {
    let is_there = host.initramfs_tools.made_bytes.is_some();
    (!board.initramfs || !is_there).then(|| {
        let release = &host.kernel.release;
        Finding::error(
            "u-env",
            format!(
                "u-boot starts the kernel {release} without an initramfs, and would not load ours"
            ),
            format!("update-initramfs -c -k {release}, reboot, then run again"),
        )
    })
}

/// All of the running kernel's arguments come again, behind those of u-boot's own.
fn check_length(host: &Host) -> Option<Finding> {
    let bytes = 2 * host.kernel.cmdline.len() + OTHER_BYTES;
    (bytes > COMMAND_BYTES).then(|| {
        Finding::error(
            "u-env",
            format!(
                "the running kernel has {} bytes of arguments: with ours, u-boot would not take them",
                host.kernel.cmdline.len()
            ),
            format!("make cmdline in {U_ENV} shorter, reboot, then run again"),
        )
    })
}

/// uEnv.txt with an initramfs and arguments of ours.
fn armed(text: &str, initramfs: &str, arguments: &str) -> String {
    let mut armed = String::new();
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("cmdline=") {
            armed.push_str(OUT_OF_THE_WAY);
        }
        armed.push_str(line);
    }
    if !armed.is_empty() && !armed.ends_with('\n') {
        armed.push('\n');
    }
    // `bootpart` and `rdaddr` are u-boot's: the partition that it reads, and where in memory an initramfs goes.
    armed.push_str(&format!(
        "{BEGIN}\n\
         loadrd=load mmc ${{bootpart}} ${{rdaddr}} {initramfs}; setenv rdsize ${{filesize}}\n\
         cmdline={arguments}\n\
         {END}\n"
    ));
    armed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_counts_and_comments_do_not() {
        let text = "#uname_r=0\n uname_r=1\nuname_r=2 \ncmdline=a b=c\nuname_rx=3\n";
        assert_eq!(value(text, "uname_r"), "2");
        assert_eq!(value(text, "cmdline"), "a b=c");
        assert_eq!(value(text, "dtb"), "");
    }

    #[test]
    fn all_but_the_arguments_stays() {
        assert_eq!(
            armed(
                "uname_r=1\r\n#cmdline=x\n cmdline=quiet",
                "/boot/i",
                "ro panic=30"
            ),
            format!(
                "uname_r=1\r\n#cmdline=x\n{OUT_OF_THE_WAY} cmdline=quiet\n{BEGIN}\n\
                 loadrd=load mmc ${{bootpart}} ${{rdaddr}} /boot/i; setenv rdsize ${{filesize}}\n\
                 cmdline=ro panic=30\n{END}\n"
            )
        );
    }
}
