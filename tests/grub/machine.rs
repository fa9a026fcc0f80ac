//! A machine that is a folder, and its disk, which GRUB starts from.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use balena_migrate::boot::grub::Grub;
use balena_migrate::boot::{BootLoader, Entry};
use balena_migrate::host::Host;
use balena_migrate::host::collect::collect;
use balena_migrate::step::Step;
use balena_migrate::sys::Sys;

/// A machine with an old system, and the boots that follow its arming.
pub struct Row {
    pub name: &'static str,
    /// Settings of /etc/default/grub.
    pub settings: &'static [(&'static str, &'static str)],
    /// The environment block before.
    pub environment: &'static [&'static str],
    /// Before GRUB looks at `next_entry`.
    pub before: &'static str,
    /// Between that and the entries.
    pub after: &'static str,
    /// What the boot after the one-shot says; nothing where it would wait for somebody.
    pub then: Option<&'static str>,
    /// The codes of the findings.
    pub findings: &'static [&'static str],
}

/// Nothing out of the usual.
pub const USUAL: Row = Row {
    name: "usual",
    settings: &[("GRUB_TIMEOUT", "0")],
    environment: &[],
    before: "",
    after: "",
    then: Some("OLD 0"),
    findings: &[],
};

/// A folder that is the root of a machine.
pub struct Machine {
    pub root: tempfile::TempDir,
    row: &'static Row,
}

/// Of the file system of the disk.
const UUID: &str = "11111111-2222-4333-8444-555555555555";

impl Machine {
    /// The machine of a row, not armed.
    pub fn new(row: &'static Row) -> Machine {
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

    pub fn file(&self, path: &str, text: &str) {
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
    pub fn host(&self) -> Host {
        let text = fs::read_to_string("tests/hosts/debian-12-bios.json").unwrap();
        let mut host: Host = serde_json::from_str(&text).unwrap();
        host.grub = collect(&Sys::new(self.root.path())).unwrap().grub;
        host.mounts[0].uuid = Some(UUID.into());
        host
    }

    /// What arms it.
    pub fn steps(&self) -> Vec<Step> {
        let entry = Entry {
            kernel: "/boot/vmlinuz".into(),
            initramfs: "/boot/balena-migrate.img".into(),
            arguments: vec!["panic=30".into()],
        };
        Grub.arm(&self.host(), &entry).steps
    }

    /// Does it.
    pub fn arm(&self) {
        for step in self.steps() {
            match step {
                Step::WriteFile { path, content, .. } => {
                    self.file(&path[1..], std::str::from_utf8(content.expose()).unwrap());
                }
                other => panic!("{}", other.describe()),
            }
        }
    }

    /// Takes the script away that makes grub.cfg source custom.cfg.
    pub fn without_custom(&self) {
        let config = self.config();
        let custom = self.script("41_custom");
        self.file("boot/grub/grub.cfg", config.strip_suffix(&custom).unwrap());
    }

    /// The disk of the machine, with the folder /boot on that file system.
    pub fn disk(&self, fs_type: &str) -> Disk<'_> {
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
pub struct Disk<'a>(&'a Path);

impl Disk<'_> {
    /// Starts GRUB, and tells what it said up to the restart.
    pub fn boot(&self, machine: &str) -> String {
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
    pub fn grubenv(&self) -> String {
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
