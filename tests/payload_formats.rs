//! Every format of image files, as the usual programs make them: whole, in parts, cut off, with
//! something behind the end, and changed at random.

#[path = "stage2/filesystem.rs"]
#[allow(dead_code)]
mod filesystem;

use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use balena_migrate::handover::Format;
use balena_migrate::payload::digest::sha256_hex;
use balena_migrate::payload::scan::{Scan, scan};
use balena_migrate::payload::{decoder, recognise};
use filesystem::noise;

const MIB: usize = 1 << 20;

/// Programs that compress from standard input to standard output, and options that change the form
/// of the stream.
const PROGRAMS: &[(Format, &str, &[&str])] = &[
    (Format::Gzip, "gzip", &["-1"]),
    (Format::Gzip, "gzip", &["-9n"]),
    (Format::Bzip2, "bzip2", &["-1"]),
    (Format::Bzip2, "bzip2", &["-9"]),
    (Format::Xz, "xz", &["-1"]),
    (Format::Xz, "xz", &["-9e"]),
    (Format::Xz, "xz", &["-1", "--check=crc32"]),
    (Format::Xz, "xz", &["-1", "--check=sha256"]),
    (Format::Xz, "xz", &["-1", "--check=none"]),
    (Format::Xz, "xz", &["-T2", "-1", "--block-size=300KiB"]),
    (Format::Xz, "xz", &["--x86", "--lzma2=preset=1"]),
    (Format::Zstd, "zstd", &["-q", "-1"]),
    (Format::Zstd, "zstd", &["-q", "-19"]),
    (Format::Zstd, "zstd", &["-q", "--no-check"]),
    (Format::Zstd, "zstd", &["-q", "-T2", "--rsyncable"]),
    (Format::Zstd, "zstd", &["-q", "--ultra", "-22"]),
];

/// One program and options for each format of [`PROGRAMS`].
const FORMATS: [(Format, &str, &[&str]); 4] = [PROGRAMS[1], PROGRAMS[3], PROGRAMS[4], PROGRAMS[11]];

/// The size of [`image`]: little more than the smallest that is taken for an image in a zip.
const IMAGE_BYTES: usize = MIB + MIB / 4;

/// A partition table, noise, zeros and text.
fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut image = vec![0; IMAGE_BYTES];
        image[MIB / 4..MIB / 2].copy_from_slice(&noise(MIB / 4, 1));
        for (index, byte) in image[MIB..].iter_mut().enumerate() {
            *byte = b"balenaOS "[index % 9];
        }
        // One partition, from 1 MiB to the end.
        image[446 + 4] = 0x83;
        image[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
        image[446 + 12..446 + 16].copy_from_slice(&512u32.to_le_bytes());
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        image
    })
}

fn pack_with(program: &str, options: &[&str], content: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(options)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut input = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(content).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program} {options:?}");
    output.stdout
}

/// A zip file that zip(1) makes of `files` with `options`.
fn zip(options: &[&str], files: &[(&str, &[u8])]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let content = dir.path().join("content");
    for (name, bytes) in files {
        let path = content.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    run_in(
        &content,
        "zip",
        &[&["-q", "-r"], options, &["../made.zip", "."]].concat(),
    );
    fs::read(dir.path().join("made.zip")).unwrap()
}

fn run_in(dir: &Path, program: &str, args: &[&str]) {
    let done = Command::new(program)
        .args(args)
        .current_dir(dir)
        .status()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(done.success(), "{program} {args:?}");
}

fn scan_of(file: &[u8]) -> Result<Scan, String> {
    let scratch = tempfile::tempfile().unwrap();
    scan(Cursor::new(file), scratch, true, &mut |_| ()).map_err(|error| error.to_string())
}

#[track_caller]
fn is_the_image(file: &[u8], what: &str) {
    let scan = scan_of(file).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(scan.image_bytes, image().len() as u64, "{what}");
    assert_eq!(scan.image_sha256, sha256_hex(image()), "{what}");
    assert_eq!(scan.file_bytes, file.len() as u64, "{what}");
    assert_eq!(scan.file_sha256, sha256_hex(file), "{what}");
    // As stage 2 does it: with what the hand-over says, from the file in memory.
    let json = serde_json::to_string(&scan.format).unwrap();
    let format: Format = serde_json::from_str(&json).unwrap();
    let unpacked = unpack(format, file).unwrap();
    assert!(unpacked == image(), "{what}");
}

fn unpack(format: Format, file: &[u8]) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    // A random change can make much of little.
    decoder(format, file)
        .take(64 << 20)
        .read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

#[test]
fn what_the_usual_programs_make_is_read() {
    for (format, program, options) in PROGRAMS {
        let file = pack_with(program, options, image());
        is_the_image(&file, &format!("{program} {options:?}"));
        assert_eq!(scan_of(&file).unwrap().format, *format);
    }
}

#[test]
fn zips_are_read_from_their_place() {
    let files: &[(&str, &[u8])] = &[("balena.img", image())];
    for options in [&["-9"][..], &["-0"], &["-1", "-fz"], &["-fd"]] {
        is_the_image(&zip(options, files), &format!("zip {options:?}"));
    }
    let beside: &[(&str, &[u8])] = &[
        ("folder/balena.img", image()),
        ("__MACOSX/folder/._balena.img", &noise(2 * MIB, 2)),
        ("README.txt", b"Flash it."),
        ("empty/.keep", b""),
    ];
    is_the_image(&zip(&["-1"], beside), "with company");
}

#[test]
fn a_zip_made_from_a_pipe_has_its_sizes_behind_the_data() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("image"), image()).unwrap();
    run_in(
        dir.path(),
        "sh",
        &["-c", "cat image | zip -q - - | cat > made.zip"],
    );
    let file = fs::read(dir.path().join("made.zip")).unwrap();
    assert!(file[6] & 8 != 0, "no data descriptor");
    is_the_image(&file, "from a pipe");
}

#[test]
fn several_members_are_one_image() {
    let (a, b) = image().split_at(MIB / 3 + 17);
    for (format, program, options) in FORMATS {
        let (a, b) = (
            pack_with(program, options, a),
            pack_with(program, options, b),
        );
        is_the_image(&[a.as_slice(), &b].concat(), program);
        let empty = pack_with(program, options, b"");
        let file = [&a[..], &empty, &b, &empty].concat();
        is_the_image(&file, &format!("{program} with empty members"));
        match format {
            Format::Xz => {
                let file = [&a[..], &[0; 8], &b, &[0; 4]].concat();
                is_the_image(&file, "xz with padding");
            }
            Format::Zstd => {
                let skip = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
                let file = [&skip[..], &a, &skip, &skip, &b, &skip].concat();
                is_the_image(&file, "zstd with skippable frames");
            }
            _ => {}
        }
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let content = noise(700, 3);
    for (format, program, options) in FORMATS {
        let file = pack_with(program, options, &content);
        assert!(unpack(format, &file).unwrap() == content);
        for cut in 1..file.len() {
            let error = unpack(format, &file[..cut]).expect_err("it is cut off");
            let expected = format!("the {program} stream ends too early (truncated file)");
            assert_eq!(error.to_string(), expected, "{cut} of {}", file.len());
        }
        let double = [&file[..], &file].concat();
        for cut in file.len() + 1..double.len() {
            assert!(unpack(format, &double[..cut]).is_err(), "{program} {cut}");
        }
    }
}

#[test]
fn a_zip_cut_off_anywhere_is_refused() {
    let file = zip(&["-9"], &[("balena.img", image())]);
    let cuts = (0..200).map(|back| file.len() - 1 - back);
    for cut in cuts.chain([file.len() / 2, MIB / 4, 1000, 40, 4]) {
        let error = recognise(&mut Cursor::new(&file[..cut])).expect_err("it is cut off");
        let text = error.to_string();
        let expected = "the zip file is truncated or damaged: ";
        assert!(
            text.starts_with(expected),
            "{cut} of {}: {text}",
            file.len()
        );
    }
    // What stage 2 would meet if the file shrank in memory.
    for options in ["-0", "-9"] {
        let file = zip(&[options], &[("balena.img", image())]);
        let format = recognise(&mut Cursor::new(&file)).unwrap();
        for cut in [0, 20, 100, file.len() / 2] {
            let error = unpack(format, &file[..cut]).unwrap_err();
            assert!(error.to_string().contains("too early"), "{error}");
        }
    }
}

#[test]
fn whatever_lies_behind_the_end_is_refused() {
    let zeros: &[u8] = &[0; 512];
    for (format, program, options) in FORMATS {
        let file = pack_with(program, options, image());
        for garbage in [
            b"x",
            zeros,
            b"\0\0\0",
            b"garbage behind the end",
            b"\x1f\x8c",
        ] {
            if format == Format::Xz && garbage == zeros {
                continue; // its padding
            }
            assert_eq!(
                scan_of(&[&file, garbage].concat()).unwrap_err(),
                format!("the file goes on behind the end of its {program} stream (damaged file)")
            );
        }
    }
    let file = zip(&["-9"], &[("balena.img", image())]);
    for garbage in [b"x", zeros, &noise(70_000, 4)] {
        let error = scan_of(&[&file, garbage].concat()).unwrap_err();
        let behind = "the file goes on behind the end of the zip (damaged file)";
        assert!(
            error == behind || error.starts_with("the zip file is truncated or damaged: "),
            "{error}"
        );
    }
}

#[test]
fn a_wrong_check_is_refused() {
    for index in [0, 4, 6, 7, 11] {
        let (format, program, options) = PROGRAMS[index];
        let mut file = pack_with(program, options, image());
        let len = file.len();
        // The last byte of the check of the content.
        let at = match format {
            Format::Gzip => len - 5,
            Format::Xz => {
                // Behind it come the index, whose size is in the footer, and the footer.
                let index = u32::from_le_bytes(file[len - 8..len - 4].try_into().unwrap());
                len - 12 - 4 * (index as usize + 1) - 1
            }
            _ => len - 1,
        };
        file[at] ^= 1;
        let error = unpack(format, &file).unwrap_err().to_string();
        let expected = format!("the {program} stream is damaged: ");
        assert!(
            error.starts_with(&expected),
            "{program} {options:?}: {error}"
        );
    }
    // bzip2 has one check for each block, which lie at bits, and one for all at the end.
    let mut file = pack_with("bzip2", &["-9"], image());
    let at = file.len() - 2;
    file[at] ^= 0x10;
    let error = unpack(Format::Bzip2, &file).unwrap_err().to_string();
    assert!(
        error.starts_with("the bzip2 stream is damaged: "),
        "{error}"
    );
}

#[test]
fn a_wrong_zip_entry_is_refused() {
    for option in ["-0", "-9"] {
        let file = zip(&[option], &[("balena.img", image())]);
        let Format::Zip(entry) = recognise(&mut Cursor::new(&file)).unwrap() else {
            panic!("not a zip");
        };
        let damage = |entry| unpack(Format::Zip(entry), &file).unwrap_err().to_string();
        let (mut crc, mut more, mut less, mut longer) = (entry, entry, entry, entry);
        crc.crc32 ^= 1;
        assert_eq!(damage(crc), "the zip stream is damaged: its CRC is wrong");
        more.bytes += 1;
        assert_eq!(
            damage(more),
            "the zip stream is damaged: it has 1310720 bytes instead of 1310721"
        );
        less.bytes -= 1;
        assert_eq!(
            damage(less),
            "the zip stream is damaged: there is more in it than its directory says"
        );
        longer.compressed_bytes += 1;
        assert!(damage(longer).starts_with("the zip stream is damaged: "));
    }
}

#[test]
fn zips_without_one_plain_image_are_refused_with_the_reason() {
    let refused = |options: &[&str], files: &[(&str, &[u8])]| {
        scan_of(&zip(options, files)).expect_err("there is no image")
    };
    let other = noise(2 * MIB, 6);
    let several = refused(&["-1"], &[("a.img", image()), ("b/b.img", &other)]);
    let start = "the zip has more than one file that may be the image: ";
    let names = several
        .strip_prefix(start)
        .unwrap_or_else(|| panic!("{several}"));
    let mut names: Vec<&str> = names.split(", ").collect();
    names.sort();
    assert_eq!(names, ["a.img", "b/b.img"]);
    assert_eq!(
        refused(&["-1"], &[("README", b"no image"), ("empty", b"")]),
        "the zip has no file of 1 MiB or more in it, so no image"
    );
    assert_eq!(
        refused(&["-1", "-P", "secret"], &[("a.img", image())]),
        "a.img in the zip is encrypted"
    );
    assert_eq!(
        refused(&["-Z", "bzip2"], &[("a.img", image())]),
        "a.img in the zip is compressed with Bzip2; only deflate and stored can be read"
    );
}

#[test]
fn a_stream_that_wants_absurd_memory_is_refused() {
    let mut xz = pack_with("xz", &["-1"], image());
    // Size of the block header, flags, LZMA2 with one property: the dictionary.
    assert_eq!(xz[12..16], [2, 0, 0x21, 1]);
    xz[16] = 37; // 1 GiB
    let mut crc = flate2::Crc::new();
    crc.update(&xz[12..20]);
    xz[20..24].copy_from_slice(&crc.sum().to_le_bytes());
    let refused = |name: &str| {
        format!(
            "its {name} stream takes more than 256 MiB of memory to unpack; compress it again \
             without extreme options"
        )
    };
    assert_eq!(scan_of(&xz).unwrap_err(), refused("xz"));
    let mut zstd = pack_with("zstd", &["-q", "-1"], image());
    assert_eq!(zstd[4] & 0x20, 0, "it has a window");
    zstd[5] = 19 << 3; // 512 MiB
    assert_eq!(scan_of(&zstd).unwrap_err(), refused("zstd"));
    zstd[5] = 18 << 3; // 256 MiB
    assert_eq!(scan_of(&zstd).unwrap().unpack_memory, 257 << 20);
    let xz = pack_with("xz", &["-9"], image());
    let memory = scan_of(&xz).unwrap().unpack_memory;
    assert!((64 << 20..66 << 20).contains(&memory), "{memory}");
}

/// Not that nothing is found in the rubble, but that no panic ends stage 1.
#[test]
fn random_changes_never_panic() {
    let content = [
        &image()[..1024],
        &noise(2000, 8),
        b"text ".repeat(500).as_slice(),
    ]
    .concat();
    let mut files: Vec<Vec<u8>> = FORMATS
        .iter()
        .map(|(_, program, options)| pack_with(program, options, &content))
        .collect();
    files.push(zip(&["-9"], &[("a.img", image())]));
    files.push(zip(
        &["-9", "-fz"],
        &[("a", b"small"), ("b/c", b"small too")],
    ));
    files.push(content);
    let mut state = 0x9e37_79b9_u32;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % below
    };
    for file in &files {
        let tries = (2 << 20) / file.len().max(4096);
        for _ in 0..tries.clamp(30, 1000) {
            let mut changed = file.clone();
            for _ in 0..=random(4) {
                let (at, byte) = (random(changed.len()), random(256) as u8);
                match random(4) {
                    0 => changed[at] = byte,
                    1 => changed[at] ^= 1 << (byte % 8),
                    // Where headers and directories are.
                    2 => {
                        let near = at % 64;
                        let near = match byte % 2 {
                            0 => near,
                            _ => changed.len() - 1 - near,
                        };
                        changed[near] = byte;
                    }
                    _ => changed.truncate(at.max(64)),
                }
            }
            // The head with the magic number leads to the decoders.
            changed[..2].copy_from_slice(&file[..2]);
            let _ = scan_of(&changed);
        }
    }
}
