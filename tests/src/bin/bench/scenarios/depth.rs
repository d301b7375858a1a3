//! Whether the rate and the cost of a mail depend on how many wait.

use super::{Subject, warm_up};
use crate::{
    arguments::Arguments,
    fleet::{Fleet, Options},
    mail::{Letter, PLAIN, Plan, SIGNED},
    report::{note, ratio, round, say, table},
    sink::SinkProcess,
    usage::{self, Cpu, Memory, Watch},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, time::Instant};

/// Mails measured at each depth, unless told otherwise.
const WINDOW: usize = 20_000;
/// Mails that leave a large backlog before it is measured: what is released and rendered ahead is then the same at
/// both ends of the measurement.
const LEAD: usize = 5_000;
/// Recipients in one call.
const BATCH: usize = 1_000;
const CALLS: usize = 4;

/// What was found at one depth.
struct Found {
    depth: usize,
    accepted_per_s: f64,
    mails_per_s: f64,
    cpu_us_per_mail: f64,
    by_process: BTreeMap<String, f64>,
    /// At rest with the whole backlog, and the most while it drained.
    memory: BTreeMap<String, (Memory, Memory)>,
}

/// Measures each depth, each with a fleet of its own.
pub async fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let letter = Letter::of_size(arguments.size)?;
    let mut all = Vec::new();
    for depth in &arguments.depths {
        all.push(at(arguments, &folder.join(format!("depth-{depth}")), &letter, *depth).await?);
    }
    report(arguments, &all)
}

async fn at(arguments: &Arguments, folder: &Path, letter: &Letter, depth: usize) -> anyhow::Result<Found> {
    let sink = SinkProcess::start(arguments.round_trip()).await?;
    let from = if arguments.dkim == crate::arguments::Dkim::Off { PLAIN } else { SIGNED };
    let options = Options { from, batch: BATCH, calls: CALLS, max_connections: None };
    let fleet = Fleet::start(&arguments.mailfleet, folder, sink.port, letter, options).await?;
    let outcome = drain(arguments, &fleet, &sink, letter, depth, from == SIGNED).await;
    fleet.stop(arguments.keep).await?;
    outcome
}

/// Fills the backlog while everything is held, lets it go, and looks at mails that leave it. A backlog no larger than
/// what is to be measured is filled and drained as a whole, again until enough was.
async fn drain(
    arguments: &Arguments,
    fleet: &Fleet,
    sink: &SinkProcess,
    letter: &Letter,
    depth: usize,
    signed: bool,
) -> anyhow::Result<Found> {
    warm_up(fleet, sink, letter, &Plan::new(arguments.warm_up, arguments.domains, 0), signed).await?;
    let groups = fleet.groups()?;
    let window = arguments.window.unwrap_or(WINDOW);
    let each = window.min(depth);
    let (mut filling, mut draining, mut measured) = (0.0, 0.0, 0);
    let mut used: BTreeMap<String, f64> = BTreeMap::new();
    let mut memory: BTreeMap<String, (Memory, Memory)> = BTreeMap::new();
    while measured < window {
        let plan = Plan::new(depth, arguments.domains, 0);
        fleet.hold(true).await?;
        note(&format!("depth {depth}: filling"));
        filling += fleet.hand_in(fleet.prepare(letter, &plan)?).await?.took.as_secs_f64();
        // Every `accepted` is in the log; what is measured is the way out alone.
        fleet.logged(i64::try_from(depth)?).await?;
        let resting = usage::memory(&groups);
        let start = sink.stats().await?.accepted;
        let watch = Watch::over(&groups);
        let lead = LEAD.min(depth - each);
        let mut before = (Cpu::of(&groups)?, Instant::now());
        fleet.hold(false).await?;
        if lead > 0 {
            sink.accepted(start + lead as u64).await?;
            before = (Cpu::of(&groups)?, Instant::now());
        }
        let (before, begun) = before;
        sink.accepted(start + (lead + each) as u64).await?;
        draining += begun.elapsed().as_secs_f64();
        if each == depth {
            fleet.settled().await?;
        }
        for (name, micros) in Cpu::of(&groups)?.each_since(&before, 1) {
            *used.entry(name).or_default() += micros;
        }
        for (name, most) in watch.end().groups {
            let held = resting.get(&name).copied().unwrap_or_default();
            let kept = memory.entry(name).or_default();
            *kept = (larger(kept.0, held), larger(kept.1, most));
        }
        measured += each;
    }
    let rounds = measured / each;
    let by_process: BTreeMap<String, f64> =
        used.into_iter().map(|(name, micros)| (name, micros / measured as f64)).collect();
    let found = Found {
        depth,
        accepted_per_s: (rounds * depth) as f64 / filling,
        mails_per_s: measured as f64 / draining,
        cpu_us_per_mail: by_process.values().sum(),
        by_process,
        memory,
    };
    note(&format!("depth {depth}: {:.0} mails/s, {:.0} µs CPU a mail", found.mails_per_s, found.cpu_us_per_mail));
    Ok(found)
}

fn larger(one: Memory, other: Memory) -> Memory {
    Memory { pss: one.pss.max(other.pss), rss: one.rss.max(other.rss) }
}

fn report(arguments: &Arguments, all: &[Found]) -> anyhow::Result<()> {
    let rows: Vec<_> = all
        .iter()
        .map(|found| {
            [found.depth as f64, found.accepted_per_s, found.mails_per_s, found.cpu_us_per_mail]
                .map(|value| round(value, 0).to_string())
        })
        .collect();
    table(["backlog", "accepted/s", "drained mails/s", "CPU µs/mail"], &rows)?;
    let shares = all.iter().flat_map(|found| {
        found.by_process.iter().map(|(name, used)| {
            let (resting, most) = found.memory.get(name).copied().unwrap_or_default();
            let figures = [*used, resting.pss, most.pss, most.rss].map(|value| round(value, 0).to_string());
            let [used, resting, most, rss] = figures;
            [found.depth.to_string(), name.clone(), used, resting, most, rss]
        })
    });
    let head = ["backlog", "process", "CPU µs/mail", "MB at rest", "MB at most", "MB resident at most"];
    table(head, &shares.collect::<Vec<_>>())?;
    let value = |found: &Found| -> Value {
        let memory: serde_json::Map<String, Value> = found
            .memory
            .iter()
            .map(|(name, (resting, most))| {
                let held = json!({"rest_mb": round(resting.pss, 0), "peak_mb": round(most.pss, 0), "peak_rss_mb": round(most.rss, 0)});
                (name.clone(), held)
            })
            .collect();
        json!({
            "depth": found.depth, "accepted_per_s": round(found.accepted_per_s, 0),
            "mails_per_s": round(found.mails_per_s, 0), "cpu_us_per_mail": round(found.cpu_us_per_mail, 0),
            "memory": memory,
        })
    };
    let (first, last) = (all.first(), all.last());
    let line = json!({
        "scenario": "depth", "window": arguments.window.unwrap_or(WINDOW),
        "depths": all.iter().map(value).collect::<Vec<_>>(),
        "cpu_ratio": ratio(last.map(|found| found.cpu_us_per_mail), first.map(|found| found.cpu_us_per_mail)),
        "rate_ratio": ratio(last.map(|found| found.mails_per_s), first.map(|found| found.mails_per_s)),
    });
    say(&line.to_string())
}
