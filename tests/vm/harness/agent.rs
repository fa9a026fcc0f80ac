//! Commands in the guest: a root shell on its second serial port, so that no network is needed.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What a command in the guest came to.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    /// stdout and stderr as they came.
    pub text: String,
}

/// Why the agent has no answer. The text is what it said before.
pub enum Mute {
    /// Nothing came for a while; the caller decides whether to go on waiting.
    Silent,
    /// The machine is off.
    Gone,
}

pub struct Agent {
    stream: UnixStream,
    received: Vec<u8>,
    serial: u32,
}

impl Agent {
    pub fn new(stream: UnixStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .expect("setting a time limit on the agent's socket");
        Agent {
            stream,
            received: Vec::new(),
            serial: 0,
        }
    }

    /// Asks once whether a shell listens. To be repeated: the first bytes after a boot can be lost,
    /// and what is sent before the shell's start comes back as an echo.
    pub fn ping(&mut self) -> Result<(), Mute> {
        self.serial += 1;
        let serial = self.serial;
        // On a terminal the shell would show its prompts between the answers.
        self.send(&format!("\nPS1= PS2=\necho agent-$(({serial}))-ready\n"))?;
        let wanted = format!("agent-{serial}-ready");
        loop {
            if find(&self.received, wanted.as_bytes()).is_some() {
                self.received.clear();
                return Ok(());
            }
            self.receive()?;
        }
    }

    /// Sends a command; [`Agent::poll`] then has its answer.
    ///
    /// The command gets no terminal and no input, as one that runs over ssh from a script.
    pub fn begin(&mut self, command: &str) -> Result<(), Mute> {
        self.serial += 1;
        self.received.clear();
        let serial = self.serial;
        // The exit code takes its way through a file: the pipe keeps the terminal away.
        self.send(&format!(
            "{{ ( {command}\n) < /dev/null 2>&1; echo $? > /run/bench-code; }} | cat; \
             printf '\\n\\036%s %s\\036' {serial} \"$(cat /run/bench-code)\"\n"
        ))
    }

    /// The answer to the last command, once there is one.
    pub fn poll(&mut self) -> Result<Said, Mute> {
        let mark = format!("\n\x1e{} ", self.serial);
        loop {
            if let Some(end) = find(&self.received, mark.as_bytes()) {
                let code = &self.received[end + mark.len()..];
                if let Some(length) = find(code, b"\x1e") {
                    let code = String::from_utf8_lossy(&code[..length]);
                    return Ok(Said {
                        code: code.parse().unwrap_or(-1),
                        text: String::from_utf8_lossy(&self.received[..end]).into_owned(),
                    });
                }
            }
            self.receive()?;
        }
    }

    /// What the running command has said so far.
    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    fn send(&mut self, text: &str) -> Result<(), Mute> {
        self.stream
            .write_all(text.as_bytes())
            .map_err(|_| Mute::Gone)
    }

    fn receive(&mut self) -> Result<(), Mute> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Mute::Gone),
            Ok(n) => {
                self.received.extend_from_slice(&buffer[..n]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Mute::Silent)
            }
            Err(_) => Err(Mute::Gone),
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
