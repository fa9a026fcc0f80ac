//! The reference of settings and options, made from the tables.
//!
//! `migratecfg/REFERENCE.md` is its output; a test compares them.

use super::sample::wrap;
use super::settings::{RETIRED, SETTINGS, Setting};

/// Lines of prose are broken here.
const WIDTH: usize = 100;

/// The text of `REFERENCE.md`. `options` are the options of the command line that set nothing in
/// the file, and `retired_options` those of the older tools that are refused, each with what to say.
pub fn reference(options: &[(&str, &str)], retired_options: &[(&str, &str)]) -> String {
    let mut text = String::from(
        "# Settings and options\n\n\
         Made from the tables that the program uses, by `BLESS=1 cargo test --test config`.\n\n\
         `balena-migrate.conf` has `NAME=value` in shell syntax and is read, never run. An option of \
         the\ncommand line wins over the file. A blank value is the default, or none where it says \
         so. Relative\nnames start at HOME_DIR.\n\n",
    );
    text.push_str("| setting | default | option |\n|---|---|---|\n");
    for setting in SETTINGS {
        text.push_str(&format!(
            "| [{name}](#{anchor}) | {} | {} |\n",
            code(setting.default),
            code(setting.flag.unwrap_or_default()),
            name = setting.name,
            anchor = setting.name.to_lowercase(),
        ));
    }
    for setting in SETTINGS {
        describe(setting, &mut text);
    }
    text.push_str("\n## Options that are no settings\n\n");
    items(options, &mut text);
    text.push_str("\n## Names of the older tools that are refused\n\n");
    items(RETIRED, &mut text);
    items(retired_options, &mut text);
    text
}

fn describe(setting: &Setting, text: &mut String) {
    text.push_str(&format!("\n## {}\n\n", setting.name));
    paragraph(setting.doc, text);
    text.push_str(&format!("\n- values: {}\n", setting.syntax));
    match (setting.required, setting.default) {
        (true, _) => text.push_str("- required\n"),
        (false, "") => text.push_str("- default: none\n"),
        (false, default) => text.push_str(&format!("- default: `{default}`\n")),
    }
    if let Some(flag) = setting.flag {
        text.push_str(&format!("- option: `{flag}`\n"));
    }
}

fn items(rows: &[(&str, &str)], text: &mut String) {
    for (name, what) in rows {
        let lines = wrap(&format!("- `{name}`: {what}"), WIDTH - 2);
        text.push_str(&lines.join("\n  "));
        text.push('\n');
    }
}

fn paragraph(prose: &str, text: &mut String) {
    for line in wrap(prose, WIDTH) {
        text.push_str(&line);
        text.push('\n');
    }
}

fn code(value: &str) -> String {
    match value {
        "" => String::new(),
        value => format!("`{value}`"),
    }
}
