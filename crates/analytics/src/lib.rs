//! Folds facts into the event log and the roll-ups.
//!
//! One instance folds, the holder of the lease `fold`; the others stand by. A fold is one transaction: entries of
//! the log with the next numbers, the counts of their minutes, and the removal of the facts. A crash leaves all of
//! it or nothing, and a fact that comes twice meets the key of its entry and counts once. Two holders at once wait
//! for each other at the row of the log's number.
//!
//! After a fold the bus is told how far the log goes (`events.log`), best effort: who misses it finds out by
//! looking.

mod bound;
mod config;
mod metrics;

pub use config::AnalyticsConfig;
pub use metrics::Metrics;

use bound::Bound;
use bus::{Bus, EventSubject};
use chrono::{DateTime, TimeDelta, Utc};
use service::{Backoff, Chain, ConfigError, Health, Lifecycle, Pulse};
use std::{error::Error, time::Duration};
use store::{KeptLease, LeaseKeeper, Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The lease of the one that folds.
pub const LEASE: &str = "fold";
/// The kind of the announcement after a fold; its body is a JSON object with `seq` and `logged`.
pub const EVENT_KIND: &str = "log";
/// Between looks whether Postgres answers, for readiness.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long the fold may be silent before the service counts as stuck: longer than its slowest call.
const PULSE: Duration = Duration::from_secs(90);
/// Pauses after failures.
const PAUSES: Backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_secs(2) };

/// What analytics works with.
#[derive(Clone)]
pub struct Neighbours {
    /// The facts and the log.
    pub store: Store,
    /// Who is told after a fold; without one nobody is.
    pub bus: Option<Bus>,
    /// The name of this process, as `status` shows the holder of the lease.
    pub owner: String,
    /// Where readiness is told.
    pub health: Health,
}

/// Analytics, ready to run.
pub struct Analytics {
    config: AnalyticsConfig,
    neighbours: Neighbours,
    metrics: Metrics,
    pulse: Pulse,
}

impl Analytics {
    /// Checks the configuration. Asks nobody.
    ///
    /// # Errors
    /// When a value cannot work.
    pub fn build(config: AnalyticsConfig, neighbours: Neighbours) -> Result<Self, ConfigError> {
        config.check()?;
        let pulse = neighbours.health.pulse("analytics", PULSE);
        Ok(Self { config, neighbours, metrics: Metrics::default(), pulse })
    }

    /// What it counts; to be registered by the caller.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Folds whenever it holds the lease, until the shutdown; gives the lease up at the end.
    pub async fn run(self, life: Lifecycle) {
        let Neighbours { store, owner, health, .. } = &self.neighbours;
        let keeper = LeaseKeeper::new(store.clone(), owner.clone(), self.config.lease);
        let ready = health.check("postgres");
        let renewals = async {
            tokio::join!(keeper.run(), self.tell_readiness(&ready));
        };
        tokio::select! {
            () = renewals => {}
            () = self.lead(&keeper, &life) => {}
        }
    }

    /// Standing by is as good as leading, as long as Postgres answers.
    async fn tell_readiness(&self, ready: &service::Check) {
        loop {
            ready.set(self.neighbours.store.ping().await.map_err(|error| Chain(&error).to_string()));
            if self.metrics.leading.get() == 0 {
                self.pulse.beat();
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    async fn lead(&self, keeper: &LeaseKeeper, life: &Lifecycle) {
        while !life.is_shutting_down() {
            let Some(lease) = keeper.acquire(LEASE, life.shutdown_requested()).await else { return };
            self.pulse.beat();
            self.metrics.leading.set(1);
            self.work(&lease, &life.token()).await;
            self.metrics.leading.set(0);
            if lease.is_live()
                && let Err(error) = keeper.give_up(&lease).await
            {
                tracing::warn!(error = %Chain(&error), "cannot give the lease up; it runs out");
            }
        }
    }

    /// One tenure: ends at once when the lease is lost, and after the fold under way when a shutdown is asked for.
    async fn work(&self, lease: &KeptLease, stop: &CancellationToken) {
        let loops = async {
            tokio::join!(self.fold(stop), self.compact(stop), self.measure(stop));
        };
        tracing::info!(epoch = lease.epoch(), "leads");
        tokio::select! {
            () = lease.lost() => tracing::warn!(epoch = lease.epoch(), "stands by: the lease is lost"),
            () = loops => tracing::info!(epoch = lease.epoch(), "stopped leading"),
        }
    }

    async fn fold(&self, stop: &CancellationToken) {
        let config = &self.config;
        let mut bound = Bound::new(config.slack, config.full_look_interval, Instant::now());
        let mut streak = Streak::new("the fold");
        let mut pause = config.poll_min;
        let mut logged = 0;
        while !stop.is_cancelled() {
            self.pulse.beat();
            let began = Instant::now();
            let (from, full) = bound.next(began);
            match self.neighbours.store.fold(from, config.fold_batch).await {
                Ok(fold) => {
                    failpoint::hit!("analytics.fold.after", fold.taken > 0);
                    streak.worked();
                    let all = fold.taken < u64::from(config.fold_batch);
                    bound.folded(&fold, full, began);
                    logged += fold.logged;
                    if fold.taken > 0 {
                        self.metrics.folded.inc_by(fold.taken);
                        self.metrics.logged.inc_by(fold.logged);
                        self.metrics.fold_seconds.observe(began.elapsed().as_secs_f64());
                        pause = config.poll_min;
                    } else {
                        pause = (pause * 2).min(config.poll_max);
                    }
                    if !all {
                        continue;
                    }
                    if logged > 0 {
                        self.announce(std::mem::take(&mut logged)).await;
                    }
                }
                Err(error) => pause = streak.failed(&error),
            }
            sleep(pause, stop).await;
        }
    }

    /// Tells how far the log goes, to whoever listens.
    async fn announce(&self, logged: u64) {
        let Some(bus) = &self.neighbours.bus else { return };
        if !bus.is_connected() {
            return;
        }
        // Nobody depends on it: without an answer from the database nobody is told.
        let Ok(head) = self.neighbours.store.log_head().await else { return };
        let Ok(subject) = EventSubject::new(EVENT_KIND) else { return };
        let body = serde_json::json!({ "seq": head.seq, "logged": logged }).to_string();
        bus.announce(&subject, body.into()).await;
    }

    async fn compact(&self, stop: &CancellationToken) {
        let mut streak = Streak::new("the compaction");
        // From where on buckets may have changed since they were compacted.
        let mut since: Option<DateTime<Utc>> = None;
        while !stop.is_cancelled() {
            let pause = match self.compact_once(&mut since).await {
                Ok(()) => {
                    streak.worked();
                    self.metrics.compactions.inc();
                    self.config.compact_interval
                }
                Err(error) => streak.failed(&error),
            };
            sleep(pause, stop).await;
        }
    }

    async fn compact_once(&self, since: &mut Option<DateTime<Utc>>) -> Result<(), StoreError> {
        let delta = |span: Duration| TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX);
        let head = self.neighbours.store.log_head().await?;
        let from = since.unwrap_or(head.now - delta(self.config.compact_at_start));
        self.neighbours.store.compact(from, head.now).await?;
        // Facts that wait now are folded into older buckets later.
        let next = head.now - delta(self.config.compact_overlap);
        *since = Some(head.oldest.map_or(next, |oldest| oldest.min(next)));
        Ok(())
    }

    async fn measure(&self, stop: &CancellationToken) {
        let mut streak = Streak::new("the look at the backlog of facts");
        while !stop.is_cancelled() {
            let pause = match self.neighbours.store.log_head().await {
                Ok(head) => {
                    streak.worked();
                    let age = head.oldest.map_or(0, |oldest| (head.now - oldest).num_milliseconds().max(0));
                    self.metrics.seq.set(head.seq);
                    self.metrics.backlog.set(head.backlog);
                    self.metrics.backlog_age_ms.set(age);
                    self.config.measure_interval
                }
                Err(error) => streak.failed(&error),
            };
            sleep(pause, stop).await;
        }
    }
}

async fn sleep(pause: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(pause) => {}
    }
}

/// Failures in a row of one loop.
struct Streak {
    what: &'static str,
    failures: u32,
}

impl Streak {
    const fn new(what: &'static str) -> Self {
        Self { what, failures: 0 }
    }

    /// Tells of the first failure and returns the pause before the next try.
    fn failed(&mut self, error: &dyn Error) -> Duration {
        if self.failures == 0 {
            tracing::warn!(what = self.what, error = %Chain(error), "fails and is tried again");
        }
        let pause = PAUSES.pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Tells of the recovery, if there was a failure.
    fn worked(&mut self) {
        if self.failures > 0 {
            tracing::info!(what = self.what, failures = self.failures, "works again");
            self.failures = 0;
        }
    }
}
