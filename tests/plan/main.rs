//! From a captured machine to findings and a plan, without a machine: golden plans, and a table of
//! what is wrong with a machine and what is said of it.
//!
//! `tests/hosts/*.json` are outputs of `balena-migrate facts`; the plans in `tests/plans` are made anew
//! with `BLESS=1`.

mod board_matrix;
mod boot_disk;
mod extracted;
mod i686;
mod new_grub;
mod other_disk;
mod raspberry_pi;
mod replaced;
mod u_boot;

use std::collections::BTreeMap;
use std::path::Path;

use balena_migrate::backup::{Prepared, definition};
use balena_migrate::bad_blocks;
use balena_migrate::boot;
use balena_migrate::boot::core_fat::FirmwareFile;
use balena_migrate::check::place::choose;
use balena_migrate::check::{self, Subject, resume};
use balena_migrate::config::{self, Config, Overrides, balena, hostname};
use balena_migrate::device;
use balena_migrate::efi::load_option::{LoadOption, arguments};
use balena_migrate::efi::{self, Variable};
use balena_migrate::ext_space::ExtSpace;
use balena_migrate::finding::{Finding, stops};
use balena_migrate::handover::{Format, Handover, ImagePartition, Place, TableIdentity};
use balena_migrate::host::uefi::{Access, GrubStub, Loader, Uefi};
use balena_migrate::host::{
    Below, ConfigFile, FileSystem, Host, InitramfsTools, Mapping, MappingTarget, Mount,
};
use balena_migrate::initramfs::modules::ModuleFile;
use balena_migrate::material::Material;
use balena_migrate::network::Keyfile;
use balena_migrate::network::given::Copied;
use balena_migrate::payload::scan::{BootFiles, DeviceType, Scan};
use balena_migrate::place::{Layout, Waits};
use balena_migrate::plan::{self, Plan, text};
use balena_migrate::secret::Secret;
use balena_migrate::step::keep::{Content, Keep};
use balena_migrate::step::{OneShot, Step, Writers};

const CONFIG: &str = "IMAGE_NAME=balena.img.gz\nBALENA_CONFIG=config.json\nBACKUP_SCRIPT=backup.sh\n\
                      MIGRATE_ALL_WIFIS=TRUE\n";

const CONFIG_JSON: &str = r#"{"apiEndpoint":"https://api.balena-cloud.com","apiKey":"k",
    "applicationId":1,"deviceType":"genericx86-64-ext","vpnEndpoint":"vpn.balena-cloud.com"}"#;

/// Everything that checks and planner see, open to changes.
struct Case {
    host: Host,
    config: Config,
    material: Material,
}

fn captured(name: &str) -> Host {
    let path = Path::new("tests/hosts").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn config(text: &str) -> Config {
    config::merge(
        "/root/migratecfg/balena-migrate.conf",
        text,
        "/root/migratecfg",
        &Overrides::default(),
    )
    .expect("the configuration is sound")
}

fn scan() -> Scan {
    let part = |number, label: &str, fs_type: &str, start: u64, bytes: u64| ImagePartition {
        number,
        label: label.into(),
        fs_type: fs_type.into(),
        start: start << 20,
        bytes: bytes << 20,
    };
    let os_release = [
        ("PRETTY_NAME", "balenaOS 6.0.0"),
        ("SLUG", "genericx86-64-ext"),
    ];
    Scan {
        format: Format::Gzip,
        file_bytes: 18 << 20,
        file_sha256: "f".repeat(64),
        file_md5: None,
        unpack_memory: 0,
        image_bytes: 180 << 20,
        image_sha256: "a".repeat(64),
        table: TableIdentity::Mbr("0000beef".into()),
        partitions: vec![
            part(1, "resin-boot", "vfat", 4, 40),
            part(2, "resin-rootA", "ext4", 44, 40),
            part(3, "resin-rootB", "ext4", 84, 20),
            part(5, "resin-state", "ext4", 108, 10),
            part(6, "resin-data", "ext4", 120, 60),
        ],
        partitions_end: 180 << 20,
        data_space: None,
        partition_names: Vec::new(),
        boot_code: true,
        boot: BootFiles {
            names: vec!["balena-image".into()],
            os_release: os_release
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            device_type: Some(DeviceType {
                slug: Some("genericx86-64-ext".into()),
                ..DeviceType::default()
            }),
            free: 10 << 20,
            efi_loaders: vec!["BOOTX64.EFI".into()],
            fingerprint: false,
        },
    }
}

/// An image for a machine.
fn scan_for(host: &Host) -> Scan {
    let mut scan = scan();
    let model = host.firmware.raspberry_pi.as_ref();
    let model = model.and_then(|board| board.model());
    // Where none fits, one for the nearest board, or for another.
    let (slug, names): (_, &[&str]) = match (model, &host.firmware.u_boot) {
        (Some(model), _) => {
            let slug = model.slugs.first().copied();
            (slug.unwrap_or("raspberrypi4-64"), &["config.txt"])
        }
        (None, Some(board)) => {
            let slug = device::slugs(host).first().copied();
            (slug.unwrap_or("beaglebone-black"), board.loader())
        }
        (None, None) => return scan,
    };
    let names = names.iter().map(|name| (*name).to_owned());
    scan.boot.names.extend(names);
    scan.boot.os_release.insert("SLUG".into(), slug.to_owned());
    scan.boot.device_type = Some(DeviceType {
        slug: Some(slug.to_owned()),
        ..DeviceType::default()
    });
    scan.boot_code = false;
    scan.boot.efi_loaders.clear();
    scan
}

/// What the firmware of a machine needs of the boot partition.
fn firmware_of(host: &Host) -> Result<Vec<FirmwareFile>, String> {
    let board = host.firmware.raspberry_pi.as_ref();
    let starts = board.ok_or("this is no Raspberry Pi")?.boots()?;
    let files = [
        ("bootcode.bin", 50 << 10),
        ("start.elf", 3 << 20),
        ("start4.elf", 2 << 20),
        (&starts.kernel, 9 << 20),
    ];
    let file = |(path, bytes): (&str, u64)| FirmwareFile {
        path: path.to_owned(),
        bytes,
    };
    Ok(files.map(file).into())
}

fn case(host: &str) -> Case {
    case_of(captured(host))
}

fn case_of(host: Host) -> Case {
    let image = scan_for(&host);
    let text = CONFIG_JSON.replace("genericx86-64-ext", image.slug().unwrap());
    let mut json = balena::inspect("/root/migratecfg/config.json", text.into());
    let kept = hostname::keep(&mut json, &host.hostname);
    Case {
        material: Material {
            kept_name: kept.then(|| host.hostname.clone()),
            copied: Vec::new(),
            connect_findings: Vec::new(),
            flash_to: None,
            write_speed: None,
            bad_blocks: None,
            new_grub: None,
            firmware: firmware_of(&host),
            no_room: None,
            image: Ok(image),
            checksum_findings: Vec::new(),
            config_json_findings: json.findings.clone(),
            config_json: Some(json),
            keyfiles: vec![Keyfile {
                name: "resin-wifi-01".into(),
                bytes: Secret::new(*b"[connection]\n"),
                what: "wifi Harbour Office".into(),
                place: "/etc/wpa_supplicant/wpa_supplicant.conf:3".into(),
            }],
            network_findings: Vec::new(),
            modules: vec![ModuleFile {
                name: "virtio_blk".into(),
                path: "/lib/modules/x/virtio_blk.ko".into(),
            }],
            module_findings: Vec::new(),
            initramfs_bytes: 6 << 20,
            old_backup: None,
            backup: Prepared::default(),
            backup_script_mode: Some(0o755),
            log_drive: None,
        },
        host,
        config: config(CONFIG),
    }
}

impl Case {
    fn subject(&self) -> Subject<'_> {
        Subject {
            config: &self.config,
            host: &self.host,
            material: &self.material,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        check::all(&self.subject())
    }

    #[track_caller]
    fn plan(&self) -> Plan {
        let findings = self.findings();
        assert!(!stops(&findings), "{findings:#?}");
        plan::plan(&self.subject(), "run-1")
    }
}

fn handover(plan: &Plan) -> &Handover {
    let sealed = plan.work.steps.iter().find_map(|step| match step {
        Step::SealHandover { handover, .. } => Some(handover),
        _ => None,
    });
    sealed.expect("every plan seals a hand-over")
}

/// What a step would write to `path`.
fn written(plan: &Plan, path: &str) -> Option<String> {
    plan.work.steps.iter().find_map(|step| match step {
        Step::WriteFile {
            path: at, content, ..
        } if at == path => Some(String::from_utf8_lossy(content.expose()).into_owned()),
        _ => None,
    })
}

/// What a variable of the firmware would be, in words.
fn variable_text(name: &str, variable: &Variable) -> String {
    if let Some(option) = LoadOption::parse(&variable.value) {
        let arguments = arguments(&option.data);
        return format!("{:?}\n{arguments}", (option.description, option.path));
    }
    match name.starts_with("Loader") {
        true => efi::text(&variable.value),
        false => format!("{:04X?}", efi::numbers(&variable.value)),
    }
}

/// The plan as people see it, the hand-over, and every text that the boot loader will read.
fn everything(plan: &Plan) -> String {
    let mut all = text::plan(plan);
    all.push_str("\n--- hand-over\n");
    all.push_str(&String::from_utf8(handover(plan).to_bytes()).unwrap());
    for step in &plan.work.steps {
        if let Step::WriteFile { path, content, .. } = step {
            let content = String::from_utf8_lossy(content.expose());
            all.push_str(&format!(
                "--- {path}\n{}\n",
                content.trim_end_matches('#').trim_end()
            ));
        }
        if let Step::WriteVariable { name, variable, .. } = step {
            let text = variable_text(name, variable);
            all.push_str(&format!("--- variable {name}\n{text}\n"));
        }
    }
    all
}

#[track_caller]
fn is_golden(name: &str, now: &str) {
    let path = Path::new("tests/plans").join(format!("{name}.txt"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, now).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(now, golden, "make {} anew with BLESS=1", path.display());
}

/// What is said of every machine of `tests/hosts`, and its plan unless that stops it.
#[test]
fn every_captured_machine_has_its_golden_text() {
    let mut seen = 0;
    for entry in std::fs::read_dir("tests/hosts").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let case = case(name);
        let findings = case.findings();
        let mut text = text::findings(&findings);
        if !stops(&findings) {
            text.push_str(&everything(&case.plan()));
        }
        is_golden(name, &text);
        seen += 1;
    }
    assert!(seen >= 68, "{seen} machines");
}

/// A /boot of its own: paths in the menu entry are relative to it, and so is the UUID.
#[test]
fn the_plan_with_a_separate_boot() {
    let mut case = case("debian-12-bios");
    case.with_boot("ext2", Some("b007b007-0000-4000-8000-000000000001"));
    is_golden("debian-12-separate-boot", &everything(&case.plan()));
}

/// GRUB that can't start an entry just once: the firmware does.
#[test]
fn the_plan_by_boot_next() {
    let mut case = case("debian-12-uefi");
    case.grub().honours_next_entry = false;
    let plan = case.plan();
    assert_eq!(plan.one_shot, Some(OneShot::Variable(efi::boot_next())));
    is_golden("debian-12-uefi-boot-next", &everything(&plan));
}

/// The distribution's own tool builds the initramfs, and brings up the root by the arguments of the
/// running kernel. After a power cut nothing does: stage 2 starts without the tool.
#[test]
fn the_plan_by_a_tool_of_the_distribution() {
    for tool in ["initramfs-tools", "dracut"] {
        let mut case = case("debian-12-bios");
        case.config = config(&format!("{CONFIG}INITRAMFS={tool}\n"));
        case.host.initramfs_tools = InitramfsTools {
            mkinitramfs: Some("/usr/sbin/mkinitramfs".into()),
            dracut: Some("/usr/bin/dracut".into()),
            made_bytes: Some(30 << 20),
        };
        let plan = case.plan();
        let cores = plan.work.steps.iter().filter_map(|step| match step {
            Step::BuildCore(core) => Some(core),
            _ => None,
        });
        for core in cores {
            assert_eq!(
                core.initramfs,
                "/var/lib/balena-migrate.initramfs/stage2.img"
            );
            let init = "rdinit=/balena-migrate/root/init".to_owned();
            assert!(core.arguments.contains(&init), "{:?}", core.arguments);
        }
        is_golden(&format!("debian-12-bios-{tool}"), &everything(&plan));
    }
}

#[test]
fn a_tool_that_is_not_there_is_said() {
    for (setting, code) in [
        ("initramfs-tools", Some("initramfs-tool")),
        ("dracut", Some("initramfs-tool")),
        ("builtin", None),
        ("auto", None),
    ] {
        let mut case = case("debian-12-bios");
        case.config = config(&format!("{CONFIG}INITRAMFS={setting}\n"));
        let findings = case.findings();
        let errors: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        assert_eq!(errors.first().copied(), code, "{findings:#?}");
    }
}

#[test]
fn what_the_tool_makes_needs_room_in_boot() {
    let mut case = case("debian-12-bios");
    case.config = config(&format!("{CONFIG}INITRAMFS=dracut\n"));
    case.host.initramfs_tools.dracut = Some("/usr/bin/dracut".into());
    for (made, room) in [(Some(20), true), (Some(40), false), (None, false)] {
        case.host.initramfs_tools.made_bytes = made.map(|mib: u64| mib << 20);
        // 6 MiB are ours.
        case.mounted("/").free = 40 << 20;
        let findings = case.findings();
        let lacks = findings.iter().any(|finding| finding.code == "boot-room");
        assert_eq!(lacks, !room, "{findings:#?}");
    }
}

/// With /boot on FAT everybody may read an initramfs there: what is secret waits with the report of stage 2, and
/// is in what is kept for a power cut.
#[test]
fn what_is_secret_is_not_packed_on_a_fat_for_all() {
    for (host, by) in [
        ("arch-uefi", "GRUB"),
        ("debian-12-systemd-boot", "systemd-boot"),
        ("debian-12-uefi", "BootNext"),
    ] {
        let mut case = case(host);
        if by != "GRUB" {
            case.mounted("/boot/efi").everybody_reads = true;
        }
        if by == "BootNext" {
            case.grub().honours_next_entry = false;
        }
        let plan = case.plan();
        let waits: Vec<String> = handover(&plan)
            .install
            .iter()
            .map(|file| file.from.as_ref().unwrap().path.clone())
            .collect();
        assert_eq!(waits.len(), 2, "{by}");
        for step in &plan.work.steps {
            match step {
                Step::BuildInitramfs { recipe, .. } => {
                    let mut paths = recipe.files.iter().map(|file| &file.path);
                    assert!(!paths.any(|path| path.contains("/install/")), "{by}");
                }
                Step::BuildCore(core) => {
                    let aside: Vec<String> = core.aside.iter().map(|it| it.path.clone()).collect();
                    assert_eq!(aside, waits, "{by}");
                }
                _ => {}
            }
        }
        for path in waits {
            assert!(path.starts_with("/var/lib/balena-migrate/"), "{path}");
            assert!(written(&plan, &path).is_some(), "{path}");
        }
    }
}

/// What is wrong with a UEFI machine whose GRUB can't be armed, and the codes that it must cause.
#[test]
fn what_keeps_the_firmware_from_starting_stage_2_is_said() {
    let rows: &[Row] = &[
        ("nothing", |_| (), &[]),
        (
            "read-only variables",
            |c| c.uefi().variables = Access::ReadOnly,
            &["efi-variables"],
        ),
        (
            "variables that are not mounted",
            |c| c.uefi().variables = Access::NotMounted,
            &["efi-variables"],
        ),
        ("no ESP", |c| c.uefi().esp = None, &["esp"]),
        (
            "ESP for all",
            |c| c.mounted("/boot/efi").everybody_reads = true,
            &[],
        ),
        (
            "ESP for all, which is all that stage 2 reaches",
            |c| {
                c.mounted("/boot/efi").everybody_reads = true;
                c.mounted("/").fs_type = "zfs".into();
                c.with_home_on_stick();
            },
            &["esp-open"],
        ),
        (
            "a partition table that can't be read",
            |c| c.uefi().partitions.clear(),
            &["esp"],
        ),
        (
            "ESP not mounted",
            |c| c.host.mounts.retain(|mount| mount.point != "/boot/efi"),
            &["esp-mount"],
        ),
        (
            "a folder of the ESP is mounted",
            |c| c.mounted("/boot/efi").subtree = "/EFI".into(),
            &["esp-mount"],
        ),
        (
            "a full ESP",
            |c| c.mounted("/boot/efi").free = 12 << 20,
            &["boot-room"],
        ),
        (
            "room for the initramfs alone",
            |c| c.mounted("/boot/efi").free = 17 << 20,
            &["boot-room"],
        ),
        (
            "room for both",
            |c| c.mounted("/boot/efi").free = 18 << 20,
            &[],
        ),
        (
            "a read-only ESP",
            |c| c.mounted("/boot/efi").read_only = true,
            &["boot-read-only"],
        ),
        (
            "a kernel without a stub",
            |c| c.host.kernel.efi_stub = None,
            &["efi-kernel"],
        ),
        (
            "firmware of 32 bits",
            |c| {
                c.uefi().bits = Some(32);
                c.scan().boot.efi_loaders = vec!["BOOTIA32.EFI".into()];
            },
            &["efi-kernel"],
        ),
        (
            "a kernel that takes no initramfs",
            |c| c.host.kernel.efi_initrd = Some(false),
            &["efi-kernel"],
        ),
        (
            "facts of an older version",
            |c| c.host.firmware.uefi = None,
            &["efi-variables"],
        ),
    ];
    for (name, change, expected) in rows {
        let mut case = case("debian-12-uefi");
        case.grub().honours_next_entry = false;
        change(&mut case);
        let findings = case.findings();
        let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, *expected, "{name}");
        if let Some(finding) = findings.iter().find(|found| found.code.starts_with("efi")) {
            let why = "/boot/grub/grub.cfg does not look at next_entry";
            assert!(finding.what.starts_with(why), "{}", finding.what);
        }
    }
}

/// On UEFI machines GRUB's files do not mean that it is GRUB that starts.
#[test]
fn grub_is_armed_only_where_it_has_started_the_system() {
    type Change = fn(&mut Case);
    let rows: [(Change, &str); 6] = [
        (|_| (), "GRUB"),
        (|c| c.host.firmware.uefi = None, "GRUB"),
        (
            |c| {
                c.uefi().loader = Some(Loader {
                    info: "GRUB 2.12".into(),
                    one_shot: false,
                    partition: None,
                });
            },
            "GRUB",
        ),
        (
            |c| {
                c.uefi().loader = Some(Loader {
                    info: "systemd-boot 252".into(),
                    one_shot: true,
                    partition: None,
                });
            },
            "systemd-boot",
        ),
        (
            |c| {
                c.uefi().grub_stub = Some(GrubStub {
                    path: "/boot/efi/EFI/debian/grub.cfg".into(),
                    fs_uuid: Some("another".into()),
                });
            },
            "BootNext",
        ),
        (
            |c| c.host.kernel.cmdline = "root=UUID=1 ro".into(),
            "BootNext",
        ),
    ];
    for (number, (change, expected)) in rows.into_iter().enumerate() {
        let mut case = case("debian-12-uefi");
        change(&mut case);
        let Ok(choice) = boot::of(&case.host) else {
            panic!("row {number}");
        };
        assert_eq!(choice.loader.name(), expected, "row {number}");
        assert_eq!(choice.why.is_some(), expected != "GRUB", "row {number}");
    }
}

#[test]
fn an_old_systemd_boot_leaves_it_to_the_firmware() {
    for (info, one_shot, expected) in [
        ("systemd-boot 252.39-1~deb12u1", true, "systemd-boot"),
        ("systemd-boot 252.39-1~deb12u1", false, "BootNext"),
        ("systemd-boot 241", true, "BootNext"),
    ] {
        let mut case = case("debian-12-systemd-boot");
        let loader = case.uefi().loader.as_mut().unwrap();
        (loader.info, loader.one_shot) = (info.into(), one_shot);
        let Ok(choice) = boot::of(&case.host) else {
            panic!("{info}");
        };
        assert_eq!(choice.loader.name(), expected, "{info}");
    }
}

/// Without setting up our entry, what would start it is still put on the disk.
#[test]
fn no_setup_leaves_the_firmware_alone() {
    let mut case = case("debian-12-systemd-boot");
    case.set("NO_SETUP=TRUE\n");
    let plan = case.plan();
    assert_eq!(handover(&plan).efi.as_ref().unwrap().remove, [""; 0]);
    let touches = |step: &Step| matches!(step, Step::WriteVariable { .. } | Step::WriteFile { .. });
    assert!(!plan.work.steps.iter().any(touches));
}

#[test]
fn an_entry_of_ours_that_an_earlier_run_has_lost_is_used_again() {
    let mut case = case("debian-12-uefi");
    case.grub().honours_next_entry = false;
    let entry_of = |case: &Case| {
        let plan = case.plan();
        let mut names = plan.work.steps.iter().filter_map(|step| match step {
            Step::WriteVariable { name, .. } => efi::entry_number(name),
            _ => None,
        });
        names.next().unwrap()
    };
    assert_eq!(entry_of(&case), 2);
    let mut lost = case.uefi().entries[0].clone();
    (lost.number, lost.description) = (9, efi::OUR_ENTRY.into());
    let ours = "\\EFI\\balena-migrate\\linux.efi".to_owned();
    let theirs = lost.file.replace(ours).unwrap();
    case.uefi().entries.push(lost);
    assert_eq!(entry_of(&case), 9);
    // One for another program is not written over: a run would stop there, and every other one too.
    let known = case.uefi().entries.last_mut().unwrap();
    known.file = Some(theirs);
    assert_eq!(entry_of(&case), 2);
    case.uefi().entries.pop();
    // A number in the order without an entry is taken too: the firmware would start ours by it.
    case.uefi().boot_order.push(2);
    assert_eq!(entry_of(&case), 3);
}

#[test]
fn the_plan_fits_80_columns() {
    let mut case = case("debian-12-bios");
    case.material.keyfiles[0].what = "wifi a network with a rather long name".into();
    for line in text::plan(&case.plan()).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn a_user_s_custom_cfg_is_kept_behind_our_entry_and_restored() {
    let mut case = case("debian-12-bios");
    let grub = case.host.grub.as_mut().unwrap();
    grub.custom_cfg = Some(ConfigFile {
        text: "menuentry mine {}\n".into(),
        mode: 0o600,
    });
    let plan = case.plan();
    let custom = written(&plan, "/boot/grub/custom.cfg").unwrap();
    assert!(
        custom.starts_with("### BEGIN balena-migrate ###\n"),
        "{custom}"
    );
    assert!(custom.ends_with("### END balena-migrate ###\nmenuentry mine {}\n"));
    let old = handover(&plan).restore[0].old.as_ref().unwrap();
    assert_eq!(old.mode, 0o600, "it may hold password hashes");
}

/// No tool makes a new grub.cfg, which would lose what somebody has changed in it: it comes back byte by byte.
#[test]
fn without_custom_cfg_the_entry_goes_to_the_end_of_grub_cfg() {
    const OWN: &str = "set default=0\nmenuentry 'mine' {\n}\n# a change by hand\n\n";
    let mut case = case("debian-12-bios");
    let grub = case.grub();
    grub.sources_custom_cfg = false;
    grub.grub_cfg = Some(ConfigFile {
        text: OWN.into(),
        mode: 0o444,
    });
    let plan = case.plan();
    let made = written(&plan, "/boot/grub/grub.cfg").unwrap();
    let ours = made.strip_prefix(OWN.trim_end()).unwrap();
    assert!(
        ours.starts_with("\n### BEGIN balena-migrate ###\n"),
        "{made}"
    );
    assert!(ours.ends_with("### END balena-migrate ###\n"), "{made}");
    let order: Vec<String> = plan.work.steps.iter().map(Step::describe).collect();
    assert_eq!(
        order[order.len() - 2..],
        ["write /boot/grub/grub.cfg", "write /boot/grub/grubenv"]
    );
    let restore = &handover(&plan).restore;
    let paths: Vec<&str> = restore.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths, ["/boot/grub/grub.cfg", "/boot/grub/grubenv"]);
    let old = restore[0].old.as_ref().unwrap();
    assert_eq!(old.mode, 0o444);
    let packed = plan.work.steps.iter().find_map(|step| match step {
        Step::BuildInitramfs { recipe, .. } => {
            let mut files = recipe.files.iter();
            files.find(|file| file.path == old.content)
        }
        _ => None,
    });
    assert_eq!(packed.unwrap().content.expose(), OWN.as_bytes());
    // Kernel packages write it anew, without our entry: an undo keeps what they wrote.
    let around = plan.work.steps.iter().any(|step| match step {
        Step::WriteFile { writers, .. } => matches!(writers, Writers::Around(_)),
        _ => false,
    });
    assert!(around);
    assert!(
        plan.summary
            .boot
            .ends_with("; the entry is at the end of grub.cfg, which does not source custom.cfg"),
        "{}",
        plan.summary.boot
    );
}

/// The kernel lies with the old system, where GRUB has found it, the initramfs in a /boot beside it.
#[test]
fn each_file_is_looked_for_on_its_own_file_system() {
    let mut case = case("debian-12-bios");
    let root = case.host.mounts[0].uuid.clone().unwrap();
    case.with_boot("vfat", Some("b007-b007"));
    case.host.kernel.image = Some("/usr/lib/modules/6.1/vmlinuz".into());
    let custom = written(&case.plan(), "/boot/grub/custom.cfg").unwrap();
    let order = [
        "insmod ext2",
        "insmod fat",
        &format!("--set=root {root}\n"),
        "if linux /usr/lib/modules/6.1/vmlinuz ",
        "--set=root b007-b007\n",
        "if initrd /balena-migrate.img;",
    ];
    let mut rest = custom.as_str();
    for part in order {
        rest = match rest.split_once(part) {
            Some((_, rest)) => rest,
            None => panic!("{part}: {custom}"),
        };
    }
    assert_eq!(custom.matches("search --").count(), 2, "{custom}");
}

#[test]
fn a_menu_that_waits_is_in_the_plan() {
    let mut case = case("debian-12-bios");
    case.grub().menu.waits = true;
    let boot = case.plan().summary.boot;
    assert!(
        boot.ends_with("; its menu, which waits for ever, waits 10 seconds then"),
        "{boot}"
    );
}

/// What may be wrong with grubenv, and GRUB's note of a boot that did not end well.
#[test]
fn what_is_said_of_grubenv() {
    let said = |change: &dyn Fn(&mut balena_migrate::host::Grub)| {
        let mut case = case("debian-12-bios");
        change(case.grub());
        let findings = case.findings();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert!(stops(&findings));
        findings[0].sentence()
    };
    assert_eq!(
        said(&|grub| grub.grubenv = Some(String::new())),
        "/boot/grub/grubenv can't be used: it has 0 bytes instead of 1024"
    );
    assert_eq!(
        said(&|grub| grub.grubenv = Some("#".repeat(1024))),
        "/boot/grub/grubenv can't be used: it does not begin with \"# GRUB Environment Block\""
    );
    let block = |line: String| {
        Some(format!(
            "{:#<1024}",
            format!("# GRUB Environment Block\n{line}\n")
        ))
    };
    assert_eq!(
        said(&|grub| grub.grubenv = block(format!("a={}", "b".repeat(990)))),
        "/boot/grub/grubenv can't be used: it is full"
    );
    assert_eq!(
        said(&|grub| grub.grubenv_link = Some("/boot/efi/EFI/fedora/grubenv".into())),
        "/boot/grub/grubenv is a link to /boot/efi/EFI/fedora/grubenv, which GRUB can't follow to \
         another file system"
    );
    assert_eq!(
        said(&|grub| {
            grub.grubenv = block("recordfail=1".into());
            grub.menu.waits_after_failure = true;
        }),
        "grubenv says that the last boot did not end well (recordfail=1), and GRUB's menu waits for \
         somebody then (GRUB_RECORDFAIL_TIMEOUT=-1): the old system could not come back by itself"
    );
}

#[test]
fn a_definition_is_packed_by_us_and_handed_over() {
    let mut case = case("debian-12-bios");
    case.config = config(&CONFIG.replace("BACKUP_SCRIPT=backup.sh", "BACKUP_DEFINITION=b.yml"));
    let text = "- volume: v\n  content:\n  - source: /a\n- volume: w\n  content:\n  - source: /b\n";
    case.material.backup.volumes = definition::parse("b.yml", text, "/").0;
    let plan = case.plan();
    let made = "/root/migratecfg/backup.tgz";
    assert_eq!(
        plan.work.steps[0].describe(),
        format!("make the backup {made} of the volumes v, w")
    );
    assert_eq!(
        plan.work.steps[0].describe_undo(),
        format!("remove {made}, or put the old one back")
    );
    assert_eq!(plan.summary.backup.as_deref(), Some(made));
    assert!(matches!(
        &plan.work.steps[2],
        Step::SealHandover { backup: Some(place), .. } if place.path == made
    ));
}

/// The journal is on a file system of its own: the report is not left there.
#[test]
fn a_var_of_its_own_does_not_get_the_report() {
    let mut case = case("debian-12-bios");
    let mut var = case.host.mounts[0].clone();
    (var.point, var.device_name) = ("/var".into(), "dm-0".into());
    var.uuid = Some("5-5".into());
    case.host.mounts.push(var);
    let plan = case.plan();
    assert_eq!(plan.report, "/balena-migrate.report");
    let report = &handover(&plan).report;
    assert_eq!(report.dir, "/balena-migrate.report");
    assert_eq!(Some(&report.fs.uuid), case.host.mounts[0].uuid.as_ref());
    assert_eq!(
        plan.work.steps[0].describe(),
        "make the folder /balena-migrate.report"
    );
}

#[test]
fn no_setup_leaves_the_boot_configuration_alone() {
    let mut case = case("debian-12-bios");
    case.config = config(&format!("{CONFIG}NO_SETUP=TRUE\n"));
    let plan = case.plan();
    assert!(!plan.work.armed);
    assert!(handover(&plan).restore.is_empty());
    let touched = plan.work.steps.iter().any(|step| match step {
        Step::WriteFile { .. } | Step::WriteVariable { .. } => true,
        Step::MakeFolder { .. }
        | Step::Backup { .. }
        | Step::Archive { .. }
        | Step::Keep(_)
        | Step::BuildByTool(_)
        | Step::BuildCore(_)
        | Step::SealHandover { .. }
        | Step::BuildInitramfs { .. }
        | Step::CopyFile { .. } => false,
    });
    assert!(!touched);
}

#[test]
fn a_keyfile_of_the_user_s_goes_as_it_is() {
    let mut case = case("debian-12-bios");
    case.with_keyfile();
    let plan = case.plan();
    let installed = handover(&plan).install.last().unwrap();
    assert_eq!(installed.path, "/system-connections/office");
    assert_eq!(installed.bytes, 23);
    let file = plan.summary.new_files.last().unwrap();
    assert_eq!(file.from, "/root/migratecfg/office");
}

#[test]
fn debug_is_an_argument_of_stage_2_s_kernel() {
    let mut case = case("debian-12-bios");
    let has_debug = |case: &Case| {
        let custom = written(&case.plan(), "/boot/grub/custom.cfg").unwrap();
        let line = custom.lines().find(|line| line.contains("linux /boot"));
        line.unwrap().contains(" rdinit=/init debug")
    };
    assert!(!has_debug(&case));
    case.set("DEBUG=TRUE\n");
    assert!(has_debug(&case));
}

fn keep_of(plan: &Plan) -> Option<&Keep> {
    plan.work.steps.iter().find_map(|step| match step {
        Step::Keep(keep) => Some(keep.as_ref()),
        _ => None,
    })
}

fn names_of(keep: &Keep) -> Vec<&str> {
    keep.files.iter().map(|file| file.name.as_str()).collect()
}

/// A plan that can't promise that a torn flash goes on makes nothing for it, and says why.
#[test]
fn what_keeps_a_torn_flash_from_going_on_is_said() {
    /// What is changed, and what it then says; nothing where the flash goes on.
    type Row = (fn(&mut Case), Option<&'static str>);
    let bios: &[Row] = &[
        (
            |case| case.set("PAYLOAD=memory\n"),
            Some("the image waits in memory, which a power cut empties"),
        ),
        (
            |case| case.grub().core_tools = None,
            Some(
                "grub-mkimage, or GRUB's modules for a BIOS, are not installed (Debian: grub-pc-bin)",
            ),
        ),
        (
            |case| {
                case.with_home_on_stick();
                case.host.mounts[0].read_only = true;
            },
            Some("/ is read-only"),
        ),
        (
            |case| {
                let disk = &mut case.host.disks[0];
                disk.bytes = 4 << 40;
                disk.partitions[0].start = 3 << 40;
            },
            Some(
                "/ has no room before the place on vda where an MBR, or a BIOS, counts no more sectors",
            ),
        ),
    ];
    let uefi: &[Row] = &[
        (|_| (), None),
        (
            |case| case.uefi().core_tools = None,
            Some(
                "grub-mkimage, or GRUB's modules for x86_64-efi, are not installed (Debian: grub-common and \
                 grub-efi-amd64-bin)",
            ),
        ),
        (
            |case| case.uefi().esp = Some("sdz1".to_owned()),
            Some("the EFI system partition is not on the disk that is overwritten"),
        ),
    ];
    let board: &[Row] = &[
        (|_| (), None),
        (
            |case| {
                let firmware = case.material.firmware.as_mut().unwrap();
                firmware.retain(|file| file.path != "start4.elf");
            },
            Some(
                "nothing in /boot/firmware begins with start4, which the firmware needs on another partition",
            ),
        ),
        (
            |case| case.host.disks[0].sector_bytes = 4096,
            Some("the firmware does not start disks with sectors of 4096 bytes"),
        ),
        (
            |case| case.material.firmware = Err("/boot can't be read: I/O error".into()),
            Some("/boot can't be read: I/O error"),
        ),
        (
            |case| case.host.mounts[0].free = 1560 << 20,
            Some("/ has 1560 MiB free, 1588 are needed"),
        ),
    ];
    for (host, rows) in [
        ("debian-12-bios", bios),
        ("debian-12-uefi", uefi),
        ("raspios-12-pi-4", board),
    ] {
        for (change, reason) in rows {
            let mut case = case(host);
            change(&mut case);
            let choice = choose(&case.subject()).unwrap().unwrap();
            let scan = case.material.image.as_ref().unwrap();
            let means = resume::means(&case.subject(), scan, &choice);
            assert_eq!(means.err().as_deref(), *reason);
        }
    }
    let mut case = case("debian-12-bios");
    case.set("PAYLOAD=memory\n");
    let plan = case.plan();
    assert!(handover(&plan).resume.is_none());
    let makes_core = |step: &Step| matches!(step, Step::BuildCore(_));
    assert!(!plan.work.steps.iter().any(makes_core));
    let text = text::plan(&plan);
    let words: Vec<&str> = text.split_whitespace().collect();
    let said = words.join(" ");
    assert!(
        said.contains("WHILE IT IS OVERWRITTEN: NOTHING BOOTS"),
        "{text}"
    );
}

#[test]
fn an_image_on_another_disk_waits_there_and_so_does_the_backup() {
    let mut case = case("debian-12-bios");
    case.with_home_on_stick();
    let plan = case.plan();
    assert_eq!(plan.summary.payload_waits_in, Waits::Disk);
    assert_eq!(plan.summary.backup_waits_in, Some(Waits::Disk));
    assert_eq!(plan.summary.payload_waits_because, "sdb is not overwritten");
    let Place::Disk(file) = &handover(&plan).payload.file.place else {
        panic!("{:?}", handover(&plan).payload.file);
    };
    assert_eq!(file.fs.uuid, "5-5");
    assert_eq!(file.path, "/balena.img.gz");
    let names = names_of(keep_of(&plan).unwrap());
    assert_eq!(names, ["record", "core", "kernel", "initramfs"]);
    // 18 MiB less than with the image in memory.
    assert_eq!(plan.summary.memory_needed, 100 << 20);
}

/// Stage 2 mounts nothing from a server and finds nothing in memory: stage 1 copies the image to the disk.
#[test]
fn an_image_that_is_on_no_disk_waits_behind_the_new_system() {
    for fs_type in ["nfs4", "tmpfs", "zfs"] {
        let mut case = case("debian-12-bios");
        case.with_mount_of_no_disk("/root/migratecfg", fs_type);
        let plan = case.plan();
        assert_eq!(plan.summary.payload_waits_in, Waits::Extents);
        let why = &plan.summary.payload_waits_because;
        let not = format!(
            "not on another disk: /root/migratecfg/balena.img.gz is on {fs_type}, which stage 2 can't mount"
        );
        assert!(why.contains(&not), "{why}");
        assert!(matches!(
            &keep_of(&plan).unwrap().files[0].content,
            Content::Copy {
                in_place: false,
                ..
            }
        ));
    }
}

#[test]
fn a_root_in_a_pool_of_zfs_is_named() {
    let mut case = case("debian-12-bios");
    case.host.mounts[0].fs_type = "zfs".into();
    case.host.mounts[0].device_name.clear();
    case.host.mounts[0].disks.clear();
    let findings = case.findings();
    let disk = findings.iter().find(|finding| finding.code == "disk");
    assert!(disk.unwrap().what.starts_with("/ is on ZFS, "), "{disk:?}");
    // Nobody knows whether it is on that one.
    case.host.disks.push(case.host.disks[0].clone());
    case.host.disks[1].name = "vdb".into();
    case.set("FLASH_TO=/dev/vdb\n");
    case.material.flash_to = Some("vdb".into());
    let findings = case.findings();
    assert!(findings.iter().any(|finding| finding.code == "disk"));
}

#[test]
fn in_memory_by_choice_the_image_counts() {
    let mut case = case("debian-12-bios");
    case.set("PAYLOAD=memory\n");
    let plan = case.plan();
    assert_eq!(plan.summary.payload_waits_in, Waits::Memory);
    assert_eq!(plan.summary.payload_waits_because, "by PAYLOAD");
    assert_eq!(plan.summary.memory_needed, 118 << 20);
    assert!(matches!(
        handover(&plan).payload.file.place,
        Place::Memory(_)
    ));
    assert!(keep_of(&plan).is_none());
}

#[test]
fn a_partition_that_grows_for_the_backup_is_announced() {
    let mut case = case("debian-12-bios");
    case.scan().data_space = Some(small_ext4());
    let plan = case.plan();
    let text = text::plan(&plan).replace("\n            ", " ");
    assert!(
        text.contains("/backup.tgz, which grows as needed"),
        "{text}"
    );
    case.config = config(&CONFIG.replace("BACKUP_SCRIPT=backup.sh", ""));
    case.material.old_backup = Some(100 << 20);
    let plan = case.plan();
    // 4 MiB are the step; the partition begins at 120.
    let json = text::json(&plan, &[]);
    let bytes = json["summary"]["data_grows"]["to"].as_u64().unwrap();
    assert!((100..130).contains(&(bytes >> 20)), "{bytes}");
    let says = format!("/backup.tgz, which grows to {} MiB", bytes >> 20);
    let text = text::plan(&plan).replace("\n            ", " ");
    assert!(text.contains(&says), "{text}");
    case.material.old_backup = Some(1 << 20);
    assert!(!text::plan(&case.plan()).contains("which grows"));
}

#[test]
fn without_room_behind_the_new_system_the_image_waits_in_memory() {
    let mut case = case("debian-12-bios");
    assert_eq!(case.plan().summary.payload_waits_in, Waits::Extents);
    case.material.no_room = Some("vda has no room".into());
    let plan = case.plan();
    assert_eq!(plan.summary.payload_waits_in, Waits::Memory);
    assert!(keep_of(&plan).is_none());
    let because = &plan.summary.payload_waits_because;
    assert!(
        because.ends_with("; not behind the new system: vda has no room"),
        "{because}"
    );
    // Nor is there a place for what would go on with the flash.
    case.with_home_on_stick();
    let plan = case.plan();
    assert_eq!(plan.summary.payload_waits_in, Waits::Disk);
    assert!(keep_of(&plan).is_none());
    let fatal = plan.summary.power_cut_is_fatal.unwrap();
    assert_eq!(fatal, "vda has no room");
}

#[test]
fn without_room_and_with_too_little_memory_nothing_is_done() {
    let mut case = case("debian-12-bios");
    case.material.no_room = Some("vda has no room".into());
    case.host.memory.total = 110 << 20;
    let findings = case.findings();
    let finding = findings
        .iter()
        .find(|finding| finding.code == "payload-place")
        .unwrap()
        .sentence();
    assert!(
        finding.contains("vda has no room; not in memory: stage 2 needs 118 MiB"),
        "{finding}"
    );
}

#[test]
fn what_is_kept_lies_where_the_image_is_or_where_most_room_is() {
    let mut case = case("debian-12-bios");
    let plan = case.plan();
    let keep = keep_of(&plan).unwrap();
    assert_eq!(keep.folder, "/balena-migrate.keep");
    assert_eq!(
        names_of(keep),
        ["payload", "backup", "record", "core", "kernel", "initramfs"]
    );
    assert!(matches!(
        &keep.files[0].content,
        Content::Copy {
            in_place: true,
            sha256: Some(_),
            ..
        }
    ));
    case.with_home_on_mapping("linear");
    let plan = case.plan();
    let keep = keep_of(&plan).unwrap();
    assert_eq!(keep.folder, "/root/migratecfg/balena-migrate.keep");
    assert_eq!(keep.layout, Layout::whole(800 << 20, (2 << 30) + (4 << 20)));
    case.host.mappings[0].targets[0].kind = "crypt".into();
    case.host.mappings[0].targets[0].below = None;
    let plan = case.plan();
    assert_eq!(keep_of(&plan).unwrap().folder, "/balena-migrate.keep");
}

#[test]
fn every_place_that_is_not_possible_is_said_with_its_reason() {
    let mut case = case("debian-12-bios");
    case.host.memory.total = 110 << 20;
    case.host.mounts[0].fs_type = "btrfs".into();
    let findings = case.findings();
    let finding = findings
        .iter()
        .find(|finding| finding.code == "payload-place");
    assert_eq!(
        finding.unwrap().sentence(),
        "the image has no place to wait in while the disk is overwritten: not on another disk: \
         /root/migratecfg/balena.img.gz is on vda, which is overwritten; not behind the new system: \
         btrfs does not say where on the disk a file is; not in memory: stage 2 needs 118 MiB of \
         memory and this machine has 110: image 18, backup 0, initramfs 12, work 24, kept free \
         (MEM_MIN_FREE_S1) 64"
    );
}

#[test]
fn the_json_has_no_secrets_and_the_same_steps() {
    let plan = case("debian-12-bios").plan();
    let json = text::json(&plan, &[]);
    assert_eq!(
        json["steps"].as_array().unwrap().len(),
        plan.work.steps.len()
    );
    assert_eq!(json["summary"]["disk"]["name"], "vda");
    assert!(!json.to_string().contains("\"k\""), "the API key");
}

/// A change to a sound case, and the codes of the findings that it must cause, all of them.
type Row = (&'static str, fn(&mut Case), &'static [&'static str]);

/// Makes the image one for another device type.
fn is_for(case: &mut Case, slug: &str) {
    let boot = &mut case.scan().boot;
    boot.os_release.insert("SLUG".into(), slug.into());
    boot.device_type.as_mut().unwrap().slug = Some(slug.into());
}

/// What a new ext4 of 60 MiB says of its room.
fn small_ext4() -> ExtSpace {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(60 << 20).unwrap();
    let mkfs = std::process::Command::new("/usr/sbin/mkfs.ext4")
        .args(["-q", "-F"])
        .arg(file.path())
        .status();
    assert!(mkfs.expect("starting mkfs.ext4").success());
    ExtSpace::read(&std::fs::read(file.path()).unwrap()).unwrap()
}

const WRONG: &[Row] = &[
    ("nothing", |_| (), &[]),
    (
        "a backup that may be too large",
        |c| c.material.backup.size.packed = 1 << 50,
        &["backup-room", "backup-memory"],
    ),
    (
        "a backup that unpacks to more than the disk",
        |c| c.material.backup.size.unpacked = 1 << 50,
        &["backup-disk"],
    ),
    (
        "a backup that may be larger than resin-data can become",
        |c| {
            c.scan().data_space = Some(small_ext4());
            c.material.backup.size.packed = 1 << 50;
        },
        &["backup-size", "backup-room", "backup-memory"],
    ),
    (
        "a backup larger than resin-data can become",
        |c| {
            c.config = config(&CONFIG.replace("BACKUP_SCRIPT=backup.sh", ""));
            c.scan().data_space = Some(small_ext4());
            c.material.old_backup = Some(1 << 45);
        },
        &["backup-size", "payload-place"],
    ),
    (
        "a fault in the definition",
        |c| c.material.backup.findings = vec![Finding::error("backup-definition", "x", "y")],
        &["backup-definition"],
    ),
    ("not root", |c| c.host.euid = 1000, &["root"]),
    (
        "arm kernel",
        |c| c.host.machine = "armv7l".into(),
        &["architecture", "image-device"],
    ),
    (
        "other system",
        |c| c.host.os.id = "gentoo".into(),
        &["os-untested"],
    ),
    (
        "other version",
        |c| c.host.os.version_id = "10".into(),
        &["os-untested"],
    ),
    (
        "/ on no disk",
        |c| c.host.mounts[0].disks.clear(),
        &["disk"],
    ),
    (
        "/ on two disks",
        |c| c.host.mounts[0].disks.push("vdb".into()),
        &["disk"],
    ),
    (
        "a disk on a server",
        |c| c.host.disks[0].network = Some("iscsi".into()),
        &["disk-network"],
    ),
    (
        "/ on a block device of a server",
        |c| {
            c.host.mounts[0].device_name = "nbd0p1".into();
            c.host.mounts[0].disks.clear();
        },
        &["disk-network", "grub-write"],
    ),
    (
        "several ways to the disk of /",
        |c| {
            c.with_multipath();
            c.host.mounts[0].disks.push("vdb".into());
        },
        &["disk-multipath", "grub-write"],
    ),
    (
        "one way that is left of several",
        Case::with_multipath,
        &["disk-multipath", "root-fs", "payload-place", "grub-write"],
    ),
    ("no table", |c| c.host.disks[0].table = None, &["disk"]),
    (
        "read-only disk",
        |c| c.host.disks[0].read_only = true,
        &["disk"],
    ),
    (
        "/ on LVM",
        |c| c.host.mounts[0].device_name = "dm-0".into(),
        &["root-fs", "payload-place", "grub-write"],
    ),
    ("/ on xfs", |c| c.host.mounts[0].fs_type = "xfs".into(), &[]),
    (
        "no image",
        |c| c.material.image = Err("there is no such file".into()),
        &["image"],
    ),
    (
        "flasher image",
        |c| c.scan().boot.names.push("balena-image-flasher".into()),
        &["image-flasher"],
    ),
    (
        "flasher label",
        |c| c.scan().partitions[1].label = "flash-rootA".into(),
        &["image-flasher"],
    ),
    (
        "a partition without label",
        |c| c.scan().partitions[4].label.clear(),
        &["image-labels"],
    ),
    (
        "image too large",
        |c| c.scan().image_bytes = 2 << 30,
        &["image-size"],
    ),
    (
        "image for other sectors than those of the disk",
        |c| c.host.disks[0].sector_bytes = 4096,
        &["image-sector-size"],
    ),
    (
        "image for another board",
        |c| is_for(c, "raspberrypi3"),
        &["image-device", "config-json-device"],
    ),
    (
        "image for EFI machines",
        |c| is_for(c, "generic-amd64"),
        &["image-firmware", "config-json-device"],
    ),
    (
        "image with a newer name for the same board",
        |c| {
            is_for(c, "generic-x86-64-new");
            let device_type = c.scan().boot.device_type.as_mut().unwrap();
            device_type.aliases = vec!["genericx86-64-ext".into()];
        },
        &[],
    ),
    (
        "image with an older name in one of its files",
        |c| {
            is_for(c, "intel-nuc");
            let device_type = c.scan().boot.device_type.as_mut().unwrap();
            device_type.slug = Some("nuc".into());
        },
        &["config-json-device"],
    ),
    (
        "image whose files name two devices",
        |c| {
            let device_type = c.scan().boot.device_type.as_mut().unwrap();
            device_type.slug = Some("raspberrypi4-64".into());
        },
        &["image-device-contradiction"],
    ),
    (
        "image for another architecture, without a device type",
        |c| {
            c.scan().boot.os_release.clear();
            let device_type = c.scan().boot.device_type.as_mut().unwrap();
            (device_type.slug, device_type.arch) = (None, Some("aarch64".into()));
        },
        &["image-device"],
    ),
    (
        "image whose architecture is not its device's",
        |c| {
            let device_type = c.scan().boot.device_type.as_mut().unwrap();
            device_type.arch = Some("armv7hf".into());
        },
        &["image-device"],
    ),
    (
        "image that does not say what it is for",
        |c| {
            c.scan().boot.os_release.clear();
            c.scan().boot.device_type = None;
        },
        &["image-device-unknown"],
    ),
    (
        "resin-boot is full",
        |c| c.scan().boot.free = 20 << 10,
        &["image-boot-room"],
    ),
    (
        "config.json without keys",
        |c| {
            let json = r#"{"apiEndpoint":"https://x","applicationId":1,"vpnEndpoint":"v",
                "deviceType":"genericx86-64-ext"}"#;
            c.material.config_json_findings = balena::inspect("c", json.into()).findings;
        },
        &["config-json-key"],
    ),
    (
        "no config.json",
        |c| c.config = config("IMAGE_NAME=balena.img.gz"),
        &["config-json-none"],
    ),
    (
        "no backup script",
        |c| c.material.backup_script_mode = None,
        &["backup-script"],
    ),
    (
        "backup script not executable",
        |c| c.material.backup_script_mode = Some(0o644),
        &["backup-script"],
    ),
    (
        "no network file",
        |c| c.material.keyfiles.clear(),
        &["network-none"],
    ),
    (
        "no network file needed",
        |c| {
            c.material.keyfiles.clear();
            c.config = config(&format!("{CONFIG}REQUIRE_NMGR_FILE=FALSE\n"));
        },
        &[],
    ),
    (
        "log drive that is none",
        |c| c.config = config(&format!("{CONFIG}LOG_DRIVE=/dev/sdx1\n")),
        &["log-drive"],
    ),
    (
        "log drive on the disk that is overwritten",
        |c| {
            c.config = config(&format!("{CONFIG}LOG_DRIVE=/dev/vda1\n"));
            c.material.log_drive = Some("vda1".into());
        },
        &["log-drive"],
    ),
    (
        "log drive of another type",
        |c| c.with_log_drive("vfat"),
        &["log-drive"],
    ),
    (
        "log drive on another disk",
        |c| c.with_log_drive("ext4"),
        &[],
    ),
    (
        "little memory",
        |c| c.host.memory.total = 90 << 20,
        &["memory"],
    ),
    (
        "too little memory for the image, and room behind the new system",
        |c| c.host.memory.total = 110 << 20,
        &[],
    ),
    (
        "too little memory for the image, and it must be there",
        |c| {
            c.set("PAYLOAD=memory\n");
            c.host.memory.total = 110 << 20;
        },
        &["payload-place"],
    ),
    (
        "too little memory for the image, and a full disk",
        |c| {
            c.host.memory.total = 110 << 20;
            c.host.mounts[0].free = 150 << 20;
        },
        &["payload-place"],
    ),
    (
        "too little memory for the image, and a small disk",
        |c| {
            c.host.memory.total = 110 << 20;
            c.host.disks[0].bytes = 200 << 20;
        },
        &["payload-place"],
    ),
    (
        "an image that must be on another disk and is not",
        |c| c.set("PAYLOAD=disk\n"),
        &["payload-place"],
    ),
    (
        "a file system that does not say where a file is",
        |c| {
            c.set("PAYLOAD=extents\n");
            c.host.mounts[0].fs_type = "btrfs".into();
        },
        &["payload-place", "grub-write"],
    ),
    (
        "an encrypted file system",
        |c| {
            c.set("PAYLOAD=extents\n");
            c.with_home_on_mapping("crypt");
            c.host.mounts[0].read_only = true;
        },
        &["payload-place", "boot-read-only"],
    ),
    (
        "the image on a logical volume of this disk",
        |c| c.with_home_on_mapping("linear"),
        &[],
    ),
    (
        "the image on a logical volume, and it must be in memory",
        |c| {
            c.with_home_on_mapping("linear");
            c.set("PAYLOAD=memory\n");
        },
        &["payload-place"],
    ),
    (
        "a large old backup",
        |c| {
            c.config = config("IMAGE_NAME=i\nBALENA_CONFIG=config.json");
            c.material.old_backup = Some(1 << 30);
        },
        &["payload-place"],
    ),
    ("UEFI", Case::start_by_uefi, &[]),
    (
        "Secure Boot",
        |c| c.host.firmware.secure_boot = Some(true),
        &["secure-boot"],
    ),
    (
        "Secure Boot that the kernel alone tells of",
        |c| {
            c.start_by_uefi();
            c.host.firmware.secure_boot = None;
            c.host.firmware.kernel_secure_boot = Some(true);
        },
        &["secure-boot"],
    ),
    (
        "Secure Boot that nobody can tell of",
        |c| {
            c.start_by_uefi();
            c.host.firmware.secure_boot = None;
        },
        &["secure-boot"],
    ),
    (
        "Secure Boot without keys",
        |c| {
            c.start_by_uefi();
            c.host.firmware.secure_boot = Some(true);
            c.host.firmware.uefi = Some(Uefi {
                setup_mode: Some(true),
                ..Uefi::default()
            });
        },
        &[],
    ),
    (
        "image without a program for UEFI",
        |c| {
            c.start_by_uefi();
            c.scan().boot.efi_loaders = vec!["BOOTIA32.EFI".into()];
        },
        &["image-firmware"],
    ),
    (
        "image for UEFI alone, on firmware of 32 bits",
        |c| {
            c.start_by_uefi();
            c.host.firmware.uefi = Some(Uefi {
                bits: Some(32),
                ..Uefi::default()
            });
        },
        &["image-firmware"],
    ),
    (
        "image without code for a BIOS",
        |c| c.scan().boot_code = false,
        &["image-firmware"],
    ),
    (
        "image without code for a BIOS on a UEFI machine",
        |c| {
            c.start_by_uefi();
            c.scan().boot_code = false;
        },
        &[],
    ),
    ("no GRUB", |c| c.host.grub = None, &["boot-loader"]),
    (
        "hand-written grub.cfg",
        |c| c.grub().honours_next_entry = false,
        &["grub-next-entry"],
    ),
    (
        "a default that is set behind it",
        |c| c.grub().later_default = Some("set default=2 in grub.cfg".into()),
        &["grub-default"],
    ),
    (
        "a menu that waits for ever",
        |c| c.grub().menu.waits = true,
        &["grub-timeout"],
    ),
    (
        "a menu that waits for ever after a failure",
        |c| c.grub().menu.waits_after_failure = true,
        &["grub-recordfail"],
    ),
    (
        "a menu that wants a password",
        |c| c.grub().menu.locked = true,
        &["grub-password"],
    ),
    (
        "grubenv is a link",
        |c| c.grub().grubenv_link = Some("/boot/efi/EFI/fedora/grubenv".into()),
        &["grubenv"],
    ),
    (
        "a /boot without a known UUID",
        |c| c.with_boot("ext4", None),
        &["grub-search"],
    ),
    (
        "/boot on btrfs",
        |c| c.with_boot("btrfs", Some("1-2")),
        &["grub-write"],
    ),
    (
        "damaged grubenv",
        |c| c.grub().grubenv = Some("x=y\n".into()),
        &["grubenv"],
    ),
    ("no grubenv", |c| c.grub().grubenv = None, &[]),
    (
        "no place for an entry",
        |c| {
            c.grub().sources_custom_cfg = false;
        },
        &["grub-entry"],
    ),
    (
        "no kernel file",
        |c| c.host.kernel.image = None,
        &["kernel"],
    ),
    (
        "full /boot",
        |c| c.host.mounts[0].free = 1 << 20,
        &["root-room", "boot-room"],
    ),
    (
        "an untested system, and nobody wants to know",
        |c| {
            c.host.os.version_id = "10".into();
            c.set("NO_OS_CHECK=TRUE\n");
        },
        &[],
    ),
    (
        "the disk to overwrite is confirmed",
        |c| {
            c.set("FLASH_TO=/dev/vda\n");
            c.material.flash_to = Some("vda".into());
        },
        &[],
    ),
    (
        "a slow disk",
        |c| {
            c.set("MIN_WRITE_SPEED=2000\nWARN_WRITE_SPEED=4000\n");
            c.material.write_speed = Some(Ok(1_999 << 10));
        },
        &["write-speed"],
    ),
    (
        "a fast disk",
        |c| {
            c.set("MIN_WRITE_SPEED=2000\nWARN_WRITE_SPEED=4000\n");
            c.material.write_speed = Some(Ok(4_000 << 10));
        },
        &[],
    ),
    (
        "a disk that could not be measured",
        |c| c.material.write_speed = Some(Err("no room".into())),
        &["write-speed"],
    ),
    (
        "a disk with a bad block, and none may be",
        |c| c.scanned("0", Ok((1, 0))),
        &["bad-blocks"],
    ),
    (
        "a disk with some bad blocks that may be",
        |c| c.scanned("1%", Ok((7, 20))),
        &["bad-blocks"],
    ),
    (
        "a disk without bad blocks",
        |c| c.scanned("0", Ok((0, 0))),
        &[],
    ),
    (
        "a disk that could not be scanned",
        |c| c.scanned("0", Err("it is gone".into())),
        &["bad-blocks"],
    ),
    (
        "a disk that was not scanned",
        |c| c.set("MAX_BADBLOCKS=0\n"),
        &[],
    ),
    (
        "the folder on a server",
        |c| c.with_mount_of_no_disk("/root/migratecfg", "nfs4"),
        &[],
    ),
    (
        "the folder on a server, and the image must be in memory",
        |c| {
            c.with_mount_of_no_disk("/root/migratecfg", "nfs4");
            c.set("PAYLOAD=memory\n");
        },
        &["payload-place"],
    ),
    (
        "the folder in memory, and no room on the disk",
        |c| {
            c.with_mount_of_no_disk("/root", "tmpfs");
            c.host.mounts[0].free = 150 << 20;
        },
        &["home-dir", "payload-place"],
    ),
    (
        "/var in memory",
        |c| c.with_mount_of_no_disk("/var", "tmpfs"),
        &["journal-place"],
    ),
    (
        "/boot in a pool of ZFS",
        |c| c.with_mount_of_no_disk("/boot", "zfs"),
        &["grub-write", "grub-search"],
    ),
    (
        "/ in a pool of ZFS",
        |c| {
            c.host.mounts.remove(0);
            c.with_mount_of_no_disk("/", "zfs");
        },
        &["disk", "grub-write", "grub-search"],
    ),
    (
        "a full root",
        |c| c.set("MIN_ROOT_AVAIL=4000000\n"),
        &["root-room"],
    ),
    (
        "no wifi but a keyfile of the user's",
        |c| {
            c.material.keyfiles.clear();
            c.with_keyfile();
        },
        &[],
    ),
    (
        "the API does not answer",
        |c| {
            let finding = Finding::error("api-unreachable", "the API x:443 can't be reached", "y");
            c.material.connect_findings.push(finding);
        },
        &["api-unreachable"],
    ),
    (
        "read-only /boot",
        |c| c.host.mounts[0].read_only = true,
        &["boot-read-only"],
    ),
];

impl Case {
    fn scan(&mut self) -> &mut Scan {
        self.material.image.as_mut().unwrap()
    }

    fn grub(&mut self) -> &mut balena_migrate::host::Grub {
        self.host.grub.as_mut().unwrap()
    }

    fn uefi(&mut self) -> &mut Uefi {
        self.host.firmware.uefi.as_mut().unwrap()
    }

    /// Started by UEFI firmware of which no more is known.
    fn start_by_uefi(&mut self) {
        self.host.firmware.efi = true;
        self.host.firmware.secure_boot = Some(false);
    }

    fn mounted(&mut self, point: &str) -> &mut Mount {
        let mut mounts = self.host.mounts.iter_mut();
        mounts.find(|mount| mount.point == point).unwrap()
    }

    /// Adds settings to the configuration.
    fn set(&mut self, text: &str) {
        self.config = config(&format!("{CONFIG}{text}"));
    }

    /// MAX_BADBLOCKS, and what the scan found: bad blocks, and how many there may be.
    fn scanned(&mut self, limit: &str, found: Result<(u64, u64), String>) {
        self.set(&format!("MAX_BADBLOCKS={limit}\n"));
        self.material.bad_blocks = Some(found.map(|(bad, limit)| bad_blocks::Scan {
            bad,
            first: (0..bad).collect(),
            limit,
        }));
    }

    /// A file of COPY_NMGR_FILES.
    fn with_keyfile(&mut self) {
        self.material.copied.push(Copied {
            name: "office".into(),
            path: "/root/migratecfg/office".into(),
            bytes: Secret::new(*b"[connection]\nid=office\n"),
        });
    }

    /// HOME_DIR on a mapping of the second partition of the disk.
    fn with_home_on_mapping(&mut self, kind: &str) {
        let below = (kind == "linear").then(|| Below {
            name: "vda2".into(),
            start: 4 << 20,
        });
        let disk = &mut self.host.disks[0];
        disk.bytes = 4 << 30;
        let mut part = disk.partitions[0].clone();
        (part.name, part.number) = ("vda2".into(), 2);
        (part.start, part.bytes) = (2 << 30, 1 << 30);
        disk.partitions.push(part);
        self.host.mappings = vec![Mapping {
            name: "dm-0".into(),
            targets: vec![MappingTarget {
                start: 0,
                bytes: 800 << 20,
                kind: kind.into(),
                below,
            }],
        }];
        let mut mount = self.host.mounts[0].clone();
        mount.point = "/root/migratecfg".into();
        mount.device_name = "dm-0".into();
        (mount.bytes, mount.free) = (700 << 20, 600 << 20);
        self.host.mounts.push(mount);
    }

    /// / in a partition of a disk that is reached through a mapping.
    fn with_multipath(&mut self) {
        let mapping = |name: &str, kind: &str, below: Option<&str>| Mapping {
            name: name.into(),
            targets: vec![MappingTarget {
                start: 0,
                bytes: 1 << 30,
                kind: kind.into(),
                below: below.map(|name| Below {
                    name: name.into(),
                    start: 1 << 20,
                }),
            }],
        };
        self.host.mappings = vec![
            mapping("dm-0", "multipath", None),
            mapping("dm-1", "linear", Some("dm-0")),
        ];
        self.host.mounts[0].device_name = "dm-1".into();
    }

    /// A file system that is on no block device.
    fn with_mount_of_no_disk(&mut self, point: &str, fs_type: &str) {
        self.host.mounts.push(Mount {
            point: point.into(),
            subtree: "/".into(),
            device: "0:99".into(),
            device_name: String::new(),
            disks: Vec::new(),
            fs_type: fs_type.into(),
            uuid: None,
            bytes: 0,
            free: 0,
            read_only: false,
            everybody_reads: false,
        });
    }

    /// A /boot of its own, with a file system of that type and UUID.
    fn with_boot(&mut self, fs_type: &str, uuid: Option<&str>) {
        let disk = &mut self.host.disks[0];
        let mut boot = disk.partitions[0].clone();
        (boot.name, boot.number) = ("vda2".into(), 2);
        boot.fs = uuid.map(|uuid| FileSystem {
            fs_type: fs_type.into(),
            uuid: uuid.into(),
            label: String::new(),
        });
        disk.partitions.push(boot);
        let mut mount = self.host.mounts[0].clone();
        mount.point = "/boot".into();
        mount.device_name = "vda2".into();
        mount.fs_type = fs_type.into();
        mount.uuid = uuid.map(str::to_owned);
        self.host.mounts.push(mount);
    }

    /// HOME_DIR on a USB stick without partitions.
    fn with_home_on_stick(&mut self) {
        let mut disk = self.host.disks[0].clone();
        disk.name = "sdb".into();
        disk.partitions.clear();
        disk.fs = Some(FileSystem {
            fs_type: "vfat".into(),
            uuid: "5-5".into(),
            label: String::new(),
        });
        self.host.disks.push(disk);
        let mut mount = self.host.mounts[0].clone();
        mount.point = "/root/migratecfg".into();
        mount.device_name = "sdb".into();
        mount.disks = vec!["sdb".into()];
        mount.fs_type = "vfat".into();
        mount.uuid = Some("5-5".into());
        self.host.mounts.push(mount);
    }

    /// LOG_DRIVE on a second disk, with LOG_FS_TYPE left at ext4.
    fn with_log_drive(&mut self, fs_type: &str) {
        let mut disk = self.host.disks[0].clone();
        disk.name = "sdb".into();
        disk.partitions[0].name = "sdb1".into();
        disk.partitions[0].fs = Some(FileSystem {
            fs_type: fs_type.into(),
            uuid: "5-5".into(),
            label: String::new(),
        });
        self.host.disks.push(disk);
        self.config = config(&format!("{CONFIG}LOG_DRIVE=/dev/sdb1\n"));
        self.material.log_drive = Some("sdb1".into());
    }
}

#[test]
fn what_is_wrong_is_said_and_nothing_else() {
    for (name, change, expected) in WRONG {
        let mut case = case("debian-12-bios");
        change(&mut case);
        let findings = case.findings();
        let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, *expected, "{name}");
    }
}

/// GRUB starts without the variables of the firmware: that they can't be read means nothing.
#[test]
fn secure_boot_that_the_kernel_says_is_off_is_a_warning() {
    let mut case = case("debian-12-uefi");
    case.uefi().variables = Access::NotMounted;
    case.host.firmware.secure_boot = None;
    assert!(stops(&case.findings()));
    case.host.firmware.kernel_secure_boot = Some(false);
    let findings = case.findings();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].code, "secure-boot");
    assert!(!stops(&findings));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let mut case = case("debian-12-bios");
    case.host.euid = 1000;
    case.host.memory.total = 1 << 20;
    case.material.keyfiles.clear();
    case.grub().honours_next_entry = false;
    let codes: Vec<&str> = case.findings().iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["root", "network-none", "memory", "grub-next-entry"]);
}
