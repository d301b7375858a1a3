//! The `[dispatcher]` section.

use domain::{Slot, WindowPolicy};
use serde::{Deserialize, Serialize};
use service::ConfigError;
use std::{collections::BTreeMap, time::Duration};
use store::{DoubtPolicy, LeaseTerms};

/// Everything that the dispatcher can be told. Tests run the intervals at a tenth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DispatcherConfig {
    /// How the lease of the one that works is held; the others stand by.
    pub lease: LeaseTerms,
    /// How much of a slot's backlog may be in motion: time's worth and octets.
    pub window: WindowPolicy,
    /// Messages a slot and lane may always have in motion, whatever its rate, 1 to 10,000. Smaller: a slot whose
    /// rate is measured low takes longer to show that it became faster.
    pub min_window: u32,
    /// Messages in motion before a slot's rate has been measured.
    pub start_window: u32,
    /// Most messages a slot and lane may have in motion. Larger: a pause acts later.
    pub max_window: u32,
    /// Most messages a lane may have in motion over all slots; lowered by itself while the broker refuses chunks.
    pub max_in_motion: u32,
    /// Octets that a finished mail is taken to have until its content's size is known.
    pub assumed_mail_size: u64,
    /// Messages per second that a slot (`google`, `h17`) is known to take; the window uses the lower of this and
    /// the measured rate.
    pub slot_rates: BTreeMap<String, f64>,

    /// Most rows of one release statement, 1 to 10,000.
    pub release_batch: u32,
    /// Least time between two rounds when the last one released little, so that rings gather into chunks.
    #[serde(with = "humantime_serde")]
    pub round_spacing: Duration,
    /// Between looks for due queues; the doorbell comes in between.
    #[serde(with = "humantime_serde")]
    pub look_interval: Duration,
    /// Between looks without lower bounds, which find rows that a bound hid.
    #[serde(with = "humantime_serde")]
    pub full_look_interval: Duration,
    /// How far below the last released due time a queue's lower bound stays: longer than any transaction that
    /// inserts due rows.
    #[serde(with = "humantime_serde")]
    pub bound_slack: Duration,
    /// Between recounts of what is in motion.
    #[serde(with = "humantime_serde")]
    pub recount_interval: Duration,
    /// The same while something is due and has no room.
    #[serde(with = "humantime_serde")]
    pub recount_busy_interval: Duration,
    /// Chunks of one round that await the broker's answer at the same time.
    pub publishes_in_flight: usize,
    /// How long rows rest whose chunk the broker did not take.
    #[serde(with = "humantime_serde")]
    pub refused_delay: Duration,

    /// Between looks at the streams, and between probes.
    #[serde(with = "humantime_serde")]
    pub bus_interval: Duration,
    /// How long a probe, or a look at the streams, may take before the bus counts as down.
    #[serde(with = "humantime_serde")]
    pub probe_limit: Duration,

    /// Between repairs.
    #[serde(with = "humantime_serde")]
    pub repair_interval: Duration,
    /// How long after its release a message counts as lost on the way. Longer than the broker redelivers.
    #[serde(with = "humantime_serde")]
    pub repair_after: Duration,
    /// Most rows of one repair statement.
    pub repair_batch: u32,
    /// Losses in a row after which a message is closed as failed, as one that kills whoever touches it. Nothing tells
    /// such a message from one that waits for a shard without a sender or for renderers that are overrun, so a small
    /// number closes good mail during an outage of `repair_after` times as long. The time to live ends the rest.
    pub poison_losses: u16,

    /// How long after the end of an owner's lease its claims are in doubt: what the next owner has to read its
    /// journal.
    #[serde(with = "humantime_serde")]
    pub doubt_grace: Duration,
    /// Whether transactional mail in doubt is sent again; otherwise it ends as unknown.
    pub resend_transactional: bool,
    /// Whether bulk mail in doubt is sent again; otherwise it ends as unknown.
    pub resend_bulk: bool,

    /// Between looks for marks (cancelled, known delivered) to settle.
    #[serde(with = "humantime_serde")]
    pub mark_interval: Duration,
    /// Most rows closed by one statement, 1 to 1,000.
    pub refuse_batch: u32,
    /// Between sweeps for what outlived its time to live.
    #[serde(with = "humantime_serde")]
    pub expire_interval: Duration,
    /// Most rows of a queue closed by one statement of the sweep.
    pub expire_batch: u32,
    /// Between removals of idempotency keys whose time is over.
    #[serde(with = "humantime_serde")]
    pub idempotency_interval: Duration,
    /// Between looks at the partitions.
    #[serde(with = "humantime_serde")]
    pub partition_interval: Duration,
    /// Days ahead for which partitions are made.
    pub partition_days: u16,
    /// How long changes of pace are kept, with their causes. Default 30 d.
    #[serde(with = "humantime_serde")]
    pub tempo_history: Duration,
}

impl Default for DispatcherConfig {
    fn default() -> Self {
        Self {
            lease: LeaseTerms::default(),
            window: WindowPolicy::default(),
            min_window: 200,
            start_window: 1_000,
            max_window: 4_000,
            max_in_motion: 20_000,
            assumed_mail_size: 8 * 1024,
            slot_rates: BTreeMap::new(),
            release_batch: 1_000,
            round_spacing: Duration::from_millis(10),
            look_interval: Duration::from_secs(1),
            full_look_interval: Duration::from_secs(30),
            bound_slack: Duration::from_secs(10),
            recount_interval: Duration::from_secs(1),
            recount_busy_interval: Duration::from_millis(200),
            publishes_in_flight: 32,
            refused_delay: Duration::from_secs(1),
            bus_interval: Duration::from_secs(1),
            probe_limit: Duration::from_secs(1),
            repair_interval: Duration::from_secs(1),
            repair_after: Duration::from_secs(45),
            repair_batch: 2_000,
            poison_losses: 100,
            doubt_grace: Duration::from_secs(15),
            resend_transactional: true,
            resend_bulk: true,
            mark_interval: Duration::from_secs(1),
            refuse_batch: 1_000,
            expire_interval: Duration::from_secs(60),
            expire_batch: 1_000,
            idempotency_interval: Duration::from_secs(60),
            partition_interval: Duration::from_secs(3_600),
            partition_days: 7,
            tempo_history: Duration::from_secs(30 * 24 * 3_600),
        }
    }
}

impl DispatcherConfig {
    /// What becomes of doubt.
    pub(crate) const fn doubt_policy(&self) -> DoubtPolicy {
        DoubtPolicy { resend_transactional: self.resend_transactional, resend_bulk: self.resend_bulk }
    }

    /// The rates by slot.
    ///
    /// # Errors
    /// When a key names no slot, or a rate is not a positive number.
    pub(crate) fn rates(&self) -> Result<BTreeMap<Slot, f64>, ConfigError> {
        let mut rates = BTreeMap::new();
        for (name, rate) in &self.slot_rates {
            let key = || format!("dispatcher.slot_rates.{name}");
            let slot = name.parse::<Slot>().map_err(|error| ConfigError::invalid(key(), error.to_string()))?;
            if !rate.is_finite() || *rate <= 0.0 {
                return Err(ConfigError::invalid(key(), "must be above 0"));
            }
            rates.insert(slot, *rate);
        }
        Ok(rates)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// With the first value that cannot work.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let invalid = |key: &str, message: &str| Err(ConfigError::invalid(format!("dispatcher.{key}"), message));
        let LeaseTerms { term, renew_every, safety, .. } = self.lease;
        if renew_every * 2 + safety > term {
            return invalid("lease.term", "must be at least twice renew_every plus safety");
        }
        if !(1..=10_000).contains(&self.release_batch) {
            return invalid("release_batch", "must be 1 to 10,000");
        }
        if !(1..=1_000).contains(&self.refuse_batch) {
            return invalid("refuse_batch", "must be 1 to 1,000");
        }
        if self.repair_batch == 0 || self.expire_batch == 0 {
            return invalid("repair_batch", "must be above 0, as must expire_batch");
        }
        if self.min_window == 0 || self.min_window > self.max_window || self.max_window > self.max_in_motion {
            return invalid("max_window", "must be between min_window, above 0, and max_in_motion");
        }
        self.rates().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        DispatcherConfig::default().check().expect("valid");
    }

    #[test]
    fn a_rate_needs_a_slot_and_a_positive_number() {
        let with = |name: &str, rate| {
            let slot_rates = BTreeMap::from([(name.to_owned(), rate)]);
            DispatcherConfig { slot_rates, ..DispatcherConfig::default() }.check()
        };
        assert!(with("google", 50.0).is_ok());
        assert!(with("h63", 0.5).is_ok());
        assert!(with("nowhere", 1.0).is_err());
        assert!(with("google", 0.0).is_err());
        assert!(with("google", f64::NAN).is_err());
    }
}
