//! What a sender counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use std::time::Duration;
use store::{Claimed, Outcome, Recorded, Verdict, What};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Result {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Attempt {
    result: &'static str,
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRule {
    rule: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRoute {
    route: String,
}

pub(crate) struct SenderMetrics {
    pub(crate) shards: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) held: Gauge,
    pub(crate) parked: Counter,
    pub(crate) record_seconds: Histogram,
    attempts: Family<Attempt, Counter>,
    route_failures: Family<OfRoute, Counter>,
    redirected: Family<OfRoute, Counter>,
    slowed: Family<OfRule, Counter>,
    attempt_seconds: Histogram,
    claims: Family<Result, Counter>,
    claim_size: Histogram,
    claim_seconds: Histogram,
    records: Family<Result, Counter>,
    resolved: Family<Result, Counter>,
}

impl SenderMetrics {
    pub(crate) fn register(metrics: &service::Metrics) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let new = Self {
            shards: Gauge::default(),
            connections: Gauge::default(),
            held: Gauge::default(),
            parked: Counter::default(),
            record_seconds: seconds(),
            attempts: Family::default(),
            route_failures: Family::default(),
            redirected: Family::default(),
            slowed: Family::default(),
            attempt_seconds: seconds(),
            claims: Family::default(),
            claim_size: Histogram::new([1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0]),
            claim_seconds: seconds(),
            records: Family::default(),
            resolved: Family::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("sender");
            registry.register("shards", "Shards owned", new.shards.clone());
            registry.register(
                "connections",
                "Deliveries at work, each with a connection or about to have one",
                new.connections.clone(),
            );
            registry.register(
                "held",
                "Letters held and not claimed; high: receivers are slower than the windows",
                new.held.clone(),
            );
            registry.register("parked", "Letters put back to rest because they could not go soon", new.parked.clone());
            registry.register(
                "attempts",
                "Attempts by result and route; in_doubt: the final dot was not answered",
                new.attempts.clone(),
            );
            registry.register(
                "route_failures",
                "Times that a route gave no session, whatever the receiver, and was left alone for it",
                new.route_failures.clone(),
            );
            registry.register(
                "redirected",
                "Letters that this route gave no session, and that another one of their pool took",
                new.redirected.clone(),
            );
            registry.register(
                "slowed",
                "Reactions to what receivers said about the pace, by rule; high: look at the causes with `mailfleet shaping`",
                new.slowed.clone(),
            );
            registry.register("attempt_seconds", "From a letter's turn to its reply", new.attempt_seconds.clone());
            registry.register(
                "claims",
                "Letters claimed, by verdict; stale: another release had moved on",
                new.claims.clone(),
            );
            registry.register(
                "claim_size",
                "Letters in one claim; low at a high rate: claims cost more than they need",
                new.claim_size.clone(),
            );
            registry.register("claim_seconds", "Time of a claim statement", new.claim_seconds.clone());
            registry.register(
                "resolved",
                "Claims that an earlier process left, by what its journal proves; in_doubt: a dot without a reply",
                new.resolved.clone(),
            );
            registry.register("records", "Outcomes recorded; late: the message had moved on", new.records.clone());
            registry.register(
                "record_seconds",
                "Time until a batch of outcomes was recorded",
                new.record_seconds.clone(),
            );
        });
        new
    }

    pub(crate) fn attempted(&self, what: &What, route: &str, took: Duration) {
        let result = match what {
            What::Delivered => "delivered",
            What::Bounced => "bounced",
            What::Deferred { .. } => "deferred",
            What::InDoubt => "in_doubt",
            What::GivenBack { .. } => "given_back",
        };
        self.attempts.get_or_create(&Attempt { result, route: route.to_owned() }).inc();
        self.attempt_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn route_failed(&self, route: &str) {
        self.route_failures.get_or_create(&OfRoute { route: route.to_owned() }).inc();
    }

    /// A site is sent to more slowly by this rule.
    pub(crate) fn slowed(&self, rule: &str) {
        self.slowed.get_or_create(&OfRule { rule: rule.to_owned() }).inc();
    }

    pub(crate) fn redirected(&self, route: &str) {
        self.redirected.get_or_create(&OfRoute { route: route.to_owned() }).inc();
    }

    pub(crate) fn claimed(&self, asked: usize, verdicts: &Claimed, took: Duration) {
        self.claim_size.observe(asked as f64);
        self.claim_seconds.observe(took.as_secs_f64());
        let mut go = 0;
        let mut refused = 0;
        let mut paused = 0;
        for verdict in verdicts.values() {
            match verdict {
                Verdict::Go => go += 1,
                Verdict::Closed(_) => refused += 1,
                Verdict::Paused => paused += 1,
            }
        }
        let stale = (asked as u64).saturating_sub(go + refused + paused);
        for (result, count) in [("go", go), ("refused", refused), ("paused", paused), ("stale", stale)] {
            self.claims.get_or_create(&Result { result }).inc_by(count);
        }
    }

    /// What the journal of an earlier process came to.
    pub(crate) fn resolved(&self, replied: usize, in_doubt: usize, given_back: usize, late: usize) {
        for (result, count) in
            [("replied", replied), ("in_doubt", in_doubt), ("given_back", given_back), ("late", late)]
        {
            self.resolved.get_or_create(&Result { result }).inc_by(count as u64);
        }
    }

    pub(crate) fn recorded(&self, outcomes: &[Outcome], recorded: &[Recorded]) {
        for (outcome, recorded) in outcomes.iter().zip(recorded) {
            let result = match recorded {
                Recorded::Closed(_) => "closed",
                Recorded::Open => "open",
                Recorded::Repeated => "repeated",
                Recorded::Late => {
                    tracing::warn!(message.id = %outcome.message, release = outcome.release, "an outcome came late");
                    "late"
                }
            };
            self.records.get_or_create(&Result { result }).inc();
        }
    }
}
