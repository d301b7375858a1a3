use super::*;
use Closing::{Bounced, Cancelled, Delivered, Expired, Failed, Suppressed, Unknown};
use proptest::prelude::*;

fn accepted() -> Step {
    Step { kind: FactKind::Accepted, ordinal: 0, release: Some(0), closing: None }
}

fn attempt(kind: FactKind, release: u32) -> Step {
    Step { kind, ordinal: release, release: Some(release), closing: None }
}

fn deferred(release: u32) -> Step {
    attempt(FactKind::Deferred, release)
}

fn doubt(release: u32) -> Step {
    attempt(FactKind::Doubt, release)
}

fn lost(release: u32) -> Step {
    attempt(FactKind::Lost, release)
}

fn late(release: u32, closing: Option<Closing>) -> Step {
    Step { closing, ..attempt(FactKind::Late, release) }
}

fn end(closing: Closing, release: u32) -> Step {
    Step { kind: FactKind::Final, ordinal: 0, release: Some(release), closing: Some(closing) }
}

#[test]
fn what_can_happen_is_a_history() {
    let lives: &[&[Step]] = &[
        &[],
        &[accepted()],
        &[accepted(), end(Delivered, 1)],
        &[accepted(), end(Bounced, 1)],
        &[accepted(), end(Failed, 1)],
        // Closed while it rested: before its first release, and after one that left no fact.
        &[accepted(), end(Cancelled, 0)],
        &[accepted(), end(Suppressed, 0)],
        &[accepted(), end(Expired, 0)],
        &[accepted(), end(Expired, 7)],
        &[accepted(), deferred(1), deferred(2), end(Delivered, 3)],
        // Parked and given back between the attempts, without a fact.
        &[accepted(), deferred(4), deferred(9), end(Bounced, 12)],
        &[accepted(), deferred(1), end(Expired, 1)],
        &[accepted(), deferred(1), end(Cancelled, 1)],
        &[accepted(), lost(1), lost(2), end(Delivered, 3)],
        &[accepted(), lost(1), lost(2), lost(3), end(Failed, 3)],
        &[accepted(), doubt(1), end(Delivered, 2)],
        &[accepted(), doubt(1), end(Unknown, 1)],
        &[accepted(), doubt(1), end(Cancelled, 1)],
        &[accepted(), doubt(1), doubt(2), late(1, None), deferred(3), late(2, Some(Bounced)), end(Delivered, 4)],
        // Late deliveries: before the end, after it, and beside an attempt under way.
        &[accepted(), doubt(1), late(1, Some(Delivered)), end(Delivered, 1)],
        &[accepted(), doubt(1), end(Delivered, 1), late(1, Some(Delivered))],
        // The mark is committed before the late fact, and a crash in between leaves the mark alone.
        &[accepted(), doubt(1), deferred(2), end(Delivered, 2)],
        &[accepted(), doubt(1), end(Unknown, 1), late(1, Some(Delivered))],
        &[accepted(), doubt(1), late(1, Some(Delivered)), deferred(2), end(Delivered, 2)],
        &[accepted(), doubt(1), late(1, Some(Delivered)), doubt(2), end(Delivered, 2), late(2, Some(Delivered))],
        &[accepted(), doubt(1), late(1, Some(Delivered)), lost(2), end(Delivered, 2)],
        // Between two facts of one statement an outcome of long ago may come in.
        &[accepted(), doubt(1), deferred(2), late(1, None), end(Expired, 2)],
    ];
    for life in lives {
        for count in 0..=life.len() {
            assert_eq!(check(&life[..count]), Ok(()), "{life:?}");
        }
    }
}

#[test]
fn what_cannot_happen_is_none() {
    let no_way: &[(usize, &[Step])] = &[
        (0, &[deferred(1)]),
        (0, &[end(Delivered, 1)]),
        (1, &[accepted(), accepted()]),
        // Nothing follows an end.
        (2, &[accepted(), end(Delivered, 1), end(Delivered, 1)]),
        (2, &[accepted(), end(Cancelled, 1), deferred(1)]),
        (2, &[accepted(), end(Cancelled, 1), deferred(2)]),
        (2, &[accepted(), end(Bounced, 1), accepted()]),
        // A release number tells of one attempt, and rises.
        (2, &[accepted(), deferred(1), deferred(1)]),
        (2, &[accepted(), lost(1), deferred(1)]),
        (2, &[accepted(), deferred(2), deferred(1)]),
        (2, &[accepted(), doubt(3), lost(2)]),
        // Endings that nothing leads to from there.
        (1, &[accepted(), end(Unknown, 1)]),
        (2, &[accepted(), deferred(1), end(Unknown, 1)]),
        (2, &[accepted(), deferred(1), end(Delivered, 1)]),
        (2, &[accepted(), doubt(1), end(Bounced, 1)]),
        (1, &[accepted(), end(Delivered, 0)]),
        (2, &[accepted(), deferred(5), end(Expired, 4)]),
        (1, &[accepted(), end(Failed, 0)]),
    ];
    for (at, life) in no_way {
        assert_eq!(check(life), Err(HistoryError::NoWay { at: *at, step: life[*at] }), "{life:?}");
    }
}

#[test]
fn a_late_outcome_has_a_doubt_of_its_own() {
    let lives: &[(usize, &[Step])] = &[
        (1, &[accepted(), late(1, Some(Delivered))]),
        (2, &[accepted(), deferred(1), late(1, None)]),
        (2, &[accepted(), doubt(1), late(2, Some(Bounced))]),
        (2, &[accepted(), end(Delivered, 1), late(1, Some(Delivered))]),
        (3, &[accepted(), doubt(1), late(1, Some(Bounced)), late(1, Some(Bounced))]),
    ];
    for (at, life) in lives {
        assert_eq!(check(life), Err(HistoryError::LateWithoutDoubt { at: *at, step: life[*at] }), "{life:?}");
    }
}

#[test]
fn what_is_known_to_be_delivered_is_not_tried_again() {
    let lives: &[(usize, &[Step])] = &[
        (4, &[accepted(), doubt(1), late(1, Some(Delivered)), deferred(2), deferred(3)]),
        (4, &[accepted(), doubt(1), late(1, Some(Delivered)), doubt(2), doubt(5)]),
    ];
    for (at, life) in lives {
        assert_eq!(check(life), Err(HistoryError::SentAgain { at: *at, step: life[*at] }), "{life:?}");
    }
}

#[test]
fn a_fact_of_another_shape_than_its_kind_is_none() {
    let shapes = [
        Step { ordinal: 1, ..accepted() },
        Step { release: Some(1), ..accepted() },
        Step { closing: Some(Delivered), ..accepted() },
        Step { closing: None, ..end(Delivered, 1) },
        Step { ordinal: 1, ..end(Delivered, 1) },
        deferred(0),
        Step { release: Some(2), ..deferred(1) },
        Step { closing: Some(Bounced), ..deferred(1) },
        late(1, Some(Expired)),
        deferred(u32::MAX),
        end(Delivered, u32::MAX),
    ];
    for step in shapes {
        assert_eq!(check(&[step]), Err(HistoryError::Malformed { at: 0, step }));
    }
}

#[test]
fn a_reader_need_not_know_the_release_number_of_an_end() {
    let unknown = |step: Step| Step { release: None, ..step };
    assert_eq!(check(&[unknown(accepted()), unknown(deferred(3)), unknown(end(Delivered, 0))]), Ok(()));
    assert_eq!(check(&[unknown(accepted()), unknown(end(Delivered, 0))]), Ok(()));
    let step = unknown(end(Unknown, 0));
    assert_eq!(check(&[unknown(accepted()), step]), Err(HistoryError::NoWay { at: 1, step }));
}

#[test]
fn a_long_rest_is_judged_in_no_time() {
    let mut life = vec![accepted()];
    life.extend((1..200).map(|release| deferred(release * 50)));
    life.push(end(Delivered, 10_000));
    assert_eq!(check(&life), Ok(()));
}

/// The facts of a walk over the table, one choice a step; late outcomes of doubts come in where the walk says so.
fn walk(choices: &[(usize, usize, Option<usize>)]) -> Vec<Step> {
    let (mut place, mut release) = (Place::Nowhere, 0);
    let mut facts = Vec::new();
    let mut doubts = Vec::new();
    let mut known = false;
    for (which, told, comes_late) in choices {
        let ways: Vec<_> = TRANSITIONS.iter().filter(|way| way.from == place && (known || !way.only_known)).collect();
        if let Some(way) = ways.get(which % ways.len().max(1)) {
            release = way.release_after(release);
            place = way.to;
            for kind in way.facts[told % way.facts.len()] {
                facts.push(match (kind, place) {
                    (FactKind::Accepted, _) => accepted(),
                    (FactKind::Final, Place::Closed(closing)) => end(closing, release),
                    _ => attempt(*kind, release),
                });
                if *kind == FactKind::Doubt {
                    doubts.push(release);
                }
            }
            known = !doubts.is_empty() || known;
        }
        if let (Some(index), false) = (comes_late, doubts.is_empty()) {
            let which = doubts.swap_remove(index % doubts.len());
            // A late delivery ends the walk's freedom; the table above has its cases.
            facts.push(late(which, [None, Some(Bounced)][index % 2]));
        }
    }
    facts
}

fn choices() -> impl Strategy<Value = Vec<(usize, usize, Option<usize>)>> {
    prop::collection::vec((0..100_usize, 0..10_usize, prop::option::weighted(0.2, 0..10_usize)), 1..60)
}

proptest! {
    #[test]
    fn every_walk_over_the_table_is_a_history(choices in choices()) {
        let facts = walk(&choices);
        prop_assert_eq!(check(&facts), Ok(()), "{:?}", facts);
        let unnumbered: Vec<Step> = facts.iter().map(|step| Step { release: None, ..*step }).collect();
        prop_assert_eq!(check(&unnumbered), Ok(()), "{:?}", facts);
    }

    #[test]
    fn a_fact_told_twice_is_refused(choices in choices(), from in 0..100_usize, to in 0..100_usize) {
        let mut facts = walk(&choices);
        prop_assume!(!facts.is_empty());
        let from = from % facts.len();
        let to = from + 1 + to % (facts.len() - from);
        facts.insert(to, facts[from]);
        prop_assert!(check(&facts).is_err(), "{:?}", facts);
    }

    #[test]
    fn facts_out_of_their_order_are_refused(choices in choices(), at in 0..100_usize) {
        let mut facts = walk(&choices);
        facts.retain(|step| step.kind != FactKind::Late);
        prop_assume!(facts.len() > 1);
        let at = at % (facts.len() - 1);
        facts.swap(at, at + 1);
        prop_assert!(check(&facts).is_err(), "{:?}", facts);
    }

    #[test]
    fn facts_that_are_swept_together_at_random_are_no_history(seed in prop::collection::vec((0..6_usize, 0..5_u32, 0..7_usize), 3..12)) {
        let facts: Vec<Step> = seed.iter().map(|(kind, release, closing)| match FactKind::ALL[*kind] {
            FactKind::Accepted => accepted(),
            FactKind::Final => end(Closing::ALL[*closing], *release),
            FactKind::Late => late(*release, None),
            kind => attempt(kind, *release),
        }).collect();
        // The few that are one by chance obey the plainest rules.
        if check(&facts).is_ok() {
            prop_assert_eq!(facts[0].kind, FactKind::Accepted);
            prop_assert_eq!(facts.iter().filter(|step| step.kind == FactKind::Accepted).count(), 1);
            let finals: Vec<usize> =
                facts.iter().enumerate().filter(|(_, step)| step.kind == FactKind::Final).map(|(at, _)| at).collect();
            prop_assert!(finals.len() <= 1);
            if let [at] = finals.as_slice() {
                prop_assert!(facts[at + 1..].iter().all(|step| step.kind == FactKind::Late));
            }
            let numbers: Vec<u32> = facts.iter().filter(|step| step.ordinal > 0 && step.kind != FactKind::Late)
                .map(|step| step.ordinal).collect();
            prop_assert!(numbers.is_sorted_by(|one, next| one < next));
        }
    }
}
