//! What happened to a message: the entries of the outbox `facts` and of the log `message_events`.
//!
//! A fact's key is (message, kind, ordinal): attempts take their release number as ordinal, so a repeated
//! statement repeats the key and is counted once. A closing fact is (message, `Final`, 0), whatever ended
//! the message, so there can be only one.

use crate::Closing;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The kind of a fact; together with message and ordinal its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactKind {
    /// The message was accepted; ordinal 0.
    Accepted,
    /// The message's life ended; ordinal 0; carries a [`Closing`].
    Final,
    /// A receiver asked to come back later (4yz), or could not be reached; ordinal: release number.
    Deferred,
    /// An attempt may or may not have delivered; ordinal: release number.
    Doubt,
    /// A release went missing on the bus and was repaired; ordinal: release number.
    Lost,
    /// The outcome of an attempt that came after its message had moved on; ordinal: release number;
    /// carries a [`Closing`] (or none when it was a deferral). Never ends a message.
    Late,
}

impl FactKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Accepted, Self::Final, Self::Deferred, Self::Doubt, Self::Lost, Self::Late];

    /// The code in Postgres.
    pub const fn code(self) -> i16 {
        match self {
            Self::Accepted => 1,
            Self::Final => 2,
            Self::Deferred => 3,
            Self::Doubt => 4,
            Self::Lost => 5,
            Self::Late => 6,
        }
    }

    /// The kind with this code.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// The word under which an entry of the log is shown and counted: a closing fact under its ending
/// (`delivered`), every other under its kind (`deferred`).
pub fn word(kind: FactKind, closing: Option<Closing>) -> &'static str {
    match (kind, closing) {
        (FactKind::Final, Some(closing)) => closing.as_str(),
        (FactKind::Final, None) => "closed",
        (FactKind::Accepted, _) => "accepted",
        (FactKind::Deferred, _) => "deferred",
        (FactKind::Doubt, _) => "in_doubt",
        (FactKind::Lost, _) => "lost_release",
        (FactKind::Late, Some(Closing::Delivered)) => "late_delivered",
        (FactKind::Late, Some(Closing::Bounced)) => "late_bounced",
        (FactKind::Late, _) => "late_deferred",
    }
}

/// Every word that [`word`] gives.
pub fn words() -> Vec<&'static str> {
    let others = FactKind::ALL.into_iter().filter(|kind| *kind != FactKind::Final);
    let late = [Closing::Delivered, Closing::Bounced].map(|closing| word(FactKind::Late, Some(closing)));
    others.map(|kind| word(kind, None)).chain(Closing::ALL.map(Closing::as_str)).chain(late).collect()
}

/// What a fact tells beyond its key; kept as JSON beside it. Every field is absent when it does not apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FactDetail {
    /// SMTP reply code, 200 to 599.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Enhanced status (RFC 3463), such as `5.1.1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enhanced: Option<String>,
    /// The receiver's words or the reason, at most 500 characters, no control characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Bounce class, such as `invalid_recipient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The MX host or relay that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The route taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The attempt, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u16>,
    /// From the claim to the reply, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// When it goes next, for a deferral (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<chrono::DateTime<chrono::Utc>>,
    /// The negotiated TLS version, such as `TLSv1_3`; absent for plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
}

impl fmt::Display for FactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Final => "final",
            Self::Deferred => "deferred",
            Self::Doubt => "doubt",
            Self::Lost => "lost",
            Self::Late => "late",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_round_trips_through_its_code() {
        for kind in FactKind::ALL {
            assert_eq!(FactKind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(FactKind::from_code(0), None);
    }
}
