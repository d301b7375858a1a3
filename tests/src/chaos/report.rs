//! What a run came to, as one line of JSON.

use super::{check::Judgement, processes::Peaks};
use serde::Serialize;
use std::collections::BTreeMap;

/// The last line of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// From which everything was chosen.
    pub seed: u64,
    /// Faults that were done.
    pub faults: Vec<String>,
    /// Faults that this machine does not allow, or that could not be done, and why.
    pub skipped: BTreeMap<String, String>,
    /// Messages accepted.
    pub accepted: usize,
    /// Those that ended delivered.
    pub delivered: usize,
    /// Those that ended bounced.
    pub bounced: usize,
    /// All endings.
    pub endings: BTreeMap<String, usize>,
    /// Accepted, and not stored, not closed, or delivered to nobody.
    pub lost: usize,
    /// Copies beyond the first of each message.
    pub duplicated: usize,
    /// Those of them that no doubt explains.
    pub duplicated_unexplained: usize,
    /// Attempts in doubt.
    pub in_doubt: usize,
    /// Roll-ups that differ from a recount of the log.
    pub rollup_mismatches: i64,
    /// Numbers missing in the log.
    pub seq_gaps: i64,
    /// Messages that are nowhere.
    pub orphans: i64,
    /// Longest time from a fault's end until mail flowed at every clean site, in seconds.
    pub recovery_s_max: f64,
    /// From the end of faults and calls to rest, in seconds; absent: never.
    pub drain_s: Option<f64>,
    /// Calls by what came of them, and repeats for want of an answer.
    pub calls: BTreeMap<String, usize>,
    /// Suppressions and cancellations that were held against claims.
    pub bans: usize,
    /// Faults done, by name.
    pub events: BTreeMap<String, usize>,
    /// Processes that ended without being told, by name and status.
    pub ended_by_themselves: BTreeMap<String, usize>,
    /// The most that any process of a service used.
    pub peaks: Peaks,
    /// Rules that were broken, and how often; empty is right.
    pub broken: BTreeMap<String, usize>,
}

impl Report {
    /// Whether every rule was kept.
    pub fn is_sound(&self) -> bool {
        self.broken.is_empty()
    }

    /// Takes the figures of a judgement.
    pub(super) fn judged(&mut self, judgement: &Judgement) {
        self.accepted = judgement.accepted;
        self.delivered = judgement.of("delivered");
        self.bounced = judgement.of("bounced");
        self.endings = judgement.endings.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        self.lost = judgement.lost;
        self.duplicated = judgement.duplicated;
        self.duplicated_unexplained = judgement.duplicated_unexplained;
        self.in_doubt = judgement.in_doubt;
        self.recovery_s_max = tenths(judgement.recovery_s_max);
        self.drain_s = judgement.drain_s.map(tenths);
        for (rule, count) in &judgement.objections.counts {
            let name = serde_json::to_value(rule).ok().and_then(|name| name.as_str().map(ToOwned::to_owned));
            self.broken.insert(name.unwrap_or_default(), *count);
        }
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        let sum = |into: &mut BTreeMap<String, usize>, from: &BTreeMap<String, usize>| {
            for (name, count) in from {
                *into.entry(name.clone()).or_default() += count;
            }
        };
        self.faults.extend(other.faults.iter().cloned());
        self.skipped.extend(other.skipped.clone());
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.bounced += other.bounced;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.duplicated_unexplained += other.duplicated_unexplained;
        self.in_doubt += other.in_doubt;
        self.rollup_mismatches += other.rollup_mismatches;
        self.seq_gaps += other.seq_gaps;
        self.orphans += other.orphans;
        self.recovery_s_max = self.recovery_s_max.max(other.recovery_s_max);
        self.drain_s = self.drain_s.into_iter().chain(other.drain_s).reduce(f64::max);
        self.bans += other.bans;
        sum(&mut self.endings, &other.endings);
        sum(&mut self.calls, &other.calls);
        sum(&mut self.events, &other.events);
        sum(&mut self.ended_by_themselves, &other.ended_by_themselves);
        sum(&mut self.broken, &other.broken);
        for (name, peak) in &other.peaks {
            let most = self.peaks.entry(name.clone()).or_default();
            *most = most.max(*peak);
        }
    }
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
