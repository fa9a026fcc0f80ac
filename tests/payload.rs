//! Looking into an image while it streams past: real file systems in a real partition table, and
//! what can be wrong with the file.

#[path = "stage2/filesystem.rs"]
mod filesystem;

use std::fs;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::process::Command;
use std::sync::OnceLock;

use balena_migrate::handover::{Format, TableIdentity};
use balena_migrate::payload::digest::sha256_hex;
use balena_migrate::payload::scan::{Scan, ScanError, scan};
use filesystem::{label, noise, pack, unpack};
use flate2::Compression;
use flate2::write::GzEncoder;

const MIB: usize = 1 << 20;

/// Label, type, first MiB and MiB of each partition; the last two are logical.
const PARTITIONS: [(&str, &str, usize, usize); 5] = [
    ("resin-boot", "vfat", 4, 4),
    ("resin-rootA", "ext4", 8, 2),
    ("resin-rootB", "ext4", 10, 2),
    ("resin-state", "ext4", 13, 2),
    ("resin-data", "ext4", 16, 2),
];

/// An image as balenaOS has it: MBR, three primary partitions, an extended one with two in it.
fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut image = partition_table(
            "label: dos\nlabel-id: 0x0badcafe\nstart=4MiB size=4MiB type=e\nstart=8MiB size=2MiB\n\
             start=10MiB size=2MiB\nstart=12MiB type=5\nstart=13MiB size=2MiB\nstart=16MiB size=2MiB\n",
        );
        for (name, fs_type, start, len) in PARTITIONS {
            let dir = tempfile::tempdir().unwrap();
            if name == "resin-boot" {
                let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
                write("os-release", b"ID=\"balena-os\"\nSLUG=\"intel-nuc\"\nPRETTY_NAME=\"balenaOS 6\"\n");
                write("device-type.json", b"{\"slug\":\"intel-nuc\",\"aliases\":[\"nuc\"],\"arch\":\"amd64\"}");
                write("kernel", &noise(MIB, 3));
                write("balena-image", b"");
                fs::create_dir(dir.path().join("splash")).unwrap();
                write("splash/logo", b"hello\n");
                fs::create_dir_all(dir.path().join("EFI/BOOT/themes")).unwrap();
                write("EFI/BOOT/bootx64.efi", b"MZ");
                write("balenaos.fingerprint", b"b1946ac92492d2347c6235b4d2611184  ./splash/logo\n");
            }
            let like = label(
                fs_type,
                match fs_type {
                    "vfat" => "1234-ABCD",
                    _ => "0f0e0d0c-0b0a-0908-0706-050403020100",
                },
                name,
            );
            let bytes = pack(dir.path(), &like, (len * MIB) as u64);
            image[start * MIB..(start + len) * MIB].copy_from_slice(&bytes);
        }
        image
    })
}

/// An empty image of 20 MiB with the table that sfdisk makes of `script`.
fn partition_table(script: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(20 * MIB as u64).unwrap();
    let mut sfdisk = Command::new("/usr/sbin/sfdisk")
        .args(["--quiet", "--no-reread"])
        .arg(file.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("starting sfdisk");
    let mut input = sfdisk.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    assert!(sfdisk.wait().unwrap().success(), "sfdisk failed");
    fs::read(file.path()).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

fn scan_of(file: &[u8]) -> Result<Scan, ScanError> {
    scan_from(Cursor::new(file))
}

fn scan_from(file: impl Read + Seek) -> Result<Scan, ScanError> {
    scan(file, tempfile::tempfile().unwrap(), false, &mut |_| ())
}

#[track_caller]
fn refused(file: &[u8]) -> String {
    scan_of(file).expect_err("it is damaged").to_string()
}

#[test]
fn a_balena_image_is_known_by_its_tables_labels_and_files() {
    let file = gzip(image());
    let scan = scan_of(&file).unwrap();
    assert_eq!(scan.image_bytes, 20 * MIB as u64);
    assert_eq!(scan.image_sha256, sha256_hex(image()));
    assert_eq!(scan.file_bytes, file.len() as u64);
    assert_eq!(scan.file_sha256, sha256_hex(&file));
    assert_eq!(scan.table, TableIdentity::Mbr("0badcafe".into()));
    let found: Vec<(u32, &str, &str, u64, u64)> = scan
        .partitions
        .iter()
        .map(|p| {
            (
                p.number,
                p.label.as_str(),
                p.fs_type.as_str(),
                p.start,
                p.bytes,
            )
        })
        .collect();
    let expected: Vec<(u32, &str, &str, u64, u64)> = [1, 2, 3, 5, 6]
        .into_iter()
        .zip(PARTITIONS)
        .map(|(number, (label, fs_type, start, len))| {
            (
                number,
                label,
                fs_type,
                (start * MIB) as u64,
                (len * MIB) as u64,
            )
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(scan.slug(), Some("intel-nuc"));
    assert!(scan.boot.fingerprint);
    assert_eq!(scan.boot.efi_loaders, ["BOOTX64.EFI"]);
    assert!(!scan.boot_code, "sfdisk writes none");
    let mut started = image().to_vec();
    started[439] = 1;
    assert!(scan_of(&gzip(&started)).unwrap().boot_code);
    started[439] = 0;
    started[440] = 1;
    assert!(!scan_of(&gzip(&started)).unwrap().boot_code, "a signature");
    let device_type = scan.boot.device_type.as_ref().unwrap();
    assert_eq!(device_type.slug.as_deref(), Some("intel-nuc"));
    assert_eq!(device_type.aliases, ["nuc"]);
    assert_eq!(device_type.arch.as_deref(), Some("amd64"));
    assert!(!scan.is_flasher());
    let free = 2 * MIB as u64..3 * MIB as u64;
    assert!(
        free.contains(&scan.boot.free),
        "{} bytes free",
        scan.boot.free
    );
}

#[test]
fn an_image_that_comes_in_crumbs_is_the_same_image() {
    /// Gives a few bytes at a time, of a size that fits nothing.
    struct Crumbs<'a>(Cursor<&'a [u8]>);
    impl Read for Crumbs<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = buf.len().min(4099);
            self.0.read(&mut buf[..n])
        }
    }
    impl Seek for Crumbs<'_> {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }
    let file = gzip(image());
    assert_eq!(
        scan_from(Crumbs(Cursor::new(&file))).unwrap(),
        scan_of(&file).unwrap()
    );
}

#[test]
fn several_gzip_members_are_one_image() {
    let (a, b) = image().split_at(5 * MIB + 17);
    let file = [gzip(a), gzip(b)].concat();
    let scan = scan_of(&file).unwrap();
    assert_eq!(scan.image_sha256, sha256_hex(image()));
    assert_eq!(scan.partitions.len(), 5);
}

#[test]
fn a_gpt_image_is_known_too() {
    let mut image = partition_table(
        "label: gpt\nlabel-id: 0F0E0D0C-0B0A-0908-0706-050403020100\nstart=4MiB size=4MiB\n\
         start=8MiB size=2MiB\n",
    );
    let dir = tempfile::tempdir().unwrap();
    let uuid = "0f0e0d0c-0b0a-0908-0706-050403020101";
    let root = pack(
        dir.path(),
        &label("ext4", uuid, "flash-rootA"),
        2 * MIB as u64,
    );
    image[8 * MIB..10 * MIB].copy_from_slice(&root);
    let scan = scan_of(&gzip(&image)).unwrap();
    let guid = "0f0e0d0c-0b0a-0908-0706-050403020100";
    assert_eq!(scan.table, TableIdentity::Gpt(guid.into()));
    assert_eq!(scan.partitions.len(), 1);
    assert_eq!(scan.partitions[0].number, 2);
    assert!(scan.is_flasher(), "a flash-rootA is an installer");
}

#[test]
fn a_flasher_is_known_by_the_names_in_its_gpt_alone() {
    let table = |name: &str| {
        gzip(&partition_table(&format!(
            "label: gpt\nstart=4MiB size=4MiB name={name}\n"
        )))
    };
    assert!(scan_of(&table("flash-boot")).unwrap().is_flasher());
    assert!(!scan_of(&table("resin-boot")).unwrap().is_flasher());
}

#[test]
fn a_raw_image_is_an_image_too() {
    let scan = scan_of(image()).unwrap();
    assert_eq!(scan.format, Format::Raw);
    assert_eq!(scan.file_sha256, scan.image_sha256);
    assert_eq!(scan.image_sha256, sha256_hex(image()));
    assert_eq!(scan.partitions.len(), 5);
    let truncated = "it has 17825792 bytes, but its partition 6 reaches up to byte 18874368";
    assert_eq!(refused(&image()[..17 * MIB]), truncated);
    assert_eq!(
        refused(&[image(), b"garbage"].concat()),
        "it has 20971527 bytes, which is no whole number of sectors (truncated or damaged file)"
    );
}

#[test]
fn a_file_that_is_not_whole_is_refused_with_the_reason() {
    let whole = gzip(image());
    let truncated = "the gzip stream ends too early (truncated file)";
    assert_eq!(refused(&whole[..whole.len() / 2]), truncated);
    assert_eq!(refused(&whole[..whole.len() - 4]), truncated);
    let mut flipped = whole.clone();
    let crc = flipped.len() - 8;
    flipped[crc] ^= 1;
    assert!(refused(&flipped).starts_with("the gzip stream is damaged: "));
}

#[test]
fn a_file_that_is_no_image_is_refused_with_the_reason() {
    let unknown = "it is neither compressed with gzip, zip, xz, zstd or bzip2 nor a raw disk image";
    assert_eq!(refused(b""), unknown);
    assert_eq!(refused(b"<html>404"), unknown);
    assert_eq!(refused(&noise(MIB, 5)), unknown);
    assert!(refused(b"PK\x03\x04 a zip").starts_with("the zip file is truncated or damaged: "));
    let no_table = "it does not start with a partition table";
    assert_eq!(refused(&gzip(b"short")), no_table);
    assert_eq!(refused(&gzip(&noise(MIB, 9))), no_table);
    assert_eq!(refused(&gzip(&vec![0; MIB])), no_table);
}

#[test]
fn an_image_that_ends_before_its_partitions_is_refused() {
    assert_eq!(
        refused(&gzip(&image()[..17 * MIB])),
        "it has 17825792 bytes, but its partition 6 reaches up to byte 18874368"
    );
}

#[test]
fn logical_partitions_in_falling_order_are_refused() {
    let mut image = image().to_vec();
    // The second entry of the first extended boot record: make it point to the record itself.
    let entry = 12 * MIB + 446 + 16;
    image[entry + 8..entry + 12].fill(0);
    assert_eq!(
        refused(&gzip(&image)),
        "its partition table can't be read: its logical partitions are not in rising order"
    );
}

#[test]
fn a_fingerprint_that_is_not_true_of_the_image_is_not_relied_on() {
    let mut changed = image().to_vec();
    let listed = changed.windows(8).position(|bytes| bytes == b"b1946ac9");
    changed[listed.unwrap()] = b'c';
    assert!(!scan_of(&gzip(&changed)).unwrap().boot.fingerprint);
}

#[test]
fn a_boot_partition_without_its_files_names_no_device() {
    let mut image = image().to_vec();
    // Both FATs and the root folder.
    image[4 * MIB + 512..4 * MIB + 64 * 1024].fill(0xff);
    let scan = scan_of(&gzip(&image)).unwrap();
    assert_eq!(scan.slug(), None);
    assert_eq!(scan.boot.free, 0, "nothing is put there");
    assert!(!scan.boot.fingerprint);
}

#[test]
fn what_was_packed_can_be_unpacked() {
    // The tools that these tests lean on are themselves what they seem.
    let dir = tempfile::tempdir().unwrap();
    unpack(&image()[4 * MIB..8 * MIB], "vfat", dir.path());
    assert_eq!(fs::read(dir.path().join("kernel")).unwrap(), noise(MIB, 3));
}
