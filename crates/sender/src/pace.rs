//! How fast one site may be sent to now: its limits, and what it has lately said.

use domain::{Gcra, SiteLimits};
use std::time::{Duration, Instant};

/// Failures in a row after which a pause no longer grows.
const MAX_DOUBLINGS: u32 = 6;
/// The rate of a site is never taken for lower than this, in messages a second: an estimate that is too long is not
/// corrected before the letter comes back.
const SLOWEST: f64 = 1.0;
/// Longest time for which a letter is parked because others stand before it: an estimate that turns out to be wrong
/// costs no more than this.
const LONGEST_TURN: Duration = Duration::from_secs(60);

/// Leaves alone what fails, longer each time.
pub(crate) struct Backoff {
    pause: Duration,
    until: Option<Instant>,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(pause: Duration) -> Self {
        Self { pause, until: None, failures: 0 }
    }

    /// How long it is still to be left alone.
    pub(crate) fn paused(&self, now: Instant) -> Option<Duration> {
        self.until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        // What was under way together fails together, and counts once.
        if self.paused(now).is_none() {
            let pause = self.pause * 2_u32.pow(self.failures.min(MAX_DOUBLINGS));
            self.failures = self.failures.saturating_add(1);
            self.until = Some(now + pause);
        }
    }

    /// It is left alone for so long, whatever happened before.
    pub(crate) fn stop(&mut self, pause: Duration, now: Instant) {
        self.until = Some(now + pause);
    }

    pub(crate) fn answered(&mut self, now: Instant) {
        if self.paused(now).is_none() {
            self.failures = 0;
        }
    }
}

/// The pace of one site, kept by the owner of its shard alone, which is what makes its limits exact.
pub(crate) struct Pace {
    origin: Instant,
    /// Asked before the claim: how many may be on their way.
    messages: Option<Gcra>,
    /// Asked again at the start: what was claimed ahead and got stuck must not start in one burst.
    starts: Option<Gcra>,
    connections: Option<Gcra>,
    backoff: Backoff,
    /// Messages a second that the limits allow; for the estimate of a parked letter's due time.
    ceiling: f64,
}

impl Pace {
    /// Begins with the burst spent: the owner before may have used it up this very moment.
    pub(crate) fn new(limits: &SiteLimits, pause: Duration, now: Instant) -> Self {
        let burst = u32::from(limits.burst.get());
        Self {
            origin: now,
            messages: limits.rate.map(|rate| Gcra::spent_at(rate, burst, Duration::ZERO)),
            starts: limits.rate.map(|rate| Gcra::spent_at(rate, burst, Duration::ZERO)),
            connections: limits.connection_rate.map(|rate| Gcra::new(rate, u32::from(limits.max_connections.get()))),
            backoff: Backoff::new(pause),
            ceiling: limits.rate.map_or(f64::INFINITY, |rate| rate.per_second()),
        }
    }

    /// When a claimed message may start: now, but for what got stuck behind others.
    pub(crate) fn start(&mut self, now: Instant) -> Instant {
        let Some(gcra) = &mut self.starts else { return now };
        let at = now.saturating_duration_since(self.origin);
        gcra.reserve(at, Duration::MAX / 4).map_or(now, |start| self.origin + start)
    }

    /// Takes a permit for one message that may start within `ahead`; `None` when there is none.
    pub(crate) fn permit(&mut self, now: Instant, ahead: Duration) -> Option<Instant> {
        let Some(gcra) = &mut self.messages else { return Some(now) };
        let at = now.saturating_duration_since(self.origin);
        gcra.reserve(at, at + ahead).map(|start| self.origin + start)
    }

    /// Takes a permit for a new connection that may be opened within `ahead`; `None` when there is none.
    pub(crate) fn connection_permit(&mut self, now: Instant, ahead: Duration) -> Option<Instant> {
        let Some(gcra) = &mut self.connections else { return Some(now) };
        let at = now.saturating_duration_since(self.origin);
        gcra.reserve(at, at + ahead).map(|start| self.origin + start)
    }

    /// How long the site is still to be left alone.
    pub(crate) fn paused(&self, now: Instant) -> Option<Duration> {
        self.backoff.paused(now)
    }

    /// The site failed or asked to slow down: it is left alone, longer each time.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.backoff.failed(now);
    }

    /// The site took or refused a message in good order.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.backoff.answered(now);
    }

    /// When the `position`-th letter that cannot be held will have its turn, as far as one can tell: its connections
    /// get rid of `able` messages a second.
    pub(crate) fn turn(&self, position: usize, able: f64, now: Instant) -> Duration {
        let pause = self.paused(now).unwrap_or(Duration::ZERO);
        let rate = able.min(self.ceiling).max(SLOWEST);
        let wait = Duration::from_secs_f64((position as f64 / rate).min(LONGEST_TURN.as_secs_f64()));
        (pause + wait).max(self.backoff.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Shaping, SiteId};

    fn limits() -> SiteLimits {
        Shaping::default().limits_for(&SiteId::of_domain("receiver.test"))
    }

    #[test]
    fn failures_that_come_together_count_once_and_later_ones_pause_longer() {
        let start = Instant::now();
        let mut pace = Pace::new(&limits(), Duration::from_secs(1), start);
        pace.failed(start);
        pace.failed(start);
        assert_eq!(pace.paused(start), Some(Duration::from_secs(1)));
        let later = start + Duration::from_secs(2);
        assert_eq!(pace.paused(later), None);
        pace.failed(later);
        assert_eq!(pace.paused(later), Some(Duration::from_secs(2)));
        let after = later + Duration::from_secs(3);
        pace.answered(after);
        pace.failed(after);
        assert_eq!(pace.paused(after), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_connection_that_would_have_to_wait_too_long_takes_no_permit() {
        let start = Instant::now();
        let mut pace = Pace::new(&limits(), Duration::from_secs(1), start);
        pace.connections = Some(Gcra::new("1/min".parse().expect("a rate"), 1));
        assert_eq!(pace.connection_permit(start, Duration::from_secs(5)), Some(start));
        for _ in 0..100 {
            assert_eq!(pace.connection_permit(start, Duration::from_secs(5)), None);
        }
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.connection_permit(later, Duration::from_secs(5)), Some(later));
    }

    #[test]
    fn a_parked_letter_comes_back_at_the_pace_of_its_site() {
        let start = Instant::now();
        let pace = Pace::new(&limits(), Duration::from_secs(1), start);
        assert_eq!(pace.turn(0, 10.0, start), Duration::from_secs(1));
        assert_eq!(pace.turn(50, 10.0, start), Duration::from_secs(5));
        // Its limit of 100 a second holds, however fast the connections are.
        assert_eq!(pace.turn(500, 10_000.0, start), Duration::from_secs(5));
        assert_eq!(pace.turn(1_000_000, 0.001, start), LONGEST_TURN);
    }

    #[test]
    fn what_got_stuck_does_not_start_in_a_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(&limits(), Duration::from_secs(1), start);
        let late = start + Duration::from_secs(5);
        let starts: Vec<Instant> = (0..200).map(|_| pace.start(late)).collect();
        let within = starts.iter().take_while(|at| **at < late + Duration::from_secs(1)).count();
        assert!(within <= 110, "{within} in a second");
    }

    #[test]
    fn a_new_owner_never_sends_more_than_the_rate_in_any_second() {
        let start = Instant::now();
        let mut pace = Pace::new(&limits(), Duration::from_secs(1), start);
        let mut starts = Vec::new();
        for tick in 0..200 {
            let now = start + Duration::from_millis(10 * tick);
            while let Some(at) = pace.permit(now, Duration::from_millis(500)) {
                starts.push(at);
            }
        }
        for (index, first) in starts.iter().enumerate() {
            let within = starts[index..].iter().take_while(|at| **at < *first + Duration::from_secs(1)).count();
            assert!(within <= 110, "{within} in a second");
        }
        assert!(starts.len() > 190);
    }
}
