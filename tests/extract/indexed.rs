//! Deflate streams at any place: the same bytes as in one go, in whatever order they are asked for.

use std::io::{self, Cursor};

use balena_migrate::handover::{Format, ZipEntry, ZipMethod};
use balena_migrate::payload::indexed::{Indexed, PAGE, ReadAt, Way, Wrapping};
use balena_migrate::payload::recognise;

use super::flasher::{noise, run};

pub struct Bytes(pub Vec<u8>);

impl ReadAt for Bytes {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        // As a file may do it: less than was asked for.
        let count = rest.len().min(buf.len()).min(50_000);
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// Nobody wants to know how far it is.
pub fn unseen(_: Way) -> io::Result<()> {
    Ok(())
}

/// Pages of every kind: noise, zeros, and what refers far back.
fn plain(pages: usize) -> Vec<u8> {
    let piece = noise(30_000, 5);
    let mut plain = noise(PAGE * 2, 6);
    while plain.len() < PAGE * pages + 12_345 {
        plain.extend(&piece);
        plain.extend([0; 1000]);
    }
    plain
}

fn zip_entry(zip: &[u8]) -> ZipEntry {
    match recognise(&mut Cursor::new(zip)).unwrap() {
        Format::Zip(entry) => entry,
        other => panic!("{other:?}"),
    }
}

fn zipped(plain: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plain");
    std::fs::write(&path, plain).unwrap();
    let zip = dir.path().join("x.zip");
    run(
        "zip",
        &["-q", "-j", zip.to_str().unwrap(), path.to_str().unwrap()],
        b"",
    );
    std::fs::read(&zip).unwrap()
}

fn same_in_any_order(mut indexed: Indexed<Bytes>, plain: &[u8]) {
    let pages: Vec<&[u8]> = plain.chunks(PAGE).collect();
    let mut random = fastrand::Rng::with_seed(1);
    for number in [0, 3, 2, pages.len() - 1, 0, 8] {
        assert!(
            indexed.page(number as u64, &mut unseen).unwrap() == pages[number],
            "page {number}"
        );
    }
    for _ in 0..40 {
        let number = random.usize(..pages.len());
        assert!(
            indexed.page(number as u64, &mut unseen).unwrap() == pages[number],
            "page {number}"
        );
    }
    assert!(
        indexed
            .page(pages.len() as u64, &mut unseen)
            .unwrap()
            .is_empty()
    );
    assert!(
        indexed
            .page(pages.len() as u64 + 100, &mut unseen)
            .unwrap()
            .is_empty()
    );
    indexed.prove(&mut unseen).unwrap();
    assert_eq!(indexed.bytes(), Some(plain.len() as u64));
}

#[test]
fn zip_and_gzip_are_read_at_any_place() {
    let plain = plain(20);
    let zip = zipped(&plain);
    let entry = zip_entry(&zip);
    assert_eq!(entry.method, ZipMethod::Deflate);
    same_in_any_order(Indexed::new(Wrapping::Zip(entry), Bytes(zip)), &plain);
    let one = run("gzip", &["-1c"], &plain);
    same_in_any_order(Indexed::new(Wrapping::Gzip, Bytes(one)), &plain);
    // Members of all sizes, one of them empty, one with a name in its header.
    let mut members = run("gzip", &["-c"], &plain[..PAGE * 3]);
    members.extend(run("gzip", &["-c"], b""));
    members.extend(run("gzip", &["-c"], &plain[PAGE * 3..PAGE * 12 + 77]));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rest"), &plain[PAGE * 12 + 77..]).unwrap();
    run(
        "gzip",
        &["-N", dir.path().join("rest").to_str().unwrap()],
        b"",
    );
    members.extend(std::fs::read(dir.path().join("rest.gz")).unwrap());
    same_in_any_order(Indexed::new(Wrapping::Gzip, Bytes(members)), &plain);
    // Ends on a page.
    let even = &plain[..PAGE * 9];
    let zip = zipped(even);
    same_in_any_order(
        Indexed::new(Wrapping::Zip(zip_entry(&zip)), Bytes(zip)),
        even,
    );
}

#[test]
fn damage_anywhere_is_found_at_the_end_at_the_latest() {
    let plain = plain(10);
    let zip = zipped(&plain);
    let entry = zip_entry(&zip);
    let prove = |zip: Vec<u8>, entry| {
        let mut indexed = Indexed::new(Wrapping::Zip(entry), Bytes(zip));
        let read = indexed.page(9, &mut unseen).map(drop);
        read.and_then(|()| indexed.prove(&mut unseen))
    };
    prove(zip.clone(), entry).unwrap();
    // The first byte has bits that mean nothing.
    for at in [
        1,
        1000,
        entry.compressed_bytes / 2,
        entry.compressed_bytes - 2,
    ] {
        let mut zip = zip.clone();
        zip[(entry.offset + at) as usize] ^= 0x10;
        prove(zip, entry).unwrap_err();
    }
    let wrong = |entry: ZipEntry| prove(zip.clone(), entry).unwrap_err().to_string();
    let wrong_crc = ZipEntry {
        crc32: !entry.crc32,
        ..entry
    };
    assert_eq!(
        wrong(wrong_crc),
        "the zip stream is damaged: its CRC is wrong"
    );
    let larger = ZipEntry {
        bytes: entry.bytes + 1,
        ..entry
    };
    assert!(wrong(larger).contains("bytes instead of"));
    let shorter = ZipEntry {
        compressed_bytes: entry.compressed_bytes - 10,
        ..entry
    };
    assert_eq!(
        wrong(shorter),
        "the zip stream ends too early (truncated file)"
    );

    let mut gz = run("gzip", &["-1c"], &plain);
    let prove = |gz: &[u8]| Indexed::new(Wrapping::Gzip, Bytes(gz.to_vec())).prove(&mut unseen);
    prove(&gz).unwrap();
    for cut in [5, 9, gz.len() / 2, gz.len() - 3] {
        let error = prove(&gz[..cut]).unwrap_err().to_string();
        assert_eq!(
            error, "the gzip stream ends too early (truncated file)",
            "{cut}"
        );
    }
    let at = gz.len() - 8;
    gz[at] ^= 1;
    let error = prove(&gz).unwrap_err().to_string();
    assert_eq!(error, "the gzip stream is damaged: its CRC is wrong");
    gz[at] ^= 1;
    gz.extend(b"more of something");
    let error = prove(&gz).unwrap_err().to_string();
    assert!(error.contains("goes on behind the end"), "{error}");
}
