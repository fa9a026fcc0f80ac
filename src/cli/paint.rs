//! Colour for a page of findings and plan, on a terminal that wants it.
//!
//! The page is laid out before and only painted here, so that it reads the same without colour.

use anstyle::{AnsiColor, Style};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const LABEL: Style = Style::new().bold();
const ASIDE: Style = Style::new().dimmed();

/// The same page in colour: heads of findings, labels of the plan, what is lost, what undo does.
pub fn page(plain: &str) -> String {
    plain.split_inclusive('\n').map(line).collect()
}

fn line(line: &str) -> String {
    let text = line.trim_end();
    let inner = text.trim_start();
    let head = text.split(": ").next().unwrap_or_default();
    if text.starts_with("error[") {
        return painted(ERROR, head, line);
    }
    if text.starts_with("warning[") {
        return painted(WARNING, head, line);
    }
    if inner.starts_with("EVERYTHING on this disk") {
        return painted(ERROR, inner, line);
    }
    if inner.starts_with("undo: ") {
        return painted(ASIDE, inner, line);
    }
    // A label stands in the first column, and two blanks or the end of the line follow it.
    match text.split("  ").next() {
        Some(label) if label.starts_with(|c: char| c.is_ascii_lowercase()) => {
            painted(LABEL, label, line)
        }
        _ => line.to_owned(),
    }
}

/// The line with its first `part` painted.
fn painted(style: Style, part: &str, line: &str) -> String {
    line.replacen(part, &format!("{style}{part}{style:#}"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "warning[os-untested]: Debian 9 is not among the systems that\n  \
                        this version was tested on\n  → rehearse first\n\n\
                        disk        sda: 112 GiB\n            \
                        EVERYTHING on this disk is overwritten\n\nsteps\n   1. write /x\n      \
                        undo: remove /x\n";

    #[test]
    fn heads_and_labels_are_painted_and_nothing_moves() {
        let painted = page(PAGE);
        assert!(painted.starts_with("\u{1b}[1m\u{1b}[33mwarning[os-untested]\u{1b}[0m: Debian"));
        assert!(painted.contains("\n\u{1b}[1mdisk\u{1b}[0m        sda"));
        assert!(painted.contains("\u{1b}[31mEVERYTHING on this disk is overwritten\u{1b}[0m\n"));
        assert!(painted.contains("\u{1b}[2mundo: remove /x\u{1b}[0m\n"));
        let mut plain = painted;
        for code in [
            "\u{1b}[0m",
            "\u{1b}[1m",
            "\u{1b}[2m",
            "\u{1b}[31m",
            "\u{1b}[33m",
        ] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, PAGE);
    }
}
