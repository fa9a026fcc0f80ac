//! A machine as stage 1 leaves it: an old system on a disk, an image and a backup on it, a
//! hand-over that describes them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use balena_migrate::ext_space::ExtSpace;
use balena_migrate::handover::{
    DiskIdentity, Extent, FilePath, Firmware, Format, FsIdentity, Handover, Image, ImagePartition,
    Install, LogLevel, OldFile, OldSystem, Overlay, PATH, Payload, Place, Power, ReportPlace,
    Restore, Resume, StoredFile, TableIdentity, Target, VERSION,
};
use balena_migrate::payload::digest::sha256_hex;
use balena_migrate::payload::recognise;
use balena_migrate::report::{self, Report};
use balena_migrate::resume::{RECORD_BYTES, Record, State};
use balena_migrate::stage2::{Ending, run};

use crate::filesystem::{label, noise, pack, scratch, unpack};
use crate::machine::FakeMachine;

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 24 * MIB;
const IMAGE_BYTES: u64 = 9 * MIB + 512 * 3;
const BOOT: (u64, u64) = (MIB, MIB);
const EXTENDED: (u64, u64) = (2 * MIB, 7 * MIB);
const STATE: (u64, u64) = (2 * MIB + 4096, MIB / 2);
/// Where the boot record of resin-data is.
const DATA_RECORD: u64 = 2 * MIB + MIB / 2 + 4096;
pub const DATA: (u64, u64) = (3 * MIB, 6 * MIB);
const OLD_ROOT: (u64, u64) = (MIB, 22 * MIB);

const RECORD: u64 = 20 * MIB;
const EXTENTS: u64 = 10 * MIB;

pub const OLD_ROOT_UUID: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";
const DATA_UUID: &str = "11111111-2222-3333-4444-555555555555";
const OLD_TABLE: u32 = 0xcafe_f00d;
const REPORT_DIR: &str = "/var/lib/balena-migrate";

/// A disk with an MBR of these partitions, its other bytes noise.
fn disk(bytes: u64, id: u32, seed: u32, partitions: &[((u64, u64), &[u8])]) -> Vec<u8> {
    let mut disk = noise(bytes as usize, seed);
    disk[..512].fill(0);
    disk[440..444].copy_from_slice(&id.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (index, ((start, len), content)) in partitions.iter().enumerate() {
        let entry = 446 + 16 * index;
        disk[entry + 4] = 0x83;
        disk[entry + 8..entry + 12].copy_from_slice(&((start / 512) as u32).to_le_bytes());
        disk[entry + 12..entry + 16].copy_from_slice(&((len / 512) as u32).to_le_bytes());
        let start = *start as usize;
        disk[start..start + content.len()].copy_from_slice(content);
    }
    disk
}

/// Writes the entry at `index` of the boot record at `record`.
fn entry(disk: &mut [u8], record: u64, index: usize, kind: u8, start: u64, bytes: u64) {
    let record = record as usize;
    disk[record + 510..record + 512].copy_from_slice(&[0x55, 0xaa]);
    let at = record + 446 + 16 * index;
    disk[at + 4] = kind;
    disk[at + 8..at + 12].copy_from_slice(&((start / 512) as u32).to_le_bytes());
    disk[at + 12..at + 16].copy_from_slice(&((bytes / 512) as u32).to_le_bytes());
}

/// An image as balenaOS has them: resin-data is partition 6, the second of the logical ones.
fn image(boot: &[u8], data: &[u8]) -> Vec<u8> {
    let mut image = disk(IMAGE_BYTES, 0x600d_d15c, 3, &[(BOOT, boot), (DATA, data)]);
    image[..440].copy_from_slice(&noise(440, 31));
    entry(&mut image, 0, 1, 0x0f, EXTENDED.0, EXTENDED.1);
    for record in [EXTENDED.0, DATA_RECORD] {
        image[record as usize..record as usize + 512].fill(0);
    }
    entry(
        &mut image,
        EXTENDED.0,
        0,
        0x83,
        STATE.0 - EXTENDED.0,
        STATE.1,
    );
    let rest = EXTENDED.0 + EXTENDED.1 - DATA_RECORD;
    entry(
        &mut image,
        EXTENDED.0,
        1,
        0x05,
        DATA_RECORD - EXTENDED.0,
        rest,
    );
    entry(
        &mut image,
        DATA_RECORD,
        0,
        0x83,
        DATA.0 - DATA_RECORD,
        DATA.1,
    );
    image
}

/// What all worlds have in common, made once.
struct Made {
    image: Vec<u8>,
    compressed: Vec<u8>,
    old_disk: Vec<u8>,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = scratch();
        fs::write(dir.path().join("os-release"), "ID=balena-os\n").unwrap();
        // The file that is replaced has another hash in the new system.
        for (folder, file) in [("EFI", "efi"), ("grub", "grub")] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join(file), file).unwrap();
        }
        let fingerprint = "78a29b137dee61572d2929bff5a9f28b  ./os-release\n\
             a9585ee26b99b02fd19465902f2fd4d5  ./EFI/efi\n\
             2d675138350c28dedd2793e2aabf05ff  ./grub/grub\n\
             d41d8cd98f00b204e9800998ecf8427e  ./system-connections/WIFI\n";
        fs::write(dir.path().join("balenaos.fingerprint"), fingerprint).unwrap();
        let boot = pack(
            dir.path(),
            &label("vfat", "ABCD-0001", "resin-boot"),
            BOOT.1,
        );
        let dir = scratch();
        fs::write(dir.path().join("apps"), noise(300_000, 7)).unwrap();
        let data = pack(dir.path(), &label("ext4", DATA_UUID, "resin-data"), DATA.1);
        let image = image(&boot, &data);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&image).unwrap();
        let empty = scratch();
        let root = pack(
            empty.path(),
            &label("ext4", OLD_ROOT_UUID, "old"),
            OLD_ROOT.1,
        );
        Made {
            compressed: gz.finish().unwrap(),
            image,
            old_disk: disk(DISK_BYTES, OLD_TABLE, 5, &[(OLD_ROOT, &root)]),
        }
    })
}

/// A prepared machine, to be changed by a test before it runs.
pub struct World {
    pub dir: tempfile::TempDir,
    pub machine: FakeMachine,
    pub handover: Handover,
    /// The disk as stage 1 left it.
    pub before: Vec<u8>,
    /// The image with what goes over it.
    image: Vec<u8>,
}

impl World {
    pub fn new() -> World {
        World::with_image(Format::Gzip, &made().compressed)
    }

    /// With the image in a file of another format, which `pack` makes of it.
    pub fn with_packed_image(pack: impl FnOnce(&Path, &Path)) -> World {
        let dir = scratch();
        let (from, to) = (dir.path().join("balena.img"), dir.path().join("packed"));
        fs::write(&from, &made().image).unwrap();
        pack(&from, &to);
        let file = fs::read(to).unwrap();
        let format = recognise(&mut std::io::Cursor::new(&file)).unwrap();
        World::with_image(format, &file)
    }

    fn with_image(format: Format, file: &[u8]) -> World {
        let dir = scratch();
        let mut machine = FakeMachine::new(dir.path());
        let medium = dir.path().join("sda.img");
        fs::write(&medium, &made().old_disk).unwrap();
        machine.add_disk("sda", medium, Some("S1"));
        let old = dir.path().join("old");
        machine.folders.insert(OLD_ROOT_UUID.into(), old.clone());

        let put = |path: &str, bytes: &[u8]| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        put("old/home/user/image", file);
        put("old/home/user/backup.tgz", &noise(100_000, 11));
        put("old/boot/grub/grubenv", b"armed");
        put("old/boot/grub/custom.cfg", b"our entry");
        fs::create_dir_all(old.join(&REPORT_DIR[1..])).unwrap();
        put("initramfs/restore/0", b"as it was");
        put("initramfs/files/config.json", CONFIG_JSON);
        put("initramfs/files/wifi", WIFI);
        put("initramfs/modules/ext4.ko", b"");
        let handover = handover(format, file);
        World {
            dir,
            machine,
            handover,
            before: made().old_disk.clone(),
            image: made().image.clone(),
        }
    }

    /// With the old system on a disk of its own, `sdb`, where it stays; the one to overwrite is a new
    /// one without a partition table.
    pub fn beside(mut self) -> World {
        let old = self.copy_of_disk("sdb");
        self.machine.add_disk("sdb", old, Some("S0"));
        self.before = noise(DISK_BYTES as usize, 53);
        self.change_disk(0, &self.before);
        let target = &mut self.machine.disks.get_mut().unwrap()[0].disk;
        target.partitions.clear();
        self.handover.disk.table = None;
        self.handover.disk.old_system = OldSystem::Stays(old_root());
        self
    }

    /// With the files for the new system on the old one, and not beside stage 2.
    pub fn with_files_aside(mut self) -> World {
        let initramfs = self.dir.path().join("initramfs");
        for (number, file) in self.handover.install.iter_mut().enumerate() {
            let path = format!("{REPORT_DIR}/install-{number}");
            let packed = initramfs.join(&file.content[1..]);
            fs::copy(&packed, self.dir.path().join("old").join(&path[1..])).unwrap();
            fs::remove_file(packed).unwrap();
            file.content = format!("/balena-migrate/install/{number}");
            file.from = Some(FilePath {
                fs: old_root(),
                path,
            });
        }
        self
    }

    /// With a record on the disk, so that a flash goes on where it was.
    pub fn with_record(mut self) -> World {
        self.handover.resume = Some(Resume {
            record: Extent {
                start: RECORD,
                bytes: RECORD_BYTES,
            },
            first_sector: "90".repeat(440),
            secrets: Vec::new(),
        });
        self.set_record(0, State::Prepared(Vec::new()));
        let image = self.old("home/user/image").unwrap();
        self.handover.payload.file.place = self.keep(EXTENTS, &image);
        let backup = self.old("home/user/backup.tgz").unwrap();
        self.handover.backup.as_mut().unwrap().place = self.keep(RECORD + MIB, &backup);
        self
    }

    /// Puts a file onto the disk itself.
    fn keep(&self, start: u64, file: &[u8]) -> Place {
        self.change_disk(start, file);
        let bytes = (file.len() as u64).next_multiple_of(512);
        Place::Extents(vec![Extent { start, bytes }])
    }

    /// Writes the record to the disk.
    pub fn set_record(&self, number: u64, state: State) {
        let run_id = self.handover.run_id.clone();
        let (offset, slot) = Record {
            run_id,
            number,
            state,
        }
        .slot();
        self.change_disk(RECORD + offset, &slot);
    }

    /// What the record on the disk says.
    pub fn record(&self) -> State {
        let record = &self.disk()[RECORD as usize..][..RECORD_BYTES as usize];
        Record::read(record).unwrap().state
    }

    /// Lets a byte of the image change with the first exclusive open of the disk, and change back with
    /// the second.
    pub fn flip_payload(&self) {
        let (file, at) = match &self.handover.payload.file.place {
            Place::Extents(_) => ("sda.img", EXTENTS),
            _ => ("store/payload", 0),
        };
        let flips = (2, self.dir.path().join(file), at + 1000);
        self.machine.faults.lock().unwrap().flips = Some(flips);
    }

    /// Writes to the medium, past everybody.
    pub fn change_disk(&self, at: u64, bytes: &[u8]) {
        let medium = self.dir.path().join("sda.img");
        let medium = fs::File::options().write(true).open(medium).unwrap();
        medium.write_all_at(bytes, at).unwrap();
    }

    /// Runs stage 2 to its ending; an error where it would go on for ever, or panicked.
    pub fn run(&self) -> Result<Ending, String> {
        let path = self.dir.path().join("initramfs").join(&PATH[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, self.handover.to_bytes()).unwrap();
        self.attempt(|| run(&self.machine))
    }

    pub fn attempt(&self, act: impl FnOnce() -> Ending) -> Result<Ending, String> {
        catch_unwind(AssertUnwindSafe(act)).map_err(|panic| match panic.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        })
    }

    /// Runs it and expects it to stop with `code`, the disk and the old system untouched.
    pub fn stops_with(&self, code: &str) {
        let ending = self.run();
        let Ok(Ending::Stopped(stop)) = &ending else {
            panic!("{ending:?}\n{}", self.machine.shown());
        };
        assert_eq!(stop.code.name(), code, "{stop}");
        self.is_untouched();
        let report::Outcome::Stopped {
            code: reported,
            reason,
            ..
        } = self.report().outcome
        else {
            panic!("{:?}", self.report());
        };
        assert_eq!(reported, code);
        assert!(!reason.is_empty());
        self.boot_is_restored();
    }

    pub fn migrates(&self) {
        let ending = self.run();
        assert!(
            matches!(ending, Ok(Ending::Migrated)),
            "{ending:?}\n{}",
            self.machine.shown()
        );
        self.is_migrated();
    }

    pub fn is_untouched(&self) {
        assert!(self.disk() == self.before, "the disk has changed");
    }

    pub fn boot_is_restored(&self) {
        assert_eq!(self.old("boot/grub/grubenv").unwrap(), b"as it was");
        assert_eq!(self.old("boot/grub/custom.cfg"), None);
    }

    /// The image is on the disk, with the files in it, and nothing of the old system behind it.
    pub fn is_migrated(&self) {
        let (disk, mut image) = (self.disk(), self.image.clone());
        let data_end = DATA.0 + DATA.1;
        let grown_end = self.handover.payload.image.data_end.unwrap_or(data_end);
        if grown_end > data_end {
            entry(&mut image, 0, 1, 0x0f, EXTENDED.0, grown_end - EXTENDED.0);
            let (record, rest) = (DATA_RECORD - EXTENDED.0, grown_end - DATA_RECORD);
            entry(&mut image, EXTENDED.0, 1, 0x05, record, rest);
            let data = (DATA.0 - DATA_RECORD, grown_end - DATA.0);
            entry(&mut image, DATA_RECORD, 0, 0x83, data.0, data.1);
        }
        let efi = self.handover.firmware == Firmware::Efi;
        if efi {
            image[..446].fill(0);
        }
        let between = |from: u64, to: u64| {
            let (from, to) = (from as usize, to as usize);
            disk[from..to] == image[from..to]
        };
        assert!(between(0, BOOT.0), "before resin-boot");
        assert!(between(EXTENDED.0, DATA.0), "resin-state");
        assert!(
            grown_end > IMAGE_BYTES || between(data_end, IMAGE_BYTES),
            "behind resin-data"
        );
        assert!(
            disk[(DISK_BYTES - MIB) as usize..]
                .iter()
                .all(|byte| *byte == 0)
        );
        let files = scratch();
        let read = |name: &str| fs::read(files.path().join(name)).unwrap_or_default();
        let at = |(start, len): (u64, u64)| &disk[start as usize..(start + len) as usize];
        let data = (DATA.0, grown_end - DATA.0);
        let backup = self.old("home/user/backup.tgz").unwrap();
        unpack(at(BOOT), "vfat", files.path());
        assert_eq!(read("os-release"), b"ID=balena-os\n");
        let on_boot = read("migrate.log");
        // A board has a firmware that takes neither.
        let bios = self.handover.firmware == Firmware::Bios;
        assert_eq!(read("EFI/efi"), if bios { "" } else { "efi" }.as_bytes());
        assert_eq!(read("grub/grub"), if efi { "" } else { "grub" }.as_bytes());
        assert_eq!(read("config.json"), CONFIG_JSON);
        assert_eq!(read("system-connections/wifi"), WIFI);
        unpack(at(data), "ext4", files.path());
        assert!(read("apps") == noise(300_000, 7));
        assert!(read("backup.tgz") == backup);
        let space = ExtSpace::read(at(data)).unwrap();
        assert_eq!(
            space.blocks,
            space.blocks_in(data.1),
            "the size of its ext4"
        );
        if self.machine.faults.lock().unwrap().log_in_the_way {
            return;
        }
        let log = String::from_utf8(read("migrate.log")).unwrap();
        assert!(log.contains("overwrite: done"), "{log}");
        assert_eq!(String::from_utf8(on_boot).unwrap(), log);
    }

    /// Gives the old system another backup.
    pub fn set_backup(&mut self, bytes: &[u8]) {
        self.change_old("home/user/backup.tgz", |old| *old = bytes.to_vec());
        self.handover.backup = Some(stored("/home/user/backup.tgz", bytes));
    }

    pub fn disk(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("sda.img")).unwrap()
    }

    /// Writes to the disk as stage 1 does.
    pub fn lay(&mut self, at: u64, bytes: &[u8]) {
        self.before[at as usize..][..bytes.len()].copy_from_slice(bytes);
        self.change_disk(at, bytes);
    }

    /// The first sector of the image.
    pub fn first_sector(&self) -> &[u8] {
        &self.image[..512]
    }

    /// With a boot loader over the image's first sectors.
    pub fn with_new_grub(mut self) -> World {
        for (number, (at, bytes)) in [(0, noise(440, 41)), (512, noise(40_000, 43))]
            .into_iter()
            .enumerate()
        {
            let content = format!("/files/overlay-{number}");
            fs::write(self.dir.path().join(format!("initramfs{content}")), &bytes).unwrap();
            self.image[at..at + bytes.len()].copy_from_slice(&bytes);
            self.handover.payload.image.overlays.push(Overlay {
                content,
                at: at as u64,
                bytes: bytes.len() as u64,
                sha256: sha256_hex(&bytes),
            });
        }
        self
    }

    /// A file of the old system.
    pub fn old(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.dir.path().join("old").join(path)).ok()
    }

    pub fn change_old(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.old(path).unwrap();
        change(&mut bytes);
        fs::write(self.dir.path().join("old").join(path), bytes).unwrap();
    }

    pub fn report(&self) -> Report {
        let path = format!("{}/{}", &REPORT_DIR[1..], report::FILE);
        serde_json::from_slice(&self.old(&path).expect("a report")).unwrap()
    }

    /// The log that was left on the old system.
    pub fn old_log(&self) -> String {
        let path = format!("{}/{}", &REPORT_DIR[1..], report::LOG_FILE);
        String::from_utf8(self.old(&path).expect("a log")).unwrap()
    }

    /// A second disk with the same bytes.
    pub fn copy_of_disk(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{name}.img"));
        fs::write(&path, self.disk()).unwrap();
        path
    }
}

const CONFIG_JSON: &[u8] = b"{\"apiKey\":\"very-secret\"}";
const WIFI: &[u8] = b"[connection]\nid=home\n";

fn stored(path: &str, bytes: &[u8]) -> StoredFile {
    StoredFile {
        place: Place::Memory(FilePath {
            fs: old_root(),
            path: path.to_owned(),
        }),
        bytes: bytes.len() as u64,
        sha256: sha256_hex(bytes),
    }
}

fn old_root() -> FsIdentity {
    FsIdentity {
        uuid: OLD_ROOT_UUID.to_owned(),
        fs_type: "ext4".to_owned(),
    }
}

fn partition(number: u32, fs_type: &str, label: &str, place: (u64, u64)) -> ImagePartition {
    ImagePartition {
        number,
        label: label.to_owned(),
        fs_type: fs_type.to_owned(),
        start: place.0,
        bytes: place.1,
    }
}

fn install(content: &str, path: &str, bytes: &[u8]) -> Install {
    Install {
        content: content.to_owned(),
        from: None,
        partition: Target::Boot,
        path: path.to_owned(),
        bytes: bytes.len() as u64,
        sha256: sha256_hex(bytes),
    }
}

fn handover(format: Format, file: &[u8]) -> Handover {
    let restore = |path: &str, old: Option<OldFile>| Restore {
        fs: old_root(),
        path: path.to_owned(),
        old,
    };
    // The owner must be one that the test may give a file to.
    let me = fs::metadata("/proc/self").unwrap();
    let old_file = OldFile {
        content: "/restore/0".to_owned(),
        mode: 0o640,
        uid: std::os::unix::fs::MetadataExt::uid(&me),
        gid: std::os::unix::fs::MetadataExt::gid(&me),
    };
    Handover {
        version: VERSION,
        run_id: "run-1".to_owned(),
        disk: DiskIdentity {
            bytes: DISK_BYTES,
            sector_bytes: 512,
            serial: Some("S1".to_owned()),
            wwid: None,
            table: Some(TableIdentity::Mbr(format!("{OLD_TABLE:08x}"))),
            old_system: OldSystem::Overwritten(old_root()),
        },
        modules: vec!["/modules/ext4.ko".to_owned()],
        restore: vec![
            restore("/boot/grub/grubenv", Some(old_file)),
            restore("/boot/grub/custom.cfg", None),
        ],
        payload: Payload {
            file: stored("/home/user/image", file),
            format,
            image: Image {
                bytes: IMAGE_BYTES,
                sha256: sha256_hex(&made().image),
                boot: partition(1, "vfat", "resin-boot", BOOT),
                data: partition(6, "ext4", "resin-data", DATA),
                data_end: None,
                overlays: Vec::new(),
                fingerprint: true,
            },
        },
        backup: Some(stored("/home/user/backup.tgz", &noise(100_000, 11))),
        install: vec![
            install("/files/config.json", "/config.json", CONFIG_JSON),
            install("/files/wifi", "/system-connections/wifi", WIFI),
        ],
        report: ReportPlace {
            fs: old_root(),
            dir: REPORT_DIR.to_owned(),
        },
        firmware: Firmware::Bios,
        efi: None,
        log_drive: None,
        memory_reserve: 64 * MIB,
        resume: None,
        pretend: false,
        machine: "old-server".to_owned(),
        power: Power::Hold,
        log_level: LogLevel::Info,
    }
}
