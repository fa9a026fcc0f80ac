//! Flashes an image onto a block device with the code of stage 2, and says how long that took.
//! Started by `util/bench`, which makes both of them.
//!
//!   bench DEVICE IMAGE.RAW PACKED
//!   bench PACKED
//!
//! Everything but the device is played: the old system is the folder that PACKED is in. On standard
//! output: seconds of the test decompression, and seconds of the flash with its reading back. With
//! PACKED alone it is unpacked to nowhere, which the seconds are of.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use balena_migrate::handover::{
    DiskIdentity, FilePath, Firmware, FsIdentity, Handover, Image, ImagePartition, LogLevel,
    OldSystem, Payload, Place, Power, ReportPlace, StoredFile, VERSION,
};
use balena_migrate::meminfo::Peak;
use balena_migrate::payload::digest::Sha256Writer;
use balena_migrate::payload::table::{HEAD_BYTES as TABLE_BYTES, Slot, TableParser};
use balena_migrate::payload::{decoder, read_full, recognise};
use balena_migrate::stage2::log::Log;
use balena_migrate::stage2::machine::{Access, Device, Disk, Machine, Message, Mounted, Section};
use balena_migrate::stage2::stream::BLOCK;
use balena_migrate::stage2::{Work, find, let_go, overwrite, rearm, secure};
use balena_migrate::superblock::{self, HEAD_BYTES};
use balena_migrate::sys::Sys;
use balena_migrate::sys::block::BlockDevice;

fn main() -> io::Result<()> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [packed] => unpack(Path::new(packed)),
        [device, raw, packed] => flash(Path::new(device), Path::new(raw), Path::new(packed)),
        _ => {
            eprintln!("usage: bench [DEVICE IMAGE.RAW] PACKED");
            std::process::exit(2);
        }
    }
}

fn unpack(packed: &Path) -> io::Result<()> {
    let mut file = File::open(packed)?;
    let format = recognise(&mut file).map_err(io::Error::other)?;
    let mut unpacked = decoder(format, File::open(packed)?);
    let mut block = vec![0; BLOCK];
    let start = Instant::now();
    while read_full(&mut unpacked, &mut block)? > 0 {}
    println!("- {:.2}", start.elapsed().as_secs_f64());
    Ok(())
}

fn flash(device: &Path, raw: &Path, packed: &Path) -> io::Result<()> {
    let machine = Bench::new(device, packed.parent().unwrap_or(Path::new(".")))?;
    let handover = handover(&machine.disk, raw, packed)?;
    let log = Log::open(&machine);
    let work = Work::new(&handover, &machine, &log);
    let found = find::disk(&work).map_err(|stop| io::Error::other(stop.reason()))?;
    let find::Seen::Whole(found) = found else {
        return Err(io::Error::other("the device holds a torn flash"));
    };
    let start = Instant::now();
    let secured = secure::secure(&work, found);
    let unpacking = start.elapsed();
    let armed = secured
        .and_then(|secured| let_go::let_go(&work, secured))
        .and_then(|free| rearm::rearm(&work, free))
        .map_err(|stop| io::Error::other(stop.reason()))?;
    let start = Instant::now();
    let _flashed = overwrite::overwrite(&work, armed);
    println!(
        "{:.2} {:.2}",
        unpacking.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// What stage 1 would have handed over.
fn handover(disk: &Disk, raw: &Path, packed: &Path) -> io::Result<Handover> {
    let mut head = vec![0; HEAD_BYTES];
    File::open(&disk.node)?.read_exact(&mut head)?;
    let old = superblock::identify(&head).ok_or(io::Error::other("no old root"))?;
    let old_root = FsIdentity {
        uuid: old.uuid,
        fs_type: old.fs_type.to_owned(),
    };
    let (bytes, sha256) = measure(packed)?;
    let file = StoredFile {
        place: Place::Memory(FilePath {
            fs: old_root.clone(),
            path: format!("/{}", packed.file_name().unwrap_or_default().display()),
        }),
        bytes,
        sha256,
    };
    let table = superblock::table_identity(&head, disk.sector_bytes);
    Ok(Handover {
        version: VERSION,
        run_id: "bench".to_owned(),
        disk: DiskIdentity {
            bytes: disk.bytes,
            sector_bytes: disk.sector_bytes,
            serial: None,
            wwid: None,
            table,
            old_system: OldSystem::Overwritten(old_root.clone()),
        },
        modules: Vec::new(),
        restore: Vec::new(),
        payload: Payload {
            file,
            format: recognise(&mut File::open(packed)?).map_err(io::Error::other)?,
            image: image(raw)?,
        },
        backup: None,
        install: Vec::new(),
        report: ReportPlace {
            fs: old_root,
            dir: "/".to_owned(),
        },
        firmware: Firmware::Bios,
        efi: None,
        log_drive: None,
        log_level: LogLevel::Info,
        power: Power::Hold,
        machine: "bench".to_owned(),
        memory_reserve: 0,
        resume: None,
        pretend: false,
    })
}

/// The unpacked image: its first partition is resin-boot, its second resin-data.
fn image(raw: &Path) -> io::Result<Image> {
    let mut head = vec![0; TABLE_BYTES];
    File::open(raw)?.read_exact(&mut head)?;
    let (_, found) = TableParser::default()
        .head(&head)
        .map_err(io::Error::other)?;
    let [boot, data] = found.slots.as_slice() else {
        return Err(io::Error::other("the image must have two partitions"));
    };
    let partition = |slot: &Slot, label: &str, fs_type: &str| ImagePartition {
        number: slot.number,
        label: label.to_owned(),
        fs_type: fs_type.to_owned(),
        start: slot.start,
        bytes: slot.bytes,
    };
    let (bytes, sha256) = measure(raw)?;
    Ok(Image {
        bytes,
        sha256,
        boot: partition(boot, "resin-boot", "vfat"),
        data: partition(data, "resin-data", "ext4"),
        data_end: None,
        overlays: Vec::new(),
        fingerprint: false,
    })
}

fn measure(path: &Path) -> io::Result<(u64, String)> {
    let mut sha256 = Sha256Writer::default();
    let bytes = io::copy(
        &mut BufReader::with_capacity(1 << 20, File::open(path)?),
        &mut sha256,
    )?;
    Ok((bytes, sha256.hex()))
}

/// A machine with one disk.
struct Bench {
    disk: Disk,
    start: Instant,
    memory: tempfile::TempDir,
    old: PathBuf,
}

impl Bench {
    fn new(node: &Path, old: &Path) -> io::Result<Bench> {
        let disk = Disk {
            name: "disk".to_owned(),
            node: node.to_owned(),
            bytes: BlockDevice::open(node, Access::Read)?.bytes()?,
            sector_bytes: 512,
            serial: None,
            wwid: None,
            partitions: Vec::new(),
        };
        Ok(Bench {
            disk,
            start: Instant::now(),
            memory: tempfile::tempdir_in(old)?,
            old: old.to_owned(),
        })
    }
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Machine for Bench {
    fn initramfs(&self) -> &Path {
        self.memory.path()
    }

    fn memory_dir(&self) -> &Path {
        self.memory.path()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn show(&self, line: &str) {
        eprintln!("{line}");
    }

    fn draw(&self, _lines: &[String]) {}

    fn kernel_log(&self) -> io::Result<Vec<Message>> {
        Ok(Vec::new())
    }

    fn power_off(&self) -> io::Result<Infallible> {
        unsupported()
    }

    fn load_module(&self, _path: &Path) -> io::Result<()> {
        unsupported()
    }

    fn disks(&self) -> io::Result<Vec<Disk>> {
        Ok(vec![self.disk.clone()])
    }

    fn open(&self, node: &Path, access: Access) -> io::Result<Box<dyn Device>> {
        Ok(Box::new(BlockDevice::open(node, access)?))
    }

    fn set_partitions(&self, _disk: &Disk, _sections: &[Section]) -> io::Result<()> {
        unsupported()
    }

    fn mount(&self, _node: &Path, _type: &str, _writable: bool) -> io::Result<Box<dyn Mounted>> {
        Ok(Box::new(Folder(self.old.clone())))
    }

    fn unmount_all(&self, _disk: &Disk) -> io::Result<()> {
        Ok(())
    }

    fn release_holders(&self, _disk: &Disk) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn efi_variables(&self) -> io::Result<Sys> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn memory_available(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn memory_peak(&self) -> io::Result<Peak> {
        unsupported()
    }

    fn make_store(&self, _bytes: u64) -> io::Result<Box<dyn Mounted>> {
        Ok(Box::new(Folder(self.memory.path().to_owned())))
    }

    fn find_store(&self) -> io::Result<Box<dyn Mounted>> {
        unsupported()
    }
}

/// A folder that passes for a mounted file system.
struct Folder(PathBuf);

impl Mounted for Folder {
    fn files(&self) -> Sys {
        Sys::new(&self.0)
    }

    fn grow(&self, _blocks: u64) -> io::Result<()> {
        unsupported()
    }

    fn close(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}
