//! The demo: one migration from power on to the new system, with the machine's console on the
//! terminal. `util/demo` installs what it needs and starts it.

#[allow(dead_code, reason = "the tests use the rest of it")]
mod harness;

mod demo_pi;

use harness::migratecfg::PLACE;
use harness::{Clock, Machine, Migratecfg, OsImage, exe};

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("--pi") => demo_pi::show(),
        Some(other) => panic!("no such option: {other}"),
        None => pc(),
    }
}

fn pc() {
    let mut clock = Clock::start("build the program, the old machine and the image");
    let program = exe::balena_migrate();
    let image = OsImage::get();
    let cfg = Migratecfg::new(&image).backing_up();
    say(&format!(
        "The program: {}, {} bytes",
        program.display(),
        size(program)
    ));
    say(&format!(
        "The image: {} bytes, compressed",
        image.gz_bytes()
    ));

    clock.next("boot of the old system");
    say("A Debian 12 machine is switched on. What follows is its serial console.");
    let mut vm = Machine::guest("demo").shown("    | ").start();
    vm.wait_agent();
    let old = vm.must("hostname; . /etc/os-release; echo $PRETTY_NAME");

    clock.next("copy of migratecfg to it");
    say("It is up. The folder migratecfg is copied to it.");
    cfg.send_to(&mut vm);

    clock.next("stage 1, on the running system");
    say("Somebody runs: sudo ./balena-migrate --yes -r 1");
    vm.begin_on_console(&format!("cd {PLACE} && ./balena-migrate --yes -r 1"));
    vm.wait_for("rebooting system in 1 seconds");
    clock.next("shutdown of the old system");
    vm.wait_reboot();

    clock.next("GRUB and kernel, from the one-shot entry");
    vm.wait_for("balena-migrate, stage 2");
    clock.next("stage 2: secure, let go, rearm, overwrite, finish, commit");
    vm.wait_for("overwrite");
    let picture = vm.screenshot("stage-2");
    vm.wait_reboot();

    clock.next("first boot of the new system");
    vm.wait_for("NEWOS: booted");
    vm.wait_for("NEWOS: done");
    let report = vm.console();
    vm.wait_off();

    println!();
    say(&format!(
        "What was {} is now a balenaOS device. It found:",
        old.trim().replace('\n', ", ")
    ));
    show_report(&report);
    say(&format!("Its screen during stage 2: {}", picture.display()));
    println!("{}", clock.stop());
    has_config_json(&report, &cfg);
}

/// What the new system has found of that which was to be left for it.
fn show_report(report: &str) {
    let facts = [
        "config.json",
        "uuid",
        "keyfile",
        "fingerprint",
        "backup",
        "log",
    ];
    let lines = report.lines();
    for line in lines.filter_map(|line| line.trim().strip_prefix("NEWOS: ")) {
        if facts.iter().any(|word| line.starts_with(word)) {
            println!("      {line}");
        }
    }
}

fn has_config_json(report: &str, cfg: &Migratecfg) {
    let wanted = format!("NEWOS: config.json {}", cfg.config_json_sha256());
    assert!(
        report.contains(&wanted),
        "the new system has another config.json"
    );
}

fn say(text: &str) {
    println!("==> {text}");
}

fn size(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |data| data.len())
}
