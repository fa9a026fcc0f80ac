//! Every console that the kernel has, written so that a stuck one holds nobody up.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

/// What a console may be behind, in bytes; the oldest text is dropped beyond that.
const BACKLOG: usize = 16 << 10;

/// The consoles of the kernel.
#[derive(Debug)]
pub struct Consoles(Vec<Console>);

#[derive(Debug)]
struct Console {
    file: File,
    waiting: VecDeque<u8>,
}

impl Consoles {
    /// Opens all that /sys/class/tty/console/active names, or /dev/console if it names none.
    pub fn open() -> Consoles {
        let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let mut consoles: Vec<Console> = active.split_whitespace().filter_map(open).collect();
        if consoles.is_empty() {
            consoles.extend(open("console"));
        }
        Consoles(consoles)
    }

    /// Writes a line to each console, as far as each takes it now.
    pub fn line(&mut self, text: &str) {
        for console in &mut self.0 {
            console.waiting.extend(text.as_bytes());
            console.waiting.push_back(b'\n');
            let excess = console.waiting.len().saturating_sub(BACKLOG);
            console.waiting.drain(..excess);
            console.push();
        }
    }

    /// Waits until all is written, but not longer than `limit`.
    pub fn drain(&mut self, limit: Duration) {
        let start = Instant::now();
        while self.0.iter().any(|console| !console.waiting.is_empty()) && start.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(20));
            self.0.iter_mut().for_each(Console::push);
        }
    }
}

impl Console {
    fn push(&mut self) {
        while !self.waiting.is_empty() {
            match self.file.write(self.waiting.make_contiguous()) {
                Ok(0) => return,
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A UART that is not there answers EIO: nobody reads it.
                Err(_) => return self.waiting.clear(),
            }
        }
    }
}

fn open(name: &str) -> Option<Console> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags((OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open(format!("/dev/{name}"))
        .ok()?;
    Some(Console {
        file,
        waiting: VecDeque::new(),
    })
}

/// Lets only what is serious through from the kernel to its consoles, so that its messages do
/// not tear the display apart. All of them stay in its log.
pub fn quieten_kernel() -> io::Result<()> {
    fs::write("/proc/sys/kernel/printk", "4")
}

/// The kernel's log, each message with its seconds since the start of the kernel.
pub fn kernel_log() -> io::Result<String> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open("/dev/kmsg")?;
    let mut text = String::new();
    // Each read gives one message.
    let mut record = vec![0; 8 << 10];
    loop {
        match file.read(&mut record) {
            Ok(0) => return Ok(text),
            Ok(read) => text.push_str(&kernel_line(&String::from_utf8_lossy(&record[..read]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(text),
            // EPIPE: the kernel has overwritten the message meanwhile; the next one can be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error),
        }
    }
}

/// One record of /dev/kmsg (`priority,number,microseconds,flags;text`) as a line.
fn kernel_line(record: &str) -> String {
    let (head, body) = record.split_once(';').unwrap_or(("", record));
    let text = body.lines().next().unwrap_or_default();
    let micros: u64 = head
        .split(',')
        .nth(2)
        .and_then(|micros| micros.parse().ok())
        .unwrap_or_default();
    format!(
        "[{:5}.{:06}] {text}\n",
        micros / 1_000_000,
        micros % 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_record_becomes_one_line() {
        assert_eq!(
            kernel_line("6,339,5140900,-;sda: sda1\n SUBSYSTEM=block\n"),
            "[    5.140900] sda: sda1\n"
        );
    }
}
