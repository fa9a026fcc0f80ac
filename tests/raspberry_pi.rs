//! What boards start by the files on their boot partitions, by the rules of the firmware's documentation.

use std::collections::{BTreeMap, BTreeSet};

use balena_migrate::raspberry_pi::board::Model;
use balena_migrate::raspberry_pi::boot_files::{BootFiles, resolve};
use balena_migrate::raspberry_pi::config_txt::{LINE_LIMIT, Reader, Settings};

const PI_1: u32 = 0x0010;
const ZERO_W: u32 = 0x90_00c1;
const PI_2: u32 = 0xa0_1041;
const PI_3_PLUS: u32 = 0xa0_20d3;
const PI_4: u32 = 0xc0_3115;
const PI_400: u32 = 0xc0_3130;
const PI_5: u32 = 0xc0_4170;

/// The kernels of Raspberry Pi OS.
const KERNELS: [&str; 5] = [
    "kernel.img",
    "kernel7.img",
    "kernel7l.img",
    "kernel8.img",
    "kernel_2712.img",
];

fn names(more: &[&str]) -> BTreeSet<String> {
    let names = KERNELS.iter().chain(more);
    names.map(|name| (*name).to_owned()).collect()
}

fn texts(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    let files = files.iter();
    files
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

fn reader(revision: u32, texts: &BTreeMap<String, String>) -> Reader<'_> {
    Reader {
        model: Model::of(revision).unwrap(),
        serial: Some(0x1234_abcd),
        texts,
        tryboot: false,
        runs_64: true,
    }
}

fn boots(revision: u32, config: &str, more: &[&str]) -> Result<BootFiles, String> {
    let texts = texts(&[("config.txt", config)]);
    resolve(reader(revision, &texts), "config.txt", &names(more))
}

#[track_caller]
fn kernel(revision: u32, config: &str, more: &[&str]) -> String {
    boots(revision, config, more).unwrap().kernel
}

#[track_caller]
fn initramfs(revision: u32, config: &str, more: &[&str]) -> String {
    boots(revision, config, more).unwrap().initramfs.join(" + ")
}

/// The value of `x` in config.txt, or where it is that nobody can tell.
fn x(revision: u32, config: &str) -> String {
    let texts = texts(&[("config.txt", config)]);
    let settings = Settings::read(reader(revision, &texts), "config.txt");
    match settings.value("x") {
        Ok(value) => value.to_owned(),
        Err(place) => format!("? {place}"),
    }
}

#[test]
fn every_board_has_its_kernel() {
    for (revision, config, wanted) in [
        (PI_1, "", "kernel.img"),
        (PI_1, "arm_64bit=1", "kernel.img"),
        (ZERO_W, "", "kernel.img"),
        (PI_2, "arm_64bit=0", "kernel7.img"),
        (PI_3_PLUS, "arm_64bit=0", "kernel7.img"),
        (PI_3_PLUS, "arm_64bit=1", "kernel8.img"),
        (PI_4, "", "kernel8.img"),
        (PI_4, "arm_64bit=0", "kernel7l.img"),
        (PI_5, "arm_64bit=0", "kernel_2712.img"),
        (PI_5, "kernel=kernel8.img", "kernel8.img"),
        (PI_4, "kernel=mine.img\nkernel=yours.img", "yours.img"),
    ] {
        assert_eq!(
            kernel(revision, config, &[]),
            wanted,
            "{revision:x}: {config}"
        );
    }
    let texts = texts(&[("config.txt", "")]);
    let old = BTreeSet::from(["kernel7l.img".to_owned(), "kernel8.img".to_owned()]);
    let start = |revision, runs_64| {
        let reader = Reader {
            runs_64,
            ..reader(revision, &texts)
        };
        resolve(reader, "config.txt", &old).unwrap().kernel
    };
    // Where nothing is set, firmware of some years prefers the one and firmware of others the other.
    assert_eq!(start(PI_4, false), "kernel7l.img");
    assert_eq!(start(PI_4, true), "kernel8.img");
    assert_eq!(start(PI_3_PLUS, false), "kernel7.img");
    assert_eq!(start(PI_3_PLUS, true), "kernel8.img");
    assert_eq!(start(PI_5, true), "kernel8.img");
}

#[test]
fn the_last_value_of_a_section_in_force_counts() {
    for (revision, config, wanted) in [
        (PI_4, "x=1\nx=2", "2"),
        (PI_4, "x=1\n[pi3]\nx=2", "1"),
        (PI_3_PLUS, "x=1\n[pi3]\nx=2\n[pi3+]\nx=3\n[pi4]\nx=4", "3"),
        (PI_400, "[pi4]\nx=1\n[pi400]\nx=2", "2"),
        (PI_4, "[pi4]\nx=1\n[pi400]\nx=2", "1"),
        (ZERO_W, "[pi1]\nx=1\n[pi0]\nx=2\n[pi02]\nx=3", "2"),
        // Different kinds add up, and [all] ends them.
        (PI_4, "[board-type=0x11]\n[pi3]\nx=1\n[pi4]\nx=2", "2"),
        (PI_4, "[board-type=0x17]\n[pi4]\nx=1\n[all]\nx=2", "2"),
        (PI_4, "[0x1234abcd]\nx=1\n[0x99]\nx=2", "1"),
        (PI_4, "[none]\nx=1", ""),
        (PI_4, "[none]\nx=1\n[all]\nx=2", "2"),
        (PI_4, "[tryboot]\nx=1", ""),
        (PI_4, "[pi99]\nx=1", ""),
        // What nobody can tell matters only where it comes last.
        (PI_4, "[gpio4=1]\nx=1\n[all]\nx=2", "2"),
        (PI_4, "x=2\n[gpio4=1]\nx=1", "? config.txt:3"),
        (PI_4, "[EDID=VSC-TD2220]\nx=1", "? config.txt:2"),
        (PI_4, "[EDID=VSC-TD2220]\n[pi3]\nx=1", ""),
        (PI_4, "[bootvar0=1]\nx=1", "? config.txt:2"),
        // No setting, no section.
        (PI_4, "#x=1\n  # x=2", ""),
        (PI_4, "  x=1\r\n", "1"),
        (PI_4, "x =1\ny x=1", ""),
        (PI_4, "x=a=b", "a=b"),
    ] {
        assert_eq!(x(revision, config), wanted, "{revision:x}: {config}");
    }
}

#[test]
fn a_line_ends_where_the_firmware_stops_to_read() {
    let value = "v".repeat(200);
    assert_eq!(x(PI_4, &format!("x={value}")).len(), LINE_LIMIT - 2);
}

#[test]
fn files_include_others_with_the_sections_in_force() {
    let texts = texts(&[
        (
            "config.txt",
            "[pi4]\ninclude more.txt\nx=2\n[all]\ninclude gone.txt\n",
        ),
        ("more.txt", "x=1\ny=1\n[pi3]\n"),
    ]);
    let settings = Settings::read(reader(PI_4, &texts), "config.txt");
    assert_eq!(settings.value("y"), Ok("1"));
    assert_eq!(settings.value("x"), Ok("1"), "more.txt ends in a section");
    let settings = Settings::read(reader(PI_3_PLUS, &texts), "config.txt");
    assert_eq!(settings.value("y"), Ok(""));
}

#[test]
fn a_file_that_includes_itself_has_an_end() {
    let texts = texts(&[("config.txt", "x=1\ninclude config.txt\n")]);
    let settings = Settings::read(reader(PI_4, &texts), "config.txt");
    assert_eq!(settings.value("x"), Ok("1"));
}

#[test]
fn an_initramfs_is_named_or_goes_with_the_kernel() {
    for (config, wanted) in [
        ("initramfs a.img followkernel", "a.img"),
        ("initramfs a.img 0x00800000", "a.img"),
        ("initramfs a.img 0", "a.img"),
        // Debian's raspi-firmware writes it so.
        (
            "initramfs initrd.img-6.1.0-18-arm64",
            "initrd.img-6.1.0-18-arm64",
        ),
        ("initramfs a.img,b.img followkernel", "a.img + b.img"),
        ("ramfsfile=c.img\nramfsaddr=-1", "c.img"),
        ("initramfs=a.img", ""),
        ("#initramfs a.img followkernel", ""),
        (
            "initramfs a.img followkernel\n[pi3]\ninitramfs b.img followkernel",
            "a.img",
        ),
        ("auto_initramfs=1", "initramfs8"),
        ("auto_initramfs=1\narm_64bit=0", ""),
        ("auto_initramfs=1\nauto_initramfs=0", ""),
    ] {
        assert_eq!(initramfs(PI_4, config, &["initramfs8"]), wanted, "{config}");
    }
}

#[test]
fn a_prefix_counts_where_it_leads_to_a_kernel() {
    let config = "os_prefix=current/\nkernel=vmlinuz\ninitramfs initrd.img followkernel\n";
    let found = boots(PI_4, config, &["current/vmlinuz"]).unwrap();
    let wanted = BootFiles {
        kernel: "current/vmlinuz".into(),
        initramfs: vec!["current/initrd.img".into()],
        cmdline: "current/cmdline.txt".into(),
        prefix: "current/".into(),
    };
    assert_eq!(found, wanted);
    let found = boots(PI_4, config, &["vmlinuz"]).unwrap();
    assert_eq!(
        (found.kernel.as_str(), found.prefix.as_str()),
        ("vmlinuz", "")
    );
    // A slash in front leads past it.
    let config = "os_prefix=current/\ncmdline=/mine.txt\n";
    let found = boots(PI_4, config, &["current/kernel8.img"]).unwrap();
    assert_eq!(found.cmdline, "mine.txt");
    assert_eq!(
        kernel(PI_4, "upstream_kernel=1", &["upstream/kernel8.img"]),
        "upstream/kernel8.img"
    );
    assert_eq!(kernel(PI_4, "upstream_kernel=1", &[]), "kernel8.img");
}

#[test]
fn what_nobody_can_tell_is_said_with_its_place() {
    let config = "[gpio4=1]\nkernel=other.img\n";
    assert_eq!(boots(PI_4, config, &[]), Err("config.txt:2".to_owned()));
}
