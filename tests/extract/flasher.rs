//! Downloads of balenaOS as they were over the years, only smaller: real file systems in real partition
//! tables, by the tools of the distribution.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

pub const MIB: usize = 1 << 20;

/// The device type of the ordinary one.
pub const SLUG: &str = "genericx86-64-ext";

/// Runs a program; `input` is its standard input.
pub fn run(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("MTOOLS_SKIP_CHECK", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{program} {args:?}");
    output.stdout
}

/// Bytes that compress badly.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}

/// A partition: label, file system, first MiB, MiB, and its files.
pub struct Part<'a> {
    pub label: &'a str,
    pub fs: &'a str,
    pub at: usize,
    pub mib: usize,
    pub files: Vec<(&'a str, Vec<u8>)>,
}

/// An image of `mib` MiB with the table that sfdisk makes of `script`.
pub fn disk(mib: usize, script: &str, parts: &[Part]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    fs::File::create(&path)
        .unwrap()
        .set_len((mib * MIB) as u64)
        .unwrap();
    let sfdisk = [
        "-q",
        "--no-reread",
        "--no-tell-kernel",
        path.to_str().unwrap(),
    ];
    run("sfdisk", &sfdisk, script.as_bytes());
    let mut disk = fs::read(&path).unwrap();
    for part in parts {
        let bytes = file_system(part);
        disk[part.at * MIB..(part.at + part.mib) * MIB].copy_from_slice(&bytes);
    }
    disk
}

fn file_system(part: &Part) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for (name, bytes) in &part.files {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match name.ends_with('/') {
            true => fs::create_dir(&path).unwrap(),
            false => fs::write(path, bytes).unwrap(),
        }
    }
    let fs_file = dir.path().join("fs");
    fs::File::create(&fs_file)
        .unwrap()
        .set_len((part.mib * MIB) as u64)
        .unwrap();
    let (path, tree) = (fs_file.to_str().unwrap(), tree.to_str().unwrap());
    match part.fs.split(' ').next().unwrap() {
        "vfat" => {
            let mut args = vec!["-n", part.label];
            args.extend(part.fs.split(' ').skip(1));
            args.push(path);
            run("mkfs.vfat", &args, b"");
            let names: Vec<String> = fs::read_dir(tree)
                .unwrap()
                .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
                .collect();
            let mut args = vec!["-s", "-i", path];
            args.extend(names.iter().map(String::as_str));
            args.push("::/");
            if !names.is_empty() {
                run("mcopy", &args, b"");
            }
        }
        "ntfs" => {
            let mut boot = vec![0; 512];
            boot[3..11].copy_from_slice(b"NTFS    ");
            boot[510..].copy_from_slice(&[0x55, 0xaa]);
            fs::write(&fs_file, &boot).unwrap();
            let file = fs::OpenOptions::new().write(true).open(&fs_file).unwrap();
            file.set_len((part.mib * MIB) as u64).unwrap();
        }
        _ => {
            let mut args = vec!["-q", "-F", "-L", part.label, "-d", tree];
            args.extend(part.fs.split(' ').skip(1));
            args.push(path);
            run("mkfs.ext4", &args, b"");
        }
    }
    fs::read(&fs_file).unwrap()
}

fn os_release(slug: &str) -> Vec<u8> {
    format!(
        "ID=\"balena-os\"\nNAME=\"balenaOS\"\nVERSION_ID=\"6.0.10\"\nPRETTY_NAME=\"balenaOS 6.0.10\"\n\
         SLUG=\"{slug}\"\n"
    )
    .into()
}

/// An OS image for `slug`, with a boot loader or without.
pub fn os(slug: &str, table: &str, has_loader: bool) -> Vec<u8> {
    let script = match table {
        "gpt" => {
            "label: gpt\nstart=4MiB, size=8MiB, name=resin-boot\nstart=12MiB, size=4MiB, name=resin-rootA\n\
             start=16MiB, size=2MiB, name=resin-rootB\nstart=19MiB, size=2MiB, name=resin-state\n\
             start=22MiB, size=2MiB, name=resin-data\n"
        }
        _ => {
            "label: dos\nstart=4MiB, size=8MiB, type=e\nstart=12MiB, size=4MiB\nstart=16MiB, size=2MiB\n\
             start=18MiB, type=f\nstart=19MiB, size=2MiB\nstart=22MiB, size=2MiB\n"
        }
    };
    let mut boot = vec![
        ("os-release", os_release(slug)),
        ("balena-image", Vec::new()),
        (
            "device-type.json",
            format!("{{\"slug\":\"{slug}\",\"arch\":\"amd64\"}}").into(),
        ),
    ];
    if has_loader {
        boot.push(("EFI/BOOT/BOOTX64.EFI", noise(200_000, 7)));
    }
    let empty = |label, at| Part {
        label,
        fs: "ext4",
        at,
        mib: 2,
        files: Vec::new(),
    };
    let mut disk = disk(
        25,
        script,
        &[
            Part {
                label: "resin-boot",
                fs: "vfat",
                at: 4,
                mib: 8,
                files: boot,
            },
            Part {
                label: "resin-rootA",
                fs: "ext4",
                at: 12,
                mib: 4,
                files: vec![("usr/noise", noise(2 * MIB, 9))],
            },
            empty("resin-rootB", 16),
            empty("resin-state", 19),
            empty("resin-data", 22),
        ],
    );
    if has_loader && table != "gpt" {
        disk[..3].copy_from_slice(&[0xeb, 0x63, 0x90]);
    }
    disk
}

/// The ordinary OS image.
pub fn modern_os() -> &'static [u8] {
    static OS: OnceLock<Vec<u8>> = OnceLock::new();
    OS.get_or_init(|| os(SLUG, "dos", true))
}

/// What a flasher image is made of.
pub struct Flasher<'a> {
    /// Before `-boot` and `-rootA` in the labels.
    pub labels: &'a str,
    pub table: &'a str,
    /// The boot partition: its file system with the options of mkfs.vfat, and MiB.
    pub fat: (&'a str, usize),
    /// mkfs.ext4 and options.
    pub fs: &'a str,
    pub slug: &'a str,
    pub boot: Vec<(&'a str, Vec<u8>)>,
    /// Files of the root file system.
    pub root: Vec<(&'a str, Vec<u8>)>,
}

/// The path of the payload now.
pub const PAYLOAD: &str = "opt/balena-image-genericx86-64-ext.balenaos-img";

impl Flasher<'_> {
    /// As downloads are now, with this in its root file system.
    pub fn modern<'a>(root: Vec<(&'a str, Vec<u8>)>) -> Flasher<'a> {
        Flasher {
            labels: "flash",
            table: "dos",
            fat: ("vfat", 8),
            fs: "ext4",
            slug: SLUG,
            boot: vec![("balena-image-flasher", Vec::new())],
            root,
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let labels = ["boot", "rootA"].map(|end| format!("{}-{end}", self.labels));
        let (fat, fat_mib) = self.fat;
        let root_at = 4 + fat_mib;
        let script = match self.table {
            "gpt" => format!(
                "label: gpt\nstart=4MiB, size={fat_mib}MiB, name={}\n\
                 start={root_at}MiB, size=44MiB, name={}\n",
                labels[0], labels[1]
            ),
            _ => format!(
                "label: dos\nstart=4MiB, size={fat_mib}MiB, type=e\nstart={root_at}MiB, size=44MiB\n"
            ),
        };
        let mut boot = vec![("os-release", os_release(self.slug))];
        boot.extend(self.boot.iter().cloned());
        // Something before the payload, so that it lies where reading has to go back for it.
        let mut root = vec![("bin/before", noise(3 * MIB, 1))];
        root.extend(self.root.iter().cloned());
        root.push(("usr/after", noise(MIB, 2)));
        disk(
            root_at + 46,
            &script,
            &[
                Part {
                    label: &labels[0],
                    fs: fat,
                    at: 4,
                    mib: fat_mib,
                    files: boot,
                },
                Part {
                    label: &labels[1],
                    fs: self.fs,
                    at: root_at,
                    mib: 44,
                    files: root,
                },
            ],
        )
    }
}

/// An ordinary flasher image.
pub fn modern() -> &'static [u8] {
    static FLASHER: OnceLock<Vec<u8>> = OnceLock::new();
    FLASHER.get_or_init(|| Flasher::modern(vec![(PAYLOAD, modern_os().to_vec())]).build())
}

/// Packs `image` as `format` into `dir`.
pub fn packed(dir: &Path, image: &[u8], format: &str) -> String {
    let raw = dir.join("balena-cloud.img");
    fs::write(&raw, image).unwrap();
    let raw = raw.to_str().unwrap();
    let path = format!("{raw}.{format}");
    match format {
        "raw" => return raw.to_owned(),
        "zip" => drop(run("zip", &["-q", "-j", "-1", &path, raw], b"")),
        "stored.zip" => drop(run("zip", &["-q", "-j", "-0", &path, raw], b"")),
        "gz" => drop(run("gzip", &["-1", "-k", raw], b"")),
        "xz" => drop(run("xz", &["-0", "-k", raw], b"")),
        "bz2" => drop(run("bzip2", &["-1", "-k", raw], b"")),
        "zst" => drop(run("zstd", &["-q", "-1", "-k", raw], b"")),
        other => panic!("{other}"),
    }
    fs::remove_file(raw).unwrap();
    path
}

/// What `extract` said, and how it ended.
pub struct Said {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

/// Runs `extract` in `dir`.
pub fn extract(dir: &Path, args: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_extract"))
        .args(args)
        .current_dir(dir)
        .env("TMPDIR", dir)
        .output()
        .unwrap();
    Said {
        code: output.status.code().expect("it was not killed"),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `extract` and expects it to do what it is told.
#[track_caller]
pub fn extracted(dir: &Path, args: &[&str]) -> String {
    let said = extract(dir, args);
    assert_eq!((said.code, &*said.err), (0, ""), "{args:?}");
    String::from_utf8(said.out).unwrap()
}
