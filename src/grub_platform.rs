//! What GRUB calls the machines that it starts, and the modules of the images of it that start stage 2: the host
//! snapshot tells whether they are there, and the engine makes the images.

/// A BIOS.
pub const BIOS: &str = "i386-pc";

/// UEFI firmware of so many bits.
pub fn efi(bits: u32) -> &'static str {
    match bits {
        32 => "i386-efi",
        _ => "x86_64-efi",
    }
}

/// The modules of GRUB in the core that brings stage 2 back: disks by the BIOS, an archive for its
/// configuration, and the commands in it.
pub const BIOS_MODULES: [&str; 11] = [
    "biosdisk", "memdisk", "tar", "normal", "linux", "boot", "echo", "sleep", "reboot", "serial",
    "terminal",
];

/// Those on the EFI system partition that does so: it reads its own FAT, and starts Linux.
pub const EFI_MODULES: [&str; 10] = [
    "part_msdos",
    "fat",
    "normal",
    "linux",
    "boot",
    "echo",
    "sleep",
    "reboot",
    "serial",
    "terminal",
];
