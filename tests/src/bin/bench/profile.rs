//! A CPU profile of the measured part: `perf record` over the machine. `tests/bench/budget.sh` reads it.

use crate::usage::{self, Group};
use anyhow::Context;
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Samples a second and core. Not a divisor of what timers tick with.
const FREQUENCY: &str = "199";
/// Octets of stack kept with a sample: without frame pointers it is unwound from them.
const CALL_GRAPH: &str = "dwarf,8192";

/// A profile that is being taken.
pub struct Profile(Child);

impl Profile {
    /// Begins one. Beside `path` a file `.processes` tells which process is which, a name and a number a line.
    pub fn start(path: &Path, groups: &[Group]) -> anyhow::Result<Self> {
        let members = usage::members(groups)?;
        let lines: String = members.iter().map(|(name, pid)| format!("{pid}\t{name}\n")).collect();
        fs::write(path.with_extension("processes"), lines)?;
        // Virtual machines often have no counters to sample by; the clock is everywhere. The whole machine: watching a
        // hundred threads one by one takes more of it than they do.
        let child = Command::new("perf")
            .args(["record", "-q", "-a", "-e", "cpu-clock", "-F", FREQUENCY, "--call-graph", CALL_GRAPH, "-o"])
            .arg(path)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run perf")?;
        Ok(Self(child))
    }

    /// Ends it; returns when it is written.
    pub fn end(mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-INT", &self.0.id().to_string()]).status()?;
        self.0.wait()?;
        Ok(())
    }
}
