//! The interleavings that break a claim protocol with a rule left out.

use crate::desk::{Desk, TERM, deferred, outcome};
use domain::{Closing, fact::FactKind};
use std::time::Duration;
use store::{DoubtPolicy, Parked, Recorded, Verdict, What, Whereabouts};

const AGAIN: DoubtPolicy = DoubtPolicy { resend_transactional: true, resend_bulk: true };
const STOP: DoubtPolicy = DoubtPolicy { resend_transactional: false, resend_bulk: false };

#[tokio::test]
async fn a_message_goes_from_accept_to_delivered_and_is_counted_once() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let released = desk.sending(&lease, "ada@receiver.test").await;
    assert_eq!((released.release, released.attempt), (1, 0));
    let recorded = desk.store.record(&[outcome(&lease, &released, What::Delivered)]).await.unwrap();
    assert_eq!(recorded, [Recorded::Closed(Closing::Delivered)]);
    assert_eq!(desk.whereabouts(released.message).await, Whereabouts::Closed(Closing::Delivered));
    desk.assert_clean().await;
    let words: Vec<_> = desk.view(released.message).await.events.iter().map(|event| event.kind).collect();
    assert_eq!(words, [FactKind::Accepted, FactKind::Final]);
}

#[tokio::test]
async fn a_job_is_claimed_once_however_often_it_is_delivered() {
    let desk = Desk::new().await;
    let (one, two) = (desk.lease(0).await, desk.lease(1).await);
    let released = desk.sending(&one, "ada@receiver.test").await;
    assert_eq!(desk.claim(&one, &released).await, None);
    assert_eq!(desk.claim(&two, &released).await, None);
}

#[tokio::test]
async fn a_job_of_an_earlier_release_loses() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let first = desk.released("ada@receiver.test").await;
    let parked =
        Parked { message: first.message, release: first.release, delay: Duration::ZERO, queue: None, site: None };
    assert_eq!(desk.store.park(&[parked]).await.unwrap(), 1);
    let second = desk.release().await.remove(0);
    assert_eq!(second.release, first.release + 1);
    assert_eq!(desk.claim(&lease, &first).await, None);
    assert_eq!(desk.claim(&lease, &second).await, Some(Verdict::Go));
}

#[tokio::test]
async fn nothing_is_claimed_under_a_lease_that_is_over() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let released = desk.released("ada@receiver.test").await;
    desk.store.advance_clock(TERM).await.unwrap();
    assert_eq!(desk.claim(&lease, &released).await, None);
    let next = desk.lease(0).await;
    assert!(next.epoch > lease.epoch);
    assert_eq!(desk.claim(&lease, &released).await, None);
    assert_eq!(desk.claim(&next, &released).await, Some(Verdict::Go));
}

#[tokio::test]
async fn a_lease_that_was_lost_is_not_renewed() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    assert_eq!(desk.store.renew_leases(&[lease.epoch], TERM).await.unwrap(), [lease.epoch]);
    desk.store.advance_clock(TERM).await.unwrap();
    assert!(desk.store.renew_leases(&[lease.epoch], TERM).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_deferral_rests_until_it_is_due_and_counts_an_attempt() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let first = desk.sending(&lease, "ada@receiver.test").await;
    assert_eq!(desk.store.record(&[outcome(&lease, &first, deferred())]).await.unwrap(), [Recorded::Open]);
    assert!(desk.release().await.is_empty(), "it is not due yet");
    desk.store.advance_clock(Duration::from_secs(61)).await.unwrap();
    let second = desk.release().await.remove(0);
    assert_eq!((second.release, second.attempt), (2, 1));
    desk.assert_clean().await;
}

#[tokio::test]
async fn what_was_given_back_counts_no_attempt() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let first = desk.sending(&lease, "ada@receiver.test").await;
    let back = outcome(&lease, &first, What::GivenBack { wait: Duration::ZERO });
    assert_eq!(desk.store.record(&[back]).await.unwrap(), [Recorded::Open]);
    let second = desk.release().await.remove(0);
    assert_eq!((second.release, second.attempt), (2, 0));
    assert_eq!(desk.view(first.message).await.events.len(), 1, "nothing happened that the log would tell");
}

#[tokio::test]
async fn a_record_that_is_repeated_after_a_lost_answer_changes_nothing() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    for what in [What::Delivered, What::Bounced, deferred(), What::InDoubt] {
        let released = desk.sending(&lease, "ada@receiver.test").await;
        let outcome = outcome(&lease, &released, what);
        desk.store.record(std::slice::from_ref(&outcome)).await.unwrap();
        let before = desk.view(released.message).await;
        assert_eq!(desk.store.record(&[outcome]).await.unwrap(), [Recorded::Repeated]);
        let after = desk.view(released.message).await;
        assert_eq!((before.whereabouts, before.events), (after.whereabouts, after.events));
    }
}

#[tokio::test]
async fn a_repeated_deferral_does_not_touch_the_next_attempt() {
    // N1: the number of a release never starts over, so the repeat of attempt 1 finds nothing of attempt 2.
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let first = desk.sending(&lease, "ada@receiver.test").await;
    let lost = outcome(&lease, &first, What::Deferred { wait: Duration::ZERO });
    desk.store.record(std::slice::from_ref(&lost)).await.unwrap();
    let second = desk.release().await.remove(0);
    assert_eq!(desk.claim(&lease, &second).await, Some(Verdict::Go));
    assert_eq!(desk.store.record(&[lost]).await.unwrap(), [Recorded::Repeated]);
    assert!(matches!(desk.whereabouts(first.message).await, Whereabouts::Sending { .. }));
}

#[tokio::test]
async fn a_stopped_sender_that_wakes_overwrites_nothing() {
    let desk = Desk::new().await;
    let old = desk.lease(0).await;
    let first = desk.sending(&old, "ada@receiver.test").await;
    desk.store.advance_clock(TERM * 2).await.unwrap();
    assert_eq!(desk.store.open_doubts(Duration::from_secs(1), 10).await.unwrap(), 1);
    assert_eq!(desk.store.close_doubts(AGAIN, 10).await.unwrap(), [(first.message, None)]);
    let new = desk.lease(0).await;
    let second = desk.release().await.remove(0);
    assert_eq!((second.release, second.attempt), (2, 1));
    assert_eq!(desk.claim(&new, &second).await, Some(Verdict::Go));
    assert_eq!(desk.store.record(&[outcome(&old, &first, deferred())]).await.unwrap(), [Recorded::Late]);
    assert!(matches!(desk.whereabouts(first.message).await, Whereabouts::Sending { .. }));
    let done = desk.store.record(&[outcome(&new, &second, What::Delivered)]).await.unwrap();
    assert_eq!(done, [Recorded::Closed(Closing::Delivered)]);
    desk.assert_clean().await;
}

#[tokio::test]
async fn a_late_250_ends_the_message_whatever_the_attempt_under_way_comes_to() {
    for last in [deferred(), What::Bounced, What::InDoubt, What::GivenBack { wait: Duration::ZERO }] {
        let desk = Desk::new().await;
        let old = desk.lease(0).await;
        let first = desk.sending(&old, "ada@receiver.test").await;
        desk.store.advance_clock(TERM * 2).await.unwrap();
        desk.store.open_doubts(Duration::from_secs(1), 10).await.unwrap();
        desk.store.close_doubts(AGAIN, 10).await.unwrap();
        let new = desk.lease(0).await;
        let second = desk.release().await.remove(0);
        desk.claim(&new, &second).await;
        assert_eq!(desk.store.record(&[outcome(&old, &first, What::Delivered)]).await.unwrap(), [Recorded::Late]);
        let done = desk.store.record(&[outcome(&new, &second, last.clone())]).await.unwrap();
        assert_eq!(done, [Recorded::Closed(Closing::Delivered)], "{last:?}");
        assert!(desk.release().await.is_empty(), "nothing is sent again");
        desk.assert_clean().await;
    }
}

#[tokio::test]
async fn a_late_250_closes_a_message_that_rests_or_travels() {
    let desk = Desk::new().await;
    let old = desk.lease(0).await;
    let rests = desk.sending(&old, "ada@receiver.test").await;
    let travels = desk.sending(&old, "bob@receiver.test").await;
    desk.store.advance_clock(TERM * 2).await.unwrap();
    desk.store.open_doubts(Duration::from_secs(1), 10).await.unwrap();
    desk.store.close_doubts(AGAIN, 10).await.unwrap();
    let again = desk.release().await;
    let travelling = again.iter().find(|released| released.message == travels.message).unwrap();
    let resting = again.iter().find(|released| released.message == rests.message).unwrap();
    let park =
        Parked { message: resting.message, release: resting.release, delay: Duration::ZERO, queue: None, site: None };
    desk.store.park(&[park]).await.unwrap();
    let late = [outcome(&old, &rests, What::Delivered), outcome(&old, &travels, What::Delivered)];
    assert_eq!(desk.store.record(&late).await.unwrap(), [Recorded::Late, Recorded::Late]);
    // Whoever meets them first closes them: the release the one, the claim the other.
    assert!(desk.release().await.is_empty());
    let new = desk.lease(0).await;
    assert_eq!(desk.claim(&new, travelling).await, Some(Verdict::Closed(Closing::Delivered)));
    for id in [rests.message, travels.message] {
        assert_eq!(desk.whereabouts(id).await, Whereabouts::Closed(Closing::Delivered));
    }
    desk.assert_clean().await;
}

#[tokio::test]
async fn a_dot_without_a_reply_is_doubt_and_never_a_deferral() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let released = desk.sending(&lease, "ada@receiver.test").await;
    desk.store.record(&[outcome(&lease, &released, What::InDoubt)]).await.unwrap();
    assert!(matches!(desk.whereabouts(released.message).await, Whereabouts::InDoubt { .. }));
    assert_eq!(desk.store.close_doubts(STOP, 10).await.unwrap(), [(released.message, Some(Closing::Unknown))]);
    assert!(desk.release().await.is_empty());
    let kinds: Vec<_> = desk.view(released.message).await.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [FactKind::Accepted, FactKind::Doubt, FactKind::Final]);
    desk.assert_clean().await;
}

#[tokio::test]
async fn a_live_owner_is_not_doubted_however_long_its_receiver_takes() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    desk.sending(&lease, "ada@receiver.test").await;
    for _ in 0..20 {
        desk.store.advance_clock(TERM / 2).await.unwrap();
        desk.store.renew_leases(&[lease.epoch], TERM).await.unwrap();
        assert_eq!(desk.store.open_doubts(Duration::ZERO, 10).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn repair_puts_back_what_was_lost_and_leaves_what_was_claimed() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let lost = desk.released("ada@receiver.test").await;
    let claimed = desk.sending(&lease, "bob@receiver.test").await;
    assert_eq!(desk.store.repair(Duration::from_secs(45), 10, 3).await.unwrap().rested, 0);
    desk.store.advance_clock(Duration::from_secs(46)).await.unwrap();
    assert_eq!(desk.store.repair(Duration::from_secs(45), 10, 3).await.unwrap().rested, 1);
    assert!(matches!(desk.whereabouts(claimed.message).await, Whereabouts::Sending { .. }));
    let again = desk.release().await.remove(0);
    assert_eq!((again.message, again.release, again.losses), (lost.message, 2, 1));
    let other = desk.lease(1).await;
    assert_eq!(desk.claim(&other, &lost).await, None, "the copy that turns up loses");
    assert_eq!(desk.claim(&other, &again).await, Some(Verdict::Go));
}

#[tokio::test]
async fn a_wiped_broker_is_no_fault_of_the_message_and_a_poisonous_one_ends() {
    let desk = Desk::new().await;
    desk.waiting("ada@receiver.test").await;
    desk.store.observe_bus("streams of the first life").await.unwrap();
    for life in 0..5 {
        assert_eq!(desk.release().await.len(), 1);
        desk.store.observe_bus(&format!("streams of life {life}")).await.unwrap();
        let repaired = desk.store.repair(Duration::from_secs(45), 10, 3).await.unwrap();
        assert_eq!((repaired.rested, repaired.poison), (1, 0));
    }
    for loss in 1..=3 {
        let released = desk.release().await.remove(0);
        desk.store.advance_clock(Duration::from_secs(46)).await.unwrap();
        let repaired = desk.store.repair(Duration::from_secs(45), 10, 3).await.unwrap();
        assert_eq!(repaired.poison, usize::from(loss == 3));
        if loss == 3 {
            assert_eq!(desk.whereabouts(released.message).await, Whereabouts::Closed(Closing::Failed));
        }
    }
    desk.assert_clean().await;
}

#[tokio::test]
async fn an_epoch_is_raised_once_for_each_other_broker() {
    let desk = Desk::new().await;
    let first = desk.store.observe_bus("a").await.unwrap();
    assert_eq!(desk.store.observe_bus("a").await.unwrap(), first);
    assert_eq!(desk.store.observe_bus("b").await.unwrap(), first + 1);
    assert_eq!(desk.store.bus_state().await.unwrap().identity, "b");
}
