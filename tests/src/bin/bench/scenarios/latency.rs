//! How long one urgent mail takes when nothing else goes on, and while a bulk backlog drains.

use super::{Subject, warm_up};
use crate::{
    arguments::Arguments,
    fleet::{Fleet, Options},
    load::now_us,
    mail::{Letter, Plan, SIGNED},
    report::{note, ratio, round, say, table},
    sessions::SharedByThread,
    sink::SinkProcess,
    spread::Spread,
};
use anyhow::{Context, bail};
use serde_json::json;
use std::{path::Path, time::Duration};
use tokio::task::JoinSet;

/// Recipients of the bulk backlog, unless told otherwise.
const BACKLOG: usize = 100_000;
/// Between two urgent mails.
const EVERY: Duration = Duration::from_millis(20);
/// Recipients in one call of the bulk backlog.
const BATCH: usize = 1_000;

/// Urgent mails, measured.
struct Urgent {
    /// From the call to its answer.
    accept: Spread,
    /// From the answer to the copy at the sink.
    delivery: Spread,
    /// From the call to the copy.
    whole: Spread,
}

/// Measures.
pub async fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let letter = Letter::of_size(arguments.size)?;
    let sink = SinkProcess::start(arguments.round_trip()).await?;
    let options = Options { from: SIGNED, batch: BATCH, calls: 4, max_connections: None };
    let fleet = Fleet::start(&arguments.mailfleet, &folder.join("fleet"), sink.port, &letter, options).await?;
    let outcome = both(arguments, &fleet, &sink, &letter).await;
    fleet.stop(arguments.keep).await?;
    outcome
}

async fn both(arguments: &Arguments, fleet: &Fleet, sink: &SinkProcess, letter: &Letter) -> anyhow::Result<()> {
    warm_up(fleet, sink, letter, &Plan::new(arguments.warm_up, arguments.domains, 0), true).await?;
    urgent(fleet, sink, 50).await?;
    note("urgent mail with an idle fleet");
    let idle = urgent(fleet, sink, arguments.samples).await?;
    fleet.settled().await?;

    let plan = Plan::new(arguments.window.unwrap_or(BACKLOG), arguments.domains, 0);
    let before = sink.stats().await?.accepted;
    note(&format!("accepting {} recipients", plan.count));
    let handed = fleet.hand_in(fleet.prepare(letter, &plan)?).await?;
    note("urgent mail while they are delivered");
    let busy = urgent(fleet, sink, arguments.samples).await?;
    let done = sink.stats().await?.accepted - before;
    let left = (plan.count + arguments.samples).saturating_sub(usize::try_from(done)?);
    if left == 0 {
        bail!("the backlog was gone before {} urgent mails were: give a larger --window", arguments.samples);
    }
    let all = sink.accepted(before + (plan.count + arguments.samples) as u64).await?;
    fleet.settled().await?;
    fleet.check().await?;

    let row = |name: &str, part: &str, spread: &Spread| {
        [
            name.to_owned(),
            part.to_owned(),
            spread.p50_ms.to_string(),
            spread.p99_ms.to_string(),
            spread.max_ms.to_string(),
        ]
    };
    let mut rows = Vec::new();
    for (name, urgent) in [("idle", &idle), ("while bulk drains", &busy)] {
        rows.push(row(name, "call to answer", &urgent.accept));
        rows.push(row(name, "answer to delivered", &urgent.delivery));
        rows.push(row(name, "call to delivered", &urgent.whole));
    }
    table(["fleet", "part", "p50 ms", "p99 ms", "max ms"], &rows)?;
    let accept_s = handed.took.as_secs_f64();
    let drained = all.last_us.saturating_sub(handed.begun_us) as f64 / 1e6;
    let line = json!({
        "scenario": "latency", "samples": arguments.samples,
        "idle": {"accept": idle.accept, "accept_to_delivered": idle.delivery, "call_to_delivered": idle.whole},
        "busy": {"accept": busy.accept, "accept_to_delivered": busy.delivery, "call_to_delivered": busy.whole},
        "p99_ratio": ratio(Some(busy.whole.p99_ms), Some(idle.whole.p99_ms)),
        "p99_ratio_accept_to_delivered": ratio(Some(busy.delivery.p99_ms), Some(idle.delivery.p99_ms)),
        "shared_by_thread": SharedByThread::holds(),
        "bulk": {
            "recipients": plan.count, "accept_s": round(accept_s, 2),
            "accepted_per_s": round(plan.count as f64 / accept_s, 0), "drained_s": round(drained, 1),
            "left_when_measured": left,
        },
    });
    say(&line.to_string())
}

/// Sends urgent mails one by one at a steady pace, whether or not the earlier ones have come.
async fn urgent(fleet: &Fleet, sink: &SinkProcess, count: usize) -> anyhow::Result<Urgent> {
    let plan = Plan::watched(count);
    let (mut calls, mut pace) = (JoinSet::new(), tokio::time::interval(EVERY));
    for index in 0..count {
        pace.tick().await;
        let (mut mails, request) = (fleet.mails(), fleet.urgent(&plan, index));
        calls.spawn(async move {
            let asked = now_us();
            mails.send_message(request).await.map(|_| (index, asked, now_us()))
        });
    }
    let mut answered = Vec::with_capacity(count);
    while let Some(answer) = calls.join_next().await {
        answered.push(answer??);
    }
    let copies = testkit::eventually(testkit::LIMIT, async || {
        let copies = sink.copies();
        (0..count).all(|index| copies.contains_key(&plan.recipient(index))).then_some(copies)
    });
    let copies = copies.await.context("not every urgent mail came")?;
    let span = |from: u64, until: u64| Duration::from_micros(until.saturating_sub(from));
    let came = |index: usize| copies.get(&plan.recipient(index)).map_or(0, |copy| copy.at_us);
    let each = |part: fn(u64, u64, u64) -> (u64, u64)| {
        let times = answered.iter().map(|(index, asked, answer)| part(*asked, *answer, came(*index)));
        Spread::of(times.map(|(from, until)| span(from, until)).collect())
    };
    Ok(Urgent {
        accept: each(|asked, answer, _| (asked, answer)),
        delivery: each(|_, answer, came| (answer, came)),
        whole: each(|asked, _, came| (asked, came)),
    })
}
