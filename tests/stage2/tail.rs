//! A world whose files wait on the disk behind the image, as stage 1 lays them there, with all
//! that brings stage 2 back after a power cut.

use std::fs;

use balena_migrate::boot::{core_esp, core_fat};
use balena_migrate::efi;
use balena_migrate::handover::{Efi, Extent, Firmware, Place, Resume};
use balena_migrate::payload::digest::{hex, sha256_hex};
use balena_migrate::resume::{BootFile, RECORD_BYTES, Record, State};

use balena_migrate::sys::efivars;

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
            first_sector: hex(&boot_code()),
            secrets: boot_files[1].extents.clone(),
        });
        world.lay_record(0, State::Prepared(boot_files.to_vec()));
        world
    }

    /// The same on UEFI firmware, which is led back by a partition of its own.
    pub fn resumable_by_uefi() -> World {
        let mut world = World::resumable().led_back_by(efi::MBR_KIND);
        world.handover.firmware = Firmware::Efi;
        world.handover.efi = Some(Efi {
            needs_entry: false,
            remove: Vec::new(),
            old_partitions: Vec::new(),
        });
        let variables = world.machine.dir.join("firmware").join(&efivars::DIR[1..]);
        fs::create_dir_all(variables).unwrap();
        world
    }

    /// The same on a board, which has the files for the new system beside the old one and, in the partition that
    /// leads it back, with stage 2.
    pub fn resumable_on_a_board() -> World {
        let mut world = World::resumable()
            .led_back_by(core_fat::MBR_KIND)
            .with_files_aside();
        world.handover.firmware = Firmware::Board;
        world
    }

    /// With a partition of that kind, which the first sector names.
    fn led_back_by(mut self, kind: u8) -> World {
        let place = Extent {
            start: INITRAMFS,
            bytes: MIB,
        };
        let first = core_esp::first_sector(place, kind, 512, SIGNATURE).unwrap();
        self.handover.resume.as_mut().unwrap().first_sector = hex(&first);
        self
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
        let resume = self.handover.resume.as_ref().unwrap();
        let first = resume.first_sector().unwrap();
        self.lay(0, &first);
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

/// Of the disk while only stage 2 is on it.
pub const SIGNATURE: u32 = 0x5746_0001;

/// What stands for boot code here.
pub fn boot_code() -> Vec<u8> {
    noise(440, 23)
}
