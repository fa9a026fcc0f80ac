//! What `extract` takes out of an image is what the kernel sees in it.

use std::fs;
use std::process::{Command, Output};

use tempfile::tempdir;

use super::flasher::{MIB, Part, disk, extract, run};
use super::generations::{compare, generations};

/// Copies what is in file systems, each with its first byte, its size and a name. The mounts are in a
/// namespace of their own and end with it, and each loop device with its mount.
const COPY: &str = r#"
set -eu
image=$1 to=$2
shift 2
mkdir "$to/mounted"
while [ $# -gt 0 ]; do
    mount -o "ro,loop,offset=$1,sizelimit=$2" "$image" "$to/mounted"
    cp -r "$to/mounted" "$to/$3"
    umount "$to/mounted"
    shift 3
done
"#;

fn copy(image: &str, to: &str, parts: &[(usize, usize, &str)]) -> Output {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        COPY,
        "sh",
    ]);
    command.args([image, to]);
    for (start, bytes, name) in parts {
        command.args([&start.to_string(), &bytes.to_string(), *name]);
    }
    command.output().unwrap()
}

/// Why no image of a file system can be mounted here, if that is so.
fn hindrance(fs_type: &str) -> Option<String> {
    let dir = tempdir().unwrap();
    let part = Part {
        label: "probe",
        fs: fs_type,
        at: 1,
        mib: 2,
        files: Vec::new(),
    };
    let image = dir.path().join("probe.img");
    let probe = disk(3, "label: dos\nstart=1MiB, size=2MiB\n", &[part]);
    fs::write(&image, probe).unwrap();
    let (image, to) = (image.to_str().unwrap(), dir.path().to_str().unwrap());
    let output = copy(image, to, &[(MIB, 2 * MIB, "probe")]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let why = complaint.lines().next().unwrap_or("it says nothing");
    (!output.status.success()).then(|| why.to_owned())
}

/// Loop devices that have an image in `dir`.
fn loop_devices(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = fs::read_to_string(device.path().join("loop/backing_file"));
        found.extend(file.into_iter().filter(|file| file.starts_with(dir)));
    }
    found
}

#[test]
fn a_loop_mount_of_every_generation_has_the_same_in_it() {
    if let Some(why) = hindrance("ext4") {
        eprintln!("skipped, since no image can be mounted here: {why}");
        return;
    }
    let no_fat = hindrance("vfat");
    if let Some(why) = &no_fat {
        eprintln!("boot files are compared with what mcopy reads, since this kernel can't: {why}");
    }
    for generation in generations() {
        let dir = tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        let image = dir.path().join("flasher.img");
        fs::write(&image, &generation.image).unwrap();
        let image = image.to_str().unwrap();
        let said = extract(dir.path(), &["--out-dir", "out", image]);
        assert_eq!(said.code, 0, "{}", said.err);
        let fat = generation.flasher.fat.1 * MIB;
        let mut parts = vec![(4 * MIB + fat, 44 * MIB, "root")];
        match &no_fat {
            None => parts.push((4 * MIB, fat, "fat")),
            Some(_) => {
                fs::create_dir(dir.path().join("fat")).unwrap();
                let (at, to) = (format!("{image}@@4M"), format!("{folder}/fat"));
                run("mcopy", &["-s", "-n", "-i", &at, "::/", &to], b"");
            }
        }
        let output = copy(image, folder, &parts);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        assert_eq!(loop_devices(folder), Vec::<String>::new());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(folder), "{mounts}");
        compare(generation, &dir.path().join("out"), |place| {
            fs::read(dir.path().join(place)).unwrap()
        });
    }
}
