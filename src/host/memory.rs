//! Reads /proc/meminfo. Called by the collector.

use anyhow::Context;

use super::Memory;

/// Total and available memory.
///
/// Kernels before 3.14 have no MemAvailable; what they call free, buffered and cached is then the
/// best that can be said.
pub(super) fn parse(meminfo: &str) -> anyhow::Result<Memory> {
    let field = |name: &str| kib_of(meminfo, name).map(|kib| kib * 1024);
    let total = field("MemTotal").context("finding MemTotal in /proc/meminfo")?;
    let available = field("MemAvailable")
        .or_else(|| Some(field("MemFree")? + field("Buffers")? + field("Cached")?))
        .context("finding MemAvailable in /proc/meminfo")?;
    Ok(Memory { total, available })
}

/// The number of a line such as `MemTotal:        1013284 kB`.
fn kib_of(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(':')?;
        rest.split_whitespace().next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_today() {
        let text = "MemTotal:        1013284 kB\nMemFree:          507384 kB\n\
                    MemAvailable:     801020 kB\nBuffers:           10000 kB\n";
        let memory = parse(text).unwrap();
        assert_eq!(memory.total, 1013284 * 1024);
        assert_eq!(memory.available, 801020 * 1024);
    }

    #[test]
    fn kernels_without_an_estimate() {
        let text =
            "MemTotal: 100 kB\nMemFree: 1 kB\nBuffers: 2 kB\nCached: 4 kB\nSwapCached: 8 kB\n";
        assert_eq!(parse(text).unwrap().available, 7 * 1024);
    }

    #[test]
    fn something_else() {
        assert!(parse("").is_err());
        assert!(parse("MemTotal: 100 kB\n").is_err());
    }
}
