//! Paths of the configuration, made absolute as text.

/// `path` as seen from the absolute folder `base`: absolute, without `.`, `..` and doubled slashes.
///
/// `..` goes up in the text; symbolic links are the business of whoever opens the file.
pub fn absolute(base: &str, path: &str) -> String {
    let whole = match path.starts_with('/') {
        true => path.to_string(),
        false => format!("{base}/{path}"),
    };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::absolute;

    #[test]
    fn paths_are_made_absolute() {
        for (base, path, expected) in [
            ("/home/me", "os.img.gz", "/home/me/os.img.gz"),
            ("/home/me", "./", "/home/me"),
            ("/home/me/", "a//b/./c", "/home/me/a/b/c"),
            ("/home/me", "../you/x", "/home/you/x"),
            ("/home/me", "/srv/x", "/srv/x"),
            ("/", "../x", "/x"),
            ("/", ".", "/"),
        ] {
            assert_eq!(absolute(base, path), expected, "{base} + {path}");
        }
    }
}
