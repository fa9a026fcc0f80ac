//! Other processes of this machine.

use std::io;

use super::Sys;

/// A process that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Who started it, or took it over.
    pub parent: u32,
    /// When it started, in clock ticks since the boot: with the number it names one process only.
    pub start: u64,
}

impl Sys {
    /// The process of that number; `None` when there is none, or it is dead and only waits for its
    /// parent (proc_pid_stat(5)).
    pub fn process(&self, pid: u32) -> io::Result<Option<Process>> {
        let stat = match self.read_text(&format!("/proc/{pid}/stat")) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // It ended while it was read.
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The name of the program is in parentheses, and may hold some itself.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let fields: Vec<&str> = after.split_whitespace().collect();
        if matches!(fields.first(), Some(&"Z" | &"X")) {
            return Ok(None);
        }
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        match (
            number(1).and_then(|parent| parent.try_into().ok()),
            number(19),
        ) {
            (Some(parent), Some(start)) => Ok(Some(Process { parent, start })),
            _ => Err(io::Error::other(format!(
                "/proc/{pid}/stat is not as expected"
            ))),
        }
    }

    /// Who started this process.
    pub fn parent(&self) -> u32 {
        std::os::unix::process::parent_id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself_and_the_dead_are_none() {
        let sys = Sys::new("/");
        let this = sys.process(std::process::id()).unwrap().unwrap();
        assert_eq!(this.parent, sys.parent());
        assert!(this.start > 0);
        // Above the largest number that Linux gives.
        assert_eq!(sys.process(4_194_305).unwrap(), None);
    }

    #[test]
    fn a_name_can_not_lead_astray() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/7")).unwrap();
        let zeros = "0 ".repeat(17);
        let stat = format!("7 (a) Z 1 (b) S 42 {zeros}1234 0\n");
        std::fs::write(root.path().join("proc/7/stat"), stat).unwrap();
        let wanted = Process {
            parent: 42,
            start: 1234,
        };
        assert_eq!(Sys::new(root.path()).process(7).unwrap(), Some(wanted));
    }
}
