//! Boards that u-boot starts: what keeps it from starting stage 2, and what it reads instead of its files.

use balena_migrate::boot;
use balena_migrate::finding::Finding;
use balena_migrate::host::u_boot::{EXTLINUX, U_ENV, UBoot};
use balena_migrate::step::OneShot;

use super::{Case, case, handover, written};

/// A way to spoil a board, and what is said then: a code, and a part of the sentence.
type Row = (&'static str, fn(&mut Case), &'static str, &'static str);

impl Case {
    fn board(&mut self) -> &mut UBoot {
        let board = self.host.firmware.u_boot.as_mut();
        board.expect("a board that u-boot starts")
    }

    /// Adds lines to uEnv.txt.
    fn u_env(&mut self, lines: &str) {
        let text = self.board().u_env.as_mut();
        text.expect("its uEnv.txt").push_str(lines);
    }

    fn extlinux(&mut self, from: &str, to: &str) {
        let text = self.board().extlinux.as_mut().expect("its extlinux.conf");
        assert!(text.contains(from));
        *text = text.replace(from, to);
    }
}

#[track_caller]
fn says(case: &Case, what: &str, code: &str, part: &str) {
    let findings = case.findings();
    let said = |finding: &Finding| finding.code == code && finding.what.contains(part);
    assert!(findings.iter().any(said), "{what}: {findings:#?}");
    assert!(boot::of(&case.host).is_err(), "{what}");
}

#[test]
fn a_beaglebone_whose_u_env_counts_for_nothing_is_refused() {
    let rows: &[Row] = &[
        (
            "another kernel",
            |case| case.u_env("uname_r=4.19.1\n"),
            "u-env",
            "start the kernel `4.19.1`, and 4.19.94-ti-r42 runs",
        ),
        (
            "arguments that the kernel has not got",
            |case| case.u_env("cmdline=quiet splash\n"),
            "u-env",
            "did not get the arguments `quiet splash`",
        ),
        (
            "no arguments that tell",
            |case| case.u_env("cmdline=\n"),
            "u-env",
            "nobody can tell that u-boot has read it",
        ),
        (
            "a script of its own",
            |case| case.u_env("loadrd=echo no\n"),
            "u-env",
            "/boot/uEnv.txt sets loadrd",
        ),
        (
            "commands in the file that comes first",
            |case| case.board().first_u_env = Some("uenvcmd=run mine\n".into()),
            "u-env",
            "/uEnv.txt sets uenvcmd",
        ),
        (
            "no initramfs was loaded",
            |case| case.board().initramfs = false,
            "u-env",
            "without an initramfs",
        ),
        (
            "its initramfs is gone",
            |case| case.host.initramfs_tools.made_bytes = None,
            "u-env",
            "without an initramfs",
        ),
        (
            "/ is not on the first partition",
            |case| case.host.disks[0].partitions[0].number = 2,
            "u-env",
            "not on the first partition",
        ),
        (
            "too many arguments",
            |case| case.host.kernel.cmdline.push_str(&" x=y".repeat(90)),
            "u-env",
            "bytes of arguments",
        ),
        (
            "/ on a card beside the eMMC",
            |case| case.board().emmc = Some("mmcblk0".into()),
            "boot-disk",
            "starts what is on its eMMC (mmcblk0) before that",
        ),
        (
            "no eMMC",
            |case| case.board().emmc = None,
            "boot-disk",
            "which is no eMMC",
        ),
        (
            "no file",
            |case| case.board().u_env = None,
            "boot-loader",
            "(ti,am335x-bone-black) neither /boot/uEnv.txt nor",
        ),
    ];
    assert_eq!(
        case("debian-10-beaglebone-black").plan().one_shot,
        Some(OneShot::UBoot(U_ENV.into()))
    );
    for (what, spoil, code, part) in rows {
        let mut case = case("debian-10-beaglebone-black");
        spoil(&mut case);
        says(&case, what, code, part);
    }
}

#[test]
fn a_board_whose_extlinux_conf_counts_for_nothing_is_refused() {
    let rows: &[Row] = &[
        (
            "another kernel",
            |case| case.extlinux("linux /boot/vmlinuz-", "linux /boot/other-"),
            "extlinux",
            "none names /boot/vmlinuz-6.1.0-40-armmp",
        ),
        (
            "other arguments",
            |case| case.extlinux("append root=", "append root=no"),
            "extlinux",
            "with arguments that the kernel was given",
        ),
        (
            "other files",
            |case| case.extlinux("prompt 0", "menu include other.conf"),
            "extlinux",
            "includes other files",
        ),
        (
            "/ on a card beside the eMMC",
            |case| case.board().emmc = Some("mmcblk0".into()),
            "boot-disk",
            "before that",
        ),
    ];
    assert_eq!(
        case("debian-12-beaglebone-black").plan().one_shot,
        Some(OneShot::UBoot(EXTLINUX.into()))
    );
    for (what, spoil, code, part) in rows {
        let mut case = case("debian-12-beaglebone-black");
        spoil(&mut case);
        says(&case, what, code, part);
    }
}

/// Paths in it are relative to the file system that it is on.
#[test]
fn extlinux_conf_on_a_boot_of_its_own() {
    let mut case = case("debian-12-beaglebone-black");
    case.with_boot("ext4", Some("b007b007-0000-4000-8000-000000000001"));
    says(&case, "paths from /", "extlinux", "no label");
    case.extlinux("/boot/vmlinuz-", "/vmlinuz-");
    let text = written(&case.plan(), EXTLINUX).unwrap();
    assert!(
        text.contains("\tlinux /vmlinuz-6.1.0-40-armmp\n\tinitrd /balena-migrate.img\n"),
        "{text}"
    );
}

/// What u-boot reads first is armed first, and the other is there when it can't be.
#[test]
fn u_env_comes_before_extlinux() {
    let mut case = case("debian-10-beaglebone-black");
    let release = case.host.kernel.release.clone();
    case.board().extlinux = Some(format!(
        "label a\nlinux /boot/vmlinuz-{release}\nappend quiet\n"
    ));
    assert_eq!(case.plan().one_shot, Some(OneShot::UBoot(U_ENV.into())));
    case.u_env("uname_r=0\n");
    assert_eq!(case.plan().one_shot, Some(OneShot::UBoot(EXTLINUX.into())));
}

/// An image without u-boot starts nowhere.
#[test]
fn the_image_has_what_the_board_starts() {
    for name in ["MLO", "u-boot.img"] {
        let mut case = case("debian-9-beaglebone-green");
        let scan = case.material.image.as_mut().unwrap();
        scan.boot.names.retain(|known| known != name);
        let findings = case.findings();
        let said = |finding: &Finding| {
            finding.code == "image-firmware"
                && finding
                    .what
                    .contains(&format!("has no {name} on resin-boot"))
        };
        assert!(findings.iter().any(said), "{findings:#?}");
    }
}

/// The first of what stage 2 puts back is the file that u-boot reads.
#[test]
fn stage_2_puts_the_file_of_u_boot_back_first() {
    for (host, path) in [
        ("debian-10-beaglebone-black", U_ENV),
        ("debian-12-beaglebone-black", EXTLINUX),
    ] {
        let mut case = case(host);
        let board = case.board().clone();
        let plan = case.plan();
        let restore = &handover(&plan).restore;
        let paths: Vec<&str> = restore.iter().map(|file| file.path.as_str()).collect();
        let backup = format!("{path}.19700101-00-00-00");
        assert_eq!(paths, [path, &backup, "/boot/balena-migrate.img"]);
        assert!(restore[0].old.is_some() && restore[2].old.is_none());
        let old = board.u_env.or(board.extlinux).unwrap();
        assert_ne!(written(&plan, path), Some(old));
    }
}
