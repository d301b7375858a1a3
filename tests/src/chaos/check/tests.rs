//! The checker itself, proved: it says nothing against an honest run, and objects to each kind of lie.

use super::*;
use crate::chaos::{
    evidence::{Change, Copy, SiteLimit, Stored, Trouble},
    ledger::{Answer, Ban, Banned, Call},
    logs::{LogFinding, Wrong},
    processes::Usage,
};
use domain::{Closing, fact::FactKind};
use store::Audit;

const SECOND: i64 = 1_000_000;

/// Messages that are accepted, claimed and delivered, one a second; the second was in doubt once and came twice, and the
/// third was refused by its receiver.
fn honest() -> Evidence {
    let mut evidence = Evidence {
        audit: Audit { messages: 4, ..Audit::default() },
        limits: vec![SiteLimit { domain: "site.test", per_second: 1.0, on_top: 1 }],
        flows: vec!["site.test".to_owned()],
        troubles: vec![Trouble { name: "kill9".to_owned(), from: 0, to: SECOND / 2 }],
        over: 5 * SECOND,
        drained: Some(6 * SECOND),
        ..Evidence::default()
    };
    for number in 0..4 {
        add(&mut evidence, number);
    }
    // The second one.
    let stored = evidence.stored.get_mut("id1").unwrap();
    stored.facts.insert(1, (FactKind::Doubt, 1, None));
    let trace = evidence.trace.get_mut("id1").unwrap();
    trace.splice(
        4..,
        [change(14, 2, 5, Some(2), Some(3)), change(15, 2, 4, Some(3), None), change(15, 2, 1, None, None)],
    );
    let again = [
        change(16, 3, 2, None, None),
        Change { release: 2, ..change(16, 3, 3, None, Some(1)) },
        Change { release: 2, ..change(17, 4, 5, Some(1), Some(2)) },
        Change { release: 2, ..change(18, 5, 4, Some(2), None) },
        Change { release: 2, ..change(18, 5, 6, None, Some(Closing::Delivered.code())) },
    ];
    trace.extend(again);
    evidence.copies.push(Copy { id: Some("id1".to_owned()), recipient: "r1@site.test".to_owned(), at: 5 * SECOND });
    // The third one.
    evidence.stored.get_mut("id2").unwrap().facts[1].2 = Some(Closing::Bounced);
    evidence.trace.get_mut("id2").unwrap()[4].new = Some(Closing::Bounced.code());
    evidence.copies.retain(|copy| copy.id.as_deref() != Some("id2"));
    evidence
}

fn change(txid: i64, at: i64, what: i16, old: Option<i16>, new: Option<i16>) -> Change {
    Change { txid, begun: at * SECOND, what, release: 1, old, new }
}

fn add(evidence: &mut Evidence, number: i64) {
    let (id, recipient) = (format!("id{number}"), format!("r{number}@site.test"));
    let answer = Answer::Ok { batch: format!("batch{number}"), ids: vec![Some(id.clone())] };
    let invoked = SECOND + number;
    let call = Call { recipients: vec![recipient.clone()], invoked, answer, ..Call::default() };
    evidence.ledger.calls.insert(format!("key{number}"), call);
    let facts = vec![(FactKind::Accepted, 0, None), (FactKind::Final, 0, Some(Closing::Delivered))];
    let stored = Stored { recipient: recipient.clone(), batch: format!("batch{number}"), facts, open: false };
    evidence.stored.insert(id.clone(), stored);
    let at = number + 1;
    let first = Change { release: 0, ..change(number * 10 + 1, at, 1, None, None) };
    evidence.trace.insert(
        id.clone(),
        vec![
            first,
            change(number * 10 + 2, at, 2, None, None),
            change(number * 10 + 2, at, 3, None, Some(1)),
            change(number * 10 + 3, at, 5, Some(1), Some(2)),
            change(number * 10 + 4, at, 6, None, Some(Closing::Delivered.code())),
        ],
    );
    let trace = evidence.trace.get_mut(&id).unwrap();
    trace.push(change(number * 10 + 4, at, 4, Some(2), None));
    evidence.copies.push(Copy { id: Some(id), recipient, at: at * SECOND });
}

/// The rules that are broken after a change to an honest run.
fn broken(change: impl FnOnce(&mut Evidence)) -> Vec<Rule> {
    let mut evidence = honest();
    change(&mut evidence);
    judge(&evidence).objections.counts.into_keys().collect()
}

#[test]
fn an_honest_run_is_sound_and_its_figures_are_right() {
    let judgement = judge(&honest());
    assert!(judgement.is_sound(), "{:#?}", judgement.objections);
    assert_eq!((judgement.accepted, judgement.of("delivered"), judgement.of("bounced")), (4, 3, 1));
    assert_eq!((judgement.lost, judgement.duplicated, judgement.duplicated_unexplained), (0, 1, 0));
    assert_eq!(judgement.in_doubt, 1);
    assert!((judgement.recovery_s_max - 0.5).abs() < 1e-9, "{}", judgement.recovery_s_max);
    assert_eq!(judgement.drain_s, Some(1.0));
}

#[test]
fn a_message_that_was_accepted_and_is_not_stored_is_lost() {
    let lost = |evidence: &mut Evidence| {
        evidence.stored.remove("id3");
        evidence.trace.remove("id3");
        evidence.copies.retain(|copy| copy.id.as_deref() != Some("id3"));
        evidence.audit.messages -= 1;
    };
    assert_eq!(broken(lost), [Rule::Lost]);
    let mut evidence = honest();
    lost(&mut evidence);
    assert_eq!((judge(&evidence).accepted, judge(&evidence).lost), (4, 1));
}

#[test]
fn a_message_that_has_not_ended_is_lost() {
    let open = |evidence: &mut Evidence| {
        let stored = evidence.stored.get_mut("id0").unwrap();
        stored.open = true;
        stored.facts.pop();
        evidence.trace.get_mut("id0").unwrap().truncate(3);
    };
    assert_eq!(broken(open), [Rule::Lost]);
}

#[test]
fn a_message_in_two_places_has_no_one_ending() {
    let both = broken(|evidence| evidence.stored.get_mut("id0").unwrap().open = true);
    assert!(both.contains(&Rule::Endings), "{both:?}");
    let twice = broken(|evidence| {
        let facts = &mut evidence.stored.get_mut("id0").unwrap().facts;
        facts.push((FactKind::Final, 0, Some(Closing::Delivered)));
    });
    assert!(twice.contains(&Rule::Endings), "{twice:?}");
}

#[test]
fn a_delivered_message_without_a_copy_is_found() {
    assert_eq!(broken(|evidence| evidence.copies.retain(|copy| copy.id.as_deref() != Some("id3"))), [Rule::NoCopy]);
}

#[test]
fn a_copy_that_no_doubt_explains_is_found_and_counted() {
    let again = |evidence: &mut Evidence| {
        let copy = Copy { at: 20 * SECOND, ..evidence.copies[0].clone() };
        evidence.copies.push(copy);
    };
    assert_eq!(broken(again), [Rule::Copies]);
    let mut evidence = honest();
    again(&mut evidence);
    let judgement = judge(&evidence);
    assert_eq!((judgement.duplicated, judgement.duplicated_unexplained), (2, 1));
}

#[test]
fn a_copy_of_a_message_that_its_receiver_refused_is_found() {
    let copy = Copy { id: Some("id2".to_owned()), recipient: "r2@site.test".to_owned(), at: 20 * SECOND };
    assert_eq!(broken(|evidence| evidence.copies.push(copy)), [Rule::Copies]);
}

#[test]
fn a_copy_of_nothing_that_was_accepted_is_found() {
    let stranger = Copy { id: Some("id9".to_owned()), recipient: "r9@site.test".to_owned(), at: 20 * SECOND };
    assert_eq!(broken(|evidence| evidence.copies.push(stranger)), [Rule::NotAccepted]);
    let nameless = Copy { id: None, recipient: "r0@site.test".to_owned(), at: 20 * SECOND };
    assert_eq!(broken(|evidence| evidence.copies.push(nameless)), [Rule::NotAccepted]);
    let astray = Copy { id: Some("id3".to_owned()), recipient: "r0@site.test".to_owned(), at: 20 * SECOND };
    assert_eq!(broken(|evidence| evidence.copies.push(astray)), [Rule::NotAccepted]);
}

#[test]
fn what_is_stored_of_a_call_that_was_refused_is_found_and_of_one_without_an_answer_is_right() {
    let answered = |answer: Answer| broken(|evidence| evidence.ledger.calls.get_mut("key0").unwrap().answer = answer);
    assert_eq!(answered(Answer::Refused("InvalidArgument".to_owned())), [Rule::NotAccepted]);
    assert_eq!(answered(Answer::Unknown), []);
    assert_eq!(broken(|evidence| drop(evidence.ledger.calls.remove("key0"))), [Rule::NotAccepted]);
}

#[test]
fn a_call_that_was_stored_twice_or_answered_in_two_ways_is_found() {
    let twice = broken(|evidence| {
        add(evidence, 4);
        evidence.audit.messages += 1;
        evidence.ledger.calls.remove("key4");
        evidence.stored.get_mut("id4").unwrap().recipient = "r0@site.test".to_owned();
        evidence.copies.last_mut().unwrap().recipient = "r0@site.test".to_owned();
    });
    assert_eq!(twice, [Rule::NotAccepted, Rule::Idempotency]);
    let contradicted = broken(|evidence| evidence.ledger.calls.get_mut("key0").unwrap().contradictions = 1);
    assert_eq!(contradicted, [Rule::Idempotency]);
}

#[test]
fn a_claim_after_a_suppression_or_cancellation_is_found_and_one_before_is_right() {
    let ban = |of: Banned, committed: i64| broken(|evidence| evidence.ledger.bans.push(Ban { of, committed }));
    // It is claimed at four seconds.
    for of in [Banned::Recipient("r3@site.test".to_owned()), Banned::Batch("batch3".to_owned())] {
        assert_eq!(ban(of.clone(), 4 * SECOND - 1), [Rule::Ban]);
        assert_eq!(ban(of, 4 * SECOND), []);
    }
}

#[test]
fn a_way_that_is_not_declared_is_found() {
    // From waiting to sending.
    let jump = broken(|evidence| evidence.trace.get_mut("id0").unwrap()[2].new = Some(2));
    assert_eq!(jump, [Rule::Path]);
    // From a place where it was not.
    let elsewhere = broken(|evidence| evidence.trace.get_mut("id0").unwrap()[3].old = Some(3));
    assert_eq!(elsewhere, [Rule::Path]);
    let gap = broken(|evidence| drop(evidence.trace.get_mut("id0").unwrap().drain(1..3)));
    assert_eq!(gap, [Rule::Path]);
    let back = broken(|evidence| evidence.trace.get_mut("id0").unwrap()[3].release = 0);
    assert_eq!(back, [Rule::Path]);
    let after_the_end = broken(|evidence| evidence.trace.get_mut("id0").unwrap().push(change(99, 9, 1, None, None)));
    assert_eq!(after_the_end, [Rule::Path]);
    let unseen = broken(|evidence| drop(evidence.trace.remove("id0")));
    assert_eq!(unseen, [Rule::Path]);
    let other_end = broken(|evidence| evidence.trace.get_mut("id0").unwrap()[4].new = Some(Closing::Failed.code()));
    assert_eq!(other_end, [Rule::Path]);
}

#[test]
fn facts_that_no_history_has_are_found() {
    let backwards = broken(|evidence| evidence.stored.get_mut("id0").unwrap().facts.reverse());
    assert_eq!(backwards, [Rule::Path]);
}

#[test]
fn a_log_that_does_not_add_up_is_found() {
    assert_eq!(broken(|evidence| evidence.audit.rollup_mismatches = 1), [Rule::Audit]);
    assert_eq!(broken(|evidence| evidence.audit.seq_gaps = 1), [Rule::Audit]);
    assert_eq!(broken(|evidence| evidence.audit.orphans = 1), [Rule::Audit]);
    assert_eq!(broken(|evidence| evidence.audit.messages = 5), [Rule::Audit]);
}

#[test]
fn a_site_that_gets_more_than_its_limit_in_any_window_is_found() {
    // Three within a second, where one a second and one on top are right.
    let burst = broken(|evidence| {
        evidence.copies.iter_mut().filter(|copy| copy.at <= 4 * SECOND).for_each(|copy| copy.at = 4 * SECOND);
    });
    assert!(burst.contains(&Rule::Limit), "{burst:?}");
}

#[test]
fn mail_that_flows_too_late_and_a_backlog_that_does_not_drain_are_found() {
    assert_eq!(broken(|evidence| evidence.drained = None), [Rule::Recovery]);
    assert_eq!(broken(|evidence| evidence.drained = Some(evidence.over + 91 * SECOND)), [Rule::Recovery]);
    let late = broken(|evidence| {
        evidence.troubles[0] = Trouble { name: "stop".to_owned(), from: -90 * SECOND, to: -50 * SECOND };
    });
    assert_eq!(late, [Rule::Recovery]);
}

#[test]
fn what_happens_again_before_mail_flows_is_blamed_on_the_later_trouble() {
    let mut evidence = honest();
    let trouble = |from, to| Trouble { name: "kill9".to_owned(), from: from * SECOND, to: to * SECOND };
    // Nothing flows between the two; a second after the other it does.
    evidence.troubles = vec![trouble(-90, -80), trouble(-79, 0)];
    let judgement = judge(&evidence);
    assert!(judgement.is_sound(), "{:#?}", judgement.objections);
    assert!((judgement.recovery_s_max - 1.0).abs() < 1e-9, "{}", judgement.recovery_s_max);
}

#[test]
fn a_process_that_uses_too_much_is_found() {
    for usage in [
        Usage { resident: MOST_MEMORY + 1, ..Usage::default() },
        Usage { descriptors: MOST_DESCRIPTORS + 1, ..Usage::default() },
        Usage { threads: MOST_THREADS + 1, ..Usage::default() },
    ] {
        assert_eq!(broken(|evidence| evidence.peaks.extend([("sender-a".to_owned(), usage)])), [Rule::Usage]);
    }
}

#[test]
fn what_must_not_be_in_a_log_and_a_service_that_does_not_end_are_found() {
    let finding =
        LogFinding { wrong: Wrong::Panic, member: "sender-a".to_owned(), line: "panicked".to_owned(), count: 1 };
    assert_eq!(broken(|evidence| evidence.logs.push(finding)), [Rule::Log]);
    assert_eq!(broken(|evidence| evidence.stuck.push("sender-a".to_owned())), [Rule::Stop]);
}

#[test]
fn only_some_objections_are_told_and_all_are_counted() {
    let mut objections = Objections::default();
    for number in 0..20 {
        objections.add(Rule::Lost, || number.to_string());
    }
    assert_eq!((objections.of(Rule::Lost), objections.told.len()), (20, TOLD));
}
