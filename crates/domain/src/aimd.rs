//! A limit that is cut at once when the receiver complains and climbs back in steps when it no longer
//! does: additive increase, multiplicative decrease. The configured limit is the ceiling. From far below it, a step
//! doubles the value at most.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How far and how fast a limit moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AimdPolicy {
    /// What remains after a cut, as a part of the value. Default 0.5; within (0, 1).
    pub decrease: f64,
    /// What a step adds, as a part of the ceiling, but no more than the value itself. Default 0.1; within (0, 1].
    pub increase: f64,
    /// Time without a complaint that earns one step. Default 2 min.
    #[serde(with = "humantime_serde")]
    pub step_every: Duration,
    /// Complaints within this time after a cut belong to the same one, since they answer mail that was on
    /// its way already. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub settle: Duration,
    /// The lowest value, as a part of the ceiling. Default 0.01; within (0, 1].
    pub floor: f64,
}

impl Default for AimdPolicy {
    fn default() -> Self {
        Self {
            decrease: 0.5,
            increase: 0.1,
            step_every: Duration::from_secs(120),
            settle: Duration::from_secs(10),
            floor: 0.01,
        }
    }
}

impl AimdPolicy {
    /// What is wrong with these values, in words; `None` when nothing is.
    pub fn problem(&self) -> Option<&'static str> {
        let within = |value: f64| value > 0.0 && value <= 1.0;
        if !within(self.decrease) || self.decrease >= 1.0 {
            return Some("decrease must lie above 0 and below 1");
        }
        if !within(self.increase) {
            return Some("increase must lie above 0 and be at most 1");
        }
        if !within(self.floor) {
            return Some("floor must lie above 0 and be at most 1");
        }
        self.step_every.is_zero().then_some("step_every must be longer than nothing")
    }
}

/// A rate or a number of connections that adapts within [floor × ceiling, ceiling].
///
/// Times are monotonic, since any fixed moment.
#[derive(Clone, Copy, Debug)]
pub struct Aimd {
    policy: AimdPolicy,
    ceiling: f64,
    value: f64,
    /// The last cut, or the last step that was counted.
    since: Duration,
    cut_at: Option<Duration>,
}

impl Aimd {
    /// Starts at the ceiling.
    pub fn new(policy: AimdPolicy, ceiling: f64) -> Self {
        Self { policy, ceiling, value: ceiling, since: Duration::ZERO, cut_at: None }
    }

    /// The value now: the steps earned since the last cut are counted first.
    pub fn value(&mut self, now: Duration) -> f64 {
        if self.value >= self.ceiling {
            return self.value;
        }
        let step = self.policy.step_every.max(Duration::from_millis(1));
        let steps = now.saturating_sub(self.since).as_nanos() / step.as_nanos();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        for _ in 0..steps {
            self.value = (self.value + self.value.min(self.policy.increase * self.ceiling)).min(self.ceiling);
            if self.value >= self.ceiling {
                break;
            }
        }
        self.since = self.since.saturating_add(step.saturating_mul(steps));
        self.value
    }

    /// The receiver complained. `Some(value)` when that lowered the value, `None` when the complaint
    /// belongs to the last cut or the floor was reached before.
    pub fn cut(&mut self, now: Duration) -> Option<f64> {
        self.cut_from(f64::INFINITY, self.policy.decrease, now)
    }

    /// [`Aimd::cut`] to the part `decrease` of what was really used, where that is below the value: to halve a limit
    /// that nobody reaches changes nothing.
    pub fn cut_from(&mut self, used: f64, decrease: f64, now: Duration) -> Option<f64> {
        let value = self.value(now);
        if self.cut_at.is_some_and(|at| now < at.saturating_add(self.policy.settle)) {
            self.since = now;
            return None;
        }
        self.cut_at = Some(now);
        self.since = now;
        // A value that was held below the floor is not raised to it.
        self.value = (value.min(used) * decrease).max(self.floor()).min(value);
        (self.value < value).then_some(self.value)
    }

    /// Lowers the value to `value`, below the floor if need be, and keeps it there until `until`; then it climbs.
    /// `false` when it was as low before.
    pub fn hold(&mut self, value: f64, until: Duration, now: Duration) -> bool {
        let lowers = value < self.value(now);
        self.value = self.value.min(value);
        self.since = self.since.max(until).max(now);
        self.cut_at = Some(now);
        lowers
    }

    /// Takes another configured limit; the value keeps its part of the ceiling.
    pub fn set_ceiling(&mut self, ceiling: f64) {
        self.value = if self.ceiling > 0.0 { self.value / self.ceiling * ceiling } else { ceiling };
        self.ceiling = ceiling;
        self.value = self.value.clamp(self.floor().min(ceiling), ceiling);
    }

    /// Whether the value is below its ceiling.
    pub fn is_lowered(&mut self, now: Duration) -> bool {
        self.value(now) < self.ceiling
    }

    /// How long until the time towards the next step begins to count: nothing, but after [`Aimd::hold`].
    pub fn climbs_in(&self, now: Duration) -> Duration {
        self.since.saturating_sub(now)
    }

    fn floor(&self) -> f64 {
        self.policy.floor * self.ceiling
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_complaint_halves_and_time_brings_it_back_in_steps() {
        let mut rate = Aimd::new(AimdPolicy::default(), 100.0);
        assert_eq!(rate.value(s(5)), 100.0);
        assert_eq!(rate.cut(s(10)), Some(50.0));
        assert_eq!(rate.value(s(129)), 50.0);
        assert_eq!(rate.value(s(130)), 60.0);
        assert_eq!(rate.value(s(370)), 80.0);
        assert_eq!(rate.value(s(10_000)), 100.0);
        assert!(!rate.is_lowered(s(10_000)));
    }

    #[test]
    fn complaints_about_mail_already_on_its_way_cut_once() {
        let mut rate = Aimd::new(AimdPolicy::default(), 100.0);
        assert_eq!(rate.cut(s(10)), Some(50.0));
        assert_eq!(rate.cut(s(12)), None);
        assert_eq!(rate.cut(s(19)), None);
        assert_eq!(rate.cut(s(20)), Some(25.0));
    }

    #[test]
    fn a_value_that_is_held_far_down_doubles_until_the_steps_are_as_large_as_ever() {
        let mut rate = Aimd::new(AimdPolicy::default(), 100.0);
        assert!(rate.hold(0.5, s(1_800), s(0)));
        assert!(!rate.hold(0.5, s(1_800), s(1)));
        assert_eq!(rate.value(s(1_919)), 0.5);
        let seen: Vec<f64> = (0..7).map(|step| rate.value(s(1_920 + 120 * step))).collect();
        assert_eq!(seen, [1.0, 2.0, 4.0, 8.0, 16.0, 26.0, 36.0]);
    }

    #[test]
    fn a_cut_begins_at_what_was_used() {
        let mut rate = Aimd::new(AimdPolicy::default(), 100.0);
        assert_eq!(rate.cut_from(8.0, 0.5, s(0)), Some(4.0));
        assert_eq!(rate.cut_from(0.1, 0.5, s(20)), Some(1.0));
        assert_eq!(rate.cut_from(0.1, 0.5, s(40)), None);
    }

    #[test]
    fn another_ceiling_keeps_the_part() {
        let mut rate = Aimd::new(AimdPolicy::default(), 100.0);
        rate.cut(s(1));
        rate.set_ceiling(10.0);
        assert_eq!(rate.value(s(1)), 5.0);
    }

    proptest! {
        #[test]
        fn the_value_stays_between_floor_and_ceiling(
            ceiling in 0.1_f64..10_000.0,
            turns in prop::collection::vec((0_u64..600, any::<bool>()), 1..60),
        ) {
            let mut rate = Aimd::new(AimdPolicy::default(), ceiling);
            let mut now = 0;
            for (later, complaint) in turns {
                now += later;
                let before = rate.value(s(now));
                if complaint {
                    rate.cut(s(now));
                    prop_assert!(rate.value(s(now)) <= before);
                }
                let value = rate.value(s(now));
                prop_assert!(value >= ceiling * 0.01 - 1e-9 && value <= ceiling);
            }
            prop_assert_eq!(rate.value(s(now + 2_000)), ceiling);
        }
    }
}
