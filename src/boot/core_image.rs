//! A GRUB core for BIOS machines that needs no file system and no partition table: its kernel and
//! its initramfs are absolute sectors of the disk. With it in place, a disk that is overwritten in
//! part still starts stage 2, which goes on.
//!
//! Pure: texts, and the few numbers in GRUB's own images that say where the next piece lies.
//! [`crate::engine`] runs grub-mkimage and writes the pieces. The numbers are those of
//! `include/grub/i386/pc/boot.h` and `grub-core/boot/i386/pc/{boot,diskboot}.S` of GRUB 2.

use super::grub_entry::quote;
use crate::handover::Extent;

/// Where the core looks for its configuration: in a small archive inside of itself.
pub const PREFIX: &str = "(memdisk)/boot/grub";

/// Bytes to set aside for the core on the disk; it has some 140 KiB.
pub const CORE_BYTES: u64 = 512 << 10;

/// Bytes of a disk sector, for a BIOS.
const SECTOR: u64 = 512;

/// In boot.img: the sector of the core (u64), the BIOS drive it is on, and a jump around a
/// correction of that drive.
const KERNEL_SECTOR: usize = 0x5c;
const BOOT_DRIVE: usize = 0x64;
const DRIVE_CHECK: usize = 0x66;

/// Bytes of code in sector 0; the disk's signature and the partition table follow.
const CODE: usize = 440;

/// In the core's first sector: the sectors that follow it (u64 start, u16 count, u16 segment).
const BLOCK_LIST: usize = 512 - 12;

/// The segment that the core is loaded to behind its first sector.
const SEGMENT: u16 = 0x820;

/// Why a core can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// boot.img is not what GRUB 2 makes.
    #[error("boot.img of GRUB is not of the known kind: {0}")]
    BootImage(&'static str),
    /// What grub-mkimage made is not what GRUB 2 makes.
    #[error("the core that grub-mkimage made is not of the known kind: {0}")]
    Core(&'static str),
    /// It does not fit.
    #[error("the core of GRUB has {bytes} bytes, and there is room for {room}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// Room where it is to be put, in bytes.
        room: u64,
    },
}

/// The core's configuration.
///
/// A file made of several runs of sectors is read wrongly by GRUB 2.06 when a read crosses from
/// one into the next, so the kernel has to be one run; of the initramfs each run is a file of its
/// own, and the kernel gets them one behind the other.
pub fn config(kernel: Extent, initramfs: &[Extent], arguments: &[String]) -> String {
    let runs: Vec<String> = initramfs.iter().copied().map(run).collect();
    start(&run(kernel), &runs.join(" "), arguments)
}

/// What starts the kernel and the initramfs, as GRUB names them, and tries again if it can't.
pub(super) fn start(kernel: &str, initramfs: &str, arguments: &[String]) -> String {
    let words: Vec<String> = arguments.iter().map(|word| quote(word)).collect();
    format!(
        "{}echo 'balena-migrate: the migration was cut off, it goes on ...'\n\
         if linux {kernel} {}; then\n\
         \tif initrd {initramfs}; then boot; fi\n\
         fi\n\
         echo 'balena-migrate: stage 2 could not be read from the disk; trying again.'\n\
         sleep 10\n\
         reboot\n",
        serial(arguments),
        words.join(" "),
    )
}

/// A run of sectors as GRUB names it; `cmdpath` is the disk that the BIOS has booted from.
fn run(extent: Extent) -> String {
    let (start, sectors) = (extent.start / SECTOR, extent.bytes / SECTOR);
    format!("${{cmdpath}}{start}+{sectors}")
}

/// GRUB speaks on the serial line that the kernel has as a console, if it has one.
fn serial(arguments: &[String]) -> String {
    let console = arguments.iter().find_map(|argument| {
        let options = argument.strip_prefix("console=ttyS")?;
        let (unit, mode) = options.split_once(',').unwrap_or((options, "115200"));
        let speed = mode.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((unit.parse::<u8>().ok()?, speed.parse::<u32>().ok()?))
    });
    match console {
        Some((unit, speed)) => {
            format!("serial --unit={unit} --speed={speed}\nterminal_output console serial\n")
        }
        None => String::new(),
    }
}

/// The archive inside of the core, as grub-mkimage takes it.
pub fn memdisk(config: &str) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(config.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "boot/grub/grub.cfg", config.as_bytes())?;
    archive.into_inner()
}

/// Tells the core, which will lie in `place` of the disk, where its own rest is; gives it padded
/// to whole sectors.
pub fn settle(mut core: Vec<u8>, place: Extent) -> Result<Vec<u8>, CoreError> {
    core.resize(core.len().next_multiple_of(SECTOR as usize), 0);
    let sectors = core.len() / SECTOR as usize;
    let list = core
        .get(BLOCK_LIST..SECTOR as usize)
        .ok_or(CoreError::Core("it is shorter than a sector"))?;
    let le16 = |at: usize| u16::from_le_bytes([list[at], list[at + 1]]);
    if le16(10) != SEGMENT || usize::from(le16(8)) + 1 != sectors {
        return Err(CoreError::Core(
            "its first sector has no list of the others",
        ));
    }
    if core.len() as u64 > place.bytes {
        return Err(CoreError::TooLarge {
            bytes: core.len() as u64,
            room: place.bytes,
        });
    }
    let rest = place.start / SECTOR + 1;
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&rest.to_le_bytes());
    Ok(core)
}

/// The code for the disk's first sector that starts the core in `place`.
pub fn boot_code(boot_img: &[u8], place: Extent) -> Result<Vec<u8>, CoreError> {
    if boot_img.len() != SECTOR as usize || boot_img[510..] != [0x55, 0xaa] {
        return Err(CoreError::BootImage("it is no boot sector"));
    }
    let mut code = boot_img[..CODE].to_vec();
    if code[KERNEL_SECTOR..KERNEL_SECTOR + 8] != 1u64.to_le_bytes() || code[BOOT_DRIVE] != 0xff {
        return Err(CoreError::BootImage("it does not start a core in sector 1"));
    }
    let sector = place.start / SECTOR;
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&sector.to_le_bytes());
    // As grub-install does for hard disks: some BIOSes name the drive wrongly, and the code
    // behind the jump puts that right.
    code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Extent = Extent {
        start: 3 << 30,
        bytes: CORE_BYTES,
    };

    /// As grub-mkimage 2.06 makes it, with zeros for code.
    fn core(bytes: usize) -> Vec<u8> {
        let mut core = vec![0; bytes];
        core[500..508].copy_from_slice(&2u64.to_le_bytes());
        let sectors = bytes.div_ceil(512) as u16;
        core[508..510].copy_from_slice(&(sectors - 1).to_le_bytes());
        core[510..512].copy_from_slice(&SEGMENT.to_le_bytes());
        core
    }

    fn boot_img() -> Vec<u8> {
        let mut image = vec![0x11; 512];
        image[KERNEL_SECTOR..BOOT_DRIVE].copy_from_slice(&1u64.to_le_bytes());
        image[BOOT_DRIVE] = 0xff;
        image[510..].copy_from_slice(&[0x55, 0xaa]);
        image
    }

    #[test]
    fn kernel_and_initramfs_are_named_by_their_sectors() {
        let extent = |start: u64, bytes: u64| Extent { start, bytes };
        let arguments = ["console=tty0", "console=ttyS1,9600n8", "a=b c"].map(str::to_owned);
        let initramfs = [extent(1 << 20, 8192), extent(9 << 20, 512)];
        let config = config(extent(2 << 20, 1024), &initramfs, &arguments);
        assert!(
            config.starts_with("serial --unit=1 --speed=9600\n"),
            "{config}"
        );
        let wanted = "if linux ${cmdpath}4096+2 console=tty0 console=ttyS1,9600n8 'a=b c'; then\n\
                      \tif initrd ${cmdpath}2048+16 ${cmdpath}18432+1; then boot; fi\n";
        assert!(config.contains(wanted), "{config}");
    }

    #[test]
    fn without_a_serial_console_none_is_opened() {
        let arguments = ["console=tty0".to_owned()];
        assert_eq!(serial(&arguments), "");
        assert_eq!(
            serial(&["console=ttyS0".to_owned()])
                .lines()
                .next()
                .unwrap(),
            "serial --unit=0 --speed=115200"
        );
    }

    #[test]
    fn the_core_knows_where_its_rest_is() {
        let settled = settle(core(1000), PLACE).unwrap();
        assert_eq!(settled.len(), 1024);
        let rest = u64::from_le_bytes(settled[500..508].try_into().unwrap());
        assert_eq!(rest, (3 << 30) / 512 + 1);
    }

    #[test]
    fn a_core_of_another_kind_is_refused() {
        let mut strange = core(1000);
        strange[510] = 0;
        for core in [strange, core(CORE_BYTES as usize + 1), vec![0; 100]] {
            assert!(settle(core, PLACE).is_err());
        }
    }

    #[test]
    fn the_boot_code_starts_the_core() {
        let code = boot_code(&boot_img(), PLACE).unwrap();
        assert_eq!(code.len(), 440);
        let sector = u64::from_le_bytes(code[0x5c..0x64].try_into().unwrap());
        assert_eq!(sector, (3 << 30) / 512);
        assert_eq!(code[0x66..0x68], [0x90, 0x90]);
    }

    #[test]
    fn a_boot_image_of_another_kind_is_refused() {
        let mut other_sector = boot_img();
        other_sector[KERNEL_SECTOR] = 2;
        for image in [boot_img()[..511].to_vec(), vec![0; 512], other_sector] {
            assert!(boot_code(&image, PLACE).is_err());
        }
    }
}
