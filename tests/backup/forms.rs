//! What each form of an item means.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::workshop::*;

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
