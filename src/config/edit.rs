//! Sets keys of a configuration file in place: every other character of it stays.
//!
//! Called by `extract --config`.

use super::shell::{self, SyntaxError};

/// `text` with `name` set to `value`: where it is set last, since that counts; else below the line that
/// has it commented out, as in the sample; else at the end.
///
/// # Errors
///
/// A text that can't be read: nobody knows what a change would mean in it.
pub fn set(text: &str, name: &str, value: &str) -> Result<String, SyntaxError> {
    let assignments = shell::parse(text)?;
    let assignment = format!("{name}={}", quoted(value));
    let last = assignments.iter().rfind(|known| known.name == name);
    if let Some(last) = last {
        let mut text = text.to_owned();
        text.replace_range(last.bytes.clone(), &assignment);
        return Ok(text);
    }
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    if let Some(at) = behind_comment(text, name) {
        return Ok(format!("{}{assignment}{end}{}", &text[..at], &text[at..]));
    }
    let gap = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        end
    };
    Ok(format!("{text}{gap}{assignment}{end}"))
}

/// Where the line ends that has the name commented out.
fn behind_comment(text: &str, name: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        at += line.len();
        let comment = line.strip_prefix('#').map(str::trim_start);
        let rest = comment.and_then(|comment| comment.strip_prefix(name));
        if line.ends_with('\n') && rest.is_some_and(|rest| rest.starts_with('=')) {
            return Some(at);
        }
    }
    None
}

/// A value as a shell takes it.
pub fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./+:@%,".contains(c);
    match !value.is_empty() && value.chars().all(is_plain) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', "'\\''")),
    }
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
