//! Which fault happens when, and to what: known before the run begins, and the same for the same seed.

use super::{
    dice::Dice,
    faults::{Fault, Scope, Wanted},
};
use crate::Kind;
use std::{collections::BTreeMap, fmt, time::Duration};

/// Mail flows for so long before the first fault.
const FIRST: u64 = 4_000;
/// After the last fault mail is submitted for so long, so that one sees it flow again.
pub const TAIL: Duration = Duration::from_secs(5);
/// Between the beginnings of two faults, in milliseconds: some overlap, some do not.
const GAP: (u64, u64) = (1_200, 6_000);
/// A thing that was struck is left alone for so long, in milliseconds.
const REST: u64 = 1_500;

/// Which replicas of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    /// The first.
    First,
    /// The second.
    Second,
    /// Both at once.
    Both,
}

/// What a fault is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A service.
    Service(Kind, Replicas),
    /// The way from a service to the database or to the broker.
    Way(Kind, Replicas, Neighbour),
    /// The broker.
    Nats,
    /// The database server.
    Postgres,
}

/// Whom a service talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Neighbour {
    /// The database.
    Postgres,
    /// The broker.
    Nats,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub fault: Fault,
    /// To what.
    pub target: Target,
    /// When, after the load began.
    pub at: Duration,
    /// For how long.
    pub lasts: Duration,
    /// A number for what else there is to choose: the table to lock, the step of the clock.
    pub choice: u64,
}

/// The whole plan of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What it was made from.
    pub seed: u64,
    /// How long faults are done.
    pub length: Duration,
    /// The faults, by their beginning.
    pub events: Vec<Event>,
}

impl Schedule {
    /// Makes a plan: each of the faults in turn, in an order that the seed chooses, again and again until the time
    /// is over.
    pub fn new(seed: u64, length: Duration, wanted: &[Wanted]) -> Self {
        let mut dice = Dice::new(seed, "faults");
        let limit = length.as_millis() as u64;
        let mut busy: BTreeMap<String, u64> = BTreeMap::new();
        let (mut events, mut at) = (Vec::new(), FIRST);
        let mut round: Vec<Wanted> = Vec::new();
        let mut services = Services::default();
        while !wanted.is_empty() {
            if round.is_empty() {
                round = wanted.to_vec();
                dice.shuffle(&mut round);
            }
            let Some(next) = round.pop() else { break };
            let target = target(&mut dice, &mut services, next);
            let (least, most) = next.fault.length();
            let mut lasts = dice.between(least, most);
            if next.fault == Fault::NatsStop {
                // A minute of five.
                lasts = lasts.max((limit / 5).min(60_000));
            }
            let things = things(target);
            let free = things.iter().filter_map(|thing| busy.get(thing)).max().copied().unwrap_or(0);
            let begin = at.max(free);
            if begin + lasts > limit {
                break;
            }
            for thing in things {
                busy.insert(thing, begin + lasts + REST);
            }
            events.push(Event {
                fault: next.fault,
                target,
                at: Duration::from_millis(begin),
                lasts: Duration::from_millis(lasts),
                choice: dice.between(0, 1 << 32),
            });
            at += dice.between(GAP.0, GAP.1);
        }
        events.sort_by_key(|event| event.at);
        Self { seed, length, events }
    }

    /// Whether this fault is in it.
    pub fn has(&self, fault: Fault) -> bool {
        self.events.iter().any(|event| event.fault == fault)
    }

    /// The names of its faults, each once.
    pub fn faults(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.events.iter().map(|event| event.fault).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(Fault::name).collect()
    }
}

/// Takes the services in turn, so that one fault comes to each.
#[derive(Default)]
struct Services(BTreeMap<Fault, Vec<Kind>>);

impl Services {
    fn next(&mut self, dice: &mut Dice, wanted: Wanted) -> Kind {
        if let Some(kind) = wanted.service {
            return kind;
        }
        let left = self.0.entry(wanted.fault).or_default();
        if left.is_empty() {
            *left = Kind::ALL.into();
            dice.shuffle(left);
        }
        left.pop().unwrap_or(Kind::Sender)
    }
}

fn target(dice: &mut Dice, services: &mut Services, wanted: Wanted) -> Target {
    let replicas = |dice: &mut Dice| match dice.between(0, 5) {
        0 | 1 => Replicas::First,
        2 | 3 => Replicas::Second,
        _ => Replicas::Both,
    };
    match wanted.fault.scope() {
        Scope::Nats => Target::Nats,
        Scope::Postgres => Target::Postgres,
        Scope::Service => Target::Service(services.next(dice, wanted), replicas(dice)),
        Scope::Way => {
            let neighbour = *dice.pick(&[Neighbour::Postgres, Neighbour::Nats]);
            Target::Way(services.next(dice, wanted), replicas(dice), neighbour)
        }
    }
}

/// What an event keeps from others, by name.
fn things(target: Target) -> Vec<String> {
    match target {
        Target::Nats => vec!["nats".to_owned()],
        Target::Postgres => vec!["postgres".to_owned()],
        Target::Service(kind, replicas) => members(kind, replicas),
        Target::Way(kind, replicas, neighbour) => {
            members(kind, replicas).into_iter().map(|member| format!("{member}/{neighbour:?}")).collect()
        }
    }
}

/// The names of the processes of a service.
pub fn members(kind: Kind, replicas: Replicas) -> Vec<String> {
    let letters: &[char] = match replicas {
        Replicas::First => &['a'],
        Replicas::Second => &['b'],
        Replicas::Both => &['a', 'b'],
    };
    letters.iter().map(|letter| format!("{}-{letter}", kind.name())).collect()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats => f.write_str("nats"),
            Self::Postgres => f.write_str("postgres"),
            Self::Service(kind, replicas) => f.write_str(&members(*kind, *replicas).join("+")),
            Self::Way(kind, replicas, neighbour) => {
                let neighbour = if *neighbour == Neighbour::Nats { "nats" } else { "postgres" };
                write!(f, "{} <> {neighbour}", members(*kind, *replicas).join("+"))
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_secs_f64(), self.lasts.as_secs_f64());
        write!(f, "{at:7.2} s  {lasts:5.2} s  {:<22}{}", self.fault.name(), self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_secs(180);

    fn all() -> Vec<Wanted> {
        super::super::faults::parse("all").unwrap()
    }

    #[test]
    fn a_seed_gives_the_same_plan_again_and_another_seed_another() {
        assert_eq!(Schedule::new(1, MINUTES, &all()), Schedule::new(1, MINUTES, &all()));
        assert_ne!(Schedule::new(1, MINUTES, &all()).events, Schedule::new(2, MINUTES, &all()).events);
    }

    #[test]
    fn every_fault_comes_when_there_is_time_and_none_lasts_beyond_it() {
        for seed in 0..50 {
            let plan = Schedule::new(seed, MINUTES, &all());
            assert_eq!(plan.faults().len(), Fault::ALL.len(), "{seed}");
            assert!(plan.events.iter().all(|event| event.at + event.lasts <= MINUTES), "{seed}");
        }
    }

    #[test]
    fn nothing_is_struck_twice_at_the_same_time() {
        for seed in 0..50 {
            let plan = Schedule::new(seed, MINUTES, &all());
            for (index, event) in plan.events.iter().enumerate() {
                for other in &plan.events[index + 1..] {
                    let same = things(event.target).iter().any(|thing| things(other.target).contains(thing));
                    assert!(!same || other.at >= event.at + event.lasts, "{seed}: {event} and {other}");
                }
            }
        }
    }

    #[test]
    fn a_fault_of_services_comes_to_each_of_them() {
        let plan = Schedule::new(3, MINUTES, &super::super::faults::parse("kill9").unwrap());
        for kind in Kind::ALL {
            let struck = |event: &Event| matches!(event.target, Target::Service(one, _) if one == kind);
            assert!(plan.events.iter().any(struck), "{}", kind.name());
        }
    }
}
