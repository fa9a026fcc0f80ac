//! The host snapshot of whole machines, built as folders of the files that the collector reads.

mod tables;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use balena_migrate::efi::load_option::{HardDrive, LoadOption, Node, PartitionId};
use balena_migrate::efi::{self, Variable};
use balena_migrate::grub_platform::BIOS_MODULES;
use balena_migrate::handover::{Firmware, TableIdentity};
use balena_migrate::host::collect::collect;
use balena_migrate::host::u_boot::UBoot;
use balena_migrate::host::uefi::Access;
use balena_migrate::host::{BootCode, Host};
use balena_migrate::sys::{Sys, efivars};

/// A machine that is a folder.
struct Machine(tempfile::TempDir);

impl Machine {
    /// What every machine has.
    fn new(mountinfo: &str, cmdline: &str) -> Machine {
        let machine = Machine(tempfile::tempdir().unwrap());
        machine
            .file("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 800 kB\n")
            .file("proc/self/mountinfo", mountinfo)
            .file("proc/cmdline", cmdline)
            .file("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
            .file("proc/sys/kernel/hostname", "box\n")
            .file("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n")
            .dir("sys/block")
            .dir("sys/dev/block");
        machine
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn dir(&self, path: &str) -> &Machine {
        fs::create_dir_all(self.0.path().join(path)).unwrap();
        self
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Machine {
        fs::write(self.at(path), content).unwrap();
        self
    }

    /// A link to a path of this machine.
    fn link(&self, path: &str, target: &str) -> &Machine {
        let up = "../".repeat(Path::new(path).components().count() - 1);
        symlink(format!("{up}{target}"), self.at(path)).unwrap();
        self
    }

    /// A device in the tree that a driver of that module drives.
    fn driven(&self, device: &str, module: &str) -> &Machine {
        self.file(&format!("sys/module/{module}/initstate"), "live\n")
            .built_in(device, module)
    }

    /// A device in the tree that a driver drives which is built into the kernel, and has parameters.
    fn built_in(&self, device: &str, module: &str) -> &Machine {
        self.dir(&format!("sys/module/{module}"))
            .link(
                &format!("sys/bus/any/drivers/{module}/module"),
                &format!("sys/module/{module}"),
            )
            .link(
                &format!("{device}/driver"),
                &format!("sys/bus/any/drivers/{module}"),
            )
    }

    /// A block device at `folder` in /sys, with its number and sectors; partitions come with
    /// number and start.
    fn block(&self, folder: &str, dev: &str, sectors: u64, place: Option<(u32, u64)>) -> &Machine {
        let name = folder.rsplit('/').next().unwrap();
        self.file(&format!("{folder}/dev"), format!("{dev}\n"))
            .file(&format!("{folder}/size"), format!("{sectors}\n"))
            .file(&format!("{folder}/removable"), "0\n")
            .file(&format!("{folder}/ro"), "0\n")
            .dir(&format!("{folder}/slaves"))
            .link(&format!("sys/dev/block/{dev}"), folder)
            .link(&format!("sys/class/block/{name}"), folder);
        match place {
            Some((number, start)) => self
                .file(&format!("{folder}/partition"), format!("{number}\n"))
                .file(&format!("{folder}/start"), format!("{start}\n")),
            None => self
                .file(&format!("{folder}/queue/logical_block_size"), "512\n")
                .link(&format!("sys/block/{name}"), folder),
        }
    }

    /// The files of GRUB for a BIOS in `folder`, but for some modules.
    fn grub_modules(&self, folder: &str, missing: &[&str]) -> &Machine {
        for name in BIOS_MODULES.iter().filter(|name| !missing.contains(name)) {
            self.file(&format!("{folder}/{name}.mod"), "");
        }
        self.file(&format!("{folder}/boot.img"), "")
            .file(&format!("{folder}/kernel.img"), "")
            .file(&format!("{folder}/moddep.lst"), "")
    }

    fn collect(&self) -> Host {
        let host = collect(&Sys::new(self.0.path())).unwrap();
        let text = serde_json::to_string(&host).unwrap();
        assert_eq!(serde_json::from_str::<Host>(&text).unwrap(), host);
        host
    }
}

/// The start of an ext4 file system with all-equal bytes as its UUID.
fn ext4(byte: u8) -> Vec<u8> {
    let mut head = vec![0; 2048];
    head[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
    head[1024 + 0x60] = 0x40;
    head[1024 + 0x68..][..16].fill(byte);
    head
}

/// The UUID that [`ext4`] makes of a byte.
fn uuid(byte: u8) -> String {
    let of = |n: usize| format!("{byte:02x}").repeat(n);
    format!("{}-{}-{}-{}-{}", of(4), of(2), of(2), of(2), of(6))
}

/// An MBR with one Linux partition.
fn mbr(signature: u32) -> Vec<u8> {
    let mut sector = vec![0; 512];
    sector[0x1b8..0x1bc].copy_from_slice(&signature.to_le_bytes());
    sector[450] = 0x83;
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

const VIRTIO: &str = "sys/devices/pci0000:00/0000:00:04.0/virtio1";

#[test]
fn debian_with_grub_on_a_virtio_disk() {
    let disk = &format!("{VIRTIO}/block/vda");
    let machine = Machine::new(
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
         27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro\n\
         30 27 0:25 / /run rw - tmpfs tmpfs rw\n",
        "BOOT_IMAGE=/boot/vmlinuz-6.1.0-18-amd64 root=UUID=x ro console=ttyS0\n",
    );
    machine
        .block(disk, "254:0", 4_194_304, None)
        .link(&format!("{disk}/device"), VIRTIO)
        .file(&format!("{disk}/serial"), "sn-1")
        .driven(VIRTIO, "virtio_blk")
        .driven("sys/devices/pci0000:00/0000:00:04.0", "virtio_pci")
        .built_in("sys/devices/pci0000:00", "pcieportdrv")
        .block(&format!("{disk}/vda1"), "254:1", 4_192_256, Some((1, 2048)))
        .file("dev/vda", mbr(0xdead_beef))
        .file("dev/vda1", ext4(0xab))
        .block("sys/devices/virtual/block/loop0", "7:0", 8, None)
        .file("boot/vmlinuz-6.1.0-18-amd64", "kernel")
        .file("boot/config-6.1.0-18-amd64", "CONFIG_RD_GZIP=y\n")
        .file("boot/grub/grub.cfg", "source $prefix/custom.cfg\n")
        .file("boot/grub/grubenv", "# GRUB Environment Block\n")
        .file("usr/bin/grub-mkimage", "")
        .file("usr/sbin/mkinitramfs", "")
        .file("etc/initramfs-tools/initramfs.conf", "")
        .file("boot/initrd.img-6.1.0-18-amd64", "initrd")
        // Without its modules it can build nothing.
        .file("usr/bin/dracut", "")
        .grub_modules("boot/grub/i386-pc", &[])
        .grub_modules("usr/lib/grub/i386-pc", &["tar"])
        .file("etc/wpa_supplicant/wpa_supplicant.conf", "")
        .file("var/lib/balena-migrate/journal", "")
        .file("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu lm\n");
    let host = machine.collect();

    assert_eq!(host.hostname, "box");
    assert_eq!(host.long_mode, Some(true));
    assert_eq!(host.os.id, "debian");
    assert_eq!(host.memory.total, 1_024_000);
    let disk = host.root_disk().unwrap();
    assert_eq!(host.disks.len(), 1);
    assert_eq!(disk.name, "vda");
    assert_eq!(disk.bytes, 2 << 30);
    assert_eq!(disk.serial.as_deref(), Some("sn-1"));
    assert_eq!(disk.table, Some(TableIdentity::Mbr("deadbeef".into())));
    assert_eq!(disk.modules, ["virtio_blk", "virtio_pci"]);
    let partition = &disk.partitions[0];
    assert_eq!((partition.number, partition.start), (1, 1 << 20));
    assert_eq!(partition.fs.as_ref().unwrap().uuid, uuid(0xab));
    let points: Vec<&str> = host
        .mounts
        .iter()
        .map(|mount| mount.point.as_str())
        .collect();
    assert_eq!(points, ["/", "/run"]);
    assert_eq!(host.mounts[0].uuid, Some(uuid(0xab)));
    assert_eq!(host.mounts[0].device, "254:1");
    assert!(host.mounts[0].bytes > 0);
    assert_eq!(
        host.kernel.image.as_deref(),
        Some("/boot/vmlinuz-6.1.0-18-amd64")
    );
    assert_eq!(host.kernel.initramfs_formats, Some(vec!["gzip".into()]));
    let grub = host.grub.as_ref().unwrap();
    assert!(grub.sources_custom_cfg && !grub.honours_next_entry);
    let tools = grub.core_tools.as_ref().unwrap();
    assert_eq!(tools.mkimage, "/usr/bin/grub-mkimage");
    let incomplete = "/usr/lib/grub/i386-pc";
    assert_ne!(tools.dir, incomplete, "it has no tar.mod");
    assert_eq!(tools.dir, "/boot/grub/i386-pc");
    let tools = &host.initramfs_tools;
    assert_eq!(tools.mkinitramfs.as_deref(), Some("/usr/sbin/mkinitramfs"));
    assert_eq!(tools.dracut, None);
    assert_eq!(tools.made_bytes, Some(6));
    assert_eq!(host.network.len(), 1);
    assert!(host.state.journal);
}

/// What is in memory, on a server or in a pool is no part of the file system below it.
#[test]
fn file_systems_without_a_block_device() {
    let machine = Machine::new(
        "27 1 254:1 / / rw - ext4 /dev/vda1 rw\n\
         28 27 0:20 / /sys rw - sysfs sysfs rw\n\
         29 27 0:21 / /tmp rw - tmpfs tmpfs rw\n\
         30 27 0:40 / /boot rw - zfs bpool/BOOT/ubuntu ro\n\
         31 27 0:50 /export /srv rw - nfs4 server:/ rw\n\
         32 27 0:51 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n",
        "quiet\n",
    );
    let disk = &format!("{VIRTIO}/block/vda");
    machine
        .block(disk, "254:0", 4096, None)
        .link(&format!("{disk}/device"), VIRTIO)
        .block(&format!("{disk}/vda1"), "254:1", 2048, Some((1, 2048)))
        .dir("tmp")
        .dir("srv");
    let host = machine.collect();
    let points: Vec<&str> = host
        .mounts
        .iter()
        .map(|mount| mount.point.as_str())
        .collect();
    assert_eq!(points, ["/", "/tmp", "/boot", "/srv"]);
    let tmp = host.mount_of("/tmp/migratecfg").unwrap();
    assert_eq!((tmp.fs_type.as_str(), tmp.disks.len()), ("tmpfs", 0));
    assert!(tmp.bytes > 0);
    let boot = host.mount_of("/boot/grub").unwrap();
    assert!(boot.read_only && boot.in_words() == "zfs");
    // A server that is gone would never answer.
    let server = host.mount_of("/srv/x").unwrap();
    assert_eq!(server.bytes, 0);
    assert_eq!(host.root_disk().unwrap().name, "vda");
}

/// Two disks: one starts what is in its active partition, the other is the BIOS's first and has no code.
#[test]
fn what_a_bios_would_start() {
    let machine = Machine::new("", "quiet\n");
    for (index, name) in ["sda", "sdb"].into_iter().enumerate() {
        let disk = format!("sys/devices/any/{name}");
        let part = format!("{disk}/{name}1");
        machine
            .block(&disk, &format!("8:{}", index * 16), 8192, None)
            .dir("sys/devices/any/hardware")
            .link(&format!("{disk}/device"), "sys/devices/any/hardware")
            .block(&part, &format!("8:{}", index * 16 + 1), 4096, Some((1, 8)));
    }
    let mut usual = mbr(0xa);
    usual[..3].copy_from_slice(&[0xfa, 0xb8, 0]);
    (usual[446], usual[454]) = (0x80, 8);
    machine
        .file("dev/sda", &usual)
        .file("dev/sda1", [b"\xebcGRUB ".to_vec(), vec![0; 512]].concat())
        .file("dev/sdb", mbr(0xb))
        .file("dev/sdb1", vec![0; 512])
        .file("sys/firmware/edd/int13_dev80/mbr_signature", "0x0000000b\n");
    let host = machine.collect();
    let sectors = host
        .disks
        .iter()
        .map(|disk| disk.boot_sector.clone().unwrap());
    let sectors: Vec<_> = sectors
        .map(|sector| (sector.code, sector.signature.unwrap()))
        .collect();
    assert_eq!(
        sectors,
        [
            (BootCode::Grub, "0000000a".to_owned()),
            (BootCode::None, "0000000b".to_owned())
        ]
    );
    assert_eq!(host.firmware.bios_disk.as_deref(), Some("0000000b"));
    fs::remove_file(machine.at("dev/sda")).unwrap();
    machine.file("sys/firmware/edd/int13_dev80/mbr_signature", "0x00000000\n");
    let host = machine.collect();
    assert_eq!(host.disks[0].boot_sector, None);
    assert_eq!(host.firmware.bios_disk, None);
}

/// The start of a FAT file system, as far as it is looked at.
fn fat() -> Vec<u8> {
    let mut head = vec![0; 512];
    head[..3].copy_from_slice(&[0xeb, 0x58, 0x90]);
    head[11..13].copy_from_slice(&512u16.to_le_bytes());
    (head[13], head[14], head[16], head[21]) = (1, 1, 2, 0xf8);
    head[0x20..0x24].copy_from_slice(&0x10000u32.to_le_bytes());
    head[0x24] = 32;
    head[0x42] = 0x29;
    head[0x43..0x47].copy_from_slice(&[1, 2, 3, 4]);
    head[0x47..0x52].copy_from_slice(b"ESP        ");
    head[0x52..0x5a].copy_from_slice(b"FAT32   ");
    head[510..].copy_from_slice(&[0x55, 0xaa]);
    head
}

const ESP: &str = "11111111-2222-3333-4444-555555555555";

/// A disk with an EFI system partition and another one.
fn gpt() -> Vec<u8> {
    tables::disk(&format!(
        "label: gpt\nsize=2048, type=U, uuid={ESP}\nsize=2048\n"
    ))
}

/// A machine with UEFI firmware that has started `program` from the EFI system partition.
fn uefi(mountinfo: &str, program: &str) -> Machine {
    let disk = &format!("{VIRTIO}/block/vda");
    let mut kernel = vec![0; 0x400];
    kernel[..2].copy_from_slice(b"MZ");
    kernel[0x3c] = 0x40;
    kernel[0x40..0x46].copy_from_slice(b"PE\0\0\x64\x86");
    let machine = Machine::new(mountinfo, "BOOT_IMAGE=/boot/vmlinuz-6.1.0-18-amd64 ro\n");
    machine
        .block(disk, "254:0", 16384, None)
        .link(&format!("{disk}/device"), VIRTIO)
        .block(&format!("{disk}/vda1"), "254:1", 2048, Some((1, 2048)))
        .block(&format!("{disk}/vda2"), "254:2", 2048, Some((2, 4096)))
        .file("dev/vda", gpt())
        .file("dev/vda1", fat())
        .file("dev/vda2", ext4(0xab))
        .file("boot/vmlinuz-6.1.0-18-amd64", &kernel)
        .file(
            "boot/config-6.1.0-18-amd64",
            "CONFIG_RD_GZIP=y\nCONFIG_EFI_GENERIC_STUB_INITRD_CMDLINE_LOADER=y\n",
        )
        .file("sys/firmware/efi/fw_platform_size", "64\n")
        .dir(&efivars::DIR[1..]);
    let sys = Sys::new(machine.0.path());
    let started = LoadOption {
        attributes: 1,
        description: "linux".into(),
        path: vec![
            Node::HardDrive(HardDrive {
                number: 1,
                start: 2048,
                sectors: 2048,
                id: PartitionId::Gpt(ESP.into()),
            }),
            Node::File(program.into()),
        ],
        rest: Vec::new(),
        data: Vec::new(),
    };
    for (name, value) in [
        (efi::boot_entry(3), started.to_bytes()),
        (efi::boot_order(), efi::numbers_value(&[3, 7])),
        (efi::global("BootCurrent"), efi::numbers_value(&[3])),
        (efi::global("SecureBoot"), vec![1]),
        (efi::global("SetupMode"), vec![0]),
    ] {
        sys.write_efi(&name, &Variable::persistent(value)).unwrap();
    }
    machine
}

const ROOT: &str = "27 1 254:2 / / rw - ext4 /dev/vda2 rw\n";
const EFIVARS: &str = "31 27 0:30 / /sys/firmware/efi/efivars rw - efivarfs efivarfs rw\n";
const BOOT_EFI: &str = "32 27 254:1 / /boot/efi rw - vfat /dev/vda1 rw\n";

#[test]
fn debian_started_by_uefi_firmware() {
    let machine = uefi(
        &format!("{ROOT}{EFIVARS}{BOOT_EFI}"),
        "\\EFI\\debian\\shimx64.efi",
    );
    machine
        .file("boot/efi/EFI/BOOT/grub.cfg", "search.fs_uuid other root\n")
        .file(
            "boot/efi/EFI/DEBIAN/grub.cfg",
            format!("search.fs_uuid {} root\n", uuid(0xab)),
        );
    let host = machine.collect();
    assert_eq!(host.kernel.efi_stub, Some(64));
    assert_eq!(host.kernel.efi_initrd, Some(true));
    assert_eq!(host.kernel.image_bytes, Some(0x400));
    assert!(host.firmware.efi);
    assert_eq!(host.firmware.secure_boot, Some(true));
    let uefi = host.firmware.uefi.unwrap();
    assert_eq!((uefi.bits, uefi.setup_mode), (Some(64), Some(false)));
    assert_eq!(uefi.variables, Access::Writable);
    assert_eq!(
        (uefi.boot_current, &*uefi.boot_order),
        (Some(3), &[3, 7][..])
    );
    let [entry] = uefi.entries.as_slice() else {
        panic!("{:?}", uefi.entries);
    };
    assert_eq!((entry.number, entry.active), (3, true));
    assert_eq!(entry.file.as_deref(), Some("\\EFI\\debian\\shimx64.efi"));
    assert_eq!(entry.partition, Some(PartitionId::Gpt(ESP.into())));
    assert_eq!(uefi.partitions["vda1"], PartitionId::Gpt(ESP.into()));
    assert_eq!(uefi.partitions.len(), 2);
    assert_eq!(uefi.esp.as_deref(), Some("vda1"));
    assert_eq!(uefi.esps, ["vda1"]);
    assert_eq!(uefi.loader, None);
    let stub = uefi.grub_stub.unwrap();
    assert_eq!(stub.path, "/boot/efi/EFI/DEBIAN/grub.cfg");
    assert_eq!(stub.fs_uuid, Some(uuid(0xab)));
}

#[test]
fn what_systemd_boot_says_of_itself() {
    let read_only = EFIVARS.replace("rw", "ro");
    let machine = uefi(&format!("{ROOT}{read_only}"), "\\EFI\\systemd\\x.efi");
    let sys = Sys::new(machine.0.path());
    for (name, value) in [
        ("LoaderInfo", efi::utf16("systemd-boot 252")),
        ("LoaderFeatures", 0x0fu64.to_le_bytes().to_vec()),
        ("LoaderDevicePartUUID", efi::utf16(&ESP.to_uppercase())),
    ] {
        let variable = Variable::persistent(value);
        sys.write_efi(&efi::loader(name), &variable).unwrap();
    }
    let uefi = machine.collect().firmware.uefi.unwrap();
    assert_eq!(uefi.variables, Access::ReadOnly);
    let loader = uefi.loader.unwrap();
    assert_eq!(
        (loader.info.as_str(), loader.one_shot),
        ("systemd-boot 252", true)
    );
    assert_eq!(loader.partition.as_deref(), Some(ESP));
    // It is known though it is not mounted.
    assert_eq!(uefi.esp.as_deref(), Some("vda1"));
}

#[test]
fn without_variables_the_esp_is_known_by_its_kind() {
    let machine = uefi(ROOT, "x");
    let folder = machine.0.path().join(&efivars::DIR[1..]);
    fs::remove_dir_all(folder).unwrap();
    let uefi = machine.collect().firmware.uefi.unwrap();
    assert_eq!(uefi.variables, Access::NotMounted);
    assert_eq!(uefi.entries, []);
    assert_eq!(uefi.esp.as_deref(), Some("vda1"));
    // In an MBR too.
    let mut sector = mbr(7);
    sector[450] = efi::MBR_KIND;
    machine.file("dev/vda", sector);
    let uefi = machine.collect().firmware.uefi.unwrap();
    assert_eq!(uefi.esps, ["vda1"]);
    assert_eq!(uefi.esp.as_deref(), Some("vda1"));
}

/// GRUB starts without the variables of the firmware, as on kernels with PREEMPT_RT: what the kernel was told
/// is all that there is.
#[test]
fn secure_boot_is_not_off_because_nobody_can_tell() {
    let machine = uefi(&format!("{ROOT}{EFIVARS}"), "x");
    let told = |machine: &Machine| {
        let firmware = machine.collect().firmware;
        (firmware.secure_boot, firmware.kernel_secure_boot)
    };
    assert_eq!(told(&machine), (Some(true), None));
    let folder = machine.0.path().join(&efivars::DIR[1..]);
    fs::remove_file(folder.join(efi::global("SecureBoot"))).unwrap();
    assert_eq!(told(&machine), (Some(false), None), "firmware without it");
    fs::remove_dir_all(folder).unwrap();
    assert_eq!(told(&machine), (None, None));
    let mut params = vec![0; 4096];
    params[0x1ec] = 3;
    machine.file("sys/kernel/boot_params/data", params);
    assert_eq!(told(&machine), (None, Some(true)));
}

#[test]
fn ubuntu_with_lvm_on_nvme_and_a_separate_boot() {
    let controller = "sys/devices/pci0000:00/0000:01:00.0";
    let disk = &format!("{controller}/nvme/nvme0/nvme0n1");
    let mapping = "sys/devices/virtual/block/dm-0";
    let machine = Machine::new(
        "27 1 253:0 / / rw - ext4 /dev/mapper/ubuntu--vg-ubuntu--lv rw\n\
         28 27 259:2 / /boot rw - ext4 /dev/nvme0n1p2 rw\n",
        "BOOT_IMAGE=/vmlinuz-6.1.0-18-amd64 root=/dev/mapper/ubuntu--vg-ubuntu--lv ro\n",
    );
    machine
        .block(disk, "259:0", 2_097_152, None)
        .link(
            &format!("{disk}/device"),
            &format!("{controller}/nvme/nvme0"),
        )
        .file(&format!("{disk}/wwid"), "eui.0025\n")
        .file(&format!("{controller}/nvme/nvme0/serial"), "S5GX   \n")
        .file(&format!("{controller}/nvme/nvme0/model"), "Samsung SSD  \n")
        .driven(controller, "nvme")
        .block(&format!("{disk}/nvme0n1p2"), "259:2", 4096, Some((2, 2048)))
        .block(&format!("{disk}/nvme0n1p3"), "259:3", 4096, Some((3, 8192)))
        .block(mapping, "253:0", 4096, None)
        .link(
            &format!("{mapping}/slaves/nvme0n1p3"),
            &format!("{disk}/nvme0n1p3"),
        )
        .link(&format!("{disk}/nvme0n1p3/holders/dm-0"), mapping)
        .file(
            "proc/swaps",
            "Filename\tType\tSize\tUsed\tPriority\n/swapfile file 8 0 -2\n/dev/dm-0 partition 8 0 -3\n",
        )
        .file("dev/nvme0n1p2", ext4(1))
        .file("dev/dm-0", ext4(2))
        .file("boot/vmlinuz-6.1.0-18-amd64", "kernel");
    let host = machine.collect();

    let disk = host.root_disk().unwrap();
    assert_eq!(disk.name, "nvme0n1");
    assert_eq!(disk.serial.as_deref(), Some("S5GX"));
    assert_eq!(disk.model.as_deref(), Some("Samsung SSD"));
    assert_eq!(disk.wwid.as_deref(), Some("eui.0025"));
    assert_eq!(disk.table, None);
    assert_eq!(disk.modules, ["nvme"]);
    assert_eq!(disk.holders, ["dm-0"]);
    assert_eq!(host.swaps, ["dm-0"]);
    let root = host.mount_of("/").unwrap();
    assert_eq!(root.device_name, "dm-0");
    assert_eq!(root.uuid, Some(uuid(2)));
    assert_eq!(
        host.kernel.image.as_deref(),
        Some("/boot/vmlinuz-6.1.0-18-amd64")
    );
    assert_eq!(
        host.path_in_fs("/boot/vmlinuz-6.1.0-18-amd64").as_deref(),
        Some("/vmlinuz-6.1.0-18-amd64")
    );
}

#[test]
fn btrfs_over_two_disks_has_no_one_root_disk() {
    let port = |n: u32| format!("sys/devices/pci0000:00/0000:00:1f.2/ata{n}/host{n}/{n}:0:0:0");
    let id = "00000000-0000-0000-0000-000000000000";
    let serial = |n: u32| [b"\0\x80\0\x04  S".to_vec(), n.to_string().into()].concat();
    let machine = Machine::new(
        "27 1 0:23 /@ / rw - btrfs /dev/sda1 rw,subvol=/@\n",
        "BOOT_IMAGE=/@/boot/vmlinuz-6.1.0-18-amd64\n",
    );
    let mut head = vec![0; 0x11000];
    head[0x10040..0x10048].copy_from_slice(b"_BHRfS_M");
    machine
        .driven("sys/devices/pci0000:00/0000:00:1f.2", "ahci")
        .file("dev/sda1", head)
        .file("boot/vmlinuz-6.1.0-18-amd64", "kernel");
    for (n, name) in [(1, "sda"), (2, "sdb")] {
        let disk = format!("{}/block/{name}", port(n));
        let dev = |minor: u32| format!("8:{}", n * 16 + minor);
        let partition = format!("{disk}/{name}1");
        machine
            .block(&disk, &dev(0), 8192, None)
            .link(&format!("{disk}/device"), &port(n))
            .file(&format!("{}/vpd_pg80", port(n)), serial(n))
            .block(&partition, &dev(1), 4096, Some((1, 2048)))
            .link(&format!("sys/fs/btrfs/{id}/devices/{name}1"), &partition);
    }
    machine.driven(&port(2), "sd_mod");
    let host = machine.collect();

    let root = host.mount_of("/").unwrap();
    assert_eq!(root.device, "8:17");
    assert_eq!(root.disks, ["sda", "sdb"]);
    assert_eq!(host.root_disk(), None);
    let second = host.disk("sdb").unwrap();
    assert_eq!(second.modules, ["sd_mod", "ahci"]);
    assert_eq!(second.serial.as_deref(), Some("S2"));
    assert_eq!(
        host.kernel.image.as_deref(),
        Some("/boot/vmlinuz-6.1.0-18-amd64")
    );
}

/// A Raspberry Pi with a card, of which the first partition is mounted at `point`.
fn raspberry_pi(point: &str, release: &str, revision: u32) -> Machine {
    const CARD: &str = "sys/devices/platform/soc/3f202000.mmc/mmc_host/mmc0/mmc0:0001";
    let disk = &format!("{CARD}/block/mmcblk0");
    let machine = Machine::new(
        &format!(
            "27 1 179:2 / / rw,relatime shared:1 - ext4 /dev/mmcblk0p2 rw\n\
             30 27 179:1 / {point} rw,relatime - vfat /dev/mmcblk0p1 rw\n"
        ),
        "root=PARTUUID=6126c8ea-02 rootwait\n",
    );
    machine
        .file("proc/sys/kernel/osrelease", release)
        .file(
            "proc/device-tree/compatible",
            "raspberrypi,3-model-b\0brcm,bcm2837\0",
        )
        .file("proc/device-tree/serial-number", "00000000f59d3b1c\0")
        .file(
            "proc/device-tree/system/linux,revision",
            revision.to_be_bytes(),
        )
        .file("proc/device-tree/chosen/bootloader/partition", [0, 0, 0, 1])
        .block(disk, "179:0", 4_194_304, None)
        .link(&format!("{disk}/device"), CARD)
        .block(
            &format!("{disk}/mmcblk0p1"),
            "179:1",
            204_800,
            Some((1, 8192)),
        )
        .block(
            &format!("{disk}/mmcblk0p2"),
            "179:2",
            204_800,
            Some((2, 212_992)),
        )
        .file("dev/mmcblk0", mbr(0x6126_c8ea))
        .file("dev/mmcblk0p1", fat())
        .file("dev/mmcblk0p2", ext4(0xab));
    machine
}

#[test]
fn raspberry_pi_os_with_the_kernels_of_all_boards() {
    let machine = raspberry_pi("/boot", "5.10.103-v7+\n", 0xa0_20d3);
    machine
        .file(
            "boot/config.txt",
            "[pi4]\nkernel=other.img\n[all]\ninclude mine.txt\n",
        )
        .file("boot/mine.txt", "# nothing\ncmdline=mine.cmd\n")
        .file("boot/mine.cmd", " console=serial0,115200 rootwait \nmore\n")
        .file("boot/kernel.img", "Linux version 5.10.103+ (dom@x) #1\n")
        .file(
            "boot/kernel7.img",
            "Linux version 5.10.103-v7+ (dom@x) #1\n",
        )
        .file("boot/overlays/w1-gpio.dtbo", "")
        .file("boot/upstream/kernel7.img", "");
    let host = machine.collect();
    let board = host.firmware.raspberry_pi.as_ref().unwrap();
    assert_eq!(board.model().unwrap().name, "3 Model B+");
    assert_eq!(board.serial, Some(0xf59d_3b1c));
    assert_eq!(board.partition, Some(1));
    let first_line = "console=serial0,115200 rootwait";
    assert_eq!(board.cmdline.as_deref(), Some(first_line));
    let boot = board.boot.as_ref().unwrap();
    assert_eq!(boot.point, "/boot");
    let names = [
        "config.txt",
        "kernel.img",
        "kernel7.img",
        "mine.cmd",
        "mine.txt",
        "upstream/kernel7.img",
    ];
    assert_eq!(boot.names.iter().collect::<Vec<_>>(), names);
    assert_eq!(
        boot.texts.keys().collect::<Vec<_>>(),
        ["config.txt", "mine.txt"]
    );
    assert_eq!(host.kernel.image.as_deref(), Some("/boot/kernel7.img"));
}

#[test]
fn a_kernel_that_the_firmware_does_not_start_is_not_that_of_a_raspberry_pi() {
    let machine = raspberry_pi("/boot/firmware", "6.6.51+rpt-rpi-v8\n", 0xa0_20d3);
    machine
        .file("boot/firmware/config.txt", "arm_64bit=1\n")
        .file(
            "boot/vmlinuz-6.6.51+rpt-rpi-v8",
            "Linux version 6.6.51+rpt-rpi-v8 (x)",
        )
        .file(
            "boot/firmware/kernel8.img",
            "Linux version 6.12.47+rpt-rpi-v8 (x)",
        );
    assert_eq!(
        machine.collect().kernel.image,
        None,
        "an update waits for a reboot"
    );
    machine.file(
        "boot/firmware/kernel8.img",
        "Linux version 6.6.51+rpt-rpi-v8 (x)",
    );
    let image = machine.collect().kernel.image;
    assert_eq!(image.as_deref(), Some("/boot/firmware/kernel8.img"));
}

#[test]
fn without_its_boot_partition_a_board_is_still_known() {
    let machine = raspberry_pi("/mnt", "6.6.51+rpt-rpi-v8\n", 0xc0_3115);
    let host = machine.collect();
    let board = host.firmware.raspberry_pi.as_ref().unwrap();
    assert_eq!(board.model().unwrap().name, "4 Model B");
    assert_eq!(board.boot, None);
    assert_eq!(
        board.boots(),
        Err("the boot partition is not mounted".to_owned())
    );
}

/// A BeagleBone: its eMMC is not the first of what the kernel names alike.
#[test]
fn a_board_that_u_boot_starts() {
    let card = "sys/devices/platform/ocp/48060000.mmc/mmc_host/mmc0/mmc0:0001";
    let emmc = "sys/devices/platform/ocp/481d8000.mmc/mmc_host/mmc1/mmc1:0001";
    let machine = Machine::new(
        "27 1 179:9 / / rw,relatime shared:1 - ext4 /dev/mmcblk1p1 rw\n",
        "root=/dev/mmcblk1p1 quiet\n",
    );
    for (number, device, kind) in [(0, card, "SD"), (1, emmc, "MMC")] {
        let disk = format!("{device}/block/mmcblk{number}");
        let area = format!("{disk}boot0");
        machine
            .block(&disk, &format!("179:{}", 8 * number), 4_194_304, None)
            .block(&area, &format!("179:{}", 8 * number + 4), 64, None)
            .link(&format!("{disk}/device"), device)
            .link(&format!("{area}/device"), device)
            .file(&format!("{device}/type"), format!("{kind}\n"));
    }
    machine
        .file(
            "proc/device-tree/compatible",
            "ti,am335x-bone-green\0ti,am335x-bone-black\0ti,am33xx\0",
        )
        .file("proc/device-tree/chosen/linux,initrd-start", [0x88; 4])
        .file("boot/uEnv.txt", "uname_r=1\n")
        .file("boot/extlinux/extlinux.conf", [0xff, 0xfe]);
    let host = machine.collect();
    assert_eq!(host.firmware.kind(), Firmware::Board);
    let wanted = UBoot {
        board: "ti,am335x-bone-green".into(),
        emmc: Some("mmcblk1".into()),
        initramfs: true,
        first_u_env: None,
        u_env: Some("uname_r=1\n".into()),
        extlinux: None,
    };
    assert_eq!(host.firmware.u_boot, Some(wanted));
    // UEFI firmware starts by itself, whatever has started that.
    machine.dir("sys/firmware/efi");
    assert_eq!(machine.collect().firmware.u_boot, None);
}

#[test]
fn only_what_can_carry_a_system_is_a_disk() {
    let machine = Machine::new("", "quiet\n");
    let names = [
        "sr0",
        "mmcblk0boot0",
        "mmcblk0boot1",
        "mmcblk0rpmb",
        "mmcblk0gp0",
        "mmcblk0",
        "fd0",
        "sdb",
        "nvme0c0n1",
    ];
    for (index, name) in names.into_iter().enumerate() {
        let disk = format!("sys/devices/platform/{name}");
        machine
            .block(&disk, &format!("1:{index}"), 64, None)
            .dir(&format!("sys/devices/any/{name}"))
            .link(
                &format!("{disk}/device"),
                &format!("sys/devices/any/{name}"),
            );
    }
    machine
        .file("sys/devices/platform/sdb/size", "0\n")
        .file("sys/devices/platform/nvme0c0n1/hidden", "1\n")
        .file("sys/devices/any/mmcblk0/name", "SD32G\n");
    let host = machine.collect();
    assert_eq!(host.disks.len(), 1);
    assert_eq!(host.disks[0].name, "mmcblk0");
    assert_eq!(host.disks[0].model.as_deref(), Some("SD32G"));
    assert_eq!(host.kernel.image, None);
    assert_eq!(host.kernel.initramfs_formats, None);
}

#[test]
fn a_multipath_nvme_namespace_is_reached_through_its_controllers() {
    let controller = "sys/devices/pci0000:00/0000:01:00.0";
    let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    let disk = &format!("{subsystem}/nvme0n1");
    let machine = Machine::new("", "quiet\n");
    machine
        .block(disk, "259:0", 64, None)
        .link(&format!("{disk}/device"), subsystem)
        .dir(&format!("{controller}/nvme/nvme0"))
        .link(
            &format!("{subsystem}/nvme0"),
            &format!("{controller}/nvme/nvme0"),
        )
        .file(&format!("{controller}/nvme/nvme0/transport"), "pcie\n")
        .driven(controller, "nvme");
    let found = machine.collect().disks.remove(0);
    assert_eq!(
        (found.modules.as_slice(), found.network),
        (&["nvme".to_owned()][..], None)
    );
    machine.file(&format!("{controller}/nvme/nvme0/transport"), "tcp\n");
    let found = machine.collect().disks.remove(0);
    assert_eq!(found.network.as_deref(), Some("nvme-tcp"));
}

#[test]
fn what_an_initiator_reaches_is_no_disk_of_this_machine() {
    for (way, network) in [
        ("platform/host3/session1/target3:0:0/3:0:0:0", Some("iscsi")),
        (
            "pci0000:00/net/eth0/ctlr_0/host7/rport-7:0-0/7:0:0:0",
            Some("fcoe"),
        ),
        ("pci0000:00/ata1/host0/target0:0:0/0:0:0:0", None),
        ("pci0000:00/session-logger/host0/0:0:0:0", None),
    ] {
        let machine = Machine::new("", "quiet\n");
        let device = format!("sys/devices/{way}");
        let disk = format!("{device}/block/sda");
        machine
            .block(&disk, "8:0", 64, None)
            .link(&format!("{disk}/device"), &device);
        let found = machine.collect().disks.remove(0);
        assert_eq!(found.network.as_deref(), network, "{way}");
    }
}

/// What a driver waits for is beside the way to the disk: the USB controller of a Raspberry Pi 4 gets its
/// firmware by what resets it.
#[test]
fn what_the_drivers_wait_for_is_reached_too() {
    let pcie = "sys/devices/platform/scb/fd500000.pcie";
    let usb = &format!("{pcie}/pci0000:00/0000:01:00.0");
    let lun = &format!("{usb}/usb2/2-1/2-1:1.0/host0/target0:0:0/0:0:0:0");
    let reset = "sys/devices/platform/soc/soc:firmware/soc:firmware:reset";
    let link = "sys/devices/virtual/devlink/platform:reset--platform:fd500000.pcie";
    let back = "sys/devices/virtual/devlink/pci:0000:01:00.0--platform:reset";
    let disk = &format!("{lun}/block/sda");
    let machine = Machine::new("", "quiet\n");
    machine
        .block(disk, "8:0", 64, None)
        .link(&format!("{disk}/device"), lun)
        .driven(lun, "sd_mod")
        .driven(&format!("{usb}/usb2/2-1/2-1:1.0"), "uas")
        .driven(usb, "xhci_pci")
        .driven(pcie, "pcie_brcmstb")
        .driven(reset, "reset_raspberrypi")
        .driven("sys/devices/platform/soc/soc:firmware", "raspberrypi")
        .link(&format!("{pcie}/supplier:platform:reset"), link)
        .link(&format!("{link}/supplier"), reset)
        // Two that wait for each other are no way without an end.
        .link(&format!("{reset}/supplier:pci:0000:01:00.0"), back)
        .link(&format!("{back}/supplier"), usb);
    let modules = [
        "sd_mod",
        "uas",
        "xhci_pci",
        "pcie_brcmstb",
        "reset_raspberrypi",
        "raspberrypi",
    ];
    assert_eq!(machine.collect().disks[0].modules, modules);
}

#[test]
fn this_machine() {
    let host = collect(&Sys::new("/")).unwrap();
    assert!(host.memory.total > host.memory.available);
    assert!(!host.kernel.release.is_empty());
}

/// What `balena-migrate facts` printed on real machines stays readable, word for word.
#[test]
fn captured_machines_read_back() {
    let hosts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts");
    for entry in fs::read_dir(hosts).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let host: Host = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let again = serde_json::to_string_pretty(&host).unwrap();
        assert!(again == text.trim_end(), "{}", path.display());
    }
}
