//! What callers asked for, and what they were answered.

use std::collections::BTreeMap;

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Answer {
    /// Nobody knows: no answer came, or one that says nothing, however often it was repeated.
    #[default]
    Unknown,
    /// Accepted.
    Ok {
        /// The call's id.
        batch: String,
        /// The messages' ids, without hyphens, in the order of the recipients; `None` for who was refused.
        ids: Vec<Option<String>>,
    },
    /// Refused as a whole, with this code.
    Refused(String),
}

/// A call that sends mail.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// To whom; no recipient is named in two calls.
    pub recipients: Vec<String>,
    /// When it was first made, in microseconds since 1970.
    pub invoked: i64,
    /// When the answer came that counts.
    pub answered: i64,
    /// What came of it.
    pub answer: Answer,
    /// How often the answer was none.
    pub unknown: u32,
    /// Repeats after the answer that were answered otherwise.
    pub contradictions: u32,
}

/// Something that forbids attempts from its commit on.
#[derive(Clone, Debug)]
pub struct Ban {
    /// Who or what.
    pub of: Banned,
    /// When the answer came: its commit was before. In microseconds since 1970.
    pub committed: i64,
}

/// What a ban is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Banned {
    /// A recipient who is suppressed.
    Recipient(String),
    /// A call that is cancelled, by its batch's id.
    Batch(String),
}

/// Everything that callers did.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Calls by idempotency key.
    pub calls: BTreeMap<String, Call>,
    /// Suppressions and cancellations whose answer was OK.
    pub bans: Vec<Ban>,
}

impl Ledger {
    /// Calls that ended so, by the word for it.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for call in self.calls.values() {
            let word = match call.answer {
                Answer::Ok { .. } => "ok",
                Answer::Refused(_) => "refused",
                Answer::Unknown => "unknown",
            };
            *counts.entry(word).or_default() += 1;
        }
        counts
    }
}
