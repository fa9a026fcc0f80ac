//! Where the image and the backup wait while the disk is overwritten, and machines that have not
//! got the memory for them.

use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::harness::guest::Root;
use crate::harness::matrix::Row;
use crate::harness::migratecfg::PLACE;
use crate::harness::osimage::Wanted;
use crate::harness::outcome::{NewSystem, Outcome};
use crate::harness::{Machine, Migratecfg, OsImage, cache, tool};
use crate::scenarios::{OLD_TREE, RUN, Scene, assert_same_tree};

/// The folder is on a stick, and the backup is larger than the image's resin-data has room for: the
/// image is read from the stick, and resin-data grows.
#[test]
fn an_image_on_a_stick_and_a_backup_that_needs_room() {
    // Made here: an emulated processor takes a minute to make it.
    let backup = tempfile::tempdir().expect("making a directory");
    let file = backup.path().join("backup.tgz");
    let script = "mkdir data && head -c 90000000 /dev/urandom > data/film && tar -czf \"$0\" data";
    tool::run(
        Command::new("sh")
            .args(["-ec", script])
            .arg(&file)
            .current_dir(&backup),
    );
    let cfg = Migratecfg::new(&OsImage::get())
        .file("backup.tgz", &fs::read(&file).expect("reading the backup"));
    let mut scene = Scene::set("stick", &cfg);
    let row = scene.row(
        "Debian 12, image on a stick, a large backup",
        &OsImage::get(),
    );
    scene.vm.plug_ext4("STICK", 256);
    scene.vm.must(&format!(
        "mkdir -p /mnt/stick && mount LABEL=STICK /mnt/stick && cp -r {PLACE} /mnt/stick/"
    ));
    let folder = "/mnt/stick/migratecfg";
    let hash = scene.vm.must(&format!("sha256sum < {folder}/backup.tgz"));
    let hash = hash.split(' ').next().expect("a hash");
    let said = scene.run(&format!("cd {folder} && {RUN} -r 3"), 0);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert!(words.join(" ").contains("vdb is not overwritten"), "{said}");
    let wanted = NewSystem::ordinary(&cfg).and(format!("NEWOS: backup.tgz {hash} data/ data/film"));
    scene.vm.wait_for("balena-migrate, stage 2");
    let (_, outcome) = scene.vm.outcome(&wanted, true);
    assert_eq!(outcome, Outcome::ResumedToTheEnd);
    row.add("migrated");
}

/// The disk has enough that is free, but all of it in small pieces: that shows when files are put
/// there. All is taken back, and the plan that is made then has the image in memory.
#[test]
fn a_disk_without_room_behind_the_new_system_is_planned_for_anew() {
    let mut scene = Scene::set("no-room-behind", &Migratecfg::new(&OsImage::get()));
    // Every second piece of all that is free: no hole is as large as the kernel, which has to be in
    // one piece.
    scene.vm.must(
        "mkdir /fill && cd /fill && i=100 && \
         while fallocate -l 4M $i 2> /dev/null; do i=$((i+1)); done; \
         rm -f $i *[13579] && sync",
    );
    let before = scene.vm.must(OLD_TREE);
    let said = scene.run(RUN, 0);
    let (first, second) = said
        .split_once("This is the plan without that:")
        .unwrap_or_else(|| panic!("it did not plan anew: {said}"));
    assert!(
        first.contains("Everything was taken back: vda has room for "),
        "{first}"
    );
    for text in ["waits in memory", "migration successful"] {
        assert!(second.contains(text), "no '{text}': {second}");
    }
    scene.run("./balena-migrate undo", 0);
    assert_same_tree(&before, &scene.vm.must(OLD_TREE));
}

/// With the image in memory, as on a machine whose disk has no room behind the new system.
#[test]
#[ignore = "long: the other places are the usual ones"]
fn an_image_in_memory() {
    let cfg = Migratecfg::new(&OsImage::get()).setting("PAYLOAD", "memory");
    let mut scene = Scene::set("memory", &cfg);
    let row = scene.row("Debian 12, image in memory", &OsImage::get());
    let said = scene.run(&format!("{RUN} -r 3"), 0);
    assert!(said.contains("NOTHING"), "no warning of power cuts: {said}");
    scene.vm.wait_for("balena-migrate, stage 2");
    let (_, outcome) = scene.vm.outcome(&NewSystem::ordinary(&cfg), true);
    assert_eq!(outcome, Outcome::ResumedToTheEnd);
    row.add("migrated");
}

/// An image of a gigabyte, compressed, on a machine that has a quarter of that as memory.
#[test]
#[ignore = "long: a gigabyte is hashed eight times by a processor in software"]
fn a_gigabyte_on_a_machine_with_256_mib() {
    a_gigabyte("extents", 256);
}

/// The same from a stick.
#[test]
#[ignore = "long: as above"]
fn a_gigabyte_from_a_stick_with_256_mib() {
    a_gigabyte("disk", 256);
}

/// What the same takes when it waits in memory.
#[test]
#[ignore = "long: as above"]
fn a_gigabyte_in_memory_with_2_gib() {
    a_gigabyte("memory", 2048);
}

/// Prints what stage 2 says of its memory.
fn a_gigabyte(place: &str, memory_mib: u32) {
    const NOISE_MIB: u32 = 1024;
    let image = OsImage::build(&Wanted {
        data_mib: NOISE_MIB + 200,
        noise_mib: NOISE_MIB,
        ..Wanted::default()
    });
    let cfg = Migratecfg::without_image()
        .setting("IMAGE_NAME", "/mnt/stick/balena.img.gz")
        .setting("PAYLOAD", place);
    let name = format!("gigabyte-{place}");
    let stick = tempfile::TempDir::new_in(cache::subdir("tmp")).expect("making a directory");
    fs::copy(image.gz(), stick.path().join("balena.img.gz")).expect("copying the image");
    let machine = Machine::guest(&name)
        .memory(memory_mib)
        .resized(5 << 30)
        .with_first_partition_grown();
    let since = Instant::now();
    let mut vm = machine.start();
    vm.wait_agent();
    let words = format!("Debian 12, image of 1 GiB, PAYLOAD={place}, {memory_mib} MiB of memory");
    let row = Row::of(&mut vm, &words, "BIOS", Root::Mbr, image.slug(), since);
    vm.must("resize2fs /dev/vda1");
    cfg.send_to(&mut vm);
    vm.plug_tree("STICK", stick.path(), NOISE_MIB + 256);
    vm.must("mkdir -p /mnt/stick && mount LABEL=STICK /mnt/stick");
    if place != "disk" {
        vm.must("cp /mnt/stick/balena.img.gz /root/ && umount /mnt/stick && sync");
        vm.must(&format!(
            "sed -i 's,/mnt/stick/,/root/,' {PLACE}/balena-migrate.conf"
        ));
    }
    vm.must(&format!("cd {PLACE} && {RUN} -r 3"));
    let wanted = NewSystem::ordinary(&cfg);
    vm.wait_for("balena-migrate, stage 2");
    let memory = vm.wait_for("at most for this process");
    println!("{name}, {memory_mib} MiB: {memory}");
    let (_, outcome) = vm.outcome(&wanted, true);
    assert_eq!(outcome, Outcome::ResumedToTheEnd);
    row.add("migrated");
}
