//! The backup: what a definition means, what is wrong with one, and that GNU tar and BusyBox's tar
//! (the one of balenaOS) get out of the archive what was in the files.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use balena_migrate::backup::walk::{Note, NoteKind};
use balena_migrate::backup::{Volume, archive, definition, gzip::Gzip, inspect, survey};
use balena_migrate::finding::{Finding, Severity};
use balena_migrate::sys::Sys;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn put(folder: &Path, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

/// The volumes of a definition without fault; relative sources are in `home`.
#[track_caller]
fn define(home: &Path, text: &str) -> Vec<Volume> {
    let (volumes, findings) = definition::parse("b.yml", text, home.to_str().unwrap());
    assert!(findings.is_empty(), "{findings:#?}");
    volumes
}

/// What the survey says of a definition.
fn surveyed(home: &Path, text: &str) -> Vec<String> {
    let survey = survey::survey(&Sys::new("/"), &define(home, text), &[]);
    said(&survey.findings, home)
}

fn said(findings: &[Finding], home: &Path) -> Vec<String> {
    let line = |finding: &Finding| {
        format!("{} {}: {finding}", finding.severity, finding.code)
            .replace(home.to_str().unwrap(), "~")
    };
    findings.iter().map(line).collect()
}

#[track_caller]
fn archived(volumes: &[Volume]) -> (Vec<u8>, Vec<Note>) {
    let mut packed = Vec::new();
    let sys = Sys::new("/");
    let notes = archive::write(&sys, volumes, &[], &mut packed, &mut |_| ()).unwrap();
    (packed, notes)
}

/// Unpacks as the supervisor does, with a tar that must not have a word to say about it.
#[track_caller]
fn unpacked_by(tar: &[&str], packed: &[u8], options: &[&str]) -> tempfile::TempDir {
    let target = folder();
    let file = put(target.path(), "backup.tgz", packed);
    let out = target.path().join("backup");
    fs::create_dir(&out).unwrap();
    let done = Command::new(tar[0])
        .args(&tar[1..])
        .args(options)
        .args(["-xzf", "backup.tgz", "-C", "backup"])
        .current_dir(target.path())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && complaint.is_empty(), "{complaint}");
    fs::remove_file(file).unwrap();
    target
}

#[track_caller]
fn unpacked(packed: &[u8]) -> tempfile::TempDir {
    let target = unpacked_by(&["tar"], packed, &[]);
    let contents = inspect::inspect(packed).unwrap();
    assert_eq!(contents.refused, Vec::<String>::new());
    assert!(!contents.dotted);
    target
}

#[track_caller]
fn made(home: &Path, text: &str) -> (tempfile::TempDir, Vec<Note>) {
    let (packed, notes) = archived(&define(home, text));
    (unpacked(&packed), notes)
}

/// Mode, owner, group, seconds of the time, and content of all that is in a folder.
type Tree = BTreeMap<OsString, (u32, u32, u32, i64, Vec<u8>)>;

fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match () {
                () if meta.is_file() => fs::read(&path).unwrap(),
                () if meta.is_symlink() => {
                    fs::read_link(&path).unwrap().into_os_string().into_vec()
                }
                () => Vec::new(),
            };
            let name = path.strip_prefix(root).unwrap().as_os_str().to_owned();
            let what = (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), content);
            tree.insert(name, what);
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    tree
}

fn names(root: &Path) -> Vec<String> {
    let names = tree(root).into_keys();
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

fn kinds(notes: &[Note]) -> Vec<NoteKind> {
    notes.iter().map(|note| note.kind).collect()
}

/// A folder with everything that a name, a mode, an owner and a time can be.
fn odd_tree(at: &Path) {
    let put = |name: &OsStr, content: &[u8]| put(at, name, content);
    for name in [
        "plain".into(),
        "with blank".into(),
        "-rf".into(),
        "line\nbreak\ttab".into(),
        "back\\slash'\"quote".into(),
        "ünïcode".into(),
        "x".repeat(99),
        "y".repeat(100),
        "z".repeat(101),
        "w".repeat(255),
        format!(
            "{}/{}/{}",
            "d".repeat(200),
            "e".repeat(200),
            "f".repeat(200)
        ),
    ] {
        put(OsStr::new(&name), name.as_bytes());
    }
    put(OsStr::from_bytes(b"latin1-\xe4\xff"), b"not UTF-8");
    put(OsStr::new("empty"), b"");
    for (bytes, name) in [(511, "511"), (512, "512"), (513, "513"), (3 << 20, "3 MiB")] {
        let content: Vec<u8> = (0..bytes)
            .map(|n: u32| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        put(OsStr::new(name), &content);
    }
    fs::create_dir(at.join("empty folder")).unwrap();
    for mode in [0o000, 0o400, 0o644, 0o755, 0o1777, 0o2755, 0o4755, 0o6711] {
        let path = put(OsStr::new(&format!("mode-{mode:o}")), b"");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let private = at.join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o2700)).unwrap();
    for id in [1, 1000, 2_097_151, 2_097_152, 4_294_967_294] {
        chown(
            put(OsStr::new(&format!("owner-{id}")), b""),
            Some(id),
            Some(id - 1),
        )
        .unwrap();
    }
    set_time(&private, 1_000_000_000);
    set_time(at, 1_111_111_111);
}

fn set_time(path: &Path, seconds: i64) {
    let offset = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH - offset,
        false => SystemTime::UNIX_EPOCH + offset,
    };
    File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn gnu_tar_gets_back_names_bytes_modes_owners_and_times() {
    let home = folder();
    odd_tree(&home.path().join("v"));
    let (target, notes) = made(home.path(), "- volume: v\n  content:\n  - source: v\n");
    assert_eq!(notes, []);
    let (was, is) = (tree(home.path()), tree(&target.path().join("backup")));
    assert!(was.len() > 30);
    for (name, what) in &was {
        assert_eq!(is.get(name), Some(what), "{name:?}");
    }
    assert_eq!(is.len(), was.len());
}

/// The tar of balenaOS' supervisor, as long as its image is built on Alpine.
#[test]
fn busybox_tar_gets_back_the_same() {
    let home = folder();
    odd_tree(&home.path().join("v"));
    put(home.path(), "v/twin", "twin");
    fs::hard_link(home.path().join("v/twin"), home.path().join("v/twin2")).unwrap();
    symlink("nowhere/".repeat(40), home.path().join("v/dangling")).unwrap();
    let (packed, _) = archived(&define(
        home.path(),
        "- volume: v\n  content:\n  - source: v\n",
    ));
    let target = unpacked_by(&["busybox", "tar"], &packed, &[]);
    let (mut was, mut is) = (tree(home.path()), tree(&target.path().join("backup")));
    // It does not set the times of links, and those of folders before it fills them.
    for what in was.values_mut().chain(is.values_mut()) {
        if what.0 & 0o170_000 != 0o100_000 {
            what.3 = 0;
        }
    }
    for (name, what) in &was {
        assert_eq!(is.get(name), Some(what), "{name:?}");
    }
    assert_eq!(is.len(), was.len());
    let twin = fs::metadata(target.path().join("backup/v/twin")).unwrap();
    assert_eq!(twin.nlink(), 2);
}

#[test]
fn times_before_1970_and_after_2242_come_back() {
    let home = folder();
    // Eleven octal digits end in 2242.
    for seconds in [-3600, -1, 0, 8_589_934_591, 8_589_934_592, 10_413_792_000] {
        set_time(&put(home.path(), format!("v/at{seconds}"), ""), seconds);
    }
    let text = "- volume: v\n  content:\n  - source: v\n";
    let (packed, _) = archived(&define(home.path(), text));
    let target = unpacked_by(&["tar"], &packed, &["--warning=no-timestamp"]);
    assert_eq!(tree(&target.path().join("backup")), tree(home.path()));
}

#[test]
fn extended_attributes_are_there_for_who_asks() {
    let home = folder();
    let file = put(home.path(), "v/file", "x");
    xattr::set(&file, "user.colour", b"blue\n=\0\xff").unwrap();
    xattr::set(&file, "user.long", &[b'l'; 900]).unwrap();
    xattr::set(home.path().join("v"), "user.folder", b"yes").unwrap();
    let text = "- volume: v\n  content:\n  - source: v\n";
    let (packed, notes) = archived(&define(home.path(), text));
    assert_eq!(notes, []);
    let target = unpacked_by(&["tar"], &packed, &["--xattrs", "--xattrs-include=*"]);
    let got = |path: &str, name: &str| {
        xattr::get(target.path().join("backup").join(path), name)
            .unwrap()
            .unwrap()
    };
    assert_eq!(got("v/file", "user.colour"), b"blue\n=\0\xff");
    assert_eq!(got("v/file", "user.long"), [b'l'; 900]);
    assert_eq!(got("v", "user.folder"), b"yes");
}

/// BusyBox says a word about each, and the supervisor kills a tar that talks too much.
#[test]
fn extended_attributes_of_very_many_files_are_left_out_and_that_is_said() {
    let home = folder();
    for number in 0..1010 {
        let file = put(home.path(), format!("v/{number}"), "");
        xattr::set(&file, "user.a", b"b").unwrap();
        xattr::set(&file, "security.selinux", b"system_u:object_r:etc_t:s0").unwrap();
    }
    let text = "- volume: v\n  content:\n  - source: v\n";
    let (packed, notes) = archived(&define(home.path(), text));
    assert_eq!(kinds(&notes), [NoteKind::XattrsDropped; 10]);
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(packed.as_slice()));
    let mut records = 0;
    for entry in archive.entries().unwrap() {
        for record in entry
            .unwrap()
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
        {
            assert_eq!(record.unwrap().key(), Ok("SCHILY.xattr.user.a"));
            records += 1;
        }
    }
    assert_eq!(records, 1000);
}

#[test]
fn hard_links_stay_one_file_within_a_volume_and_become_two_in_two() {
    let home = folder();
    let long = format!("v/{}", "a".repeat(150));
    put(home.path(), &long, "one file");
    fs::hard_link(home.path().join(&long), home.path().join("v/b")).unwrap();
    let text = "- volume: v\n  content:\n  - source: v\n- volume: w\n  content:\n  - source: v\n";
    let (target, notes) = made(home.path(), text);
    assert_eq!(notes, []);
    let ino = |name: &str| {
        fs::metadata(target.path().join("backup").join(name))
            .unwrap()
            .ino()
    };
    assert_eq!(ino(&long), ino("v/b"));
    assert_eq!(ino("w/b"), ino(&long.replacen('v', "w", 1)));
    assert_ne!(ino("v/b"), ino("w/b"));
    assert_eq!(
        fs::read(target.path().join("backup/w/b")).unwrap(),
        b"one file"
    );
}

/// BusyBox would leave out what GNU calls a sparse file, so its holes are zeros in the archive.
#[test]
fn a_sparse_file_comes_whole_and_packs_small() {
    let home = folder();
    let path = put(home.path(), "v/sparse", "head");
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(70 << 20)).unwrap();
    file.write_all(b"tail").unwrap();
    file.set_len(80 << 20).unwrap();
    drop(file);
    let text = "- volume: v\n  content:\n  - source: v\n";
    let survey = survey::survey(&Sys::new("/"), &define(home.path(), text), &[]);
    assert_eq!(survey.size.unpacked, 80 << 20);
    assert!(survey.size.packed < 1 << 20, "{:?}", survey.size);
    let (packed, _) = archived(&define(home.path(), text));
    assert!(packed.len() < 200_000, "{}", packed.len());
    for tar in [&["tar"][..], &["busybox", "tar"]] {
        let target = unpacked_by(tar, &packed, &[]);
        let same =
            fs::read(target.path().join("backup/v/sparse")).unwrap() == fs::read(&path).unwrap();
        assert!(same, "{tar:?}");
    }
}

#[test]
fn links_are_followed_and_those_without_an_end_stay_links() {
    let home = folder();
    put(home.path(), "elsewhere/file", "content");
    put(home.path(), "v/plain", "plain");
    let v = home.path().join("v");
    symlink("../elsewhere", v.join("to-folder")).unwrap();
    symlink("../elsewhere/file", v.join("to-file")).unwrap();
    symlink(home.path().join("elsewhere/file"), v.join("absolute")).unwrap();
    symlink("gone", v.join("dangling")).unwrap();
    symlink("self", v.join("self")).unwrap();
    symlink("..", home.path().join("elsewhere/up")).unwrap();
    symlink(".", v.join("here")).unwrap();
    let text = "- volume: v\n  content:\n  - source: v\n";
    let (target, mut notes) = made(home.path(), text);
    let v = target.path().join("backup/v");
    for name in ["to-file", "absolute", "to-folder/file"] {
        let path = v.join(name);
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{name}");
        assert_eq!(fs::read(path).unwrap(), b"content", "{name}");
    }
    assert!(fs::symlink_metadata(v.join("to-folder")).unwrap().is_dir());
    for (name, leads_to) in [("dangling", "gone"), ("self", "self"), ("here", ".")] {
        assert_eq!(
            fs::read_link(v.join(name)).unwrap(),
            Path::new(leads_to),
            "{name}"
        );
    }
    notes.sort_by(|a, b| a.path.cmp(&b.path));
    let notes: Vec<String> = notes
        .iter()
        .map(|note| note.to_string().replace(home.path().to_str().unwrap(), "~"))
        .collect();
    let circle = "links that lead in a circle stay links in the backup: ~/v/";
    assert!(notes.contains(&format!("{circle}here")), "{notes:#?}");
    assert!(notes.contains(&format!("{circle}self")), "{notes:#?}");
    let around = "folders are left out where they would come inside themselves: ~/v/to-folder/up/v";
    assert!(notes.contains(&around.into()), "{notes:#?}");
    assert!(
        notes.contains(&"links that lead nowhere stay links in the backup: ~/v/dangling".into()),
        "{notes:#?}"
    );
    // Before anything is done, the survey says the same.
    let said = surveyed(home.path(), text);
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(
        said.iter()
            .all(|line| line.starts_with("warning backup-content: b.yml:3: "))
    );
}

#[test]
fn sockets_are_left_out_pipes_are_kept_and_nothing_waits_for_them() {
    let home = folder();
    put(home.path(), "v/file", "x");
    let _listening = UnixListener::bind(home.path().join("v/socket")).unwrap();
    let pipe = home.path().join("v/pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let (target, notes) = made(home.path(), "- volume: v\n  content:\n  - source: v\n");
    assert_eq!(
        names(&target.path().join("backup")),
        ["v", "v/file", "v/pipe"]
    );
    assert_eq!(kinds(&notes), [NoteKind::Special]);
    let device = "- volume: v\n  content:\n  - source: /dev/null\n";
    assert_eq!(
        surveyed(home.path(), device),
        [
            "error backup-source: b.yml:3: the source /dev/null is neither a file nor a folder; take it out of the backup"
        ]
    );
}

/// What each form of an item means: name of the case, definition, and what is in the archive.
const FORMS: &[(&str, &str, &[&str])] = &[
    (
        "a file to a target",
        "- volume: v\n  content:\n  - source: conf/a.conf\n    target: x/y.conf\n",
        &["v", "v/x", "v/x/y.conf"],
    ),
    (
        "a folder to a target",
        "- volume: v\n  content:\n  - source: conf\n    target: x/y\n",
        &[
            "v",
            "v/x",
            "v/x/y",
            "v/x/y/a.conf",
            "v/x/y/b.txt",
            "v/x/y/sub.conf",
            "v/x/y/sub.conf/c",
        ],
    ),
    (
        "a folder to the volume",
        "- volume: v\n  content:\n  - source: conf\n",
        &["v", "v/a.conf", "v/b.txt", "v/sub.conf", "v/sub.conf/c"],
    ),
    (
        "a filter to a target; a folder that it matches comes whole",
        "- volume: v\n  content:\n  - source: conf\n    target: x\n    filter: '.*\\.conf'\n",
        &["v", "v/x", "v/x/a.conf", "v/x/sub.conf", "v/x/sub.conf/c"],
    ),
    (
        "a filter to the volume, anywhere in the name",
        "- volume: v\n  content:\n  - source: conf\n    filter: 't'\n",
        &["v", "v/b.txt"],
    ),
    (
        "a filter sees names and not paths",
        "- volume: v\n  content:\n  - source: conf\n    filter: 'conf/'\n",
        &["v"],
    ),
    (
        "a file without target",
        "- volume: v\n  content:\n  - source: conf/a.conf\n",
        &["v", "v/a.conf"],
    ),
    (
        "a file into a folder",
        "- volume: v\n  content:\n  - source: conf/a.conf\n    target: x/\n",
        &["v", "v/x", "v/x/a.conf"],
    ),
    (
        "targets that mean the volume",
        "- volume: v\n  content:\n  - source: conf/a.conf\n    target: .\n  - source: conf/b.txt\n    target: /\n  - source: conf/sub.conf/c\n    target: ''\n",
        &["v", "v/a.conf", "v/b.txt", "v/c"],
    ),
    (
        "items instead of content, absent target and filter",
        "- volume: v\n  items:\n  - source: conf/sub.conf\n    target:\n    filter:\n",
        &["v", "v/c"],
    ),
    (
        "std-backup's item, with keys beside and below",
        "- volume: v\n  items:\n  - item:\n    source: conf/a.conf\n    target: x\n  - item:\n      source: conf/b.txt\n      target: y\n",
        &["v", "v/x", "v/y"],
    ),
    (
        "several items in one folder",
        "- volume: v\n  content:\n  - source: conf/a.conf\n    target: x/one\n  - source: conf/sub.conf\n    target: x\n",
        &["v", "v/x", "v/x/c", "v/x/one"],
    ),
    (
        "two filters into the volume",
        "- volume: v\n  content:\n  - source: conf\n    filter: a\n  - source: conf\n    filter: txt\n",
        &["v", "v/a.conf", "v/b.txt"],
    ),
    (
        "a leading / and . in a target",
        "- volume: v\n  content:\n  - source: conf/a.conf\n    target: /./x//y\n",
        &["v", "v/x", "v/x/y"],
    ),
    (
        "two volumes",
        "- volume: v\n  content:\n  - source: conf/a.conf\n- volume: w\n  content:\n  - source: conf/a.conf\n",
        &["v", "v/a.conf", "w", "w/a.conf"],
    ),
];

#[test]
fn each_form_of_an_item_means_what_the_readme_says() {
    let home = folder();
    put(home.path(), "conf/a.conf", "a");
    put(home.path(), "conf/b.txt", "b");
    put(home.path(), "conf/sub.conf/c", "c");
    for (case, text, expected) in FORMS {
        let (target, notes) = made(home.path(), text);
        assert_eq!(names(&target.path().join("backup")), *expected, "{case}");
        let nothing_matches = case.contains("not paths");
        assert_eq!(
            notes.len(),
            usize::from(nothing_matches),
            "{case}: {notes:?}"
        );
    }
}

#[test]
fn folders_on_the_way_are_root_s_and_the_first_source_says_what_a_folder_is_like() {
    let home = folder();
    put(home.path(), "one/file", "1");
    put(home.path(), "two/other", "2");
    let mode = |name: &str, mode| {
        fs::set_permissions(home.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("one", 0o700);
    mode("two", 0o711);
    let text = "- volume: v\n  content:\n  - source: two/other\n    target: way/a/b\n  - source: one\n    target: way/a\n";
    let (target, _) = made(home.path(), text);
    let mode = |name: &str| {
        fs::metadata(target.path().join("backup").join(name))
            .unwrap()
            .mode()
            & 0o7777
    };
    assert_eq!((mode("v"), mode("v/way")), (0o755, 0o755));
    assert_eq!(
        mode("v/way/a"),
        0o700,
        "a source's own mode wins over that of a folder on the way"
    );
}

/// Definitions that are wrong: the whole of what is said, with file and line.
const WRONG: &[(&str, &[&str])] = &[
    (
        "",
        &["b.yml:1: the definition has no volumes; write `- volume: NAME`, or unset it"],
    ),
    (
        "[]",
        &["b.yml:1: the definition has no volumes; write `- volume: NAME`, or unset it"],
    ),
    (
        "volume: v\ncontent: []\n",
        &[
            "b.yml:1: the definition is a map of keys and values, not a list of volumes; begin each volume with `- volume: NAME`",
        ],
    ),
    (
        "just words",
        &[
            "b.yml:1: the definition is a text, not a list of volumes; begin each volume with `- volume: NAME`",
        ],
    ),
    (
        "- v\n",
        &[
            "b.yml:1: an entry of the definition is a text, not a volume; write `- volume: NAME`, and its `content:` below",
        ],
    ),
    (
        "- content:\n  - source: /a\n",
        &["b.yml:1: a volume has no name; write `volume: NAME`"],
    ),
    (
        "- volume: v\n",
        &["b.yml:1: a volume has no content; write `content:`, and `- source: PATH` below"],
    ),
    (
        "- volume: v\n  content:\n",
        &[
            "b.yml:2: the content of a volume is empty; write `- source: PATH`, or remove the volume",
        ],
    ),
    (
        "- volume: v\n  content: /a\n",
        &[
            "b.yml:2: the content of a volume is a text, not a list; write `- source: PATH` for each file or folder",
        ],
    ),
    (
        "- volume: v\n  content:\n  - /a\n",
        &["b.yml:3: the content of a volume has a text, not a source; write `- source: PATH`"],
    ),
    (
        "- volume: v\n  content:\n  - target: b\n",
        &["b.yml:3: an item has no source; write `source: PATH`"],
    ),
    (
        "- volume: v\n  content:\n  - source:\n",
        &["b.yml:3: an item has no source; write `source: PATH`"],
    ),
    (
        "- volume: v\n  content:\n  - source: ''\n",
        &["b.yml:3: the source is no path; write the path of a file or a folder"],
    ),
    (
        "- volume: v\n  content:\n  - source: 5\n",
        &["b.yml:3: `source` is a number, not a text; put the value in quotes"],
    ),
    (
        "- volume: v\n  content:\n  - source: [a]\n",
        &["b.yml:3: `source` is a list, not a text; put the value in quotes"],
    ),
    (
        "- volume: 7\n  content:\n  - source: /a\n",
        &["b.yml:1: `volume` is a number, not a text; put the value in quotes"],
    ),
    (
        "- volume: yes\n  content: &x\n  - source: true\n",
        &["b.yml:3: `source` is a truth value, not a text; put the value in quotes"],
    ),
    (
        "- volume: a/b\n  content:\n  - source: /a\n",
        &[
            "b.yml:1: `a/b` is no name of a volume: those are of letters, digits, `_`, `.` and `-`, and begin with a letter or a digit; write the name as the application's compose file has it",
        ],
    ),
    (
        "- volume: ''\n  content:\n  - source: /a\n",
        &["b.yml:1: `` is empty; write the name as the application's compose file has it"],
    ),
    (
        "- volume: ..\n  content:\n  - source: /a\n",
        &[
            "b.yml:1: `..` is no name of a volume: those are of letters, digits, `_`, `.` and `-`, and begin with a letter or a digit; write the name as the application's compose file has it",
        ],
    ),
    (
        "- volume: v\n  content:\n  - source: /a\n- volume: v\n  content:\n  - source: /b\n",
        &["b.yml:4: the volume v is defined twice; put all of its content under one"],
    ),
    (
        "- volume: v\n  content:\n  - source: /a\n  items:\n  - source: /b\n",
        &[
            "b.yml:5: `items` is the same as `content`, and both are there; put all of it under `content`",
        ],
    ),
    (
        "- volume: v\n  volume: w\n  content:\n  - source: /a\n",
        &["b.yml:2: a volume has `volume` twice; remove one of them"],
    ),
    (
        "- volume: v\n  contents:\n  - source: /a\n",
        &[
            "b.yml:2: `contents` is no key of a volume; there are volume, content, items",
            "b.yml:1: a volume has no content; write `content:`, and `- source: PATH` below",
        ],
    ),
    (
        "- volume: v\n  content:\n  - source: /a\n    filters: x\n",
        &["b.yml:4: `filters` is no key of an item; there are item, source, target, filter"],
    ),
    (
        "- volume: v\n  content:\n  - source: /a\n    1: x\n",
        &["b.yml:4: a key of an item is a number; there are item, source, target, filter"],
    ),
    (
        "- volume: v\n  content:\n  - source: /a\n    target: x/../../y\n",
        &["b.yml:4: the target `x/../../y` leads out of the volume; write a path without `..`"],
    ),
    (
        "- volume: v\n  content:\n  - source: /a\n    filter: '*.conf'\n",
        &[
            r"b.yml:4: the filter `*.conf` is no regular expression: repetition operator missing expression; write it as in `\.conf$`",
        ],
    ),
    (
        "- volume: v\n  content:\n  - source: /a\n    filter: '(a'\n",
        &[
            r"b.yml:4: the filter `(a` is no regular expression: unclosed group; write it as in `\.conf$`",
        ],
    ),
    (
        "- volume: v\n  content:\n  - item:\n      source: /a\n    target: b\n",
        &[
            "b.yml:4: an item has keys below and beside `item`; put all of its keys either below `item` or beside it",
        ],
    ),
    (
        "- volume: v\n  content:\n  - source: !include x\n",
        &["b.yml:3: `source` is a value with a tag, not a text; put the value in quotes"],
    ),
    (
        // All at once, in the order of the lines.
        "- volume: a b\n  content:\n  - source: /a\n    target: ../x\n  - target: y\n- volume: w\n  content:\n  - source: 1\n  - source: /b\n    filter: '['\n",
        &[
            "b.yml:1: `a b` is no name of a volume: those are of letters, digits, `_`, `.` and `-`, and begin with a letter or a digit; write the name as the application's compose file has it",
            "b.yml:4: the target `../x` leads out of the volume; write a path without `..`",
            "b.yml:5: an item has no source; write `source: PATH`",
            "b.yml:8: `source` is a number, not a text; put the value in quotes",
            r"b.yml:10: the filter `[` is no regular expression: unclosed character class; write it as in `\.conf$`",
        ],
    ),
];

#[test]
fn everything_that_is_wrong_in_a_definition_is_said_with_its_line() {
    for (text, expected) in WRONG {
        let (_, findings) = definition::parse("b.yml", text, "/home");
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(lines, *expected, "{text}");
        assert!(
            findings
                .iter()
                .all(|finding| finding.severity == Severity::Error)
        );
    }
}

#[test]
fn what_is_no_yaml_is_said_with_its_line() {
    for (text, line, words) in [
        ("- volume: v\n  content: [\n", 3, "did not find"),
        ("- volume: v\n\tcontent: x\n", 2, "found a tab character"),
        ("- volume: *nowhere\n", 1, "unknown anchor"),
        (
            "- volume: v\n  content:\n  - source: /a\n---\n- volume: w\n",
            4,
            "more than one document",
        ),
    ] {
        let (volumes, findings) = definition::parse("b.yml", text, "/home");
        assert!(volumes.is_empty());
        let [finding] = findings.as_slice() else {
            panic!("{findings:#?}")
        };
        let said = finding.to_string();
        assert!(
            said.contains("this is not the YAML of a backup definition: "),
            "{said}"
        );
        assert!(said.contains(words), "{said}");
        assert!(
            said.starts_with(&format!("b.yml:{line}: ")) || words.contains("document"),
            "{said}"
        );
    }
}

/// Sound definitions of what can't be done: home has a file `file`, a folder `dir` with `a` and `b`.
const UNDOABLE: &[(&str, &[&str])] = &[
    (
        "- volume: v\n  content:\n  - source: gone\n  - source: /also/gone\n    target: x\n",
        &[
            "error backup-source: b.yml:3: the source ~/gone is not there; put the path right, or take the source out of the backup",
            "error backup-source: b.yml:4: the source /also/gone is not there; put the path right, or take the source out of the backup",
        ],
    ),
    (
        "- volume: v\n  content:\n  - source: file\n    filter: x\n",
        &[
            "error backup-source: b.yml:3: the source ~/file is not a folder, and has a filter; remove the filter, or give a folder",
        ],
    ),
    (
        "- volume: v\n  content:\n  - source: dir\n    filter: zzz\n",
        &[
            "warning backup-content: b.yml:3: the filter matches nothing in: ~/dir; put the filter right: it looks at names, not at paths",
        ],
    ),
    (
        "- volume: v\n  content:\n  - source: dir\n  - source: dir\n",
        &[
            "error backup-twice: b.yml:4: v would come twice: the second time from ~/dir; give one of the two another target",
        ],
    ),
    (
        "- volume: v\n  content:\n  - source: file\n    target: x\n  - source: dir/a\n    target: x\n",
        &[
            "error backup-twice: b.yml:5: v/x would come twice: the second time from ~/dir/a; give one of the two another target",
        ],
    ),
    (
        "- volume: v\n  content:\n  - source: dir\n  - source: file\n    target: b\n",
        &[
            "error backup-twice: b.yml:4: v/b would come twice: the second time from ~/file; give one of the two another target",
        ],
    ),
    (
        "- volume: v\n  content:\n  - source: file\n    target: x\n  - source: dir\n    target: x/y\n",
        &[
            "error backup-twice: b.yml:5: v/x would come twice: the second time from ~/dir; give one of the two another target",
        ],
    ),
    (
        "- volume: v\n  content:\n  - source: dir\n    filter: a\n  - source: dir\n    filter: '[ab]'\n",
        &[
            "error backup-twice: b.yml:5: v/a would come twice: the second time from ~/dir/a; give one of the two another target",
        ],
    ),
];

#[test]
fn what_can_t_be_done_is_said_before_anything_is() {
    let home = folder();
    put(home.path(), "file", "");
    put(home.path(), "dir/a", "");
    put(home.path(), "dir/b", "");
    for (text, expected) in UNDOABLE {
        assert_eq!(surveyed(home.path(), text), *expected, "{text}");
    }
}

#[test]
fn many_notes_are_one_finding_that_names_some() {
    let home = folder();
    fs::create_dir(home.path().join("v")).unwrap();
    for number in 0..9 {
        symlink("gone", home.path().join(format!("v/{number}\n"))).unwrap();
    }
    assert_eq!(
        surveyed(home.path(), "- volume: v\n  content:\n  - source: v\n"),
        [
            r"warning backup-content: b.yml:3: links that lead nowhere stay links in the backup: ~/v/0\n, ~/v/1\n, ~/v/2\n, ~/v/3\n, 5 more; nothing is to be done if the application does not need it"
        ]
    );
}

#[test]
fn directories_become_volumes_with_their_last_names() {
    let folders = ["/etc/app", "/srv/data", "/srv/my data", "/", "/opt/data"].map(str::to_owned);
    let (volumes, findings) = definition::of_directories(&folders, "c:4:1");
    let volumes: Vec<(&str, &str)> = volumes
        .iter()
        .map(|volume| (volume.name.as_str(), volume.items[0].source.as_str()))
        .collect();
    assert_eq!(volumes, [("app", "/etc/app"), ("data", "/srv/data")]);
    let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "c:4:1: BACKUP_DIRECTORIES has /srv/my data, and its last part `my data` is no name of a volume: those are of letters, digits, `_`, `.` and `-`, and begin with a letter or a digit; name the volume in a BACKUP_DEFINITION instead",
            "c:4:1: BACKUP_DIRECTORIES has /, and its last part `` is empty; name the volume in a BACKUP_DEFINITION instead",
            "c:4:1: BACKUP_DIRECTORIES has /srv/data and /opt/data, which would both be the volume data; name the volume in a BACKUP_DEFINITION instead",
        ]
    );
}

/// Changes a file in the middle of its reading, by way of the progress callback.
fn notes_when(change: impl Fn(&Path)) -> (Vec<NoteKind>, usize) {
    let home = folder();
    let file = put(home.path(), "v/log", vec![7; 600 << 10]);
    let volumes = define(home.path(), "- volume: v\n  content:\n  - source: v\n");
    let mut packed = Vec::new();
    let mut changed = false;
    let notes = archive::write(&Sys::new("/"), &volumes, &[], &mut packed, &mut |_| {
        if !std::mem::replace(&mut changed, true) {
            change(&file);
        }
    })
    .unwrap();
    let target = unpacked(&packed);
    let bytes = fs::metadata(target.path().join("backup/v/log"))
        .unwrap()
        .len();
    (kinds(&notes), bytes as usize)
}

#[test]
fn a_file_that_changes_while_it_is_read_is_said_and_the_archive_stays_sound() {
    let append = |path: &Path| {
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"more").unwrap();
    };
    let cut = |path: &Path| {
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(100)
            .unwrap();
    };
    let touch = |path: &Path| set_time(path, 1);
    for change in [&append as &dyn Fn(&Path), &cut, &touch] {
        assert_eq!(notes_when(change), (vec![NoteKind::Changed], 600 << 10));
    }
    let nothing = |_: &Path| ();
    assert_eq!(notes_when(nothing), (vec![], 600 << 10));
}

#[test]
fn the_backup_does_not_go_into_itself() {
    let home = folder();
    put(home.path(), "v/backup.tgz", "of an earlier day");
    put(home.path(), "v/.backup.tgz.balena-migrate-new", "growing");
    put(home.path(), "v/data", "");
    let sys = Sys::new("/");
    let own = survey::own_files(&sys, home.path().join("v/backup.tgz").to_str().unwrap());
    let volumes = define(home.path(), "- volume: v\n  content:\n  - source: v\n");
    let mut packed = Vec::new();
    let notes = archive::write(&sys, &volumes, &own, &mut packed, &mut |_| ()).unwrap();
    assert_eq!(kinds(&notes), [NoteKind::Itself; 2]);
    let target = unpacked(&packed);
    assert_eq!(names(&target.path().join("backup")), ["v", "v/data"]);
}

#[test]
fn many_files_come_in_order_and_one_member_follows_the_other() {
    let home = folder();
    for number in 0..5000 {
        put(
            home.path(),
            format!("v/{}/{number}", number % 50),
            format!("{number}").repeat(200),
        );
    }
    let text = "- volume: v\n  content:\n  - source: v\n";
    let (packed, notes) = archived(&define(home.path(), text));
    assert_eq!(notes, []);
    let target = unpacked(&packed);
    assert_eq!(tree(&home.path().join("v")).len(), 5050);
    assert!(tree(home.path()) == tree(&target.path().join("backup")));
    let (again, _) = archived(&define(home.path(), text));
    assert!(packed == again, "the same files make the same archive");
    assert!(
        packed.len() as u64
            <= survey::survey(&Sys::new("/"), &define(home.path(), text), &[])
                .size
                .packed
    );
}

#[test]
fn gzip_takes_the_members_for_one_stream() {
    for bytes in [0_usize, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 40 << 20] {
        let content: Vec<u8> = (0..bytes).map(|n| ((n * 31) >> 9) as u8).collect();
        let mut gzip = Gzip::new(Vec::new());
        gzip.write_all(&content).unwrap();
        let packed = gzip.finish().unwrap();
        let target = folder();
        let file = put(target.path(), "x.gz", packed);
        let done = Command::new("gzip").arg("-d").arg(file).output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty());
        assert!(
            fs::read(target.path().join("x")).unwrap() == content,
            "{bytes}"
        );
    }
}

#[test]
fn a_sink_that_fails_ends_the_archive_with_its_reason() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(1)
                .ok_or_else(|| std::io::Error::other("no room"))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let home = folder();
    put(home.path(), "v/large", vec![1; 30 << 20]);
    let volumes = define(home.path(), "- volume: v\n  content:\n  - source: v\n");
    for good in [0, 1, 20] {
        let error = archive::write(&Sys::new("/"), &volumes, &[], Full(good), &mut |_| ());
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("no room"), "{error}");
    }
}

/// An archive of these entries: kind, name.
fn foreign(entries: &[(tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    for (kind, name) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(0);
        if *kind == tar::EntryType::GNUSparse {
            header.as_gnu_mut().unwrap().realsize = *b"00000000000\0";
        }
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[test]
fn a_foreign_backup_is_refused_with_the_name_of_the_offender() {
    use tar::EntryType::{Directory as Dir, GNUSparse, Regular as Reg, Symlink as Link};
    let name = "is no name of a volume: those are of letters, digits, `_`, `.` and `-`, and begin \
                with a letter or a digit";
    let lost = format!("`lost+found` {name}");
    let blank = format!("`my data` {name}");
    let hidden = format!("`.cache` {name}");
    /// What is in the archive, and what is said of it.
    type Row<'a> = (Vec<(tar::EntryType, &'a str)>, Vec<&'a str>);
    let cases: Vec<Row> = vec![
        (vec![(Dir, "v/"), (Reg, "v/a"), (Dir, "w")], vec![]),
        (vec![(Reg, "v/a")], vec![]),
        (vec![(Dir, "./"), (Dir, "./v/"), (Reg, "./v/a")], vec![]),
        (
            vec![(Dir, "v/"), (Reg, "notes.txt")],
            vec!["`notes.txt` is no folder, and at the top level"],
        ),
        (
            vec![(Reg, "./notes.txt")],
            vec!["`./notes.txt` is no folder, and at the top level"],
        ),
        (
            vec![(Link, "v")],
            vec!["`v` is no folder, and at the top level"],
        ),
        (
            vec![(Reg, "/etc/passwd")],
            vec!["`/etc/passwd` is an absolute path"],
        ),
        (
            vec![(Dir, "v/"), (Reg, "v/../../etc/x")],
            vec!["`v/../../etc/x` has `..` in it"],
        ),
        (
            vec![(Dir, "lost+found/"), (Reg, "lost+found/x")],
            vec![&lost],
        ),
        (vec![(Dir, "my data/")], vec![&blank]),
        (vec![(Dir, "./.cache/")], vec![&hidden]),
        (
            vec![(GNUSparse, "v/disk")],
            vec!["`v/disk` is a sparse file, which its tar leaves out; make it without --sparse"],
        ),
    ];
    for (entries, expected) in cases {
        let contents = inspect::inspect(foreign(&entries).as_slice()).unwrap();
        assert_eq!(contents.refused, expected, "{entries:?}");
        assert_eq!(
            contents.dotted,
            entries[0].1.starts_with("./"),
            "{entries:?}"
        );
    }
}

#[test]
fn a_damaged_backup_is_refused() {
    let home = folder();
    let noise: Vec<u8> = (0..2_000_000_u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    put(home.path(), "v/x", noise);
    let (packed, _) = archived(&define(
        home.path(),
        "- volume: v\n  content:\n  - source: v\n",
    ));
    let path = home.path().join("backup.tgz");
    let path = path.to_str().unwrap();
    let finding = |bytes: &[u8]| {
        fs::write(path, bytes).unwrap();
        said(&inspect::existing(&Sys::new("/"), path), home.path())
    };
    assert_eq!(finding(&packed), [""; 0]);
    let mut broken = packed.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 0x10;
    let mut last = packed.clone();
    let crc = last.len() - 6;
    last[crc] ^= 1;
    let trailing = [packed.as_slice(), b"garbage"].concat();
    for (bad, how) in [
        (&packed[..packed.len() - 1], "cut at the end"),
        (&packed[..1000], "cut early"),
        (&broken, "a bit turned"),
        (&last, "a wrong check sum"),
        (&trailing, "garbage after it"),
        (b"no gzip at all", "no gzip"),
        (b"", "empty"),
    ] {
        let said = finding(bad);
        assert_eq!(said.len(), 1, "{how}: {said:?}");
        assert!(
            said[0].starts_with("error backup-archive: the backup ~/backup.tgz can't be used: "),
            "{how}: {said:?}"
        );
    }
}

#[test]
fn an_existing_backup_with_many_faults_names_some() {
    let home = folder();
    let entries: Vec<(tar::EntryType, String)> = (0..9)
        .map(|number| (tar::EntryType::Regular, format!("f{number}")))
        .collect();
    let entries: Vec<(tar::EntryType, &str)> = entries
        .iter()
        .map(|(kind, name)| (*kind, name.as_str()))
        .collect();
    let path = put(home.path(), "backup.tgz", foreign(&entries));
    let said = said(
        &inspect::existing(&Sys::new("/"), path.to_str().unwrap()),
        home.path(),
    );
    assert_eq!(said.len(), 6);
    assert_eq!(
        said[0],
        "error backup-archive: balenaOS would not take ~/backup.tgz: `f0` is no folder, and at the top level; make it anew: at its top there may be folders only, each with the name of a volume"
    );
    assert!(said[5].contains("4 more like these"), "{}", said[5]);
}
