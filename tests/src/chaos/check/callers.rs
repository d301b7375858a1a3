//! What callers were told, against what is stored.

use super::{Judgement, Rule};
use crate::chaos::{evidence::Evidence, ledger::Answer};
use std::collections::{HashMap, HashSet};

pub(super) fn check(evidence: &Evidence, judgement: &mut Judgement) {
    judgement.accepted = evidence.stored.len();
    let mut asked = HashMap::new();
    for (key, call) in &evidence.ledger.calls {
        asked.extend(call.recipients.iter().map(|recipient| (recipient.as_str(), (key, call))));
        if call.contradictions > 0 {
            judgement.objections.add(Rule::Idempotency, || format!("{key} was answered in two ways"));
        }
        let Answer::Ok { ids, .. } = &call.answer else { continue };
        if ids.len() != call.recipients.len() {
            judgement
                .objections
                .add(Rule::Idempotency, || format!("{key} has another number of answers than recipients"));
        }
        for (id, recipient) in ids.iter().zip(&call.recipients) {
            let Some(id) = id else { continue };
            match evidence.stored.get(id) {
                Some(stored) if stored.recipient.eq_ignore_ascii_case(recipient) => {}
                other => {
                    judgement.accepted += usize::from(other.is_none());
                    judgement.lost += usize::from(other.is_none());
                    let rule = if other.is_none() { Rule::Lost } else { Rule::Idempotency };
                    judgement.objections.add(rule, || format!("{key} was answered {id}, under which is {other:?}"));
                }
            }
        }
    }
    let mut seen = HashSet::new();
    for (id, stored) in &evidence.stored {
        let recipient = stored.recipient.to_lowercase();
        match asked.get(recipient.as_str()) {
            None => judgement.objections.add(Rule::NotAccepted, || format!("nobody asked for {id}: {stored:?}")),
            Some((key, call)) => match &call.answer {
                Answer::Refused(code) => judgement
                    .objections
                    .add(Rule::NotAccepted, || format!("{key} was refused with {code}, and {id} of it is stored")),
                Answer::Ok { ids, .. } if !ids.iter().flatten().any(|known| known == id) => judgement
                    .objections
                    .add(Rule::NotAccepted, || format!("{key} was accepted, and {id} is none of its messages")),
                Answer::Ok { .. } | Answer::Unknown => {}
            },
        }
        if !seen.insert(recipient) {
            judgement.objections.add(Rule::Idempotency, || format!("one recipient has two messages, one of them {id}"));
        }
    }
}
