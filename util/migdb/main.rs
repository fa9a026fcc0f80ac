//! `migdb`: migrates a fleet from the operator's machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    balena_migrate::fleet::askpass::answer().unwrap_or_else(balena_migrate::fleet::cli::main)
}
