//! Where swap goes. Called by the collector.

use crate::device_node;
use crate::sys::Sys;

/// Kernel names of the block devices that take swap, in the order of the kernel; swap files are on
/// mounted file systems.
pub(super) fn collect(sys: &Sys) -> Vec<String> {
    let text = sys.read_text("/proc/swaps").unwrap_or_default();
    let nodes = text.lines().skip(1).filter_map(partition);
    nodes
        .filter_map(|node| device_node::sysfs_name(&sys.canonical(node).ok()?))
        .collect()
}

/// The device file in a line of /proc/swaps (proc(5)), if it is of one.
fn partition(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let node = words.next()?;
    (words.next()? == "partition").then_some(node)
}

#[cfg(test)]
mod tests {
    use super::partition;

    #[test]
    fn a_swap_file_is_no_device() {
        let line = "/dev/dm-1                               partition\t998396\t\t0\t\t-2";
        assert_eq!(partition(line), Some("/dev/dm-1"));
        assert_eq!(partition("/swapfile file 998396 0 -3"), None);
        assert_eq!(partition(""), None);
    }
}
