//! A PC as QEMU emulates it: turns a [`Machine`] into arguments.

use super::board::{Firmware, Processor};
use super::machine::Machine;
use super::medium::Medium;

/// QEMU's arguments, given the character devices for the kernel's messages and for the harness.
pub fn arguments(machine: &Machine, console: &str, agent: &str) -> Vec<String> {
    let board = machine.board;
    let mut arguments = hardware(machine.memory_mib, machine.processor, board.firmware);
    arguments.extend(board.firmware_arguments(&machine.dir().join("variables.fd")));
    let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    if machine.talkative {
        add("-machine", "graphics=off".to_owned());
    }
    add("-serial", format!("chardev:{console}"));
    let [flag, line] = board.agent_line(agent);
    add(&flag, line);
    if let Some(controller) = board.controller() {
        add("-device", controller.to_owned());
    }
    arguments.extend(disks(machine));
    arguments
}

fn disks(machine: &Machine) -> Vec<String> {
    let (board, (_, log)) = (machine.board, machine.writes());
    let device = |device: String| ["-device".to_owned(), device];
    let mut arguments = Vec::new();
    // The kernel names disks in the order of their places on the bus.
    if let Some(small) = &machine.small {
        arguments.extend(Medium::default().arguments("small", small, &log));
        arguments.extend(device(board.disk(0, "small", "BENCH-SMALL", 512)));
    }
    let first = usize::from(machine.small.is_some());
    for (n, disk) in machine.disks.iter().enumerate() {
        let node = format!("disk{n}");
        let sound = Medium::default();
        let medium = match n {
            0 => &machine.medium,
            1 => &machine.second_medium,
            _ => &sound,
        };
        arguments.extend(medium.arguments(&node, &disk.path, &log));
        let mut options = board.disk(first + n, &node, &disk.serial, disk.sector_bytes);
        // A BIOS tries one disk only. UEFI firmware looks for loaders on all of them, and with
        // an order from outside it would forget its own.
        let chosen = machine.starts_from;
        if n == chosen && first + chosen > 0 && board.firmware == Firmware::Bios {
            options.push_str(",bootindex=0");
        }
        arguments.extend(device(options));
    }
    arguments
}

/// The machine but for its disks, firmware and lines. A prepared state fits only the same hardware.
pub(super) fn hardware(memory_mib: u32, processor: Processor, firmware: Firmware) -> Vec<String> {
    // OVMF looks at its keyboards and lines at each tick of its timer, and QEMU delivers all ticks that a busy
    // host was late for: once looking takes longer than the time between two of them, it does nothing else.
    // Time that passes with the instructions has no such backlog, and wants a single processor.
    let pace = match firmware {
        Firmware::Bios => "-accel tcg,thread=multi -smp 2",
        Firmware::Uefi => "-accel tcg,thread=single -icount shift=4 -smp 1",
    };
    // The wire leads nowhere: it is there for its hardware address. A kernel that finds an HPET reads the
    // time from it, through a lock that both processors wait for: slow, and a guest has hung there.
    "-machine pc,hpet=off PACE -cpu CPU -nodefaults -vga std -display none \
     -netdev user,id=wire,restrict=on -device virtio-net-pci,netdev=wire,romfile= -m"
        .replace("PACE", pace)
        .replace("CPU", processor.name())
        .split(' ')
        .map(str::to_owned)
        .chain([memory_mib.to_string()])
        .collect()
}
