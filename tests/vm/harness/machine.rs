//! A machine that is switched off: its name, memory and disks.
//!
//! Its disks are raw files. With qcow2 a killed QEMU can lose writes that it had acknowledged, so a
//! power cut would show losses that no disk has; and raw files can be read and changed from outside.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::Flock;
use tempfile::TempDir;

use super::board::{Board, Processor};
use super::guest::{Guest, sector_bytes};
use super::medium::{Fault, Medium};
use super::pi::{Model, Pi};
use super::vm::Vm;
use super::writelog::WriteLog;
use super::{Disk, cache, tool};

/// Memory of a guest unless a scenario says otherwise; the prepared state has this much.
pub const MEMORY_MIB: u32 = 1024;

/// The serial number of the guest's own disk.
pub const DISK_SERIAL: &str = "BENCH-DISK-0001";

pub struct Machine {
    pub(super) name: String,
    pub(super) memory_mib: u32,
    pub(super) board: Board,
    pub(super) processor: Processor,
    /// The board, if it is one: it then has its own processor, and one disk, which is its card.
    pub(super) pi: Option<Pi>,
    pub(super) disks: Vec<Attached>,
    /// What the first disk is like.
    pub(super) medium: Medium,
    /// What the second disk is like.
    pub(super) second_medium: Medium,
    /// Which of its disks a BIOS starts.
    pub(super) starts_from: usize,
    /// An empty disk before the others.
    pub(super) small: Option<PathBuf>,
    /// Whether the firmware's messages, and GRUB's first ones, are on the serial console too.
    pub(super) talkative: bool,
    /// A saved processor and memory state to go on from, instead of a boot.
    pub(super) state: Option<PathBuf>,
    /// Shows the console on the terminal, each line behind this.
    pub(super) prefix: Option<String>,
    /// How often it was started: every start has its own console log.
    pub(super) starts: u32,
    dir: TempDir,
    /// Two machines at once would starve each other on a small host.
    _alone: Alone,
}

/// The right to have a machine.
struct Alone {
    _lock: Flock<File>,
}

thread_local! {
    /// A test that wants a second machine would wait for itself, and all others with it.
    static HAS_ONE: Cell<bool> = const { Cell::new(false) };
}

impl Alone {
    #[track_caller]
    fn wait() -> Alone {
        assert!(!HAS_ONE.get(), "a test has one machine at a time");
        let lock = cache::lock("one-machine.lock");
        HAS_ONE.set(true);
        Alone { _lock: lock }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        HAS_ONE.set(false);
    }
}

/// A disk and how it shows in the machine.
pub(super) struct Attached {
    pub path: PathBuf,
    pub serial: String,
    pub sector_bytes: u32,
}

impl Machine {
    /// The usual guest, to be booted from power on.
    pub fn guest(name: &str) -> Self {
        Machine::of(name, Guest::USUAL, Board::default())
    }

    /// A guest on a board, to be booted from power on.
    pub fn of(name: &str, guest: Guest, board: Board) -> Self {
        let disks = guest.disks();
        let mut machine = Machine::empty(name);
        machine.board = board;
        for (n, disk) in disks.iter().enumerate() {
            machine.add_disk_copy(disk, &format!("BENCH-DISK-{:04}", n + 1));
        }
        machine.disks[0].sector_bytes = sector_bytes(guest.root);
        machine
    }

    /// A Raspberry Pi with the guest on its card.
    pub fn pi(name: &str, model: &'static Model, guest: Guest) -> Self {
        let mut machine = Machine::of(name, guest, Board::default());
        machine.pi = Some(Pi::new(model));
        machine
    }

    /// The usual guest as it runs a while after its boot.
    pub fn running_guest(name: &str) -> Self {
        Machine::running(name, Guest::USUAL)
    }

    /// A guest as it runs a while after its boot: starts in seconds, with its agent ready.
    pub fn running(name: &str, guest: Guest) -> Self {
        let booted = guest.booted();
        let mut machine = Machine::empty(name);
        machine.add_disk_copy(&booted.disk, DISK_SERIAL);
        machine.state = Some(booted.state);
        machine
    }

    /// A machine whose disk holds `image`.
    pub fn with_image(name: &str, image: &Path) -> Self {
        let mut machine = Machine::empty(name);
        machine.add_disk_copy(image, DISK_SERIAL);
        machine
    }

    /// A machine that boots and changes the disk `path` itself: the way to prepare an artefact.
    pub(super) fn in_place(name: &str, path: &Path) -> Self {
        let mut machine = Machine::empty(name);
        machine.disks.push(Attached {
            path: path.to_owned(),
            serial: DISK_SERIAL.to_owned(),
            sector_bytes: 512,
        });
        machine
    }

    fn empty(name: &str) -> Self {
        let alone = Alone::wait();
        // Whoever has the lock is the only user: what is there was left by a killed test.
        let runs = cache::subdir("run");
        for stale in fs::read_dir(&runs).into_iter().flatten().flatten() {
            let _ = fs::remove_dir_all(stale.path());
        }
        let machine = Machine {
            name: name.to_owned(),
            memory_mib: MEMORY_MIB,
            board: Board::default(),
            processor: Processor::default(),
            pi: None,
            disks: Vec::new(),
            medium: Medium::default(),
            second_medium: Medium::default(),
            starts_from: 0,
            small: None,
            talkative: false,
            state: None,
            prefix: None,
            starts: 0,
            dir: TempDir::new_in(runs).expect("creating the machine's directory"),
            _alone: alone,
        };
        match std::env::var_os("BENCH_SHOW") {
            Some(_) => machine.shown("    | "),
            None => machine,
        }
    }

    /// Gives it another amount of memory. A prepared state has its own: such a machine boots.
    pub fn memory(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self.state = None;
        self
    }

    /// Gives it another processor. A prepared state fits only its own: such a machine boots.
    pub fn with(mut self, processor: Processor) -> Self {
        self.processor = processor;
        self.state = None;
        self
    }

    /// UEFI firmware has forgotten all that it was told.
    pub fn without_variables(self) -> Self {
        let _ = std::fs::remove_file(self.dir().join("variables.fd"));
        self
    }

    /// Puts it on another board. A prepared state fits only its own: such a machine boots.
    pub fn on(mut self, board: Board) -> Self {
        self.board = board;
        self.state = None;
        self
    }

    /// Gives it a small disk with nothing on it, before the one that it boots from.
    pub fn behind_a_small_disk(mut self) -> Self {
        let path = self.dir.path().join("small.raw");
        new_disk(&path, 64);
        self.small = Some(path);
        self.state = None;
        self
    }

    /// Gives it a second disk, with nothing on it.
    pub fn with_new_disk(mut self, mib: u64) -> Self {
        let path = self.dir.path().join("new.raw");
        new_disk(&path, mib);
        self.state = None;
        self.attach(path)
    }

    /// Gives it a second disk, `path`, which a BIOS starts.
    pub fn starting_from(mut self, path: &Path) -> Self {
        self.starts_from = self.disks.len();
        self.state = None;
        self.attach(path.to_owned())
    }

    fn attach(mut self, path: PathBuf) -> Self {
        let serial = format!("BENCH-DISK-{:04}", self.disks.len() + 1);
        self.disks.push(Attached {
            path,
            serial,
            sector_bytes: 512,
        });
        self
    }

    /// Takes its last disk out.
    pub fn without_last_disk(mut self) -> Self {
        self.disks.pop();
        self
    }

    /// Gives its second disk a flaw.
    pub fn failing_on_second(mut self, fault: Fault) -> Self {
        self.second_medium.faults.push(fault);
        self
    }

    /// Shows its console on the terminal, each line behind `prefix`; `BENCH_SHOW=1` does so for all.
    pub fn shown(mut self, prefix: &str) -> Self {
        self.prefix = Some(prefix.to_owned());
        self
    }

    /// Logs all writes to its disk from the next start on, for [`Machine::writes`].
    pub fn logging_writes(mut self) -> Self {
        self.medium.logging = true;
        self
    }

    /// Gives its disk a flaw.
    pub fn failing(mut self, fault: Fault) -> Self {
        self.medium.faults.push(fault);
        self
    }

    /// Lets its disk write no faster than this.
    pub fn throttled(mut self, bytes_per_s: u64) -> Self {
        self.medium.bytes_per_s = Some(bytes_per_s);
        self
    }

    /// Changes the size of its disk, as if another had been put in.
    pub fn resized(self, bytes: u64) -> Self {
        let disk = File::options().write(true).open(&self.disks[0].path);
        disk.and_then(|disk| disk.set_len(bytes))
            .expect("changing the size of the disk");
        self
    }

    /// Lets its first partition reach to the end of the disk. The file system on it has to follow.
    pub fn with_first_partition_grown(self) -> Self {
        let script = "echo ',+' | sfdisk -q --no-tell-kernel --no-reread -N 1 \"$0\"";
        tool::run(
            Command::new("sh")
                .args(["-c", script])
                .arg(&self.disks[0].path),
        );
        self
    }

    /// Puts a copy of `image` into the place of its disk, on a sound medium.
    pub fn holding(mut self, image: &Path) -> Self {
        self.medium = Medium::default();
        self.state = None;
        copy_sparse(image, &self.disks[0].path);
        self
    }

    /// Lets the firmware speak on the serial console: a machine that can't boot says so there.
    /// Not for a prepared state, which has another firmware.
    pub fn talkative(mut self) -> Self {
        self.talkative = true;
        self.state = None;
        self
    }

    /// Its disk before the start that logged, and the log.
    pub fn writes(&self) -> (PathBuf, PathBuf) {
        (self.dir().join("base.raw"), self.dir().join("writes.log"))
    }

    /// Begins the log of a start.
    pub(super) fn begin_log(&self) {
        let (base, log) = self.writes();
        copy_sparse(&self.disks[0].path, &base);
        WriteLog::create(&log);
    }

    /// Its disk, for a look or a change from outside.
    pub fn disk(&self) -> Disk<'_> {
        Disk::new(&self.disks[0].path)
    }

    /// Switches it on.
    pub fn start(self) -> Vm {
        Vm::start(self)
    }

    /// The console log of its latest start.
    pub(super) fn log(&self) -> PathBuf {
        cache::subdir("logs").join(format!("{}-{}.log", self.name, self.starts))
    }

    /// Keeps the console log of its latest start under another name.
    pub fn keep_log(&self, name: &str) {
        let to = cache::subdir("logs").join(format!("{}-{name}.log", self.name));
        // For a person to look at: a test does not fail for want of it.
        let _ = fs::copy(self.log(), to);
    }

    /// Where files of this machine may be put.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn add_disk_copy(&mut self, image: &Path, serial: &str) {
        let path = self
            .dir
            .path()
            .join(format!("disk{}.raw", self.disks.len()));
        copy_sparse(image, &path);
        self.disks.push(Attached {
            path,
            serial: serial.to_owned(),
            sector_bytes: 512,
        });
    }
}

/// Makes a disk with nothing on it.
pub fn new_disk(path: &Path, mib: u64) {
    File::create(path)
        .and_then(|disk| disk.set_len(mib << 20))
        .unwrap_or_else(|e| panic!("creating {}: {e}", path.display()));
}

/// Copies a disk image without filling its holes.
pub fn copy_sparse(from: &Path, to: &Path) {
    tool::run(
        Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .arg(from)
            .arg(to),
    );
}
