//! The fleet for Prometheus, in its text format.

use std::collections::BTreeMap;

use crate::fleet::view::View;

/// Counts by state and by the reason of a failure.
pub fn metrics(view: &View) -> String {
    let mut text =
        String::from("# HELP migdb_units Units of the fleet by state.\n# TYPE migdb_units gauge\n");
    for (state, count) in &view.counts {
        text.push_str(&format!("migdb_units{{state=\"{state}\"}} {count}\n"));
    }
    let mut failures: BTreeMap<&str, usize> = BTreeMap::new();
    for unit in &view.units {
        if let (super::State::Fail, code) = (unit.state, &unit.fail_code) {
            *failures
                .entry(code.as_deref().unwrap_or("unknown"))
                .or_default() += 1;
        }
    }
    text.push_str(
        "# HELP migdb_failed_units Units that failed, by reason.\n# TYPE migdb_failed_units gauge\n",
    );
    for (code, count) in failures {
        text.push_str(&format!(
            "migdb_failed_units{{code=\"{}\"}} {count}\n",
            label(code)
        ));
    }
    text.push_str(&format!(
        "# HELP migdb_done_last_hour Units that came online in the last hour.\n\
         # TYPE migdb_done_last_hour gauge\nmigdb_done_last_hour {}\n",
        view.done_per_hour
    ));
    text
}

fn label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
