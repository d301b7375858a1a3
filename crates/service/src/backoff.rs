//! Pauses between tries.

use serde::{Deserialize, Serialize};
use std::{future::Future, time::Duration};

/// Exponential pauses with jitter, for whatever reconnects.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// The first pause.
    #[serde(with = "humantime_serde")]
    pub min: Duration,
    /// The longest pause; each is twice the one before it until this is reached.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
}

/// What part of a pause is left to chance, so that many clients do not come back in step.
const JITTER: f64 = 0.25;

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_millis(50), max: Duration::from_secs(5) }
    }
}

impl Backoff {
    /// The pause after failure number `failures` (from 0).
    pub fn pause(&self, failures: u32) -> Duration {
        let full = self.min.saturating_mul(1 << failures.min(20)).min(self.max);
        full.mul_f64(1.0 - JITTER * random_fraction())
    }
}

/// Tries until it works, for ever, with a pause after each failure and a warning at the first.
/// Cancel it, by `select!` with [`Lifecycle::shutdown_requested`](crate::Lifecycle::shutdown_requested),
/// to stop.
pub async fn retry<T, E: std::error::Error>(
    what: &'static str,
    backoff: Backoff,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let mut failures = 0_u32;
    loop {
        match attempt().await {
            Ok(value) => {
                if failures > 0 {
                    tracing::info!(what, failures, "works again");
                }
                return value;
            }
            Err(error) => {
                let pause = backoff.pause(failures);
                if failures == 0 {
                    tracing::warn!(what, error = %crate::Chain(&error), "fails and is tried again");
                }
                failures = failures.saturating_add(1);
                sleep(pause).await;
            }
        }
    }
}

fn sleep(pause: Duration) -> impl Future<Output = ()> {
    tokio::time::sleep(pause)
}

/// A number in `[0, 1)`.
fn random_fraction() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter, which is no reason to fail.
    let _without = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_limit_less_a_quarter_at_most() {
        let backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(1) };
        for (failures, full) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1_000), (u32::MAX, 1_000)] {
            let pause = backoff.pause(failures);
            let full = Duration::from_millis(full);
            assert!(pause <= full && pause >= full.mul_f64(0.74), "{failures}: {pause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_until_it_works() {
        let mut tries = 0;
        let result = retry("a test", Backoff::default(), async || {
            tries += 1;
            if tries < 5 { Err(std::fmt::Error) } else { Ok(tries) }
        });
        assert_eq!(result.await, 5);
    }
}
