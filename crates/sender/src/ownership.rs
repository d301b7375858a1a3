//! Which shards this sender owns.
//!
//! Every sender takes a lease in its own name, so each can count the others, and owns its fair share of the shards:
//! it takes free ones up to the share and hands over what is above it, once nothing is claimed under it.

use crate::{Office, desk::Desk, tenure::Tenure};
use domain::Shard;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use store::{Lease, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

const PRESENCE: &str = "sender.";

struct Owned {
    tenure: Arc<Tenure>,
    stop: CancellationToken,
    /// Answers when the desk has come to its end.
    done: oneshot::Receiver<()>,
}

struct Ownership {
    office: Arc<Office>,
    name: String,
    presence: Option<Arc<Tenure>>,
    owned: BTreeMap<Shard, Owned>,
    ended: mpsc::Sender<()>,
}

/// Owns shards until `stop`; then hands all of them over, and returns when nothing is claimed under any.
pub(crate) async fn own(office: Arc<Office>, name: String, stop: CancellationToken) {
    let (ended, mut wake) = mpsc::channel(1);
    let config = office.config.lease.clone();
    let mut ownership = Ownership { office, name, presence: None, owned: BTreeMap::new(), ended };
    let mut renewed = Instant::now();
    while !stop.is_cancelled() {
        if renewed.elapsed() >= config.renew_every {
            renewed = Instant::now();
            ownership.renew().await;
        }
        // Never so long that a renewal comes too late; a lease that was taken unnoticed runs out by itself.
        let looking = tokio::time::timeout(config.renew_every, ownership.look());
        if let Err(error) = looking.await.unwrap_or(Err(StoreError::Timeout)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot look at the leases of the shards");
        }
        ownership.reap().await;
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(config.look_every.min(config.renew_every.saturating_sub(renewed.elapsed()))) => {}
            Some(()) = wake.recv() => {}
        }
    }
    for owned in ownership.owned.values() {
        owned.stop.cancel();
    }
    while !ownership.owned.is_empty() {
        if renewed.elapsed() >= config.renew_every {
            renewed = Instant::now();
            ownership.renew().await;
            tracing::info!(shards = ownership.owned.len(), "waiting for transactions under way");
        }
        ownership.reap().await;
        if !ownership.owned.is_empty() {
            let rest = config.renew_every.saturating_sub(renewed.elapsed());
            let _ = tokio::time::timeout(rest, wake.recv()).await;
        }
    }
    if let Some(presence) = &ownership.presence {
        ownership.give_up(&[presence.lease.epoch]).await;
    }
}

impl Ownership {
    fn usable(&self) -> Duration {
        let lease = &self.office.config.lease;
        lease.term.saturating_sub(lease.margin)
    }

    async fn renew(&mut self) {
        let mut tenures: Vec<Arc<Tenure>> = self.owned.values().map(|owned| Arc::clone(&owned.tenure)).collect();
        tenures.extend(self.presence.clone());
        let epochs: Vec<i64> = tenures.iter().map(|tenure| tenure.lease.epoch).collect();
        if epochs.is_empty() {
            return;
        }
        let begun = Instant::now();
        let term = self.office.config.lease.term;
        // A hung connection must not cost the leases: the next renewal takes another one.
        let renewing = tokio::time::timeout(term / 3, self.office.store.renew_leases(&epochs, term));
        match renewing.await.unwrap_or(Err(StoreError::Timeout)) {
            Ok(renewed) => {
                let renewed: HashSet<i64> = renewed.into_iter().collect();
                for tenure in tenures {
                    if renewed.contains(&tenure.lease.epoch) {
                        tenure.extend(begun, self.usable());
                    } else {
                        tracing::warn!(lease = tenure.lease.name, "lost a lease");
                        tenure.end();
                    }
                }
            }
            // Nothing is extended: the leases end here by themselves if it goes on.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot renew the leases"),
        }
        if self.presence.as_ref().is_some_and(|presence| !presence.is_live()) {
            self.presence = None;
        }
        for owned in self.owned.values().filter(|owned| !owned.tenure.is_live()) {
            owned.stop.cancel();
        }
    }

    /// Takes free shards up to the fair share; hands one over when above it.
    async fn look(&mut self) -> Result<(), StoreError> {
        let store = self.office.store.clone();
        let term = self.office.config.lease.term;
        if self.presence.is_none() {
            let begun = Instant::now();
            let taken = store.take_lease(&format!("{PRESENCE}{}", self.name), &self.name, term).await?;
            self.presence = taken.map(|lease| Arc::new(Tenure::new(lease, begun, self.usable())));
        }
        let leases = store.leases().await?;
        let others =
            leases.iter().filter(|lease| lease.live && lease.name.starts_with(PRESENCE) && lease.owner != self.name);
        let shards = usize::from(self.office.shards.0.get());
        let fair = shards.div_ceil(others.count() + 1);
        let held: HashSet<&str> = leases.iter().filter(|lease| lease.live).map(|lease| lease.name.as_str()).collect();
        let free: Vec<Shard> = self
            .office
            .shards
            .all()
            .filter(|shard| !self.owned.contains_key(shard) && !held.contains(shard.lease_name().as_str()))
            .collect();
        for shard in free.into_iter().take(fair.saturating_sub(self.owned.len())) {
            let begun = Instant::now();
            if let Some(lease) = store.take_lease(&shard.lease_name(), &self.name, term).await? {
                self.begin(shard, lease, begun);
            }
        }
        let mut staying = self.owned.values().filter(|owned| !owned.stop.is_cancelled());
        if staying.clone().count() > fair
            && let Some(last) = staying.next_back()
        {
            last.stop.cancel();
        }
        Ok(())
    }

    fn begin(&mut self, shard: Shard, lease: Lease, begun: Instant) {
        if let Err(error) = self.office.journal.epoch(lease.epoch) {
            tracing::error!(%error, "cannot write to the journal; the shard is left to others");
            // The lease runs out. Staying, this sender would take the shard again each time and never serve it.
            self.office.life.fail("journal", "cannot be written");
            return;
        }
        tracing::info!(shard = shard.number(), epoch = lease.epoch, "took a shard");
        let tenure = Arc::new(Tenure::new(lease, begun, self.usable()));
        let stop = CancellationToken::new();
        let (done, when_done) = oneshot::channel();
        let desk = Desk::new(Arc::clone(&self.office), Arc::clone(&tenure), shard);
        let (ended, stopping) = (self.ended.clone(), stop.clone());
        self.office.life.spawn_finite("desk", async move {
            desk.await.run(stopping).await;
            // Whoever waits for either has gone when the process ends.
            let _ = done.send(());
            let _ = ended.try_send(());
        });
        self.office.metrics.shards.inc();
        self.owned.insert(shard, Owned { tenure, stop, done: when_done });
    }

    /// Gives up the leases of desks that have come to their end.
    async fn reap(&mut self) {
        let mut over = Vec::new();
        for (shard, owned) in &mut self.owned {
            if owned.done.try_recv() != Err(oneshot::error::TryRecvError::Empty) {
                over.push(*shard);
            }
        }
        for shard in over {
            let Some(owned) = self.owned.remove(&shard) else { continue };
            owned.tenure.end();
            self.office.metrics.shards.dec();
            self.office.journal.epoch_over(owned.tenure.lease.epoch);
            self.give_up(&[owned.tenure.lease.epoch]).await;
            tracing::info!(shard = shard.number(), epoch = owned.tenure.lease.epoch, "left a shard");
        }
    }

    async fn give_up(&self, epochs: &[i64]) {
        if let Err(error) = self.office.store.give_up_leases(epochs).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot give up a lease; it runs out");
        }
    }
}
