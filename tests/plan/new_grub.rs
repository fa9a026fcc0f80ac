//! GRUB for the new system (GRUB_INSTALL), made by the real grub-mkimage of the machine that runs the tests.

use std::os::unix::fs::symlink;
use std::process::Command;

use balena_migrate::handover::TableIdentity;
use balena_migrate::host::uefi::Uefi;
use balena_migrate::new_grub::{NewGrub, Piece, gather};
use balena_migrate::payload::scan::Scan;
use balena_migrate::plan::text;
use balena_migrate::step::Step;
use balena_migrate::sys::Sys;

use super::{CONFIG, Case, case, config, handover};

const ASKED: &str = "GRUB_INSTALL=TRUE\n";
const IMAGES: &str = "GRUB_BOOT_IMG=boot.img\nGRUB_CORE_IMG=core.img\nGRUB_CFG=grub.cfg\n";

/// A machine with the GRUB of this one, and the files of a flasher image in HOME_DIR.
struct Machine {
    dir: tempfile::TempDir,
    case: Case,
}

impl Machine {
    /// For an image without a boot loader.
    fn new(settings: &str) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for folder in ["usr/bin", "usr/lib", "root/migratecfg"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        symlink("/usr/bin/grub-mkimage", at("usr/bin/grub-mkimage")).unwrap();
        symlink("/usr/lib/grub", at("usr/lib/grub")).unwrap();
        let core = Command::new("grub-mkimage")
            .args(["-O", "i386-pc", "-p", "(hd0,msdos1)/grub", "-o"])
            .arg(at("root/migratecfg/core.img"))
            .args(["biosdisk", "part_msdos", "fat", "normal"])
            .status();
        assert!(core.expect("package grub-common is there").success());
        std::fs::copy(
            "/usr/lib/grub/i386-pc/boot.img",
            at("root/migratecfg/boot.img"),
        )
        .unwrap();
        std::fs::write(at("root/migratecfg/grub.cfg"), "boot\n").unwrap();
        let mut case = case("debian-12-bios");
        case.config = config(&format!("{CONFIG}{ASKED}{settings}"));
        let scan = image(&mut case);
        scan.boot_code = false;
        scan.boot.efi_loaders.clear();
        Machine { dir, case }
    }

    fn on_uefi(mut self, bits: u32) -> Machine {
        self.case.start_by_uefi();
        self.case.host.firmware.uefi = Some(Uefi {
            bits: Some(bits),
            ..Uefi::default()
        });
        self
    }

    fn gather(&self) -> Result<NewGrub, String> {
        let sys = Sys::new(self.dir.path());
        let image = self.case.material.image.as_ref().ok();
        gather(&sys, &self.case.config, &self.case.host, image)
            .expect("it is asked for")
            .map_err(|finding| format!("{}: {}; {}", finding.code, finding.what, finding.remedy))
    }
}

fn image(case: &mut Case) -> &mut Scan {
    case.material.image.as_mut().expect("there is an image")
}

/// The core of these pieces, once it is certain that the boot code loads it and it loads itself.
fn core(pieces: &[Piece]) -> &[u8] {
    let [boot_code, core] = pieces else {
        panic!("{pieces:?}");
    };
    assert_eq!((boot_code.at, boot_code.bytes.len()), (0, 440));
    assert_eq!(boot_code.bytes[0x5c..0x64], 1u64.to_le_bytes());
    assert_eq!(core.at, 512);
    assert_eq!(core.bytes[500..508], 2u64.to_le_bytes());
    let others = u16::from_le_bytes([core.bytes[508], core.bytes[509]]);
    assert_eq!(core.bytes.len(), (usize::from(others) + 1) * 512);
    &core.bytes
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[test]
fn the_images_of_the_flasher_go_over_the_first_sectors_and_grub_cfg_onto_resin_boot() {
    let mut machine = Machine::new(IMAGES);
    let made = machine.gather().unwrap();
    let given = std::fs::read(machine.dir.path().join("root/migratecfg/core.img")).unwrap();
    assert_eq!(core(&made.pieces)[512..given.len()], given[512..]);
    assert!(made.findings.is_empty(), "{:?}", made.findings);

    machine.case.material.new_grub = Some(Ok(made.clone()));
    let plan = machine.case.plan();
    let handover = handover(&plan);
    let overlays = &handover.payload.image.overlays;
    let places: Vec<_> = overlays.iter().map(|over| (over.at, over.bytes)).collect();
    assert_eq!(places, [(0, 440), (512, made.pieces[1].bytes.len() as u64)]);
    let paths: Vec<_> = handover.install.iter().map(|file| &*file.path).collect();
    assert!(paths.contains(&"/grub/grub.cfg"), "{paths:?}");
    let carried = plan.work.steps.iter().find_map(|step| match step {
        Step::BuildInitramfs { recipe, .. } => Some(&recipe.files),
        _ => None,
    });
    let carried = carried.expect("the initramfs is built");
    for (over, piece) in overlays.iter().zip(&made.pieces) {
        let file = carried.iter().find(|file| file.path == over.content);
        assert!(file.is_some_and(|file| *file.content.expose() == piece.bytes));
    }
    let words = text::plan(&plan);
    let words: Vec<&str> = words.split_whitespace().collect();
    assert!(
        words.join(" ").contains(
            "boot loader GRUB is installed in the new system, by GRUB_BOOT_IMG and GRUB_CORE_IMG"
        ),
        "{words:?}"
    );
}

#[test]
fn the_grub_of_this_machine_makes_what_is_not_given() {
    let made = Machine::new("").gather().unwrap();
    assert!(core(&made.pieces).len() > 40_000);
    let [cfg] = &made.files[..] else {
        panic!("{:?}", made.files);
    };
    assert_eq!(cfg.path, "/grub/grub.cfg");
    assert!(has(&cfg.bytes, "set root='hd0,msdos1'"));
    let codes: Vec<_> = made.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["grub-cfg"]);
}

#[test]
fn uefi_firmware_finds_grub_by_its_removable_path() {
    for (bits, path) in [
        (64, "/EFI/BOOT/BOOTX64.EFI"),
        (32, "/EFI/BOOT/BOOTIA32.EFI"),
    ] {
        let made = Machine::new("GRUB_CFG=grub.cfg\n").on_uefi(bits).gather();
        let made = made.unwrap();
        assert!(made.pieces.is_empty());
        let [program, cfg] = &made.files[..] else {
            panic!("{:?}", made.files);
        };
        assert_eq!(program.path, path);
        assert!(program.bytes.starts_with(b"MZ") && has(&program.bytes, "/EFI/BOOT"));
        assert_eq!(
            (&*cfg.path, &*cfg.bytes),
            ("/EFI/BOOT/grub.cfg", &b"boot\n"[..])
        );
    }
}

/// They have code for a BIOS.
#[test]
fn images_that_uefi_firmware_does_not_use_are_said() {
    for settings in ["GRUB_BOOT_IMG=boot.img\n", "GRUB_CORE_IMG=core.img\n"] {
        let settings = format!("GRUB_CFG=grub.cfg\n{settings}");
        let made = Machine::new(&settings).on_uefi(64).gather().unwrap();
        let codes: Vec<_> = made.findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, ["grub-images"]);
    }
    let made = Machine::new("GRUB_CFG=grub.cfg\n").on_uefi(64).gather();
    assert!(made.unwrap().findings.is_empty());
}

#[test]
fn without_the_setting_nothing_is_made() {
    let mut machine = Machine::new(IMAGES);
    machine.case.config = config(&format!("{CONFIG}{IMAGES}"));
    let image = machine.case.material.image.as_ref().ok();
    let sys = Sys::new(machine.dir.path());
    assert_eq!(
        gather(&sys, &machine.case.config, &machine.case.host, image),
        None
    );
}

#[test]
fn what_can_t_be_installed_is_said() {
    type Change = fn(&mut Machine);
    let rows: &[(&str, Change, &str)] = &[
        (
            IMAGES,
            |m| image(&mut m.case).boot_code = true,
            "grub-install: GRUB_INSTALL=TRUE, but /root/migratecfg/balena.img.gz has a boot loader of its own for \
             this machine; leave GRUB_INSTALL out: another loader could only make the new system fail to start",
        ),
        (
            IMAGES,
            |m| image(&mut m.case).table = TableIdentity::Gpt("0".to_owned()),
            "grub-install: GRUB_INSTALL=TRUE on a BIOS needs an image with an MBR, and this one has a GPT; use an \
             image that was made for a BIOS",
        ),
        (
            "GRUB_BOOT_IMG=boot.img\n",
            |_| (),
            "grub-images: of GRUB_BOOT_IMG and GRUB_CORE_IMG only one is set; set both, or neither: then the GRUB \
             of this machine is used",
        ),
        (
            IMAGES,
            |m| std::fs::remove_file(m.dir.path().join("root/migratecfg/core.img")).unwrap(),
            "grub-images: /root/migratecfg/core.img can't be read: No such file or directory (os error 2); give \
             GRUB_CORE_IMG the name of a file in HOME_DIR",
        ),
        (
            IMAGES,
            |m| std::fs::write(m.dir.path().join("root/migratecfg/boot.img"), [0; 512]).unwrap(),
            "grub-images: GRUB_BOOT_IMG and GRUB_CORE_IMG can't be used: boot.img of GRUB is not of the known \
             kind: it is no boot sector; take both images from the flasher image of the same balenaOS, with \
             `extract`",
        ),
        (
            IMAGES,
            |m| image(&mut m.case).partitions[0].start = 16 << 10,
            "grub-images: GRUB_BOOT_IMG and GRUB_CORE_IMG can't be used: the core of GRUB has CORE bytes, and there is \
             room for 15872; take both images from the flasher image of the same balenaOS, with `extract`",
        ),
        (
            "",
            |m| std::fs::remove_file(m.dir.path().join("usr/lib/grub")).unwrap(),
            "grub-tools: GRUB_INSTALL=TRUE needs grub-mkimage and GRUB's modules for i386-pc, which this machine \
             has not got; install them (package grub-pc-bin), or set GRUB_BOOT_IMG and GRUB_CORE_IMG",
        ),
    ];
    for (settings, change, words) in rows {
        let mut machine = Machine::new(settings);
        change(&mut machine);
        let core = machine.dir.path().join("root/migratecfg/core.img");
        let bytes = core.metadata().map_or(0, |meta| meta.len());
        let bytes = bytes.next_multiple_of(512).to_string();
        assert_eq!(
            machine.gather().unwrap_err(),
            words.replace("has CORE", &format!("has {bytes}"))
        );
    }
}
