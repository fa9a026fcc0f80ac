//! What GRUB itself makes of our entry: `grub-emu` runs configurations that GRUB's own scripts write, on a
//! disk with an ext4, and writes its environment block there.
//!
//! It has no Linux to start, so that our entry says that it could not be started. That it was chosen, and
//! chosen once, is what is looked at.

mod machine;

use std::fs;
use std::process::Command;

use balena_migrate::boot::grub::{Grub, WRITABLE};
use balena_migrate::boot::{BootLoader, Entry, grubenv};
use balena_migrate::engine::journal::{Begin, DIR};
use balena_migrate::engine::{self, undo::undo};
use balena_migrate::plan::Steps;
use balena_migrate::step::Step;
use balena_migrate::sys::Sys;

use self::machine::{Machine, Row, USUAL};

/// What GRUB says at the start of our entry.
const OURS: &str = "Starting balena-migrate, stage 2 ...";

/// Ubuntu's fallback to an initramfs, in the words of this test: what was started without one and failed
/// is not started so again.
const INITRDFAIL: &str = "if [ \"${initrdfail}\" = 1 ]; then\n  set next_entry=\"${prev_entry}\"\n  \
                          set prev_entry=\n  save_env prev_entry\nfi\n";

/// Fedora's way back from an update that does not start, in the words of this test.
const BOOT_COUNTER: &str = "if [ -n \"${boot_counter}\" -a \"${boot_success}\" = 0 ]; then\n  \
                            if [ \"${boot_counter}\" = 0 ]; then set default=1; fi\nfi\n";

/// An entry that everybody may start.
const FREE_ENTRY: &str = "menuentry 'free' --unrestricted { echo FREE; reboot }\n";

const ROWS: &[Row] = &[
    USUAL,
    Row {
        name: "a default by its number, which is one of custom.cfg",
        settings: &[("GRUB_TIMEOUT", "0"), ("GRUB_DEFAULT", "2")],
        then: Some("MINE"),
        ..USUAL
    },
    Row {
        name: "a default by its name, in a submenu",
        settings: &[("GRUB_TIMEOUT", "1"), ("GRUB_DEFAULT", "more>older")],
        then: Some("OLDER"),
        ..USUAL
    },
    Row {
        name: "a default that is saved",
        settings: &[("GRUB_TIMEOUT", "0"), ("GRUB_DEFAULT", "saved")],
        environment: &["saved_entry=my entry"],
        then: Some("MINE"),
        ..USUAL
    },
    Row {
        name: "a hidden menu",
        settings: &[("GRUB_TIMEOUT", "1"), ("GRUB_TIMEOUT_STYLE", "hidden")],
        ..USUAL
    },
    Row {
        name: "a hidden menu by the old name",
        settings: &[("GRUB_TIMEOUT", "0"), ("GRUB_HIDDEN_TIMEOUT", "1")],
        ..USUAL
    },
    Row {
        name: "a menu that waits for ever",
        settings: &[("GRUB_TIMEOUT", "-1")],
        then: None,
        findings: &["grub-timeout"],
        ..USUAL
    },
    Row {
        name: "a menu with a password",
        before: "set superusers=root\npassword root secret\n",
        then: None,
        findings: &["grub-password"],
        ..USUAL
    },
    Row {
        name: "a menu with a password, but for an entry that is not the default",
        settings: &[("GRUB_TIMEOUT", "0"), ("GRUB_DEFAULT", "1")],
        before: "set superusers=root\npassword root secret\n",
        after: FREE_ENTRY,
        then: None,
        findings: &["grub-password"],
        ..USUAL
    },
    Row {
        name: "a menu with a password, but for the default",
        before: "set superusers=root\npassword root secret\n",
        after: FREE_ENTRY,
        then: Some("FREE"),
        ..USUAL
    },
    Row {
        name: "a failed boot before",
        settings: &[("GRUB_TIMEOUT", "0"), ("GRUB_RECORDFAIL_TIMEOUT", "1")],
        environment: &["recordfail=1"],
        ..USUAL
    },
    Row {
        name: "a wait for ever after a failed boot",
        settings: &[("GRUB_TIMEOUT", "0"), ("GRUB_RECORDFAIL_TIMEOUT", "-1")],
        findings: &["grub-recordfail"],
        ..USUAL
    },
    Row {
        name: "a boot without initramfs that failed",
        environment: &["initrdfail=1", "prev_entry="],
        before: INITRDFAIL,
        ..USUAL
    },
    Row {
        name: "a way back that is due",
        environment: &["boot_counter=0", "boot_success=0"],
        after: BOOT_COUNTER,
        ..USUAL
    },
];

fn starts_once(row: &'static Row) {
    let machine = Machine::new(row);
    let findings = Grub.check(&machine.host());
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, row.findings, "{}", row.name);
    machine.arm();
    let disk = machine.disk("ext4");
    assert_eq!(
        grubenv::get(&disk.grubenv(), "next_entry"),
        Some("balena-migrate"),
        "{}",
        row.name
    );
    let said = disk.boot(row.name);
    assert!(said.contains(OURS), "{}: {said}", row.name);
    let env = disk.grubenv();
    assert_eq!(grubenv::get(&env, "next_entry"), Some(""), "{}", row.name);
    assert_ne!(grubenv::get(&env, "recordfail"), Some("1"), "{}", row.name);
    if let Some(then) = row.then {
        let said = disk.boot(row.name);
        assert!(!said.contains(OURS), "{}: {said}", row.name);
        assert!(said.contains(&format!("{then}\n")), "{}: {said}", row.name);
    }
}

/// Does it for all of them at the same time: GRUB mostly waits.
fn for_each<T: Sync>(all: &'static [T], work: impl Fn(&'static T) + Sync) {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = all
            .iter()
            .map(|one| scope.spawn(move || work(one)))
            .collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

#[test]
fn grub_starts_the_entry_once_and_then_what_it_started_before() {
    for_each(ROWS, starts_once);
}

#[test]
fn grub_clears_the_one_shot_on_every_file_system_that_is_said_to_be_writable() {
    for_each(&WRITABLE, |fs_type| {
        let machine = Machine::new(&USUAL);
        machine.arm();
        let disk = machine.disk(fs_type);
        assert!(disk.boot(fs_type).contains(OURS), "{fs_type}");
        assert!(!disk.boot(fs_type).contains(OURS), "{fs_type}");
    });
}

/// Without stage 2, which takes it away, the entry does nothing at the boot after it.
#[test]
fn an_entry_at_the_end_of_grub_cfg_is_as_much_of_a_one_shot() {
    let machine = Machine::new(&USUAL);
    machine.without_custom();
    assert_eq!(Grub.check(&machine.host()), []);
    machine.arm();
    let disk = machine.disk("ext4");
    assert!(disk.boot("grub.cfg").contains(OURS));
    let said = disk.boot("grub.cfg");
    assert!(!said.contains(OURS), "{said}");
    assert!(said.contains("OLD 0\n"), "{said}");
}

/// Also what people have changed in grub.cfg by hand, and what an update has written since.
#[test]
fn an_undo_brings_grub_cfg_back() {
    const BY_HAND: &str = "menuentry 'mine' {\n}\n# without a line break at its end";
    for updated in [false, true] {
        let machine = Machine::new(&USUAL);
        machine.without_custom();
        let path = machine.root.path().join("boot/grub/grub.cfg");
        let made = fs::read_to_string(&path).unwrap();
        let old = format!("{made}{BY_HAND}");
        machine.file("boot/grub/grub.cfg", &old);
        fs::create_dir_all(machine.root.path().join("var/lib")).unwrap();
        let sys = Sys::new(machine.root.path());
        let steps = Steps {
            steps: machine.steps(),
            armed: true,
        };
        let begin = Begin {
            run_id: "run".into(),
            home: "/".into(),
            boot_id: "boot".into(),
            one_shot: None,
            report: DIR.into(),
        };
        engine::apply(&sys, &sys, &steps, begin, &mut |_, _| ()).unwrap();
        let armed = fs::read_to_string(&path).unwrap();
        assert!(armed.contains("menuentry 'balena-migrate"), "{armed}");
        if updated {
            machine.file("boot/grub/grub.cfg", &made);
        }
        assert_eq!(undo(&sys).unwrap().left, [""; 0]);
        let now = fs::read_to_string(&path).unwrap();
        assert_eq!(now, if updated { made } else { old });
    }
}

/// Why others are refused: the one-shot would be none.
#[test]
fn grub_does_not_clear_it_on_btrfs() {
    let machine = Machine::new(&USUAL);
    machine.arm();
    let disk = machine.disk("btrfs");
    assert!(disk.boot("btrfs").contains(OURS));
    assert!(disk.boot("btrfs").contains(OURS));
}

/// Words that mean something to GRUB reach the kernel as they are: the script is well-formed.
#[test]
fn the_entry_is_a_script_for_grub() {
    let machine = Machine::new(&USUAL);
    let arguments = [
        "it's", "a b", "\"q\"", "$x", "${y}", "{", "}", "a;b", "#c", "<", "|",
    ];
    let entry = Entry {
        kernel: "/boot/a 'kernel'".into(),
        initramfs: "/boot/balena-migrate.img".into(),
        arguments: arguments.map(str::to_owned).to_vec(),
    };
    let steps = Grub.arm(&machine.host(), &entry).steps;
    let Step::WriteFile { content, .. } = &steps[0] else {
        panic!("{}", steps[0].describe());
    };
    let path = machine.root.path().join("script");
    fs::write(&path, content.expose()).unwrap();
    let checked = Command::new("grub-script-check").arg(&path).output();
    let checked = checked.expect("starting grub-script-check");
    assert!(checked.status.success(), "{checked:?}");
}
