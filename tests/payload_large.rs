//! Images over 4 GiB, which 32-bit sizes in the formats can't hold, streamed in little memory. The
//! streams are zeros, put together from one piece that was compressed once.

use std::io::{self, Read, Write};

use balena_migrate::handover::{Format, ZipEntry, ZipMethod};
use balena_migrate::payload::decoder;
use flate2::{Compress, Compression, Crc, FlushCompress};

const PIECE: usize = 16 << 20;

/// Pieces in a stream: 4 GiB and one piece more.
const PIECES: usize = 257;

const BYTES: u64 = (PIECE * PIECES) as u64;

/// A deflate stream of all pieces: each is flushed in full, so that the same bytes can follow.
fn deflate() -> Vec<u8> {
    let mut piece = Vec::with_capacity(1 << 20);
    Compress::new(Compression::fast(), false)
        .compress_vec(&vec![0; PIECE], &mut piece, FlushCompress::Full)
        .unwrap();
    let mut stream = piece.repeat(PIECES);
    stream.extend([3, 0]); // the last block, empty
    stream
}

fn crc() -> u32 {
    let mut piece = Crc::new();
    piece.update(&vec![0; PIECE]);
    let mut all = Crc::new();
    for _ in 0..PIECES {
        all.combine(&piece);
    }
    all.sum()
}

fn unpacked_bytes(format: Format, file: &[u8]) -> io::Result<u64> {
    let mut stream = decoder(format, file);
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(bytes),
            read => bytes += read as u64,
        }
    }
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[test]
fn sizes_over_4_gib_are_right_in_little_memory() {
    let (deflate, crc) = (deflate(), crc());
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    gzip.extend(&deflate);
    gzip.write_all(&crc.to_le_bytes()).unwrap();
    // RFC 1952: the size modulo 2^32.
    gzip.write_all(&(BYTES as u32).to_le_bytes()).unwrap();
    assert_eq!(unpacked_bytes(Format::Gzip, &gzip).unwrap(), BYTES);

    let entry = ZipEntry {
        offset: 0,
        method: ZipMethod::Deflate,
        compressed_bytes: deflate.len() as u64,
        bytes: BYTES,
        crc32: crc,
    };
    assert_eq!(unpacked_bytes(Format::Zip(entry), &deflate).unwrap(), BYTES);
    // The same size to 32 bits.
    let cut = ZipEntry {
        bytes: BYTES & 0xffff_ffff,
        ..entry
    };
    assert!(unpacked_bytes(Format::Zip(cut), &deflate).is_err());

    // A frame of run-length blocks, 128 KiB in 4 bytes each, with its size in the header.
    let mut zstd = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc0, 7 << 3];
    zstd.write_all(&BYTES.to_le_bytes()).unwrap();
    let blocks = BYTES >> 17;
    for block in 1..=blocks {
        let header = 1u32 << 20 | 1 << 1 | u32::from(block == blocks);
        zstd.write_all(&header.to_le_bytes()[..3]).unwrap();
        zstd.push(0);
    }
    assert_eq!(unpacked_bytes(Format::Zstd, &zstd).unwrap(), BYTES);

    assert!(peak() < 200 << 20, "{} bytes", peak());
}
