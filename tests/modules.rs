//! Kernel modules as distributions compress them, with the programs that they use.

use balena_migrate::config::{self, Overrides};
use balena_migrate::host::Host;
use balena_migrate::initramfs::decompress::module as unpacked;
use balena_migrate::material::{self, DiskTests, Material};
use balena_migrate::sys::Sys;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

fn packed_by(program: &str, options: &[&str], content: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("module");
    std::fs::write(&input, content).unwrap();
    let output = Command::new(program)
        .args(options)
        .arg("-c")
        .stdin(std::fs::File::open(&input).unwrap())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success());
    output.stdout
}

fn a_module() -> Vec<u8> {
    let mut module = b"\x7fELF".to_vec();
    module.extend((0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()));
    module
}

#[test]
fn what_the_usual_programs_made() {
    let module = a_module();
    for (program, options, end) in [
        ("gzip", &["-9n"][..], "gz"),
        // As the kernel's own scripts/Makefile.modinst calls them.
        ("xz", &["--check=crc32", "--lzma2=dict=1MiB"], "xz"),
        ("xz", &["--check=crc32", "--x86", "--lzma2=dict=1MiB"], "xz"),
        ("zstd", &["-q", "-T0"], "zst"),
    ] {
        let packed = packed_by(program, options, &module);
        let path = format!("/lib/modules/x/a.ko.{end}");
        assert!(unpacked(&path, packed).unwrap() == module, "{options:?}");
    }
    assert!(unpacked("a.ko", module.clone()).unwrap() == module);
}

#[test]
fn damage_is_an_error() {
    let mut packed = packed_by("gzip", &["-n"], &a_module());
    packed.truncate(packed.len() - 9);
    assert!(unpacked("a.ko.gz", packed).is_err());
    for path in ["a.ko", "a.ko.gz", "a.ko.xz", "a.ko.zst", "a.ko.br"] {
        assert!(unpacked(path, b"junk".to_vec()).is_err(), "{path}");
    }
}

/// The names of the modules that stage 2 gets on this machine.
fn chosen(host: &Host) -> Vec<String> {
    chosen_with(host, "")
}

/// The same with more settings. There is a /dev/sdb.
fn chosen_with(host: &Host, settings: &str) -> Vec<String> {
    let material = gathered(host, settings, "");
    assert_eq!(material.module_findings, []);
    let modules = material.modules.into_iter();
    modules.map(|module| module.name).collect()
}

/// What is gathered on this machine, whose kernel has all modules of its disks but one.
fn gathered(host: &Host, settings: &str, missing: &str) -> Material {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let names = [
        "ext4",
        "vfat",
        "nls_cp437",
        "nvme",
        "ahci",
        "sd_mod",
        "xfs",
        "efivarfs",
        "bcm2835_wdt",
    ];
    let of_disks = host.disks.iter().flat_map(|disk| &disk.modules);
    let names: BTreeSet<&str> = of_disks
        .map(String::as_str)
        .chain(names)
        .filter(|name| *name != missing)
        .collect();
    let dep: String = names.iter().map(|name| format!("{name}.ko:\n")).collect();
    let folder = format!("lib/modules/{}", host.kernel.release);
    write(&format!("{folder}/modules.dep"), &dep);
    for name in names {
        write(&format!("{folder}/{name}.ko"), "\x7fELF");
    }
    write("proc/self/exe", "the program");
    write("dev/sdb", "");
    let text = "IMAGE_NAME=x REQUIRE_NMGR_FILE=FALSE BALENA_API_HOST= BALENA_VPN_HOST=\n";
    let text = format!("{text}{settings}");
    let config = config::merge("c", &text, "/mig", &Overrides::default()).unwrap();
    let sys = Sys::new(root.path());
    material::gather(&sys, &config, host, DiskTests::Never, &mut |_| ()).unwrap()
}

#[test]
fn uefi_machines_get_what_shows_the_variables_and_reaches_the_esp() {
    let text = std::fs::read_to_string("tests/hosts/debian-12-uefi.json").unwrap();
    let mut host: Host = serde_json::from_str(&text).unwrap();
    let has = |host: &Host, name: &str| chosen(host).iter().any(|known| known == name);
    assert!(has(&host, "nvme") && has(&host, "efivarfs"));
    assert!(!has(&host, "ahci"));
    // The EFI system partition is on a disk of its own.
    let mut disk = host.disks[0].clone();
    disk.name = "sdb".into();
    disk.modules = vec!["ahci".into()];
    host.disks.push(disk);
    let mut mounts = host.mounts.iter_mut();
    let esp = mounts.find(|mount| mount.point == "/boot/efi").unwrap();
    esp.disks = vec!["sdb".into()];
    assert!(has(&host, "ahci"));
    host.firmware.efi = false;
    assert!(!has(&host, "efivarfs"));
}

#[test]
fn the_disk_of_flash_to_is_reached_too() {
    let text = std::fs::read_to_string("tests/hosts/debian-12-uefi.json").unwrap();
    let mut host: Host = serde_json::from_str(&text).unwrap();
    let mut disk = host.disks[0].clone();
    disk.name = "sdb".into();
    disk.modules = vec!["ahci".into()];
    host.disks.push(disk);
    let has = |settings: &str, name: &str| {
        let mut chosen = chosen_with(&host, settings).into_iter();
        chosen.any(|known| known == name)
    };
    assert!(!has("", "ahci"));
    assert!(has("FLASH_TO=/dev/sdb\n", "ahci"));
    // The old system's disk is where stage 2 leaves word.
    assert!(has("FLASH_TO=/dev/sdb\n", "nvme"));
}

/// / is in a logical volume, so that stage 2 leaves word on a /boot with a driver of its own.
#[test]
fn where_word_is_left_the_driver_is_there() {
    let text = std::fs::read_to_string("tests/hosts/rocky-9-bios-lvm.json").unwrap();
    let host: Host = serde_json::from_str(&text).unwrap();
    assert!(chosen(&host).iter().any(|name| name == "xfs"));
}

/// Stage 2 has all that leads to a disk on USB or PCIe, and what restarts the board, or stage 1 refuses.
#[test]
fn boards_reach_a_root_on_usb_and_nvme() {
    for (name, wanted) in [
        (
            "debian-12-pi-4-usb",
            "uas usb_storage xhci_pci pcie_brcmstb",
        ),
        ("ubuntu-20.04-pi-4-usb", "uas"),
        ("raspios-13-pi-5-nvme", "nvme"),
    ] {
        let text = std::fs::read_to_string(format!("tests/hosts/{name}.json")).unwrap();
        let host: Host = serde_json::from_str(&text).unwrap();
        let chosen = chosen(&host);
        for module in wanted.split(' ').chain(["bcm2835_wdt"]) {
            assert!(
                chosen.iter().any(|known| known == module),
                "{name}: {module}"
            );
            let findings = gathered(&host, "", module).module_findings;
            let [finding] = &findings[..] else {
                panic!("{name}: {findings:#?}");
            };
            assert_eq!(finding.code, "modules");
            let what = format!("the running kernel has no module {module}");
            assert_eq!(finding.what, what);
        }
    }
}
