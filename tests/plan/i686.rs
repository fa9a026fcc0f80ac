//! 32-bit PCs: what moves, and what is refused.

use super::{Row, case, is_for};

/// Runs rows on a captured machine.
#[track_caller]
fn cause(host: &str, rows: &[Row]) {
    for (what, change, codes) in rows {
        let mut case = case(host);
        change(&mut case);
        let findings = case.findings();
        let found: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        assert_eq!(found, *codes, "{what}: {findings:#?}");
    }
}

/// TiB of a disk.
const TIB: u64 = 1 << 40;

#[test]
fn a_32_bit_kernel_on_a_64_bit_processor() {
    cause(
        "debian-12-i686",
        &[
            ("nothing", |_| (), &[]),
            (
                "an older name of the kernel's architecture",
                |c| c.host.machine = "i586".into(),
                &[],
            ),
            (
                "the 64-bit executable, by a personality of 32 bits",
                |c| c.host.executable_arch = "x86_64".into(),
                &[],
            ),
            (
                "an executable for another processor, emulated",
                |c| c.host.executable_arch = "arm".into(),
                &["architecture"],
            ),
            (
                "an image for another processor",
                |c| is_for(c, "raspberrypi3"),
                &["image-device", "config-json-device"],
            ),
        ],
    );
}

#[test]
fn what_a_32_bit_kernel_reaches_of_a_disk() {
    cause(
        "debian-12-i686",
        &[
            (
                "a disk that ends where the kernel's page numbers do",
                |c| c.host.disks[0].bytes = 16 * TIB,
                &[],
            ),
            (
                "a disk beyond that",
                |c| c.host.disks[0].bytes = 16 * TIB + 512,
                &["disk"],
            ),
        ],
    );
}

#[test]
fn what_a_32_bit_kernel_reaches_of_memory() {
    cause(
        "debian-12-i686",
        &[
            (
                "an initramfs that fits the memory, and not the low one",
                |c| {
                    c.host.memory.total = 4 << 30;
                    c.material.initramfs_bytes = 900 << 20;
                },
                &["memory"],
            ),
            (
                "an initramfs that fits both",
                |c| {
                    c.host.memory.total = 4 << 30;
                    c.material.initramfs_bytes = 700 << 20;
                },
                &[],
            ),
        ],
    );
}

#[test]
fn a_processor_without_the_64_bit_mode() {
    cause(
        "debian-12-i686-no-lm",
        &[
            ("an image for 64 bits", |_| (), &["image-device"]),
            ("an image for 32 bits", |c| is_for_32_bits(c), &[]),
            (
                "a processor that says nothing",
                |c| c.host.long_mode = None,
                &["image-device"],
            ),
        ],
    );
    let said = |change: fn(&mut super::Case)| {
        let mut case = case("debian-12-i686-no-lm");
        change(&mut case);
        case.findings().remove(0).what
    };
    assert!(said(|_| ()).contains("no 64-bit mode"));
    assert!(!said(|c| is_for(c, "raspberrypi3")).contains("no 64-bit mode"));
    let by_arch = said(|c| {
        c.scan().boot.os_release.clear();
        let device_type = c.scan().boot.device_type.as_mut().unwrap();
        (device_type.slug, device_type.arch) = (None, Some("amd64".into()));
    });
    assert!(by_arch.contains("no 64-bit mode"), "{by_arch}");
}

/// A processor with 64 bits gets an image that uses them.
#[test]
fn an_image_for_32_bits_is_for_processors_without_more() {
    let rows: &[Row] = &[(
        "an image for 32 bits",
        |c| is_for_32_bits(c),
        &["image-device"],
    )];
    cause("debian-12-i686", rows);
    cause("debian-12-bios", rows);
}

/// What runs now runs in stage 2, which the same kernel starts.
#[test]
fn the_32_bit_executable_on_a_64_bit_kernel() {
    cause(
        "debian-12-bios",
        &[("i686", |c| c.host.executable_arch = "x86".into(), &[])],
    );
}

fn is_for_32_bits(case: &mut super::Case) {
    is_for(case, "qemux86");
    case.scan().boot.device_type.as_mut().unwrap().arch = Some("i386".into());
    let json = balena_migrate::config::balena::inspect(
        "/root/migratecfg/config.json",
        super::CONFIG_JSON
            .replace("genericx86-64-ext", "qemux86")
            .into(),
    );
    case.material.config_json = Some(json);
}
