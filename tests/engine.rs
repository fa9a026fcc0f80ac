//! The engine's promise: whatever happens at whatever change, an undo leaves the tree as it was.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use balena_migrate::backup::definition;
use balena_migrate::boot::core_fat::{BoardFiles, FirmwareFile};
use balena_migrate::efi::load_option::{ACTIVE, LoadOption, Node};
use balena_migrate::efi::{self, Variable};
use balena_migrate::engine::journal::{Begin, Journal};
use balena_migrate::engine::{self, ApplyError, undo::undo};
use balena_migrate::ext_space::ExtSpace;
use balena_migrate::growth::DataPlace;
use balena_migrate::handover::{
    DiskIdentity, Extent, FilePath, Firmware, Format, FsIdentity, Handover, Image, ImagePartition,
    LogLevel, OldSystem, Payload, Place, Power, ReportPlace, StoredFile, TableIdentity, VERSION,
};
use balena_migrate::host::CoreTools;
use balena_migrate::initramfs::{Compression, Recipe, SmallFile};
use balena_migrate::payload::digest::sha256_hex;
use balena_migrate::payload::scan::{BootFiles, Scan};
use balena_migrate::plan::Steps;
use balena_migrate::resume::{Record, State};
use balena_migrate::secret::Secret;
use balena_migrate::step::core::{self, Aside, BuildCore, CoreFirmware};
use balena_migrate::step::keep::{Content, Growth, Keep, Wanted};
use balena_migrate::step::{BackupPlace, Expect, Step, Writers};
use balena_migrate::sys::files::Gate;
use balena_migrate::sys::{Sys, efivars};
use disk::{Disk, MIB};
use fatfs::{FileSystem, FsOptions};

#[path = "keep/disk.rs"]
mod disk;

const OLD_CUSTOM: &str = "menuentry mine {}\n";

/// Path, and what is there: mode, owner and content of a file, mode and owner of a folder.
type Tree = BTreeMap<String, (u32, u32, u32, Vec<u8>)>;

fn tree_of(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match meta.is_dir() {
                true => Vec::new(),
                false => fs::read(&path).unwrap(),
            };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            tree.insert(name, (meta.mode(), meta.uid(), meta.gid(), content));
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    tree
}

/// A small machine in a folder, in memory where there is a place for it: fsync is slow on disks.
fn machine() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    let dir = match shm.is_dir() {
        true => tempfile::tempdir_in(shm),
        false => tempfile::tempdir(),
    }
    .unwrap();
    for folder in [
        "boot/grub",
        "etc",
        "var/lib",
        "home",
        "usr/bin",
        "usr/lib/grub/i386-pc",
    ] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    let write = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("boot/grub/custom.cfg", OLD_CUSTOM, 0o640);
    write("home/backup.tgz", "of yesterday", 0o644);
    write(
        "home/backup.sh",
        "#!/bin/sh\ntar -czf backup.tgz settings\n",
        0o755,
    );
    write("boot/vmlinuz", "a kernel", 0o644);
    fs::create_dir_all(dir.path().join("boot/efi/EFI")).unwrap();
    fs::create_dir_all(dir.path().join(&efivars::DIR[1..])).unwrap();
    let sys = Sys::new(dir.path());
    for (name, number) in [(efi::boot_order(), 3), (efi::boot_next(), 3)] {
        let old = Variable::persistent(efi::numbers_value(&[number]));
        sys.write_efi(&name, &old).unwrap();
    }
    // It stands in for GRUB's tools, which the test's machine may not have: a core of three sectors
    // that says where its own rest is, and a boot sector that starts it.
    write(
        "usr/bin/grub-mkimage",
        "#!/bin/sh\nhead -c 500 /dev/zero > core.img\n\
         printf '\\002\\0\\0\\0\\0\\0\\0\\0\\002\\0\\040\\010' >> core.img\n\
         if [ -e core.tar ]; then head -c 1024 core.tar >> core.img; fi\n",
        0o755,
    );
    let mut boot_img = vec![0; 512];
    boot_img[0x5c] = 1;
    boot_img[0x64] = 0xff;
    boot_img[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::write(dir.path().join("usr/lib/grub/i386-pc/boot.img"), boot_img).unwrap();
    fs::create_dir(dir.path().join("home/settings")).unwrap();
    write("home/settings/mine", "settings", 0o600);
    write("executable", "an executable", 0o755);
    dir
}

fn handover() -> Handover {
    let fs = FsIdentity {
        uuid: "u".into(),
        fs_type: "ext4".into(),
    };
    let part = |label: &str| ImagePartition {
        number: 1,
        label: label.into(),
        fs_type: "vfat".into(),
        start: 0,
        bytes: 1,
    };
    Handover {
        version: VERSION,
        run_id: "run".into(),
        disk: DiskIdentity {
            bytes: 1,
            sector_bytes: 512,
            serial: None,
            wwid: None,
            table: Some(TableIdentity::Mbr("00000001".into())),
            old_system: OldSystem::Overwritten(fs.clone()),
        },
        modules: Vec::new(),
        restore: Vec::new(),
        payload: Payload {
            file: StoredFile {
                place: Place::Memory(FilePath {
                    fs: fs.clone(),
                    path: "/i".into(),
                }),
                bytes: 1,
                sha256: "0".into(),
            },
            format: Format::Gzip,
            image: Image {
                bytes: 1,
                sha256: "0".into(),
                boot: part("resin-boot"),
                data: part("resin-data"),
                data_end: None,
                overlays: Vec::new(),
                fingerprint: false,
            },
        },
        backup: None,
        install: Vec::new(),
        report: ReportPlace {
            fs,
            dir: "/var/lib/balena-migrate".into(),
        },
        firmware: Firmware::Bios,
        efi: None,
        log_drive: None,
        memory_reserve: 0,
        resume: None,
        pretend: false,
        machine: "old-server".to_owned(),
        power: Power::Hold,
        log_level: LogLevel::Info,
    }
}

fn script() -> Step {
    Step::Backup {
        argv: vec!["/home/backup.sh".into()],
        folder: "/home".into(),
        creates: "/home/backup.tgz".into(),
    }
}

fn archive() -> Step {
    let text = "- volume: settings\n  content:\n  - source: settings\n";
    let (volumes, findings) = definition::parse("backup.yml", text, "/home");
    assert_eq!(findings, []);
    Step::Archive {
        volumes,
        creates: "/home/backup.tgz".into(),
    }
}

/// A disk without a disk: the first files are given blocks before the region.
fn small_disk() -> Disk {
    Disk::new(120 * MIB, Vec::new())
}

/// The machine in `dir`, on that disk.
fn sys_of(dir: &tempfile::TempDir) -> Sys {
    Sys::new(dir.path()).on_media(Arc::new(small_disk()))
}

fn keep(firmware: &CoreFirmware) -> Keep {
    let wanted = |name: &str, content| Wanted {
        name: name.into(),
        content,
        contiguous: false,
        by_firmware: false,
    };
    let mut image = handover().payload.image;
    image.bytes = 2 * MIB;
    let mut files = core::files(firmware, "/boot/vmlinuz", 8, MIB);
    files.push(wanted(
        "payload",
        Content::Copy {
            path: "/executable".into(),
            sha256: None,
            in_place: false,
        },
    ));
    Keep {
        folder: "/balena-migrate.keep".into(),
        layout: small_disk().layout(),
        disk: "vda".into(),
        disk_bytes: small_disk().bytes,
        sector_bytes: 512,
        image,
        growth: None,
        files,
    }
}

fn tools() -> CoreTools {
    CoreTools {
        mkimage: "/usr/bin/grub-mkimage".into(),
        dir: "/usr/lib/grub/i386-pc".into(),
    }
}

fn core(firmware: &CoreFirmware) -> BuildCore {
    BuildCore {
        firmware: firmware.clone(),
        kernel: "/boot/vmlinuz".into(),
        keep: keep(firmware),
        arguments: vec!["console=tty0".into()],
        initramfs: "/boot/balena-migrate.img".into(),
        aside: vec![Aside {
            content: "/balena-migrate/install/1".into(),
            path: "/home/settings/mine".into(),
        }],
        run_id: "run".into(),
    }
}

/// resin-data of the image, in which the file system says what `space` does.
fn data(space: Option<ExtSpace>) -> DataPlace {
    let handover = handover();
    let scan = Scan {
        format: handover.payload.format,
        file_bytes: 0,
        file_sha256: String::new(),
        file_md5: None,
        unpack_memory: 0,
        image_bytes: handover.payload.image.bytes,
        image_sha256: String::new(),
        table: handover.disk.table.clone().expect("it has one"),
        partitions: vec![handover.payload.image.data],
        partitions_end: 0,
        data_space: space,
        partition_names: Vec::new(),
        boot_code: true,
        boot: BootFiles::default(),
    };
    DataPlace::of(&scan, 1 << 30).unwrap()
}

/// One step of every kind that needs no tool of a distribution. The backup is made by the script or
/// by us.
fn steps(backup: Step, backup_limit: u64) -> Steps {
    steps_on(&CoreFirmware::Bios(tools()), backup, backup_limit)
}

fn steps_on(firmware: &CoreFirmware, backup: Step, backup_limit: u64) -> Steps {
    let fs = handover().report.fs;
    let steps = vec![
        backup,
        Step::Keep(Box::new(keep(firmware))),
        Step::SealHandover {
            handover: Box::new(handover()),
            backup: Some(BackupPlace {
                path: "/home/backup.tgz".into(),
                place: Place::Memory(FilePath {
                    fs,
                    path: "/home/backup.tgz".into(),
                }),
            }),
            core: Some(Box::new(core(firmware))),
            backup_limit,
            data: Box::new(data(None)),
            kept: Some("/balena-migrate.keep".into()),
        },
        Step::BuildInitramfs {
            path: "/boot/balena-migrate.img".into(),
            recipe: Box::new(Recipe {
                root: "",
                executable: "/executable".into(),
                modules: Vec::new(),
                files: vec![SmallFile {
                    path: "/balena-migrate/install/0".into(),
                    content: Secret::new(*b"key"),
                }],
                compression: Compression::None,
            }),
        },
        Step::BuildCore(Box::new(core(firmware))),
        Step::WriteFile {
            path: "/boot/grub/custom.cfg".into(),
            content: Secret::new(format!("menuentry ours {{}}\n{OLD_CUSTOM}")),
            mode: 0o644,
            expect: Expect::Seen(Some(OLD_CUSTOM.into())),
            writers: Writers::People,
        },
        Step::WriteFile {
            path: "/boot/grub/grubenv".into(),
            content: Secret::new("next_entry=balena-migrate"),
            mode: 0o644,
            expect: Expect::Seen(None),
            writers: Writers::BootLoader,
        },
        Step::MakeFolder {
            path: "/boot/efi/EFI/balena-migrate".into(),
        },
        Step::CopyFile {
            from: "/boot/vmlinuz".into(),
            to: "/boot/efi/EFI/balena-migrate/linux.efi".into(),
        },
        Step::WriteVariable {
            name: efi::boot_entry(OUR_NUMBER),
            variable: our_entry(),
            must_be_free: true,
        },
        Step::WriteVariable {
            name: efi::boot_next(),
            variable: our_next(),
            must_be_free: false,
        },
    ];
    Steps { steps, armed: true }
}

const OUR_NUMBER: u16 = 0;

fn our_entry() -> Variable {
    let option = LoadOption {
        attributes: ACTIVE,
        description: efi::OUR_ENTRY.to_owned(),
        path: vec![Node::File("\\EFI\\balena-migrate\\linux.efi".to_owned())],
        rest: Vec::new(),
        data: efi::utf16("initrd=x"),
    };
    Variable::persistent(option.to_bytes())
}

fn our_next() -> Variable {
    Variable::persistent(efi::numbers_value(&[OUR_NUMBER]))
}

fn begin() -> Begin {
    Begin {
        run_id: "run".into(),
        home: "/home".into(),
        boot_id: "boot".into(),
        one_shot: None,
        report: "/var/lib/balena-migrate".into(),
    }
}

fn apply(sys: &Sys, changing: &Sys, steps: &Steps) -> Result<(), ApplyError> {
    engine::apply(sys, changing, steps, begin(), &mut |_, _| ())
}

#[test]
fn what_resumes_the_flash_is_on_the_disk_and_the_hand_over_knows_where() {
    let dir = machine();
    let sys = sys_of(&dir);
    apply(&sys, &sys, &steps(script(), 1000)).unwrap();
    let sealed = sys.read("/etc/balena-migrate-stage2.conf").unwrap();
    let resume = Handover::parse(&sealed).unwrap().resume.unwrap();
    let raw = |extents: &[Extent]| {
        let ranges: Vec<_> = extents.iter().map(|part| part.start..part.end()).collect();
        let mut bytes = Vec::new();
        sys.read_raw("/dev/vda", &ranges, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .unwrap();
        bytes
    };
    let record = Record::read(&raw(&[resume.record])).unwrap();
    assert_eq!(record.run_id, "run");
    let State::Prepared(files) = record.state else {
        panic!("{record:?}");
    };
    for file in &files {
        let bytes = raw(&file.extents);
        let found = sha256_hex(&bytes[..file.bytes as usize]);
        assert_eq!(found, file.sha256, "{}", file.what);
    }
    let [core, kernel, initramfs] = files.as_slice() else {
        panic!("{files:?}");
    };
    assert_eq!(raw(&kernel.extents)[..8], *b"a kernel");
    assert_eq!(resume.secrets, initramfs.extents);
    let kept = raw(&initramfs.extents);
    has_what_is_missing(&sys, &kept[..initramfs.bytes as usize]);
    // The boot code starts the core, and the core its own rest.
    let sector = |hex: &str| u64::from_str_radix(hex, 16).unwrap().swap_bytes();
    let place = core.extents[0].start / 512;
    assert_eq!(sector(&resume.first_sector[2 * 0x5c..2 * 0x64]), place);
    let core = raw(&core.extents);
    assert_eq!(core[500..508], (place + 1).to_le_bytes());
    // Its configuration names the sectors of the others.
    let config = String::from_utf8_lossy(&core[512..]).into_owned();
    let run = format!(
        "linux ${{cmdpath}}{}+1 console=tty0",
        kernel.extents[0].start / 512
    );
    assert!(config.contains(&run), "{run}\n{config}");
}

/// Reads files of the one partition that the first sector of the hand-over names, which is of that `kind` and all
/// of it secret.
fn kept_partition(sys: &Sys, kind: u8) -> impl Fn(&str) -> Vec<u8> {
    let sealed = sys.read("/etc/balena-migrate-stage2.conf").unwrap();
    let resume = Handover::parse(&sealed).unwrap().resume.unwrap();
    let first = resume.first_sector().unwrap();
    let [place] = resume.secrets[..] else {
        panic!("{resume:?}");
    };
    let le = |at: usize| u64::from(u32::from_le_bytes(first[at..at + 4].try_into().unwrap()));
    assert_eq!((first.len(), first[450]), (512, kind));
    assert_eq!((le(454), le(458)), (place.start / 512, place.bytes / 512));
    let mut partition = Vec::new();
    let range = place.start..place.end();
    sys.read_raw("/dev/vda", &[range], &mut |part| {
        partition.extend_from_slice(part);
        Ok(())
    })
    .unwrap();
    let fs = FileSystem::new(Cursor::new(partition), FsOptions::new()).unwrap();
    move |path| {
        let mut content = Vec::new();
        let mut file = fs.root_dir().open_file(path).unwrap();
        file.read_to_end(&mut content).unwrap();
        content
    }
}

/// The files for the new system are in no initramfs that everybody may read; in the one that is kept they have
/// to be.
#[track_caller]
fn has_what_is_missing(sys: &Sys, initramfs: &[u8]) {
    let packed = sys.read("/boot/balena-migrate.img").unwrap();
    let (missing, rest) = initramfs.split_at(initramfs.len() - packed.len());
    assert!(rest == packed);
    let text = String::from_utf8_lossy(missing);
    let content = text.find("balena-migrate/install/1\0").unwrap();
    assert!(text[content..].contains("settings"), "{text}");
}

#[test]
fn on_a_board_a_boot_partition_of_its_own_resumes_the_flash() {
    let dir = machine();
    let before = tree_of(dir.path());
    let sys = sys_of(&dir);
    let firmware = CoreFirmware::Board(BoardFiles {
        point: "/boot".into(),
        firmware: vec![FirmwareFile {
            path: "vmlinuz".into(),
            bytes: 8,
        }],
        config: "kernel=vmlinuz\n".into(),
    });
    apply(&sys, &sys, &steps_on(&firmware, script(), 1000)).unwrap();
    let read = kept_partition(&sys, 0x0c);
    assert_eq!(read("vmlinuz"), b"a kernel");
    assert_eq!(read("config.txt"), b"kernel=vmlinuz\n");
    assert_eq!(read("balena-migrate.txt"), b"console=tty0\n");
    has_what_is_missing(&sys, &read("balena-migrate.img"));
    undo(&sys).unwrap();
    assert_eq!(tree_of(dir.path()), before);
}

#[test]
fn on_uefi_firmware_a_partition_of_its_own_resumes_the_flash() {
    let dir = machine();
    let before = tree_of(dir.path());
    let sys = sys_of(&dir);
    let firmware = CoreFirmware::Uefi {
        bits: 64,
        tools: tools(),
    };
    apply(&sys, &sys, &steps_on(&firmware, script(), 1000)).unwrap();
    let read = kept_partition(&sys, 0xef);
    assert_eq!(read("linux"), b"a kernel");
    has_what_is_missing(&sys, &read("initramfs"));
    assert!(!read("EFI/BOOT/BOOTX64.EFI").is_empty());
    let config = String::from_utf8(read("EFI/BOOT/grub.cfg")).unwrap();
    assert!(config.contains("if linux /linux console=tty0;"), "{config}");
    undo(&sys).unwrap();
    assert_eq!(tree_of(dir.path()), before);
}

/// Counts the changes of a whole run.
fn changes_of_a_run(backup: fn() -> Step) -> usize {
    let dir = machine();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let sys = sys_of(&dir);
    let counting = sys.gated(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }));
    apply(&sys, &counting, &steps(backup(), 1000)).unwrap();
    count.load(Ordering::SeqCst)
}

/// A gate that fails at change `at` (from 0), and with `for_good` at every one after it, as when
/// the process was killed.
fn breaks_at(at: usize, for_good: bool) -> Gate {
    let count = AtomicUsize::new(0);
    Arc::new(move |change| {
        let now = count.fetch_add(1, Ordering::SeqCst);
        match now == at || (for_good && now > at) {
            true => Err(io::Error::other(format!("broken on purpose at: {change}"))),
            false => Ok(()),
        }
    })
}

#[test]
fn the_backup_that_was_made_says_where_resin_data_ends() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(6 << 20).unwrap();
    let mkfs = std::process::Command::new("/usr/sbin/mkfs.ext4")
        .args(["-q", "-F"])
        .arg(file.path())
        .status();
    assert!(mkfs.expect("starting mkfs.ext4").success());
    let space = ExtSpace::read(&fs::read(file.path()).unwrap());
    for (backup, end) in [(1000, None), (9 << 20, Some(16 << 20)), (1 << 30, None)] {
        let dir = machine();
        let place = dir.path().join("home/backup.tgz");
        fs::File::create(place).unwrap().set_len(backup).unwrap();
        let sys = sys_of(&dir);
        let mut steps = steps(script(), u64::MAX);
        steps
            .steps
            .retain(|step| matches!(step, Step::Keep(_) | Step::SealHandover { .. }));
        let [
            Step::Keep(keep),
            Step::SealHandover {
                data: place, core, ..
            },
        ] = steps.steps.as_mut_slice()
        else {
            unreachable!();
        };
        *core = None;
        keep.growth = Some(Growth {
            data: data(space),
            backup: Some("/home/backup.tgz".into()),
            others: 0,
        });
        **place = data(space);
        let applied = apply(&sys, &sys, &steps);
        if backup == 1 << 30 {
            let why = format!("{:#}", anyhow::Error::from(applied.unwrap_err()));
            assert!(why.contains("the disk has no more"), "{why}");
            continue;
        }
        applied.unwrap();
        let sealed = sys.read("/etc/balena-migrate-stage2.conf").unwrap();
        let sealed = Handover::parse(&sealed).unwrap();
        assert_eq!(sealed.payload.image.data_end, end);
        let Place::Extents(extents) = sealed.payload.file.place else {
            panic!("{:?}", sealed.payload.file);
        };
        assert!(
            extents[0].start >= end.unwrap_or(4 << 20),
            "what is kept lies behind the grown resin-data: {extents:?}"
        );
    }
}

#[test]
fn a_whole_run_changes_the_tree_and_undo_gives_it_back() {
    let dir = machine();
    let before = tree_of(dir.path());
    let sys = sys_of(&dir);
    apply(&sys, &sys, &steps(script(), 1000)).unwrap();

    let sealed = sys.read("/etc/balena-migrate-stage2.conf").unwrap();
    let sealed = Handover::parse(&sealed).unwrap();
    let made = sys.meta("/home/backup.tgz").unwrap().bytes;
    assert!(made > 100, "a new one");
    let Place::Extents(extents) = &sealed.payload.file.place else {
        panic!("{:?}", sealed.payload.file);
    };
    assert!(extents[0].start >= 4 * MIB, "behind the image: {extents:?}");
    assert_eq!(
        sealed.backup.unwrap().bytes,
        made,
        "the new backup is named"
    );
    let initramfs = sys.meta("/boot/balena-migrate.img").unwrap();
    assert_eq!(initramfs.mode, 0o600, "it holds keys");
    assert_eq!(sys.meta("/boot/grub/custom.cfg").unwrap().mode, 0o640);
    let copied = sys.read("/boot/efi/EFI/balena-migrate/linux.efi").unwrap();
    assert_eq!(copied, b"a kernel");
    let entry = sys.read_efi(&efi::boot_entry(OUR_NUMBER)).unwrap();
    assert_eq!(entry, Some(our_entry()));
    assert_eq!(sys.read_efi(&efi::boot_next()).unwrap(), Some(our_next()));
    let journal = Journal::read(&sys).unwrap().unwrap();
    assert_eq!(journal.complete(), Some(true));

    let undone = undo(&sys).unwrap();
    assert_eq!(undone.left, Vec::<String>::new());
    assert_eq!(tree_of(dir.path()), before);
    assert!(!undo(&sys).unwrap().anything, "a second undo finds nothing");
}

#[test]
fn a_failure_at_any_change_is_taken_back_at_once() {
    for backup in [script, archive] {
        for at in 0..changes_of_a_run(backup) {
            let dir = machine();
            let before = tree_of(dir.path());
            let sys = sys_of(&dir);
            let result = apply(
                &sys,
                &sys.gated(breaks_at(at, false)),
                &steps(backup(), 1000),
            );
            assert!(
                matches!(result, Err(ApplyError::Undone(_))),
                "change {at}: {result:?}"
            );
            assert_eq!(tree_of(dir.path()), before, "change {at}");
        }
    }
}

#[test]
fn a_process_killed_at_any_change_is_taken_back_by_a_later_undo() {
    for backup in [script, archive] {
        for at in 0..changes_of_a_run(backup) {
            let dir = machine();
            let before = tree_of(dir.path());
            let sys = sys_of(&dir);
            let dead = sys.gated(breaks_at(at, true));
            assert!(apply(&dead, &dead, &steps(backup(), 1000)).is_err());
            let undone = undo(&sys).unwrap();
            assert_eq!(undone.left, Vec::<String>::new(), "change {at}");
            assert_eq!(tree_of(dir.path()), before, "change {at}");
        }
    }
}

#[test]
fn an_undo_killed_at_any_change_is_finished_by_the_next() {
    let dir = machine();
    let before = tree_of(dir.path());
    let sys = sys_of(&dir);
    for at in 0.. {
        apply(&sys, &sys, &steps(archive(), 1000)).unwrap();
        let cut = undo(&sys.gated(breaks_at(at, true)));
        let finished = matches!(&cut, Ok(undone) if undone.left.is_empty());
        let undone = undo(&sys).unwrap();
        assert_eq!(undone.left, Vec::<String>::new(), "change {at}");
        assert_eq!(tree_of(dir.path()), before, "change {at}");
        if finished {
            assert!(at > 10, "an undo makes more changes than {at}");
            break;
        }
    }
}

#[test]
fn a_file_that_somebody_changed_since_is_left_alone_and_said() {
    let dir = machine();
    let sys = sys_of(&dir);
    apply(&sys, &sys, &steps(script(), 1000)).unwrap();
    fs::write(dir.path().join("boot/grub/custom.cfg"), "by hand").unwrap();
    let undone = undo(&sys).unwrap();
    assert_eq!(undone.left.len(), 1);
    assert!(undone.left[0].starts_with("/boot/grub/custom.cfg was changed after"));
    assert_eq!(sys.read("/boot/grub/custom.cfg").unwrap(), b"by hand");
    assert!(
        !sys.exists("/boot/balena-migrate.img"),
        "the rest is undone"
    );
    assert!(Journal::read(&sys).unwrap().is_some(), "the journal stays");
}

/// The firmware removes what is for one boot, and may rewrite entries; a setup program or another
/// system may have taken a name.
#[test]
fn a_variable_that_is_not_ours_any_more_is_left_alone() {
    let theirs = Variable::persistent(efi::numbers_value(&[7]));
    type Change = fn(&Sys, &Variable);
    let rows: [(&str, Change, Option<&Variable>, bool); 4] = [
        (
            "BootNext was taken",
            |sys, _| sys.remove_efi(&efi::boot_next()).unwrap(),
            None,
            false,
        ),
        (
            "BootNext is somebody else's",
            |sys, theirs| sys.write_efi(&efi::boot_next(), theirs).unwrap(),
            Some(&theirs),
            false,
        ),
        (
            "the entry is somebody else's",
            |sys, theirs| {
                let name = efi::boot_entry(OUR_NUMBER);
                sys.write_efi(&name, theirs).unwrap();
                sys.remove_efi(&efi::boot_next()).unwrap();
            },
            None,
            true,
        ),
        (
            "the firmware has rewritten the entry",
            |sys, _| {
                let mut entry = LoadOption::parse(&our_entry().value).unwrap();
                entry.attributes |= 8;
                entry.data.clear();
                let entry = Variable::persistent(entry.to_bytes());
                sys.write_efi(&efi::boot_entry(OUR_NUMBER), &entry).unwrap();
                sys.remove_efi(&efi::boot_next()).unwrap();
            },
            None,
            false,
        ),
    ];
    for (what, change, next, keeps_entry) in rows {
        let dir = machine();
        let sys = sys_of(&dir);
        apply(&sys, &sys, &steps(archive(), 1000)).unwrap();
        change(&sys, &theirs);
        assert_eq!(undo(&sys).unwrap().left, Vec::<String>::new(), "{what}");
        let now = sys.read_efi(&efi::boot_next()).unwrap();
        assert_eq!(now.as_ref(), next, "{what}");
        let entry = sys.read_efi(&efi::boot_entry(OUR_NUMBER)).unwrap();
        assert_eq!(entry.is_some(), keeps_entry, "{what}");
    }
}

#[test]
fn variables_that_can_t_be_seen_are_not_taken_for_gone() {
    let dir = machine();
    let sys = sys_of(&dir);
    apply(&sys, &sys, &steps(archive(), 1000)).unwrap();
    let folder = dir.path().join(&efivars::DIR[1..]);
    let away = dir.path().join("away");
    fs::rename(&folder, &away).unwrap();
    let left = undo(&sys).unwrap().left;
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[0].contains("mount -t efivarfs"), "{left:?}");
    fs::rename(&away, &folder).unwrap();
    assert_eq!(undo(&sys).unwrap().left, Vec::<String>::new());
    assert_eq!(sys.read_efi(&efi::boot_entry(OUR_NUMBER)).unwrap(), None);
}

#[test]
fn a_boot_entry_that_was_made_since_the_plan_stops_the_run() {
    let dir = machine();
    let sys = sys_of(&dir);
    let theirs = Variable::persistent(b"theirs".to_vec());
    sys.write_efi(&efi::boot_entry(OUR_NUMBER), &theirs)
        .unwrap();
    let before = tree_of(dir.path());
    let error = apply(&sys, &sys, &steps(archive(), 1000)).unwrap_err();
    assert!(
        error.to_string().contains("was made since the plan"),
        "{error}"
    );
    assert_eq!(tree_of(dir.path()), before);
}

#[test]
fn a_file_that_changed_since_the_plan_stops_the_run() {
    let dir = machine();
    let sys = sys_of(&dir);
    fs::write(dir.path().join("boot/grub/custom.cfg"), "meanwhile").unwrap();
    let before = tree_of(dir.path());
    let error = apply(&sys, &sys, &steps(script(), 1000))
        .unwrap_err()
        .to_string();
    assert!(error.contains("/boot/grub/custom.cfg has changed since the plan was made"));
    assert_eq!(tree_of(dir.path()), before);
}

#[test]
fn a_backup_that_does_not_fit_in_memory_stops_the_run() {
    let dir = machine();
    let before = tree_of(dir.path());
    let sys = sys_of(&dir);
    let error = apply(&sys, &sys, &steps(archive(), 2))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(" bytes, and stage 2 has room in memory for 2"),
        "{error}"
    );
    assert_eq!(tree_of(dir.path()), before);
}

#[test]
fn no_room_behind_the_new_system_is_known_for_what_it_is_once_all_is_taken_back() {
    let dir = machine();
    let before = tree_of(dir.path());
    let sys = sys_of(&dir);
    let mut steps = steps(archive(), 1000);
    let Step::Keep(keep) = &mut steps.steps[1] else {
        panic!("the step that keeps files");
    };
    keep.image.bytes = keep.disk_bytes - 5 * MIB;
    let error = apply(&sys, &sys, &steps).unwrap_err();
    let no_room = error.no_room().expect("it is said in a way to act on");
    assert_eq!(
        no_room.reason(),
        "vda has room for 0 of the 1 MiB of `record` behind the new system"
    );
    assert!(error.to_string().contains("try PAYLOAD=memory"), "{error}");
    assert_eq!(tree_of(dir.path()), before);
}

#[test]
fn a_kept_file_in_the_way_of_the_new_system_stops_the_run() {
    let dir = machine();
    let before = tree_of(dir.path());
    let sys = sys_of(&dir);
    let mut steps = steps(archive(), 1000);
    let Step::SealHandover { handover, .. } = &mut steps.steps[2] else {
        panic!("the step that seals the hand-over");
    };
    // Larger than what the files were kept behind.
    handover.payload.image.bytes = small_disk().bytes - MIB;
    let error = apply(&sys, &sys, &steps).unwrap_err().to_string();
    assert!(
        error.contains("a kept file is in the way of the new system, which ends at byte 124780544"),
        "{error}"
    );
    assert_eq!(tree_of(dir.path()), before);
}

#[test]
fn another_failure_is_not_taken_for_a_lack_of_room() {
    let dir = machine();
    let sys = sys_of(&dir);
    let error = apply(&sys, &sys, &steps(archive(), 2)).unwrap_err();
    assert!(error.no_room().is_none(), "{error}");
}

#[test]
fn a_backup_script_that_fails_stops_the_run_with_its_complaint() {
    let dir = machine();
    fs::write(
        dir.path().join("home/backup.sh"),
        "#!/bin/sh\nprintf half > backup.tgz\necho no room >&2\nexit 3\n",
    )
    .unwrap();
    let before = tree_of(dir.path());
    let sys = sys_of(&dir);
    let error = apply(&sys, &sys, &steps(script(), 1000))
        .unwrap_err()
        .to_string();
    assert!(error.contains("exit status: 3: no room"), "{error}");
    assert_eq!(tree_of(dir.path()), before);
}

#[test]
fn a_backup_that_the_new_system_would_not_take_stops_the_run() {
    let dir = machine();
    fs::write(
        dir.path().join("home/backup.sh"),
        "#!/bin/sh\ncd settings && tar -czf ../backup.tgz mine\n",
    )
    .unwrap();
    let before = tree_of(dir.path());
    let sys = sys_of(&dir);
    let error = apply(&sys, &sys, &steps(script(), 1000))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "balenaOS would not take the backup /home/backup.tgz: `mine` is no folder, and at the top \
         level; everything was taken back"
    );
    assert_eq!(tree_of(dir.path()), before);
}

#[test]
fn a_source_that_is_gone_when_the_backup_is_made_stops_the_run() {
    let dir = machine();
    fs::remove_dir_all(dir.path().join("home/settings")).unwrap();
    let before = tree_of(dir.path());
    let sys = sys_of(&dir);
    let error = apply(&sys, &sys, &steps(archive(), 1000))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "making the backup /home/backup.tgz: putting /home/settings into the backup: the source \
         /home/settings is not there; everything was taken back"
    );
    assert_eq!(tree_of(dir.path()), before);
}

#[test]
fn a_signal_ends_the_making_of_a_backup() {
    let dir = machine();
    let before = tree_of(dir.path());
    let sys = sys_of(&dir);
    let signal = sys.gated(Arc::new(|change| match change.starts_with("writing ") {
        true => Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "interrupted by SIGINT",
        )),
        false => Ok(()),
    }));
    let error = apply(&sys, &signal, &steps(archive(), 1000)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "making the backup /home/backup.tgz: writing the backup: interrupted by SIGINT; everything \
         was taken back"
    );
    assert_eq!(tree_of(dir.path()), before);
}
