//! A line of a list, as `sha256sum` and `md5sum` write it. Called by [`super`].

use super::Kind;

/// Checksum and name of a line of `sha256sum` or `md5sum`: a backslash before all of it when the name is
/// escaped, the digits, a space, a space for text or `*` for binary, the name.
pub(super) fn parse(kind: Kind, line: &str) -> Option<(String, String)> {
    let (is_escaped, line) = match line.strip_prefix('\\') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (sum, rest) = line.split_at_checked(kind.digits())?;
    let name = rest
        .strip_prefix("  ")
        .or_else(|| rest.strip_prefix(" *"))
        .filter(|name| !name.is_empty())?;
    if !sum.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let name = match is_escaped {
        true => unescape(name)?,
        false => name.to_owned(),
    };
    Some((sum.to_ascii_lowercase(), name))
}

fn unescape(name: &str) -> Option<String> {
    let mut plain = String::new();
    let mut chars = name.chars();
    while let Some(next) = chars.next() {
        plain.push(match next {
            '\\' => match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                '\\' => '\\',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

/// A name as it stands in a line.
pub(super) fn escape(name: &str) -> String {
    name.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
}

/// A line as `sha256sum` writes it.
pub(super) fn line(sum: &str, name: &str) -> String {
    let escaped = escape(name);
    match escaped == name {
        true => format!("{sum}  {name}\n"),
        false => format!("\\{sum}  {escaped}\n"),
    }
}

/// A line as [`str::lines`] gives it.
pub(super) fn without_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn parsed(line: &str) -> Option<String> {
        parse(Kind::Sha256, line).map(|(sum, name)| {
            assert_eq!(sum, SUM);
            name
        })
    }

    #[test]
    fn lines_of_sha256sum_are_read() {
        let upper = SUM.to_uppercase();
        for (line, name) in [
            (format!("{SUM}  image.gz"), "image.gz"),
            (format!("{upper} *a b/image.gz"), "a b/image.gz"),
            (format!("{SUM}  *star"), "*star"),
            (format!("{SUM}    two spaces"), "  two spaces"),
            (format!("\\{SUM}  a\\\\b\\nc\\rd"), "a\\b\nc\rd"),
            (format!("{SUM}  a\\b"), "a\\b"),
        ] {
            assert_eq!(parsed(&line).as_deref(), Some(name), "{line}");
        }
    }

    #[test]
    fn other_lines_are_not() {
        for line in [
            format!("{SUM} image"),
            format!("{SUM}  "),
            SUM.to_owned(),
            SUM[1..].to_owned() + "  image",
            format!("{}x  image", &SUM[1..]),
            format!("\\{SUM}  a\\x"),
            "ü".repeat(70),
        ] {
            assert_eq!(parsed(&line), None, "{line}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for name in ["plain", "two words", "a\\b", "a\nb\r", "\\"] {
            let line = line(SUM, name);
            assert_eq!(parsed(line.trim_end_matches('\n')).as_deref(), Some(name));
        }
    }
}
