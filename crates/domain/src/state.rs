//! Where a message can be, and the declared ways from one place to the next.
//!
//! The table is the law: `store` names the place it leaves in every statement, the model checker and the
//! fault tests read the same table, and every history in the event log is a path of it.

use crate::fact::FactKind;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a message's life ended. Its closing fact carries it; there is exactly one per message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closing {
    /// The receiver took it (2yz to the final dot).
    Delivered,
    /// The receiver refused it for good (5yz), in the session.
    Bounced,
    /// Its time to live ended first.
    Expired,
    /// The caller cancelled it.
    Cancelled,
    /// The recipient is on the suppression list.
    Suppressed,
    /// It could not be rendered, or was lost too often on the way.
    Failed,
    /// It may or may not have been delivered, and the lane's policy is not to send again.
    Unknown,
}

impl Closing {
    /// Every ending.
    pub const ALL: [Self; 7] =
        [Self::Delivered, Self::Bounced, Self::Expired, Self::Cancelled, Self::Suppressed, Self::Failed, Self::Unknown];

    /// The code in Postgres, from 1.
    pub const fn code(self) -> i16 {
        match self {
            Self::Delivered => 1,
            Self::Bounced => 2,
            Self::Expired => 3,
            Self::Cancelled => 4,
            Self::Suppressed => 5,
            Self::Failed => 6,
            Self::Unknown => 7,
        }
    }

    /// The ending with this code.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|closing| closing.code() == code)
    }

    /// The word in figures, answers and the command.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Bounced => "bounced",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Suppressed => "suppressed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a message is. `Waiting` is the table `waiting`; the next three are states of `moving`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Not accepted yet.
    Nowhere,
    /// Rests until it is due.
    Waiting,
    /// Travels on the bus under a release number.
    Released,
    /// Claimed by the owner of its shard.
    Sending,
    /// An attempt may have delivered it; nobody knows.
    InDoubt,
    /// Its closing fact is written.
    Closed(Closing),
}

impl Place {
    /// The code of a state of `moving`: 1 released, 2 sending, 3 in doubt.
    pub const fn moving_code(self) -> Option<i16> {
        match self {
            Self::Released => Some(1),
            Self::Sending => Some(2),
            Self::InDoubt => Some(3),
            Self::Nowhere | Self::Waiting | Self::Closed(_) => None,
        }
    }

    /// The state of `moving` with this code.
    pub const fn from_moving_code(code: i16) -> Option<Self> {
        match code {
            1 => Some(Self::Released),
            2 => Some(Self::Sending),
            3 => Some(Self::InDoubt),
            _ => None,
        }
    }
}

/// Who makes a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The accepting service.
    Ingest,
    /// The holder of the dispatcher's lease.
    Dispatcher,
    /// A renderer that reports what cannot be rendered.
    Renderer,
    /// The owner of the message's shard.
    Sender,
    /// The transaction that suppresses a recipient.
    Suppression,
}

/// One declared way from a place to the next, the statement that takes it, and what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The place left.
    pub from: Place,
    /// The place reached.
    pub to: Place,
    /// Who may do it.
    pub by: Actor,
    /// The statement: `accept`, `release`, `claim`, `record`, `park`, `refuse`, `expire`, `close`, `repair`, `doubt`.
    pub statement: &'static str,
    /// The facts that it writes in the same transaction: one of these rows, in this order.
    pub facts: &'static [&'static [FactKind]],
    /// Whether only a message goes this way whose delivery is known from elsewhere: from a 250 that came late.
    pub only_known: bool,
}

impl Transition {
    /// The release number after it. Only what leads to `Released` raises it.
    pub const fn release_after(&self, release: u32) -> u32 {
        match self.to {
            Place::Released => release.saturating_add(1),
            _ => release,
        }
    }
}

const fn way(
    from: Place,
    to: Place,
    by: Actor,
    statement: &'static str,
    facts: &'static [&'static [FactKind]],
) -> Transition {
    Transition { from, to, by, statement, facts, only_known: false }
}

/// To its end as delivered, since that is what it is known to be.
const fn known(from: Place, by: Actor, statement: &'static str, facts: &'static [&'static [FactKind]]) -> Transition {
    Transition { from, to: Place::Closed(Closing::Delivered), by, statement, facts, only_known: true }
}

const NOTHING: &[&[FactKind]] = &[&[]];
const ACCEPTED: &[&[FactKind]] = &[&[FactKind::Accepted]];
const FINAL: &[&[FactKind]] = &[&[FactKind::Final]];
const LOST: &[&[FactKind]] = &[&[FactKind::Lost]];
const LOST_FINAL: &[&[FactKind]] = &[&[FactKind::Lost, FactKind::Final]];
const DOUBT: &[&[FactKind]] = &[&[FactKind::Doubt]];
/// The attempt was deferred, or it was given back.
const ATTEMPT: &[&[FactKind]] = &[&[FactKind::Deferred], &[]];
/// As before, and then the message meets a cancel or the end of its time.
const ATTEMPT_FINAL: &[&[FactKind]] = &[&[FactKind::Deferred, FactKind::Final], &[FactKind::Final]];
/// Whatever the attempt came to.
const ANY_FINAL: &[&[FactKind]] =
    &[&[FactKind::Deferred, FactKind::Final], &[FactKind::Doubt, FactKind::Final], &[FactKind::Final]];

/// Every way there is. A statement that takes another, or writes other facts, is a bug.
pub const TRANSITIONS: &[Transition] = &[
    way(Place::Nowhere, Place::Waiting, Actor::Ingest, "accept", ACCEPTED),
    way(Place::Nowhere, Place::Released, Actor::Ingest, "accept", ACCEPTED),
    way(Place::Waiting, Place::Released, Actor::Dispatcher, "release", NOTHING),
    known(Place::Waiting, Actor::Dispatcher, "release", FINAL),
    way(Place::Waiting, Place::Closed(Closing::Cancelled), Actor::Dispatcher, "release", FINAL),
    way(Place::Waiting, Place::Closed(Closing::Expired), Actor::Dispatcher, "release", FINAL),
    way(Place::Released, Place::Waiting, Actor::Ingest, "park", NOTHING),
    way(Place::Released, Place::Waiting, Actor::Dispatcher, "park", NOTHING),
    way(Place::Released, Place::Waiting, Actor::Renderer, "park", NOTHING),
    way(Place::Released, Place::Waiting, Actor::Sender, "park", NOTHING),
    way(Place::Released, Place::Waiting, Actor::Dispatcher, "repair", LOST),
    way(Place::Released, Place::Closed(Closing::Failed), Actor::Dispatcher, "repair", LOST_FINAL),
    way(Place::Released, Place::Closed(Closing::Failed), Actor::Dispatcher, "close", FINAL),
    way(Place::Released, Place::Closed(Closing::Failed), Actor::Renderer, "close", FINAL),
    way(Place::Released, Place::Closed(Closing::Failed), Actor::Sender, "close", FINAL),
    way(Place::Released, Place::Sending, Actor::Sender, "claim", NOTHING),
    way(Place::Released, Place::Waiting, Actor::Sender, "claim", NOTHING),
    known(Place::Released, Actor::Sender, "claim", FINAL),
    way(Place::Released, Place::Closed(Closing::Cancelled), Actor::Sender, "claim", FINAL),
    way(Place::Released, Place::Closed(Closing::Suppressed), Actor::Sender, "claim", FINAL),
    way(Place::Released, Place::Closed(Closing::Expired), Actor::Sender, "claim", FINAL),
    known(Place::Waiting, Actor::Dispatcher, "refuse", FINAL),
    known(Place::Released, Actor::Dispatcher, "refuse", FINAL),
    way(Place::Waiting, Place::Closed(Closing::Cancelled), Actor::Dispatcher, "refuse", FINAL),
    way(Place::Released, Place::Closed(Closing::Cancelled), Actor::Dispatcher, "refuse", FINAL),
    known(Place::Waiting, Actor::Suppression, "refuse", FINAL),
    known(Place::Released, Actor::Suppression, "refuse", FINAL),
    way(Place::Waiting, Place::Closed(Closing::Suppressed), Actor::Suppression, "refuse", FINAL),
    way(Place::Released, Place::Closed(Closing::Suppressed), Actor::Suppression, "refuse", FINAL),
    known(Place::Waiting, Actor::Dispatcher, "expire", FINAL),
    way(Place::Waiting, Place::Closed(Closing::Expired), Actor::Dispatcher, "expire", FINAL),
    way(Place::Sending, Place::Closed(Closing::Delivered), Actor::Sender, "record", FINAL),
    known(Place::Sending, Actor::Sender, "record", ANY_FINAL),
    way(Place::Sending, Place::Closed(Closing::Bounced), Actor::Sender, "record", FINAL),
    way(Place::Sending, Place::Closed(Closing::Cancelled), Actor::Sender, "record", ATTEMPT_FINAL),
    way(Place::Sending, Place::Closed(Closing::Expired), Actor::Sender, "record", ATTEMPT_FINAL),
    way(Place::Sending, Place::Waiting, Actor::Sender, "record", ATTEMPT),
    way(Place::Sending, Place::InDoubt, Actor::Sender, "record", DOUBT),
    way(Place::Sending, Place::InDoubt, Actor::Dispatcher, "doubt", DOUBT),
    way(Place::InDoubt, Place::Waiting, Actor::Dispatcher, "doubt", NOTHING),
    way(Place::InDoubt, Place::Closed(Closing::Unknown), Actor::Dispatcher, "doubt", FINAL),
    known(Place::InDoubt, Actor::Dispatcher, "doubt", FINAL),
    way(Place::InDoubt, Place::Closed(Closing::Cancelled), Actor::Dispatcher, "doubt", FINAL),
];

/// Whether `by` may take a message from `from` to `to`.
pub fn is_declared(from: Place, to: Place, by: Actor) -> bool {
    TRANSITIONS.iter().any(|way| way.from == from && way.to == to && way.by == by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_a_closed_place() {
        assert!(TRANSITIONS.iter().all(|way| !matches!(way.from, Place::Closed(_))));
    }

    #[test]
    fn only_accept_makes_a_message() {
        let first = TRANSITIONS.iter().filter(|way| way.from == Place::Nowhere);
        assert!(first.clone().all(|way| way.statement == "accept" && way.by == Actor::Ingest));
        assert_eq!(first.count(), 2);
    }

    #[test]
    fn every_place_leads_to_every_ending_that_is_declared() {
        for closing in Closing::ALL {
            assert!(TRANSITIONS.iter().any(|way| way.to == Place::Closed(closing)), "{closing} is unreachable");
            assert_eq!(Closing::from_code(closing.code()), Some(closing));
        }
    }

    #[test]
    fn a_way_that_closes_says_so_last_and_no_other_does() {
        for way in TRANSITIONS {
            assert!(!way.facts.is_empty());
            for facts in way.facts {
                let closes = matches!(way.to, Place::Closed(_));
                assert_eq!(facts.last() == Some(&FactKind::Final), closes, "{way:?}");
                let finals = facts.iter().filter(|kind| **kind == FactKind::Final).count();
                assert_eq!(finals, usize::from(closes), "{way:?}");
            }
        }
    }

    #[test]
    fn every_kind_of_fact_but_the_late_one_and_what_comes_back_comes_of_some_way() {
        for kind in FactKind::ALL {
            let written = TRANSITIONS.iter().any(|way| way.facts.iter().any(|facts| facts.contains(&kind)));
            assert_eq!(written, kind != FactKind::Late && !kind.is_feedback(), "{kind}");
        }
    }

    #[test]
    fn nobody_but_its_sender_takes_a_claim_away_without_a_doubt() {
        let ways = TRANSITIONS.iter().filter(|way| way.from == Place::Sending && way.by != Actor::Sender);
        assert!(ways.clone().all(|way| way.facts == DOUBT));
        assert_eq!(ways.count(), 1);
    }

    #[test]
    fn no_way_is_declared_twice() {
        for (index, way) in TRANSITIONS.iter().enumerate() {
            assert!(!TRANSITIONS[..index].contains(way), "{way:?}");
        }
    }

    #[test]
    fn only_the_sender_makes_a_message_sending() {
        assert!(TRANSITIONS.iter().filter(|way| way.to == Place::Sending).all(|way| way.by == Actor::Sender));
    }
}
