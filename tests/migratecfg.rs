//! The sample files of `migratecfg` do what they say.

use std::process::Command;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migratecfg");

/// balenaOS takes a backup only if everything at its top level is a folder with a volume's name.
#[test]
fn the_sample_backup_has_folders_with_names_at_its_top() {
    let folder = tempfile::tempdir().expect("making a folder");
    let made = Command::new(format!("{FOLDER}/sample-backup.sh"))
        .arg("backup.tgz")
        .current_dir(&folder)
        .status()
        .expect("running the sample");
    assert!(made.success());
    let listed = Command::new("tar")
        .args(["-tvzf", "backup.tgz"])
        .current_dir(&folder)
        .output()
        .expect("running tar");
    let listed = String::from_utf8(listed.stdout).expect("the names are text");
    let mut lines = listed.lines();
    let first = lines.next().expect("there is an entry");
    assert!(
        first.starts_with('d') && first.ends_with(" settings/"),
        "{first}"
    );
    for line in lines {
        let name = line.split_whitespace().last().expect("it has a name");
        assert!(name.starts_with("settings/"), "{line}");
        assert!(!line.starts_with('l'), "links are followed: {line}");
    }
    assert!(listed.contains(" settings/hostname\n"), "{listed}");
}
