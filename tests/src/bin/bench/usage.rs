//! What processes use: CPU time and memory, by group, from `/proc`.
//!
//! A group is one or more processes with all their descendants. The time of a process that ended is not lost: the
//! kernel adds it to its parent's when that reaps it (`cutime`, `cstime`), as Postgres, Postfix's master and our
//! supervisor do. So a group's time is the sum over the living of their own and their reaped children's time, and
//! the difference of two such sums holds every short-lived process between them. Memory is the proportional set
//! size: a page that several processes share counts once.

use anyhow::Context;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Clock ticks a second in `/proc/PID/stat`: 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Processes that are reported under one name.
#[derive(Clone, Debug)]
pub struct Group {
    /// The name.
    pub name: String,
    /// The first processes; their descendants belong to them.
    pub roots: Vec<u32>,
    /// Without the descendants.
    pub alone: bool,
}

impl Group {
    /// A process and its descendants.
    pub fn tree(name: &str, root: u32) -> Self {
        Self { name: name.to_owned(), roots: vec![root], alone: false }
    }

    /// One process.
    pub fn one(name: &str, pid: u32) -> Self {
        Self { name: name.to_owned(), roots: vec![pid], alone: true }
    }

    fn members(&self, children: &HashMap<u32, Vec<u32>>) -> Vec<u32> {
        let mut found = self.roots.clone();
        let mut next = 0;
        while !self.alone && next < found.len() {
            found.extend(children.get(&found[next]).into_iter().flatten());
            next += 1;
        }
        found
    }
}

/// Every process of the groups now, with its group's name.
pub fn members(groups: &[Group]) -> anyhow::Result<Vec<(String, u32)>> {
    let children = children()?;
    let named = |group: &Group| {
        let name = group.name.clone();
        group.members(&children).into_iter().map(move |pid| (name.clone(), pid))
    };
    Ok(groups.iter().flat_map(named).collect())
}

/// CPU seconds by group.
#[derive(Clone, Debug, Default)]
pub struct Cpu(pub BTreeMap<String, f64>);

impl Cpu {
    /// What the groups have used so far.
    pub fn of(groups: &[Group]) -> anyhow::Result<Self> {
        let children = children()?;
        let mut used = BTreeMap::new();
        for group in groups {
            for root in group.roots.iter().filter(|_| !group.alone) {
                stat(*root).with_context(|| format!("{} (process {root}) is gone", group.name))?;
            }
            let seconds: f64 = group.members(&children).into_iter().filter_map(cpu_of).sum();
            *used.entry(group.name.clone()).or_default() += seconds;
        }
        Ok(Self(used))
    }

    /// Microseconds for each of `count` mails since `before`, by group.
    pub fn each_since(&self, before: &Self, count: usize) -> BTreeMap<String, f64> {
        // One process that has ended takes its time with it; there is no less than none.
        let since = |name: &String, seconds: &f64| (seconds - before.0.get(name).copied().unwrap_or(0.0)).max(0.0);
        self.0.iter().map(|(name, seconds)| (name.clone(), since(name, seconds) * 1e6 / count as f64)).collect()
    }
}

/// User and system time of a process and of its reaped children, in seconds.
pub fn cpu_of(pid: u32) -> Option<f64> {
    let fields = stat(pid)?;
    let ticks: f64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / TICKS)
}

/// Memory in megabytes: proportional and resident.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Shared pages by share.
    pub pss: f64,
    /// Shared pages in full.
    pub rss: f64,
}

/// What groups hold now.
pub fn memory(groups: &[Group]) -> BTreeMap<String, Memory> {
    let children = children().unwrap_or_default();
    let mut found: BTreeMap<String, Memory> = BTreeMap::new();
    for group in groups {
        let held = found.entry(group.name.clone()).or_default();
        for pid in group.members(&children) {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let field = |name: &str| -> f64 {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1_024.0
            };
            held.pss += field("Pss:");
            held.rss += field("Rss:");
        }
    }
    found
}

/// Looks at the memory of groups again and again while it lives, and keeps the most.
pub struct Watch {
    peaks: Arc<Mutex<Peaks>>,
    task: tokio::task::JoinSet<()>,
}

/// The most that was held.
#[derive(Clone, Debug, Default)]
pub struct Peaks {
    /// All groups together, at one moment; proportional.
    pub sum_mb: f64,
    /// Each group by itself.
    pub groups: BTreeMap<String, Memory>,
}

impl Watch {
    /// Begins to look.
    pub fn over(groups: &[Group]) -> Self {
        let peaks = Arc::new(Mutex::new(Peaks::default()));
        let (shared, groups) = (Arc::clone(&peaks), groups.to_vec());
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let mut turns = tokio::time::interval(LOOK_EVERY);
            loop {
                turns.tick().await;
                let now = memory(&groups);
                shared.lock().unwrap_or_else(PoisonError::into_inner).raise(&now);
            }
        });
        Self { peaks, task }
    }

    /// Stops, and tells.
    pub fn end(mut self) -> Peaks {
        self.task.abort_all();
        self.peaks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Peaks {
    fn raise(&mut self, now: &BTreeMap<String, Memory>) {
        self.sum_mb = self.sum_mb.max(now.values().map(|held| held.pss).sum());
        for (name, held) in now {
            let peak = self.groups.entry(name.clone()).or_default();
            *peak = Memory { pss: peak.pss.max(held.pss), rss: peak.rss.max(held.rss) };
        }
    }
}

fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; what follows it is plain.
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn children() -> anyhow::Result<HashMap<u32, Vec<u32>>> {
    let mut found: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").context("needs /proc")?.filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) else { continue };
        found.entry(parent).or_default().push(pid);
    }
    Ok(found)
}
