//! Findings and plan as a person reads them, in 80 columns, and the plan as JSON.

use serde_json::{Value, json};

use super::summary::Grows;
use super::{Plan, Summary};
use crate::finding::Finding;

const COLUMNS: usize = 80;

/// Width of the left column of the plan.
const LABEL: usize = 12;

/// A size with a unit of 1024, such as `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 10.0 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// The findings, errors first, each with what to do.
pub fn findings(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.severity);
    let mut text = String::new();
    for finding in sorted {
        let head = format!("{}[{}]: ", finding.severity, finding.code);
        text.push_str(&wrap(&format!("{head}{}", finding.sentence()), "", "  "));
        text.push_str(&wrap(&finding.remedy, "  → ", "    "));
    }
    text
}

/// The plan.
pub fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    for (label, value) in rows(&plan.summary) {
        let first = format!("{label:<LABEL$}");
        text.push_str(&wrap(&value, &first, &" ".repeat(LABEL)));
    }
    text.push_str("\nsteps\n");
    for (number, step) in (1..).zip(&plan.work.steps) {
        text.push_str(&wrap(
            &step.describe(),
            &format!("  {number:>2}. "),
            "      ",
        ));
        text.push_str(&wrap(&step.describe_undo(), "      undo: ", "            "));
    }
    text
}

/// Label and text of each row; a label is empty where a row goes on.
fn rows(summary: &Summary) -> Vec<(&'static str, String)> {
    let disk = &summary.disk;
    let image = &summary.image;
    let mut rows = vec![
        (
            "machine",
            format!("{}, {}", summary.machine, summary.system),
        ),
        (
            "disk",
            [
                Some(format!("{}: {}", disk.name, size(disk.bytes))),
                disk.model.clone(),
                disk.serial
                    .as_ref()
                    .map(|serial| format!("serial {serial}")),
                Some(disk.table.clone()),
            ]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", "),
        ),
    ];
    for part in &disk.partitions {
        rows.push(("", part.clone()));
    }
    rows.push((
        "",
        match summary.pretend {
            true => "NOT overwritten: this is a rehearsal".to_owned(),
            false => "EVERYTHING on this disk is overwritten".to_owned(),
        },
    ));
    if let Some(old_system) = &summary.old_system {
        rows.push(("old system", old_system.clone()));
    }
    rows.push(("image", image.path.clone()));
    rows.push((
        "",
        format!(
            "{} for {}, {}, unpacks to {}",
            image.name.as_deref().unwrap_or("an unnamed system"),
            image.device_type.as_deref().unwrap_or("an unnamed device"),
            size(image.bytes),
            size(image.unpacked_bytes)
        ),
    ));
    rows.push((
        "",
        format!(
            "waits {} while the disk is overwritten: {}",
            summary.payload_waits_in.in_words(),
            summary.payload_waits_because
        ),
    ));
    rows.push((
        "power cut",
        match &summary.power_cut_is_fatal {
            None if summary.old_system.is_some() => {
                "at any time: the old system, or the new system".to_owned()
            }
            None => {
                "at any time: the old system, or the flash goes on at the next boot, or the new \
                     system"
                    .to_owned()
            }
            Some(reason) => format!(
                "before the disk is overwritten: the old system; WHILE IT IS OVERWRITTEN: NOTHING \
                 BOOTS, since {reason}"
            ),
        },
    ));
    rows.push((
        "memory",
        format!(
            "stage 2 needs {}, this machine has {}",
            size(summary.memory_needed),
            size(summary.memory_total)
        ),
    ));
    if let Some(backup) = &summary.backup {
        let grows = match summary.data_grows {
            Grows::No => String::new(),
            Grows::To(bytes) => format!(", which grows to {} MiB", bytes.div_ceil(1 << 20)),
            Grows::AsNeeded => ", which grows as needed".to_owned(),
        };
        let row = format!("{backup} → resin-data:/backup.tgz{grows}");
        rows.push(("backup", row));
    }
    for (number, file) in summary.new_files.iter().enumerate() {
        let label = if number == 0 { "new files" } else { "" };
        rows.push((label, format!("{} ← {}", file.place, file.from)));
    }
    if let Some(new_grub) = &summary.new_grub {
        rows.push(("boot loader", new_grub.clone()));
    }
    rows.push(("boot", summary.boot.clone()));
    if let Some(by) = &summary.initramfs_by {
        rows.push(("initramfs", by.clone()));
    }
    if let Some(drive) = &summary.log_drive {
        rows.push(("log", format!("stage 2 writes its log to {drive}")));
    }
    rows
}

/// Wraps `text` to the width of a terminal, with a line break at its end.
fn wrap(text: &str, first: &str, rest: &str) -> String {
    let options = textwrap::Options::new(COLUMNS)
        .initial_indent(first)
        .subsequent_indent(rest)
        .break_words(false)
        // A path or a GUID that is broken at a hyphen can't be copied.
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options) + "\n"
}

/// The plan for scripts.
pub fn json(plan: &Plan, findings: &[Finding]) -> Value {
    let steps: Vec<Value> = plan
        .work
        .steps
        .iter()
        .map(|step| json!({"do": step.describe(), "undo": step.describe_undo()}))
        .collect();
    json!({
        "findings": findings,
        "summary": plan.summary,
        "steps": steps,
        "armed": plan.work.armed,
    })
}
