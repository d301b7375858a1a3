//! How soon mail flows again after something was wrong.

use super::{DRAIN_LIMIT, Judgement, RECOVERY_LIMIT, Rule};
use crate::chaos::evidence::Evidence;
use std::collections::HashMap;

pub(super) fn check(evidence: &Evidence, judgement: &mut Judgement) {
    let seconds = |from: i64, to: i64| (to - from) as f64 / 1e6;
    judgement.drain_s = evidence.drained.map(|at| seconds(evidence.over, at).max(0.0));
    match judgement.drain_s {
        Some(took) if took <= DRAIN_LIMIT => {}
        took => judgement.objections.add(Rule::Recovery, || format!("the backlog drained within {took:?} s")),
    }
    let groups = groups(evidence);
    for (at, (name, ended)) in groups.iter().enumerate() {
        // What begins before mail flows again is to blame for what follows.
        let next = evidence.troubles.iter().map(|trouble| trouble.from).filter(|from| from > ended).min();
        let flowed = flowed(evidence, *ended);
        let last = at + 1 == groups.len();
        let took = match flowed {
            Some(when) if next.is_none_or(|next| when <= next) => seconds(*ended, when),
            _ if !last => continue,
            // So late that callers had stopped: then everything had come to rest.
            _ => match evidence.drained {
                Some(drained) => seconds(*ended, drained.max(*ended)),
                None => continue,
            },
        };
        judgement.recovery_s_max = judgement.recovery_s_max.max(took);
        if took > RECOVERY_LIMIT {
            judgement.objections.add(Rule::Recovery, || format!("mail flowed {took:.1} s after {name}"));
        }
    }
}

/// Troubles that overlap count as one: its name and end.
fn groups(evidence: &Evidence) -> Vec<(String, i64)> {
    let mut troubles: Vec<_> = evidence.troubles.iter().collect();
    troubles.sort_by_key(|trouble| trouble.from);
    let mut groups: Vec<(String, i64)> = Vec::new();
    for trouble in troubles {
        match groups.last_mut() {
            Some((name, to)) if trouble.from <= *to => {
                *name = format!("{name} and {}", trouble.name);
                *to = (*to).max(trouble.to);
            }
            _ => groups.push((trouble.name.clone(), trouble.to)),
        }
    }
    groups
}

/// When every clean site had got a mail that was asked for after `since`; `None` when one never did.
fn flowed(evidence: &Evidence, since: i64) -> Option<i64> {
    let asked: HashMap<&str, i64> = evidence
        .ledger
        .calls
        .values()
        .filter(|call| call.invoked >= since)
        .flat_map(|call| call.recipients.iter().map(|recipient| (recipient.as_str(), call.invoked)))
        .collect();
    let at = |site: &String| {
        let here = evidence.copies.iter().filter(|copy| {
            copy.recipient.rsplit_once('@').is_some_and(|(_, domain)| domain == site)
                && asked.contains_key(copy.recipient.as_str())
        });
        here.map(|copy| copy.at).min()
    };
    evidence.flows.iter().map(at).try_fold(since, |latest, at| Some(latest.max(at?)))
}
