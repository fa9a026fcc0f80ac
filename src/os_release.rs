//! os-release, the file in which a system names itself: the old one's, and the image's.

use std::collections::BTreeMap;

use crate::shown::shown;

/// Names and values of an os-release file.
///
/// The syntax is os-release(5): assignments as a shell would read them, without expansions. Values are
/// for people too, and have no control characters.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), shown(unquoted(value))))
        .collect()
}

/// `value` without its quotes and the backslashes that escape.
fn unquoted(value: &str) -> String {
    let inner = ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(value);
    let mut plain = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => plain.extend(letters.next()),
            _ => plain.push(letter),
        }
    }
    plain
}
