//! Whether the facts of one message can have happened: a history is a path of the declared automaton.
//!
//! The search knows [`TRANSITIONS`] and what each way writes, and nothing else: it follows every way that explains
//! the facts read so far, silent ones included, and refuses the first fact that none explains. A release number is
//! part of the place, so attempts rise, nothing follows an end, and no fact comes twice.
//!
//! What comes back about a mail is no transition either: it follows the accept, in any order.
//!
//! Late outcomes are no transition: they follow a doubt, since only a doubt takes a claim out of its sender's hands.

use crate::{Closing, Place, TRANSITIONS, fact::FactKind};
use std::collections::{BTreeSet, HashSet};

/// A release number above it is refused: no message is released so often in its life.
const MOST_RELEASES: u32 = 1_000_000;

/// One fact of a message, as the log keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What kind.
    pub kind: FactKind,
    /// 0 for the first and the closing fact; otherwise the release number.
    pub ordinal: u32,
    /// The release number that the message had; `None` when the reader does not know it.
    pub release: Option<u32>,
    /// The ending of a closing fact; the outcome of a late one, if it was final.
    pub closing: Option<Closing>,
}

impl Step {
    /// Whether ordinal, release number and closing are such as a fact of this kind has.
    fn is_well_formed(&self) -> bool {
        let of_an_attempt = self.ordinal > 0 && self.release.is_none_or(|release| release == self.ordinal);
        let fits = match self.kind {
            FactKind::Accepted => self.ordinal == 0 && self.release.unwrap_or(0) == 0 && self.closing.is_none(),
            FactKind::Final => self.ordinal == 0 && self.closing.is_some(),
            FactKind::Deferred | FactKind::Doubt | FactKind::Lost => of_an_attempt && self.closing.is_none(),
            FactKind::Returned
            | FactKind::Complained
            | FactKind::ReturnedSoft
            | FactKind::ReturnedBlock
            | FactKind::Opened
            | FactKind::OpenedByMachine
            | FactKind::Clicked
            | FactKind::ClickedByMachine
            | FactKind::Unsubscribed
            | FactKind::Resubscribed
            | FactKind::Confirmed => return self.ordinal > 0 && self.closing.is_none(),
            FactKind::Late => {
                of_an_attempt && matches!(self.closing, None | Some(Closing::Delivered | Closing::Bounced))
            }
        };
        fits && self.release.unwrap_or(self.ordinal) <= MOST_RELEASES
    }
}

/// Why facts cannot be the history of a message. Positions count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Such a fact is never written.
    #[error("the fact at {at} is none that is ever written: {step:?}")]
    Malformed {
        /// Where it stands.
        at: usize,
        /// The fact.
        step: Step,
    },
    /// No declared way leads from what went before to this fact.
    #[error("no way leads to the fact at {at}: {step:?}")]
    NoWay {
        /// Where it stands.
        at: usize,
        /// The fact.
        step: Step,
    },
    /// An outcome came late, but nothing had taken its claim away, or it had come before.
    #[error("the late outcome at {at} has no doubt of its own before it: {step:?}")]
    LateWithoutDoubt {
        /// Where it stands.
        at: usize,
        /// The fact.
        step: Step,
    },
    /// A message that was known to be delivered was tried again.
    #[error("the attempt at {at} began after the message was known to be delivered: {step:?}")]
    SentAgain {
        /// Where it stands.
        at: usize,
        /// The fact.
        step: Step,
    },
}

/// Whether these facts, in the order of the log, are how a message's life can begin: a path of [`TRANSITIONS`].
///
/// # Errors
/// The first fact that cannot follow those before it.
pub fn check(history: &[Step]) -> Result<(), HistoryError> {
    let mut standings = HashSet::from([Standing { place: Place::Nowhere, release: 0, owed: &[] }]);
    let mut late = Late::default();
    for (at, step) in history.iter().copied().enumerate() {
        if !step.is_well_formed() {
            return Err(HistoryError::Malformed { at, step });
        }
        if step.kind.is_feedback() {
            if at == 0 {
                return Err(HistoryError::NoWay { at, step });
            }
            continue;
        }
        if step.kind == FactKind::Late {
            late.outcome(at, step)?;
            continue;
        }
        standings = reachable(standings, step, late.doubted_ever)
            .into_iter()
            .filter_map(|standing| standing.after(step))
            .collect();
        if standings.is_empty() {
            return Err(HistoryError::NoWay { at, step });
        }
        late.attempt(at, step)?;
    }
    Ok(())
}

/// Where a message may stand, and what the way that led there has still to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Standing {
    place: Place,
    release: u32,
    owed: &'static [FactKind],
}

impl Standing {
    /// The standing after this fact; `None` when it does not explain it.
    fn after(self, step: Step) -> Option<Self> {
        let (next, owed) = self.owed.split_first()?;
        let fits = *next == step.kind
            && match step.kind {
                FactKind::Accepted | FactKind::Late => true,
                FactKind::Final => {
                    step.closing.is_some_and(|closing| self.place == Place::Closed(closing))
                        && step.release.is_none_or(|release| release == self.release)
                }
                FactKind::Deferred | FactKind::Doubt | FactKind::Lost => step.ordinal == self.release,
                // Looked at before.
                _ => false,
            };
        fits.then_some(Self { owed, ..self })
    }
}

/// Everything that can be reached from `standings` before the next fact. `known`: whether the message can be known to
/// be delivered.
fn reachable(standings: HashSet<Standing>, next: Step, known: bool) -> HashSet<Standing> {
    // Release numbers only rise, so nothing above the one that is told leads to it. Where none is told, every number
    // does as well as the next one.
    let highest = standings.iter().map(|standing| standing.release).max().unwrap_or(0);
    let told = if next.ordinal > 0 { Some(next.ordinal) } else { next.release };
    let most = told.map_or(highest + 1, |told| told.max(1));
    let mut open: Vec<Standing> = standings.iter().copied().collect();
    let mut reached = standings;
    while let Some(standing) = open.pop() {
        // What a way writes, it writes before anything else happens to the message.
        if !standing.owed.is_empty() {
            continue;
        }
        for way in TRANSITIONS.iter().filter(|way| way.from == standing.place && (known || !way.only_known)) {
            let release = way.release_after(standing.release);
            if release > most {
                continue;
            }
            for owed in way.facts {
                let next = Standing { place: way.to, release, owed };
                if reached.insert(next) {
                    open.push(next);
                }
            }
        }
    }
    reached
}

/// What late outcomes ask for and forbid.
#[derive(Default)]
struct Late {
    /// Doubts without an outcome so far.
    doubted: BTreeSet<u32>,
    /// There was a doubt: only then can a delivery be known that no attempt's end tells.
    doubted_ever: bool,
    /// A late delivery has been told.
    known: bool,
    /// The release whose attempt was under way when it was told.
    under_way: Option<u32>,
}

impl Late {
    fn outcome(&mut self, at: usize, step: Step) -> Result<(), HistoryError> {
        if !self.doubted.remove(&step.ordinal) {
            return Err(HistoryError::LateWithoutDoubt { at, step });
        }
        self.known |= step.closing == Some(Closing::Delivered);
        Ok(())
    }

    fn attempt(&mut self, at: usize, step: Step) -> Result<(), HistoryError> {
        if step.kind == FactKind::Doubt {
            self.doubted.insert(step.ordinal);
            self.doubted_ever = true;
        }
        // One claim can have been older than the mark of the late delivery; none can be younger.
        if self.known && matches!(step.kind, FactKind::Deferred | FactKind::Doubt) {
            if self.under_way.is_some_and(|release| release != step.ordinal) {
                return Err(HistoryError::SentAgain { at, step });
            }
            self.under_way = Some(step.ordinal);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
