//! How fast one route may send to one site now: below its limits, by what the site has said.
//!
//! Limits are the ceiling. Reactions lower the rate, the connections or the messages of a connection, or suspend the
//! site; a rate climbs back in steps, everything else ends at its time. Times are monotonic, since any fixed moment.

use crate::{
    Aimd, AimdPolicy, SiteLimits,
    reactions::{Action, Limit},
};
use std::{num::NonZeroU16, time::Duration};

/// The ceiling of a site without a limit is what was used, but no less than this, in messages a second: a site that got
/// next to nothing was not sent to too fast.
const LEAST_CEILING: f64 = 100.0;

/// The pace of one route at one site.
#[derive(Clone, Debug)]
pub struct Tempo {
    limits: SiteLimits,
    policy: AimdPolicy,
    /// `None`: never lowered, and without a limit.
    rate: Option<Aimd>,
    connections: Option<Held>,
    messages_per_connection: Option<Held>,
    suspended: Option<Duration>,
    shown: Levels,
}

/// A lower limit, and until when.
#[derive(Clone, Copy, Debug)]
struct Held {
    value: NonZeroU16,
    until: Duration,
}

/// What holds at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// Messages a second; `None`: as fast as the connections go.
    pub rate: Option<f64>,
    /// Connections at once.
    pub connections: NonZeroU16,
    /// Messages of a connection.
    pub messages_per_connection: NonZeroU16,
    /// Nothing is sent.
    pub suspended: bool,
}

/// Something changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// What held before.
    pub before: Levels,
    /// What holds now.
    pub after: Levels,
    /// When it will change by itself at the earliest, from now; `None`: all is as configured.
    pub next_in: Option<Duration>,
}

/// What the next owner of a site must know: every time is counted from now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TempoState {
    /// Messages a second, when it is lowered, and how long until it begins to climb: part of a step that it has behind it
    /// is lost.
    pub rate: Option<(f64, Duration)>,
    /// Connections at once, and for how long.
    pub connections: Option<(NonZeroU16, Duration)>,
    /// Messages of a connection, and for how long.
    pub messages_per_connection: Option<(NonZeroU16, Duration)>,
    /// For how long nothing is sent.
    pub suspended: Option<Duration>,
}

impl Tempo {
    /// Begins at the limits.
    pub fn new(limits: SiteLimits, policy: AimdPolicy) -> Self {
        let shown = Levels {
            rate: limits.rate.map(|rate| rate.per_second()),
            connections: limits.max_connections,
            messages_per_connection: limits.messages_per_connection,
            suspended: false,
        };
        let rate = shown.rate.map(|ceiling| Aimd::new(policy, ceiling));
        Self { limits, policy, rate, connections: None, messages_per_connection: None, suspended: None, shown }
    }

    /// Goes on from what an owner before has left.
    pub fn resume(&mut self, state: TempoState, now: Duration) {
        if let Some((value, climbs_in)) = state.rate {
            self.rate_or(value).hold(value, now + climbs_in, now);
        }
        let hold = |held: Option<(NonZeroU16, Duration)>| held.map(|(value, left)| Held { value, until: now + left });
        self.connections = hold(state.connections);
        self.messages_per_connection = hold(state.messages_per_connection);
        self.suspended = state.suspended.map(|left| now + left);
        self.shown = self.levels(now);
    }

    /// Does what a reaction says, `used` being the messages a second that went lately. `Some` when that changed
    /// something.
    pub fn react(&mut self, action: Action, lasts: Duration, used: f64, now: Duration) -> Option<Change> {
        let until = now + lasts;
        match action {
            Action::Ignore | Action::Fewer => {}
            Action::Cut(part) => {
                self.rate_or(used).cut_from(used, part, now);
            }
            Action::Suspend => self.suspended = Some(self.suspended.map_or(until, |other| other.max(until))),
            Action::Limit(Limit { rate, connections, messages_per_connection }) => {
                if let Some(rate) = rate {
                    self.rate_or(used).hold(rate.per_second(), until, now);
                }
                lower(&mut self.connections, connections, until, now);
                lower(&mut self.messages_per_connection, messages_per_connection, until, now);
            }
        }
        self.changed(now)
    }

    /// What has changed since it was last asked: also what has ended or climbed by itself.
    pub fn changed(&mut self, now: Duration) -> Option<Change> {
        let after = self.levels(now);
        if after == self.shown {
            return None;
        }
        let before = std::mem::replace(&mut self.shown, after);
        Some(Change { before, after, next_in: self.next_in(now) })
    }

    /// Takes everything back that lowers it.
    pub fn lift(&mut self, now: Duration) -> Option<Change> {
        let shown = self.shown;
        *self = Self::new(self.limits, self.policy);
        self.shown = shown;
        self.changed(now)
    }

    /// What holds now.
    pub fn levels(&mut self, now: Duration) -> Levels {
        let held = |held: Option<Held>, limit: NonZeroU16| {
            held.filter(|held| held.until > now).map_or(limit, |held| held.value.min(limit))
        };
        // One without a limit of its own has none again once it is back where it was.
        let is_limited = self.limits.rate.is_some();
        Levels {
            rate: self.rate.as_mut().and_then(|rate| (rate.is_lowered(now) || is_limited).then(|| rate.value(now))),
            connections: held(self.connections, self.limits.max_connections),
            messages_per_connection: held(self.messages_per_connection, self.limits.messages_per_connection),
            suspended: self.suspended(now).is_some(),
        }
    }

    /// For how long nothing is to be sent.
    pub fn suspended(&self, now: Duration) -> Option<Duration> {
        self.suspended.and_then(|until| until.checked_sub(now)).filter(|left| !left.is_zero())
    }

    /// Whether anything is below its limit.
    pub fn is_lowered(&mut self, now: Duration) -> bool {
        let is_held = |held: Option<Held>| held.is_some_and(|held| held.until > now);
        self.suspended(now).is_some()
            || is_held(self.connections)
            || is_held(self.messages_per_connection)
            || self.rate.as_mut().is_some_and(|rate| rate.is_lowered(now))
    }

    /// What the next owner must know; `None` when all is as configured.
    pub fn state(&mut self, now: Duration) -> Option<TempoState> {
        if !self.is_lowered(now) {
            return None;
        }
        let held = |held: Option<Held>| {
            held.and_then(|held| Some((held.value, held.until.checked_sub(now)?))).filter(|(_, left)| !left.is_zero())
        };
        let rate = self.rate.as_mut();
        let rate = rate.and_then(|rate| rate.is_lowered(now).then(|| (rate.value(now), rate.climbs_in(now))));
        Some(TempoState {
            rate,
            connections: held(self.connections),
            messages_per_connection: held(self.messages_per_connection),
            suspended: self.suspended(now),
        })
    }

    /// When something will change by itself.
    fn next_in(&mut self, now: Duration) -> Option<Duration> {
        let state = self.state(now)?;
        let step = state.rate.map(|(_, held)| held + self.policy.step_every);
        let held = state.connections.into_iter().chain(state.messages_per_connection).map(|(_, left)| left);
        held.chain(step).chain(state.suspended).min()
    }

    /// The rate; where there is no limit, what is used is the ceiling.
    fn rate_or(&mut self, used: f64) -> &mut Aimd {
        let ceiling = used.max(LEAST_CEILING);
        self.rate.get_or_insert_with(|| Aimd::new(self.policy, ceiling))
    }
}

/// Lowers a limit until a time; the lower and the later of two wins.
fn lower(held: &mut Option<Held>, value: Option<NonZeroU16>, until: Duration, now: Duration) {
    let Some(value) = value else { return };
    let other = held.filter(|held| held.until > now).unwrap_or(Held { value, until });
    *held = Some(Held { value: value.min(other.value), until: until.max(other.until) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rate, Shaping, SiteId};
    use proptest::prelude::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn count(value: u16) -> NonZeroU16 {
        NonZeroU16::new(value).unwrap()
    }

    fn tempo() -> Tempo {
        Tempo::new(Shaping::default().limits_for(&SiteId::of_domain("receiver.test")), AimdPolicy::default())
    }

    fn slow() -> Action {
        Action::Limit(Limit { rate: "6/min".parse().ok(), connections: NonZeroU16::new(1), ..Limit::default() })
    }

    #[test]
    fn a_limit_holds_for_its_time_then_connections_are_back_and_the_rate_climbs() {
        let mut tempo = tempo();
        let change = tempo.react(slow(), s(1_800), 50.0, s(0)).unwrap();
        assert_eq!((change.after.rate, change.after.connections), (Some(0.1), count(1)));
        assert_eq!((change.before.rate, change.before.connections), (Some(100.0), count(10)));
        assert_eq!(change.next_in, Some(s(1_800)));
        assert_eq!(tempo.changed(s(1_799)), None);
        let ended = tempo.changed(s(1_800)).unwrap();
        assert_eq!((ended.after.rate, ended.after.connections), (Some(0.1), count(10)));
        assert_eq!(tempo.changed(s(1_920)).unwrap().after.rate, Some(0.2));
        assert_eq!(tempo.levels(s(20_000)).rate, Some(100.0));
        assert!(!tempo.is_lowered(s(20_000)));
        assert_eq!(tempo.state(s(20_000)), None);
    }

    #[test]
    fn a_suspension_ends_by_itself_or_is_lifted() {
        let mut tempo = tempo();
        assert!(tempo.react(Action::Suspend, s(3_600), 1.0, s(0)).unwrap().after.suspended);
        assert_eq!(tempo.react(Action::Suspend, s(60), 1.0, s(1)), None, "a shorter one changes nothing");
        assert_eq!(tempo.suspended(s(600)), Some(s(3_000)));
        let mut lifted = tempo.clone();
        assert!(!lifted.lift(s(600)).unwrap().after.suspended);
        assert_eq!(lifted.suspended(s(600)), None);
        assert!(!tempo.changed(s(3_600)).unwrap().after.suspended);
    }

    #[test]
    fn a_site_without_a_limit_gets_one_from_what_was_used_and_loses_it_again() {
        let mut shaping = Shaping::default().limits_for(&SiteId::of_domain("receiver.test"));
        shaping.rate = None;
        let mut tempo = Tempo::new(shaping, AimdPolicy::default());
        assert_eq!(tempo.levels(s(0)).rate, None);
        assert_eq!(tempo.react(Action::Cut(0.5), s(0), 40.0, s(0)).unwrap().after.rate, Some(20.0));
        assert_eq!(tempo.levels(s(10_000)).rate, None);
    }

    proptest! {
        #[test]
        fn a_new_owner_goes_on_where_the_one_before_stood_and_no_faster(
            turns in prop::collection::vec((0_u64..3_000, 0..4_u8, 0.0_f64..200.0), 1..20),
            later in 0_u64..5_000,
        ) {
            let mut first = tempo();
            let mut now = 0;
            for (after, what, used) in turns {
                now += after;
                let action = match what {
                    0 => Action::Cut(0.5),
                    1 => slow(),
                    2 => Action::Suspend,
                    _ => Action::Limit(Limit { messages_per_connection: NonZeroU16::new(2), ..Limit::default() }),
                };
                let lasts = if what == 0 { 0 } else { 900 };
                first.react(action, s(lasts), used, s(now));
                let levels = first.levels(s(now));
                prop_assert!(levels.rate.unwrap() <= 100.0 && levels.rate.unwrap() > 0.0);
            }
            let mut second = tempo();
            // Another process: another origin of its clock.
            if let Some(state) = first.state(s(now)) {
                second.resume(state, s(7));
            }
            let (one, other) = (first.levels(s(now + later)), second.levels(s(7 + later)));
            prop_assert_eq!((one.connections, one.messages_per_connection, one.suspended),
                            (other.connections, other.messages_per_connection, other.suspended));
            // Part of a step that the first had behind it is lost.
            let step = second.levels(s(7 + later + 120)).rate.unwrap();
            prop_assert!(other.rate <= one.rate && one.rate.unwrap() <= step, "{one:?} {other:?} {step}");
        }
    }

    #[test]
    fn rates_are_as_written() {
        let rate: Rate = "6/min".parse().unwrap();
        assert_eq!(rate.per_second(), 0.1);
    }
}
