//! The machine to be migrated: a stock Debian 12 with real GRUB, built from packages once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine::{MEMORY_MIB, Machine, copy_sparse};
use super::{cache, tool, vm};

const RECIPE: &str = include_str!("../recipes/guest.sh");

/// What the first boot does, so that everything in /boot is what Debian's own tools make there.
const FIRST_BOOT: &str = "update-grub && sync";

pub struct Guest {
    dir: PathBuf,
}

/// A guest that has booted: its disk and its processor and memory state at one moment.
pub struct Booted {
    pub disk: PathBuf,
    pub state: PathBuf,
}

impl Guest {
    /// The guest, built when the cache does not have it (a minute or two).
    pub fn get() -> Guest {
        let recipe = [RECIPE, FIRST_BOOT].concat();
        Guest {
            dir: cache::artefact("guest", &recipe, build),
        }
    }

    /// Its disk, cleanly shut down.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("guest.raw")
    }

    /// The kernel, modules, busybox and GRUB images that [`super::OsImage`] is made from.
    pub fn kit(&self) -> PathBuf {
        self.dir.join("kit")
    }

    /// What decides its content.
    pub fn key(&self) -> String {
        self.dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// It in its running state, made when the cache does not have it (as long as a boot).
    pub fn booted(&self) -> Booted {
        let qemu = tool::run(Command::new("qemu-system-x86_64").arg("--version"));
        let recipe = format!("{} {qemu} {:?}", self.key(), vm::hardware(MEMORY_MIB));
        let dir = cache::artefact("booted", &recipe, |dir| {
            let disk = dir.join("guest.raw");
            copy_sparse(&self.disk(), &disk);
            let mut vm = Machine::in_place("prepare-booted", &disk).start();
            vm.wait_agent();
            // Not before everything has started: a scenario should find a quiet machine.
            vm.must("for i in $(seq 100); do case $(systemctl is-system-running) in running|degraded) break;; esac; sleep 0.5; done; sync");
            vm.save_state(&dir.join("state"));
        });
        Booted {
            disk: dir.join("guest.raw"),
            state: dir.join("state"),
        }
    }
}

fn build(dir: &Path) {
    let script = dir.join("guest.sh");
    fs::write(&script, RECIPE).unwrap_or_else(|e| panic!("writing {}: {e}", script.display()));
    tool::run(as_root(Command::new("bash")).arg(&script).arg(dir));
    let mut vm = Machine::in_place("prepare-guest", &dir.join("guest.raw")).start();
    vm.wait_agent();
    vm.must(FIRST_BOOT);
    vm.shut_down();
}

/// mmdebstrap and chroot need root; someone else is asked by sudo.
fn as_root(command: Command) -> Command {
    if nix::unistd::geteuid().is_root() {
        return command;
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(command.get_program());
    sudo
}
