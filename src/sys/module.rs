//! Loading kernel modules, for stage 2: uncompressed `.ko` files, in the order given.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};

/// Loads the module in the file `path` with `options` such as `quirks=1 delay=2`. It is no error
/// when it is loaded already.
///
/// The kernel says ENOENT when a symbol is missing, that is, a module that had to come first.
pub fn load(path: &Path, options: &str) -> io::Result<()> {
    let file = File::open(path)?;
    let options = CString::new(options)?;
    match finit_module(&file, &options, ModuleInitFlags::empty()) {
        // Kernels before 3.8 only have the older call.
        Err(Errno::ENOSYS) => accept_loaded(init_module(&fs::read(path)?, &options)),
        loaded => accept_loaded(loaded),
    }
}

fn accept_loaded(loaded: nix::Result<()>) -> io::Result<()> {
    match loaded {
        Err(Errno::ENOENT) => Err(io::Error::other("a module that it needs is not loaded")),
        Err(Errno::EEXIST) => Ok(()),
        loaded => Ok(loaded?),
    }
}
