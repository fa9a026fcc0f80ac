//! Commands in the guest: a root shell on its second serial port, so that no network is needed.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long one answer is waited for.
pub const TURN: Duration = Duration::from_secs(1);

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

impl From<&io::Error> for Mute {
    fn from(error: &io::Error) -> Mute {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Mute::Silent,
            _ => Mute::Gone,
        }
    }
}

pub struct Agent {
    stream: UnixStream,
    received: Vec<u8>,
    serial: u32,
}

impl Agent {
    pub fn new(stream: UnixStream) -> Self {
        stream
            .set_read_timeout(Some(TURN))
            .expect("setting a time limit on the agent's socket");
        // A guest that hangs reads nothing, and the socket is full after some hundred questions.
        stream
            .set_write_timeout(Some(Duration::from_secs(2)))
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
        // The exit code takes its way through a file: the pipe keeps the terminal away. What comes before the
        // first mark is the rest of what a ping was answered.
        self.send(&format!(
            "printf '\\036%s begins\\036' {serial}; \
             {{ ( {command}\n) < /dev/null 2>&1; echo $? > /run/bench-code; }} | cat; \
             printf '\\n\\036%s %s\\036' {serial} \"$(cat /run/bench-code)\"\n"
        ))
    }

    /// The answer to the last command, once there is one.
    pub fn poll(&mut self) -> Result<Said, Mute> {
        let mark = format!("\n\x1e{} ", self.serial);
        loop {
            let output = self.output();
            if let Some(end) = find(output, mark.as_bytes()) {
                let code = &output[end + mark.len()..];
                if let Some(length) = find(code, b"\x1e") {
                    let code = String::from_utf8_lossy(&code[..length]);
                    return Ok(Said {
                        code: code.parse().unwrap_or(-1),
                        text: String::from_utf8_lossy(&output[..end]).into_owned(),
                    });
                }
            }
            self.receive()?;
        }
    }

    /// What the running command has said so far.
    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(self.output()).into_owned()
    }

    /// What came since the last command began.
    fn output(&self) -> &[u8] {
        let mark = format!("\x1e{} begins\x1e", self.serial);
        match find(&self.received, mark.as_bytes()) {
            Some(start) => &self.received[start + mark.len()..],
            None => &[],
        }
    }

    fn send(&mut self, text: &str) -> Result<(), Mute> {
        self.stream
            .write_all(text.as_bytes())
            .map_err(|error| Mute::from(&error))
    }

    fn receive(&mut self) -> Result<(), Mute> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Mute::Gone),
            Ok(n) => {
                self.received.extend_from_slice(&buffer[..n]);
                Ok(())
            }
            Err(error) => Err(Mute::from(&error)),
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// It is given up by whoever waits for it, and does not hold up all tests.
#[test]
fn a_guest_that_reads_nothing_is_silent() {
    let (stream, guest) = UnixStream::pair().expect("making a pair of sockets");
    let said = Agent::new(stream).begin(&"x".repeat(1 << 20));
    assert!(matches!(said, Err(Mute::Silent)));
    drop(guest);
}

/// What answers a ping late is no output of the command behind it.
#[test]
fn what_comes_before_a_command_is_not_its_output() {
    let (stream, mut guest) = UnixStream::pair().expect("making a pair of sockets");
    let mut agent = Agent::new(stream);
    let answered = |said: Result<(), Mute>| assert!(said.is_ok());
    answered(agent.begin("echo a"));
    guest
        .write_all(b"\nagent-7-ready\n\x1e1 begins\x1ea\n\n\x1e1 3\x1e")
        .expect("answering");
    let Ok(said) = agent.poll() else {
        panic!("no answer")
    };
    assert_eq!((said.code, said.text.as_str()), (3, "a\n"));
}
