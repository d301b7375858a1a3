//! What analytics counts.

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The metrics of analytics; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Facts taken out of the outbox.
    pub folded: Counter,
    /// Entries added to the log.
    pub logged: Counter,
    /// The number of the log's last entry, as far as this instance knows.
    pub seq: Gauge,
    /// Facts that wait for the fold.
    pub backlog: Gauge,
    /// Age of the fact with the lowest number, in milliseconds.
    pub backlog_age_ms: Gauge,
    /// Compactions done.
    pub compactions: Counter,
    /// 1 while this instance holds the lease.
    pub leading: Gauge,
    /// One fold.
    pub fold_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            folded: Counter::default(),
            logged: Counter::default(),
            seq: Gauge::default(),
            backlog: Gauge::default(),
            backlog_age_ms: Gauge::default(),
            compactions: Counter::default(),
            leading: Gauge::default(),
            // 1 ms to 4 s.
            fold_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 13)),
        }
    }
}

impl Metrics {
    /// Adds the metrics, all named `analytics_…`, to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("analytics");
        registry.register("folded_facts", "Facts taken out of the outbox", self.folded.clone());
        registry.register(
            "logged_events",
            "Entries added to the log; fewer than folded facts: the others were repeats",
            self.logged.clone(),
        );
        registry.register("log_seq", "Number of the last entry of the log", self.seq.clone());
        registry.register(
            "backlog_facts",
            "Facts that wait for the fold, counted up to 100,000; high: the fold does not keep up",
            self.backlog.clone(),
        );
        registry.register(
            "backlog_age_milliseconds",
            "Age of the fact with the lowest number; high: figures and webhooks are late",
            self.backlog_age_ms.clone(),
        );
        registry.register("compactions", "Compactions of minutes into hours and days", self.compactions.clone());
        registry.register("leading", "1 while this instance holds the lease", self.leading.clone());
        registry.register("fold_seconds", "Duration of one fold", self.fold_seconds.clone());
    }
}
