//! How fast one site may be sent to now: its limits, and what it has lately said.

use domain::{
    AimdPolicy, Gcra, Rate, SiteLimits, Tempo,
    reactions::Action,
    tempo::{Change, Levels, TempoState},
};
use std::time::{Duration, Instant};

/// Failures in a row after which a pause no longer grows.
const MAX_DOUBLINGS: u32 = 6;
/// The rate of a site is never taken for lower than this, in messages a second: an estimate that is too long is not
/// corrected before the letter comes back.
const SLOWEST: f64 = 1.0;
/// Longest time for which a letter is parked because others stand before it: an estimate that turns out to be wrong
/// costs no more than this.
const LONGEST_TURN: Duration = Duration::from_secs(60);
/// The same where the site is sent to more slowly than configured: the rate is known.
const LONGEST_SLOW_TURN: Duration = Duration::from_secs(900);
/// Over how long the rate in use is measured.
const MEASURED: Duration = Duration::from_secs(10);

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
    limits: SiteLimits,
    tempo: Tempo,
    /// What holds now, and whether that is less than the limits.
    levels: Levels,
    is_slowed: bool,
    /// Messages started in this stretch of [`MEASURED`] and in the one before, and when this one began.
    started: (u32, u32, Duration),
}

impl Pace {
    /// Begins with the burst spent: the owner before may have used it up this very moment.
    pub(crate) fn new(
        limits: &SiteLimits,
        adapt: AimdPolicy,
        left: Option<TempoState>,
        pause: Duration,
        now: Instant,
    ) -> Self {
        let burst = u32::from(limits.burst.get());
        let mut tempo = Tempo::new(*limits, adapt);
        let mut pace = Self {
            origin: now,
            messages: limits.rate.map(|rate| Gcra::spent_at(rate, burst, Duration::ZERO)),
            starts: limits.rate.map(|rate| Gcra::spent_at(rate, burst, Duration::ZERO)),
            connections: limits.connection_rate.map(|rate| Gcra::new(rate, u32::from(limits.max_connections.get()))),
            backoff: Backoff::new(pause),
            limits: *limits,
            levels: tempo.levels(Duration::ZERO),
            tempo,
            is_slowed: false,
            started: (0, 0, Duration::ZERO),
        };
        if let Some(left) = left {
            pace.tempo.resume(left, Duration::ZERO);
            pace.set_levels(Duration::ZERO);
        }
        pace
    }

    fn at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.origin)
    }

    /// Does what a reaction says; `Some` when that changed something.
    pub(crate) fn react(&mut self, action: Action, lasts: Duration, now: Instant) -> Option<Change> {
        let at = self.at(now);
        let used = self.used(at);
        let change = self.tempo.react(action, lasts, used, at)?;
        self.set_levels(at);
        Some(change)
    }

    /// What has come back by itself.
    pub(crate) fn recovered(&mut self, now: Instant) -> Option<Change> {
        if !self.is_slowed {
            return None;
        }
        let at = self.at(now);
        let change = self.tempo.changed(at)?;
        self.set_levels(at);
        Some(change)
    }

    /// Whether the site is sent to more slowly than is configured.
    pub(crate) const fn is_slowed(&self) -> bool {
        self.is_slowed
    }

    /// Takes everything back that lowers it below its limits.
    pub(crate) fn lift(&mut self, now: Instant) -> Option<Change> {
        let at = self.at(now);
        let change = self.tempo.lift(at)?;
        self.set_levels(at);
        Some(change)
    }

    /// What holds now.
    pub(crate) const fn levels(&self) -> Levels {
        self.levels
    }

    /// What the next owner must know; `None` when all is as configured.
    pub(crate) fn state(&mut self, now: Instant) -> Option<TempoState> {
        let at = self.at(now);
        self.tempo.state(at)
    }

    fn set_levels(&mut self, at: Duration) {
        self.levels = self.tempo.levels(at);
        self.is_slowed = self.tempo.is_lowered(at);
        let Some(rate) = self.levels.rate else {
            self.messages = None;
            self.starts = None;
            return;
        };
        // A burst is what a second brings, and no more than is configured.
        let burst = if Some(rate) == self.limits.rate.map(|rate| rate.per_second()) {
            u32::from(self.limits.burst.get())
        } else {
            (rate as u32).clamp(1, u32::from(self.limits.burst.get()))
        };
        let rate = Rate::from_per_second(rate);
        for gcra in [&mut self.messages, &mut self.starts] {
            gcra.get_or_insert_with(|| Gcra::spent_at(rate, burst, at)).set_rate(rate, burst, at);
        }
    }

    /// Messages a second that were started lately.
    fn used(&mut self, at: Duration) -> f64 {
        self.measure(at, 0);
        let (now, before, since) = self.started;
        let over = at.saturating_sub(since).as_secs_f64();
        let whole = MEASURED.as_secs_f64();
        // The stretch before counts for the part that this one has not reached yet.
        (f64::from(now) + f64::from(before) * (1.0 - over / whole)) / whole
    }

    fn measure(&mut self, at: Duration, more: u32) {
        let (now, _, since) = self.started;
        let passed = at.saturating_sub(since);
        if passed >= MEASURED * 2 {
            self.started = (0, 0, at);
        } else if passed >= MEASURED {
            self.started = (0, now, since + MEASURED);
        }
        self.started.0 = self.started.0.saturating_add(more);
    }

    /// When a claimed message may start: now, but for what got stuck behind others.
    pub(crate) fn start(&mut self, now: Instant) -> Instant {
        let at = self.at(now);
        self.measure(at, 1);
        let Some(gcra) = &mut self.starts else { return now };
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
        self.backoff.paused(now).max(self.tempo.suspended(self.at(now)))
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
        let ceiling = self.limits.rate.map_or(f64::INFINITY, |rate| rate.per_second());
        let slowed = self.levels.rate.filter(|rate| *rate < ceiling);
        let (rate, longest) = match slowed {
            Some(rate) => (able.min(rate), LONGEST_SLOW_TURN),
            None => (able.min(ceiling).max(SLOWEST), LONGEST_TURN),
        };
        let wait = Duration::from_secs_f64((position as f64 / rate).min(longest.as_secs_f64()));
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
        let mut pace = Pace::new(&limits(), AimdPolicy::default(), None, Duration::from_secs(1), start);
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
        let mut pace = Pace::new(&limits(), AimdPolicy::default(), None, Duration::from_secs(1), start);
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
        let pace = Pace::new(&limits(), AimdPolicy::default(), None, Duration::from_secs(1), start);
        assert_eq!(pace.turn(0, 10.0, start), Duration::from_secs(1));
        assert_eq!(pace.turn(50, 10.0, start), Duration::from_secs(5));
        // Its limit of 100 a second holds, however fast the connections are.
        assert_eq!(pace.turn(500, 10_000.0, start), Duration::from_secs(5));
        assert_eq!(pace.turn(1_000_000, 0.001, start), LONGEST_TURN);
    }

    #[test]
    fn a_site_that_asks_to_slow_down_is_sent_to_at_half_of_what_it_got() {
        let start = Instant::now();
        let mut pace = Pace::new(&limits(), AimdPolicy::default(), None, Duration::from_secs(1), start);
        // 20 a second for 20 seconds.
        for index in 0..400 {
            pace.start(start + Duration::from_millis(50 * index));
        }
        let then = start + Duration::from_secs(20);
        let change = pace.react(Action::Cut(0.5), Duration::ZERO, then).expect("a change");
        let rate = change.after.rate.expect("a rate");
        assert!((9.0..=11.0).contains(&rate), "{rate}");
        assert_eq!(pace.turn(20, 100.0, then).as_secs(), 2);
        let mut starts = 0;
        for tick in 0..100 {
            let now = then + Duration::from_millis(100 * tick);
            while pace.permit(now, Duration::ZERO).is_some() {
                starts += 1;
            }
        }
        assert!((80..=120).contains(&starts), "{starts} in ten seconds");
        let state = pace.state(then).expect("lowered");
        let next = Pace::new(&limits(), AimdPolicy::default(), Some(state), Duration::from_secs(1), then);
        assert_eq!(next.levels().rate, Some(rate));
        assert!(pace.recovered(then + Duration::from_secs(121)).is_some_and(|change| change.after.rate > Some(rate)));
        assert_eq!(pace.lift(then).expect("a change").after.rate, Some(100.0));
    }

    #[test]
    fn what_got_stuck_does_not_start_in_a_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(&limits(), AimdPolicy::default(), None, Duration::from_secs(1), start);
        let late = start + Duration::from_secs(5);
        let starts: Vec<Instant> = (0..200).map(|_| pace.start(late)).collect();
        let within = starts.iter().take_while(|at| **at < late + Duration::from_secs(1)).count();
        assert!(within <= 110, "{within} in a second");
    }

    #[test]
    fn a_new_owner_never_sends_more_than_the_rate_in_any_second() {
        let start = Instant::now();
        let mut pace = Pace::new(&limits(), AimdPolicy::default(), None, Duration::from_secs(1), start);
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
