//! The table of machines and what became of them: one line a scenario that ran. `util/matrix` prints it,
//! and `util/test --all-vms` puts it into the README.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use super::Vm;
use super::cache;
use super::guest::Root;

/// The version of the GRUB that is installed in a guest; nothing where there is none.
const GRUB_VERSION: &str = "grub-mkimage --version 2> /dev/null | sed 's/.* //; s/-.*//'; true";

/// A line of the table, as far as it is known before its end.
pub struct Row {
    /// What it is, from its table to its image.
    columns: Vec<String>,
    /// When it was switched on.
    since: Instant,
}

impl Row {
    /// Of a machine that was switched on at `since` and is up, with the old system in it.
    pub fn of(
        vm: &mut Vm,
        machine: &str,
        firmware: &str,
        root: Root,
        image: &str,
        since: Instant,
    ) -> Row {
        let table = match root {
            Root::Card => "boards",
            _ => "machines",
        };
        let kernel = vm.must("uname -r");
        let grub = vm.must(GRUB_VERSION);
        let columns = [
            table,
            machine,
            kernel.trim(),
            grub.trim(),
            firmware,
            root.in_words(),
            image,
        ];
        Row {
            columns: columns.map(str::to_owned).to_vec(),
            since,
        }
    }

    /// Adds it to `matrix.tsv` among the logs.
    pub fn add(self, outcome: &str) {
        let path = cache::subdir("logs").join("matrix.tsv");
        let seconds = self.since.elapsed().as_secs();
        let line = format!("{}\t{outcome}\t{seconds}\n", self.columns.join("\t"));
        eprintln!("bench: {}", line.trim_end().replace('\t', " | "));
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
    }
}
