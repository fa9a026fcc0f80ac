//! A machine that runs, in QEMU.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::agent::{Agent, Mute, Said, TURN};
use super::console::{Console, Waited};
use super::machine::Machine;
use super::pi::Pi;
use super::qmp::Qmp;
use super::quiet::{PATIENCE, Quiet, SLICE};
use super::writelog::WriteLog;
use super::{cache, pc, tool};

/// A timer on every processor of the guest.
const SLEEP_ON_EACH: &str =
    "for n in $(seq 0 $(($(nproc) - 1))); do taskset -c $n sleep 0.01 || exit; done";

pub struct Vm {
    /// None only while the machine is being given back.
    machine: Option<Machine>,
    child: Child,
    qmp: Qmp,
    pub(super) agent: Agent,
    pub(super) console: Console,
    plugged: u32,
}

impl Vm {
    pub(super) fn start(mut machine: Machine) -> Vm {
        if let Some(state) = machine.state.take() {
            let mut vm = Vm::power_on(machine, Some(&state));
            let Err(why) = vm.resume() else {
                return vm;
            };
            eprintln!(
                "bench: {}: booting, as the prepared state fails: {why}",
                vm.name()
            );
            // Its disk is as after a power cut, and boots as such.
            let mut vm = Vm::power_on(vm.power_cut(), None);
            vm.wait_agent();
            return vm;
        }
        Vm::power_on(machine, None)
    }

    fn power_on(mut machine: Machine, state: Option<&Path>) -> Vm {
        machine.starts += 1;
        let (console, console_end) = socket_pair();
        let (agent, agent_end) = socket_pair();
        let (qmp, qmp_end) = socket_pair();
        let program = machine
            .pi
            .as_ref()
            .map_or("qemu-system-x86_64", Pi::program);
        let mut command = Command::new(program);
        for (id, end) in [
            ("con", &console_end),
            ("agt", &agent_end),
            ("mon", &qmp_end),
        ] {
            command.args([
                "-chardev",
                &format!("socket,id={id},fd={}", end.as_raw_fd()),
            ]);
        }
        command.args(["-mon", "chardev=mon,mode=control"]);
        if machine.medium.logging {
            machine.begin_log();
        }
        let dir = machine.dir().to_owned();
        command.args(match &mut machine.pi {
            Some(pi) => pi.arguments(&machine.disks[0].path, &dir, "con", "agt"),
            None => pc::arguments(&machine, "con", "agt"),
        });
        if let Some(state) = state {
            command
                .arg("-incoming")
                .arg(format!("exec:cat '{}'", state.display()));
        }
        let complaints = machine.dir().join("qemu.err");
        let stderr = fs::File::create(&complaints).expect("creating QEMU's error log");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let inherited = [
            console_end.as_raw_fd(),
            agent_end.as_raw_fd(),
            qmp_end.as_raw_fd(),
        ];
        // SAFETY: prctl and fcntl are async-signal-safe, and the descriptors live until the spawn.
        unsafe { command.pre_exec(move || prepare_child(&inherited)) };
        let child = command.spawn().unwrap_or_else(|e| {
            panic!("starting {program}: {e} (util/test installs what is needed)")
        });
        // QEMU has its own copies; ours would keep us from seeing the end of the machine.
        drop((console_end, agent_end, qmp_end));
        let log = machine.log();
        let console = Console::read(console, &log, machine.prefix.clone());
        let mut child = Some(child);
        let qmp = Qmp::open(qmp).unwrap_or_else(|e| {
            let child = child.as_mut().expect("it was just started");
            let _ = child.kill();
            let _ = child.wait();
            let said = fs::read_to_string(&complaints).unwrap_or_default();
            panic!("starting {}: {e}\nQEMU said: {said}", machine.name)
        });
        Vm {
            machine: Some(machine),
            child: child.expect("taken only here"),
            qmp,
            agent: Agent::new(agent),
            console,
            plugged: 0,
        }
    }

    /// Waits until the saved state is loaded and its shell answers.
    fn resume(&mut self) -> Result<(), String> {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let loaded = self.qmp.command("query-migrate", json!({}))?;
            match loaded["status"].as_str() {
                Some("completed") => break,
                Some("failed") => return Err("QEMU cannot load it".to_owned()),
                _ if Instant::now() > limit => return Err("it loads for too long".to_owned()),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        self.qmp.command("cont", json!({}))?;
        while Instant::now() < limit {
            match self.agent.ping() {
                Ok(()) => return self.try_processors(limit),
                Err(Mute::Silent) => {}
                Err(Mute::Gone) => return Err("QEMU ended".to_owned()),
            }
        }
        Err("its shell does not answer".to_owned())
    }

    /// Proves that time goes on for each processor: one has been seen to sleep for ever after a resumption,
    /// with all that waited on it.
    fn try_processors(&mut self, limit: Instant) -> Result<(), String> {
        let mut answer = self.agent.begin(SLEEP_ON_EACH).map(|()| None);
        while Instant::now() < limit {
            match answer {
                Ok(Some(Said { code: 0, .. })) => return Ok(()),
                Ok(Some(said)) => return Err(format!("a processor cannot sleep: {}", said.text)),
                Ok(None) | Err(Mute::Silent) => answer = self.agent.poll().map(Some),
                Err(Mute::Gone) => return Err("QEMU ended".to_owned()),
            }
        }
        Err("a processor sleeps for ever".to_owned())
    }

    /// Waits until the console says `text` and returns the whole line. Looks only behind what was
    /// waited for before.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let mut quiet = Quiet::default();
        loop {
            match self.console.wait_for(text, SLICE) {
                Waited::Found(line) => return line,
                Waited::Silence => self.bear(&mut quiet, SLICE, &format!("waiting for '{text}'")),
                Waited::Closed => {
                    self.give_up(&format!("waiting for '{text}': the machine is off"))
                }
            }
        }
    }

    /// Bears that nothing was said for a `piece` of time, up to a limit.
    #[track_caller]
    fn bear(&mut self, quiet: &mut Quiet, piece: Duration, what: &str) {
        if self.is_quiet_for_too_long(quiet, piece) {
            self.give_up(&format!("{what}: silence"));
        }
    }

    /// Adds a `piece` of time in which nothing was said, and tells whether the limit is reached.
    #[track_caller]
    pub(super) fn is_quiet_for_too_long(&mut self, quiet: &mut Quiet, piece: Duration) -> bool {
        quiet.add(piece, self.console.length() + self.agent.so_far().len());
        let is_over = quiet.is_too_long();
        if !is_over && quiet.wants_a_nudge() {
            eprintln!("bench: {}: nudged after a long silence", self.name());
            self.qemu("stop", json!({}));
            self.qemu("cont", json!({}));
        }
        is_over
    }

    /// Waits until the running kernel hands over to the firmware.
    #[track_caller]
    pub fn wait_reboot(&mut self) {
        self.wait_for("reboot: Restarting system");
    }

    /// Waits until the guest's shell answers: until it is up.
    #[track_caller]
    pub fn wait_agent(&mut self) {
        let mut quiet = Quiet::default();
        loop {
            match self.agent.ping() {
                Ok(()) => return,
                Err(Mute::Silent) => self.bear(&mut quiet, TURN, "waiting for the guest's shell"),
                Err(Mute::Gone) => {
                    self.give_up("waiting for the guest's shell: the machine is off")
                }
            }
        }
    }

    /// Runs a command in the guest, without a terminal, to its end.
    #[track_caller]
    pub fn agent(&mut self, command: &str) -> Said {
        let mut answer = self.agent.begin(command);
        let mut quiet = Quiet::default();
        loop {
            match answer {
                Ok(()) => {}
                Err(Mute::Silent) => self.bear(&mut quiet, TURN, &format!("'{command}'")),
                Err(Mute::Gone) => {
                    let said = self.agent.so_far();
                    self.give_up(&format!("the machine went off during '{command}': {said}"))
                }
            }
            answer = match self.agent.poll() {
                Ok(said) => return said,
                Err(mute) => Err(mute),
            };
        }
    }

    /// Runs a command that has to succeed, and returns what it said.
    #[track_caller]
    pub fn must(&mut self, command: &str) -> String {
        let said = self.agent(command);
        if said.code != 0 {
            self.give_up(&format!(
                "'{command}' ended with {}: {}",
                said.code, said.text
            ));
        }
        said.text
    }

    /// Starts a command that goes on by itself, with its output on the console.
    #[track_caller]
    pub fn begin_on_console(&mut self, command: &str) {
        let quoted = command.replace('\'', r"'\''");
        // The pause lets the shell say that it started the command before a reboot ends them both.
        self.must(&format!(
            "setsid sh -c 'sleep 0.5; {quoted}' > /dev/console 2>&1 &"
        ));
    }

    /// Shuts the guest down in the ordinary way.
    #[track_caller]
    pub fn shut_down(mut self) -> Machine {
        self.begin_on_console("systemctl poweroff");
        self.wait_off()
    }

    /// Copies the directory `from` with all that is in it to `to` in the guest.
    #[track_caller]
    pub fn send(&mut self, from: &Path, to: &str) {
        let disk = self.machine().dir().join("job.raw");
        let _ = fs::remove_file(&disk);
        // Content, as much again for tables and rounding, and room for an empty one.
        let kib = directory_kib(from) * 5 / 4 + 8192;
        tool::run(
            Command::new("mkfs.ext4")
                .args(["-q", "-F", "-L", "JOB", "-O", "^has_journal", "-d"])
                .arg(from)
                .arg(&disk)
                .arg(format!("{kib}k")),
        );
        let id = self.plug(&disk, "BENCH-JOB");
        self.must(&format!(
            "for i in $(seq 100); do [ -e /dev/disk/by-label/JOB ] && break; sleep 0.2; done; \
             mount -o ro LABEL=JOB /mnt && mkdir -p {to} && cp -a /mnt/. {to}/ && \
             rmdir {to}/lost+found && umount /mnt"
        ));
        self.unplug(&id);
    }

    /// Attaches a disk while the machine runs, and returns its id.
    #[track_caller]
    pub fn plug(&mut self, path: &Path, serial: &str) -> String {
        self.plug_sectors(path, serial, 512)
    }

    /// As [`Vm::plug`], with sectors of another size in bytes.
    #[track_caller]
    pub(super) fn plug_sectors(&mut self, path: &Path, serial: &str, sector_bytes: u32) -> String {
        self.plugged += 1;
        let id = format!("plugged{}", self.plugged);
        self.qemu(
            "blockdev-add",
            json!({"node-name": id, "driver": "raw",
                "file": {"driver": "file", "filename": path.to_string_lossy()}}),
        );
        self.qemu(
            "device_add",
            json!({"driver": "virtio-blk-pci", "id": format!("dev-{id}"), "drive": id, "serial": serial,
                "logical_block_size": sector_bytes, "physical_block_size": sector_bytes}),
        );
        id
    }

    /// Detaches a disk that was plugged.
    #[track_caller]
    pub fn unplug(&mut self, id: &str) {
        self.qemu("device_del", json!({"id": format!("dev-{id}")}));
        // The guest has to let go of it first; only then QEMU frees the node.
        for _ in 0..300 {
            if self
                .qmp
                .command("blockdev-del", json!({"node-name": id}))
                .is_ok()
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.give_up(&format!("the guest does not let go of {id}"));
    }

    /// Attaches a new disk that is one ext4 file system, for the rest of this machine's life.
    ///
    /// A later start of the machine does not have it.
    #[track_caller]
    pub fn plug_ext4(&mut self, label: &str, mib: u32) -> PathBuf {
        let empty = TempDir::new_in(self.machine().dir()).expect("making a directory");
        self.plug_tree(label, empty.path(), mib)
    }

    /// As [`Vm::plug_ext4`], with what is in `tree`.
    #[track_caller]
    pub fn plug_tree(&mut self, label: &str, tree: &Path, mib: u32) -> PathBuf {
        let path = self.machine().dir().join(format!("{label}.raw"));
        tool::run(
            Command::new("mkfs.ext4")
                .args(["-q", "-F", "-L", label, "-d"])
                .arg(tree)
                .arg(&path)
                .arg(format!("{mib}M")),
        );
        self.plug(&path, &format!("BENCH-{label}"));
        self.must(&format!(
            "for i in $(seq 100); do [ -e /dev/disk/by-label/{label} ] && exit; sleep 0.2; done; exit 1"
        ));
        path
    }

    /// Saves a picture of the screen among the logs, and returns its path.
    pub fn screenshot(&mut self, name: &str) -> PathBuf {
        let path = cache::subdir("logs").join(format!("{}-{name}.png", self.name()));
        let file = path.to_string_lossy();
        // For a person to look at: a test does not fail for want of it.
        let taken = self
            .qmp
            .command("screendump", json!({"filename": file, "format": "png"}));
        if let Err(e) = taken {
            eprintln!("bench: no picture of the screen: {e}");
        }
        path
    }

    /// All that the console has said since power on.
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// What the firmware of a board said at this start.
    pub fn firmware_said(&self) -> &[String] {
        self.machine().pi.as_ref().map_or(&[], Pi::said)
    }

    /// From now on a reboot switches the machine off instead.
    #[track_caller]
    pub fn stop_at_reboot(&mut self) {
        self.qemu("set-action", json!({"reboot": "shutdown"}));
    }

    /// Stops the processors and writes the running state to `to`.
    #[track_caller]
    pub(super) fn save_state(&mut self, to: &Path) {
        self.qemu("stop", json!({}));
        self.qemu(
            "migrate",
            json!({"uri": format!("exec:cat > '{}'", to.display())}),
        );
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            match self.qemu("query-migrate", json!({}))["status"].as_str() {
                Some("completed") => return,
                Some("failed") => break,
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        self.give_up("QEMU cannot save the running state");
    }

    /// Takes the power away at once.
    pub fn power_cut(mut self) -> Machine {
        self.end();
        self.machine.take().expect("given back once")
    }

    /// Waits until the machine has switched itself off, or a board has handed over to its firmware.
    #[track_caller]
    pub fn wait_off(mut self) -> Machine {
        let mut quiet = Quiet::default();
        loop {
            // QEMU closes the console when it ends, and nothing says this: it is never found.
            match self.console.wait_for("\0", SLICE) {
                Waited::Closed => break,
                Waited::Silence => {
                    self.bear(&mut quiet, SLICE, "waiting for the machine to switch off");
                }
                Waited::Found(_) => unreachable!("the console drops NUL"),
            }
        }
        let said = self.console();
        let mut machine = self.power_cut();
        if let Some(pi) = &mut machine.pi {
            pi.restarts_after(&said);
        }
        machine
    }

    /// Its writes so far, when they are logged.
    pub fn writes(&self) -> WriteLog {
        WriteLog::open(&self.machine().writes().1)
    }

    #[track_caller]
    pub(super) fn qemu(
        &mut self,
        command: &str,
        arguments: serde_json::Value,
    ) -> serde_json::Value {
        match self.qmp.command(command, arguments) {
            Ok(answer) => answer,
            Err(e) => self.give_up(&e),
        }
    }

    /// Ends the test with what the console last said, with a picture of the screen, and with what the
    /// processors were at: a guest that hangs says nothing else of it.
    #[track_caller]
    pub fn give_up(&mut self, why: &str) -> ! {
        let picture = self.screenshot("failed");
        let log = self.machine().log();
        let processors = cache::subdir("logs").join(format!("{}-processors.txt", self.name()));
        let asked = self.qmp.command(
            "human-monitor-command",
            json!({"command-line": "info registers -a"}),
        );
        let said = asked.map_or_else(|e| e, |said| said.as_str().unwrap_or_default().to_owned());
        let _ = fs::write(&processors, said);
        panic!(
            "{}: {why}\n--- the console's last lines (all: {}; screen: {}; processors: {}) ---\n{}\n---",
            self.name(),
            log.display(),
            picture.display(),
            processors.display(),
            self.console.tail(),
        )
    }

    fn name(&self) -> &str {
        &self.machine().name
    }

    fn machine(&self) -> &Machine {
        self.machine.as_ref().expect("given back only at the end")
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        // Without the wait the next QEMU finds the disk still locked.
        let _ = self.child.wait();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.end();
    }
}

fn socket_pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("making a pair of sockets")
}

/// Between fork and exec: QEMU inherits its sockets, and dies with us even when we are killed.
///
/// The kernel means the thread that forked, not the process: a machine must be started by the
/// thread that uses it.
fn prepare_child(inherited: &[RawFd]) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    for &fd in inherited {
        // SAFETY: the caller keeps the descriptors open until the child runs.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

fn directory_kib(dir: &Path) -> u64 {
    let said = tool::run(Command::new("du").args(["-sk", "--apparent-size"]).arg(dir));
    said.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("du said: {said}"))
}
