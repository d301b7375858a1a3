//! Where a message can be, and the declared ways from one place to the next.
//!
//! The table is the law: `store` names the place it leaves in every statement, the model checker and the
//! fault tests read the same table, and every history in the event log is a path of it.

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

/// One declared way from a place to the next, and the statement that takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The place left.
    pub from: Place,
    /// The place reached.
    pub to: Place,
    /// Who may do it.
    pub by: Actor,
    /// The statement: `accept`, `release`, `claim`, `record`, `park`, `refuse`, `close`, `repair`, `doubt`.
    pub statement: &'static str,
}

const fn way(from: Place, to: Place, by: Actor, statement: &'static str) -> Transition {
    Transition { from, to, by, statement }
}

/// Every way there is. A statement that takes another is a bug.
pub const TRANSITIONS: &[Transition] = &[
    way(Place::Nowhere, Place::Waiting, Actor::Ingest, "accept"),
    way(Place::Nowhere, Place::Released, Actor::Ingest, "accept"),
    way(Place::Waiting, Place::Released, Actor::Dispatcher, "release"),
    way(Place::Released, Place::Sending, Actor::Sender, "claim"),
    way(Place::Released, Place::Waiting, Actor::Ingest, "park"),
    way(Place::Released, Place::Waiting, Actor::Dispatcher, "park"),
    way(Place::Released, Place::Waiting, Actor::Renderer, "park"),
    way(Place::Released, Place::Waiting, Actor::Sender, "park"),
    way(Place::Released, Place::Waiting, Actor::Sender, "claim"),
    way(Place::Released, Place::Waiting, Actor::Dispatcher, "repair"),
    way(Place::Released, Place::Closed(Closing::Cancelled), Actor::Sender, "claim"),
    way(Place::Released, Place::Closed(Closing::Suppressed), Actor::Sender, "claim"),
    way(Place::Released, Place::Closed(Closing::Expired), Actor::Sender, "claim"),
    way(Place::Released, Place::Closed(Closing::Delivered), Actor::Sender, "claim"),
    way(Place::Waiting, Place::Closed(Closing::Cancelled), Actor::Dispatcher, "refuse"),
    way(Place::Released, Place::Closed(Closing::Cancelled), Actor::Dispatcher, "refuse"),
    way(Place::Waiting, Place::Closed(Closing::Expired), Actor::Dispatcher, "refuse"),
    way(Place::Released, Place::Closed(Closing::Expired), Actor::Dispatcher, "refuse"),
    way(Place::Waiting, Place::Closed(Closing::Suppressed), Actor::Suppression, "refuse"),
    way(Place::Released, Place::Closed(Closing::Suppressed), Actor::Suppression, "refuse"),
    way(Place::Waiting, Place::Closed(Closing::Delivered), Actor::Dispatcher, "refuse"),
    way(Place::Released, Place::Closed(Closing::Delivered), Actor::Dispatcher, "refuse"),
    way(Place::Released, Place::Closed(Closing::Failed), Actor::Renderer, "close"),
    way(Place::Released, Place::Closed(Closing::Failed), Actor::Dispatcher, "close"),
    way(Place::Sending, Place::Closed(Closing::Delivered), Actor::Sender, "record"),
    way(Place::Sending, Place::Closed(Closing::Bounced), Actor::Sender, "record"),
    way(Place::Sending, Place::Closed(Closing::Cancelled), Actor::Sender, "record"),
    way(Place::Sending, Place::Closed(Closing::Suppressed), Actor::Sender, "record"),
    way(Place::Sending, Place::Closed(Closing::Expired), Actor::Sender, "record"),
    way(Place::Sending, Place::Waiting, Actor::Sender, "record"),
    way(Place::Sending, Place::Waiting, Actor::Sender, "park"),
    way(Place::Sending, Place::InDoubt, Actor::Sender, "record"),
    way(Place::Sending, Place::InDoubt, Actor::Dispatcher, "doubt"),
    way(Place::InDoubt, Place::Waiting, Actor::Dispatcher, "doubt"),
    way(Place::InDoubt, Place::Closed(Closing::Unknown), Actor::Dispatcher, "doubt"),
    way(Place::InDoubt, Place::Closed(Closing::Delivered), Actor::Dispatcher, "doubt"),
    way(Place::InDoubt, Place::Closed(Closing::Cancelled), Actor::Dispatcher, "doubt"),
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
    fn only_the_sender_makes_a_message_sending() {
        assert!(TRANSITIONS.iter().filter(|way| way.to == Place::Sending).all(|way| way.by == Actor::Sender));
    }
}
