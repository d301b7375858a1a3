//! Rate and cost of the fleet and of Postfix, signed and plain.

use super::{measure, warm_up};
use crate::{
    arguments::{Arguments, Dkim},
    disk::fsync_time,
    fleet::{Fleet, Options},
    mail::{Letter, PLAIN, Plan, SIGNED},
    peer::Postfix,
    report::{Measured, note, ratio, round, say, table},
    sessions::SharedByThread,
    sink::SinkProcess,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, path::Path};

/// Connections to the sink that Postfix does best with when it answers at once: its default.
const NEAR_CONCURRENCY: usize = 20;
/// What the fleet has for each domain by default.
const CONNECTIONS_TO_A_SITE: usize = 10;

/// A system and its name in the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct System {
    name: &'static str,
    ours: bool,
    signed: bool,
}

const SYSTEMS: [System; 4] = [
    System { name: "ours_dkim", ours: true, signed: true },
    System { name: "postfix_dkim", ours: false, signed: true },
    System { name: "ours_plain", ours: true, signed: false },
    System { name: "postfix_plain", ours: false, signed: false },
];

/// What came out of one system.
enum Outcome {
    Measured(Vec<Measured>),
    Skipped(String),
}

impl Outcome {
    /// The run with the median rate.
    fn median(&self) -> Option<&Measured> {
        let Self::Measured(runs) = self else { return None };
        let mut runs: Vec<&Measured> = runs.iter().collect();
        runs.sort_by(|one, other| one.mails_per_s.total_cmp(&other.mails_per_s));
        runs.get(runs.len() / 2).copied()
    }
}

/// Measures all systems, one after the other, in turn when more than once.
pub async fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let letter = Letter::of_size(arguments.size)?;
    let fsync = fsync_time(folder)?.as_micros() as u64;
    let mut outcomes: BTreeMap<&str, Outcome> = BTreeMap::new();
    for _ in 0..arguments.repeat.max(1) {
        for system in SYSTEMS.into_iter().filter(|system| is_wanted(arguments, system)) {
            if let Some(reason) = reason_to_skip(arguments, &system) {
                note(&format!("{}: skipped: {reason}", system.name));
                outcomes.insert(system.name, Outcome::Skipped(reason));
                continue;
            }
            note(&format!("{}: starting", system.name));
            let measured = one(arguments, &folder.join(system.name), &system, &letter).await?;
            match outcomes.entry(system.name).or_insert_with(|| Outcome::Measured(Vec::new())) {
                Outcome::Measured(runs) => runs.push(measured),
                outcome @ Outcome::Skipped(_) => *outcome = Outcome::Measured(vec![measured]),
            }
        }
    }
    report(arguments, &outcomes, fsync)
}

fn is_wanted(arguments: &Arguments, system: &System) -> bool {
    match arguments.dkim {
        Dkim::Both => true,
        Dkim::On => system.signed,
        Dkim::Off => !system.signed,
    }
}

fn reason_to_skip(arguments: &Arguments, system: &System) -> Option<String> {
    if system.ours {
        None
    } else if arguments.without_peers {
        Some("not asked for".to_owned())
    } else {
        Postfix::missing(system.signed)
    }
}

/// One system, from its start to its end.
async fn one(arguments: &Arguments, folder: &Path, system: &System, letter: &Letter) -> anyhow::Result<Measured> {
    let sink = SinkProcess::start(arguments.round_trip()).await?;
    let warm = Plan::new(arguments.warm_up, arguments.domains, 0);
    let plan = Plan::new(arguments.mails, arguments.domains, arguments.share_4xx);
    if system.ours {
        let options = Options {
            from: if system.signed { SIGNED } else { PLAIN },
            batch: arguments.batch,
            calls: arguments.conns,
            max_connections: None,
        };
        let fleet = Fleet::start(&arguments.mailfleet, folder, sink.port, letter, options).await?;
        let measured = async {
            warm_up(&fleet, &sink, letter, &warm, system.signed).await?;
            measure(system.name, &fleet, &sink, letter, &plan, arguments.profile.as_deref()).await
        };
        let measured = measured.await;
        fleet.stop(arguments.keep).await?;
        measured
    } else {
        let concurrency = if arguments.rtt == 0 { NEAR_CONCURRENCY } else { CONNECTIONS_TO_A_SITE * arguments.domains };
        let postfix = Postfix::start(folder, sink.port, system.signed, arguments.conns, concurrency).await?;
        let measured = async {
            warm_up(&postfix, &sink, letter, &warm, system.signed).await?;
            measure(system.name, &postfix, &sink, letter, &plan, None).await
        };
        let measured = measured.await;
        postfix.stop(arguments.keep)?;
        measured
    }
}

fn report(arguments: &Arguments, outcomes: &BTreeMap<&str, Outcome>, fsync: u64) -> anyhow::Result<()> {
    let known = || SYSTEMS.iter().filter_map(|system| Some((system.name, outcomes.get(system.name)?)));
    let rows: Vec<_> = known().map(|(name, outcome)| row(name, outcome)).collect();
    let head = [
        "system",
        "mails/s",
        "CPU µs/mail",
        "peak MB",
        "accept p50 ms",
        "accept p99 ms",
        "load µs/mail",
        "sink µs/mail",
        "octets/mail",
    ];
    table(head, &rows)?;
    let shares = known().filter_map(|(name, outcome)| Some((name, outcome.median()?)));
    let shares = shares.flat_map(|(name, run)| {
        let parts = run.by_part.iter().filter(|(_, used)| **used > 0.0);
        run.by_process.iter().chain(parts).map(move |(process, used)| {
            let held = run.peak_mb_by_process.get(process).map(f64::to_string).unwrap_or_default();
            [name.to_owned(), process.clone(), used.to_string(), held]
        })
    });
    table(["system", "process", "CPU µs/mail", "peak MB"], &shares.collect::<Vec<_>>())?;
    for (_, outcome) in known() {
        if let Outcome::Measured(runs) = outcome {
            runs.iter().try_for_each(|run| say(&serde_json::to_string(run)?))?;
        }
    }
    say(&summary(arguments, outcomes, fsync).to_string())
}

fn row(name: &str, outcome: &Outcome) -> [String; 9] {
    match (outcome, outcome.median()) {
        (Outcome::Skipped(reason), _) => {
            let mut row: [String; 9] = Default::default();
            (row[0], row[1]) = (name.to_owned(), format!("skipped: {reason}"));
            row
        }
        (_, None) => Default::default(),
        (_, Some(run)) => [
            name.to_owned(),
            run.mails_per_s.to_string(),
            run.cpu_us_per_mail.to_string(),
            run.peak_mb.to_string(),
            run.accept.p50_ms.to_string(),
            run.accept.p99_ms.to_string(),
            run.load_us_per_mail.to_string(),
            run.sink_us_per_mail.to_string(),
            run.octets_per_mail.to_string(),
        ],
    }
}

/// The last line.
fn summary(arguments: &Arguments, outcomes: &BTreeMap<&str, Outcome>, fsync: u64) -> Value {
    let mut summary = Map::new();
    let run = |name: &str| outcomes.get(name).and_then(Outcome::median);
    for (name, outcome) in outcomes {
        let value = match (outcome, outcome.median()) {
            (Outcome::Skipped(reason), _) => json!({"mails_per_s": null, "cpu_us_per_mail": null, "skipped": reason}),
            (_, Some(run)) => json!({"mails_per_s": run.mails_per_s, "cpu_us_per_mail": run.cpu_us_per_mail}),
            (_, None) => Value::Null,
        };
        summary.insert((*name).to_owned(), value);
    }
    for kind in ["dkim", "plain"] {
        let (ours, theirs) = (run(&format!("ours_{kind}")), run(&format!("postfix_{kind}")));
        let rate = |run: &Measured| run.mails_per_s;
        let cpu = |run: &Measured| run.cpu_us_per_mail;
        summary.insert(format!("ratio_{kind}"), ratio(ours.map(rate), theirs.map(rate)));
        summary.insert(format!("cpu_ratio_{kind}"), ratio(ours.map(cpu), theirs.map(cpu)));
    }
    let load = json!({
        "mails": arguments.mails, "size": arguments.size, "conns": arguments.conns, "batch": arguments.batch,
        "rtt_ms": arguments.rtt, "share_4xx": arguments.share_4xx, "domains": arguments.domains,
        "repeat": arguments.repeat,
    });
    summary.insert("load".to_owned(), load);
    summary.insert("fsync_us".to_owned(), fsync.into());
    summary.insert("shared_by_thread".to_owned(), SharedByThread::holds().into());
    summary.insert("cores".to_owned(), std::thread::available_parallelism().map_or(0, usize::from).into());
    summary.insert("load_average".to_owned(), load_average().map_or(Value::Null, |load| round(load, 2).into()));
    Value::Object(summary)
}

/// Of the last minute.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}
