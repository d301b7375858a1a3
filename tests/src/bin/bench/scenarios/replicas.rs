//! One sender and two; and a distant receiver that allows few connections, where the rate is theirs, not ours.

use super::{measure, warm_up};
use crate::{
    arguments::{Arguments, Dkim},
    fleet::{Fleet, Options},
    mail::{Letter, PLAIN, Plan, SIGNED},
    report::{Measured, note, round, say, table},
    sink::SinkProcess,
};
use anyhow::bail;
use serde_json::json;
use std::{path::Path, time::Duration};

/// Mails with a sink that answers at once, unless told otherwise.
const NEAR: usize = 20_000;
/// How far the distant sink is.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Round trips of one mail on an open connection: the pipelined envelope, and the body.
const FLIGHTS: u32 = 2;
/// Sites and connections to each, with the distant sink.
const CAPS: [(usize, usize); 5] = [(2, 2), (4, 2), (4, 5), (8, 5), (16, 10)];
/// How long a run with the distant sink is to take.
const SECONDS: f64 = 10.0;
/// Most mails of such a run.
const DISTANT: usize = 12_000;

/// One run.
struct Run {
    senders: usize,
    sites: usize,
    connections: usize,
    round_trip: Duration,
    mails: usize,
}

impl Run {
    /// What so many connections carry, if none ever waits for us. One of several to a site is kept for urgent mail.
    fn ceiling(&self) -> Option<f64> {
        let flight = (self.round_trip * FLIGHTS).as_secs_f64();
        let connections = self.sites * self.connections.saturating_sub(1).max(1);
        (flight > 0.0).then(|| connections as f64 / flight)
    }
}

/// Measures.
pub async fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let letter = Letter::of_size(arguments.size)?;
    let near = arguments.window.unwrap_or(NEAR);
    let one = |senders, (sites, connections), round_trip| {
        let run = Run { senders, sites, connections, round_trip, mails: near };
        let mails = run.ceiling().map_or(near, |ceiling| ((ceiling * SECONDS) as usize).min(DISTANT));
        Run { mails, ..run }
    };
    let mut runs: Vec<Run> = [1, 2].into_iter().map(|n| one(n, (arguments.domains, 10), Duration::ZERO)).collect();
    runs.extend(CAPS.into_iter().map(|caps| one(1, caps, ROUND_TRIP)));
    runs.extend(CAPS.into_iter().map(|caps| one(2, caps, ROUND_TRIP)));
    let mut all = Vec::new();
    for (number, run) in runs.into_iter().enumerate() {
        let measured = once(arguments, &folder.join(number.to_string()), &letter, &run).await?;
        all.push((run, measured));
    }
    report(&all)
}

async fn once(arguments: &Arguments, folder: &Path, letter: &Letter, run: &Run) -> anyhow::Result<Measured> {
    let Run { senders, sites, connections, round_trip, mails } = *run;
    note(&format!("{senders} senders, {sites} sites with {connections} connections, {round_trip:?} away"));
    let sink = SinkProcess::start(round_trip).await?;
    let from = if arguments.dkim == Dkim::Off { PLAIN } else { SIGNED };
    let options = Options { from, batch: arguments.batch, calls: arguments.conns, max_connections: Some(connections) };
    let mut fleet = Fleet::start(&arguments.mailfleet, folder, sink.port, letter, options).await?;
    let measured = async {
        for _ in 1..senders {
            fleet.one_more_sender().await?;
        }
        // Few, since they too go no faster than the connections let them.
        let warm = mails.min(arguments.warm_up) / 4;
        warm_up(&fleet, &sink, letter, &Plan::new(warm, sites, 0), from == SIGNED).await?;
        measure("fleet", &fleet, &sink, letter, &Plan::new(mails, sites, 0), None).await
    };
    let measured = measured.await;
    fleet.stop(arguments.keep).await?;
    let measured = measured?;
    // Every one came at least once, or `measure` had failed.
    if measured.surplus > 0 || measured.duplicated > 0 {
        bail!("{} mails came twice", measured.surplus.max(measured.duplicated));
    }
    Ok(measured)
}

fn report(all: &[(Run, Measured)]) -> anyhow::Result<()> {
    let rows: Vec<_> = all
        .iter()
        .map(|(run, measured)| {
            let share = run.ceiling().map(|most| (round(most, 0), round(100.0 * measured.mails_per_s / most, 0)));
            let (most, share) =
                share.map_or_else(Default::default, |(most, share)| (most.to_string(), format!("{share} %")));
            [
                run.senders.to_string(),
                run.round_trip.as_millis().to_string(),
                run.sites.to_string(),
                run.connections.to_string(),
                measured.mails_per_s.to_string(),
                most,
                share,
                measured.cpu_us_per_mail.to_string(),
                measured.duplicated.to_string(),
            ]
        })
        .collect();
    let head = [
        "senders",
        "round trip ms",
        "sites",
        "connections each",
        "mails/s",
        "connections carry",
        "of it",
        "CPU µs/mail",
        "doubled",
    ];
    table(head, &rows)?;
    let runs: Vec<_> = all
        .iter()
        .map(|(run, measured)| {
            json!({
                "senders": run.senders, "round_trip_ms": run.round_trip.as_millis() as u64, "sites": run.sites,
                "connections": run.connections, "mails": run.mails, "mails_per_s": measured.mails_per_s,
                "ceiling": run.ceiling(), "cpu_us_per_mail": measured.cpu_us_per_mail,
                "duplicated": measured.duplicated,
            })
        })
        .collect();
    say(&json!({"scenario": "replicas", "runs": runs}).to_string())
}
