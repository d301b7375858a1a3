//! Transactional mail goes straight to the renderers: published after its commit, beside the answer, best effort.
//!
//! A publish that was refused gives its rows back to wait a second; one whose fate is unknown is left to the
//! dispatcher's repair, which costs a rendering at most. A crash in between leaves released rows, which repair finds.

use crate::{
    config::FastLaneConfig,
    metrics::{LaunchLabels, Metrics},
};
use bus::{Bus, Job, RenderChunk};
use domain::ShardCount;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use store::{Parked, Store};
use tokio::sync::{mpsc, watch};

/// Most messages that one turn publishes.
const MAX_TURN: usize = 2_000;

/// What follows a commit.
#[derive(Debug)]
pub enum Launch {
    /// Messages that were stored as released.
    Jobs(Vec<Job>),
    /// Queues that have something due.
    Ring(Vec<i64>),
}

/// Hands over what follows a commit. Cheap to clone; never waits.
#[derive(Clone)]
pub struct Launcher {
    queue: mpsc::UnboundedSender<Launch>,
    pending: Arc<AtomicUsize>,
}

/// The other end of a [`Launcher`].
pub struct Launches {
    queue: mpsc::UnboundedReceiver<Launch>,
    pending: Arc<AtomicUsize>,
    store: Store,
    bus: Bus,
    shards: ShardCount,
    config: FastLaneConfig,
    metrics: Arc<Metrics>,
}

/// Makes the two ends.
pub fn launcher(
    store: Store,
    bus: Bus,
    shards: ShardCount,
    config: FastLaneConfig,
    metrics: Arc<Metrics>,
) -> (Launcher, Launches) {
    // Not bounded by itself: `pending` holds back what would be put into it before it is stored as released.
    let (sender, receiver) = mpsc::unbounded_channel();
    let pending = Arc::new(AtomicUsize::new(0));
    let launcher = Launcher { queue: sender, pending: pending.clone() };
    (launcher, Launches { queue: receiver, pending, store, bus, shards, config, metrics })
}

impl Launcher {
    /// Hands it over.
    pub fn launch(&self, what: Launch) {
        if let Launch::Jobs(jobs) = &what {
            self.pending.fetch_add(jobs.len(), Ordering::Relaxed);
        }
        // The other end is gone when the service has stopped: repair finds the rows.
        let _stopped = self.queue.send(what);
    }

    /// Messages that wait for their publish.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }
}

impl Launches {
    /// Publishes until `closed` turns true and nothing waits.
    pub async fn run(mut self, mut closed: watch::Receiver<bool>) {
        loop {
            let first = tokio::select! {
                biased;
                first = self.queue.recv() => first,
                // An error means that nobody is left who could close it.
                _ = closed.wait_for(|closed| *closed) => None,
            };
            let Some(first) = first else { return };
            let (mut jobs, mut rings) = (Vec::new(), BTreeSet::new());
            let mut next = Some(first);
            while let Some(launch) = next {
                match launch {
                    Launch::Jobs(more) => jobs.extend(more),
                    Launch::Ring(queues) => rings.extend(queues),
                }
                next = if jobs.len() < MAX_TURN { self.queue.try_recv().ok() } else { None };
            }
            let queues: Vec<i64> = rings.into_iter().collect();
            if !queues.is_empty() {
                self.bus.ring(&queues).await;
            }
            let taken = jobs.len();
            if taken > 0 {
                self.publish(jobs).await;
                self.pending.fetch_sub(taken, Ordering::Relaxed);
            }
        }
    }

    async fn publish(&self, jobs: Vec<Job>) {
        let chunks = bus::cut_jobs(jobs, self.shards);
        failpoint::hit!("ingest.publish.before");
        let results = self.bus.publish_all::<RenderChunk>(&chunks, self.config.in_flight.get()).await;
        failpoint::hit!("ingest.publish.after");
        let mut parked = Vec::new();
        for ((_, chunk), result) in chunks.iter().zip(results) {
            let outcome = match result {
                Ok(()) => "published",
                Err(error) if error.is_unknown() => "left",
                Err(_) => {
                    parked.extend(chunk.items.iter().map(|job| Parked {
                        message: job.message,
                        release: job.release,
                        delay: self.config.park,
                        queue: None,
                        site: None,
                    }));
                    "parked"
                }
            };
            let number = u64::try_from(chunk.items.len()).unwrap_or(0);
            self.metrics.launched.get_or_create(&LaunchLabels { outcome }).inc_by(number);
        }
        if let Err(error) = self.store.park(&parked).await {
            tracing::warn!(
                error = %service::Chain(&error),
                messages = parked.len(),
                "could not give released messages back; left to repair"
            );
        }
    }
}
