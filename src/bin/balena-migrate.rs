//! The one executable.

use std::process::ExitCode;

fn main() -> ExitCode {
    balena_migrate::cli::main()
}
