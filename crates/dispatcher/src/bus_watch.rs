//! The broker, watched: streams that are gone are put back, and Postgres is told that what they held is lost.
//!
//! A crash after the streams were made and before the epoch was raised leaves streams of another identity than
//! Postgres knows; the next look raises the epoch then. A crash after that leaves the repair to the next holder.

use crate::tenure::Tenure;
use bus::{PublishError, topology, topology::TopologyError};
use store::StoreError;

/// Why the bus cannot be said to take work.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("there is no connection to the broker")]
    NotConnected,
    #[error("the broker did not answer in time")]
    Silent,
    #[error("cannot look at the streams")]
    Topology(#[from] TopologyError),
    #[error("streams are missing after they were put back")]
    Missing,
    #[error("the probe did not come back")]
    Probe(#[from] PublishError),
    #[error("cannot note the state of the bus")]
    Store(#[from] StoreError),
}

/// Looks at the broker at every interval, and at once when a publish failed.
pub(crate) async fn watch(tenure: &Tenure<'_>) {
    let mut seen = Seen::default();
    let mut pace = tenure.pace("the watch of the bus", tenure.config.bus_interval, Some(&tenure.bus_suspect));
    while pace.turn().await {
        let looked = look(tenure, &mut seen).await;
        let up = looked.is_ok();
        tenure.metrics.bus_up.set(i64::from(up));
        if tenure.bus_up.send_replace(up) != up {
            tracing::info!(up, "the bus changed");
        }
        pace.after(looked);
    }
}

#[derive(Default)]
struct Seen {
    /// Whether settings were brought in line in this tenure.
    applied: bool,
    /// What Postgres was told last, and the epoch that it answered with.
    noted: Option<(topology::Identity, i64)>,
}

async fn look(tenure: &Tenure<'_>, seen: &mut Seen) -> Result<(), WatchError> {
    // A question asked now would wait for its whole time, and hide that the broker is back before that.
    if !tenure.bus.is_connected() {
        return Err(WatchError::NotConnected);
    }
    if !seen.applied {
        apply(tenure).await?;
        seen.applied = true;
    }
    let mut sight = sight(tenure).await?;
    if !sight.missing.is_empty() {
        tracing::warn!(streams = sight.missing.len(), "streams are missing and are put back");
        apply(tenure).await?;
        sight = self::sight(tenure).await?;
    }
    let identity = sight.identity.filter(|_| sight.missing.is_empty()).ok_or(WatchError::Missing)?;
    if seen.noted.as_ref().is_none_or(|(noted, _)| *noted != identity) {
        let before = match &seen.noted {
            Some((_, epoch)) => *epoch,
            None => tenure.store.bus_state().await?.epoch,
        };
        let epoch = tenure.store.observe_bus(identity.as_str()).await?;
        seen.noted = Some((identity, epoch));
        if epoch != before {
            tracing::warn!(epoch, "the streams are other ones than before; what they held is released again");
            tenure.metrics.bus_epochs.inc();
            tenure.repair_now.notify_one();
        }
    }
    tenure.bus.probe(tenure.config.probe_limit).await?;
    Ok(())
}

async fn sight(tenure: &Tenure<'_>) -> Result<topology::Sight, WatchError> {
    let look = topology::look(tenure.bus, tenure.shards);
    Ok(tokio::time::timeout(tenure.config.probe_limit, look).await.map_err(|_| WatchError::Silent)??)
}

async fn apply(tenure: &Tenure<'_>) -> Result<(), TopologyError> {
    let applied = topology::apply(tenure.bus, tenure.shards).await?;
    if !applied.is_nothing() {
        tracing::info!(
            created_streams = applied.created_streams.len(),
            updated_streams = applied.updated_streams.len(),
            created_consumers = applied.created_consumers.len(),
            removed_consumers = applied.removed_consumers.len(),
            "brought the streams in line"
        );
    }
    Ok(())
}
