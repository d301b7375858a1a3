//! Hits on their way to Postgres, in batches; to the spool while it does not answer.
//!
//! One task commits, spools and brings back what was spooled, so that hits stay in the order in which they came.

use crate::{
    Office,
    hits::{self, Hit, What},
    spool::Spool,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::StoreError;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};

/// Hits of one commit when the spool is brought back.
const REPLAY: usize = 500;
/// How long a failed commit sends what follows to the spool at once, before Postgres is tried again.
const DOWN: Duration = Duration::from_secs(1);

/// Where hits are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Intake(mpsc::Sender<Entry>);

#[derive(Debug)]
struct Entry {
    hit: Hit,
    /// Somebody waits until it is durable.
    kept: Option<oneshot::Sender<()>>,
}

/// What commits them.
pub(crate) struct Desk {
    entries: mpsc::Receiver<Entry>,
    spool: Spool,
    /// Until then Postgres is taken for gone.
    down_until: Option<Instant>,
}

pub(crate) fn desk(queue: usize, spool: Spool) -> (Intake, Desk) {
    let (sender, entries) = mpsc::channel(queue.max(1));
    (Intake(sender), Desk { entries, spool, down_until: None })
}

impl Intake {
    /// Hands a hit in that nobody waits for; `false` when there are too many.
    pub(crate) fn offer(&self, hit: Hit) -> bool {
        self.0.try_send(Entry { hit, kept: None }).is_ok()
    }

    /// Hands a hit in and waits until it is committed, or synced in the spool; `false` when it is neither.
    pub(crate) async fn keep(&self, hit: Hit) -> bool {
        let (kept, answer) = oneshot::channel();
        // A full queue is no reason to lose what somebody asks for.
        self.0.send(Entry { hit, kept: Some(kept) }).await.is_ok() && answer.await.is_ok()
    }
}

impl Desk {
    /// Works until every [`Intake`] is gone and nothing is left but what lies in the spool.
    pub(crate) async fn run(mut self, office: Arc<Office>) {
        let mut turns = tokio::time::interval(office.config.spool.replay_every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let most = usize::try_from(office.config.batch.get()).unwrap_or(usize::MAX);
        loop {
            tokio::select! {
                biased;
                first = self.entries.recv() => {
                    let Some(first) = first else { return };
                    let batch = self.gather(first, most, &office).await;
                    self.commit(batch, &office).await;
                }
                _ = turns.tick(), if !self.spool.is_empty() => self.replay(&office).await,
            }
            office.metrics.spooled.set(i64::try_from(self.spool.bytes()).unwrap_or(i64::MAX));
        }
    }

    /// Gathers what comes within a moment: a short one when somebody waits.
    async fn gather(&mut self, first: Entry, most: usize, office: &Office) -> Vec<Entry> {
        let begun = Instant::now();
        let wait =
            |entry: &Entry| if entry.kept.is_some() { office.config.linger_wanted } else { office.config.linger };
        let mut until = begun + wait(&first);
        let mut batch = vec![first];
        while batch.len() < most {
            match tokio::time::timeout_at(until, self.entries.recv()).await {
                Ok(Some(entry)) => {
                    until = until.min(Instant::now() + wait(&entry));
                    batch.push(entry);
                }
                Ok(None) | Err(_) => break,
            }
        }
        batch
    }

    async fn commit(&mut self, batch: Vec<Entry>, office: &Office) {
        let (hits, kept): (Vec<Hit>, Vec<_>) = batch.into_iter().map(|entry| (entry.hit, entry.kept)).unzip();
        // Behind what is spooled already, in order.
        let is_down = self.down_until.is_some_and(|until| Instant::now() < until);
        if !is_down && self.spool.is_empty() {
            match record(&hits, office).await {
                Ok(()) => {
                    office.keeping.pass();
                    tell(kept);
                    return;
                }
                Err(error) => {
                    self.down_until = Some(Instant::now() + DOWN);
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        hits = hits.len(),
                        "cannot record hits; they are spooled"
                    );
                }
            }
        }
        match self.spool.append(&hits) {
            Ok(()) => {
                office.keeping.pass();
                tell(kept);
            }
            Err(error) => {
                office.keeping.fail(format!("the spool: {error}"));
                office.metrics.lost.inc_by(hits.len() as u64);
                tracing::error!(%error, hits = hits.len(), "cannot spool hits; who waits is told to come again");
            }
        }
    }

    /// Brings the oldest file of the spool to Postgres.
    async fn replay(&mut self, office: &Office) {
        let segment = match self.spool.oldest() {
            Ok(Some(segment)) => segment,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "cannot read the spool");
                return;
            }
        };
        if segment.damaged > 0 {
            tracing::warn!(lines = segment.damaged, "the spool has lines that were never whole");
        }
        for hits in segment.hits.chunks(REPLAY) {
            if let Err(error) = record(hits, office).await {
                tracing::debug!(%error, "cannot bring the spool back yet");
                self.down_until = Some(Instant::now() + DOWN);
                return;
            }
        }
        self.down_until = None;
        if let Err(error) = self.spool.remove(&segment) {
            tracing::error!(%error, "cannot remove a file of the spool; it is brought back again");
        }
        tracing::info!(hits = segment.hits.len(), "brought hits back from the spool");
    }
}

fn tell(kept: Vec<Option<oneshot::Sender<()>>>) {
    for waiting in kept.into_iter().flatten() {
        // Who waited may have gone.
        let _ = waiting.send(());
    }
}

/// Judges hits and commits what they come to.
async fn record(hits: &[Hit], office: &Office) -> Result<(), StoreError> {
    let work = async {
        let looked_at = |hit: &&Hit| matches!(hit.what, What::Open | What::Click { .. });
        let messages: BTreeSet<_> = hits.iter().filter(looked_at).map(|hit| hit.message).collect();
        let messages: Vec<_> = messages.into_iter().collect();
        let delivered =
            if messages.is_empty() { Default::default() } else { office.store.delivered_at(&messages).await? };
        let items = hits::judge(hits, &delivered);
        let done = office.store.record_feedback(&items).await?;
        office.metrics.recorded(&items, done);
        Ok(())
    };
    tokio::time::timeout(office.config.commit_within, work).await.unwrap_or(Err(StoreError::Timeout))
}
