//! Which of the kernel's messages tell that a disk, its bus or its file system is in trouble.
//!
//! Called by the log, which keeps them: they say why a disk failed, where an error number can't.

use super::machine::Message;

/// What begins the messages of drivers and file systems, up to a warning (level 4).
const SPEAKERS: [&str; 17] = [
    "ata",
    "sd",
    "scsi",
    "nvme",
    "mmc",
    "vd",
    "xvd",
    "virtio_blk",
    "blk_",
    "usb-storage",
    "uas",
    "EXT4-fs",
    "EXT3-fs",
    "EXT2-fs",
    "JBD2",
    "FAT-fs",
    "Aborting journal",
];

/// What is an error of a disk at whatever level it is said.
const PHRASES: [&str; 12] = [
    "I/O error",
    "medium error",
    "Medium Error",
    "critical target error",
    "critical medium error",
    "Unrecovered read error",
    "lost async page write",
    "rejecting I/O",
    "exception Emask",
    "failed command",
    "hard resetting link",
    "Remounting filesystem read-only",
];

/// Said as errors by healthy disks.
const HARMLESS: [&str; 4] = [
    "Assuming drive cache",
    "No Caching mode page found",
    "Asking for cache data failed",
    "Direct firmware load",
];

/// A warning; larger numbers are less bad.
const WARNING: u8 = 4;

/// Whether `message` tells of trouble with a disk.
pub fn is_one(message: &Message) -> bool {
    let text = message.text.as_str();
    let phrase = PHRASES.iter().any(|phrase| text.contains(phrase));
    let speaker = SPEAKERS.iter().any(|speaker| text.starts_with(speaker));
    let harmless = HARMLESS.iter().any(|phrase| text.contains(phrase));
    phrase || (speaker && message.level <= WARNING && !harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(level: u8, text: &str) -> bool {
        is_one(&Message {
            number: 0,
            level,
            micros: 0,
            text: text.to_owned(),
        })
    }

    #[test]
    fn trouble_of_disks_is_told_from_everything_else() {
        for (level, text) in [
            (
                3,
                "I/O error, dev vda, sector 2048 op 0x1:(WRITE) flags 0x0",
            ),
            (
                6,
                "sd 2:0:0:0: [sda] tag#3 Sense Key : Medium Error [current]",
            ),
            (
                3,
                "ata1.00: exception Emask 0x0 SAct 0x8 SErr 0x0 action 0x6 frozen",
            ),
            (4, "nvme nvme0: I/O 23 QID 1 timeout, aborting"),
            (4, "mmc0: Timeout waiting for hardware interrupt."),
            (
                2,
                "EXT4-fs error (device sda1): ext4_lookup:1855: inode #2: bad entry",
            ),
            (
                3,
                "Buffer I/O error on dev sdb, logical block 0, async page read",
            ),
        ] {
            assert!(said(level, text), "{text}");
        }
        for (level, text) in [
            (6, "sda: sda1 sda2"),
            (
                6,
                "EXT4-fs (vda1): mounted filesystem with ordered data mode",
            ),
            (3, "sd 2:0:0:0: [sda] Assuming drive cache: write through"),
            (4, "systemd[1]: something is late"),
            (4, "e1000: eth0 NIC Link is Down"),
            (5, "random: crng init done"),
        ] {
            assert!(!said(level, text), "{text}");
        }
    }
}
