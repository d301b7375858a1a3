//! What a renderer counts.

use domain::Lane;
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// One label.
type Label = [(&'static str, &'static str); 1];
type Histograms = Family<Label, Histogram, fn() -> Histogram>;

/// The metrics of one renderer; labels are lanes and classes, of which there are few.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    rendered: Family<Label, Counter>,
    references: Counter,
    failed: Family<Label, Counter>,
    parked: Family<Label, Counter>,
    held: Family<Label, Counter>,
    render_seconds: Histograms,
    chunk_seconds: Histograms,
    chunk_mails: Histograms,
    letter_chunk_octets: Histograms,
}

fn lane_label(lane: Lane) -> Label {
    [("lane", lane.as_str())]
}

impl Metrics {
    /// Adds the metrics, all named `renderer_…`, to a registry.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            rendered: Family::default(),
            references: Counter::default(),
            failed: Family::default(),
            parked: Family::default(),
            held: Family::default(),
            // 50 µs to 0.8 s.
            render_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(50e-6, 2.0, 15))),
            // 1 ms to 16 s.
            chunk_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1e-3, 2.0, 15))),
            chunk_mails: Family::new_with_constructor(|| Histogram::new([1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0])),
            // 1 KiB to 512 KiB.
            letter_chunk_octets: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1024.0, 2.0, 10))),
        };
        let registry = registry.sub_registry_with_prefix("renderer");
        registry.register("rendered_mails", "Mails rendered, by lane", metrics.rendered.clone());
        registry.register(
            "reference_mails",
            "Mails among them above the size that travels on the bus; their sender renders them again",
            metrics.references.clone(),
        );
        registry.register(
            "failed_mails",
            "Mails closed because they can never be rendered, by class; high: a content and its variables do not fit",
            metrics.failed.clone(),
        );
        registry.register(
            "parked_mails",
            "Mails put back to rest, by class; high: the broker is full or gone, or keys do not open",
            metrics.parked.clone(),
        );
        registry.register(
            "held_chunks",
            "Chunks left with the broker for later, by class; any: the database or the broker does not answer",
            metrics.held.clone(),
        );
        registry.register("render_seconds", "Time to render one mail, by lane", metrics.render_seconds.clone());
        registry.register(
            "chunk_seconds",
            "From a chunk's arrival to its acknowledgement, by lane; high: too few renderers or a slow broker",
            metrics.chunk_seconds.clone(),
        );
        registry.register("chunk_mails", "Mails in a chunk that arrived, by lane", metrics.chunk_mails.clone());
        registry.register(
            "letter_chunk_octets",
            "MIME in a chunk that was published, by lane",
            metrics.letter_chunk_octets.clone(),
        );
        metrics
    }

    pub(crate) fn rendered(&self, lane: Lane, mails: usize, references: usize) {
        self.rendered.get_or_create(&lane_label(lane)).inc_by(count(mails));
        self.references.inc_by(count(references));
    }

    pub(crate) fn failed(&self, class: &'static str, mails: usize) {
        self.failed.get_or_create(&[("class", class)]).inc_by(count(mails));
    }

    pub(crate) fn parked(&self, class: &'static str, mails: usize) {
        self.parked.get_or_create(&[("class", class)]).inc_by(count(mails));
    }

    pub(crate) fn held(&self, class: &'static str) {
        self.held.get_or_create(&[("class", class)]).inc();
    }

    pub(crate) fn render_seconds(&self, lane: Lane) -> Histogram {
        self.render_seconds.get_or_create(&lane_label(lane)).clone()
    }

    pub(crate) fn arrived(&self, lane: Lane, mails: usize) {
        self.chunk_mails.get_or_create(&lane_label(lane)).observe(float(mails));
    }

    pub(crate) fn finished(&self, lane: Lane, seconds: f64) {
        self.chunk_seconds.get_or_create(&lane_label(lane)).observe(seconds);
    }

    pub(crate) fn published(&self, lane: Lane, octets: usize) {
        self.letter_chunk_octets.get_or_create(&lane_label(lane)).observe(float(octets));
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Chunks hold few mails and less than a mebibyte.
fn float(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
