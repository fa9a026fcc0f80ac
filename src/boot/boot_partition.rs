//! Where the boot partition of a Raspberry Pi is, and what the firmware passes on its way there. Called by
//! [`super::raspberry_pi`], [`super::tryboot`] and [`super::core_fat`].

use std::collections::BTreeMap;

use crate::finding::Finding;
use crate::host::raspberry_pi::{AUTOBOOT, BootPartition, CONFIG, RaspberryPi};
use crate::host::{Disk, Host, Mount, Partition};
use crate::raspberry_pi::config_txt::{Reader, Settings};

/// Our initramfs, there.
pub(super) const INITRAMFS: &str = "balena-migrate.img";

/// The command line of the kernel that starts it, there.
pub(super) const CMDLINE: &str = "balena-migrate.txt";

/// The firmware starts the new system only from the disk that it has started the old one from.
pub(super) fn check_disk(
    host: &Host,
    board: &RaspberryPi,
    boot: &BootPartition,
) -> Option<Finding> {
    let mount = mount(host, boot)?;
    let part = host.partition(&mount.device_name);
    let root = host.root_disk()?;
    let (disk, part) = match part {
        Some(found) if found.0.name == root.name => found,
        _ => {
            return Some(Finding::error(
                "boot-partition",
                format!(
                    "{} is on {}, and / on {}: the firmware would go on to start from the disk that is not \
                     overwritten",
                    boot.point, mount.device_name, root.name
                ),
                "move the whole system to one disk first",
            ));
        }
    };
    let started = board.partition.filter(|number| *number != 0)?;
    (started != part.number).then(|| {
        Finding::error(
            "boot-partition",
            format!(
                "the firmware has started this system from partition {started} of {}, and {} is partition {}",
                disk.name, boot.point, part.number
            ),
            "mount the partition that the firmware starts from there",
        )
    })
}

fn mount<'a>(host: &'a Host, boot: &BootPartition) -> Option<&'a Mount> {
    let mut mounts = host.mounts.iter();
    mounts.find(|mount| mount.point == boot.point)
}

/// The partition, and its disk.
fn partition<'a>(host: &'a Host, boot: &BootPartition) -> Option<(&'a Disk, &'a Partition)> {
    host.partition(&mount(host, boot)?.device_name)
}

/// A file that may send the firmware to another partition.
pub(super) fn check_autoboot(board: &RaspberryPi, boot: &BootPartition) -> Option<Finding> {
    let settings = autoboot(board, boot, false)?;
    (settings.value("boot_partition") != Ok("")).then(|| {
        Finding::error(
            "autoboot",
            format!(
                "{}/{AUTOBOOT} sets boot_partition: which partition the firmware starts from depends on it",
                boot.point
            ),
            "start from one partition without autoboot.txt; balenaOS has none",
        )
    })
}

/// What autoboot.txt makes of a boot that was asked for by `tryboot`, where that is not to read tryboot.txt of
/// this partition.
pub(super) fn autoboot_at_tryboot(board: &RaspberryPi, boot: &BootPartition) -> Option<String> {
    let settings = autoboot(board, boot, true)?;
    let sets = |name: &str| settings.value(name) != Ok("");
    let what = match (sets("tryboot_a_b"), sets("boot_partition")) {
        (true, _) => {
            format!("tryboot_a_b (A/B boot), by which {CONFIG} is read at such a boot too")
        }
        (false, true) => "boot_partition for such a boot".to_owned(),
        (false, false) => return None,
    };
    Some(format!("{}/{AUTOBOOT} sets {what}", boot.point))
}

fn autoboot(board: &RaspberryPi, boot: &BootPartition, tryboot: bool) -> Option<Settings> {
    let text = boot.texts.get(AUTOBOOT)?;
    let texts = BTreeMap::from([(AUTOBOOT.to_owned(), text.clone())]);
    let reader = Reader {
        model: board.model()?,
        serial: board.serial,
        texts: &texts,
        tryboot,
        runs_64: board.runs_64,
    };
    Some(Settings::read(reader, AUTOBOOT))
}

/// The first partition that the firmware could start from, where that is not the boot partition.
pub(super) fn before<'a>(host: &'a Host, boot: &BootPartition) -> Option<&'a Partition> {
    let (disk, ours) = partition(host, boot)?;
    let is_fat = |part: &&Partition| part.fs.as_ref().is_some_and(|fs| fs.fs_type == "vfat");
    let mut fats = disk.partitions.iter().filter(is_fat);
    fats.next().filter(|first| first.number < ours.number)
}

/// NOOBS and PINN are started first, and go on to the system that was chosen last: by config.txt, as it is
/// here, but not always without anybody.
pub(super) fn menu_first(host: &Host, boot: &BootPartition) -> Option<Finding> {
    let first = before(host, boot).filter(|part| is_recovery(part))?;
    let (disk, ours) = partition(host, boot)?;
    let others = disk.partitions.iter().filter(|part| {
        let is_fat = part.fs.as_ref().is_some_and(|fs| fs.fs_type == "vfat");
        is_fat && ![first.number, ours.number].contains(&part.number)
    });
    let others: Vec<&str> = others.map(|part| part.name.as_str()).collect();
    let starts = match others.is_empty() {
        true => "starts first and goes on to this system".to_owned(),
        false => format!(
            "starts first and goes on to the system that was chosen last; others start from {}",
            others.join(", ")
        ),
    };
    Some(Finding::warning(
        "noobs",
        format!(
            "NOOBS or PINN on {} {starts}: with all that is on {} it is overwritten too",
            first.name, disk.name
        ),
        match others.is_empty() {
            true => "leave its menu alone at the next boot",
            false => {
                "choose this system once more in its menu, then run again and leave the menu alone at the next \
                 boot"
            }
        },
    ))
}

/// Whether a partition is that of NOOBS, or of PINN which came from it: its FAT is labelled so.
/// <https://github.com/raspberrypi/noobs/wiki/NOOBS-partitioning-explained>
fn is_recovery(part: &Partition) -> bool {
    part.fs.as_ref().is_some_and(|fs| fs.label == "RECOVERY")
}
