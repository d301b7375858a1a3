//! What feedback counts.

use domain::fact;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use store::{Feedback, RecordedFeedback};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

/// What became of a provider's post.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OfPost {
    pub(crate) provider: &'static str,
    pub(crate) result: &'static str,
}

/// What became of a mail that came in.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OfMail {
    pub(crate) result: &'static str,
}

/// What a mail turned out to be.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OfReport {
    pub(crate) kind: String,
}

/// Figures of one process.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    items: Family<OfKind, Counter>,
    repeated: Counter,
    unknown: Counter,
    pub(crate) shed: Counter,
    pub(crate) lost: Counter,
    pub(crate) refused: Counter,
    pub(crate) posts: Family<OfPost, Counter>,
    pub(crate) spooled: Gauge,
    pub(crate) mails: Family<OfMail, Counter>,
    pub(crate) mails_read: Family<OfReport, Counter>,
    pub(crate) mails_spooled: Gauge,
    pub(crate) posted: Counter,
    pub(crate) post_failures: Counter,
    pub(crate) disabled: Counter,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        let registry = registry.sub_registry_with_prefix("feedback");
        registry.register("items", "What came back about mails, by kind, repeats included", new.items.clone());
        registry.register("repeated", "What was known before", new.repeated.clone());
        registry.register("unknown", "What is about mails that are not kept", new.unknown.clone());
        registry.register("shed", "Opens and clicks that were not counted, since too many waited", new.shed.clone());
        registry.register("lost", "Hits that neither Postgres nor the spool took; look at the disk", new.lost.clone());
        registry.register("refused", "Links that are none of ours, or have been changed", new.refused.clone());
        registry.register(
            "posts",
            "Posts of providers, by what became of them; refused: look at the log",
            new.posts.clone(),
        );
        registry.register(
            "spool_bytes",
            "What waits on disk for Postgres; rising: Postgres is away",
            new.spooled.clone(),
        );
        registry.register("mails", "Mails and recipients that came in, by what became of them", new.mails.clone());
        registry.register(
            "mails_read",
            "Mails that were read, by what they are; dead: nothing could be made of them",
            new.mails_read.clone(),
        );
        registry.register(
            "mails_spool_bytes",
            "Mails that wait on disk for Postgres; rising: Postgres is away",
            new.mails_spooled.clone(),
        );
        registry.register("posted", "Events that endpoints of tenants have taken", new.posted.clone());
        registry.register("post_failures", "Posts that endpoints have not taken", new.post_failures.clone());
        registry.register(
            "endpoints_disabled",
            "Endpoints that are posted to no more; tell their owners",
            new.disabled.clone(),
        );
        new
    }

    pub(crate) fn recorded(&self, items: &[Feedback], done: RecordedFeedback) {
        for item in items {
            self.items.get_or_create(&OfKind { kind: fact::word(item.kind, None) }).inc();
        }
        self.repeated.inc_by(done.repeated as u64);
        self.unknown.inc_by(done.unknown as u64);
    }
}
