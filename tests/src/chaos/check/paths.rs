//! Every change of place against the declared automaton.

use super::{Objections, Rule};
use crate::chaos::evidence::{Change, Evidence, Stored};
use domain::{
    Closing, Place, TRANSITIONS,
    history::{self, Step},
};

pub(super) fn check(evidence: &Evidence, objections: &mut Objections) {
    for (id, changes) in &evidence.trace {
        if let Err(why) = walk(changes, evidence.stored.get(id)) {
            objections.add(Rule::Path, || format!("{id}: {why}; {changes:?}"));
        }
    }
    for (id, stored) in &evidence.stored {
        if !evidence.trace.contains_key(id) {
            objections.add(Rule::Path, || format!("{id} is stored and was never anywhere"));
        }
        if let Err(why) = history::check(&steps(stored)) {
            objections.add(Rule::Path, || format!("{id}: {why}; {:?}", stored.facts));
        }
    }
}

/// Follows a message from place to place.
fn walk(changes: &[Change], stored: Option<&Stored>) -> Result<(), String> {
    let (mut place, mut release) = (Place::Nowhere, 0);
    for together in changes.chunk_by(|one, next| one.txid == next.txid) {
        let (from, to) = step(together)?;
        if from != place {
            return Err(format!("leaves {from:?}, where it was not, but {place:?}"));
        }
        if !TRANSITIONS.iter().any(|way| way.from == from && way.to == to) {
            return Err(format!("no way is declared from {from:?} to {to:?}"));
        }
        let number = together.iter().map(|change| change.release).max().unwrap_or(release);
        if number < release {
            return Err(format!("its release number goes down from {release} to {number}"));
        }
        (place, release) = (to, number);
    }
    let Some(stored) = stored else { return Err("it moves, and is stored nowhere".to_owned()) };
    let ends = match place {
        Place::Closed(closing) => !stored.open && stored.endings().next() == Some(Some(closing)),
        _ => stored.open,
    };
    if ends { Ok(()) } else { Err(format!("its changes end at {place:?}")) }
}

/// The one way that a transaction took.
fn step(together: &[Change]) -> Result<(Place, Place), String> {
    let (mut from, mut to) = (Vec::new(), Vec::new());
    let state = |code: Option<i16>| code.and_then(Place::from_moving_code).ok_or("an unknown state");
    for change in together {
        match change.what {
            1 => to.push(Place::Waiting),
            2 => from.push(Place::Waiting),
            3 => to.push(state(change.new)?),
            4 => from.push(state(change.old)?),
            5 => {
                from.push(state(change.old)?);
                to.push(state(change.new)?);
            }
            _ => to.push(Place::Closed(change.new.and_then(Closing::from_code).ok_or("an unknown ending")?)),
        }
    }
    match (from[..].first(), from.len(), &to[..]) {
        (from, 0 | 1, [to]) => Ok((from.copied().unwrap_or(Place::Nowhere), *to)),
        _ => Err(format!("one transaction leads from {from:?} to {to:?}")),
    }
}

fn steps(stored: &Stored) -> Vec<Step> {
    let steps = stored.facts.iter().map(|(kind, ordinal, closing)| Step {
        kind: *kind,
        ordinal: u32::try_from(*ordinal).unwrap_or(u32::MAX),
        release: None,
        closing: *closing,
    });
    steps.collect()
}
