//! Lists of checksums, against those that sha256sum and md5sum write and verify.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use balena_migrate::checksums::{self, Lists};
use balena_migrate::finding::Severity;
use balena_migrate::handover::{Format, TableIdentity};
use balena_migrate::payload::scan::{BootFiles, Scan};
use balena_migrate::sys::Sys;

const NAMES: [&str; 6] = [
    "image.gz",
    "system-connections/resin-wifi 01",
    "odd\\name",
    "line\nbreak",
    "*star",
    ".hidden",
];

/// A machine with a HOME_DIR of odd names.
fn home() -> (tempfile::TempDir, Sys) {
    let dir = tempfile::tempdir().unwrap();
    for name in NAMES {
        let path = dir.path().join("home").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("content of {name}")).unwrap();
    }
    let sys = Sys::new(dir.path());
    (dir, sys)
}

fn run(dir: &Path, script: &str) {
    let done = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir.join("home"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{script}: {done:?}");
}

/// What is said of the files, each as place and text.
fn said(sys: &Sys) -> Vec<String> {
    let findings = Lists::read(sys, "/home").verify(sys, None);
    assert!(
        findings
            .iter()
            .all(|f| f.severity == Severity::Error && f.code == "checksums")
    );
    findings.iter().map(|finding| finding.sentence()).collect()
}

#[test]
fn a_folder_without_lists_is_fine() {
    let (_dir, sys) = home();
    assert_eq!(said(&sys), Vec::<String>::new());
}

#[test]
fn what_is_written_satisfies_sha256sum_and_stage_1() {
    let (dir, sys) = home();
    fs::write(
        dir.path().join("home/.checksums.sha256.balena-migrate-new"),
        "half",
    )
    .unwrap();
    std::os::unix::fs::symlink("image.gz", dir.path().join("home/link")).unwrap();
    std::os::unix::fs::symlink(".", dir.path().join("home/loop")).unwrap();
    std::os::unix::fs::symlink("gone", dir.path().join("home/dangling")).unwrap();
    assert_eq!(checksums::write(&sys, "/home/").unwrap(), NAMES.len() + 1);
    run(dir.path(), "sha256sum --strict --quiet -c checksums.sha256");
    assert_eq!(said(&sys), Vec::<String>::new());
    // Again: the list does not name itself.
    let first = sys.read("/home/checksums.sha256").unwrap();
    assert_eq!(checksums::write(&sys, "/home").unwrap(), NAMES.len() + 1);
    assert_eq!(sys.read("/home/checksums.sha256").unwrap(), first);
}

#[test]
fn lists_of_the_usual_programs_are_verified() {
    for make in [
        "find . -type f -exec md5sum {} + > checksums.md5",
        "find . -type f -print0 | xargs -0 md5sum --binary > checksums.md5",
        "find . -type f -exec sha256sum {} + > ../sums; mv ../sums checksums.sha256",
        "find $PWD -type f -exec sha256sum --binary {} + > ../sums; mv ../sums checksums.sha256",
    ] {
        let (dir, sys) = home();
        run(dir.path(), make);
        // Absolute paths are those of the machine, whose root is a folder here.
        run(
            dir.path(),
            &format!("sed -i 's|{}||' checksums.*", dir.path().display()),
        );
        assert_eq!(said(&sys), Vec::<String>::new(), "{make}");
        for name in NAMES {
            fs::write(dir.path().join("home").join(name), "changed").unwrap();
        }
        let said = said(&sys);
        assert_eq!(said.len(), NAMES.len(), "{make}: {said:?}");
        for name in NAMES {
            let file = format!("/home/{name} is not the file of this list: its ");
            assert!(
                said.iter().any(|text| text.contains(&file)),
                "{name}: {said:?}"
            );
        }
    }
}

#[test]
fn each_missing_file_and_bad_line_is_named_with_its_place() {
    let (_dir, sys) = home();
    let sum = "0".repeat(32);
    let text = format!(
        "# made by hand\n{sum}  gone\nnonsense\n\n{sum}  ./image.gz\n{sum}  system-connections\n"
    );
    sys.write_whole("/home/checksums.md5", text.as_bytes(), 0o644, None)
        .unwrap();
    assert_eq!(
        said(&sys),
        [
            "/home/checksums.md5:3: this line does not come from md5sum",
            "/home/checksums.md5:2: /home/gone is missing",
            "/home/checksums.md5:5: /home/image.gz is not the file of this list: its MD5 is \
             7da49ec97c7deebe183a99a02d223926 instead of 00000000000000000000000000000000",
            "/home/checksums.md5:6: /home/system-connections can't be read: it is a folder",
        ]
    );
}

#[test]
fn the_image_is_not_read_again() {
    let (dir, sys) = home();
    run(
        dir.path(),
        "md5sum image.gz > checksums.md5; sha256sum image.gz > checksums.sha256",
    );
    let sums = |list: &str| {
        sys.read_text(list).unwrap()[..]
            .split(' ')
            .next()
            .unwrap()
            .to_owned()
    };
    let mut scan = Scan {
        format: Format::Gzip,
        file_bytes: 0,
        file_sha256: sums("/home/checksums.sha256"),
        file_md5: Some(sums("/home/checksums.md5")),
        unpack_memory: 0,
        image_bytes: 0,
        image_sha256: String::new(),
        table: TableIdentity::Mbr("00000000".into()),
        partitions: Vec::new(),
        partitions_end: 0,
        data_space: None,
        partition_names: Vec::new(),
        boot_code: true,
        boot: BootFiles::default(),
    };
    // What the scan saw counts, not what lies there now.
    fs::write(dir.path().join("home/image.gz"), "changed").unwrap();
    let verify = |scan: &Scan| {
        let lists = Lists::read(&sys, "/home");
        assert!(lists.want_md5_of("/home/image.gz"));
        assert!(!lists.want_md5_of("/home/.hidden"));
        lists.verify(&sys, Some(("/home/image.gz", scan))).len()
    };
    assert_eq!(verify(&scan), 0);
    scan.file_md5 = Some("0".repeat(32));
    assert_eq!(verify(&scan), 1);
    scan.file_sha256 = "0".repeat(64);
    assert_eq!(verify(&scan), 2);
}

#[test]
fn a_name_that_no_list_can_hold_is_an_error() {
    let (dir, sys) = home();
    let name = std::ffi::OsStr::from_bytes(b"latin-\xe9");
    fs::write(dir.path().join("home").join(name), "").unwrap();
    let error = checksums::write(&sys, "/home").unwrap_err().to_string();
    assert_eq!(error, "the name latin-\u{fffd} is not UTF-8");
    assert!(!sys.exists("/home/checksums.sha256"));
}
