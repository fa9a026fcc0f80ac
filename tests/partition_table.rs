//! Growing the last partition of tables that sfdisk makes, and that sfdisk reads afterwards.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use balena_migrate::partition_table::{Goal, GrowError, Grown, grow};

const MIB: u64 = 1 << 20;
const IMAGE: u64 = 64 * MIB;

/// As balenaOS has it, with more or fewer logical partitions before resin-data.
const LOGICAL: &str = "label: dos\nstart=4MiB size=4MiB type=e\nstart=8MiB size=4MiB\n\
    start=12MiB size=4MiB\nstart=16MiB type=f\nstart=20MiB size=4MiB\nstart=28MiB size=36MiB\n";
const ONE_LOGICAL: &str =
    "label: dos\nstart=4MiB size=4MiB\nstart=8MiB type=5\nstart=12MiB size=52MiB\n";
const PRIMARY: &str = "label: dos\nstart=4MiB size=4MiB\nstart=12MiB size=52MiB\n";
const GPT: &str = "label: gpt\nstart=4MiB size=4MiB name=resin-boot\nstart=8MiB size=4MiB\n\
    start=12MiB size=51MiB name=resin-data\n";

fn sfdisk(arguments: &[&str], path: &Path, input: &str) -> (String, String) {
    let mut child = Command::new("/usr/sbin/sfdisk")
        .args(arguments)
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting sfdisk");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// A disk of `disk_bytes` with an image on it, but for its first sector, which is beside it.
fn flashed(script: &str, disk_bytes: u64) -> (tempfile::NamedTempFile, Vec<u8>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(IMAGE).unwrap();
    sfdisk(&["--quiet", "--no-reread"], file.path(), script);
    let mut first = vec![0; 512];
    file.as_file().read_exact_at(&mut first, 0).unwrap();
    file.as_file().write_all_at(&[0; 512], 0).unwrap();
    file.as_file().set_len(disk_bytes).unwrap();
    (file, first)
}

fn try_grow(
    file: &File,
    first: &[u8],
    number: u32,
    start: u64,
    end: u64,
) -> Result<Grown, GrowError> {
    let goal = Goal {
        number,
        start,
        end,
        disk_bytes: file.metadata().unwrap().len(),
    };
    grow(first, goal, &mut |start, len| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    })
}

fn write(file: &File, grown: &Grown) {
    for piece in &grown.pieces {
        file.write_all_at(&piece.bytes, piece.start).unwrap();
    }
    file.write_all_at(&grown.first, 0).unwrap();
}

/// Grows partition `number` and gives what sfdisk says of all of them before and after: start and size
/// in sectors.
fn grown(script: &str, disk_bytes: u64, number: u32, start: u64, end: u64) -> [Vec<(u64, u64)>; 2] {
    let (file, first) = flashed(script, disk_bytes);
    file.as_file().write_all_at(&first, 0).unwrap();
    let before = dump(file.path()).0;
    file.as_file().write_all_at(&[0; 512], 0).unwrap();
    let table = try_grow(file.as_file(), &first, number, start, end).unwrap();
    write(file.as_file(), &table);
    let (after, complaints) = dump(file.path());
    assert_eq!(complaints, "");
    // Doing it again changes nothing.
    let again = try_grow(file.as_file(), &first, number, start, end).unwrap();
    assert!(again == table);
    [before, after]
}

fn dump(path: &Path) -> (Vec<(u64, u64)>, String) {
    let (table, complaints) = sfdisk(&["--dump"], path, "");
    let number = |line: &str, name: &str| -> u64 {
        let (_, rest) = line.split_once(name).unwrap();
        rest.split(',').next().unwrap().trim().parse().unwrap()
    };
    let partitions = table
        .lines()
        .filter(|line| line.contains("start="))
        .map(|line| (number(line, "start="), number(line, "size=")))
        .collect();
    (partitions, complaints)
}

#[test]
fn the_second_logical_partition() {
    let [before, after] = grown(LOGICAL, 1024 * MIB, 6, 28 * MIB, 800 * MIB);
    assert_eq!(after[5], (28 * 2048, (800 - 28) * 2048));
    assert_eq!(after[3], (16 * 2048, (800 - 16) * 2048), "the extended one");
    for index in [0, 1, 2, 4] {
        assert_eq!(after[index], before[index]);
    }
}

#[test]
fn the_record_before_says_how_far_the_next_reaches() {
    let (file, first) = flashed(LOGICAL, 1024 * MIB);
    let table = try_grow(file.as_file(), &first, 6, 28 * MIB, 800 * MIB).unwrap();
    let [own, before] = &table.pieces[..] else {
        panic!("{:?}", table.pieces.len());
    };
    assert_eq!(before.start, 16 * MIB);
    let sectors = u32::from_le_bytes(before.bytes[474..478].try_into().unwrap());
    assert_eq!(u64::from(sectors) * 512, 800 * MIB - own.start);
}

#[test]
fn the_only_logical_partition() {
    let [before, after] = grown(ONE_LOGICAL, 1024 * MIB, 5, 12 * MIB, 1020 * MIB);
    assert_eq!(after[2], (12 * 2048, (1020 - 12) * 2048));
    assert_eq!(after[0], before[0]);
}

#[test]
fn a_primary_partition() {
    let [before, after] = grown(PRIMARY, 1024 * MIB, 2, 12 * MIB, 1020 * MIB);
    assert_eq!(after, [before[0], (12 * 2048, (1020 - 12) * 2048)]);
}

#[test]
fn a_gpt_gets_its_backup_at_the_end_of_the_disk() {
    let [before, after] = grown(GPT, 3 << 40, 3, 12 * MIB, (3 << 40) - 4 * MIB);
    assert_eq!(after[..2], before[..2]);
    assert_eq!(after[2], (12 * 2048, (3 << 31) - 16 * 2048));
    let (file, first) = flashed(GPT, 1024 * MIB);
    let table = try_grow(file.as_file(), &first, 3, 12 * MIB, 1000 * MIB).unwrap();
    write(file.as_file(), &table);
    // The backup alone is enough to read the table.
    file.as_file().write_all_at(&[0; 512], 512).unwrap();
    let read = gptman::GPT::read_from(&mut file.reopen().unwrap(), 512).unwrap();
    assert!(read.header.is_backup());
    assert_eq!(read[3].ending_lba, 1000 * 2048 - 1);
    assert_eq!(read[3].partition_name.as_str(), "resin-data");
}

#[test]
fn what_an_mbr_can_t_name_is_refused() {
    let (file, first) = flashed(LOGICAL, 3 << 40);
    let most = u64::from(u32::MAX) * 512;
    assert!(try_grow(file.as_file(), &first, 6, 28 * MIB, most).is_ok());
    for script in [LOGICAL, PRIMARY] {
        let (file, first) = flashed(script, 3 << 40);
        let (number, start) = if script == LOGICAL { (6, 28) } else { (2, 12) };
        let grown = try_grow(file.as_file(), &first, number, start * MIB, most + 512);
        assert!(matches!(grown, Err(GrowError::TooFar(_))), "{grown:?}");
    }
}

#[test]
fn a_gpt_leaves_room_for_its_backup() {
    let (file, first) = flashed(GPT, 1024 * MIB);
    let grown = try_grow(file.as_file(), &first, 3, 12 * MIB, 1024 * MIB);
    assert!(matches!(grown, Err(GrowError::TooFar(_))), "{grown:?}");
}

#[test]
fn only_the_last_partition_can_grow() {
    for (script, number, start) in [(LOGICAL, 5, 20), (GPT, 2, 8)] {
        let (file, first) = flashed(script, 1024 * MIB);
        let grown = try_grow(file.as_file(), &first, number, start * MIB, 800 * MIB);
        assert!(matches!(grown, Err(GrowError::Other(_))), "{grown:?}");
    }
}

#[test]
fn a_damaged_table_is_told() {
    for (script, number, start, damaged) in [(LOGICAL, 6, 28, 16 * MIB + 510), (GPT, 3, 12, 1024)] {
        let (file, first) = flashed(script, 1024 * MIB);
        file.as_file().write_all_at(&[7], damaged).unwrap();
        let grown = try_grow(file.as_file(), &first, number, start * MIB, 800 * MIB);
        assert!(matches!(grown, Err(GrowError::Damaged(_))), "{grown:?}");
    }
}

#[test]
fn a_gpt_with_numbers_that_can_not_be_is_told() {
    for (at, what) in [(80, "number of entries"), (84, "size of an entry")] {
        let (file, first) = flashed(GPT, 1024 * MIB);
        let mut header = [0; 92];
        file.as_file().read_exact_at(&mut header, 512).unwrap();
        header[at..at + 4].fill(0xff);
        header[16..20].fill(0);
        let mut crc = flate2::Crc::new();
        crc.update(&header);
        header[16..20].copy_from_slice(&crc.sum().to_le_bytes());
        file.as_file().write_all_at(&header, 512).unwrap();
        let grown = try_grow(file.as_file(), &first, 3, 12 * MIB, 800 * MIB);
        assert!(
            matches!(grown, Err(GrowError::Damaged(_))),
            "{what}: {grown:?}"
        );
    }
}
