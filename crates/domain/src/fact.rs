//! What happened to a message: the entries of the outbox `facts` and of the log `message_events`.
//!
//! A fact's key is (message, kind, ordinal): attempts take their release number as ordinal, so a repeated
//! statement repeats the key and is counted once. A closing fact is (message, `Final`, 0), whatever ended
//! the message, so there can be only one. What comes back about a mail takes a hash of its source as ordinal
//! ([`source_ordinal`]): a report, a webhook or a click that comes twice is counted once.

use crate::Closing;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
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
    /// A bounce after the mail had been taken, about a recipient that is not there; ordinal: its source.
    Returned,
    /// The recipient, or his provider for him, complained; ordinal: its source.
    Complained,
    /// A bounce after the mail had been taken, for now: a full mailbox, a time that ran out; ordinal: its source.
    ReturnedSoft,
    /// A bounce after the mail had been taken, by policy or reputation; ordinal: its source.
    ReturnedBlock,
    /// Somebody opened it; ordinal: its source.
    Opened,
    /// A machine fetched its image; ordinal: its source.
    OpenedByMachine,
    /// Somebody followed a link; ordinal: its source.
    Clicked,
    /// A machine followed a link; ordinal: its source.
    ClickedByMachine,
    /// The recipient wants no more; ordinal: its source.
    Unsubscribed,
    /// The recipient wants mail again; ordinal: its source.
    Resubscribed,
    /// A provider tells that the receiver took it; ordinal: its source.
    Confirmed,
}

impl FactKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Accepted,
        Self::Final,
        Self::Deferred,
        Self::Doubt,
        Self::Lost,
        Self::Late,
        Self::Returned,
        Self::Complained,
        Self::ReturnedSoft,
        Self::ReturnedBlock,
        Self::Opened,
        Self::OpenedByMachine,
        Self::Clicked,
        Self::ClickedByMachine,
        Self::Unsubscribed,
        Self::Resubscribed,
        Self::Confirmed,
    ];

    /// Whether it tells what came back about a mail. It changes nothing about where the message stands.
    pub const fn is_feedback(self) -> bool {
        match self {
            Self::Accepted | Self::Final | Self::Deferred | Self::Doubt | Self::Lost | Self::Late => false,
            Self::Returned
            | Self::Complained
            | Self::ReturnedSoft
            | Self::ReturnedBlock
            | Self::Opened
            | Self::OpenedByMachine
            | Self::Clicked
            | Self::ClickedByMachine
            | Self::Unsubscribed
            | Self::Resubscribed
            | Self::Confirmed => true,
        }
    }

    /// The code in Postgres.
    pub const fn code(self) -> i16 {
        match self {
            Self::Accepted => 1,
            Self::Final => 2,
            Self::Deferred => 3,
            Self::Doubt => 4,
            Self::Lost => 5,
            Self::Late => 6,
            Self::Returned => 7,
            Self::Complained => 8,
            Self::ReturnedSoft => 9,
            Self::ReturnedBlock => 10,
            Self::Opened => 11,
            Self::OpenedByMachine => 12,
            Self::Clicked => 13,
            Self::ClickedByMachine => 14,
            Self::Unsubscribed => 15,
            Self::Resubscribed => 16,
            Self::Confirmed => 17,
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
        (FactKind::Returned, _) => "returned",
        (FactKind::Complained, _) => "complained",
        (FactKind::ReturnedSoft, _) => "returned_soft",
        (FactKind::ReturnedBlock, _) => "returned_block",
        (FactKind::Opened, _) => "opened",
        (FactKind::OpenedByMachine, _) => "opened_machine",
        (FactKind::Clicked, _) => "clicked",
        (FactKind::ClickedByMachine, _) => "clicked_machine",
        (FactKind::Unsubscribed, _) => "unsubscribed",
        (FactKind::Resubscribed, _) => "resubscribed",
        (FactKind::Confirmed, _) => "confirmed",
    }
}

/// Every word that [`word`] gives.
pub fn words() -> Vec<&'static str> {
    let others = FactKind::ALL.into_iter().filter(|kind| *kind != FactKind::Final);
    let late = [Closing::Delivered, Closing::Bounced].map(|closing| word(FactKind::Late, Some(closing)));
    others.map(|kind| word(kind, None)).chain(Closing::ALL.map(Closing::as_str)).chain(late).collect()
}

/// The ordinal of what came back, by what names its source: never 0, the same for the same source.
pub fn source_ordinal(source: &str) -> u32 {
    let digest = Sha256::digest(source);
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> 1;
    number.max(1)
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
    /// Where a link leads that was followed, at most 500 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What fetched an image or followed a link called itself, at most 300 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The network that it came from: an address without its last octets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What told it: `http`, `mail`, or a provider's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The rule that told a person from a machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
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
            feedback => word(*feedback, None),
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

    #[test]
    fn a_source_has_one_ordinal_that_is_never_that_of_a_first_or_closing_fact() {
        for number in 0..1_000 {
            let source = format!("report {number}");
            let ordinal = source_ordinal(&source);
            assert!(ordinal > 0 && i32::try_from(ordinal).is_ok());
            assert_eq!(ordinal, source_ordinal(&source));
        }
        assert_ne!(source_ordinal("a"), source_ordinal("b"));
    }
}
