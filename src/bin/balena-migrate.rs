//! The one executable: stage 2 when the kernel starts it as the first process of the initramfs,
//! the command line otherwise.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        balena_migrate::stage2::main();
    }
    balena_migrate::cli::main()
}
