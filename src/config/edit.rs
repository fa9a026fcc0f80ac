//! Sets keys of a configuration file in place: every other character of it stays.
//!
//! Called by `extract --config`.

use super::shell::{self, Assignment, SyntaxError};

/// `text` with `name` set to `value`: where it is set last, since that counts; else below the line that
/// has it commented out, as in the sample; else at the end.
///
/// # Errors
///
/// A text that can't be read: nobody knows what a change would mean in it.
pub fn set(text: &str, name: &str, value: &str) -> Result<String, SyntaxError> {
    let assignments = shell::parse(text)?;
    let assignment = format!("{name}={}", shell::quote(value));
    let last = assignments.iter().rfind(|known| known.name == name);
    if let Some(last) = last {
        let mut text = text.to_owned();
        text.replace_range(last.bytes.clone(), &assignment);
        return Ok(text);
    }
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    if let Some(at) = behind_comment(text, name, &assignments) {
        return Ok(format!("{}{assignment}{end}{}", &text[..at], &text[at..]));
    }
    let gap = end.repeat(ends_to_add(text));
    Ok(format!("{text}{gap}{assignment}{end}"))
}

/// How many line ends are missing before something new can stand at the end of the text.
fn ends_to_add(text: &str) -> usize {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    // A value may go on behind the line end; then the next line would belong to it.
    let is_continued = line.len() < text.len() && line.ends_with('\\');
    let is_open = !text.is_empty() && !text.ends_with('\n');
    usize::from(is_open) + usize::from(is_continued)
}

/// Where the line ends that has the name commented out. A value of several lines may hold a text like
/// that.
fn behind_comment(text: &str, name: &str, assignments: &[Assignment]) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let comment = line.strip_prefix('#').map(str::trim_start);
        let rest = comment.and_then(|comment| comment.strip_prefix(name));
        let is_value = || assignments.iter().any(|known| known.bytes.contains(&start));
        if line.ends_with('\n') && rest.is_some_and(|rest| rest.starts_with('=')) && !is_value() {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_set_where_it_stands_and_the_rest_stays() {
        for (before, after) in [
            ("", "IMAGE_NAME=new.gz\n"),
            ("# mine\nA=1", "# mine\nA=1\nIMAGE_NAME=new.gz\n"),
            (
                "# mine\nIMAGE_NAME=old # why\nA=1\n",
                "# mine\nIMAGE_NAME=new.gz # why\nA=1\n",
            ),
            (
                "export IMAGE_NAME='a b'; A=1\r\n",
                "export IMAGE_NAME=new.gz; A=1\r\n",
            ),
            (
                "\u{feff}IMAGE_NAME=\"a\\\nb\"\nA='ü'\n",
                "\u{feff}IMAGE_NAME=new.gz\nA='ü'\n",
            ),
            (
                "IMAGE_NAME=1\nIMAGE_NAME=2\n",
                "IMAGE_NAME=1\nIMAGE_NAME=new.gz\n",
            ),
            (
                "A=1\n# IMAGE_NAME=x\nB=2\n",
                "A=1\n# IMAGE_NAME=x\nIMAGE_NAME=new.gz\nB=2\n",
            ),
            (
                "A=1\r\n#IMAGE_NAME=x\r\nB=2\r\n",
                "A=1\r\n#IMAGE_NAME=x\r\nIMAGE_NAME=new.gz\r\nB=2\r\n",
            ),
            ("#IMAGE_NAME=x", "#IMAGE_NAME=x\nIMAGE_NAME=new.gz\n"),
            ("IMAGE_NAME=", "IMAGE_NAME=new.gz"),
            (
                "A='one\n#IMAGE_NAME=x\ntwo'\n",
                "A='one\n#IMAGE_NAME=x\ntwo'\nIMAGE_NAME=new.gz\n",
            ),
            (
                "A=1\\\n#IMAGE_NAME=x\n# IMAGE_NAME=y\n",
                "A=1\\\n#IMAGE_NAME=x\n# IMAGE_NAME=y\nIMAGE_NAME=new.gz\n",
            ),
            ("A=1\\\n", "A=1\\\n\nIMAGE_NAME=new.gz\n"),
            ("A=1\\\r", "A=1\\\r\n\nIMAGE_NAME=new.gz\n"),
        ] {
            assert_eq!(set(before, "IMAGE_NAME", "new.gz").unwrap(), after);
            assert_eq!(set(after, "IMAGE_NAME", "new.gz").unwrap(), after);
        }
    }

    #[test]
    fn a_value_is_read_as_it_was_meant() {
        for value in [
            "plain.gz",
            "two words",
            "it's",
            "",
            "~/x",
            "$HOME",
            "#",
            "ä",
        ] {
            let text = set("", "IMAGE_NAME", value).unwrap();
            assert_eq!(shell::parse(&text).unwrap()[0].value, value);
        }
    }

    #[test]
    fn a_text_that_can_not_be_read_is_not_changed() {
        assert!(set("IMAGE_NAME='x\n", "IMAGE_NAME", "y").is_err());
    }
}
