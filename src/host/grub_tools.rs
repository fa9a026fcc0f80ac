//! Finds what GRUB images can be made with on this machine. Called by the collector, and for the new
//! system's GRUB.

use super::CoreTools;
use crate::sys::Sys;

/// Programs that make an image.
const IMAGE_MAKERS: [&str; 2] = ["grub-mkimage", "grub2-mkimage"];

/// Where the packages of distributions keep the modules, a folder a platform.
const MODULE_DIRS: [&str; 3] = ["/usr/lib/grub", "/usr/lib/grub2", "/usr/share/grub2"];

/// Where programs are.
const PROGRAM_DIRS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What an image for `platform` (GRUB's name, such as `i386-pc`) with these modules can be made with.
/// `grub_dir` is where GRUB is installed. The modules of the distribution's packages come before those
/// that were installed: they are of the same version as its grub-mkimage.
pub fn image_tools(
    sys: &Sys,
    platform: &str,
    grub_dir: Option<&str>,
    modules: &[&str],
) -> Option<CoreTools> {
    let has_all = |dir: &String| {
        let modules = modules.iter().map(|name| format!("{name}.mod"));
        // Only a BIOS has boot code.
        let boot_code = platform.ends_with("-pc").then_some("boot.img");
        let images = ["kernel.img", "moddep.lst"].into_iter().chain(boot_code);
        let mut files = modules.chain(images.map(str::to_owned));
        files.all(|file| sys.exists(&format!("{dir}/{file}")))
    };
    let mut dirs = MODULE_DIRS.into_iter().chain(grub_dir);
    Some(CoreTools {
        mkimage: find_program(sys, &IMAGE_MAKERS)?,
        dir: dirs.find_map(|dir| Some(format!("{dir}/{platform}")).filter(has_all))?,
    })
}

/// The path of the first of these programs that is there.
pub fn find_program(sys: &Sys, names: &[&str]) -> Option<String> {
    names
        .iter()
        .flat_map(|name| PROGRAM_DIRS.map(|dir| format!("{dir}/{name}")))
        .find(|path| sys.exists(path))
}
