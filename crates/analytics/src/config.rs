//! The `[analytics]` section.

use serde::{Deserialize, Serialize};
use service::ConfigError;
use std::time::Duration;
use store::LeaseTerms;

/// Everything that analytics can be told. Tests run the intervals at a tenth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnalyticsConfig {
    /// How the lease of the one that folds is held; the others stand by.
    pub lease: LeaseTerms,
    /// Most facts of one fold, 1 to 100,000. Larger: fewer commits, and a longer wait for whoever needs the log's
    /// row.
    pub fold_batch: u32,
    /// Pause after a fold that took all there was.
    #[serde(with = "humantime_serde")]
    pub poll_min: Duration,
    /// The longest pause; each look that finds nothing doubles it up to this.
    #[serde(with = "humantime_serde")]
    pub poll_max: Duration,
    /// How far below the last fact taken the next look begins: more than the facts of all transactions that can be
    /// under way at once, since numbers are given before the commit.
    pub slack: i64,
    /// Between looks from the very beginning, which find what a slower transaction committed.
    #[serde(with = "humantime_serde")]
    pub full_look_interval: Duration,
    /// Between compactions of minutes into hours and days.
    #[serde(with = "humantime_serde")]
    pub compact_interval: Duration,
    /// How much of the past each compaction counts anew; older facts that were still waiting for the fold widen it.
    #[serde(with = "humantime_serde")]
    pub compact_overlap: Duration,
    /// How much of the past the first compaction of a tenure counts anew.
    #[serde(with = "humantime_serde")]
    pub compact_at_start: Duration,
    /// Between looks at the backlog of facts, for the metrics.
    #[serde(with = "humantime_serde")]
    pub measure_interval: Duration,
}

impl Default for AnalyticsConfig {
    fn default() -> Self {
        Self {
            lease: LeaseTerms::default(),
            fold_batch: 2_000,
            poll_min: Duration::from_millis(100),
            poll_max: Duration::from_secs(1),
            slack: 50_000,
            full_look_interval: Duration::from_secs(5),
            compact_interval: Duration::from_secs(60),
            compact_overlap: Duration::from_secs(3_600),
            compact_at_start: Duration::from_secs(2 * 86_400),
            measure_interval: Duration::from_secs(5),
        }
    }
}

impl AnalyticsConfig {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// With the first value that cannot work.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let invalid = |key: &str, message: &str| Err(ConfigError::invalid(format!("analytics.{key}"), message));
        let LeaseTerms { term, renew_every, safety, .. } = self.lease;
        if renew_every * 2 + safety > term {
            return invalid("lease.term", "must be at least twice renew_every plus safety");
        }
        if !(1..=100_000).contains(&self.fold_batch) {
            return invalid("fold_batch", "must be 1 to 100,000");
        }
        if self.slack < 0 {
            return invalid("slack", "must not be below 0");
        }
        if self.poll_min.is_zero() || self.poll_min > self.poll_max {
            return invalid("poll_min", "must be above 0 and at most poll_max");
        }
        Ok(())
    }
}
