//! How fast a file system takes data, by writing a little of it.
//!
//! Called by [`crate::material`] when the configuration sets a limit. The file loses its name before
//! anything is written to it, so that nothing is left whatever happens.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use super::Sys;

/// Bytes written at most.
pub const MOST: u64 = 64 << 20;

/// Time taken at most, one piece of writing not counted.
const LONGEST: Duration = Duration::from_secs(5);

/// Bytes between two waits for the disk.
const PIECE: usize = 4 << 20;

impl Sys {
    /// Bytes a second that reach the disk below `folder`. At most [`MOST`] bytes and a quarter of
    /// what is free are written.
    pub fn write_speed(&self, folder: &str) -> io::Result<u64> {
        let path = format!("{}/.balena-migrate-speed", folder.trim_end_matches('/'));
        let most = MOST.min(self.statvfs(folder)?.free / 4);
        if most < PIECE as u64 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.pass(&format!("measuring with {path}"))?;
        let real = self.real(&path);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&real)?;
        fs::remove_file(&real)?;

        let piece = noise();
        let started = Instant::now();
        let mut written = 0;
        while written + PIECE as u64 <= most && started.elapsed() < LONGEST {
            file.write_all(&piece)?;
            file.sync_data()?;
            written += PIECE as u64;
        }
        let speed = written as f64 / started.elapsed().as_secs_f64().max(1e-6);
        Ok(speed as u64)
    }
}

/// Data that neither a file system nor a disk can make smaller: a xorshift generator's.
fn noise() -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(PIECE);
    while bytes.len() < PIECE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_measured_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let sys = Sys::new(dir.path());
        assert!(sys.write_speed("/").unwrap() > 0);
        assert_eq!(sys.list("/").unwrap(), Vec::<String>::new());
        assert!(sys.write_speed("/nowhere").is_err());
    }
}
