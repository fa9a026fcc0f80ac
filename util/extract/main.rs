//! `extract` as a program of its own, for machines that only prepare a migration.

use std::process::ExitCode;

fn main() -> ExitCode {
    balena_migrate::cli::extract_main()
}
