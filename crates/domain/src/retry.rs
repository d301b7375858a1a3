//! When a deferred message goes again, and when its time is over.

use crate::MessageId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest pause between two attempts that a schedule may name.
const MAX_STEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most steps that a schedule may list.
const MAX_STEPS: usize = 100;
/// So many times a receiver's stated wait is obeyed to the letter; then it no longer makes an attempt come
/// sooner than half of what the schedule says, since some receivers state the same few seconds for ever.
const TRUSTED_WAITS: u16 = 3;
/// Jitter: a delay is stretched by up to a tenth, so that what was deferred together does not come together.
const JITTER_PARTS: u64 = 10;

/// The pauses between attempts; the last one repeats until the time to live ends.
///
/// As configuration either `{ steps = ["1m", "5m", "1h"] }` or `{ base = "1m", factor = 2.0, cap = "4h" }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct RetrySchedule {
    steps: Vec<Duration>,
}

/// Why a schedule is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// No step, or more than 100.
    #[error("steps must list 1 to 100 durations")]
    Count,
    /// A step of nothing, or of more than 7 days.
    #[error("every step, base and cap must be longer than nothing and at most 7 days")]
    Step,
    /// A factor that makes steps shorter, or explodes.
    #[error("factor must lie between 1 and 10")]
    Factor,
    /// Both forms at once, or half of one.
    #[error("give either steps, or base, factor and cap")]
    Form,
}

impl RetrySchedule {
    /// The schedule with these pauses.
    ///
    /// # Errors
    /// Without a step, with more than 100, or with one that is zero or over 7 days.
    pub fn of_steps(steps: Vec<Duration>) -> Result<Self, ScheduleError> {
        if steps.is_empty() || steps.len() > MAX_STEPS {
            return Err(ScheduleError::Count);
        }
        if steps.iter().any(|step| step.is_zero() || *step > MAX_STEP) {
            return Err(ScheduleError::Step);
        }
        Ok(Self { steps })
    }

    /// Pauses that grow from `base` by `factor` until they reach `cap`.
    ///
    /// # Errors
    /// When base or cap is zero or over 7 days, or the factor is not within [1, 10].
    pub fn growing(base: Duration, factor: f64, cap: Duration) -> Result<Self, ScheduleError> {
        if !(1.0..=10.0).contains(&factor) {
            return Err(ScheduleError::Factor);
        }
        if base.is_zero() || cap.is_zero() || base > MAX_STEP || cap > MAX_STEP {
            return Err(ScheduleError::Step);
        }
        let mut steps = vec![base.min(cap)];
        while let Some(last) =
            steps.last().copied().filter(|last| *last < cap && steps.len() < MAX_STEPS && factor > 1.0)
        {
            steps.push(last.mul_f64(factor).min(cap));
        }
        Self::of_steps(steps)
    }

    /// The pause after the `attempt`-th failed attempt, from 1.
    pub fn step(&self, attempt: u16) -> Duration {
        let index = usize::from(attempt.max(1) - 1).min(self.steps.len() - 1);
        self.steps[index]
    }

    /// How long after the `attempt`-th failed attempt (from 1) the next one is due: the wait that the
    /// receiver stated, else the schedule's, stretched by up to a tenth. The stretch depends on the message
    /// and the attempt alone, so a repeated statement computes the same.
    pub fn next_attempt(&self, attempt: u16, stated_wait: Option<Duration>, seed: MessageId) -> Duration {
        let step = self.step(attempt);
        let base = match stated_wait {
            Some(wait) if attempt <= TRUSTED_WAITS => wait,
            Some(wait) => wait.max(step / 2),
            None => step,
        };
        let spread = u64::try_from(base.as_millis()).unwrap_or(u64::MAX) / JITTER_PARTS;
        base + Duration::from_millis(mixed(seed, attempt) % (spread + 1))
    }
}

impl Default for RetrySchedule {
    /// 1, 5, 15, 30 min, 1, 2, then every 4 h. The first two suit greylisting, which asks for 1 to 5 minutes.
    fn default() -> Self {
        Self { steps: [1, 5, 15, 30, 60, 120, 240].map(|minutes| Duration::from_secs(minutes * 60)).into() }
    }
}

/// Whether the time to live is over.
pub fn is_expired(now: DateTime<Utc>, expires_at: DateTime<Utc>) -> bool {
    now >= expires_at
}

/// A number that looks random and depends on message and attempt alone (the finaliser of SplitMix64).
fn mixed(seed: MessageId, attempt: u16) -> u64 {
    let (high, low) = seed.as_uuid().as_u64_pair();
    let mut z = high ^ low.rotate_left(17) ^ u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) steps: Option<Vec<humantime_serde::Serde<Duration>>>,
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) factor: Option<f64>,
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub(crate) cap: Option<Duration>,
}

impl TryFrom<Written> for RetrySchedule {
    type Error = ScheduleError;

    fn try_from(written: Written) -> Result<Self, ScheduleError> {
        match (written.steps, written.base, written.factor, written.cap) {
            (Some(steps), None, None, None) => {
                Self::of_steps(steps.into_iter().map(humantime_serde::Serde::into_inner).collect())
            }
            (None, Some(base), Some(factor), Some(cap)) => Self::growing(base, factor, cap),
            _ => Err(ScheduleError::Form),
        }
    }
}

impl From<RetrySchedule> for Written {
    fn from(schedule: RetrySchedule) -> Self {
        let steps = schedule.steps.into_iter().map(humantime_serde::Serde::from).collect();
        Self { steps: Some(steps), base: None, factor: None, cap: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    const MIN: Duration = Duration::from_secs(60);

    fn seed(n: u128) -> MessageId {
        MessageId::from_uuid(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn the_default_suits_greylisting_and_ends_at_every_four_hours() {
        let schedule = RetrySchedule::default();
        assert_eq!([1, 2, 3, 7, 8, 60_000].map(|n| schedule.step(n)), [1, 5, 15, 240, 240, 240].map(|n| n * MIN));
        assert_eq!(schedule.step(0), MIN);
    }

    #[test]
    fn both_forms_are_read_and_wrong_ones_refused() {
        let read = |text: &str| serde_json::from_str::<RetrySchedule>(text);
        let listed = read(r#"{"steps": ["1m", "2m", "4m", "5m"]}"#).unwrap();
        assert_eq!(read(r#"{"base": "1m", "factor": 2, "cap": "5m"}"#).unwrap(), listed);
        assert_eq!(read(&serde_json::to_string(&listed).unwrap()).unwrap(), listed);
        for wrong in [
            r#"{}"#,
            r#"{"steps": []}"#,
            r#"{"steps": ["0s"]}"#,
            r#"{"steps": ["8days"]}"#,
            r#"{"steps": ["1m"], "base": "1m"}"#,
            r#"{"base": "1m", "factor": 0.5, "cap": "5m"}"#,
            r#"{"base": "1m", "factor": 2}"#,
            r#"{"step": ["1m"]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stated_wait_is_obeyed_but_not_for_ever() {
        let schedule = RetrySchedule::default();
        let wait = Some(Duration::from_secs(20));
        assert!(schedule.next_attempt(1, wait, seed(7)) <= Duration::from_secs(22));
        assert!(schedule.next_attempt(1, wait, seed(7)) >= Duration::from_secs(20));
        assert!(schedule.next_attempt(7, wait, seed(7)) >= 120 * MIN);
        assert!(schedule.next_attempt(1, Some(30 * MIN), seed(7)) >= 30 * MIN);
    }

    #[test]
    fn time_to_live_ends_at_its_end() {
        let end = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::hours(72);
        assert!(!is_expired(end - TimeDelta::milliseconds(1), end));
        assert!(is_expired(end, end));
    }

    proptest! {
        #[test]
        fn the_delay_is_the_step_stretched_by_at_most_a_tenth_and_always_the_same(attempt in any::<u16>(), n in any::<u128>()) {
            let schedule = RetrySchedule::default();
            let (step, delay) = (schedule.step(attempt), schedule.next_attempt(attempt, None, seed(n)));
            prop_assert!(delay >= step && delay <= step + step / 10);
            prop_assert_eq!(delay, schedule.next_attempt(attempt, None, seed(n)));
        }
    }

    #[test]
    fn messages_of_one_batch_do_not_come_together() {
        let batch = crate::BatchId::from_uuid(uuid::Uuid::now_v7());
        let delays: std::collections::HashSet<_> =
            (0..1_000).map(|n| RetrySchedule::default().next_attempt(2, None, MessageId::of_batch(batch, n))).collect();
        assert!(delays.len() > 900);
    }
}
