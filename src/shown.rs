//! Text that somebody else wrote, for a line on a terminal: a file name, a label, a name in an image.
//!
//! Called where such a text goes into a message or into what is kept of it for one.

use std::path::Path;

/// The text on one line, and without anything that a terminal would take for a command.
pub fn shown(text: impl AsRef<Path>) -> String {
    let text = text.as_ref().display().to_string();
    let mut line = String::new();
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn nothing_in_it_commands_a_terminal() {
        assert_eq!(shown("größe 1"), "größe 1");
        assert_eq!(shown("a\u{1b}[2Jb\nc\u{9b}d"), "a\\u{1b}[2Jb\\nc\\u{9b}d");
    }
}
