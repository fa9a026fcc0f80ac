//! What `extract` sets in a configuration that was there before, and what it leaves alone.

use std::fs;
use std::path::Path;

use balena_migrate::checksums::Lists;
use balena_migrate::config::{self, Config, Overrides};
use balena_migrate::sys::Sys;
use tempfile::tempdir;

use super::flasher::{Flasher, PAYLOAD, extracted, modern, modern_os, os, packed};

const IMAGE: &str = "balena-image-genericx86-64-ext.img.gz";

/// The configuration as stage 1 reads it in that folder.
fn loaded(folder: &Path, name: &str) -> Config {
    let overrides = Overrides {
        config: Some(name.to_owned()),
        ..Overrides::default()
    };
    config::load(&Sys::new("/"), folder.to_str().unwrap(), &overrides).unwrap()
}

fn json_of(folder: &Path, name: &str) -> String {
    let config = loaded(folder, name);
    config.balena_config.as_ref().unwrap().0.clone()
}

/// What is wrong with the lists of checksums of a folder.
fn wrong_sums(folder: &Path) -> Vec<String> {
    let sys = Sys::new("/");
    let findings = Lists::read(&sys, folder.to_str().unwrap()).verify(&sys, None);
    findings.iter().map(|finding| finding.sentence()).collect()
}

fn with_json(json: &str) -> Vec<u8> {
    Flasher {
        boot: vec![
            ("balena-image-flasher", Vec::new()),
            ("config.json", json.into()),
        ],
        ..Flasher::modern(vec![(PAYLOAD, modern_os().to_vec())])
    }
    .build()
}

#[test]
fn files_go_to_the_home_dir_that_a_configuration_has_already() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    for (conf, home) in [
        ("a.conf", files.to_str().unwrap()),
        ("b.conf", "files"),
        ("c.conf", "./files/"),
    ] {
        fs::write(
            dir.path().join(conf),
            format!("HOME_DIR={home}\nIMAGE_NAME=old.gz\n"),
        )
        .unwrap();
        let said = extracted(dir.path(), &["--force", "--config", conf, &file]);
        let config = loaded(dir.path(), conf);
        assert_eq!(
            config.image_name.0,
            files.join(IMAGE).to_str().unwrap(),
            "{said}"
        );
        assert!(files.join(IMAGE).exists() && !dir.path().join(IMAGE).exists());
        let text = fs::read_to_string(dir.path().join(conf)).unwrap();
        assert_eq!(text, format!("HOME_DIR={home}\nIMAGE_NAME={IMAGE}\n"));
        assert!(!said.contains("copy what is in"), "{said}");
        fs::remove_dir_all(&files).unwrap();
        fs::create_dir(&files).unwrap();
    }
}

#[test]
fn a_home_dir_on_the_device_is_not_made_here() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), modern(), "zip");
    fs::create_dir(dir.path().join("mine")).unwrap();
    let device = dir.path().join("srv/device");
    let home = device.to_str().unwrap();
    let here = dir.path().join("mine");
    let remark = format!(
        "HOME_DIR={home}: copy what is in {} to there, on the device\n",
        here.display()
    );
    let said = extracted(
        dir.path(),
        &["--config", "mine/x.conf", "--home", home, &file],
    );
    assert!(said.contains(&remark), "{said}");
    // Also when it comes from the configuration, and when there is such a folder by chance.
    let again = extracted(dir.path(), &["--force", "--config", "mine/x.conf", &file]);
    assert!(again.contains(&remark), "{again}");
    assert!(!device.exists());
    fs::create_dir_all(&device).unwrap();
    let by_chance = ["--force", "--config", "mine/x.conf", "--home", home, &file];
    assert!(extracted(dir.path(), &by_chance).contains(&remark));
    assert_eq!(fs::read_dir(&device).unwrap().count(), 0);
    assert!(here.join(IMAGE).exists());
    let config = loaded(&here, "x.conf");
    assert_eq!(config.image_name.0, device.join(IMAGE).to_str().unwrap());
}

#[test]
fn a_config_json_of_the_user_stays() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), &with_json("{\"from\":\"the download\"}"), "zip");
    let at = |name: &str| dir.path().join(name);
    let mine = "{\"apiKey\":\"mine\"}";
    fs::write(at("config.json"), mine).unwrap();
    for force in [&["--force"][..], &["--force"], &[]] {
        let _ = fs::remove_file(at(IMAGE));
        let said = extracted(
            dir.path(),
            &[force, &["--config", "x.conf", &file]].concat(),
        );
        let remark =
            "/config.json stays as it is; --balena-cfg FILE takes the one of the download\n";
        assert!(said.contains(remark), "{said}");
        assert_eq!(fs::read_to_string(at("config.json")).unwrap(), mine);
        assert_eq!(
            json_of(dir.path(), "x.conf"),
            at("config.json").to_str().unwrap()
        );
    }
    // Under a name of its own.
    fs::remove_file(at("config.json")).unwrap();
    fs::write(at("fleet.json"), mine).unwrap();
    fs::write(at("y.conf"), "BALENA_CONFIG=fleet.json\n").unwrap();
    let said = extracted(dir.path(), &["--force", "--config", "y.conf", &file]);
    assert!(
        said.contains("BALENA_CONFIG=fleet.json stays as it is; --balena-cfg"),
        "{said}"
    );
    assert!(!at("config.json").exists());
    assert_eq!(
        json_of(dir.path(), "y.conf"),
        at("fleet.json").to_str().unwrap()
    );
    // As it is said.
    let args = [
        "--force",
        "--config",
        "y.conf",
        "--balena-cfg",
        "fleet.json",
        &file,
    ];
    extracted(dir.path(), &args);
    assert_eq!(
        fs::read_to_string(at("fleet.json")).unwrap(),
        "{\"from\":\"the download\"}"
    );
}

#[test]
fn an_image_that_brings_its_boot_loader_ends_grub_install() {
    let old = Flasher {
        slug: "genericx86-64",
        boot: vec![
            ("balena-image-flasher", Vec::new()),
            ("grub/boot.img", vec![1; 512]),
            ("grub/core.img", vec![2; 2000]),
        ],
        ..Flasher::modern(vec![(
            "opt/resin-image-genericx86-64.resinos-img",
            os("genericx86-64", "dos", false),
        )])
    };
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), &old.build(), "zip");
    fs::write(dir.path().join("x.conf"), "KEEP_NAME=FALSE\n").unwrap();
    extracted(dir.path(), &["--config", "x.conf", &file]);
    assert!(*loaded(dir.path(), "x.conf").grub_install);
    let file = packed(dir.path(), modern(), "zip");
    let said = extracted(dir.path(), &["--config", "x.conf", &file]);
    let remark = "GRUB_INSTALL was for an older image; this one brings its boot loader\n";
    assert!(
        said.contains("GRUB_INSTALL=FALSE\n") && said.contains(remark),
        "{said}"
    );
    let config = loaded(dir.path(), "x.conf");
    assert!(!*config.grub_install);
    // A configuration that does not ask for it is not told of it.
    fs::write(dir.path().join("y.conf"), "GRUB_INSTALL=no\n").unwrap();
    let said = extracted(dir.path(), &["--force", "--config", "y.conf", &file]);
    assert!(!said.contains("GRUB_INSTALL"), "{said}");
}

#[test]
fn lists_of_checksums_stay_true() {
    let dir = tempdir().unwrap();
    let file = packed(dir.path(), &with_json("{\"new\":1}"), "zip");
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    for (name, text) in [
        ("x.conf", "A=1\n"),
        ("config.json", "{}"),
        ("other", "other"),
    ] {
        fs::write(home.join(name), text).unwrap();
    }
    fs::write(home.join("x.conf"), "HOME_DIR=.\n").unwrap();
    let lists = "sha256sum x.conf ./config.json other > checksums.sha256
                 md5sum x.conf config.json other > checksums.md5
                 printf '# my rules\\n# my os.gz, unpacked: long ago\\n' >> checksums.sha256";
    super::flasher::run(
        "sh",
        &["-c", &format!("cd {} && {lists}", home.display())],
        b"",
    );
    assert_eq!(wrong_sums(&home), Vec::<String>::new());
    let args = [
        "--force",
        "--config",
        "home/x.conf",
        "--img",
        "home/my os.gz",
        "--balena-cfg",
        "home/config.json",
        &file,
    ];
    extracted(dir.path(), &args);
    assert_eq!(wrong_sums(&home), Vec::<String>::new());
    let list = fs::read_to_string(home.join("checksums.sha256")).unwrap();
    for name in [
        "  x.conf\n",
        "  ./config.json\n",
        "  other\n",
        "  my os.gz\n",
        "# my rules\n",
    ] {
        assert!(list.contains(name), "{name}: {list}");
    }
    assert_eq!(list.matches("# my os.gz, unpacked: ").count(), 1, "{list}");
    let md5 = fs::read_to_string(home.join("checksums.md5")).unwrap();
    assert_eq!(md5.lines().count(), 1, "{md5}");
    assert!(md5.ends_with("  other\n"), "{md5}");
    // Without the image, too.
    fs::write(home.join("config.json"), "{\"mine\":1}").unwrap();
    let args = [
        "--force",
        "--config",
        "home/x.conf",
        "--balena-cfg",
        "home/config.json",
        &file,
    ];
    extracted(dir.path(), &args);
    assert_eq!(wrong_sums(&home), Vec::<String>::new());
}
