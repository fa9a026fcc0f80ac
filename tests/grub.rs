//! What GRUB itself makes of our entry: `grub-emu` runs configurations that GRUB's own scripts write, on a
//! disk with an ext4, and writes its environment block there.
//!
//! It has no Linux to start, so that our entry says that it could not be started. That it was chosen, and
//! chosen once, is what is looked at.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use balena_migrate::boot::grub::{Grub, WRITABLE};
use balena_migrate::boot::{BootLoader, Entry, grubenv};
use balena_migrate::host::Host;
use balena_migrate::host::collect::collect;
use balena_migrate::step::Step;
use balena_migrate::sys::Sys;

/// What GRUB says at the start of our entry.
const OURS: &str = "Starting balena-migrate, stage 2 ...";

/// A machine with an old system, and the boots that follow its arming.
struct Row {
    name: &'static str,
    /// Settings of /etc/default/grub.
    settings: &'static [(&'static str, &'static str)],
    /// The environment block before.
    environment: &'static [&'static str],
    /// Before GRUB looks at `next_entry`.
    before: &'static str,
    /// Between that and the entries.
    after: &'static str,
    /// What the boot after the one-shot says; nothing where it would wait for somebody.
    then: Option<&'static str>,
    /// The codes of the findings.
    findings: &'static [&'static str],
}

const USUAL: Row = Row {
    name: "usual",
    settings: &[("GRUB_TIMEOUT", "0")],
    environment: &[],
    before: "",
    after: "",
    then: Some("OLD 0"),
    findings: &[],
};

/// Ubuntu's fallback to an initramfs, in the words of this test: what was started without one and failed
/// is not started so again.
const INITRDFAIL: &str = "if [ \"${initrdfail}\" = 1 ]; then\n  set next_entry=\"${prev_entry}\"\n  \
                          set prev_entry=\n  save_env prev_entry\nfi\n";

/// Fedora's way back from an update that does not start, in the words of this test.
const BOOT_COUNTER: &str = "if [ -n \"${boot_counter}\" -a \"${boot_success}\" = 0 ]; then\n  \
                            if [ \"${boot_counter}\" = 0 ]; then set default=1; fi\nfi\n";

const ROWS: &[Row] = &[
    USUAL,
    Row {
        name: "a default by its number, which is one of custom.cfg",
        settings: &[("GRUB_TIMEOUT", "0"), ("GRUB_DEFAULT", "2")],
        then: Some("MINE"),
        ..USUAL
    },
    Row {
        name: "a default by its name, in a submenu",
        settings: &[("GRUB_TIMEOUT", "1"), ("GRUB_DEFAULT", "more>older")],
        then: Some("OLDER"),
        ..USUAL
    },
    Row {
        name: "a default that is saved",
        settings: &[("GRUB_TIMEOUT", "0"), ("GRUB_DEFAULT", "saved")],
        environment: &["saved_entry=my entry"],
        then: Some("MINE"),
        ..USUAL
    },
    Row {
        name: "a hidden menu",
        settings: &[("GRUB_TIMEOUT", "1"), ("GRUB_TIMEOUT_STYLE", "hidden")],
        ..USUAL
    },
    Row {
        name: "a hidden menu by the old name",
        settings: &[("GRUB_TIMEOUT", "0"), ("GRUB_HIDDEN_TIMEOUT", "1")],
        ..USUAL
    },
    Row {
        name: "a menu that waits for ever",
        settings: &[("GRUB_TIMEOUT", "-1")],
        then: None,
        findings: &["grub-timeout"],
        ..USUAL
    },
    Row {
        name: "a menu with a password",
        before: "set superusers=root\npassword root secret\n",
        then: None,
        findings: &["grub-password"],
        ..USUAL
    },
    Row {
        name: "a failed boot before",
        settings: &[("GRUB_TIMEOUT", "0"), ("GRUB_RECORDFAIL_TIMEOUT", "1")],
        environment: &["recordfail=1"],
        ..USUAL
    },
    Row {
        name: "a wait for ever after a failed boot",
        settings: &[("GRUB_TIMEOUT", "0"), ("GRUB_RECORDFAIL_TIMEOUT", "-1")],
        findings: &["grub-recordfail"],
        ..USUAL
    },
    Row {
        name: "a boot without initramfs that failed",
        environment: &["initrdfail=1", "prev_entry="],
        before: INITRDFAIL,
        ..USUAL
    },
    Row {
        name: "a way back that is due",
        environment: &["boot_counter=0", "boot_success=0"],
        after: BOOT_COUNTER,
        ..USUAL
    },
];

/// A folder that is the root of a machine.
struct Machine {
    root: tempfile::TempDir,
    row: &'static Row,
}

const UUID: &str = "11111111-2222-4333-8444-555555555555";

impl Machine {
    fn new(row: &'static Row) -> Machine {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine { root, row };
        machine.file("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 800 kB\n");
        machine.file("proc/self/mountinfo", "");
        machine.file("proc/cmdline", "quiet\n");
        machine.file("proc/sys/kernel/osrelease", "6.1.0\n");
        fs::create_dir_all(machine.root.path().join("sys/block")).unwrap();
        machine.file("boot/grub/grub.cfg", &machine.config());
        machine.file(
            "boot/grub/custom.cfg",
            "menuentry 'my entry' { echo MINE; reboot }\n",
        );
        let mut block = String::from("# GRUB Environment Block\n");
        for line in row.environment {
            block.push_str(&format!("{line}\n"));
        }
        machine.file("boot/grub/grubenv", &format!("{block:#<1024}"));
        machine
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What grub-mkconfig's scripts write, with entries that say that they were started.
    fn config(&self) -> String {
        let header = self.script("00_header");
        let at = header.find("if [ \"${next_entry}").unwrap();
        let (environment, rest) = header.split_at(at);
        let entries = "menuentry 'old' { recordfail; echo OLD 0; reboot }\n\
                       submenu 'the others' --id more {\n\
                       \tmenuentry 'old too' --id older { echo OLDER; reboot }\n\
                       }\n";
        format!(
            "{environment}{}{rest}{}{entries}{}",
            self.row.before,
            self.row.after,
            self.script("41_custom")
        )
    }

    /// What a script of GRUB prints, as on Ubuntu where `quick_boot` is on.
    fn script(&self, name: &str) -> String {
        let text = fs::read_to_string(format!("/etc/grub.d/{name}")).expect("GRUB's scripts");
        let text = text.replace("quick_boot=\"0\"", "quick_boot=\"1\"");
        let path = self.root.path().join(name);
        fs::write(&path, text).unwrap();
        // It asks where /boot/grub is, which this machine need not have.
        let bin = self.root.path().join("bin");
        self.file("bin/grub-probe", "#!/bin/sh\necho ext2\n");
        make_executable(&bin.join("grub-probe"));
        let output = Command::new("sh")
            .arg(&path)
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("pkgdatadir", "/usr/share/grub")
            .env("GRUB_TERMINAL_OUTPUT", "console")
            .envs(self.row.settings.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The host snapshot, with this machine's GRUB on a disk of another one.
    fn host(&self) -> Host {
        let text = fs::read_to_string("tests/hosts/debian-12-bios.json").unwrap();
        let mut host: Host = serde_json::from_str(&text).unwrap();
        host.grub = collect(&Sys::new(self.root.path())).unwrap().grub;
        host.mounts[0].uuid = Some(UUID.into());
        host
    }

    /// Writes what arms it.
    fn arm(&self) {
        let entry = Entry {
            kernel: "/boot/vmlinuz".into(),
            initramfs: "/boot/balena-migrate.img".into(),
            arguments: vec!["panic=30".into()],
        };
        for step in Grub.arm(&self.host(), &entry).steps {
            let Step::WriteFile { path, content, .. } = step else {
                panic!("{}", step.describe());
            };
            fs::write(self.root.path().join(&path[1..]), content.expose()).unwrap();
        }
    }

    /// The disk of the machine, with the folder /boot on that file system.
    fn disk(&self, fs_type: &str) -> Disk<'_> {
        let path = self.root.path();
        let (folder, image) = (path.join("tree"), path.join("disk"));
        fs::create_dir(&folder).unwrap();
        fs::rename(path.join("boot"), folder.join("boot")).unwrap();
        make_file_system(fs_type, &folder, &image);
        fs::write(
            path.join("device.map"),
            format!("(hd0) {}\n", image.display()),
        )
        .unwrap();
        Disk(path)
    }
}

/// Fills a file with a file system that holds what is in `folder`.
fn make_file_system(fs_type: &str, folder: &Path, image: &Path) {
    // No other size is enough for an xfs.
    let file = fs::File::create(image).unwrap();
    file.set_len(320 << 20).unwrap();
    let (folder, image) = (folder.to_str().unwrap(), image.to_str().unwrap());
    match fs_type {
        "xfs" => {
            let list = format!("{folder}.list");
            fs::write(&list, xfs_list(folder)).unwrap();
            run(&["/usr/sbin/mkfs.xfs", "-q", "-p", &list, image]);
        }
        "vfat" => {
            run(&["/usr/sbin/mkfs.vfat", image]);
            run(&["mcopy", "-s", "-i", image, &format!("{folder}/boot"), "::/"]);
        }
        "btrfs" => run(&["/usr/sbin/mkfs.btrfs", "-q", "-r", folder, image]),
        ext => run(&[
            "/usr/sbin/mke2fs",
            "-q",
            "-F",
            "-t",
            ext,
            "-U",
            UUID,
            "-d",
            folder,
            image,
        ]),
    }
}

/// What mkfs.xfs puts onto the file system: the files of /boot/grub.
fn xfs_list(folder: &str) -> String {
    let files: String = ["grub.cfg", "custom.cfg", "grubenv"]
        .iter()
        .map(|name| format!("{name} ---644 0 0 {folder}/boot/grub/{name}\n"))
        .collect();
    format!("/\n0 0\nd--755 0 0\nboot d--755 0 0\ngrub d--755 0 0\n{files}$\n$\n$\n")
}

fn run(argv: &[&str]) {
    let output = Command::new(argv[0]).args(&argv[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("starting {}: {error}", argv[0]));
    assert!(output.status.success(), "{argv:?}: {output:?}");
}

/// The disk of a machine, in its folder.
struct Disk<'a>(&'a Path);

impl Disk<'_> {
    /// Starts GRUB, and tells what it said up to the restart.
    fn boot(&self, machine: &str) -> String {
        let output = Command::new("timeout")
            .args(["60", "grub-emu", "-r", "hd0", "-d", "/boot/grub", "-m"])
            .arg(self.0.join("device.map"))
            .stdin(Stdio::null())
            .output()
            .expect("starting grub-emu");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{machine}: {output:?}\n{said}");
        said
    }

    /// Its environment block, as GRUB reads it.
    fn grubenv(&self) -> String {
        let output = Command::new("grub-fstest")
            .arg(self.0.join("disk"))
            .args(["cat", "/boot/grub/grubenv"])
            .output()
            .expect("starting grub-fstest");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn starts_once(row: &'static Row) {
    let machine = Machine::new(row);
    let findings = Grub.check(&machine.host());
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, row.findings, "{}", row.name);
    machine.arm();
    let disk = machine.disk("ext4");
    assert_eq!(
        grubenv::get(&disk.grubenv(), "next_entry"),
        Some("balena-migrate"),
        "{}",
        row.name
    );
    let said = disk.boot(row.name);
    assert!(said.contains(OURS), "{}: {said}", row.name);
    let env = disk.grubenv();
    assert_eq!(grubenv::get(&env, "next_entry"), Some(""), "{}", row.name);
    assert_ne!(grubenv::get(&env, "recordfail"), Some("1"), "{}", row.name);
    if let Some(then) = row.then {
        let said = disk.boot(row.name);
        assert!(!said.contains(OURS), "{}: {said}", row.name);
        assert!(said.contains(&format!("{then}\n")), "{}: {said}", row.name);
    }
}

/// Does it for all of them at the same time: GRUB mostly waits.
fn for_each<T: Sync>(all: &'static [T], work: impl Fn(&'static T) + Sync) {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = all
            .iter()
            .map(|one| scope.spawn(move || work(one)))
            .collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

#[test]
fn grub_starts_the_entry_once_and_then_what_it_started_before() {
    for_each(ROWS, starts_once);
}

#[test]
fn grub_clears_the_one_shot_on_every_file_system_that_is_said_to_be_writable() {
    for_each(&WRITABLE, |fs_type| {
        let machine = Machine::new(&USUAL);
        machine.arm();
        let disk = machine.disk(fs_type);
        assert!(disk.boot(fs_type).contains(OURS), "{fs_type}");
        assert!(!disk.boot(fs_type).contains(OURS), "{fs_type}");
    });
}

/// GRUB could, but no machine has shown the rest of it yet.
#[test]
fn grub_clears_it_on_xfs() {
    assert!(!WRITABLE.contains(&"xfs"));
    let machine = Machine::new(&USUAL);
    machine.arm();
    let disk = machine.disk("xfs");
    assert!(disk.boot("xfs").contains(OURS));
    assert!(!disk.boot("xfs").contains(OURS));
}

/// Why others are refused: the one-shot would be none.
#[test]
fn grub_does_not_clear_it_on_btrfs() {
    let machine = Machine::new(&USUAL);
    machine.arm();
    let disk = machine.disk("btrfs");
    assert!(disk.boot("btrfs").contains(OURS));
    assert!(disk.boot("btrfs").contains(OURS));
}

/// Words that mean something to GRUB reach the kernel as they are: the script is well-formed.
#[test]
fn the_entry_is_a_script_for_grub() {
    let machine = Machine::new(&USUAL);
    let arguments = [
        "it's", "a b", "\"q\"", "$x", "${y}", "{", "}", "a;b", "#c", "<", "|",
    ];
    let entry = Entry {
        kernel: "/boot/a 'kernel'".into(),
        initramfs: "/boot/balena-migrate.img".into(),
        arguments: arguments.map(str::to_owned).to_vec(),
    };
    let steps = Grub.arm(&machine.host(), &entry).steps;
    let Step::WriteFile { content, .. } = &steps[0] else {
        panic!("{}", steps[0].describe());
    };
    let path = machine.root.path().join("script");
    fs::write(&path, content.expose()).unwrap();
    let checked = Command::new("grub-script-check").arg(&path).output();
    let checked = checked.expect("starting grub-script-check");
    assert!(checked.status.success(), "{checked:?}");
}
