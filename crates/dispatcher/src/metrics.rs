//! What the dispatcher counts. Labels are lanes and short lists of words.

use domain::Lane;
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

type ByLane<M> = Family<[(&'static str, &'static str); 1], M>;

/// The dispatcher's metrics; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Messages released, by lane.
    pub released: ByLane<Counter>,
    /// Messages given back since the broker did not take their chunk, by lane.
    pub given_back: ByLane<Counter>,
    /// Messages released whose publish has an unknown fate, by lane.
    pub unknown_publish: ByLane<Counter>,
    /// Messages put back after a loss.
    pub repaired: Counter,
    /// Messages closed as failed after too many losses in a row.
    pub poisoned: Counter,
    /// Attempts whose owner went away.
    pub doubts_opened: Counter,
    /// Doubts ended, by result: `sent_again`, `unknown`, `delivered`, `cancelled`.
    pub doubts_closed: Family<[(&'static str, &'static str); 1], Counter>,
    /// Messages closed by the sweep of what outlived its time to live.
    pub expired: Counter,
    /// Messages closed where they rested or travelled because of a mark, by result: `cancelled`, `delivered`.
    pub marked: Family<[(&'static str, &'static str); 1], Counter>,
    /// Times the bus was found to be another one than before.
    pub bus_epochs: Counter,
    /// 1 while this instance holds the lease.
    pub leading: Gauge,
    /// 1 while the bus takes work, as the holder of the lease sees it.
    pub bus_up: Gauge,
    /// The sum of the windows of all slots, by lane.
    pub window: ByLane<Gauge>,
    /// Messages in motion, by lane.
    pub in_motion: ByLane<Gauge>,
    /// Queues that have something due.
    pub due_queues: Gauge,
    /// How long the oldest due message has waited, in milliseconds.
    pub oldest_due_ms: Gauge,
    /// Rows in the default partitions.
    pub strayed: Gauge,
    /// One round: quotas, release, publish.
    pub round_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            released: Family::default(),
            given_back: Family::default(),
            unknown_publish: Family::default(),
            repaired: Counter::default(),
            poisoned: Counter::default(),
            doubts_opened: Counter::default(),
            doubts_closed: Family::default(),
            expired: Counter::default(),
            marked: Family::default(),
            bus_epochs: Counter::default(),
            leading: Gauge::default(),
            bus_up: Gauge::default(),
            window: Family::default(),
            in_motion: Family::default(),
            due_queues: Gauge::default(),
            oldest_due_ms: Gauge::default(),
            strayed: Gauge::default(),
            // 1 ms to 4 s.
            round_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 13)),
        }
    }
}

/// The label of a lane.
pub(crate) const fn lane(lane: Lane) -> [(&'static str, &'static str); 1] {
    [("lane", lane.as_str())]
}

/// The label of a result.
pub(crate) const fn result(result: &'static str) -> [(&'static str, &'static str); 1] {
    [("result", result)]
}

impl Metrics {
    /// Adds the metrics, all named `dispatcher_…`, to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("dispatcher");
        registry.register("released_messages", "Messages released, by lane", self.released.clone());
        registry.register(
            "given_back_messages",
            "Messages given back since the broker did not take their chunk; high: the broker is full or gone",
            self.given_back.clone(),
        );
        registry.register(
            "unknown_publish_messages",
            "Messages whose publish was not answered in time and that are left to repair",
            self.unknown_publish.clone(),
        );
        registry.register(
            "repaired_messages",
            "Messages put back after a loss on the way; steadily rising: renderers or senders do not keep up",
            self.repaired.clone(),
        );
        registry.register(
            "poisoned_messages",
            "Messages closed as failed after too many losses in a row; any: they kill what renders them",
            self.poisoned.clone(),
        );
        registry.register(
            "opened_doubts",
            "Attempts whose sender went away; high: senders die or lose their leases",
            self.doubts_opened.clone(),
        );
        registry.register("closed_doubts", "Doubts ended, by result", self.doubts_closed.clone());
        registry.register("expired_messages", "Messages closed by the expiry sweep", self.expired.clone());
        registry.register("marked_messages", "Messages closed because of a mark, by result", self.marked.clone());
        registry.register(
            "bus_epochs",
            "Times the streams were found to be other ones; rising: the broker loses its memory",
            self.bus_epochs.clone(),
        );
        registry.register("leading", "1 while this instance holds the lease", self.leading.clone());
        registry.register(
            "bus_up",
            "1 while the bus takes work, as the holder of the lease sees it",
            self.bus_up.clone(),
        );
        registry.register("window_messages", "Sum of the windows of all slots, by lane", self.window.clone());
        registry.register("in_motion_messages", "Messages between release and record, by lane", self.in_motion.clone());
        registry.register(
            "due_queues",
            "Queues that have something due; high for long: slots are full or senders stand still",
            self.due_queues.clone(),
        );
        registry.register(
            "oldest_due_milliseconds",
            "How long the oldest due message has waited; high: its slot or queue gets too small a share",
            self.oldest_due_ms.clone(),
        );
        registry.register(
            "strayed_rows",
            "Rows in the default partitions, counted up to 2,000; any: partitions are missing",
            self.strayed.clone(),
        );
        registry.register("round_seconds", "Duration of one round of release", self.round_seconds.clone());
    }
}
