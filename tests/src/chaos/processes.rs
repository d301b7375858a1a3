//! What the kernel tells of a process, and the most that was seen of each.

use std::{collections::BTreeMap, fs};

/// One look at a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Resident memory, in octets.
    pub resident: u64,
    /// Address space, in octets.
    pub address_space: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// The most of two looks.
    pub fn max(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            address_space: self.address_space.max(other.address_space),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
        }
    }
}

/// The most that was seen of each process, by name.
pub type Peaks = BTreeMap<String, Usage>;

/// Looks at a process; `None` when it has ended, or where there is no `/proc`.
pub fn read(pid: i32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    Some(Usage {
        resident: field("VmRSS")? * 1_024,
        address_space: field("VmSize")? * 1_024,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64,
        threads: field("Threads")?,
    })
}
