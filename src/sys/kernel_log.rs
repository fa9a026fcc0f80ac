//! The kernel's own log, from /dev/kmsg. Used by stage 2.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;

/// A message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Counts from 0 since the start of the kernel.
    pub number: u64,
    /// How bad it is, from 0 (emergency) to 7 (debugging); 3 is an error, 4 a warning.
    pub level: u8,
    /// Microseconds since the start of the kernel.
    pub micros: u64,
    /// What it says, in one line.
    pub text: String,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.micros / 1_000_000, self.micros % 1_000_000);
        write!(f, "[{seconds:5}.{micros:06}] {}", self.text)
    }
}

/// All messages that the kernel still has, the oldest first.
pub fn read() -> io::Result<Vec<Message>> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open("/dev/kmsg")?;
    let mut messages = Vec::new();
    // Each read gives one message.
    let mut record = vec![0; 8 << 10];
    loop {
        match file.read(&mut record) {
            Ok(0) => return Ok(messages),
            Ok(read) => messages.push(parse(&String::from_utf8_lossy(&record[..read]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(messages),
            // EPIPE: the kernel has overwritten the message meanwhile; the next one can be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error),
        }
    }
}

/// One record (`priority,number,microseconds,flags;text`); further lines of it only help programs.
fn parse(record: &str) -> Message {
    let (head, body) = record.split_once(';').unwrap_or(("", record));
    let mut numbers = head.split(',').map(|field| field.parse::<u64>().ok());
    let mut next = || numbers.next().flatten().unwrap_or_default();
    Message {
        // The low three bits; the others say who wrote it.
        level: (next() & 7) as u8,
        number: next(),
        micros: next(),
        text: body.lines().next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_a_message() {
        let message = parse("30,339,5140900,-;sda: sda1\n SUBSYSTEM=block\n");
        assert_eq!(
            message,
            Message {
                number: 339,
                level: 6,
                micros: 5_140_900,
                text: "sda: sda1".to_owned(),
            }
        );
        assert_eq!(message.to_string(), "[    5.140900] sda: sda1");
    }
}
