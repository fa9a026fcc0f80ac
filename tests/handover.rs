//! The hand-over document: what was written is read, and nothing else is.

use balena_migrate::handover::{Handover, HandoverError};

/// A real one, from a golden plan.
fn document() -> String {
    let plan = std::fs::read_to_string("tests/plans/debian-12-bios.txt").unwrap();
    let (_, rest) = plan.split_once("--- hand-over\n").unwrap();
    let (document, _) = rest.split_once("\n--- ").unwrap();
    format!("{document}\n")
}

#[test]
fn what_is_written_is_read_back_the_same() {
    let handover = Handover::parse(document().as_bytes()).unwrap();
    assert_eq!(
        String::from_utf8(handover.to_bytes()).unwrap(),
        document(),
        "and writing it again changes nothing"
    );
}

#[test]
fn another_version_is_named_as_such_whatever_else_differs() {
    let newer = document()
        .replace("\"version\": 4", "\"version\": 5")
        .replace("\"pretend\"", "\"a_field_of_the_future\"");
    let error = Handover::parse(newer.as_bytes()).unwrap_err();
    assert!(matches!(error, HandoverError::Version { found: 5 }));
    assert_eq!(
        error.to_string(),
        "the hand-over has version 5, this program reads version 4"
    );
}

#[test]
fn a_field_that_nobody_knows_is_refused() {
    let strange = document().replace("\"pretend\": false", "\"pretend\": false, \"force\": true");
    let error = Handover::parse(strange.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("unknown field `force`"), "{error}");
}

#[test]
fn no_truncated_document_is_taken_for_a_whole_one() {
    let document = document();
    let end = document.trim_end().len();
    for len in (0..end).filter(|len| document.is_char_boundary(*len)) {
        assert!(
            Handover::parse(&document.as_bytes()[..len]).is_err(),
            "{len}"
        );
    }
}
