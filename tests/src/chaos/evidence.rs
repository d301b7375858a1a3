//! What is known after a run: everything that the checker judges by, and nothing else.

use super::{ledger::Ledger, logs::LogFinding, processes::Peaks};
use domain::{Closing, fact::FactKind};
use std::collections::BTreeMap;
use store::Audit;

/// A message's id, as text without hyphens: as the sink sees it.
pub type Id = String;

/// A message as the database keeps it.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// To whom.
    pub recipient: String,
    /// The call that brought it.
    pub batch: String,
    /// Its entries in the log, and its facts that are not there yet: kind, ordinal, ending.
    pub facts: Vec<(FactKind, i32, Option<Closing>)>,
    /// Whether it waits or moves.
    pub open: bool,
}

impl Stored {
    /// How it ended, each time that it did: once is right.
    pub fn endings(&self) -> impl Iterator<Item = Option<Closing>> {
        self.facts.iter().filter(|(kind, ..)| *kind == FactKind::Final).map(|(.., closing)| *closing)
    }

    /// Attempts that may have delivered it without anybody's knowledge.
    pub fn doubts(&self) -> usize {
        self.facts.iter().filter(|(kind, ..)| *kind == FactKind::Doubt).count()
    }
}

/// A change of place of a message, as the database's triggers saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The transaction.
    pub txid: i64,
    /// When its statement reached the server, in microseconds since 1970, by the machine's clock.
    pub begun: i64,
    /// What: see `trace.sql`.
    pub what: i16,
    /// Under which release number.
    pub release: i32,
    /// The state of `moving` that it leaves.
    pub old: Option<i16>,
    /// The state that it reaches, or how it is closed.
    pub new: Option<i16>,
}

/// A copy at the sink.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The message that it says to be.
    pub id: Option<Id>,
    /// To whom.
    pub recipient: String,
    /// When it was taken, in microseconds since 1970.
    pub at: i64,
}

/// A time during which something was wrong, in microseconds since 1970.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What it was.
    pub name: String,
    /// From.
    pub from: i64,
    /// To.
    pub to: i64,
}

/// The most that one site may be sent, and for how much more the wire accounts.
#[derive(Clone, Copy, Debug)]
pub struct SiteLimit {
    /// Which recipients: those of this domain.
    pub domain: &'static str,
    /// Messages a second.
    pub per_second: f64,
    /// Copies that may come on top in any window: each may have been held up on its way for any time.
    pub on_top: u64,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Evidence {
    /// What the callers asked for and were answered.
    pub ledger: Ledger,
    /// What is stored.
    pub stored: BTreeMap<Id, Stored>,
    /// Every change of place, in the order in which it was made, by message.
    pub trace: BTreeMap<Id, Vec<Change>>,
    /// What is at the sink, in the order of arrival.
    pub copies: Vec<Copy>,
    /// The database's own recount.
    pub audit: Audit,
    /// What was wrong and when.
    pub troubles: Vec<Trouble>,
    /// Limits of sites.
    pub limits: Vec<SiteLimit>,
    /// Sites at which mail must flow again after a trouble.
    pub flows: Vec<String>,
    /// When everything had come to rest; `None` when time ran out first.
    pub drained: Option<i64>,
    /// When the last call was made and the last trouble was over.
    pub over: i64,
    /// Most that each process used.
    pub peaks: Peaks,
    /// What was found in logs.
    pub logs: Vec<LogFinding>,
    /// Services that did not end when they were told to.
    pub stuck: Vec<String>,
}
