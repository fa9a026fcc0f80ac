//! Loading kernel modules, for stage 2: uncompressed `.ko` files, in the order given.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};

/// Loads the module in the file `path`. It is no error when it is loaded already.
pub fn load(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        // Kernels before 3.8 only have the older call.
        Err(Errno::ENOSYS) => accept_loaded(init_module(&fs::read(path)?, c"")),
        loaded => accept_loaded(loaded),
    }
}

fn accept_loaded(loaded: nix::Result<()>) -> io::Result<()> {
    match loaded {
        Err(Errno::EEXIST) => Ok(()),
        loaded => Ok(loaded?),
    }
}
