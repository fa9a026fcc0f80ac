//! Lines of ours in a file that others write too: how they are told from the rest, and taken out again.
//!
//! Boot loaders put them in; an undo takes them out of a file that somebody has changed in the meantime.

use serde::{Deserialize, Serialize};

/// What marks lines of ours in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The line before those that were added.
    pub begin: String,
    /// The line behind them.
    pub end: String,
    /// What was put before lines that had to be out of the way.
    pub aside: String,
}

impl Marks {
    /// Whether a text has lines of ours.
    pub fn are_in(&self, text: &str) -> bool {
        text.lines()
            .any(|line| line.trim_end() == self.begin || line.starts_with(&self.aside))
    }

    /// The text without what is ours. `None` where that can't be told: a first line of ours without a last
    /// one.
    pub fn strip(&self, text: &str) -> Option<String> {
        let mut stripped = String::new();
        let mut inside = false;
        for line in text.split_inclusive('\n') {
            let bare = line.trim_end();
            if inside {
                inside = bare != self.end;
            } else if bare == self.begin {
                inside = true;
            } else {
                stripped.push_str(line.strip_prefix(&self.aside).unwrap_or(line));
            }
        }
        (!inside).then_some(stripped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        Marks {
            begin: "# ours".into(),
            end: "# theirs".into(),
            aside: "#aside# ".into(),
        }
    }

    #[test]
    fn only_what_is_marked_goes() {
        let text = "a=1\n#aside# initramfs x\r\n# ours\r\nb=2\n# theirs\nc=3\n# ours\n# theirs";
        assert!(marks().are_in(text));
        let rest = marks().strip(text).unwrap();
        assert_eq!(rest, "a=1\ninitramfs x\r\nc=3\n");
        assert!(!marks().are_in(&rest));
        assert_eq!(marks().strip(&rest).unwrap(), rest);
    }

    #[test]
    fn a_block_without_an_end_is_not_guessed_at() {
        assert_eq!(marks().strip("a=1\n# ours\nb=2\n"), None);
    }
}
