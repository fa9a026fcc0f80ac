//! Raspberry Pis as QEMU emulates them: a [`Pi`] turns what its firmware ([`firmware`]) finds on the card into
//! QEMU's arguments, at every start anew.

pub mod firmware;

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Disk, tool};
use firmware::{Board, Started};

/// What the kernel says when the firmware is to read tryboot.txt. The kernel of kernel.org tells only the
/// console so, that of the board's makers tells the firmware.
const TRYBOOT: &str = "reboot: Restarting system with command '0 tryboot'";

/// A model of board.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// QEMU's program.
    program: &'static str,
    /// The board as QEMU calls it.
    machine: &'static str,
    revision: u32,
    board: Board,
    /// Whether Bluetooth has the first serial line. Without it, the second is off.
    has_bluetooth: bool,
}

/// A Raspberry Pi 3 Model B.
pub const PI_3: Model = Model {
    program: "qemu-system-aarch64",
    machine: "raspi3b",
    revision: 0xa0_2082,
    board: Board {
        sections: &["pi3"],
        kernel_32: "kernel7.img",
        device_trees: ["bcm2710-rpi-3-b.dtb", "bcm2837-rpi-3-b.dtb"],
    },
    has_bluetooth: true,
};

/// A Raspberry Pi 2 Model B.
pub const PI_2: Model = Model {
    program: "qemu-system-arm",
    machine: "raspi2b",
    revision: 0xa0_1041,
    board: Board {
        sections: &["pi2"],
        kernel_32: "kernel7.img",
        device_trees: ["bcm2709-rpi-2-b.dtb", "bcm2836-rpi-2-b.dtb"],
    },
    has_bluetooth: false,
};

/// A board, with what it remembers over a restart but not without power.
#[derive(Debug)]
pub struct Pi {
    model: &'static Model,
    tryboot: bool,
    /// What its firmware said at the latest start.
    said: Vec<String>,
}

impl Pi {
    pub fn new(model: &'static Model) -> Pi {
        Pi {
            model,
            tryboot: false,
            said: Vec::new(),
        }
    }

    /// The program that emulates it.
    pub fn program(&self) -> &'static str {
        self.model.program
    }

    /// What its firmware said at the latest start, a line each.
    pub fn said(&self) -> &[String] {
        &self.said
    }

    /// What the kernel said last, before it handed over to the firmware.
    pub fn restarts_after(&mut self, console: &str) {
        self.tryboot = console.contains(TRYBOOT);
    }

    /// QEMU's arguments for a start with that card, given a folder for the files that are started and the
    /// character devices for the kernel's messages and for the harness.
    pub fn arguments(
        &mut self,
        card: &Path,
        dir: &Path,
        console: &str,
        agent: &str,
    ) -> Vec<String> {
        // Used up, whatever comes of it.
        let tryboot = std::mem::take(&mut self.tryboot);
        let started = firmware::start(&Disk::new(card), self.model.board, tryboot)
            .unwrap_or_else(|why| panic!("the firmware shows a rainbow: {why}"));
        self.said.clone_from(&started.said);
        let file = |name: &str, content: &[u8]| {
            let path = dir.join(name);
            fs::write(&path, content).unwrap_or_else(|e| panic!("writing {}: {e}", path.display()));
            path.to_string_lossy().into_owned()
        };
        let kernel = file("kernel", &started.kernel);
        let initramfs = file("initramfs", &started.initramfs);
        let tree = file("device-tree", &started.device_tree);
        self.complete(&tree, &started, tryboot);
        let card = format!("if=sd,format=raw,cache=unsafe,file={}", card.display());
        let mut arguments = vec!["-machine", self.model.machine, "-display", "none"];
        arguments.extend(["-nodefaults", "-no-reboot", "-drive", &card]);
        arguments.extend(["-kernel", &kernel, "-dtb", &tree]);
        arguments.extend(["-append", &started.cmdline]);
        if !started.initramfs.is_empty() {
            arguments.extend(["-initrd", &initramfs]);
        }
        // The kernel's messages are on the second line: the first takes what the bench sends.
        let (first, second) = (format!("chardev:{agent}"), format!("chardev:{console}"));
        arguments.extend(["-serial", &first, "-serial", &second]);
        arguments.into_iter().map(str::to_owned).collect()
    }

    /// Adds to the device tree what the firmware does, and makes both serial lines usable.
    fn complete(&self, tree: &str, started: &Started, tryboot: bool) {
        const BLUETOOTH: &str = "/soc/serial@7e201000/bluetooth";
        const SECOND_LINE: &str = "/soc/serial@7e215040";
        let run = |arguments: &[&str]| tool::run(Command::new("fdtput").args(arguments));
        let revision = format!("{:x}", self.model.revision);
        run(&[
            "-p",
            "-t",
            "x",
            tree,
            "/system",
            "linux,revision",
            &revision,
        ]);
        run(&["-t", "s", tree, "/", "serial-number", "00000000b0a2d001"]);
        for (name, value) in [
            ("partition", started.partition),
            ("tryboot", u32::from(tryboot)),
        ] {
            let value = value.to_string();
            run(&["-p", "-t", "u", tree, "/chosen/bootloader", name, &value]);
        }
        match self.model.has_bluetooth {
            true => run(&["-r", tree, BLUETOOTH]),
            false => run(&["-t", "s", tree, SECOND_LINE, "status", "okay"]),
        };
    }
}
