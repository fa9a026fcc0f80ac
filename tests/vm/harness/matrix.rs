//! The table of machines and what became of them: one line a scenario that ran, for `util/test
//! --all-vms` and the README.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use super::cache;

/// A line of the table.
pub struct Row {
    pub machine: String,
    pub firmware: String,
    pub root: String,
    pub image: String,
    pub outcome: String,
    pub took: Duration,
}

impl Row {
    /// Adds it to `matrix.tsv` among the logs.
    pub fn add(&self) {
        let path = cache::subdir("logs").join("matrix.tsv");
        let Row {
            machine,
            firmware,
            root,
            image,
            outcome,
            took,
        } = self;
        let seconds = took.as_secs();
        let line = format!("{machine}\t{firmware}\t{root}\t{image}\t{outcome}\t{seconds}\n");
        eprintln!("bench: {}", line.trim_end().replace('\t', " | "));
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
    }
}
