//! What the bus counts.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Counters of one connection; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Chunks whose publish was acknowledged.
    pub published: Counter,
    /// Chunks that the broker did not take: full, without a stream, too large, or not connected.
    pub refused: Counter,
    /// Chunks whose publish has an unknown fate.
    pub unknown: Counter,
    /// Chunks delivered to this process.
    pub delivered: Counter,
    /// Chunks among them that had been delivered before.
    pub redelivered: Counter,
    /// Bodies that could not be read and were thrown away.
    pub undecodable: Counter,
    /// Times a pull was built again after its consumer, stream or connection went away.
    pub rebuilt: Counter,
    /// 1 while the last probe came back.
    pub healthy: Gauge,
}

impl Stats {
    /// Adds the metrics, all named `bus_…`, to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("bus");
        registry.register("published_chunks", "Chunks whose publish was acknowledged", self.published.clone());
        registry.register(
            "refused_chunks",
            "Chunks the broker did not take; high: it is full, gone or unreachable",
            self.refused.clone(),
        );
        registry.register(
            "unknown_chunks",
            "Chunks whose publish was not answered in time; high: the broker is slow or stuck",
            self.unknown.clone(),
        );
        registry.register("delivered_chunks", "Chunks delivered to this process", self.delivered.clone());
        registry.register(
            "redelivered_chunks",
            "Chunks delivered that had been delivered before; high: consumers die or hold chunks too long",
            self.redelivered.clone(),
        );
        registry.register(
            "undecodable_chunks",
            "Bodies that could not be read; any: foreign publishers or releases too far apart",
            self.undecodable.clone(),
        );
        registry.register(
            "rebuilt_pulls",
            "Pulls built again after a loss; rising: the broker or its streams come and go",
            self.rebuilt.clone(),
        );
        registry.register("healthy", "1 while the last publish-and-answer probe came back", self.healthy.clone());
    }
}
