//! The demo on a board: `util/demo --pi`.

use crate::harness::guest::{Guest, Root, Tree};
use crate::harness::migratecfg::PLACE;
use crate::harness::pi::PI_3;
use crate::harness::{Clock, Machine, Migratecfg, OsImage, Vm, exe};
use crate::{has_config_json, say, show_report};

const GUEST: Guest = Guest {
    tree: Tree::Pi3,
    root: Root::Card,
};

/// One migration by tryboot.
pub fn show() {
    let mut clock = Clock::start("build the program, the old card and the image");
    let program = exe::for_aarch64();
    let image = OsImage::for_pi(Tree::Pi3, "raspberrypi3-64");
    let cfg = Migratecfg::with_program(&image, program).backing_up();
    let machine = Machine::pi("demo-pi", &PI_3, GUEST).shown("    | ");
    cfg.put_on(&machine, 2);

    clock.next("boot of the old system");
    say(
        "A Raspberry Pi 3 is switched on, with the folder migratecfg on its card. This is its serial line.",
    );
    let mut vm = machine.start();
    firmware(&vm);
    vm.wait_agent();
    vm.must(&format!(
        "cd {PLACE} && chmod 755 balena-migrate *.sh && : > /dev/vcio"
    ));

    clock.next("stage 1, on the running system");
    say("Somebody runs: sudo ./balena-migrate --yes -r 1");
    vm.begin_on_console(&format!("cd {PLACE} && ./balena-migrate --yes -r 1"));
    vm.wait_for("rebooting system in 1 seconds");
    clock.next("shutdown of the old system");
    let mut vm = restarted(vm);

    clock.next("kernel, from tryboot.txt");
    vm.wait_for("balena-migrate, stage 2");
    clock.next("stage 2: secure, let go, overwrite, finish, commit");
    let mut vm = restarted(vm);

    clock.next("first boot of the new system");
    vm.wait_for("NEWOS: done");
    let report = vm.console();
    vm.wait_off();
    println!();
    say("The Raspberry Pi is now a balenaOS device. It found:");
    show_report(&report);
    println!("{}", clock.stop());
    has_config_json(&report, &cfg);
}

fn restarted(mut vm: Vm) -> Vm {
    vm.wait_reboot();
    let vm = vm.wait_off().start();
    println!();
    say("The board restarts. Its firmware (a stand-in) reads the card:");
    firmware(&vm);
    vm
}

fn firmware(vm: &Vm) {
    for line in vm.firmware_said() {
        println!("    firmware: {line}");
    }
}
