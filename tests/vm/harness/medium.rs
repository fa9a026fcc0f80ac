//! What lies between a machine and the file that is its disk: sectors that fail, slowness, a log
//! of all writes. Used by [`super::Machine`] for its first disk.

use std::path::Path;

use serde_json::{Value, json};

/// A flaw of a disk. Sectors have 512 bytes.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Writes that touch this sector fail, this many times; 0: for ever.
    Write { sector: u64, times: u32 },
    /// Reads that touch this sector fail, this many times; 0: for ever.
    Read { sector: u64, times: u32 },
    /// Whatever touches the sectors from this one up to the other fails: a disk that is smaller
    /// than it says.
    Beyond { sector: u64, end: u64 },
}

impl Fault {
    /// The rules of QEMU's blkdebug. A rule that is used once is then gone.
    fn rules(self) -> Vec<Value> {
        let rule = |kind: &str, sector: u64, once: bool| json!({"event": "none", "iotype": kind, "errno": 5, "sector": sector, "once": once});
        let several = |kind, sector, times| match times {
            0 => vec![rule(kind, sector, false)],
            times => vec![rule(kind, sector, true); times as usize],
        };
        match self {
            Fault::Write { sector, times } => several("write", sector, times),
            Fault::Read { sector, times } => several("read", sector, times),
            // Every access of a page's length hits one of these.
            Fault::Beyond { sector, end } => (sector..end)
                .step_by(8)
                .flat_map(|sector| ["read", "write"].map(|kind| rule(kind, sector, false)))
                .collect(),
        }
    }
}

/// The medium of a disk; the default one is sound, fast and keeps no log.
#[derive(Debug, Default)]
pub(super) struct Medium {
    pub faults: Vec<Fault>,
    pub bytes_per_s: Option<u64>,
    pub logging: bool,
}

impl Medium {
    /// QEMU's arguments for the disk in the file `path`, as the node `name`; `log` is where the
    /// writes go if they are logged.
    pub fn arguments(&self, name: &str, path: &Path, log: &Path) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut node = json!({"driver": "raw", "file": file(path)});
        if !self.faults.is_empty() {
            let rules: Vec<Value> = self.faults.iter().flat_map(|f| f.rules()).collect();
            node = json!({"driver": "blkdebug", "image": node, "inject-error": rules});
        }
        if self.logging {
            let log = json!({"driver": "raw", "file": file(log)});
            node = json!({"driver": "blklogwrites", "file": node, "log": log,
                "log-sector-size": 512});
        }
        if let Some(bytes) = self.bytes_per_s {
            let group = format!("{name}-speed");
            let object = format!("throttle-group,id={group},x-bps-write={bytes}");
            arguments.extend(["-object".to_owned(), object]);
            node = json!({"driver": "throttle", "throttle-group": group, "file": node});
        }
        node["node-name"] = json!(name);
        arguments.extend(["-blockdev".to_owned(), node.to_string()]);
        arguments
    }
}

/// The host's page cache outlives the machine: to wait for its disk would only take time.
fn file(path: &Path) -> Value {
    json!({"driver": "file", "filename": path.to_string_lossy(),
        "cache": {"direct": false, "no-flush": true}})
}
