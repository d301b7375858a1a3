//! Releases, retries, repairs and expires what waits.
//!
//! One instance works, the holder of the lease `dispatcher`; the others stand by and take over when its lease
//! ends. All that it does are compare-and-set statements of `store`, so two holders at once, as after a stopped
//! process woke up, waste work and break nothing. It keeps nothing that cannot be made again: whose turn it is,
//! what is in motion, and below which time nothing is due.
//!
//! What a crash leaves: rows that were released and not published, which repair puts back; marks, doubts and
//! expired rows that the next holder finds; streams that were put back without the bus epoch raised, which shows
//! in their identity.

mod bus_watch;
mod config;
mod metrics;
mod publish;
mod ready;
mod release;
mod repair;
mod tenure;
mod upkeep;
mod windows;

pub use config::DispatcherConfig;
pub use metrics::Metrics;

use bus::Bus;
use domain::{ShardCount, Slot};
use service::{Chain, ConfigError, Health, Lifecycle, Pulse};
use std::{collections::BTreeMap, sync::Mutex, time::Duration};
use store::{KeptLease, LeaseKeeper, Store};
use tenure::Tenure;
use tokio::sync::{Notify, watch};

/// The lease of the one that works.
pub const LEASE: &str = "dispatcher";
/// Between looks whether Postgres answers, for readiness.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long the release loop may be silent before the service counts as stuck: longer than the slowest calls of
/// one round together.
const PULSE: Duration = Duration::from_secs(90);

/// What the dispatcher works with.
#[derive(Clone)]
pub struct Neighbours {
    /// The backlog and the truth.
    pub store: Store,
    /// What is in motion.
    pub bus: Bus,
    /// How many shards the fleet has.
    pub shards: ShardCount,
    /// The name of this process, as `status` shows the holder of the lease.
    pub owner: String,
    /// Where readiness is told.
    pub health: Health,
}

/// The dispatcher, ready to run.
pub struct Dispatcher {
    config: DispatcherConfig,
    rates: BTreeMap<Slot, f64>,
    neighbours: Neighbours,
    metrics: Metrics,
    pulse: Pulse,
}

impl Dispatcher {
    /// Checks the configuration. Asks nobody.
    ///
    /// # Errors
    /// When a value cannot work.
    pub fn build(config: DispatcherConfig, neighbours: Neighbours) -> Result<Self, ConfigError> {
        config.check()?;
        let rates = config.rates()?;
        let pulse = neighbours.health.pulse("dispatcher", PULSE);
        Ok(Self { config, rates, neighbours, metrics: Metrics::default(), pulse })
    }

    /// What it counts; to be registered by the caller.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Works whenever it holds the lease, until the shutdown; gives the lease up at the end.
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
            self.work(&lease, life).await;
            self.metrics.leading.set(0);
            self.metrics.bus_up.set(0);
            if lease.is_live()
                && let Err(error) = keeper.give_up(&lease).await
            {
                tracing::warn!(error = %Chain(&error), "cannot give the lease up; it runs out");
            }
        }
    }

    /// One tenure: ends at once when the lease is lost, and after the rounds under way when a shutdown is asked for.
    async fn work(&self, lease: &KeptLease, life: &Lifecycle) {
        let tenure = Tenure {
            config: &self.config,
            store: &self.neighbours.store,
            bus: &self.neighbours.bus,
            shards: self.neighbours.shards,
            metrics: &self.metrics,
            stop: life.token().child_token(),
            bus_up: watch::Sender::new(false),
            bus_suspect: Notify::new(),
            repair_now: Notify::new(),
            overrun: Mutex::default(),
            look_now: Notify::new(),
        };
        let loops = async {
            tokio::join!(
                bus_watch::watch(&tenure),
                release::release(&tenure, self.rates.clone(), &self.pulse),
                repair::repair(&tenure),
                repair::doubt(&tenure),
                repair::marks(&tenure),
                upkeep::expire(&tenure),
                upkeep::idempotency(&tenure),
                upkeep::partitions(&tenure),
            );
        };
        tracing::info!(epoch = lease.epoch(), "leads");
        tokio::select! {
            () = lease.lost() => tracing::warn!(epoch = lease.epoch(), "stands by: the lease is lost"),
            () = loops => tracing::info!(epoch = lease.epoch(), "stopped leading"),
        }
    }
}
