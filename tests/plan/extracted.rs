//! The hand-over from `extract` to stage 1: the folder that it leaves is planned on as it is, but for
//! config.json.

#[path = "../extract/flasher.rs"]
mod flasher;

use std::fs;
use std::fs::File;

use balena_migrate::checksums::Lists;
use balena_migrate::config::{self, Overrides, balena};
use balena_migrate::payload::scan::scan;
use balena_migrate::sys::Sys;

use super::{CONFIG_JSON, case, stops};

#[test]
fn a_folder_that_extract_made_is_planned_on() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path().join("root/migratecfg");
    fs::create_dir_all(&home).unwrap();
    let zip = flasher::packed(root.path(), flasher::modern(), "zip");
    let conf = "root/migratecfg/balena-migrate.conf";
    flasher::extracted(root.path(), &["--config", conf, &zip]);
    fs::write(home.join("config.json"), CONFIG_JSON).unwrap();

    let sys = Sys::new(root.path());
    let mut case = case("debian-12-bios");
    case.config = config::load(&sys, "/root/migratecfg", &Overrides::default()).unwrap();
    let image_path = case.config.image_name.0.clone();
    let json_path = case
        .config
        .balena_config
        .as_ref()
        .expect("it is named")
        .0
        .clone();
    let json = balena::inspect(&json_path, sys.read(&json_path).unwrap());
    case.material.config_json_findings = json.findings.clone();
    case.material.config_json = Some(json);
    let file = File::open(
        sys.canonical(&image_path)
            .map(|path| root.path().join(&path[1..]))
            .unwrap(),
    );
    let scratch = tempfile::tempfile().unwrap();
    let image = scan(file.unwrap(), scratch, false, &mut |_| ()).unwrap();
    assert_eq!(image.slug(), Some(flasher::SLUG));
    let lists = Lists::read(&sys, &case.config.home_dir.0);
    case.material.checksum_findings = lists.verify(&sys, Some((&image_path, &image)));
    assert!(case.material.checksum_findings.is_empty());
    case.material.image = Ok(image);
    let findings = case.findings();
    assert!(!stops(&findings), "{findings:#?}");
    case.plan();
    // The list is of this image: another one in its place is told.
    fs::write(home.join(image_path.rsplit('/').next().unwrap()), "other").unwrap();
    let changed = Lists::read(&sys, &case.config.home_dir.0).verify(&sys, None);
    assert_eq!(changed.len(), 1);
}
