//! What is wrong with a definition or a list of folders, and what is said of it.

use std::fs;
use std::os::unix::fs::symlink;

use balena_migrate::backup::{self, definition};
use balena_migrate::config::{self, Overrides};
use balena_migrate::finding::Severity;
use balena_migrate::sys::Sys;

use crate::workshop::*;

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

#[test]
fn the_first_setting_wins_and_the_others_are_said() {
    let home = folder();
    put(
        home.path(),
        "b.yml",
        "- volume: v\n  content:\n  - source: data\n",
    );
    put(home.path(), "data/x", "12345");
    put(home.path(), "backup.tgz", "not looked at");
    let prepared = |settings: &str| {
        let text = format!("IMAGE_NAME=i\n{settings}");
        let cwd = home.path().to_str().unwrap();
        let config = config::merge("c", &text, cwd, &Overrides::default()).unwrap();
        let prepared = backup::prepare(&Sys::new("/"), &config);
        let volumes: Vec<String> = prepared.volumes.into_iter().map(|v| v.name).collect();
        let codes: Vec<&str> = prepared.findings.iter().map(|f| f.code).collect();
        (volumes.join(" "), codes.join(" "), prepared.size.unpacked)
    };
    let is = |volumes: &str, codes: &str, bytes| (volumes.to_owned(), codes.to_owned(), bytes);
    assert_eq!(prepared("BACKUP_DEFINITION=b.yml\n"), is("v", "", 5));
    assert_eq!(prepared("BACKUP_DIRECTORIES=data\n"), is("data", "", 5));
    assert_eq!(
        prepared("BACKUP_DEFINITION=b.yml\nBACKUP_DIRECTORIES=data\n"),
        is("v", "backup-unused", 5)
    );
    assert_eq!(
        prepared("BACKUP_SCRIPT=s\nBACKUP_DEFINITION=b.yml\nBACKUP_DIRECTORIES=data\n"),
        is("", "backup-unused backup-unused", 0)
    );
    assert_eq!(prepared(""), is("", "backup-archive", 0));
    assert_eq!(prepared("BACKUP_FILE=none.tgz\n"), is("", "", 0));
    assert_eq!(
        prepared("BACKUP_DEFINITION=gone.yml\n"),
        is("", "backup-definition", 0)
    );
}
