//! Reads what the processor can do. Called by the collector.

use crate::sys::Sys;

/// Whether the processor has the 64-bit mode of x86, by the flag `lm` that 32-bit kernels show too;
/// `None` where /proc/cpuinfo has no such flags.
pub(super) fn long_mode(sys: &Sys) -> Option<bool> {
    has_long_mode(&sys.read_text("/proc/cpuinfo").ok()?)
}

fn has_long_mode(cpuinfo: &str) -> Option<bool> {
    cpuinfo.lines().find_map(|line| {
        let (name, flags) = line.split_once(':')?;
        (name.trim() == "flags").then(|| flags.split_whitespace().any(|flag| flag == "lm"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_64_bit_processor_has_a_flag() {
        let cpuinfo = |flags: &str| format!("processor\t: 0\nmodel\t\t: 6\nflags\t\t: {flags}\n");
        assert_eq!(
            has_long_mode(&cpuinfo("fpu nx lm constant_tsc")),
            Some(true)
        );
        assert_eq!(
            has_long_mode(&cpuinfo("fpu lahf_lm almost")),
            Some(false),
            "other flags are named alike"
        );
        let arm = "processor\t: 0\nFeatures\t: half thumb lm\n";
        assert_eq!(has_long_mode(arm), None);
    }
}
