//! Reads /proc/meminfo: stage 1 for its reckoning, stage 2 before it brings the image into memory.

use anyhow::Context;

use serde::{Deserialize, Serialize};

/// Memory in bytes, from /proc/meminfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// MemTotal.
    pub total: u64,
    /// MemAvailable (MemFree + Buffers + Cached on kernels before 3.14).
    pub available: u64,
    /// LowTotal: of a 32-bit kernel, the part that it reaches at any time; `None` where that is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<u64>,
}

/// Total and available memory.
///
/// Kernels before 3.14 have no MemAvailable; what they call free, buffered and cached is then the
/// best that can be said.
pub fn parse(meminfo: &str) -> anyhow::Result<Memory> {
    let field = |name: &str| kib_of(meminfo, name).map(|kib| kib * 1024);
    let total = field("MemTotal").context("finding MemTotal in /proc/meminfo")?;
    let available = field("MemAvailable")
        .or_else(|| Some(field("MemFree")? + field("Buffers")? + field("Cached")?))
        .context("finding MemAvailable in /proc/meminfo")?;
    Ok(Memory {
        total,
        available,
        low: field("LowTotal"),
    })
}

/// Memory that stage 2 takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    /// VmHWM: the most that the process had of its own.
    pub process: u64,
    /// Shmem: files in memory, now.
    pub files: u64,
}

/// The peak by /proc/self/status and /proc/meminfo.
pub fn peak(status: &str, meminfo: &str) -> anyhow::Result<Peak> {
    let process = kib_of(status, "VmHWM").context("finding VmHWM in /proc/self/status")?;
    let files = kib_of(meminfo, "Shmem").context("finding Shmem in /proc/meminfo")?;
    Ok(Peak {
        process: process * 1024,
        files: files * 1024,
    })
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
    fn a_32_bit_kernel_tells_its_low_memory() {
        let text =
            "MemTotal: 2000 kB\nMemAvailable: 1500 kB\nHighTotal: 1200 kB\nLowTotal: 800 kB\n";
        assert_eq!(parse(text).unwrap().low, Some(800 * 1024));
        assert_eq!(
            parse("MemTotal: 1 kB\nMemAvailable: 1 kB\n").unwrap().low,
            None
        );
    }

    #[test]
    fn the_peak_is_the_high_water_mark_and_not_the_size_of_now() {
        let status = "VmPeak:\t   90000 kB\nVmSize:\t   80000 kB\nVmHWM:\t   31000 kB\n\
                      VmRSS:\t    9000 kB\n";
        let meminfo = "MemTotal: 1 kB\nShmem:            2048 kB\nShmemHugePages: 0 kB\n";
        let peak = peak(status, meminfo).unwrap();
        assert_eq!((peak.process, peak.files), (31000 * 1024, 2 << 20));
    }

    #[test]
    fn something_else() {
        assert!(parse("").is_err());
        assert!(parse("MemTotal: 100 kB\n").is_err());
    }

    #[test]
    fn available_memory_is_read_in_bytes() {
        let meminfo = "MemTotal:        2030604 kB\nMemFree: 1 kB\nMemAvailable:    1875044 kB\n";
        assert_eq!(parse(meminfo).unwrap().available, 1_875_044 * 1024);
        assert!(parse("MemTotal: 1 kB\n").is_err());
    }
}
