//! Makes the host snapshot from the running machine. Called by the command line.
//!
//! Reads only. Works without root too, with less to tell, so that the checks can say that root is
//! missing together with all else. The machine may be a captured folder of /proc, /sys, /etc, /boot
//! and /dev.

use anyhow::Context;

use super::{
    Host, Os, State, disks, firmware, grub, initramfs_tools, interfaces, kernel, mappings, mounts,
    network, processor, swaps,
};
use crate::sys::Sys;
use crate::{meminfo, os_release};

/// The journal of the engine: it is there from the first change to the last undo.
const JOURNAL: &str = "/var/lib/balena-migrate/journal";

/// Looks at the machine.
///
/// # Errors
///
/// When something can't be read that every Linux system shows to every user: /proc and /sys.
pub fn collect(sys: &Sys) -> anyhow::Result<Host> {
    let uname = sys.uname().context("asking the kernel for its name")?;
    let text = sys
        .read_text("/proc/meminfo")
        .context("reading /proc/meminfo")?;
    let disks = disks::collect(sys)?;
    let mounts = mounts::collect(sys, &disks)?;
    let firmware = firmware::collect(sys, &disks, &mounts, &uname.machine);
    let kernel = kernel::collect(sys, &mounts, &firmware)?;
    Ok(Host {
        taken: Some(jiff::Timestamp::now().as_second()),
        euid: sys.euid(),
        hostname: hostname(sys).unwrap_or(uname.nodename),
        machine: uname.machine,
        executable_arch: std::env::consts::ARCH.to_owned(),
        long_mode: processor::long_mode(sys),
        os: os_release(sys),
        initramfs_tools: initramfs_tools::collect(sys, &kernel.release),
        kernel,
        firmware,
        memory: meminfo::parse(&text)?,
        disks,
        mounts,
        mappings: mappings::collect(sys),
        swaps: swaps::collect(sys),
        grub: grub::collect(sys),
        network: network::collect(sys),
        interfaces: interfaces::collect(sys),
        addresses: interfaces::addresses(sys),
        state: State {
            journal: sys.exists(JOURNAL),
        },
    })
}

/// The host name as /proc shows it, which a captured machine has kept.
fn hostname(sys: &Sys) -> Option<String> {
    let text = sys.read_text("/proc/sys/kernel/hostname").ok()?;
    Some(text.trim_end().to_owned())
}

fn os_release(sys: &Sys) -> Os {
    ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| sys.read_text(path).ok())
        .map(|text| Os::from_fields(os_release::parse(&text)))
        .unwrap_or_default()
}
