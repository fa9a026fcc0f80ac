//! A world whose files wait on the disk behind the image, as stage 1 lays them there, with all
//! that brings stage 2 back after a power cut.

use std::fs;

use balena_migrate::handover::{Extent, Place, Resume};
use balena_migrate::payload::digest::{hex, sha256_hex};
use balena_migrate::resume::{BootFile, RECORD_BYTES, Record, State};

use crate::filesystem::noise;
use crate::machine::FakeMachine;
use crate::world::{OLD_ROOT_UUID, World};

const MIB: u64 = 1 << 20;

/// Where the backup, the record and the boot files are.
const BACKUP: u64 = 11 * MIB;
pub const RECORD: u64 = 20 * MIB;
const CORE: u64 = 21 * MIB;
pub const INITRAMFS: u64 = 22 * MIB;

/// Pieces of the image file, in the order of the file but not of the disk.
const PIECE: usize = 900 << 10;
const PIECES: [u64; 8] = [17, 12, 19, 13, 18, 14, 16, 15];

impl World {
    /// The image and the backup wait in extents of the disk.
    pub fn in_extents() -> World {
        let mut world = World::new();
        let image = world.old("home/user/image").unwrap();
        let backup = world.old("home/user/backup.tgz").unwrap();
        let mut extents = Vec::new();
        for (piece, place) in image.chunks(PIECE).zip(PIECES) {
            let start = place * MIB;
            let bytes = (piece.len() as u64).next_multiple_of(4096);
            extents.push(Extent { start, bytes });
            world.lay(start, piece);
        }
        assert!(image.len() <= PIECES.len() * PIECE, "all of it has a place");
        world.handover.payload.file.place = Place::Extents(extents);
        let bytes = (backup.len() as u64).next_multiple_of(4096);
        let extent = Extent {
            start: BACKUP,
            bytes,
        };
        world.lay(BACKUP, &backup);
        world.handover.backup.as_mut().unwrap().place = Place::Extents(vec![extent]);
        fs::remove_file(world.dir.path().join("old/home/user/image")).unwrap();
        world
    }

    /// And a power cut leads back to stage 2.
    pub fn resumable() -> World {
        let mut world = World::in_extents();
        let files = [
            ("GRUB's core", CORE, noise(30_000, 17)),
            ("the initramfs", INITRAMFS, noise(200_000, 19)),
        ];
        let boot_files = files.map(|(what, start, content)| {
            world.lay(start, &content);
            let bytes = content.len() as u64;
            BootFile {
                what: what.to_owned(),
                extents: vec![Extent {
                    start,
                    bytes: bytes.next_multiple_of(4096),
                }],
                bytes,
                sha256: sha256_hex(&content),
            }
        });
        world.handover.resume = Some(Resume {
            record: Extent {
                start: RECORD,
                bytes: RECORD_BYTES,
            },
            boot_code: hex(&boot_code()),
            secrets: boot_files[1].extents.clone(),
        });
        world.lay_record(0, State::Prepared(boot_files.to_vec()));
        world
    }

    pub fn lay_record(&mut self, number: u64, state: State) {
        let run_id = self.handover.run_id.clone();
        let record = Record {
            run_id,
            number,
            state,
        };
        let (at, slot) = record.slot();
        self.lay(RECORD + at, &slot);
    }

    /// The disk as it is after a power cut right behind the point of no return.
    pub fn tear(&mut self) {
        self.lay_record(1, State::Overwriting { verified: 0 });
        self.lay(0, &boot_code());
    }

    /// The machine is switched on again: nothing in memory is left, the kernel looks at the disk.
    pub fn switch_on(&mut self) {
        let dir = self.dir.path().to_owned();
        for name in ["memory", "store"] {
            fs::remove_dir_all(dir.join(name)).unwrap();
        }
        self.machine = FakeMachine::new(&dir);
        self.machine
            .add_disk("sda", dir.join("sda.img"), Some("S1"));
        let old = (OLD_ROOT_UUID.to_owned(), dir.join("old"));
        self.machine.folders.extend([old]);
    }
}

/// What stands for boot code here.
pub fn boot_code() -> Vec<u8> {
    noise(440, 23)
}
