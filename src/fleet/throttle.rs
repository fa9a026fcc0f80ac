//! A limit for what all transfers of this process send together.

use std::io::{self, Write};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// The limit. Who wants to send waits until it is their turn.
#[derive(Debug)]
pub struct Throttle {
    /// Bytes a second.
    rate: u64,
    /// When all that was let through will have been sent at that rate.
    sent: Mutex<Instant>,
}

impl Throttle {
    /// At most `rate` bytes a second, which must not be 0.
    pub fn new(rate: u64) -> Throttle {
        Throttle {
            rate: rate.max(1),
            sent: Mutex::new(Instant::now()),
        }
    }

    /// Waits until `bytes` more may be sent.
    fn wait(&self, bytes: usize) {
        let time = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let start = {
            // A holder that panicked left a time behind like any other.
            let mut sent = self
                .sent
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            // Time that nobody used is not saved up.
            let start = (*sent).max(Instant::now());
            *sent = start + time;
            start
        };
        thread::sleep(start.saturating_duration_since(Instant::now()));
    }
}

/// A writer that keeps to a limit, if there is one.
pub struct Throttled<'a> {
    to: &'a mut dyn Write,
    throttle: Option<&'a Throttle>,
}

impl<'a> Throttled<'a> {
    /// Writes to `to`.
    pub fn new(to: &'a mut dyn Write, throttle: Option<&'a Throttle>) -> Throttled<'a> {
        Throttled { to, throttle }
    }
}

impl Write for Throttled<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        /// So that several share the line fairly.
        const PIECE: usize = 1 << 14;
        let piece = &bytes[..bytes.len().min(PIECE)];
        match self.throttle {
            None => self.to.write(bytes),
            Some(throttle) => {
                throttle.wait(piece.len());
                self.to.write(piece)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_writers_share_the_limit() {
        let throttle = Throttle::new(1_000_000);
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut sink = io::sink();
                    Throttled::new(&mut sink, Some(&throttle)).write_all(&[0; 150_000])
                });
            }
        });
        let took = start.elapsed();
        // The last piece is let through at its start.
        assert!(took >= Duration::from_millis(260), "{took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
}
