//! Programs of the old system: the user's backup script, `grub-mkimage`, the reboot.

use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Sys;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code 0.
    pub success: bool,
    /// The end in words, such as `exit status: 1`.
    pub how: String,
    /// The last lines that it wrote to standard error.
    pub complaint: String,
}

impl Ended {
    fn of(output: &Output) -> Ended {
        Ended::with(output.status, &output.stderr)
    }

    fn with(status: ExitStatus, stderr: &[u8]) -> Ended {
        Ended {
            success: status.success(),
            how: status.to_string(),
            complaint: last_lines(&String::from_utf8_lossy(stderr), 10),
        }
    }
}

/// A program that takes long, and starts others.
#[derive(Debug, Clone)]
pub struct Job {
    /// The program, found on PATH when it has no `/`, and its arguments.
    pub argv: Vec<String>,
    /// A variable of its environment.
    pub variable: Option<(&'static str, String)>,
    /// It is ended after so long.
    pub limit: Duration,
}

impl Job {
    /// One with the environment of this process.
    pub fn of(argv: &[String], limit: Duration) -> Job {
        Job {
            argv: argv.to_vec(),
            variable: None,
            limit,
        }
    }
}

impl Sys {
    /// Runs a program to its end, with this process's standard output.
    ///
    /// `argv` is the program, found on PATH when it has no `/`, and its arguments; `folder` is its
    /// working directory. It is ended when this process dies, so that nothing goes on writing
    /// after an undo.
    pub fn run(&self, argv: &[String], folder: Option<&str>) -> io::Result<Ended> {
        self.pass(&format!("running {}", argv.join(" ")))?;
        let output = self.command(argv, folder)?.spawn()?.wait_with_output()?;
        Ok(Ended::of(&output))
    }

    fn command(&self, argv: &[String], folder: Option<&str>) -> io::Result<Command> {
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| io::Error::other("no program named"))?;
        let mut command = match program.starts_with('/') {
            true => Command::new(self.real(program)),
            false => Command::new(program),
        };
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(folder) = folder {
            command.current_dir(self.real(folder));
        }
        // SAFETY: prctl(2) is async-signal-safe, and nothing else runs between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        Ok(command)
    }

    /// As [`Sys::run`], and gives what the program wrote to its standard output. The program must
    /// change nothing.
    ///
    /// That goes through a temporary file: grub-mkimage flushes it to the disk, which no pipe takes.
    pub fn output(&self, argv: &[String]) -> io::Result<(Ended, Vec<u8>)> {
        let mut file = self.scratch()?;
        let output = self
            .command(argv, None)?
            .stdout(file.try_clone()?)
            .spawn()?
            .wait_with_output()?;
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok((Ended::of(&output), bytes))
    }

    /// Runs a program to its end, in silence. When the gate shuts or its time is over it is ended, with
    /// all that it has started. `watch` gets the time since its start, again and again.
    pub fn run_job(&self, job: &Job, watch: &mut dyn FnMut(Duration)) -> io::Result<Ended> {
        /// How often it is looked at.
        const LOOK: Duration = Duration::from_millis(50);
        let what = format!("running {}", job.argv.join(" "));
        self.pass(&what)?;
        let mut complaint = self.scratch()?;
        let mut command = self.command(&job.argv, None)?;
        command
            .stdout(Stdio::null())
            .stderr(complaint.try_clone()?)
            .process_group(0)
            .envs(job.variable.clone());
        let mut child = command.spawn()?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let stop = match start.elapsed() > job.limit {
                true => Err(io::Error::other(format!(
                    "it did not end within {} s",
                    job.limit.as_secs()
                ))),
                false => self.pass(&what),
            };
            if let Err(error) = stop {
                let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
                child.wait()?;
                return Err(error);
            }
            watch(start.elapsed());
            std::thread::sleep(LOOK);
        };
        let mut text = Vec::new();
        complaint.rewind()?;
        complaint.read_to_end(&mut text)?;
        Ok(Ended::with(status, &text))
    }

    /// Starts a program that outlives this process and its terminal.
    pub fn spawn_detached(&self, argv: &[String]) -> io::Result<()> {
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| io::Error::other("no program named"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: setsid(2) is async-signal-safe, and nothing else runs between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                Ok(())
            });
        }
        command.spawn().map(drop)
    }
}

/// The last `count` lines of `text`.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
