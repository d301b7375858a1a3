//! The judgement: pure, over the evidence of a run.
//!
//! What it proves, and from what:
//! - **Accepted is kept.** Whatever a caller was answered OK for is stored; whatever is stored was asked for and not
//!   refused, each recipient once. A call without an answer may have been committed: it counts as accepted then.
//! - **Every message has one ending**, or is open when time ran out, which is counted as lost.
//! - **Copies.** A delivered message has a copy at the sink and at most one more for each of its attempts in doubt; any
//!   other ending has at most as many copies as doubts. Nothing else is at the sink.
//! - **Bans.** The database's triggers wrote down when each claim's statement reached the server, which is before it
//!   looked at anything. The caller noted when the answer to a suppression or cancellation came, which is after its
//!   commit. A claim that begins after that answer is one too many, exactly; one that began between the commit and the
//!   answer is not found out. Both times are of the same machine's clock, which must not be set during a run.
//! - **Histories.** Every change of place that the triggers saw is a declared way, begins where the last one ended, and
//!   no release number goes down; the facts in the log's order are a path as well ([`domain::history`]).
//! - **Limits.** In no window does the sink take more copies for a site than the limit lets start, plus those that each
//!   connection of each sender may have had held up on its way.
//! - The log's recount, memory and descriptors, what is in logs, and how soon mail flows after a trouble.

mod callers;
mod flow;
mod mails;
mod paths;
#[cfg(test)]
mod tests;

use super::evidence::Evidence;
use std::collections::BTreeMap;

/// Longest time from the end of a trouble until mail to every clean site flows again, in seconds.
pub const RECOVERY_LIMIT: f64 = 45.0;
/// Longest time until everything is at rest after the last call and the last trouble, in seconds.
pub const DRAIN_LIMIT: f64 = 90.0;
/// Most resident memory of a process, in octets.
pub const MOST_MEMORY: u64 = 300 << 20;
/// Most descriptors of a process.
pub const MOST_DESCRIPTORS: u64 = 256;
/// Most threads of a process.
pub const MOST_THREADS: u64 = 64;
/// Objections of one rule that are told in full.
const TOLD: usize = 5;

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Accepted, and not stored, or not closed.
    Lost,
    /// Stored or at the sink, and not accepted.
    NotAccepted,
    /// The same call was answered in two ways, or stored twice.
    Idempotency,
    /// More than one ending, or one while it is open.
    Endings,
    /// Delivered, and not at the sink.
    NoCopy,
    /// More copies than doubts explain.
    Copies,
    /// Claimed after it was forbidden.
    Ban,
    /// A change that no declared way is.
    Path,
    /// The log, the roll-ups and the places do not add up.
    Audit,
    /// A site got more than its limit.
    Limit,
    /// Mail flowed too late, or the backlog did not drain.
    Recovery,
    /// A process used too much.
    Usage,
    /// Something is in a log that must not be.
    Log,
    /// A service did not end when it was told to.
    Stop,
}

/// What the checker has against a run.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Objections {
    /// How many, by rule.
    pub counts: BTreeMap<Rule, usize>,
    /// Some of them in full.
    pub told: Vec<(Rule, String)>,
}

impl Objections {
    /// One more.
    pub fn add(&mut self, rule: Rule, what: impl FnOnce() -> String) {
        let count = self.counts.entry(rule).or_default();
        *count += 1;
        if *count <= TOLD {
            self.told.push((rule, what()));
        }
    }

    /// How many of a rule.
    pub fn of(&self, rule: Rule) -> usize {
        self.counts.get(&rule).copied().unwrap_or(0)
    }
}

/// The figures of a run, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Messages that were accepted, whether the caller learned of it or not.
    pub accepted: usize,
    /// Messages by their ending.
    pub endings: BTreeMap<&'static str, usize>,
    /// Accepted messages that are not stored, not closed, or closed as delivered and at no sink.
    pub lost: usize,
    /// Copies beyond the first of each message.
    pub duplicated: usize,
    /// Copies beyond what doubts explain.
    pub duplicated_unexplained: usize,
    /// Attempts in doubt.
    pub in_doubt: usize,
    /// Longest time from a trouble's end until mail flowed at every clean site, in seconds.
    pub recovery_s_max: f64,
    /// From the end of everything to rest, in seconds.
    pub drain_s: Option<f64>,
    /// What is wrong.
    pub objections: Objections,
}

impl Judgement {
    /// Messages that ended so.
    pub fn of(&self, ending: &str) -> usize {
        self.endings.get(ending).copied().unwrap_or(0)
    }

    /// Whether every rule was kept.
    pub fn is_sound(&self) -> bool {
        self.objections.counts.is_empty()
    }
}

/// Judges a run.
pub fn judge(evidence: &Evidence) -> Judgement {
    let mut judgement = Judgement::default();
    callers::check(evidence, &mut judgement);
    mails::check(evidence, &mut judgement);
    paths::check(evidence, &mut judgement.objections);
    flow::check(evidence, &mut judgement);
    audit(evidence, &mut judgement.objections);
    usage(evidence, &mut judgement.objections);
    for finding in &evidence.logs {
        judgement.objections.add(Rule::Log, || format!("{finding:?}"));
    }
    for stuck in &evidence.stuck {
        judgement.objections.add(Rule::Stop, || stuck.clone());
    }
    judgement
}

fn audit(evidence: &Evidence, objections: &mut Objections) {
    let audit = &evidence.audit;
    if !audit.is_clean() {
        objections.add(Rule::Audit, || format!("{audit:?}"));
    }
    let stored = evidence.stored.len();
    if usize::try_from(audit.messages).ok() != Some(stored) {
        objections
            .add(Rule::Audit, || format!("{stored} messages are stored, and the audit counts {}", audit.messages));
    }
}

fn usage(evidence: &Evidence, objections: &mut Objections) {
    for (name, peak) in &evidence.peaks {
        let too_much =
            peak.resident > MOST_MEMORY || peak.descriptors > MOST_DESCRIPTORS || peak.threads > MOST_THREADS;
        if too_much {
            objections.add(Rule::Usage, || format!("{name}: {peak:?}"));
        }
    }
}
