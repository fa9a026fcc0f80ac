//! Keeping files behind the new system, on a disk that stands in for a real one (`disk.rs`).

mod disk;

use std::fs;
use std::sync::Arc;

use balena_migrate::engine::keep::{fill_reserved, keep, read_manifest};
use balena_migrate::handover::{Extent, Image, ImagePartition, Place};
use balena_migrate::payload::digest::sha256_hex;
use balena_migrate::place::{Manifest, Region};
use balena_migrate::step::keep::{Content, Keep, Wanted};
use balena_migrate::sys::Sys;
use balena_migrate::sys::extents::{Media, flags};
use disk::{Disk, MIB};

const FOLDER: &str = "/balena-migrate.keep";

struct Case {
    dir: tempfile::TempDir,
    disk: Disk,
    keep: Keep,
}

fn image(bytes: u64) -> Image {
    let part = ImagePartition {
        number: 1,
        label: String::new(),
        fs_type: "ext4".into(),
        start: 0,
        bytes: 1,
    };
    Image {
        bytes,
        sha256: String::new(),
        boot: part.clone(),
        data: part,
        data_end: None,
        overlays: Vec::new(),
        fingerprint: false,
    }
}

fn copy(name: &str, sha256: Option<String>) -> Wanted {
    Wanted {
        name: name.into(),
        content: Content::Copy {
            path: format!("/{name}"),
            sha256,
            in_place: true,
        },
        contiguous: false,
        by_firmware: false,
    }
}

fn reserved(name: &str, bytes: u64, contiguous: bool) -> Wanted {
    Wanted {
        name: name.into(),
        content: Content::Reserved { bytes },
        contiguous,
        by_firmware: false,
    }
}

/// Bytes that differ from block to block.
fn content(bytes: u64) -> Vec<u8> {
    (0..bytes.div_ceil(8))
        .flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .take(bytes as usize)
        .collect()
}

/// A disk of 120 MiB whose new system has `image_bytes`.
fn case(image_bytes: u64, disk: Disk, files: Vec<Wanted>) -> Case {
    let shm = std::path::Path::new("/dev/shm");
    let dir = match shm.is_dir() {
        true => tempfile::tempdir_in(shm),
        false => tempfile::tempdir(),
    }
    .unwrap();
    let keep = Keep {
        folder: FOLDER.into(),
        layout: disk.layout(),
        disk: "vda".into(),
        disk_bytes: disk.bytes,
        sector_bytes: 512,
        image: image(image_bytes),
        growth: None,
        files,
    };
    Case { dir, disk, keep }
}

impl Case {
    /// A file of the user's, which gets its blocks now.
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let file = fs::File::open(path).unwrap();
        self.disk.extents(&file).unwrap();
    }

    /// Runs the step and hands back the machine, and what it said at its end.
    fn run(self) -> (Result<Manifest, String>, Sys, Keep, tempfile::TempDir) {
        let sys = Sys::new(self.dir.path()).on_media(Arc::new(self.disk));
        let done = keep(&sys, &self.keep, &mut |_| ())
            .and_then(|()| read_manifest(&sys, FOLDER))
            .map_err(|error| format!("{error:#}"));
        (done, sys, self.keep, self.dir)
    }
}

/// What the disk has at these places.
fn raw(sys: &Sys, extents: &[Extent]) -> Vec<u8> {
    let ranges: Vec<_> = extents
        .iter()
        .map(|extent| extent.start..extent.end())
        .collect();
    let mut bytes = Vec::new();
    sys.read_raw("/dev/vda", &ranges, &mut |part| {
        bytes.extend(part);
        Ok(())
    })
    .unwrap();
    bytes
}

#[test]
fn files_lie_behind_the_new_system_and_spacers_are_gone() {
    let bytes = content(3 * MIB + 777);
    let files = vec![
        copy("payload", Some(sha256_hex(&bytes))),
        reserved("record", 128 << 10, false),
        reserved("core", 512 << 10, true),
    ];
    let case = case(10 * MIB, Disk::new(120 * MIB, vec![]), files);
    case.write("payload", &bytes);
    let (done, sys, keep, _dir) = case.run();
    let manifest = done.unwrap();
    let region = Region::behind(keep.image.bytes, None, keep.disk_bytes);
    for (name, kept) in &manifest.files {
        for extent in kept.extents() {
            assert!(region.start <= extent.start, "{name}: {extent:?}");
            assert!(extent.end() <= region.end, "{name}: {extent:?}");
        }
    }
    let payload = &manifest.files["payload"];
    assert_eq!(payload.bytes, bytes.len() as u64);
    assert_eq!(payload.sha256, sha256_hex(&bytes));
    let on_disk = raw(&sys, &payload.extents());
    assert_eq!(&on_disk[..bytes.len()], bytes);
    assert!(on_disk[bytes.len()..].iter().all(|byte| *byte == 0));
    assert!(matches!(payload.stored().place, Place::Extents(_)));
    assert_eq!(manifest.files["core"].extents().len(), 1);
    assert_eq!(sys.meta(FOLDER).unwrap().mode, 0o700);
    let pieces: usize = manifest.files.values().map(|kept| kept.pieces.len()).sum();
    assert_eq!(
        sys.files_below(FOLDER).unwrap().len(),
        pieces + 1,
        "the pieces and the manifest"
    );
}

#[test]
fn a_file_is_cut_into_pieces_when_it_must_be() {
    // What is free of the region: 14 MiB in the middle, and 12 MiB at the end.
    let bytes = content(20 * MIB);
    let taken = vec![(0, 64 * MIB), (78 * MIB, 154 * MIB), (166 * MIB, 180 * MIB)];
    let disk = Disk::new(300 * MIB, taken);
    let mut case = case(60 * MIB, disk, vec![copy("payload", None)]);
    case.keep.disk_bytes = 171 * MIB;
    case.write("payload", &bytes);
    let (done, sys, _, _dir) = case.run();
    let manifest = done.unwrap();
    let payload = &manifest.files["payload"];
    assert!(payload.pieces.len() > 1, "{payload:?}");
    assert_eq!(raw(&sys, &payload.extents())[..bytes.len()], bytes);
}

#[test]
fn too_little_room_is_said_with_what_there_is() {
    // 100 of 120 MiB are the new system's, and 64 must stay free.
    let case = case(
        100 * MIB,
        Disk::new(120 * MIB, vec![]),
        vec![reserved("record", 30 * MIB, false)],
    );
    let (done, ..) = case.run();
    assert_eq!(
        done.unwrap_err(),
        "keeping `record` on vda: vda has room for 0 of the 30 MiB of `record` behind the new system; \
         make room, or try PAYLOAD=memory"
    );
}

/// An MBR names no place behind 2^32 sectors, and Linux reads any.
#[test]
fn what_the_firmware_reads_lies_where_it_reaches() {
    const REACH: u64 = 2 << 40;
    let near = |taken: u64| {
        let mut disk = Disk::new(REACH + 200 * MIB, vec![(0, taken)]);
        disk.start = REACH - 60 * MIB;
        let esp = Wanted {
            by_firmware: true,
            ..reserved("esp", 10 * MIB, true)
        };
        let files = vec![reserved("payload", 70 * MIB, false), esp];
        let (done, ..) = case(10 * MIB, disk, files).run();
        done.map(|manifest| {
            let ends = |name: &str| manifest.files[name].extents().last().unwrap().end();
            (ends("esp"), ends("payload"))
        })
    };
    let (esp, payload) = near(40 * MIB).unwrap();
    assert!(esp < REACH && payload > REACH, "{esp} {payload}");
    let error = near(55 * MIB).unwrap_err();
    assert!(
        error.starts_with("keeping `esp` on vda: vda has room for 0 of the 10 MiB of `esp`"),
        "{error}"
    );
}

#[test]
fn the_margin_of_the_file_system_stays_free() {
    let disk = Disk::new(120 * MIB, vec![]);
    // All of the region is free, but only 119 - 64 MiB may be taken.
    let case = case(MIB, disk, vec![reserved("record", 60 * MIB, false)]);
    let (done, ..) = case.run();
    assert!(done.unwrap_err().contains("of the 60 MiB"));
}

#[test]
fn the_user_s_file_is_used_as_it_is_when_it_lies_well() {
    let bytes = content(2 * MIB);
    let image = copy("payload", Some(sha256_hex(&bytes)));
    // The low part of the disk is taken: the file got a place behind the new system.
    let disk = Disk::new(200 * MIB, vec![(0, 20 * MIB)]);
    let case = case(10 * MIB, disk, vec![image]);
    case.write("payload", &bytes);
    let (done, ..) = case.run();
    let manifest = done.unwrap();
    assert_eq!(manifest.files["payload"].pieces[0].path, "/payload");
}

#[test]
fn a_file_that_is_not_what_the_plan_saw_is_an_error() {
    let case = case(
        10 * MIB,
        Disk::new(120 * MIB, vec![]),
        vec![copy("payload", Some(sha256_hex(b"another")))],
    );
    case.write("payload", &content(MIB));
    let (done, ..) = case.run();
    let error = done.unwrap_err();
    assert!(
        error.ends_with("it has changed since the plan was made; run again"),
        "{error}"
    );
}

#[test]
fn a_disk_that_has_something_else_there_is_an_error() {
    let mut disk = Disk::new(120 * MIB, vec![]);
    disk.lies = true;
    let case = case(10 * MIB, disk, vec![copy("payload", None)]);
    case.write("payload", &content(MIB));
    let (done, ..) = case.run();
    let error = done.unwrap_err();
    assert!(error.contains("the mapping is wrong"), "{error}");
}

#[test]
fn blocks_that_were_never_written_are_an_error() {
    let mut disk = Disk::new(120 * MIB, vec![]);
    disk.flags = flags::UNWRITTEN;
    let (done, ..) = case(10 * MIB, disk, vec![reserved("record", MIB, false)]).run();
    let error = done.unwrap_err();
    assert!(error.ends_with("is not written to the disk"), "{error}");
}

#[test]
fn what_is_reserved_is_filled_at_its_place() {
    let files = vec![reserved("core", 512 << 10, true)];
    let (done, sys, keep, _dir) = case(10 * MIB, Disk::new(120 * MIB, vec![]), files).run();
    let before = done.unwrap().files["core"].extents();
    let core = content(300_001);
    let kept = fill_reserved(&sys, &keep, "core", &core).unwrap();
    assert_eq!(kept.extents(), before);
    assert_eq!(kept.bytes, core.len() as u64);
    assert_eq!(raw(&sys, &before)[..core.len()], core);
    assert_eq!(read_manifest(&sys, FOLDER).unwrap().files["core"], kept);
    let error = fill_reserved(&sys, &keep, "core", &content(MIB)).unwrap_err();
    assert!(error.to_string().contains("are reserved for it"), "{error}");
    assert!(fill_reserved(&sys, &keep, "kernel", b"x").is_err());
}
