//! Each model of the Raspberry Pi with each distribution that was made for it, in a line: what it is armed by,
//! what it starts, or why it is refused. The distributions are those of captured machines, put on other boards
//! of the table.

use balena_migrate::finding::{Finding, stops};
use balena_migrate::host::Host;
use balena_migrate::raspberry_pi::board::{Bits64, MODELS, Model};
use balena_migrate::step::OneShot;

use super::{captured, case_of, is_golden, written};

/// A distribution.
struct System {
    name: &'static str,
    /// The captured machine that has it.
    host: &'static str,
    /// What its kernel is, on boards that run both.
    bits: Bits,
    /// The models that it was made for, by their codes.
    models: &'static [u32],
}

/// Kernel and programs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bits {
    /// Both of 32 bits.
    All32,
    /// Both of 64 bits.
    All64,
    /// Programs of 32 bits on a kernel of 64.
    Kernel64,
}

const ONES: &[u32] = &[0x00, 0x01, 0x02, 0x03, 0x06, 0x09, 0x0c];
const UP_TO_3: &[u32] = &[
    0x00, 0x01, 0x02, 0x03, 0x04, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x0d, 0x10,
];
const UP_TO_CM4: &[u32] = &[
    0x00, 0x01, 0x02, 0x03, 0x04, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x0d, 0x0e, 0x10, 0x11, 0x13, 0x14,
];
const UP_TO_CM4S: &[u32] = &[
    0x00, 0x01, 0x02, 0x03, 0x04, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x0d, 0x0e, 0x10, 0x11, 0x12, 0x13,
    0x14, 0x15,
];
const BITS_64: &[u32] = &[0x08, 0x0a, 0x0d, 0x0e, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15];
const BITS_64_WITH_5: &[u32] = &[
    0x08, 0x0a, 0x0d, 0x0e, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x17, 0x18, 0x19, 0x1a,
];
const UBUNTU: &[u32] = &[0x08, 0x0a, 0x0d, 0x0e, 0x10, 0x11, 0x12, 0x13, 0x14];
const UBUNTU_WITH_5: &[u32] = &[
    0x08, 0x0a, 0x0d, 0x0e, 0x10, 0x11, 0x12, 0x13, 0x14, 0x17, 0x18, 0x19, 0x1a,
];

const fn system(
    name: &'static str,
    host: &'static str,
    bits: Bits,
    models: &'static [u32],
) -> System {
    System {
        name,
        host,
        bits,
        models,
    }
}

const SYSTEMS: &[System] = &[
    system("raspios 9", "raspios-9-pi-3", Bits::All32, UP_TO_3),
    system("raspios 10", "raspios-10-pi-3", Bits::All32, UP_TO_CM4),
    system(
        "raspios 11, 32 bits",
        "raspios-11-pi-1",
        Bits::All32,
        UP_TO_CM4S,
    ),
    system(
        "raspios 11, 64 bits",
        "raspios-11-pi-4",
        Bits::All64,
        BITS_64,
    ),
    system(
        "raspios 12, 32 bits",
        "raspios-12-pi-zero",
        Bits::All32,
        ONES,
    ),
    system(
        "raspios 12, 32 bits",
        "raspios-12-pi-4",
        Bits::All32,
        UP_TO_CM4S,
    ),
    system(
        "raspios 12, kernel of 64",
        "raspios-12-pi-4",
        Bits::Kernel64,
        BITS_64_WITH_5,
    ),
    system(
        "raspios 12, 64 bits",
        "raspios-12-pi-4",
        Bits::All64,
        BITS_64_WITH_5,
    ),
    system(
        "raspios 13, 32 bits",
        "raspios-13-pi-4",
        Bits::All32,
        UP_TO_CM4S,
    ),
    system(
        "raspios 13, 64 bits",
        "raspios-13-pi-4",
        Bits::All64,
        BITS_64_WITH_5,
    ),
    system("ubuntu 18.04", "ubuntu-18.04-pi-3", Bits::All64, UBUNTU),
    system("ubuntu 20.04", "ubuntu-20.04-pi-4", Bits::All64, UBUNTU),
    system("ubuntu 22.04", "ubuntu-22.04-pi-4", Bits::All64, UBUNTU),
    system(
        "ubuntu 24.04",
        "ubuntu-24.04-pi-4",
        Bits::All64,
        UBUNTU_WITH_5,
    ),
    system(
        "ubuntu 25.10",
        "ubuntu-25.10-pi-4",
        Bits::All64,
        UBUNTU_WITH_5,
    ),
];

/// Its memory in MiB, less what the graphics processor has.
fn memory_mib(model: &Model) -> u64 {
    match model.code {
        0x00..=0x02 => 190,
        0x03 | 0x06 | 0x09 | 0x0c | 0x0e | 0x12 => 430,
        0x04 | 0x08 | 0x0a | 0x0d | 0x10 => 920,
        _ => 4032,
    }
}

/// The captured machine of a system, on another board.
fn put_on(system: &System, model: &'static Model) -> Host {
    const NEW_STYLE: u32 = 1 << 23;
    let mut host = captured(system.host);
    let only_32 = model.bits_64 == Bits64::Not || model.code == 0x04;
    let kernel_64 = !only_32 && system.bits != Bits::All32;
    host.machine = match (kernel_64, model.kernel_32) {
        (true, _) => "aarch64",
        (false, "kernel.img") => "armv6l",
        (false, _) => "armv7l",
    }
    .to_owned();
    host.executable_arch = if kernel_64 { "aarch64" } else { "arm" }.to_owned();
    host.memory.total = memory_mib(model) << 20;
    host.memory.available = (memory_mib(model) - 60) << 20;
    let board = host.firmware.raspberry_pi.as_mut().expect("a Raspberry Pi");
    board.revision = NEW_STYLE | model.code << 4;
    board.runs_64 = kernel_64;
    let boot = board.boot.as_mut().expect("its boot partition");
    let config = boot.texts.get_mut("config.txt").expect("its config.txt");
    if !kernel_64 {
        *config = config.replace("arm_64bit=1", "arm_64bit=0");
    }
    if model.bits_64 == Bits64::Always && !boot.names.iter().any(|name| name.ends_with("vmlinuz")) {
        boot.names.insert("kernel_2712.img".to_owned());
    }
    // u-boot hides the kernel.
    let by_u_boot = board.boots().is_ok_and(|starts| starts.u_boot());
    host.kernel.image = (!by_u_boot).then(|| board.kernel().expect("its kernel"));
    host
}

/// What it comes to.
fn outcome(host: Host) -> String {
    let case = case_of(host);
    let findings = case.findings();
    if stops(&findings) {
        let errors = findings
            .iter()
            .filter(|finding| stops(&[(*finding).clone()]));
        let errors: Vec<String> = errors.map(Finding::sentence).collect();
        return format!("refused: {}", errors.join("; "));
    }
    let plan = case.plan();
    let (by, file) = match &plan.one_shot {
        Some(OneShot::Tryboot(path)) => ("tryboot", path),
        Some(OneShot::ConfigTxt(path)) => ("config.txt", path),
        other => panic!("{other:?}"),
    };
    let text = written(&plan, file).expect("it is written");
    let block = text.split("[all]\n").last().expect("our lines");
    let differ = ["kernel=", "arm_64bit=", "gpu_mem="];
    let lines = block.lines().take_while(|line| !line.starts_with('#'));
    let lines: Vec<&str> = lines
        .filter(|line| differ.iter().any(|name| line.starts_with(name)))
        .collect();
    let goes_on = match plan.summary.power_cut_is_fatal {
        None => "goes on after a power cut",
        Some(_) => "does not go on after a power cut",
    };
    let slug = case
        .material
        .image
        .as_ref()
        .expect("an image")
        .slug()
        .expect("its device type");
    format!("{slug} by {by}: {}; {goes_on}", lines.join(", "))
}

#[test]
fn every_board_with_every_system_has_its_golden_line() {
    let mut lines = String::new();
    for system in SYSTEMS {
        let models = MODELS
            .iter()
            .filter(|model| system.models.contains(&model.code));
        for model in models {
            let outcome = outcome(put_on(system, model));
            lines.push_str(&format!("{} | {} | {outcome}\n", system.name, model.name));
        }
    }
    is_golden("raspberry-pis", &lines);
}
