//! Every console that the kernel has, written so that a stuck one holds nobody up.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
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
    kind: Kind,
}

/// What a console is to those who look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Line follows line, as on a serial line.
    Lines,
    /// A virtual terminal: a screen and a keyboard.
    Screen {
        /// Something was drawn, which lines would tear apart.
        drawn: bool,
    },
}

/// Before the first picture: white on black, no blanking after some minutes, no cursor, nothing
/// there.
const ENTER: &str = "\x1b[0m\x1b[9;0]\x1b[14]\x1b[?25l\x1b[2J";

/// After the last picture: the cursor is seen again.
const LEAVE: &str = "\x1b[?25h\n";

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

    /// Writes a line to each console that has no picture, as far as each takes it now.
    pub fn line(&mut self, text: &str) {
        for console in &mut self.0 {
            if console.kind == (Kind::Screen { drawn: true }) {
                continue;
            }
            console.waiting.extend(text.as_bytes());
            console.waiting.push_back(b'\n');
            let excess = console.waiting.len().saturating_sub(BACKLOG);
            console.waiting.drain(..excess);
            console.push();
        }
    }

    /// Draws `lines` from the top of each screen, in place of what is there.
    pub fn draw(&mut self, lines: &[String]) {
        for console in &mut self.0 {
            let Kind::Screen { drawn } = console.kind else {
                continue;
            };
            console.push();
            // A screen that is held (Scroll Lock) keeps the picture that it has.
            if !console.waiting.is_empty() {
                continue;
            }
            if !drawn {
                console.waiting.extend(ENTER.as_bytes());
                console.kind = Kind::Screen { drawn: true };
            }
            console.waiting.extend(picture(lines).as_bytes());
            console.push();
        }
    }

    /// From now on lines are shown on the screens too, below the picture.
    pub fn leave_screens(&mut self) {
        for console in &mut self.0 {
            if console.kind == (Kind::Screen { drawn: true }) {
                console.waiting.extend(LEAVE.as_bytes());
                console.kind = Kind::Screen { drawn: false };
                console.push();
            }
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
        kind: match is_screen(name) {
            true => Kind::Screen { drawn: false },
            false => Kind::Lines,
        },
    })
}

/// Whether a console is a virtual terminal: `tty0`, `tty1` and so on.
fn is_screen(name: &str) -> bool {
    name.strip_prefix("tty").is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|letter| letter.is_ascii_digit())
    })
}

/// What makes a terminal show `lines` and nothing else; the cursor stays at the end.
fn picture(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}\x1b[K")).collect();
    format!("\x1b[H{}\x1b[J", lines.join("\r\n"))
}

/// Lets only what is serious through from the kernel to its consoles, so that its messages do
/// not tear the display apart. All of them stay in its log.
pub fn quieten_kernel() -> io::Result<()> {
    fs::write("/proc/sys/kernel/printk", "4")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_virtual_terminals_are_screens() {
        for screen in ["tty0", "tty1", "tty12"] {
            assert!(is_screen(screen), "{screen}");
        }
        for line in ["ttyS0", "ttyAMA0", "hvc0", "console", "tty", "ttyUSB0"] {
            assert!(!is_screen(line), "{line}");
        }
    }

    /// Consoles that are files.
    fn consoles(kinds: &[Kind]) -> (Vec<File>, Consoles) {
        let mut files = Vec::new();
        let mut consoles = Vec::new();
        for kind in kinds {
            let file = tempfile::tempfile().unwrap();
            files.push(file.try_clone().unwrap());
            consoles.push(Console {
                file,
                waiting: VecDeque::new(),
                kind: *kind,
            });
        }
        (files, Consoles(consoles))
    }

    fn text(mut file: &File) -> String {
        let mut text = String::new();
        io::Seek::rewind(&mut file).unwrap();
        io::Read::read_to_string(&mut file, &mut text).unwrap();
        text
    }

    #[test]
    fn lines_go_to_lines_and_pictures_to_screens() {
        let (files, mut consoles) = consoles(&[Kind::Lines, Kind::Screen { drawn: false }]);
        consoles.line("before");
        consoles.draw(&["top".to_owned(), "bottom".to_owned()]);
        consoles.line("meanwhile");
        consoles.leave_screens();
        consoles.line("after");
        assert_eq!(text(&files[0]), "before\nmeanwhile\nafter\n");
        assert_eq!(
            text(&files[1]),
            format!("before\n{ENTER}\x1b[Htop\x1b[K\r\nbottom\x1b[K\x1b[J{LEAVE}after\n")
        );
    }

    #[test]
    fn a_screen_that_is_held_gets_no_further_picture() {
        let (read, write) = nix::unistd::pipe().unwrap();
        nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut consoles = Consoles(vec![Console {
            file: File::from(write),
            waiting: VecDeque::new(),
            kind: Kind::Screen { drawn: true },
        }]);
        let lines = vec!["x".repeat(79); 25];
        for _ in 0..1000 {
            consoles.draw(&lines);
        }
        assert!(consoles.0[0].waiting.len() < BACKLOG);
        drop(read);
    }
}
