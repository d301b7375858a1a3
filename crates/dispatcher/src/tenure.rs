//! What the loops of one tenure share, and how each of them goes round.

use crate::{DispatcherConfig, Metrics};
use bus::Bus;
use domain::{Lane, ShardCount};
use service::{Backoff, Chain};
use std::{
    collections::BTreeSet,
    error::Error,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use store::Store;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// One tenure of the lease.
pub(crate) struct Tenure<'a> {
    pub(crate) config: &'a DispatcherConfig,
    pub(crate) store: &'a Store,
    pub(crate) bus: &'a Bus,
    pub(crate) shards: ShardCount,
    pub(crate) metrics: &'a Metrics,
    /// Asks the loops to end after what they are at.
    pub(crate) stop: CancellationToken,
    /// Whether the bus takes work.
    pub(crate) bus_up: watch::Sender<bool>,
    /// The bus should be looked at now: a publish failed.
    pub(crate) bus_suspect: Notify,
    /// Messages are to be repaired now: the bus lost what it held.
    pub(crate) repair_now: Notify,
    /// Lanes that lost releases on the way: more is in motion than gets through in time.
    pub(crate) overrun: Mutex<BTreeSet<Lane>>,
    /// Something rests that is due now.
    pub(crate) look_now: Notify,
}

impl Tenure<'_> {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Takes the lanes that lost releases since the last call.
    pub(crate) fn take_overrun(&self) -> BTreeSet<Lane> {
        std::mem::take(&mut *self.overrun.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The bus did not take a chunk for another reason than being full: nothing is released until it is known
    /// to be well.
    pub(crate) fn suspect_bus(&self) {
        self.bus_up.send_replace(false);
        self.metrics.bus_up.set(0);
        self.bus_suspect.notify_one();
    }

    /// The pace of a loop that goes round now and then every `interval`, or when `wake` is notified.
    pub(crate) fn pace<'b>(&'b self, what: &'static str, interval: Duration, wake: Option<&'b Notify>) -> Pace<'b> {
        Pace { stop: &self.stop, streak: Streak::new(what), interval, wake, next: Instant::now() }
    }
}

/// When a loop goes round. What fails is told once and tried again after a pause.
pub(crate) struct Pace<'a> {
    stop: &'a CancellationToken,
    streak: Streak,
    interval: Duration,
    wake: Option<&'a Notify>,
    next: Instant,
}

impl Pace<'_> {
    /// Waits for the next turn; `false` at the end of the tenure.
    pub(crate) async fn turn(&self) -> bool {
        let woken = async {
            match self.wake {
                Some(wake) => wake.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = woken => true,
            () = tokio::time::sleep_until(self.next) => true,
        }
    }

    /// Takes over how a turn ended.
    pub(crate) fn after(&mut self, outcome: Result<(), impl Error>) {
        self.next = Instant::now()
            + match outcome {
                Ok(()) => {
                    self.streak.worked();
                    self.interval
                }
                Err(error) => self.streak.failed(&error).max(self.interval.min(Streak::PAUSES.max)),
            };
    }
}

/// Failures in a row of one loop.
pub(crate) struct Streak {
    what: &'static str,
    failures: u32,
}

impl Streak {
    const PAUSES: Backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_secs(2) };

    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, failures: 0 }
    }

    /// Tells of the first failure and returns the pause before the next try.
    pub(crate) fn failed(&mut self, error: &dyn Error) -> Duration {
        if self.failures == 0 {
            tracing::warn!(what = self.what, error = %Chain(error), "fails and is tried again");
        }
        let pause = Self::PAUSES.pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Tells of the recovery, if there was a failure.
    pub(crate) fn worked(&mut self) {
        if self.failures > 0 {
            tracing::info!(what = self.what, failures = self.failures, "works again");
            self.failures = 0;
        }
    }
}
