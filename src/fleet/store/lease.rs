//! Who holds a unit: written into the name of its file, so that holder and unit move at once.
//!
//! `unit-7-Xy2@host@1234@namespace-start-since-n`: host, process, and what tells that process from a
//! later one of the same number. On the same machine the kernel says whether it lives. Of another
//! machine, or of another container, only its heartbeat tells.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::fleet::moment::Moment;
use crate::sys::Sys;

/// How often a holder says that it lives.
pub const BEAT: Duration = Duration::from_secs(60);

/// So long after the last word a holder on another machine is taken for dead. Clocks may differ by
/// most of it.
pub const SILENCE: Duration = Duration::from_secs(15 * 60);

/// One process, as its leases name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    host: String,
    pid: u32,
    /// The machine's boot and the namespace of process numbers.
    place: String,
    /// When the process started, in clock ticks since that boot.
    start: u64,
}

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is.
    pub holder: Holder,
    /// When it was taken.
    pub since: Moment,
}

/// Makes leases of the same second differ.
static COUNT: AtomicU64 = AtomicU64::new(0);

impl Holder {
    /// This process.
    pub fn this() -> io::Result<Holder> {
        let sys = Sys::new("/");
        let pid = std::process::id();
        let process = sys.process(pid)?;
        let start = process
            .ok_or_else(|| io::Error::other("/proc is not there"))?
            .start;
        Ok(Holder {
            host: file_name_part(&sys.uname()?.nodename),
            pid,
            place: place(&sys)?,
            start,
        })
    }

    /// `base` with a new lease of this holder.
    pub fn sign(&self, base: &str, now: Moment) -> String {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let Holder {
            host,
            pid,
            place,
            start,
        } = self;
        format!("{base}@{host}@{pid}@{place}-{start}-{}-{n}", now.0)
    }

    /// In words.
    pub fn describe(&self) -> String {
        format!("process {} on {}", self.pid, self.host)
    }

    /// Whether this holder still lives, asked by `asking`, when its last word was that long ago.
    pub fn lives(&self, asking: &Holder, silent: Duration) -> bool {
        match self.host == asking.host && self.place == asking.place {
            // Without an answer it lives: to take a unit from the living is worse.
            true => match Sys::new("/").process(self.pid) {
                Ok(process) => process.is_some_and(|process| process.start == self.start),
                Err(_) => true,
            },
            false => silent < SILENCE,
        }
    }
}

/// Splits a name into what was signed and its lease.
pub fn read(name: &str) -> Option<(&str, Lease)> {
    let mut parts = name.rsplitn(4, '@');
    let (token, pid, host, base) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let mut token = token.rsplitn(4, '-');
    let _n = token.next()?;
    let since = token.next()?.parse().ok()?;
    let start = token.next()?.parse().ok()?;
    let holder = Holder {
        host: host.to_owned(),
        pid: pid.parse().ok()?,
        place: token.next()?.to_owned(),
        start,
    };
    let since = Moment(since);
    Some((base, Lease { holder, since }))
}

/// Where a process number means this process: a boot of a machine, and a namespace there.
fn place(sys: &Sys) -> io::Result<String> {
    let boot = sys.read_text("/proc/sys/kernel/random/boot_id")?;
    let boot: String = boot
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(8)
        .collect();
    let namespace = sys.read_link("/proc/self/ns/pid")?;
    let namespace: String = namespace
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    Ok(format!("{boot}.{namespace}"))
}

fn file_name_part(host: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    host.chars()
        .map(|c| if good(c) { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_read_as_it_was_written() {
        let holder = Holder::this().unwrap();
        let name = holder.sign("unit-a-b-Xyz", Moment(77));
        let (base, lease) = read(&name).unwrap();
        assert_eq!(base, "unit-a-b-Xyz");
        assert_eq!(lease.holder, holder);
        assert_eq!(lease.since, Moment(77));
        assert_ne!(name, holder.sign("unit-a-b-Xyz", Moment(77)));
        assert_eq!(read("unit-a-b-Xyz"), None);
    }

    #[test]
    fn who_lives_is_known() {
        let this = Holder::this().unwrap();
        let long = SILENCE * 2;
        assert!(this.lives(&this, long));
        let reborn = Holder {
            start: this.start + 1,
            ..this.clone()
        };
        assert!(
            !reborn.lives(&this, Duration::ZERO),
            "another process of that number"
        );
        let far = Holder {
            host: "elsewhere".to_owned(),
            ..this.clone()
        };
        assert!(far.lives(&this, Duration::from_secs(60)));
        assert!(!far.lives(&this, long));
        let container = Holder {
            place: "0.0".to_owned(),
            ..this.clone()
        };
        assert!(
            container.lives(&this, Duration::ZERO),
            "its number means nothing here"
        );
    }
}
