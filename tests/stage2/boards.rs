//! What starts stage 2 on boards is a file that their loader reads at every boot: it is back before anything
//! else is looked at.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use balena_migrate::boot::{self, Entry};
use balena_migrate::handover::Restore;
use balena_migrate::host::Host;
use balena_migrate::step::Step;

use crate::world::World;

#[test]
fn the_file_that_the_loader_reads_is_back_first() {
    for name in [
        "debian-10-beaglebone-black",
        "debian-12-beaglebone-black",
        "raspios-9-pi-3",
    ] {
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
        let root = world.dir.path().to_owned();
        // As stage 1 has left it.
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
        // There is nothing to go on with.
        fs::remove_file(root.join("old/home/user/image")).unwrap();
        world.run().unwrap();
        assert_eq!(fs::read(at(&config.path)).unwrap(), old, "{name}");
        let mode = fs::metadata(at(&config.path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}: its own");
        for file in others {
            assert!(!at(&file.path).exists(), "{name}: {}", file.path);
        }
    }
}
