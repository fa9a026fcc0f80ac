//! Replays the corpus of the fuzz targets, and the fixtures with pieces cut out and bytes flipped.
//! No parser may panic, whatever it reads.

#[path = "fuzz/parsers.rs"]
mod parsers;

use std::fs;
use std::path::{Path, PathBuf};

use parsers::PARSERS;

/// Every file below `folder`.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

/// What a parser of text has to bear that was damaged on its way: deterministic, so that a failure
/// comes back.
fn damaged(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![bytes.to_vec()];
    for part in 1..8 {
        let at = bytes.len() * part / 8;
        all.push(bytes[..at].to_vec());
        all.push(bytes[at..].to_vec());
        let mut flipped = bytes.to_vec();
        if let Some(byte) = flipped.get_mut(at) {
            *byte ^= 1 << (part % 8);
        }
        all.push(flipped);
        all.push([&bytes[..at], &bytes[at / 2..]].concat());
    }
    all
}

#[test]
fn every_parser_bears_its_corpus() {
    for (name, parse) in PARSERS {
        let corpus = files_below(&Path::new("tests/fuzz/corpus").join(name));
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for file in corpus {
            parse(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn every_parser_bears_the_fixtures_of_all_others_damaged() {
    let fixtures = files_below(Path::new("tests/fixtures"));
    assert!(fixtures.len() > 20, "{fixtures:?}");
    for file in fixtures {
        for bytes in damaged(&fs::read(&file).unwrap()) {
            for (_, parse) in PARSERS {
                parse(&bytes);
            }
        }
    }
}

#[test]
fn every_parser_is_a_fuzz_target() {
    let manifest = fs::read_to_string("tests/fuzz/Cargo.toml").unwrap();
    for (name, _) in PARSERS {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
    }
}
