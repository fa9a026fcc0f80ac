//! Raspberry Pis: what is where on their cards.

use balena_migrate::boot;
use balena_migrate::finding::{Finding, stops};
use balena_migrate::plan::Plan;
use balena_migrate::raspberry_pi::board::MODELS;
use balena_migrate::step::core::CoreFirmware;
use balena_migrate::step::{OneShot, Step};

use super::{Case, captured, case, handover, written};

/// A way to spoil a board, or not, and what then keeps `tryboot` from it.
type Row = (&'static str, fn(&mut Case), Option<&'static str>);

impl Case {
    fn text(&mut self, name: &str, text: &str) {
        let board = self.host.firmware.raspberry_pi.as_mut();
        let boot = board.and_then(|board| board.boot.as_mut());
        let texts = &mut boot.expect("its boot partition").texts;
        texts.insert(name.to_owned(), text.to_owned());
    }

    fn label(&mut self, number: u32, label: &str) {
        let parts = self.host.disks[0].partitions.iter_mut();
        let mut fs = parts.filter_map(|part| (part.number == number).then_some(part.fs.as_mut()?));
        fs.next().expect("a file system").label = label.to_owned();
    }

    fn codes(&self) -> Vec<&'static str> {
        let findings = self.findings().into_iter();
        findings.map(|finding| finding.code).collect()
    }
}

/// The files that are packed with stage 2.
fn packed(plan: &Plan) -> Vec<&str> {
    let recipe = plan.work.steps.iter().find_map(|step| match step {
        Step::BuildInitramfs { recipe, .. } => Some(recipe),
        _ => None,
    });
    let files = &recipe.expect("every plan builds an initramfs").files;
    files.iter().map(|file| file.path.as_str()).collect()
}

/// After a power cut in the flash the same kernel starts, with what the old system had.
#[test]
fn the_flash_goes_on_by_a_boot_partition_of_its_own() {
    for (host, file) in [
        ("raspios-11-pi-4", "/boot/tryboot.txt"),
        ("raspios-13-pi-4", "/boot/firmware/tryboot.txt"),
    ] {
        let plan = case(host).plan();
        let core = plan.work.steps.iter().find_map(|step| match step {
            Step::BuildCore(core) => Some(core),
            _ => None,
        });
        let core = core.expect("the disk has room for it");
        let CoreFirmware::Board(board) = &core.firmware else {
            panic!("{:?}", core.firmware);
        };
        assert_eq!(Some(&board.config), written(&plan, file).as_ref());
        assert_eq!(format!("{}/", board.point), file.replace("tryboot.txt", ""));
        let install = &handover(&plan).install;
        assert_eq!(core.aside.len(), install.len());
        for (aside, file) in core.aside.iter().zip(install) {
            assert_eq!(aside.content, file.content);
            assert!(written(&plan, &aside.path).is_some(), "{}", aside.path);
        }
        assert_eq!(plan.summary.power_cut_is_fatal, None);
    }
}

/// The boot partition is everybody's to read.
#[test]
fn what_is_secret_is_not_packed_on_a_boot_partition() {
    for host in ["raspios-9-pi-3", "raspios-11-pi-4", "raspios-13-pi-4"] {
        let plan = case(host).plan();
        let install = &handover(&plan).install;
        assert_eq!(install.len(), 2, "{host}");
        for file in install {
            assert!(!packed(&plan).contains(&file.content.as_str()), "{host}");
            let from = &file.from.as_ref().expect("it comes from elsewhere").path;
            let secret = plan.work.steps.iter().any(
                |step| matches!(step, Step::WriteFile { path, mode: 0o600, .. } if path == from),
            );
            assert!(secret, "{host}: {from}");
        }
    }
    let plan = case("debian-12-bios").plan();
    for file in &handover(&plan).install {
        assert!(packed(&plan).contains(&file.content.as_str()));
        assert_eq!(file.from, None);
    }
}

/// Every kind of board that a device type is known for has a captured one, and so a golden text. Those that
/// differ in their number alone are one kind.
#[test]
fn every_kind_of_board_was_captured() {
    let hosts = std::fs::read_dir("tests/hosts").unwrap();
    let names = hosts.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let boards =
        names.filter_map(|name| captured(name.strip_suffix(".json")?).firmware.raspberry_pi);
    let seen: Vec<_> = boards.filter_map(|board| board.model()).collect();
    for model in MODELS {
        let alike = |other: &&_| {
            let other: &balena_migrate::raspberry_pi::board::Model = other;
            (other.slugs, other.bits_64, other.kernel_32)
                == (model.slugs, model.bits_64, model.kernel_32)
        };
        assert!(seen.iter().any(alike), "{}", model.name);
    }
}

/// `tryboot` is of the partition that the firmware starts from by itself, and of tryboot.txt on it.
#[test]
fn what_comes_before_the_boot_partition_keeps_tryboot_from_it() {
    let rows: &[Row] = &[
        ("nothing", |_| (), None),
        (
            "A/B boot",
            |case| case.text("autoboot.txt", "[all]\ntryboot_a_b=1\n"),
            Some("autoboot.txt sets tryboot_a_b"),
        ),
        (
            "another partition for such a boot",
            |case| case.text("autoboot.txt", "[tryboot]\nboot_partition=3\n"),
            Some("autoboot.txt sets boot_partition for such a boot"),
        ),
        (
            "another board's autoboot.txt",
            |case| case.text("autoboot.txt", "[pi5]\ntryboot_a_b=1\n"),
            None,
        ),
    ];
    for (what, spoil, why) in rows {
        let mut case = case("ubuntu-24.04-pi-4");
        spoil(&mut case);
        let choice =
            boot::of(&case.host).unwrap_or_else(|findings| panic!("{what}: {findings:#?}"));
        match why {
            None => assert_eq!(choice.why, None, "{what}"),
            Some(why) => {
                assert!(
                    choice.why.as_ref().is_some_and(|all| all.contains(why)),
                    "{what}"
                );
                let one_shot = case.plan().one_shot;
                assert!(matches!(one_shot, Some(OneShot::ConfigTxt(_))), "{what}");
            }
        }
    }
}

#[test]
fn a_partition_that_autoboot_chooses_is_refused_once() {
    let mut case = case("ubuntu-24.04-pi-4");
    case.text("autoboot.txt", "[all]\ntryboot_a_b=1\nboot_partition=2\n");
    let findings = case.findings();
    let errors: Vec<&Finding> = findings
        .iter()
        .filter(|finding| stops(&[(*finding).clone()]))
        .collect();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert_eq!(errors[0].code, "autoboot");
    assert_eq!(
        errors[0].what,
        "/boot/firmware/autoboot.txt sets boot_partition: which partition the firmware starts from depends on it"
    );
}

/// NOOBS is passed at every boot. Another FAT in front of the boot partition is no NOOBS, but it would use a
/// `tryboot` up as well.
#[test]
fn a_recovery_partition_in_front_is_said() {
    let noobs = case("raspios-11-pi-4-pinn");
    assert!(noobs.codes().contains(&"noobs"));
    let mut other = case("raspios-11-pi-4-pinn");
    other.label(1, "DATA");
    assert!(!other.codes().contains(&"noobs"));
    for case in [noobs, other] {
        let one_shot = case.plan().one_shot;
        assert!(matches!(one_shot, Some(OneShot::ConfigTxt(_))));
    }
    // A partition behind it changes nothing.
    let mut behind = case("raspios-11-pi-4");
    behind.label(2, "RECOVERY");
    let parts = &mut behind.host.disks[0].partitions;
    parts[1].fs.as_mut().unwrap().fs_type = "vfat".into();
    assert!(boot::of(&behind.host).is_ok_and(|choice| choice.why.is_none()));
}

/// What would keep the firmware from our initramfs, the kernel from its arguments, or others from the keys.
#[test]
fn what_stage_2_would_not_be_started_with_is_refused() {
    type Refused = (&'static str, fn(&mut Case), &'static str);
    let rows: &[Refused] = &[
        (
            "an initramfs in a file that config.txt includes",
            |case| case.text("extra.txt", "# more\n initramfs other.img followkernel\n"),
            "config-txt",
        ),
        (
            "arguments up to the limit of the kernel",
            |case| {
                let long = format!(" quirks={}", "x".repeat(990));
                case.host.kernel.cmdline.push_str(&long);
            },
            "arguments",
        ),
        (
            "an initramfs that the firmware does not load",
            |case| case.material.initramfs_bytes = 97 << 20,
            "initramfs-size",
        ),
        (
            "keys on the boot partition",
            |case| {
                for mount in &mut case.host.mounts {
                    match mount.point.as_str() {
                        "/" => mount.fs_type = "f2fs".to_owned(),
                        _ => mount.everybody_reads = true,
                    }
                }
            },
            "esp-open",
        ),
    ];
    for (what, spoil, code) in rows {
        let mut case = case("raspios-11-pi-1");
        assert!(!case.codes().contains(code), "{what}");
        spoil(&mut case);
        let codes = case.codes();
        assert!(codes.contains(code), "{what}: {codes:?}");
    }
    // A kernel of 64 bits takes twice as much.
    let mut case = case("raspios-11-pi-4");
    case.host
        .kernel
        .cmdline
        .push_str(&format!(" x={}", "x".repeat(990)));
    assert!(!case.codes().contains(&"arguments"));
}

/// The firmware puts its own arguments before those of the file at each start.
#[test]
fn what_the_firmware_adds_is_not_given_to_it_again() {
    let mut case = case("raspios-12-pi-4");
    case.host.kernel.cmdline = "coherent_pool=1M 8250.nr_uarts=1 vc_mem.mem_base=0x3f000000 \
                                console=ttyS0,115200 console=tty1 root=PARTUUID=1-02 rootwait \
                                quirk=\"a b\""
        .to_owned();
    let board = case.host.firmware.raspberry_pi.as_mut().unwrap();
    board.cmdline = Some(
        "console=serial0,115200 console=tty1 root=PARTUUID=1-02 rootwait quirk=\"a b\"".to_owned(),
    );
    let text = written(&case.plan(), "/boot/firmware/balena-migrate.txt");
    assert_eq!(
        text.unwrap(),
        "console=ttyS0,115200 console=tty1 quirk=\"a b\" panic=30 rdinit=/init\n"
    );
}
