//! How much of a slot's backlog may be in motion at once.
//!
//! Few enough that a pause, a cancel or an unsubscribe acts at once and the broker's memory is bounded;
//! enough that no sender waits for the dispatcher's next turn.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The two bounds of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowPolicy {
    /// Time's worth of mail in motion per slot. Default 3 s; must exceed the dispatcher's tick and the way
    /// through the renderer, or senders run dry; larger values make a pause act later.
    #[serde(with = "humantime_serde")]
    pub horizon: Duration,
    /// Octets of finished mail in motion per slot. Default 16 MiB; the sum over busy slots must stay below
    /// what the job streams may hold.
    pub byte_budget: u64,
}

impl Default for WindowPolicy {
    fn default() -> Self {
        Self { horizon: Duration::from_secs(3), byte_budget: 16 << 20 }
    }
}

impl WindowPolicy {
    /// The most messages of `content_size` octets that may be in motion for a slot whose senders get rid of
    /// `rate` messages per second; at least 1, so that nothing stands still for ever. A rate that is not
    /// known yet (`None`) leaves the byte budget alone to decide.
    pub fn window(&self, rate: Option<f64>, content_size: u64) -> u32 {
        let by_bytes = self.byte_budget / content_size.max(1);
        // A float beyond the range saturates; not a number becomes 0.
        let by_rate = rate.map_or(u64::MAX, |rate| (rate * self.horizon.as_secs_f64()).floor() as u64);
        u32::try_from(by_bytes.min(by_rate)).unwrap_or(u32::MAX).max(1)
    }

    /// What is left of [`window`](Self::window) when `in_motion` messages travel already.
    pub fn room(&self, rate: Option<f64>, content_size: u64, in_motion: u32) -> u32 {
        self.window(rate, content_size).saturating_sub(in_motion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_smaller_bound_decides() {
        let policy = WindowPolicy { horizon: Duration::from_secs(3), byte_budget: 1_000_000 };
        assert_eq!(policy.window(Some(100.0), 1_000), 300);
        assert_eq!(policy.window(Some(1_000.0), 1_000), 1_000);
        assert_eq!(policy.window(None, 10_000), 100);
        assert_eq!(policy.window(Some(0.01), 1_000), 1);
        assert_eq!(policy.window(Some(100.0), 50_000_000), 1);
        assert_eq!(policy.room(Some(100.0), 1_000, 299), 1);
        assert_eq!(policy.room(Some(100.0), 1_000, 500), 0);
    }

    proptest! {
        #[test]
        fn a_window_is_never_empty_and_never_over_budget(rate in any::<f64>(), size in any::<u64>(), budget in any::<u64>()) {
            let window = WindowPolicy { horizon: Duration::from_secs(3), byte_budget: budget }.window(Some(rate), size);
            prop_assert!(window >= 1);
            prop_assert!(window == 1 || u64::from(window).checked_mul(size).is_some_and(|octets| octets <= budget));
        }
    }
}
