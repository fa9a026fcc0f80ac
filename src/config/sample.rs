//! The sample configuration, made from the table of settings.
//!
//! `migratecfg/balena-migrate-sample.conf` is its output; a test compares them.

use super::settings::{SETTINGS, Setting};

/// Lines are broken here, so that the file reads well in any terminal.
const WIDTH: usize = 78;

/// The text of `balena-migrate-sample.conf`.
pub fn sample_conf() -> String {
    let mut text = String::from(
        "# balena-migrate.conf: the settings of a migration. Copy this file to that name.\n\
         #\n\
         # NAME=value as in a shell, but the file is read, not run: no variables, no\n\
         # commands. Quote values with blanks. What is commented out has the value shown.\n",
    );
    for setting in SETTINGS {
        text.push('\n');
        describe(setting, &mut text);
    }
    text
}

fn describe(setting: &Setting, text: &mut String) {
    let mut values = format!("Values: {}.", setting.syntax);
    if let Some(flag) = setting.flag {
        values.push_str(&format!(" On the command line: {flag}."));
    }
    for paragraph in [setting.doc, &values] {
        for line in wrap(paragraph, WIDTH - 2) {
            text.push_str(&format!("# {line}\n"));
        }
    }
    // What is required has to be filled in; everything else may stay as it is.
    let comment = if setting.required { "" } else { "#" };
    let default = match setting.default.contains(' ') {
        true => format!("\"{}\"", setting.default),
        false => setting.default.to_owned(),
    };
    text.push_str(&format!("{comment}{}={default}\n", setting.name));
}

/// Breaks a paragraph at blanks into lines of at most `width` characters, as far as words allow.
pub(super) fn wrap(paragraph: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in paragraph.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}
