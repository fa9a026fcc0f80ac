//! What starts stage 2 on boards is a file that their loader reads at every boot: it is back before anything
//! else is looked at, and what it names goes only then.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use balena_migrate::boot::{self, Entry};
use balena_migrate::handover::{Firmware, Restore};
use balena_migrate::host::Host;
use balena_migrate::step::Step;

use crate::world::World;

const BOARDS: [&str; 3] = [
    "debian-10-beaglebone-black",
    "debian-12-beaglebone-black",
    "raspios-9-pi-3",
];

/// A board in stage 2.
struct Board {
    world: World,
    /// Where the file that its loader reads is, here.
    config: PathBuf,
    /// What was in it before stage 1.
    old: Vec<u8>,
    /// What stage 1 has made for it.
    others: Vec<PathBuf>,
}

/// As stage 1 has left it; there is nothing to go on with.
fn armed(name: &str) -> Board {
    let text = fs::read_to_string(format!("tests/hosts/{name}.json")).unwrap();
    let host: Host = serde_json::from_str(&text).unwrap();
    let loader = boot::of(&host).ok().unwrap().loader;
    let armament = loader.arm(
        &host,
        &Entry {
            kernel: host.kernel.image.clone().unwrap(),
            initramfs: loader.files(&host).initramfs,
            arguments: vec!["panic=30".into()],
        },
    );
    let mut world = World::new();
    world.handover.firmware = Firmware::Board;
    let root = world.dir.path().to_owned();
    let at = |path: &str| root.join("old").join(&path[1..]);
    for step in &armament.steps {
        let Step::WriteFile { path, content, .. } = step else {
            panic!("{}", step.describe());
        };
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), content.expose()).unwrap();
    }
    let [config, others @ ..] = &armament.old_files[..] else {
        panic!("{name}");
    };
    let (old, _) = config.old.clone().unwrap();
    assert_ne!(fs::read(at(&config.path)).unwrap(), old);
    fs::set_permissions(at(&config.path), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(root.join("initramfs/restore/0"), &old).unwrap();
    for file in others {
        assert_eq!(file.old, None);
        fs::write(at(&file.path), "ours").unwrap();
    }
    // The first that has an old content has one to go by.
    let [first, second] = world.handover.restore.clone().try_into().unwrap();
    let gone = |path: &String| Restore {
        path: path.clone(),
        ..second.clone()
    };
    let mut restore = vec![Restore {
        path: config.path.clone(),
        ..first
    }];
    restore.extend(others.iter().map(|file| gone(&file.path)));
    world.handover.restore = restore;
    fs::remove_file(root.join("old/home/user/image")).unwrap();
    Board {
        world,
        config: at(&config.path),
        old,
        others: others.iter().map(|file| at(&file.path)).collect(),
    }
}

impl Board {
    fn is_as_before(&self, name: &str) {
        assert_eq!(fs::read(&self.config).unwrap(), self.old, "{name}");
        for file in &self.others {
            assert!(!file.exists(), "{name}: {}", file.display());
        }
    }

    /// Writing the file that the loader reads fails so often, for want of room.
    fn full(&self, times: u32) {
        let name = match self.config.ends_with("extlinux.conf") {
            true => "extlinux.conf",
            false if self.config.ends_with("uEnv.txt") => "uEnv.txt",
            false => "config.txt",
        };
        self.world.machine.faults.lock().unwrap().full = (name, times);
    }
}

#[test]
fn the_file_that_the_loader_reads_is_back_first() {
    for name in BOARDS {
        let board = armed(name);
        board.world.run().unwrap();
        board.is_as_before(name);
        let mode = fs::metadata(&board.config).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}: its own");
    }
}

/// Its copy is the room that it needs.
#[test]
fn a_full_boot_partition_has_room_for_the_old_file() {
    for name in BOARDS {
        let board = armed(name);
        board.full(0);
        board.world.machine.faults.lock().unwrap().crowded = Some(board.others[0].clone());
        board.world.run().unwrap();
        board.is_as_before(name);
        let said = board.world.machine.shown();
        assert!(!said.contains("restoring the boot configuration"), "{said}");
        assert!(said.contains("** The old system starts again."), "{said}");
    }
}

/// What keeps it from being written may pass while stage 2 looks at the rest.
#[test]
fn the_file_is_tried_again_at_the_end() {
    for name in BOARDS {
        let board = armed(name);
        board.full(2);
        board.world.run().unwrap();
        board.is_as_before(name);
        let said = board.world.machine.shown();
        assert!(said.contains("** The old system starts again."), "{said}");
    }
}

#[test]
fn what_an_armed_file_names_stays_and_the_console_tells() {
    for name in BOARDS {
        let board = armed(name);
        board.full(u32::MAX);
        board.world.run().unwrap();
        assert_ne!(fs::read(&board.config).unwrap(), board.old, "{name}");
        let copy = board.others[0].to_str().unwrap();
        assert!(copy.starts_with(board.config.to_str().unwrap()), "{copy}");
        for file in &board.others[1..] {
            assert!(file.exists(), "{name}: {}", file.display());
        }
        let said = board.world.machine.shown();
        assert!(
            said.contains("** The boot configuration could not be put back."),
            "{said}"
        );
        assert!(!said.contains("** The old system starts again."), "{said}");
    }
}
