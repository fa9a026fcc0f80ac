//! Finds what the distribution builds an initramfs with. Called by the collector.

use super::InitramfsTools;
use super::grub_tools::find_program;
use crate::sys::Sys;

/// The configuration of initramfs-tools.
const INITRAMFS_CONF: &str = "/etc/initramfs-tools/initramfs.conf";

/// dracut's own folder has its modules.
const DRACUT_MODULES: &str = "/usr/lib/dracut/modules.d";

/// The tools, and what they have made for the kernel of that release.
pub(super) fn collect(sys: &Sys, release: &str) -> InitramfsTools {
    let program = |name: &str, beside: &str| {
        let found = find_program(sys, &[name]);
        found.filter(|_| sys.exists(beside))
    };
    let made = [
        format!("/boot/initrd.img-{release}"),
        format!("/boot/initramfs-{release}.img"),
        format!("/boot/initrd-{release}"),
    ];
    InitramfsTools {
        mkinitramfs: program("mkinitramfs", INITRAMFS_CONF),
        dracut: program("dracut", DRACUT_MODULES),
        made_bytes: made
            .iter()
            .find_map(|path| Some(sys.meta(path).ok()?.bytes)),
    }
}
