//! The rate limiter: the generic cell rate algorithm over a monotonic clock that is passed in.
//!
//! One number is its whole state: the theoretical arrival time, at which the bucket would be full again.

use serde::{Deserialize, Serialize};
use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

/// So many in so long, such as `100/s`, `60/min`, `10/30s`, `500/day`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    count: NonZeroU32,
    per: Duration,
}

/// A text that is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a rate such as 100/s, 60/min, 10/30s or 500/day, of at most 1,000,000 per second and over at most 31 days"
)]
pub struct RateError;

/// The longest time a rate may be over.
const MAX_PER: Duration = Duration::from_secs(31 * 24 * 3600);
/// The shortest time between two permits, a million per second.
const MIN_INTERVAL: Duration = Duration::from_micros(1);

impl Rate {
    /// `count` in `per`.
    ///
    /// # Errors
    /// When that is nothing at all, over 31 days, or more than a million per second.
    pub fn new(count: u32, per: Duration) -> Result<Self, RateError> {
        let count = NonZeroU32::new(count).ok_or(RateError)?;
        let fits = !per.is_zero() && per <= MAX_PER && per / count.get() >= MIN_INTERVAL;
        if fits { Ok(Self { count, per }) } else { Err(RateError) }
    }

    /// Permits per second.
    pub fn per_second(&self) -> f64 {
        f64::from(self.count.get()) / self.per.as_secs_f64()
    }

    /// The rate nearest to `per_second` that the limiter can hold, never above it: what an adaptive limit
    /// comes to. Nothing or less becomes the slowest, one in 31 days.
    pub fn from_per_second(per_second: f64) -> Self {
        let interval =
            (1.0 / per_second.max(f64::MIN_POSITIVE)).clamp(MIN_INTERVAL.as_secs_f64(), MAX_PER.as_secs_f64());
        Self { count: NonZeroU32::MIN, per: Duration::from_nanos((interval * 1e9).ceil() as u64) }
    }

    /// Time between two permits, rounded up so that the rate is never exceeded.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(nanos(self.per).div_ceil(u64::from(self.count.get())))
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (count, per) = text.split_once('/').ok_or(RateError)?;
        let count = count.trim().replace('_', "").parse().map_err(|_| RateError)?;
        let per = per.trim();
        let per = if per.starts_with(|c: char| c.is_ascii_digit()) {
            humantime::parse_duration(per)
        } else {
            humantime::parse_duration(&format!("1{per}"))
        };
        Self::new(count, per.map_err(|_| RateError)?)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per.as_nanos() {
            1_000_000_000 => "s",
            60_000_000_000 => "min",
            3_600_000_000_000 => "h",
            86_400_000_000_000 => "day",
            // Every part that humantime prints it also reads, apart from the spaces between them.
            _ => {
                return write!(
                    f,
                    "{}/{}",
                    self.count,
                    humantime::format_duration(self.per).to_string().replace(' ', "")
                );
            }
        };
        write!(f, "{}/{per}", self.count)
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        rate.to_string()
    }
}

/// A limiter of one rate with a burst.
///
/// In any window of length `w`, wherever it begins, it lets at most `burst − 1 + ⌈w ÷ interval⌉` through:
/// with a burst of 1 the rate holds exactly in every window, and each more in the burst may come on top.
/// Times are monotonic, since any fixed moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    /// Nanoseconds between two permits.
    interval: u64,
    /// How much sooner than by the plain rate a permit may come: (burst − 1) × interval.
    tolerance: u64,
    /// Theoretical arrival time of the next permit.
    arrival: u64,
}

impl Gcra {
    /// A limiter whose whole burst is there to be taken; a burst of 0 counts as 1.
    pub fn new(rate: Rate, burst: u32) -> Self {
        let interval = nanos(rate.interval());
        Self { interval, tolerance: interval.saturating_mul(u64::from(burst.max(1) - 1)), arrival: 0 }
    }

    /// The same with the burst spent: what a new owner starts with, since the one before may have used it
    /// up this very moment. Its first permit is there one interval after `now`.
    pub fn spent_at(rate: Rate, burst: u32, now: Duration) -> Self {
        let mut gcra = Self::new(rate, burst);
        gcra.arrival = nanos(now).saturating_add(gcra.tolerance).saturating_add(gcra.interval);
        gcra
    }

    /// When the next permit is there: `now`, or a later time.
    pub fn earliest(&self, now: Duration) -> Duration {
        now.max(Duration::from_nanos(self.arrival.saturating_sub(self.tolerance)))
    }

    /// Takes a permit if one is there now.
    pub fn take(&mut self, now: Duration) -> bool {
        self.reserve(now, now).is_some()
    }

    /// Takes up to `most` of the permits that are there now, and tells how many.
    pub fn take_n(&mut self, now: Duration, most: u32) -> u32 {
        let now = nanos(now);
        let start = self.arrival.max(now);
        let end = now.saturating_add(self.tolerance);
        if start > end || most == 0 {
            return 0;
        }
        let there = u32::try_from((end - start) / self.interval + 1).unwrap_or(u32::MAX).min(most);
        self.arrival = start.saturating_add(self.interval.saturating_mul(u64::from(there)));
        there
    }

    /// Takes the next permit if it is there by `latest`, and tells the time from which it holds. A permit
    /// that is then not used is lost, never saved.
    pub fn reserve(&mut self, now: Duration, latest: Duration) -> Option<Duration> {
        let at = self.earliest(now);
        if at > latest {
            return None;
        }
        // The permit counts from `at`, when it is used, not from now: otherwise reserving ahead would let
        // the bucket fill up again in the meantime.
        self.arrival = self.arrival.max(nanos(at)).saturating_add(self.interval);
        Some(at)
    }

    /// Takes another rate. What was used before stays used: permits owed stay owed, at the new rate.
    pub fn set_rate(&mut self, rate: Rate, burst: u32, now: Duration) {
        let now = nanos(now);
        let fresh = Self::new(rate, burst);
        let owed = u128::from(self.arrival.saturating_sub(now));
        let owed = (owed * u128::from(fresh.interval)).div_ceil(u128::from(self.interval));
        let arrival = now.saturating_add(u64::try_from(owed).unwrap_or(u64::MAX));
        *self = Self { arrival, ..fresh };
    }
}

/// 584 years fit.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        for text in ["100/s", "60/min", "1000/h", "5/day", "10/30s"] {
            assert_eq!(rate(text).to_string(), text);
        }
        assert_eq!(rate("100/s").interval(), ms(10));
        assert_eq!(rate("1_000/1min30s").per_second(), 1_000.0 / 90.0);
        for text in ["", "5", "0/s", "5/", "-1/s", "5/0s", "9999999/s", "5/1000days", "5/potato"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError), "{text}");
        }
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let mut gcra = Gcra::new(rate("100/s"), 3);
        assert_eq!((0..5).filter(|_| gcra.take(ms(1_000))).count(), 3);
        assert_eq!(gcra.earliest(ms(1_000)), ms(1_010));
        assert!(!gcra.take(ms(1_009)));
        assert!(gcra.take(ms(1_010)));
        assert_eq!(gcra.take_n(ms(5_000), 100), 3);
    }

    #[test]
    fn a_new_owner_starts_with_the_burst_spent() {
        let mut gcra = Gcra::spent_at(rate("100/s"), 50, ms(1_000));
        assert!(!gcra.take(ms(1_000)));
        assert_eq!(gcra.earliest(ms(1_000)), ms(1_010));
        assert!(gcra.take(ms(1_010)));
        assert!(!gcra.take(ms(1_010)));
    }

    #[test]
    fn permits_can_be_reserved_ahead() {
        let mut gcra = Gcra::new(rate("100/s"), 1);
        let starts: Vec<_> = std::iter::from_fn(|| gcra.reserve(ms(1_000), ms(1_050))).collect();
        assert_eq!(starts, [1_000, 1_010, 1_020, 1_030, 1_040, 1_050].map(ms));
        assert!(!gcra.take(ms(1_055)));
    }

    #[test]
    fn a_lowered_rate_keeps_what_is_owed() {
        let mut gcra = Gcra::new(rate("100/s"), 1);
        assert!(gcra.take(ms(1_000)));
        gcra.set_rate(rate("1/s"), 1, ms(1_000));
        assert_eq!(gcra.earliest(ms(1_000)), ms(2_000));
        gcra.set_rate(rate("100/s"), 1, ms(1_500));
        assert_eq!(gcra.earliest(ms(1_500)), ms(1_505));
    }

    fn assert_never_over(times: &[Duration], rate: Rate, burst: u32) -> Result<(), TestCaseError> {
        let interval = rate.interval().as_nanos();
        for (i, first) in times.iter().enumerate() {
            for (n, last) in times[i..].iter().enumerate() {
                // n + 1 permits lie in the half-open window [first, last + 1 ns).
                let length = (*last - *first).as_nanos() + 1;
                prop_assert!((n + 1) as u128 <= u128::from(burst) - 1 + length.div_ceil(interval));
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_window_anywhere_holds_more_than_the_limit(
            count in 1_u32..2_000,
            per in 1_u64..100_000,
            burst in 1_u32..20,
            spent in any::<bool>(),
            turns in prop::collection::vec((0_u64..3_000_000_000, 1_u32..5, 0_u64..500), 1..80),
        ) {
            let Ok(rate) = Rate::new(count, ms(per)) else { return Ok(()) };
            let mut now = Duration::ZERO;
            let mut gcra = if spent { Gcra::spent_at(rate, burst, now) } else { Gcra::new(rate, burst) };
            let mut times = Vec::new();
            for (later, wanted, ahead) in turns {
                now += Duration::from_nanos(later % (3 * rate.interval().as_nanos() as u64 + 1));
                for _ in 0..wanted {
                    times.extend(gcra.reserve(now, now + ms(ahead)));
                }
            }
            times.sort();
            assert_never_over(&times, rate, burst)?;
        }

        #[test]
        fn many_at_once_are_as_many_as_one_by_one(
            count in 1_u32..2_000, burst in 1_u32..50, later in prop::collection::vec(0_u64..2_000, 1..20), most in 0_u32..60,
        ) {
            let rate = Rate::new(count, ms(1_000)).unwrap();
            let (mut one, mut many) = (Gcra::new(rate, burst), Gcra::new(rate, burst));
            let mut now = Duration::ZERO;
            for later in later {
                now += ms(later);
                let singly = (0..most).filter(|_| one.take(now)).count();
                prop_assert_eq!(many.take_n(now, most) as usize, singly);
                prop_assert_eq!(one, many);
            }
        }

        #[test]
        fn a_rate_survives_being_written(count in 1_u32..1_000_000, per in 1_u64..1_000_000_000) {
            let Ok(rate) = Rate::new(count, ms(per)) else { return Ok(()) };
            prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
        }

        #[test]
        fn an_adaptive_rate_is_never_rounded_up(per_second in 0.0001_f64..1_000_000.0) {
            prop_assert!(Rate::from_per_second(per_second).per_second() <= per_second * 1.000_000_1);
        }
    }
}
