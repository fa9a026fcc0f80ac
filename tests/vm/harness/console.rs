//! The machine's serial console: reads it all the time, keeps it, waits for text in it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Everything the console has said since power on, without colours and carriage returns.
pub struct Console {
    shared: Arc<(Mutex<State>, Condvar)>,
    /// `wait_for` looks only behind what it found before, as every boot says the same things.
    seen: usize,
}

struct State {
    text: String,
    last_output: Instant,
    closed: bool,
}

/// What waiting for a text came to.
pub enum Waited {
    /// The whole line that holds the text.
    Found(String),
    /// Nothing was said for the given time.
    Silence,
    /// The machine is off.
    Closed,
}

impl Console {
    /// Starts reading; the text also goes to the file `log`, and with `prefix` to the terminal.
    pub fn read(stream: UnixStream, log: &Path, prefix: Option<String>) -> Self {
        let shared = Arc::new((
            Mutex::new(State {
                text: String::new(),
                last_output: Instant::now(),
                closed: false,
            }),
            Condvar::new(),
        ));
        let log = File::create(log).unwrap_or_else(|e| panic!("creating {}: {e}", log.display()));
        let writer = Arc::clone(&shared);
        std::thread::spawn(move || pump(stream, log, prefix, &writer));
        Console { shared, seen: 0 }
    }

    /// Waits until the console says `text`, behind what was waited for before.
    pub fn wait_for(&mut self, text: &str, patience: Duration) -> Waited {
        let (state, changed) = &*self.shared;
        let mut state = state.lock().expect("the reader thread panicked");
        state.last_output = Instant::now();
        loop {
            if let Some(at) = state.text[self.seen..].find(text) {
                let start = state.text[..self.seen + at]
                    .rfind('\n')
                    .map_or(0, |n| n + 1);
                let rest = &state.text[start..];
                // The rest of the line may still be on its way.
                if let Some(length) = rest.find('\n').or(state.closed.then_some(rest.len())) {
                    self.seen = start + length;
                    return Waited::Found(rest[..length].to_owned());
                }
            }
            if state.closed {
                return Waited::Closed;
            }
            let silent = state.last_output.elapsed();
            if silent >= patience {
                return Waited::Silence;
            }
            state = changed
                .wait_timeout(state, patience - silent)
                .expect("the reader thread panicked")
                .0;
        }
    }

    /// All that was said so far.
    pub fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// The last lines, for a message.
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// How much was said so far, in bytes.
    pub fn length(&self) -> usize {
        self.lock().text.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.0.lock().expect("the reader thread panicked")
    }
}

fn pump(
    mut stream: UnixStream,
    mut log: File,
    prefix: Option<String>,
    shared: &(Mutex<State>, Condvar),
) {
    let mut filter = Filter::default();
    let mut line = String::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).unwrap_or(0);
        let text = filter.clean(&buffer[..n]);
        // A full disk must not stop the reading: that would stall the guest.
        let _ = log.write_all(text.as_bytes());
        if let Some(prefix) = &prefix {
            for c in text.chars() {
                if c == '\n' {
                    // Not the frame of GRUB's menu, which is most of what GRUB draws.
                    if line.contains(char::is_alphanumeric) {
                        println!("{prefix}{}", line.trim_end());
                    }
                    line.clear();
                } else {
                    line.push(c);
                }
            }
        }
        let mut state = shared.0.lock().expect("a waiting thread panicked");
        state.text.push_str(&text);
        state.last_output = Instant::now();
        state.closed = n == 0;
        shared.1.notify_all();
        if n == 0 {
            return;
        }
    }
}

/// Turns terminal output into lines of text.
#[derive(Default)]
struct Filter {
    escape: Escape,
    last: u8,
    /// The beginning of a UTF-8 character that was cut by the end of a read.
    partial: Vec<u8>,
}

#[derive(Default, Clone, Copy)]
enum Escape {
    #[default]
    None,
    Begun,
    /// Inside `ESC [ … letter`.
    Csi,
}

impl Filter {
    fn clean(&mut self, bytes: &[u8]) -> String {
        let mut out = std::mem::take(&mut self.partial);
        for &byte in bytes {
            self.escape = match (self.escape, byte) {
                (Escape::None, 0x1b) => Escape::Begun,
                (Escape::None, _) => {
                    // A lone CR begins the line again (a progress display): show it as a new line.
                    if self.last == b'\r' && byte != b'\n' && byte != b'\r' {
                        out.push(b'\n');
                    }
                    if byte != b'\r' && (byte >= b' ' || byte == b'\n' || byte == b'\t') {
                        out.push(byte);
                    }
                    self.last = byte;
                    Escape::None
                }
                (Escape::Begun, b'[') => Escape::Csi,
                (Escape::Begun, _) => Escape::None,
                // GRUB and systemd position the cursor where they mean a new line.
                (Escape::Csi, b'H') => {
                    if !out.ends_with(b"\n") {
                        out.push(b'\n');
                    }
                    Escape::None
                }
                (Escape::Csi, b'@'..=b'~') => Escape::None,
                (Escape::Csi, _) => Escape::Csi,
            };
        }
        if let Err(e) = std::str::from_utf8(&out)
            && e.error_len().is_none()
        {
            self.partial = out.split_off(e.valid_up_to());
        }
        // What is no text is noise: a serial line makes some when its speed is set.
        String::from_utf8_lossy(&out).replace(char::REPLACEMENT_CHARACTER, "")
    }
}
