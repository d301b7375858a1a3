//! What became of each message, against what is at the sink, and against what forbade it.

use super::{Judgement, Rule};
use crate::chaos::{
    evidence::{Change, Evidence, SiteLimit, Stored},
    ledger::Banned,
};
use domain::{Closing, Place};
use std::collections::HashMap;

pub(super) fn check(evidence: &Evidence, judgement: &mut Judgement) {
    let mut copies: HashMap<&str, usize> = HashMap::new();
    for copy in &evidence.copies {
        let known = copy.id.as_deref().and_then(|id| Some((id, evidence.stored.get(id)?)));
        match known {
            Some((id, stored)) if stored.recipient.eq_ignore_ascii_case(&copy.recipient) => {
                *copies.entry(id).or_default() += 1;
            }
            _ => judgement
                .objections
                .add(Rule::NotAccepted, || format!("at the sink is {copy:?}, which is stored nowhere")),
        }
    }
    for (id, stored) in &evidence.stored {
        message(id, stored, copies.get(id.as_str()).copied().unwrap_or(0), judgement);
    }
    bans(evidence, judgement);
    for limit in &evidence.limits {
        if let Some(broken) = burst(evidence, limit) {
            judgement.objections.add(Rule::Limit, || broken);
        }
    }
}

fn message(id: &str, stored: &Stored, copies: usize, judgement: &mut Judgement) {
    let (mut endings, doubts) = (stored.endings(), stored.doubts());
    let ending = endings.next();
    let objections = &mut judgement.objections;
    if endings.next().is_some() || ending.is_some() == stored.open {
        objections.add(Rule::Endings, || format!("{id}: {stored:?}"));
    }
    if ending.is_none() {
        judgement.lost += 1;
        objections.add(Rule::Lost, || format!("{id} has not ended: {stored:?}"));
    }
    let delivered = ending == Some(Some(Closing::Delivered));
    if delivered && copies == 0 {
        judgement.lost += 1;
        objections.add(Rule::NoCopy, || format!("{id} is delivered, and not at the sink"));
    }
    // An attempt that ended otherwise left no copy, unless nobody knows how it ended.
    let explained = doubts + usize::from(delivered || ending.is_none());
    if copies > explained {
        objections.add(Rule::Copies, || format!("{id} has {copies} copies: {stored:?}"));
    }
    judgement.duplicated += copies.saturating_sub(1);
    judgement.duplicated_unexplained += copies.saturating_sub(explained);
    judgement.in_doubt += doubts;
    if let Some(Some(closing)) = ending {
        *judgement.endings.entry(closing.as_str()).or_default() += 1;
    }
}

/// Whether this is a claim.
fn is_claim(change: &Change) -> bool {
    change.old == Place::Released.moving_code() && change.new == Place::Sending.moving_code() && change.what == 5
}

fn bans(evidence: &Evidence, judgement: &mut Judgement) {
    let mut since: HashMap<&Banned, i64> = HashMap::new();
    for ban in &evidence.ledger.bans {
        let first = since.entry(&ban.of).or_insert(ban.committed);
        *first = (*first).min(ban.committed);
    }
    for (id, stored) in &evidence.stored {
        let of = [Banned::Recipient(stored.recipient.to_lowercase()), Banned::Batch(stored.batch.clone())];
        let Some(committed) = of.iter().filter_map(|of| since.get(of)).min() else { continue };
        let claims = evidence.trace.get(id).into_iter().flatten().filter(|change| is_claim(change));
        for claim in claims.filter(|claim| claim.begun > *committed) {
            let late = claim.begun - committed;
            judgement
                .objections
                .add(Rule::Ban, || format!("{id} was claimed {late} µs after it was forbidden: {claim:?}"));
        }
    }
}

/// A window in which a site got more than it may.
fn burst(evidence: &Evidence, limit: &SiteLimit) -> Option<String> {
    let here = |recipient: &str| recipient.rsplit_once('@').is_some_and(|(_, domain)| domain == limit.domain);
    let mut times: Vec<i64> = evidence.copies.iter().filter(|copy| here(&copy.recipient)).map(|copy| copy.at).collect();
    times.sort_unstable();
    for (first, from) in times.iter().enumerate() {
        for (last, to) in times.iter().enumerate().skip(first) {
            // The sink counts in milliseconds: a window may be one longer than it looks.
            let window = (to - from) as f64 / 1e6 + 0.001;
            let starts = 1 + (window * limit.per_second).floor() as u64;
            let taken = (last - first + 1) as u64;
            if taken > starts + limit.on_top {
                return Some(format!("{} got {taken} copies within {window:.3} s, from {from} on", limit.domain));
            }
        }
    }
    None
}
