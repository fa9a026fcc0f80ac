//! Tests of the bench itself: a scenario that fails should be the program's fault.

use std::collections::BTreeSet;

use crate::harness::writelog::{Replay, WriteLog};
use crate::harness::{Clock, Machine, OsImage};

/// What the guest has to be for the scenarios to mean anything.
#[test]
fn the_guest_boots_by_its_own_grub_and_answers() {
    let mut clock = Clock::start("guest and machine");
    let machine = Machine::guest("guest-boots");
    clock.next("boot");
    let mut vm = machine.start();
    vm.wait_agent();
    clock.next("questions");
    assert_eq!(vm.must("hostname").trim(), "old-debian");
    assert_eq!(
        vm.must("cat /sys/block/vda/serial").trim(),
        "BENCH-DISK-0001"
    );
    let cmdline = vm.must("cat /proc/cmdline");
    assert!(
        cmdline.contains("BOOT_IMAGE=/boot/vmlinuz-"),
        "not by GRUB's menu: {cmdline}"
    );
    for word in ["quiet", "no_timer_check", "console=ttyS0,115200"] {
        assert!(
            cmdline.split_whitespace().any(|w| w == word),
            "no {word} in {cmdline}"
        );
    }
    let grub_cfg = vm.must("cat /boot/grub/grub.cfg");
    for part in ["next_entry", "custom.cfg", "menuentry 'Debian GNU/Linux'"] {
        assert!(grub_cfg.contains(part), "no {part} in grub.cfg");
    }
    assert_eq!(vm.must("stat -c %s /boot/grub/grubenv").trim(), "1024");
    let failed = vm.agent("exit 7");
    assert_eq!((failed.code, failed.text.as_str()), (7, ""));
    eprintln!("{}", clock.stop());
}

/// GRUB honours a one-shot entry once, and a power cut loses nothing that was synced.
#[test]
fn a_one_shot_entry_is_taken_once_and_survives_a_power_cut() {
    let mut vm = Machine::running_guest("one-shot").start();
    vm.must(
        "grub_line=$(sed 's/BOOT_IMAGE=//; s/ quiet//' /proc/cmdline); \
         printf 'menuentry once --id once --unrestricted {\\n search --fs-uuid --set=root %s\\n \
         linux %s marker=once\\n initrd /initrd.img\\n}\\n' \
         $(findmnt -no UUID /) \"$grub_line\" > /boot/grub/custom.cfg && \
         grub-reboot once && sync",
    );
    let machine = vm.power_cut();
    assert!(
        machine
            .disk()
            .ext4_file(1, "/boot/grub/custom.cfg")
            .is_some()
    );
    let mut vm = machine.start();
    vm.wait_agent();
    assert!(vm.must("cat /proc/cmdline").contains("marker=once"));
    vm.begin_on_console("systemctl reboot");
    vm.wait_for("reboot: Restarting system");
    vm.wait_agent();
    assert!(!vm.must("cat /proc/cmdline").contains("marker=once"));
}

/// The image is a system that boots, before anything of ours has touched it.
#[test]
fn the_new_system_boots_by_its_own_grub_and_reports() {
    let image = OsImage::get();
    let mut vm = Machine::with_image("new-system", image.raw())
        .memory(512)
        .start();
    vm.wait_for("GRUB of the new system");
    vm.wait_for("NEWOS: booted");
    assert_eq!(
        vm.wait_for("NEWOS: partition resin-data").trim(),
        "NEWOS: partition resin-data /dev/vda6 147456"
    );
    vm.wait_for("NEWOS: config.json missing");
    assert_eq!(
        vm.wait_for("NEWOS: fingerprint").trim(),
        "NEWOS: fingerprint ok 11"
    );
    vm.wait_for("NEWOS: backup.tgz missing");
    vm.wait_for("NEWOS: done");
    let machine = vm.wait_off();
    let disk = machine.disk();
    let release = disk
        .fat_file(1, "/os-release")
        .expect("os-release on resin-boot");
    assert!(String::from_utf8_lossy(&release).contains("SLUG=\"genericx86-64-ext\""));
    assert!(disk.fat_file(1, "/config.json").is_none());
}

/// A folder gets into the running guest as it is, and its disk is gone again afterwards.
#[test]
fn files_are_sent_into_the_running_guest() {
    let dir = tempfile::tempdir().expect("making a directory");
    std::fs::create_dir(dir.path().join("inner")).expect("making a directory");
    std::fs::write(dir.path().join("inner/file"), "some text").expect("writing a file");
    let mut vm = Machine::running_guest("files-in").start();
    vm.send(dir.path(), "/root/sent");
    assert_eq!(vm.must("cat /root/sent/inner/file"), "some text");
    assert_eq!(vm.must("ls /root/sent").trim(), "inner");
    assert_eq!(vm.must("cd /sys/block; echo vd*").trim(), "vda");
    vm.must("sync");
    let machine = vm.power_cut();
    let disk = machine.disk();
    assert_eq!(
        disk.ext4_file(1, "/root/sent/inner/file").as_deref(),
        Some(&b"some text"[..])
    );
    disk.write_ext4_file(1, "/root/sent/inner/file", b"changed from outside");
}

/// What was flushed is there, what was not is there or not, a sector of it at a time, and what comes
/// later is not.
#[test]
fn a_cut_leaves_what_was_flushed_and_some_of_the_rest() {
    let dir = tempfile::tempdir().expect("making a directory");
    let [log, base, durable, state] =
        ["log", "base", "durable", "state"].map(|name| dir.path().join(name));
    std::fs::write(&base, [b'.'; 8 * 512]).expect("writing the base");
    let mut bytes = vec![0; 512];
    for (sector, flags, data) in [
        (0, 0, "aa"),
        (0, 1, ""),
        (1, 0, "bbbb"),
        (6, 0, "c"),
        (7, 0, "d"),
    ] {
        let mut entry = vec![0; 512];
        for (at, number) in [(0, sector), (8, data.len() as u64), (16, flags)] {
            entry[at..at + 8].copy_from_slice(&u64::to_le_bytes(number));
        }
        bytes.extend(entry);
        data.bytes().for_each(|byte| bytes.extend([byte; 512]));
    }
    std::fs::write(&log, bytes).expect("writing the log");
    let mut replay = Replay::new(WriteLog::open(&log), &base, durable);
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let unflushed = replay.state(4, seed, &state);
        assert_eq!(unflushed.whole + unflushed.torn + unflushed.lost, 2);
        let disk = std::fs::read(&state).expect("reading the state");
        let sectors: String = disk.chunks(512).map(|s| s[0] as char).collect();
        assert!(
            disk.chunks(512).all(|s| s.iter().all(|b| *b == s[0])),
            "a sector is torn"
        );
        for (at, may) in ["a", "ab", "b.", "b.", "b.", ".", "c.", "."]
            .iter()
            .enumerate()
        {
            assert!(may.contains(&sectors[at..=at]), "sector {at} in {sectors}");
        }
        seen.insert(sectors);
    }
    for whole in ["aa......", "abbbb.c.", "aa....c.", "abbbb..."] {
        assert!(seen.contains(whole), "never {whole}: {seen:?}");
    }
    assert!(seen.len() > 10, "no write is ever torn: {seen:?}");
    let all = replay.state(5, 0, &state);
    assert_eq!(all.whole + all.torn + all.lost, 3);
}
