//! Reads os-release, the file in which a distribution names itself. Called by the collector.

use super::Os;

/// The fields of an os-release file; those that are missing are empty.
///
/// The syntax is os-release(5): assignments as a shell would read them, without expansions.
pub(super) fn parse(text: &str) -> Os {
    let mut os = Os::default();
    for line in text.lines() {
        let Some((name, value)) = line.trim().split_once('=') else {
            continue;
        };
        let value = unquoted(value);
        match name {
            "ID" => os.id = value,
            "VERSION_ID" => os.version_id = value,
            "ID_LIKE" => os.id_like = value.split_whitespace().map(str::to_owned).collect(),
            "PRETTY_NAME" => os.pretty_name = value,
            _ => {}
        }
    }
    os
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian() {
        let os = parse(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\n\
             VERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n\
             HOME_URL=\"https://www.debian.org/\"\n",
        );
        assert_eq!(os.id, "debian");
        assert_eq!(os.version_id, "12");
        assert_eq!(os.pretty_name, "Debian GNU/Linux 12 (bookworm)");
        assert!(os.id_like.is_empty());
    }

    #[test]
    fn quotes_escapes_comments_and_lists() {
        let os = parse(
            "# ID=no\nID='linuxmint'\nID_LIKE=\"ubuntu debian\"\nPRETTY_NAME=\"a \\\"b\\\"\"",
        );
        assert_eq!(os.id, "linuxmint");
        assert_eq!(os.id_like, ["ubuntu", "debian"]);
        assert_eq!(os.pretty_name, "a \"b\"");
    }
}
