//! What ingest counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// The metrics of ingest.
#[derive(Debug)]
pub struct Metrics {
    /// Messages accepted, by lane.
    pub accepted: Family<LaneLabels, Counter>,
    /// Calls refused, by reason.
    pub refusals: Family<RefusalLabels, Counter>,
    /// Recipients of batches refused beside accepted ones.
    pub recipients_refused: Counter,
    /// Calls in one group commit.
    pub group_calls: Histogram,
    /// Messages in one group commit.
    pub group_messages: Histogram,
    /// Seconds that one group commit takes.
    pub commit_seconds: Histogram,
    /// Group commits that failed and were retried one call at a time.
    pub group_failures: Counter,
    /// Octets that wait for their commit.
    pub queued_bytes: Gauge,
    /// Messages that were put straight on their way, by what became of their publish.
    pub launched: Family<LaunchLabels, Counter>,
    /// Open connections.
    pub connections: Gauge,
    /// Open streams of events.
    pub watchers: Gauge,
    /// Imports and exports under way.
    pub transfers: Gauge,
}

/// The label of the accepted.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LaneLabels {
    /// `transactional` or `bulk`.
    pub lane: &'static str,
}

/// The label of the refusals.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RefusalLabels {
    /// A value of `ErrorReason` without its prefix.
    pub reason: &'static str,
}

/// The label of the launched.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LaunchLabels {
    /// `published`, `parked`, or `left` to repair.
    pub outcome: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            accepted: Family::default(),
            refusals: Family::default(),
            recipients_refused: Counter::default(),
            group_calls: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            group_messages: Histogram::new(exponential_buckets(1.0, 2.0, 15)),
            commit_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            group_failures: Counter::default(),
            queued_bytes: Gauge::default(),
            launched: Family::default(),
            connections: Gauge::default(),
            watchers: Gauge::default(),
            transfers: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Counts a refusal.
    pub(crate) fn count_refusal(&self, reason: &'static str) {
        self.refusals.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// Puts all of them into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("ingest");
        registry.register("accepted_messages", "Messages accepted, after their commit", self.accepted.clone());
        registry.register("refused_calls", "Calls and mails of streams refused, by reason", self.refusals.clone());
        registry.register(
            "refused_recipients",
            "Recipients of batches refused beside accepted ones; many mean a list of poor quality",
            self.recipients_refused.clone(),
        );
        registry.register("group_calls", "Calls in one group commit; many mean load", self.group_calls.clone());
        registry.register("group_messages", "Messages in one group commit", self.group_messages.clone());
        registry.register_with_unit(
            "commit",
            "Time of one group commit; high means a slow disk or a busy database",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        registry.register(
            "group_failures",
            "Group commits that failed and were retried one call at a time",
            self.group_failures.clone(),
        );
        registry.register_with_unit(
            "queued",
            "Size of what waits for its commit; near the limit, calls are refused",
            Unit::Bytes,
            self.queued_bytes.clone(),
        );
        registry.register(
            "launched_messages",
            "Messages put straight on their way, by what became of the publish",
            self.launched.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "watchers",
            "Open streams of events; near the limit, more are refused",
            self.watchers.clone(),
        );
        registry.register(
            "transfers",
            "Imports and exports under way; near the limit, more are refused",
            self.transfers.clone(),
        );
    }
}
