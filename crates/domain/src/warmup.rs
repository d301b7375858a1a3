//! Warming up: how much a new route may send in a day, and whether it may send more the next day.
//!
//! A ladder of daily caps is climbed a rung a day while receivers are content, held while they are not sure, and
//! climbed down while they complain. The arithmetic is here; the ledger is in Postgres, so that all senders together
//! keep to it.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// Most rungs of a ladder.
pub const MAX_RUNGS: usize = 90;
/// Longest forecast, in days.
pub const LONGEST_FORECAST: u32 = 3_650;
/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Messages a day, rung by rung; never falling. Above the last rung there is no cap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u32>", into = "Vec<u32>")]
pub struct Ladder(Vec<u32>);

/// Why a list of caps is no ladder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LadderError {
    /// There is nothing to climb.
    #[error("has no rung; give daily caps such as 50,100,500")]
    Empty,
    /// There is too much.
    #[error("has more than {MAX_RUNGS} rungs")]
    TooLong,
    /// A rung lies below the one before, or lets nothing through.
    #[error("has the cap {cap} after {before}; caps are above 0 and never fall")]
    Falls {
        /// The rung.
        cap: u32,
        /// The one before.
        before: u32,
    },
    /// It is no list of numbers.
    #[error("is no list of whole numbers such as 50,100,500")]
    Form,
}

impl Ladder {
    /// The caps, rung by rung.
    pub fn caps(&self) -> &[u32] {
        &self.0
    }

    /// The cap of a rung, from 0; `None` above the last.
    pub fn cap(&self, rung: u16) -> Option<u32> {
        self.0.get(usize::from(rung)).copied()
    }
}

/// 50 on the first day, then about twice as many each day up to 1,000,000: what postmasters and senders advise for a new
/// address.
impl Default for Ladder {
    fn default() -> Self {
        Self(vec![
            50, 100, 250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000, 120_000, 250_000, 500_000, 1_000_000,
        ])
    }
}

impl TryFrom<Vec<u32>> for Ladder {
    type Error = LadderError;

    fn try_from(caps: Vec<u32>) -> Result<Self, LadderError> {
        if caps.is_empty() {
            return Err(LadderError::Empty);
        }
        if caps.len() > MAX_RUNGS {
            return Err(LadderError::TooLong);
        }
        let mut before = 1;
        for cap in &caps {
            if *cap < before {
                return Err(LadderError::Falls { cap: *cap, before });
            }
            before = *cap;
        }
        Ok(Self(caps))
    }
}

impl From<Ladder> for Vec<u32> {
    fn from(ladder: Ladder) -> Self {
        ladder.0
    }
}

impl FromStr for Ladder {
    type Err = LadderError;

    fn from_str(text: &str) -> Result<Self, LadderError> {
        let caps: Result<Vec<u32>, _> = text.split(',').map(|cap| cap.trim().replace('_', "").parse()).collect();
        caps.map_err(|_| LadderError::Form)?.try_into()
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let caps: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&caps.join(","))
    }
}

/// What becomes of mail above the cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// It takes another route of its pool, and waits where there is none.
    #[default]
    Routes,
    /// It waits until the cap lets it go.
    Wait,
}

impl Overflow {
    /// The word for Postgres and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routes => "routes",
            Self::Wait => "wait",
        }
    }
}

/// A word that is no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be routes or wait")]
pub struct OverflowError;

impl FromStr for Overflow {
    type Err = OverflowError;

    fn from_str(text: &str) -> Result<Self, OverflowError> {
        [Self::Routes, Self::Wait].into_iter().find(|one| one.as_str() == text).ok_or(OverflowError)
    }
}

/// What a day has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Day {
    /// The cap that held.
    pub cap: u32,
    /// Messages that the ledger let go.
    pub taken: u32,
    /// Messages that were delivered.
    pub delivered: u64,
    /// Attempts that were put off.
    pub deferred: u64,
    /// Messages that were refused for good.
    pub bounced: u64,
    /// Complaints.
    pub complained: u64,
    /// Times that a site had the route suspended.
    pub suspended: u64,
}

/// From which shares on a rung is held, and left for the one below: parts of what was attempted, complaints of what was
/// delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Deferrals. Hold from 5 %, back from 20 %.
    pub deferred: (f64, f64),
    /// Bounces. Hold from 3 %, back from 8 %.
    pub bounced: (f64, f64),
    /// Complaints. Hold from 0.1 %, back from 0.3 %: what Google and Yahoo ask for.
    pub complained: (f64, f64),
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { deferred: (0.05, 0.2), bounced: (0.03, 0.08), complained: (0.001, 0.003) }
    }
}

/// What the next day does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A rung up.
    Up,
    /// The same rung.
    Stay,
    /// A rung down.
    Down,
}

impl Step {
    /// The word for Postgres and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Stay => "stay",
            Self::Down => "down",
        }
    }

    /// The rung after it.
    pub const fn from(self, rung: u16) -> u16 {
        match self {
            Self::Up => rung.saturating_add(1),
            Self::Stay => rung,
            Self::Down => rung.saturating_sub(1),
        }
    }
}

/// What the day after `day` does, and why.
pub fn decide(day: &Day, limits: &Thresholds) -> (Step, String) {
    // Few mails say little: shares of fewer are taken as of so many.
    const FEWEST: u64 = 20;
    let attempts = (day.delivered + day.deferred + day.bounced).max(FEWEST) as f64;
    let shares = [
        ("deferred", day.deferred as f64 / attempts, limits.deferred),
        ("bounced", day.bounced as f64 / attempts, limits.bounced),
        ("complained of", day.complained as f64 / day.delivered.max(FEWEST) as f64, limits.complained),
    ];
    let told = |what: &str, share: f64| format!("{:.1} % were {what}", share * 100.0);
    if day.suspended > 0 {
        return (Step::Down, "a receiver suspended the route".to_owned());
    }
    if let Some((what, share, _)) = shares.iter().find(|(_, share, (_, back))| share >= back) {
        return (Step::Down, told(what, *share));
    }
    if let Some((what, share, _)) = shares.iter().find(|(_, share, (hold, _))| share >= hold) {
        return (Step::Stay, told(what, *share));
    }
    if u64::from(day.taken) * 2 < u64::from(day.cap) {
        return (Step::Stay, format!("only {} of {} were sent", day.taken, day.cap));
    }
    (Step::Up, "receivers were content".to_owned())
}

/// In how many days `messages` are sent from `rung` on, with `left` of today's cap, if every day is a good one. The last
/// day counts as a whole one.
pub fn forecast(ladder: &Ladder, rung: u16, left: u32, messages: u64) -> u32 {
    let mut days = 1;
    let mut rest = messages.saturating_sub(u64::from(left));
    let mut rung = rung;
    while rest > 0 && days < LONGEST_FORECAST {
        rung = rung.saturating_add(1);
        days += 1;
        match ladder.cap(rung) {
            Some(cap) => rest = rest.saturating_sub(u64::from(cap)),
            None => rest = 0,
        }
    }
    days
}

/// Messages that may go at once: a minute's worth, at least one.
pub fn burst(cap: u32, spread: Duration) -> u32 {
    let minute = f64::from(cap) * 60.0 / spread.as_secs_f64().max(60.0);
    (minute as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn good() -> Day {
        Day { cap: 1_000, taken: 900, delivered: 890, deferred: 8, bounced: 2, ..Day::default() }
    }

    #[test]
    fn a_good_day_goes_up_and_a_bad_one_does_not() {
        let limits = Thresholds::default();
        for (day, step, why) in [
            (good(), Step::Up, "content"),
            (Day { taken: 300, ..good() }, Step::Stay, "only 300 of 1000"),
            (Day { deferred: 60, ..good() }, Step::Stay, "% were deferred"),
            (Day { deferred: 300, ..good() }, Step::Down, "% were deferred"),
            (Day { bounced: 40, ..good() }, Step::Stay, "% were bounced"),
            (Day { bounced: 120, ..good() }, Step::Down, "% were bounced"),
            (Day { complained: 1, ..good() }, Step::Stay, "0.1 % were complained of"),
            (Day { complained: 4, ..good() }, Step::Down, "complained of"),
            (Day { suspended: 1, ..good() }, Step::Down, "suspended the route"),
            // One of five that bounces says little yet.
            (Day { cap: 5, taken: 5, delivered: 5, ..Day::default() }, Step::Up, "content"),
        ] {
            let (found, told) = decide(&day, &limits);
            assert_eq!(found, step, "{day:?}: {told}");
            assert!(told.contains(why), "{told}");
        }
        assert_eq!((Step::Down.from(0), Step::Up.from(3)), (0, 4));
    }

    #[test]
    fn a_forecast_climbs_the_ladder() {
        let ladder: Ladder = "50,100,200".parse().unwrap();
        assert_eq!(forecast(&ladder, 0, 50, 50), 1);
        assert_eq!(forecast(&ladder, 0, 50, 51), 2);
        assert_eq!(forecast(&ladder, 0, 10, 111), 3);
        // Above the last rung nothing limits it.
        assert_eq!(forecast(&ladder, 0, 50, 10_000_000), 4);
        assert_eq!(forecast(&ladder, 3, 0, 1), 2);
    }

    #[test]
    fn what_does_not_rise_is_no_ladder() {
        assert_eq!("".parse::<Ladder>(), Err(LadderError::Form));
        assert_eq!("50,x".parse::<Ladder>(), Err(LadderError::Form));
        assert_eq!("0".parse::<Ladder>(), Err(LadderError::Falls { cap: 0, before: 1 }));
        assert_eq!("50,40".parse::<Ladder>(), Err(LadderError::Falls { cap: 40, before: 50 }));
        assert_eq!(Ladder::try_from(vec![1; 91]), Err(LadderError::TooLong));
        assert_eq!("50, 1_000".parse::<Ladder>().unwrap().caps(), [50, 1_000]);
        assert_eq!(Ladder::default().to_string().parse(), Ok(Ladder::default()));
    }

    #[test]
    fn what_may_go_at_once_is_a_minutes_worth() {
        assert_eq!(burst(50, DAY), 1);
        assert_eq!(burst(1_440_000, DAY), 1_000);
        assert_eq!(burst(1_000, Duration::from_secs(3_600)), 16);
    }

    proptest! {
        #[test]
        fn a_worse_day_never_climbs_higher(
            taken in 0_u32..2_000, delivered in 0_u64..2_000, deferred in 0_u64..2_000, bounced in 0_u64..2_000,
            complained in 0_u64..20, more in 1_u64..500,
        ) {
            let day = Day { cap: 1_000, taken, delivered, deferred, bounced, complained, suspended: 0 };
            let height = |day: &Day| match decide(day, &Thresholds::default()).0 {
                Step::Up => 2,
                Step::Stay => 1,
                Step::Down => 0,
            };
            let before = height(&day);
            let worse = [Day { complained: complained + more, ..day }, Day { suspended: more, ..day }];
            prop_assert!(worse.iter().all(|worse| height(worse) <= before));
        }
    }
}
