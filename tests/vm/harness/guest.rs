//! The machine to be migrated: a stock Debian with real GRUB, built from packages once.
//!
//! Its files are one artefact ([`Tree`]), each disk made of them another ([`Root`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::board::{Firmware, Processor};
use super::machine::{MEMORY_MIB, Machine, copy_sparse};
use super::{cache, pc, tool};

const TREE_RECIPE: &str = include_str!("../recipes/tree.sh");
const I386_RECIPE: &str = include_str!("../recipes/tree-i386.sh");
const PI_RECIPE: &str = include_str!("../recipes/tree-pi.sh");
const PI_INIT: &str = include_str!("../recipes/pi-init.sh");
const PI_INITRAMFS: &str = include_str!("../recipes/pi-initramfs.sh");
const DISK_RECIPE: &str = include_str!("../recipes/disk.sh");
const CARD_RECIPE: &str = include_str!("../recipes/card.sh");
const ROOTS_RECIPE: &str = include_str!("../recipes/roots.sh");
const CRYPT_RECIPE: &str = include_str!("../recipes/crypt.sh");

/// What the first boot does, so that everything in /boot is what Debian's own tools make there.
const FIRST_BOOT: &str = "update-grub && sync";

/// The file systems of disk.sh that a running kernel makes find their UUID here.
const ROOT_UUID: &str = "6b1d7a52-8f0e-4c39-9d27-51a0c7e4b9d3";

/// That of btrfs.
const BTRFS_UUID: &str = "d41c9b07-3e52-4f6a-8a1d-7b90e2c5f618";

/// Which Debian with what in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// Debian 12 with the cloud kernel and little else.
    Plain,
    /// Debian 12 with the standard kernel and the tools of all roots.
    Standard,
    /// Debian 12 with the standard kernel and what opens encrypted roots.
    Crypt,
    /// Debian 12 with a 32-bit kernel and userland.
    I686,
    /// Debian 11 with the cloud kernel.
    Debian11,
    /// Debian 13 with the cloud kernel.
    Debian13,
    /// Debian 12 with the cloud kernel and dracut beside initramfs-tools.
    Dracut,
    /// Debian 12 with the cloud kernel, sshd and sudo.
    Ssh,
    /// Debian 12's kernel of 64 bits for a Raspberry Pi 3, and BusyBox.
    Pi3,
    /// Debian 12's kernel of 32 bits for a Raspberry Pi 2, and BusyBox.
    Pi2,
}

impl Tree {
    fn name(self) -> &'static str {
        match self {
            Tree::Plain => "plain",
            Tree::Standard => "standard",
            Tree::Crypt => "crypt",
            Tree::I686 => "i686",
            Tree::Debian11 => "debian11",
            Tree::Debian13 => "debian13",
            Tree::Dracut => "dracut",
            Tree::Ssh => "ssh",
            Tree::Pi3 => "pi-3",
            Tree::Pi2 => "pi-2",
        }
    }

    /// Whether it is for a board.
    pub fn is_pi(self) -> bool {
        matches!(self, Tree::Pi3 | Tree::Pi2)
    }

    /// The arguments of tree.sh, or of tree-pi.sh, behind the folder.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Tree::Plain => &["bookworm", "amd64", "linux-image-cloud-amd64", "", ""],
            Tree::Standard => &[
                "bookworm",
                "amd64",
                "linux-image-amd64",
                "lvm2,thin-provisioning-tools,mdadm,btrfs-progs,xfsprogs,dosfstools,efibootmgr,fdisk",
                "nvme,ahci,sd_mod,virtio_scsi,xfs,btrfs,raid1,dm_mod,dm_thin_pool",
            ],
            Tree::Crypt => &[
                "bookworm",
                "amd64",
                "linux-image-amd64",
                "cryptsetup,cryptsetup-initramfs,dosfstools,fdisk",
                "dm_crypt",
            ],
            Tree::I686 => &["bookworm", "i386", "linux-image-686", "", ""],
            // The release's own kernel: some mirrors have lost the last one of its security updates.
            Tree::Debian11 => &[
                "bullseye",
                "amd64",
                "linux-image-cloud-amd64/bullseye",
                "",
                "",
            ],
            Tree::Debian13 => &["trixie", "amd64", "linux-image-cloud-amd64", "", ""],
            // The package dracut would take the place of initramfs-tools; the program is in this one.
            Tree::Dracut => &[
                "bookworm",
                "amd64",
                "linux-image-cloud-amd64",
                "dracut-core",
                "",
            ],
            Tree::Ssh => &[
                "bookworm",
                "amd64",
                "linux-image-cloud-amd64",
                "openssh-server,sudo",
                "",
            ],
            Tree::Pi3 => &[
                "bookworm",
                "arm64",
                "linux-image-arm64",
                "broadcom/bcm2837-rpi-3-b.dtb",
                "ttyS1",
                "ttyAMA0",
            ],
            Tree::Pi2 => &[
                "bookworm",
                "armhf",
                "linux-image-armmp",
                "bcm2836-rpi-2-b.dtb",
                "ttyS1",
                "ttyAMA0",
            ],
        }
    }

    /// The folder with tree.tar.zst and kit/, built when the cache does not have it (a minute or two).
    fn dir(self) -> PathBuf {
        let mut recipe = format!("{:?}{TREE_RECIPE}", self.arguments());
        if self == Tree::I686 {
            recipe.push_str(I386_RECIPE);
        }
        if self.is_pi() {
            recipe = format!("{:?}{PI_RECIPE}{PI_INIT}{PI_INITRAMFS}", self.arguments());
        }
        cache::artefact(&format!("tree-{}", self.name()), &recipe, |dir| {
            let mut script = recipe_in(dir, "tree.sh", TREE_RECIPE);
            if self == Tree::I686 {
                script = recipe_in(dir, "tree-i386.sh", I386_RECIPE);
            }
            if self.is_pi() {
                recipe_in(dir, "pi-init.sh", PI_INIT);
                recipe_in(dir, "pi-initramfs.sh", PI_INITRAMFS);
                script = recipe_in(dir, "tree-pi.sh", PI_RECIPE);
            }
            let mut command = as_root(Command::new("bash"));
            tool::run(command.arg(script).arg(dir).args(self.arguments()));
        })
    }

    /// The kernel, modules, busybox and GRUB images that [`super::OsImage`] is made from.
    pub fn kit(self) -> PathBuf {
        self.dir().join("kit")
    }

    /// What decides its content.
    pub fn key(self) -> String {
        file_name(&self.dir())
    }
}

/// Where the old system is on its disk; recipes/disk.sh says more of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// MBR, for a BIOS only.
    Mbr,
    /// GPT, as all that follow.
    Ext4,
    /// With a /boot of its own.
    Boot,
    /// In a logical volume, with a /boot of its own.
    Lvm,
    /// In a logical volume, with /boot in it.
    LvmAll,
    /// In a thin volume, with a /boot of its own.
    Thin,
    /// Encrypted, with a /boot of its own.
    Crypt,
    /// On an array over two disks.
    Raid1,
    /// In a subvolume.
    Btrfs,
    /// With /boot in it.
    Xfs,
    /// On sectors of 4096 bytes.
    Sectors,
    /// On the card of a board, behind a FAT boot partition.
    Card,
}

impl Root {
    /// As the cache calls it.
    pub fn name(self) -> &'static str {
        match self {
            Root::Mbr => "mbr",
            Root::Ext4 => "ext4",
            Root::Boot => "boot",
            Root::Lvm => "lvm",
            Root::LvmAll => "lvm-all",
            Root::Thin => "thin",
            Root::Crypt => "crypt",
            Root::Raid1 => "raid1",
            Root::Btrfs => "btrfs",
            Root::Xfs => "xfs",
            Root::Sectors => "sectors",
            Root::Card => "card",
        }
    }

    /// As disk.sh calls its partitions.
    fn layout(self) -> &'static str {
        match self {
            Root::Crypt => Root::Lvm.name(),
            root => root.name(),
        }
    }

    /// What makes it where that takes a running kernel, and the system that has the tools for it.
    fn recipe(self) -> (&'static str, Tree) {
        match self {
            Root::Crypt => (CRYPT_RECIPE, Tree::Crypt),
            _ => (ROOTS_RECIPE, Tree::Standard),
        }
    }

    /// For the table.
    pub fn in_words(self) -> &'static str {
        match self {
            Root::Mbr => "ext4, MBR",
            Root::Ext4 => "ext4, GPT",
            Root::Boot => "ext4, /boot ext4",
            Root::Lvm => "ext4 on LVM, /boot ext4",
            Root::LvmAll => "ext4 on LVM",
            Root::Thin => "ext4 on thin LVM, /boot ext4",
            Root::Crypt => "ext4 on dm-crypt, /boot ext4",
            Root::Raid1 => "ext4 on md RAID 1",
            Root::Btrfs => "btrfs, subvolumes",
            Root::Xfs => "xfs",
            Root::Sectors => "ext4, 4096-byte sectors",
            Root::Card => "ext4, MBR, FAT /boot/firmware",
        }
    }

    /// Whether it takes a running kernel to make it.
    fn takes_a_kernel(self) -> bool {
        !matches!(self, Root::Mbr | Root::Ext4 | Root::Boot | Root::Card)
    }

    /// Size of the disk.
    fn mib(self, tree: Tree) -> u32 {
        match (self, tree) {
            (Root::Mbr, Tree::Plain) => 1536,
            (Root::Card, _) => 1024,
            _ => 2048,
        }
    }
}

/// The bytes of a sector of such a disk.
pub fn sector_bytes(root: Root) -> u32 {
    match root {
        Root::Sectors => 4096,
        _ => 512,
    }
}

/// A system on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    pub tree: Tree,
    pub root: Root,
}

/// A guest that has booted: its disk and its processor and memory state at one moment.
pub struct Booted {
    pub disk: PathBuf,
    pub state: PathBuf,
}

impl Guest {
    /// The one that most scenarios use: Debian 12 on one ext4 partition, started by a BIOS.
    pub const USUAL: Guest = Guest {
        tree: Tree::Plain,
        root: Root::Mbr,
    };

    /// Its disks, cleanly shut down, built when the cache does not have them.
    pub fn disks(self) -> Vec<PathBuf> {
        let dir = self.dir();
        let mut disks = vec![dir.join("guest.raw")];
        if self.root == Root::Raid1 {
            disks.push(dir.join("guest2.raw"));
        }
        disks
    }

    fn dir(self) -> PathBuf {
        let Guest { tree, root } = self;
        let mib = root.mib(tree);
        let name = format!("disk-{}-{}", tree.name(), root.name());
        let mut recipe = [&tree.key(), DISK_RECIPE, FIRST_BOOT].concat();
        recipe.push_str(&mib.to_string());
        if root.takes_a_kernel() {
            recipe.push_str(root.recipe().0);
        }
        if root == Root::Card {
            recipe = [&tree.key(), CARD_RECIPE, &mib.to_string()].concat();
        }
        cache::artefact(&name, &recipe, |dir| {
            if root == Root::Card {
                let script = recipe_in(dir, "card.sh", CARD_RECIPE);
                let mut command = as_root(Command::new("bash"));
                tool::run(
                    command
                        .arg(script)
                        .arg(tree.dir())
                        .arg(dir)
                        .arg(mib.to_string()),
                );
                return;
            }
            let script = recipe_in(dir, "disk.sh", DISK_RECIPE);
            let mut command = as_root(Command::new("bash"));
            command.arg(script).arg(tree.dir()).arg(dir);
            tool::run(command.args([root.layout(), &mib.to_string()]));
            match root.takes_a_kernel() {
                true => fill(dir, root),
                false => first_boot(dir),
            }
        })
    }

    /// It in its running state, made when the cache does not have it (as long as a boot).
    pub fn booted(self) -> Booted {
        let qemu = tool::run(Command::new("qemu-system-x86_64").arg("--version"));
        let recipe = format!(
            "{} {qemu} {:?}",
            file_name(&self.dir()),
            pc::hardware(MEMORY_MIB, Processor::default(), Firmware::Bios)
        );
        let name = format!("booted-{}-{}", self.tree.name(), self.root.name());
        let dir = cache::artefact(&name, &recipe, |dir| {
            let disk = dir.join("guest.raw");
            copy_sparse(&self.disks()[0], &disk);
            let mut vm = Machine::in_place("prepare-booted", &disk).start();
            vm.wait_agent();
            // Not before everything has started: a scenario should find a quiet machine.
            vm.must("for i in $(seq 100); do case $(systemctl is-system-running) in running|degraded) break;; esac; sleep 0.5; done; sync");
            vm.save_state(&dir.join("state"));
        });
        Booted {
            disk: dir.join("guest.raw"),
            state: dir.join("state"),
        }
    }
}

fn first_boot(dir: &Path) {
    let mut vm = Machine::in_place("prepare-guest", &dir.join("guest.raw")).start();
    vm.wait_agent();
    vm.must(FIRST_BOOT);
    vm.shut_down();
}

/// Makes the root in a guest that has the tools for it.
fn fill(dir: &Path, root: Root) {
    let (script, tree) = root.recipe();
    let maker = Guest {
        tree,
        root: Root::Ext4,
    };
    let mut vm = Machine::running("prepare-root", maker).start();
    vm.plug_sectors(&dir.join("guest.raw"), "BENCH-target", sector_bytes(root));
    if root == Root::Raid1 {
        vm.plug(&dir.join("guest2.raw"), "BENCH-target2");
    }
    vm.plug(&dir.join("source.raw"), "BENCH-source");
    let recipe = tempfile::tempdir().expect("making a directory");
    recipe_in(recipe.path(), "root.sh", script);
    let uuid = match root {
        Root::Btrfs => BTRFS_UUID,
        _ => ROOT_UUID,
    };
    fs::write(recipe.path().join("uuid"), uuid).expect("writing the UUID");
    vm.send(recipe.path(), "/run/recipe");
    vm.must("udevadm settle; [ -e /dev/disk/by-id/virtio-BENCH-source ]");
    vm.must(&format!("cd /run/recipe && sh root.sh {}", root.name()));
    vm.shut_down();
    fs::remove_file(dir.join("source.raw")).expect("removing source.raw");
}

fn recipe_in(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
    path
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// mmdebstrap and chroot need root; someone else is asked by sudo.
fn as_root(command: Command) -> Command {
    if nix::unistd::geteuid().is_root() {
        return command;
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(command.get_program());
    sudo
}
