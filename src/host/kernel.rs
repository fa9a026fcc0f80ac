//! Describes the running kernel, and finds the file that it was started from. Called by the
//! collector.

use std::io::Read;

use anyhow::Context;

use super::{Firmware, Kernel, Mount, arm_kernel};
use crate::sys::Sys;

/// Bytes from the start of a kernel image that hold its version: the setup header of x86 points at
/// most 64 KiB behind itself.
const HEAD_BYTES: u64 = 0x200 + 0x10000 + 256;

/// The running kernel. `mounts` are needed since a boot loader names files as their file system
/// does.
pub(super) fn collect(sys: &Sys, mounts: &[Mount], firmware: &Firmware) -> anyhow::Result<Kernel> {
    let text = |path: &str| {
        let text = sys.read(path).with_context(|| format!("reading {path}"))?;
        anyhow::Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
    };
    let release = text("/proc/sys/kernel/osrelease")?;
    let cmdline = text("/proc/cmdline")?;
    let images = match &firmware.raspberry_pi {
        Some(board) => board.kernel().into_iter().collect(),
        None => candidates(&cmdline, &release, mounts),
    };
    let image = images
        .into_iter()
        .find(|path| is_kernel(sys, path, &release));
    let config = build_config(sys, &release);
    let initramfs_formats = config.as_deref().map(formats);
    let head = image.as_deref().and_then(|path| head_of(sys, path));
    Ok(Kernel {
        release,
        cmdline,
        initramfs_formats,
        page_bytes: sys.page_bytes().context("asking for the page size")?,
        image_bytes: image
            .as_deref()
            .and_then(|path| Some(sys.meta(path).ok()?.bytes)),
        efi_stub: head.as_deref().and_then(efi_stub),
        efi_initrd: config.as_deref().and_then(efi_initrd),
        image,
    })
}

/// Where the image may be, best first: as the boot loader said, then where distributions put it.
fn candidates(cmdline: &str, release: &str, mounts: &[Mount]) -> Vec<String> {
    let mut paths = Vec::new();
    if let Some(path) = boot_image(cmdline) {
        for mount in mounts {
            let subtree = mount.subtree.trim_end_matches('/');
            if let Some(rest) = path.strip_prefix(subtree).filter(|r| r.starts_with('/')) {
                paths.push(format!("{}{rest}", mount.point.trim_end_matches('/')));
            }
        }
        // GRUB names btrfs files from the top of the file system, whatever is mounted.
        paths.push(path.to_owned());
        paths.push(format!("/boot{path}"));
    }
    paths.push(format!("/boot/vmlinuz-{release}"));
    paths.push(format!("/usr/lib/modules/{release}/vmlinuz"));
    paths.push("/boot/vmlinuz".to_owned());
    paths
}

/// The path in `BOOT_IMAGE=` of a kernel command line, without a device such as `(hd0,gpt2)`.
fn boot_image(cmdline: &str) -> Option<&str> {
    let value = cmdline
        .split_whitespace()
        .find_map(|word| word.strip_prefix("BOOT_IMAGE="))?;
    let path = match value.strip_prefix('(') {
        Some(rest) => rest.split_once(')')?.1,
        None => value,
    };
    path.starts_with('/').then_some(path)
}

/// Whether the file at `path` is the kernel of that release, which it may not be any more after an
/// update without a reboot: modules of one release can't be loaded into another.
fn is_kernel(sys: &Sys, path: &str, release: &str) -> bool {
    if !sys.meta(path).is_ok_and(|meta| meta.is_file) {
        return false;
    }
    match head_of(sys, path).and_then(|head| x86_version(&head)) {
        Some(version) => version == release,
        None if path.ends_with(release) => true,
        None => {
            let image = sys.read(path).unwrap_or_default();
            arm_kernel::release(&image).is_some_and(|version| version == release)
        }
    }
}

/// The first bytes of an image.
fn head_of(sys: &Sys, path: &str) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let file = sys.open(path).ok()?;
    file.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    Some(head)
}

/// The bits of the firmware that starts this image as a program of its own: an image with an EFI stub
/// is a PE file too (PE Format, "COFF File Header").
fn efi_stub(head: &[u8]) -> Option<u32> {
    let at = u32::from_le_bytes(head.get(0x3c..0x40)?.try_into().ok()?) as usize;
    let machine = head.get(at..at.checked_add(6)?)?.strip_prefix(b"PE\0\0")?;
    match (head.starts_with(b"MZ"), machine) {
        (true, [0x64, 0x86]) => Some(64),
        (true, [0x4c, 0x01]) => Some(32),
        _ => None,
    }
}

/// Whether a kernel of that configuration takes `initrd=` from the firmware; kernels before 5.8 had
/// no such choice.
fn efi_initrd(config: &str) -> Option<bool> {
    const OPTION: &str = "CONFIG_EFI_GENERIC_STUB_INITRD_CMDLINE_LOADER";
    config.lines().find_map(|line| {
        let rest = line.strip_prefix("# ").unwrap_or(line);
        Some(rest.strip_prefix(OPTION)?.starts_with("=y"))
    })
}

/// The release in the setup header of an x86 kernel (The Linux/x86 Boot Protocol, `kernel_version`).
fn x86_version(head: &[u8]) -> Option<String> {
    if head.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes(head.get(0x20e..0x210)?.try_into().ok()?);
    let text = head.get(0x200 + usize::from(offset)..)?;
    let end = text.iter().position(|byte| matches!(byte, b' ' | 0))?;
    String::from_utf8(text[..end].to_vec()).ok()
}

/// The configuration that the running kernel was built with.
fn build_config(sys: &Sys, release: &str) -> Option<String> {
    let plain = [
        format!("/boot/config-{release}"),
        format!("/usr/lib/modules/{release}/config"),
        format!("/lib/modules/{release}/config"),
    ];
    if let Some(text) = plain.iter().find_map(|path| sys.read_text(path).ok()) {
        return Some(text);
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(sys.open("/proc/config.gz").ok()?)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// The compressions of an initramfs that a kernel of that configuration unpacks, in lower case.
fn formats(config: &str) -> Vec<String> {
    config
        .lines()
        .filter_map(|line| line.strip_prefix("CONFIG_RD_")?.strip_suffix("=y"))
        .map(str::to_ascii_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &str, subtree: &str) -> Mount {
        Mount {
            point: point.into(),
            subtree: subtree.into(),
            device: "8:1".into(),
            device_name: "sda1".into(),
            disks: vec!["sda".into()],
            fs_type: "ext4".into(),
            uuid: None,
            bytes: 0,
            free: 0,
            read_only: false,
            everybody_reads: false,
        }
    }

    #[test]
    fn the_boot_loader_names_the_image() {
        assert_eq!(
            boot_image("BOOT_IMAGE=/boot/vmlinuz-6.1.0-18-amd64 root=UUID=x ro quiet"),
            Some("/boot/vmlinuz-6.1.0-18-amd64")
        );
        assert_eq!(
            boot_image("BOOT_IMAGE=(hd0,msdos1)/vmlinuz-6.5.6 ro"),
            Some("/vmlinuz-6.5.6")
        );
        assert_eq!(boot_image("BOOT_IMAGE=linux auto"), None);
        assert_eq!(boot_image("root=/dev/sda1"), None);
    }

    #[test]
    fn paths_are_seen_through_the_mounts() {
        let separate = [mount("/", "/"), mount("/boot", "/")];
        let paths = candidates("BOOT_IMAGE=/vmlinuz-1", "1", &separate);
        assert_eq!(paths[..2], ["/vmlinuz-1", "/boot/vmlinuz-1"]);
        let subvolume = [mount("/", "/@")];
        let paths = candidates("BOOT_IMAGE=/@/boot/vmlinuz-1", "1", &subvolume);
        assert_eq!(paths[0], "/boot/vmlinuz-1");
    }

    #[test]
    fn paths_as_the_distributions_lay_them_out() {
        let first = |cmdline: &str, mounts: &[Mount]| {
            let dir = tempfile::tempdir().unwrap();
            let sys = Sys::new(dir.path());
            for folder in ["/boot", "/usr", "/usr/lib"] {
                sys.make_dir(folder, 0o755).unwrap();
            }
            sys.write_whole("/boot/vmlinuz-1", b"x", 0o644, None)
                .unwrap();
            let mut paths = candidates(cmdline, "1", mounts).into_iter();
            paths.find(|path| is_kernel(&sys, path, "1"))
        };
        let here = Some("/boot/vmlinuz-1".to_owned());
        // Fedora: a subvolume, and /boot beside it.
        let fedora = [
            mount("/", "/root"),
            mount("/home", "/home"),
            mount("/boot", "/"),
        ];
        assert_eq!(first("BOOT_IMAGE=(hd0,gpt2)/vmlinuz-1 ro", &fedora), here);
        // openSUSE: GRUB names files from the snapshot that it starts.
        let suse = [
            mount("/", "/@/.snapshots/1/snapshot"),
            mount("/boot/grub2/i386-pc", "/@/boot/grub2/i386-pc"),
        ];
        assert_eq!(first("BOOT_IMAGE=/boot/vmlinuz-1 ro", &suse), here);
        // systemd-boot and others say nothing.
        assert_eq!(first("initrd=\\x ro", &[mount("/", "/")]), here);
    }

    #[test]
    fn without_a_hint_the_usual_places() {
        assert_eq!(
            candidates("quiet", "1", &[mount("/", "/")]),
            [
                "/boot/vmlinuz-1",
                "/usr/lib/modules/1/vmlinuz",
                "/boot/vmlinuz"
            ]
        );
    }

    #[test]
    fn an_x86_image_tells_its_release() {
        let mut head = vec![0; 0x400];
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        head[0x300..0x310].copy_from_slice(b"6.1.0-18-amd64 (");
        assert_eq!(x86_version(&head).as_deref(), Some("6.1.0-18-amd64"));
        assert_eq!(x86_version(&head[..0x210]), None);
        assert_eq!(x86_version(&[0; 0x400]), None);
    }

    #[test]
    fn an_image_of_another_release_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sys::new(dir.path());
        let mut head = vec![0; 0x400];
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        head[0x300..0x306].copy_from_slice(b"6.7.1 ");
        sys.write_whole("/vmlinuz-linux", &head, 0o600, None)
            .unwrap();
        assert!(is_kernel(&sys, "/vmlinuz-linux", "6.7.1"));
        assert!(!is_kernel(&sys, "/vmlinuz-linux", "6.7.0"));
        assert!(!is_kernel(&sys, "/vmlinuz", "6.7.1"));
    }

    #[test]
    fn formats_are_those_built_in() {
        let config = "CONFIG_BLK_DEV_INITRD=y\nCONFIG_RD_GZIP=y\n# CONFIG_RD_BZIP2 is not set\n\
                      CONFIG_RD_ZSTD=y\n";
        assert_eq!(formats(config), ["gzip", "zstd"]);
    }
}
