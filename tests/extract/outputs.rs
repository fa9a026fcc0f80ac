//! What `extract` leaves behind: files, checksums, configuration; and what it does not touch.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;

use balena_migrate::config::{self, Overrides};
use balena_migrate::extract::open::Notice;
use balena_migrate::extract::pack::Packing;
use balena_migrate::extract::take::take;
use balena_migrate::extract::wanted::{Target, Wanted};
use balena_migrate::payload::digest::sha256_hex;
use balena_migrate::sys::Sys;
use tempfile::tempdir;

use super::flasher::{Flasher, extract, extracted, modern, modern_os, os, packed};

const IMAGE: &str = "balena-image-genericx86-64-ext.img.gz";

#[test]
fn a_new_configuration_is_the_sample_with_what_was_taken_and_rehearses() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    fs::create_dir(dir.path().join("mine")).unwrap();
    let said = extracted(dir.path(), &["--config", "mine/balena-migrate.conf", &file]);
    assert!(said.contains("NO_FLASH=TRUE rehearses"), "{said}");
    assert!(
        said.contains("the image has no config.json: put yours beside it"),
        "{said}"
    );
    let home = dir.path().join("mine");
    let sys = Sys::new("/");
    let config = config::load(&sys, home.to_str().unwrap(), &Overrides::default()).unwrap();
    assert_eq!(config.image_name.0, home.join(IMAGE).to_str().unwrap());
    let json = config.balena_config.as_ref().unwrap();
    assert_eq!(json.0, home.join("config.json").to_str().unwrap());
    assert!(*config.no_flash && *config.debug && !*config.grub_install);
    let text = fs::read_to_string(home.join("balena-migrate.conf")).unwrap();
    assert!(
        text.contains("\n# The balenaOS image to install."),
        "the sample's comments stay"
    );
}

#[test]
fn an_old_image_asks_for_the_grub_that_came_with_it() {
    let old = os("genericx86-64", "dos", false);
    let flasher = Flasher {
        slug: "genericx86-64",
        boot: vec![
            ("grub/boot.img", vec![1; 512]),
            ("grub/core.img", vec![2; 2000]),
            ("grub.cfg_internal", b"x".to_vec()),
            ("config.json", b"{}".to_vec()),
        ],
        ..Flasher::modern(vec![("opt/resin-image-genericx86-64.resinos-img", old)])
    };
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), &flasher.build(), "zip");
    let conf = dir.path().join("x.conf");
    fs::write(
        &conf,
        "# my fleet\nexport IMAGE_NAME=old.gz # this one\nKEEP_NAME=FALSE\n",
    )
    .unwrap();
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o640)).unwrap();
    extracted(
        dir.path(),
        &[
            "--config",
            "x.conf",
            "--home",
            "/srv/device",
            "--out-dir",
            ".",
            &file,
        ],
    );
    let expected = "# my fleet\nexport IMAGE_NAME=resin-image-genericx86-64.img.gz # this one\n\
                    KEEP_NAME=FALSE\nHOME_DIR=/srv/device\nGRUB_CFG=grub.cfg\nGRUB_BOOT_IMG=boot.img\n\
                    GRUB_CORE_IMG=core.img\nBALENA_CONFIG=config.json\nGRUB_INSTALL=TRUE\n";
    assert_eq!(fs::read_to_string(&conf).unwrap(), expected);
    assert_eq!(
        fs::metadata(&conf).unwrap().permissions().mode() & 0o777,
        0o640
    );
    let json = fs::metadata(dir.path().join("config.json")).unwrap();
    assert_eq!(
        json.permissions().mode() & 0o777,
        0o600,
        "it may have keys in it"
    );
    let list = fs::read_to_string(dir.path().join("checksums.sha256")).unwrap();
    assert!(!list.contains("config.json"), "it will be edited: {list}");
    assert!(list.contains("  core.img\n"), "{list}");
}

#[test]
fn checksums_of_other_files_stay_and_those_of_the_image_are_new() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    let sum = "0".repeat(64);
    let old = format!("# mine\n{sum}  other\n{sum}  ./os.gz\n# os.gz, unpacked: long ago\n");
    fs::write(dir.path().join("checksums.sha256"), old).unwrap();
    extracted(dir.path(), &["--img", "os.gz", &file]);
    let file_sum = sha256_hex(&fs::read(dir.path().join("os.gz")).unwrap());
    let expected = format!(
        "# mine\n{sum}  other\n# os.gz, unpacked: {} bytes, SHA-256 {}\n{file_sum}  os.gz\n",
        modern_os().len(),
        sha256_hex(modern_os())
    );
    assert_eq!(
        fs::read_to_string(dir.path().join("checksums.sha256")).unwrap(),
        expected
    );
}

#[test]
fn nothing_that_is_there_is_replaced_unless_that_is_said() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let file = packed(dir.path(), modern(), "zip");
    fs::write(at("os.gz"), "mine").unwrap();
    let said = extract(dir.path(), &["--img", "os.gz", &file]);
    assert_eq!(said.code, 1);
    assert!(
        said.err
            .ends_with("/os.gz is there already; remove it, or say --force\n"),
        "{}",
        said.err
    );
    assert_eq!(fs::read(at("os.gz")).unwrap(), b"mine");
    // A name that only shows when the image was looked into.
    fs::create_dir(at("out")).unwrap();
    fs::write(at("out").join(IMAGE), "mine").unwrap();
    assert_eq!(extract(dir.path(), &["--out-dir", "out", &file]).code, 1);
    assert_eq!(fs::read(at("out").join(IMAGE)).unwrap(), b"mine");

    extracted(dir.path(), &["--force", "--img", "os.gz", &file]);
    assert_ne!(fs::read(at("os.gz")).unwrap(), b"mine");
    for (args, says) in [
        (
            &["--force", "--img", "/dev/null"][..],
            "/dev/null is no regular file",
        ),
        (
            &["--force", "--format", "gz", "--img", &file],
            "is the image that is read",
        ),
        (
            &["--img", "none/os.gz"],
            "/none/; make it, or name another one",
        ),
        (&["--img", "out/"], "/out/ is no name for a file"),
        (
            &["--config", "none/x.conf"],
            "the configuration: there is no folder ",
        ),
        (&["--out-dir", "os.gz"], "/os.gz is a file and no folder"),
    ] {
        let said = extract(dir.path(), &[args, &[&file]].concat());
        assert_eq!(said.code, 1, "{args:?}");
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
    let meta = fs::metadata("/dev/null").unwrap();
    assert!(!meta.is_file());
}

/// Somebody who stops it in the middle.
struct Stop;

impl Notice for Stop {
    fn tell(&self, _: String) {}

    fn at(&self, _: &'static str, bytes: u64, _: Option<u64>) -> io::Result<()> {
        match bytes < 10 << 20 {
            true => Ok(()),
            false => Err(io::Error::other("interrupted")),
        }
    }
}

#[test]
fn who_is_stopped_leaves_nothing() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    let home = dir.path().join("new");
    fs::create_dir(&home).unwrap();
    let at = |name: &str| home.join(name).to_str().unwrap().to_owned();
    let wanted = Wanted {
        img: Some(Target::File(at("os.gz"))),
        packing: Packing::Gz,
        items: Vec::new(),
        all: None,
        config: Some(at("x.conf")),
        home: None,
        force: false,
    };
    let stop: Rc<dyn Notice> = Rc::new(Stop);
    let stopped = take(&Sys::new("/"), &file, &wanted, &stop).map(drop);
    assert_eq!(stopped.unwrap_err().root_cause().to_string(), "interrupted");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
}

#[test]
fn a_configuration_that_can_not_be_read_stops_before_anything_is_written() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    fs::write(dir.path().join("x.conf"), "A=1\nIMAGE_NAME='old\n").unwrap();
    let said = extract(dir.path(), &["--config", "x.conf", &file]);
    assert_eq!(said.code, 1);
    assert!(
        said.err
            .ends_with("x.conf:2:12: this ' is never closed; add the closing one\n"),
        "{}",
        said.err
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn who_says_nothing_is_told_what_to_say() {
    let dir = tempdir().unwrap();
    for (args, says) in [
        (&["x.zip"][..], "say what to take out: --img FILE"),
        (
            &["--img", "-", "--grub", "-", "x.zip"],
            "only one file can go to standard output",
        ),
        (&["--list", "--img", "x", "x.zip"], "cannot be used with"),
        (
            &["--format", "xz", "x.zip"],
            "[possible values: gz, zst, raw]",
        ),
        (&[], "<IMAGE>"),
    ] {
        let said = extract(dir.path(), args);
        assert_eq!(said.code, 2, "{args:?}: {}", said.err);
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
}
