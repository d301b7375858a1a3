//! A run from its first process to its judgement.

use super::{
    check::{self, DRAIN_LIMIT},
    collect, config,
    disk::Disk,
    evidence::{Evidence, SiteLimit, Trouble},
    faults::{Fault, Wanted},
    fleet::Fleet,
    inject::inject,
    load::{CLEAN, Load},
    now_us,
    processes::Peaks,
    report::Report,
    schedule::{Event, Schedule, TAIL},
};
use anyhow::{Context, bail};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use testkit::{PostgresServer, eventually};
use tokio::{sync::watch, task::JoinSet, time::Instant};

/// How long the fleet may take to deliver its first mail.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How much longer than planned a fault may take: servers start again, services end within their grace.
const FAULT_LIMIT: Duration = Duration::from_secs(90);
/// How long calls may take to be answered when everything is well again.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long an audit may be tried.
const AUDIT_LIMIT: Duration = Duration::from_secs(30);
/// What rests for longer than this after the last fault is made due.
const PATIENCE_S: f64 = 2.0;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How long faults are done.
    pub length: Duration,
    /// Which.
    pub faults: Vec<Wanted>,
    /// The program.
    pub mailfleet: PathBuf,
    /// Whether the folder with logs and data stays.
    pub keep: bool,
}

/// Runs, and judges. `say` is told the plan first, and then what happens.
///
/// # Errors
/// When the run itself could not be made; what the fleet did wrong is in the report.
pub async fn run(options: &Options, say: &(dyn Fn(&str) + Send + Sync)) -> anyhow::Result<Report> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let schedule = Schedule::new(options.seed, options.length, &options.faults);
    say(&format!("seed {}, {} s, {} faults:", schedule.seed, schedule.length.as_secs_f64(), schedule.events.len()));
    for event in &schedule.events {
        say(&event.to_string());
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("mailfleet-chaos-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let postgres = folder.join("postgres");
    let disk = if schedule.has(Fault::PostgresDiskFull) { Disk::mount(&postgres)? } else { None };
    let done = whole(options, &schedule, &folder, disk.is_some(), say).await;
    let keep = options.keep || !done.as_ref().is_ok_and(Report::is_sound);
    if keep {
        say(&format!("kept {}", folder.display()));
    } else {
        PostgresServer::remove(&postgres).await.ok();
    }
    drop(disk);
    if !keep {
        fs::remove_dir_all(&folder)?;
    }
    done
}

async fn whole(
    options: &Options,
    schedule: &Schedule,
    folder: &Path,
    small_disk: bool,
    say: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<Report> {
    let fleet = Fleet::prepare(&options.mailfleet, folder, &folder.join("postgres")).await?;
    let (stop_fleet, fleet_stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    running.spawn(Arc::clone(&fleet).run(fleet_stopped));
    let load = tokio::select! {
        load = begin(&fleet) => load?,
        ended = running.join_next() => bail!("the fleet cannot be run: {ended:?}"),
    };
    say("the fleet delivers; the load begins");
    let (stop_load, load_stopped) = watch::channel(false);
    let mut submitting = JoinSet::new();
    submitting.spawn(Arc::clone(&load).run(schedule.seed, load_stopped));
    let faults = strike(&fleet, schedule, small_disk, say).await;
    fleet.heal().await?;
    tokio::time::sleep(TAIL).await;
    stop_load.send_replace(true);
    if tokio::time::timeout(ANSWER_LIMIT, submitting.join_next()).await.is_err() {
        load.give_up();
        submitting.join_next().await;
    }
    let over = now_us();
    say("no more faults and calls; waiting for everything to come to rest");
    let drained = drain(&fleet).await;
    stop_fleet.send_replace(true);
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let mut evidence = gather(&fleet, &load, schedule).await?;
    (evidence.over, evidence.drained) = (over, drained);
    (evidence.troubles, evidence.stuck) = (faults.troubles.clone(), faults.stuck.clone());
    fleet.end_servers().await;
    Ok(report(&fleet, schedule, &evidence, faults, say))
}

/// Moves in, and waits until the first mail is delivered at each site.
async fn begin(fleet: &Fleet) -> anyhow::Result<Arc<Load>> {
    let mut last = None;
    let prepared = eventually(START_LIMIT, async || match Load::prepare(&fleet.endpoints, &fleet.admin).await {
        Ok(load) => Some(load),
        Err(error) => {
            last = Some(error);
            None
        }
    });
    let load = prepared.await.with_context(|| {
        format!("the API does not answer: {}", last.map_or_else(String::new, |error| format!("{error:#}")))
    })?;
    let recipients = load.probe(&CLEAN).await;
    let delivered = eventually(START_LIMIT, async || {
        recipients.iter().all(|recipient| fleet.sink.copies_of(recipient) > 0).then_some(())
    });
    delivered.await.context("the first mail is not delivered")?;
    Ok(load)
}

/// What was done.
#[derive(Default)]
struct Done {
    troubles: Vec<Trouble>,
    skipped: BTreeMap<String, String>,
    stuck: Vec<String>,
}

/// Does every fault at its time.
async fn strike(fleet: &Arc<Fleet>, schedule: &Schedule, small_disk: bool, say: &(dyn Fn(&str) + Send + Sync)) -> Done {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    let mut done = Done::default();
    for event in schedule.events.iter().copied() {
        if event.fault == Fault::PostgresDiskFull && !small_disk {
            done.skipped.insert(event.fault.to_string(), "no right to mount a small disk".to_owned());
            continue;
        }
        let fleet = Arc::clone(fleet);
        tasks.spawn(async move {
            tokio::time::sleep_until(began + event.at).await;
            let from = now_us();
            let struck = tokio::time::timeout(event.lasts + FAULT_LIMIT, inject(&fleet, &event)).await;
            let trouble = Trouble { name: format!("{} of {}", event.fault, event.target), from, to: now_us() };
            (event, trouble, struck.unwrap_or_else(|_| Err(anyhow::anyhow!("it did not come to its end in time"))))
        });
    }
    while let Some(ended) = tasks.join_next().await {
        let Ok((event, trouble, result)) = ended else { continue };
        if let Err(error) = &result {
            say(&format!("{}: {error:#}", trouble.name));
            failed(&mut done, &event, error);
        }
        done.troubles.push(trouble);
    }
    done.troubles.sort_by_key(|trouble| trouble.from);
    // Nobody needs to wait for a plan without faults; its load runs all the same.
    tokio::time::sleep_until(began + schedule.length).await;
    done
}

fn failed(done: &mut Done, event: &Event, error: &anyhow::Error) {
    let denied = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| matches!(cause.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported));
    if event.fault == Fault::Sigterm {
        done.stuck.push(format!("{error:#}"));
    } else {
        let why = if denied { "not allowed here" } else { "could not be done each time" };
        done.skipped.insert(event.fault.to_string(), format!("{why}: {error:#}"));
    }
}

/// Waits until everything is at rest; when.
async fn drain(fleet: &Fleet) -> Option<i64> {
    eventually(Duration::from_secs_f64(DRAIN_LIMIT), async || {
        let left = collect::left(&fleet.saboteur).await.ok()?;
        if left.waiting + left.moving + left.facts == 0 {
            return Some(now_us());
        }
        // A third doubt rests for minutes: what is due later is made due, as a test's clock can.
        if left.moving + left.facts == 0 && left.next_s > PATIENCE_S {
            fleet.saboteur.step_clock((left.next_s * 1e3) as i64).await.ok();
        }
        None
    })
    .await
}

async fn gather(fleet: &Fleet, load: &Load, schedule: &Schedule) -> anyhow::Result<Evidence> {
    let mut conn = fleet.saboteur.connect().await?;
    // Its pool may still hold connections to a server that is no more; each is found out by one call.
    let audit = eventually(AUDIT_LIMIT, async || fleet.store.audit().await.ok());
    // Both senders may have each connection's message held up on its way.
    let mut on_top = u64::from(2 * config::LIMITED_CONNECTIONS);
    if schedule.has(Fault::ClockStep) {
        // A lease that is cut short by the clock has two owners for a moment: the old one sends what it had claimed.
        on_top +=
            (f64::from(config::LIMITED_RATE) * config::AHEAD_S).ceil() as u64 + u64::from(config::LIMITED_CONNECTIONS);
    }
    let ledger = load.ledger().clone();
    Ok(Evidence {
        ledger,
        stored: collect::stored(&mut conn).await.context("read the messages")?,
        trace: collect::trace(&mut conn).await.context("read the trace")?,
        copies: collect::copies(fleet)?,
        audit: audit.await.context("the database does not answer to an audit")?,
        limits: vec![SiteLimit { domain: config::LIMITED, per_second: f64::from(config::LIMITED_RATE), on_top }],
        flows: CLEAN.map(ToOwned::to_owned).into(),
        peaks: fleet.peaks(),
        logs: collect::log_findings(fleet)?,
        ..Evidence::default()
    })
}

fn report(
    fleet: &Fleet,
    schedule: &Schedule,
    evidence: &Evidence,
    done: Done,
    say: &(dyn Fn(&str) + Send + Sync),
) -> Report {
    let judgement = check::judge(evidence);
    for (rule, what) in &judgement.objections.told {
        say(&format!("{rule:?}: {what}"));
    }
    let mut report = Report { seed: schedule.seed, skipped: done.skipped, ..Report::default() };
    report.judged(&judgement);
    for event in &schedule.events {
        if !report.skipped.contains_key(event.fault.name()) {
            *report.events.entry(event.fault.to_string()).or_default() += 1;
        }
    }
    report.faults = report.events.keys().cloned().collect();
    report.rollup_mismatches = evidence.audit.rollup_mismatches;
    report.seq_gaps = evidence.audit.seq_gaps;
    report.orphans = evidence.audit.orphans;
    report.calls = evidence.ledger.counts().into_iter().map(|(word, count)| (word.to_owned(), count)).collect();
    let repeats: u32 = evidence.ledger.calls.values().map(|call| call.unknown).sum();
    report.calls.insert("without_answer".to_owned(), repeats as usize);
    report.bans = evidence.ledger.bans.len();
    for member in &fleet.members {
        for exit in member.exits().into_iter().filter(|exit| !exit.told) {
            *report.ended_by_themselves.entry(format!("{}: {}", member.name, exit.status)).or_default() += 1;
        }
    }
    report.peaks = by_service(&evidence.peaks);
    report
}

fn by_service(peaks: &Peaks) -> Peaks {
    let mut most = Peaks::new();
    for (name, peak) in peaks {
        let service = name.split('-').next().unwrap_or(name);
        let entry = most.entry(service.to_owned()).or_default();
        *entry = entry.max(*peak);
    }
    most
}
