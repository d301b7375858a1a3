//! Cancel, suppress, pause, expire: what must not be sent is not claimed, wherever it rests.

use crate::desk::{Desk, deferred, outcome};
use domain::{Closing, Mailbox};
use std::time::Duration;
use store::{
    NewSuppression, PauseSelector, Recorded, Suppressed, SuppressionCause, UnsettledMark, Verdict, What, Whereabouts,
};

fn manual(recipient: &Mailbox) -> NewSuppression {
    NewSuppression::all(recipient.clone(), SuppressionCause::Manual)
}

#[tokio::test]
async fn a_cancel_during_an_attempt_keeps_the_next_one_from_happening() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let released = desk.sending(&lease, "ada@receiver.test").await;
    assert!(desk.store.cancel_message(desk.tenant, released.message).await.unwrap());
    assert!(desk.view(released.message).await.cancel_asked);
    let recorded = desk.store.record(&[outcome(&lease, &released, deferred())]).await.unwrap();
    assert_eq!(recorded, [Recorded::Closed(Closing::Cancelled)]);
    desk.assert_clean().await;
}

#[tokio::test]
async fn a_delivery_that_a_cancel_came_too_late_for_stays_a_delivery() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let released = desk.sending(&lease, "ada@receiver.test").await;
    desk.store.cancel_message(desk.tenant, released.message).await.unwrap();
    let recorded = desk.store.record(&[outcome(&lease, &released, What::Delivered)]).await.unwrap();
    assert_eq!(recorded, [Recorded::Closed(Closing::Delivered)]);
}

#[tokio::test]
async fn a_cancelled_message_is_neither_released_nor_claimed() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let travels = desk.released("ada@receiver.test").await;
    let rests = desk.waiting("bob@receiver.test").await;
    for id in [travels.message, rests] {
        desk.store.cancel_message(desk.tenant, id).await.unwrap();
    }
    assert!(desk.release().await.is_empty());
    assert_eq!(desk.claim(&lease, &travels).await, Some(Verdict::Closed(Closing::Cancelled)));
    for id in [travels.message, rests] {
        assert_eq!(desk.whereabouts(id).await, Whereabouts::Closed(Closing::Cancelled));
    }
    desk.assert_clean().await;
}

#[tokio::test]
async fn a_cancelled_batch_is_closed_in_pieces_wherever_its_messages_are() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let recipients: Vec<String> = (0..50).map(|n| format!("r{n}@receiver{}.test", n % 7)).collect();
    let names: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let later = desk.call(now, &names, Some(now + chrono::Duration::hours(1)));
    let batch = later.batch;
    let ids: Vec<_> = later.messages.iter().map(|message| message.id).collect();
    desk.store.accept(&[later], now).await.unwrap();
    assert!(desk.store.cancel_batch(desk.tenant, batch).await.unwrap());
    let marks = desk.store.unsettled_marks(10).await.unwrap();
    assert_eq!(marks, [UnsettledMark::CancelBatch { batch, size: 50 }]);
    assert_eq!(desk.store.refuse(&ids[..20], Closing::Cancelled).await.unwrap(), 20);
    assert!(!desk.store.settle_mark(&marks[0]).await.unwrap(), "some rest still");
    assert_eq!(desk.store.refuse(&ids, Closing::Cancelled).await.unwrap(), 30);
    assert!(desk.store.settle_mark(&marks[0]).await.unwrap());
    assert!(desk.store.unsettled_marks(10).await.unwrap().is_empty());
    desk.assert_clean().await;
}

#[tokio::test]
async fn nobody_cancels_or_reads_the_messages_of_another_tenant() {
    let desk = Desk::new().await;
    let id = desk.waiting("ada@receiver.test").await;
    let stranger = domain::TenantId::new(desk.store.now().await.unwrap());
    assert!(!desk.store.cancel_message(stranger, id).await.unwrap());
    assert!(desk.store.message(Some(stranger), id).await.unwrap().is_none());
    assert_eq!(desk.store.unsettled_count().await.unwrap(), 0);
}

#[tokio::test]
async fn suppressing_a_recipient_closes_what_waits_and_what_travels_to_him() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let travels = desk.released("Ada@receiver.test").await;
    let rests = desk.waiting("ada@receiver.test").await;
    let other = desk.waiting("bob@receiver.test").await;
    let ada: Mailbox = "ada@Receiver.test".parse().unwrap();
    assert_eq!(
        desk.store.suppress(Some(desk.tenant), &[manual(&ada)]).await.unwrap(),
        Suppressed { added: 1, closed: 2 }
    );
    let complaint = NewSuppression::all(ada.clone(), SuppressionCause::Complaint);
    assert_eq!(desk.store.suppress(Some(desk.tenant), &[complaint]).await.unwrap(), Suppressed::default());
    for id in [travels.message, rests] {
        assert_eq!(desk.whereabouts(id).await, Whereabouts::Closed(Closing::Suppressed));
    }
    assert!(matches!(desk.whereabouts(other).await, Whereabouts::Waiting { .. }));
    assert_eq!(desk.claim(&lease, &travels).await, None);
    // What is accepted afterwards is refused by the claim.
    let later = desk.released("ada@receiver.test").await;
    assert_eq!(desk.claim(&lease, &later).await, Some(Verdict::Closed(Closing::Suppressed)));
    assert_eq!(desk.store.suppression(desk.tenant, ada.hash()).await.unwrap().unwrap().cause, SuppressionCause::Manual);
    assert!(desk.store.unsuppress(Some(desk.tenant), &ada).await.unwrap());
    desk.assert_clean().await;
    let figures = desk.store.site_figures(Some(desk.tenant), None).await.unwrap();
    let sum = |of: fn(&store::SiteFigures) -> i64| figures.iter().map(of).sum::<i64>();
    assert_eq!((sum(|site| site.suppressed), sum(|site| site.other)), (3, 0));
}

#[tokio::test]
async fn a_suppression_holds_for_its_tenant_and_a_global_one_for_all() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let stranger = domain::TenantId::new(desk.store.now().await.unwrap());
    let ada: Mailbox = "ada@receiver.test".parse().unwrap();
    desk.store.suppress(Some(stranger), &[manual(&ada)]).await.unwrap();
    let released = desk.released("ada@receiver.test").await;
    assert_eq!(desk.claim(&lease, &released).await, Some(Verdict::Go));
    let waits = desk.waiting("ada@receiver.test").await;
    desk.store.suppress(None, &[manual(&ada)]).await.unwrap();
    assert_eq!(desk.whereabouts(waits).await, Whereabouts::Closed(Closing::Suppressed));
    assert!(desk.store.suppression(desk.tenant, ada.hash()).await.unwrap().unwrap().global);
}

#[tokio::test]
async fn a_claim_that_waits_for_a_row_sees_the_suppression_that_commits_meanwhile() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let released = desk.released("ada@receiver.test").await;
    let pool = desk.pool().await;
    // Somebody holds the row; the claim's snapshot is taken before the suppression, its lock after.
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("select from mailfleet.moving for update").execute(&mut *holder).await.unwrap();
    let suppress = async {
        let blocked = "select count(*) from pg_locks where not granted";
        let waiting = async |least: i64| {
            testkit::until("the others wait for the row", async || {
                let count: i64 = sqlx::query_scalar(blocked).fetch_one(&pool).await.unwrap();
                count >= least
            })
            .await;
        };
        waiting(1).await;
        let ada: Mailbox = "ada@receiver.test".parse().unwrap();
        let entries = [manual(&ada)];
        let suppression = desk.store.suppress(Some(desk.tenant), &entries);
        let release = async {
            waiting(2).await;
            holder.commit().await.unwrap();
        };
        tokio::join!(suppression, release).0.unwrap()
    };
    let (verdict, Suppressed { closed, .. }) = tokio::join!(desk.claim(&lease, &released), suppress);
    // Whoever got the row first, they agree: either it was claimed before the suppression, or it is closed.
    match verdict {
        Some(Verdict::Go) => assert_eq!(closed, 0),
        _ => assert_eq!(desk.whereabouts(released.message).await, Whereabouts::Closed(Closing::Suppressed)),
    }
    desk.assert_clean().await;
}

#[tokio::test]
async fn a_pause_stops_release_and_claim_and_a_resume_lets_both_go_on() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let travels = desk.released("ada@receiver.test").await;
    let rests = desk.waiting("bob@receiver.test").await;
    let now = desk.store.now().await.unwrap();
    let queue = PauseSelector { queue: Some(travels.queue), ..PauseSelector::default() };
    let tenant = PauseSelector { tenant: Some(desk.tenant), ..PauseSelector::default() };
    for selector in [queue, tenant] {
        assert!(desk.store.pause(&selector, "a look at the content", now).await.unwrap());
        assert!(!desk.store.pause(&selector, "again", now).await.unwrap());
        assert!(desk.store.due_queues(&[]).await.unwrap().is_empty());
        assert!(desk.store.resume(&selector).await.unwrap());
    }
    let slot = PauseSelector { slot: Some(travels.slot), ..PauseSelector::default() };
    desk.store.pause(&slot, "the receiver asked", now).await.unwrap();
    assert_eq!(desk.claim(&lease, &travels).await, Some(Verdict::Paused));
    assert!(matches!(desk.whereabouts(travels.message).await, Whereabouts::Waiting { paused: true, .. }));
    desk.store.resume(&slot).await.unwrap();
    let again = desk.release().await;
    assert_eq!(again.len(), 2);
    assert!(again.iter().any(|released| released.message == rests));
    desk.assert_clean().await;
}

#[tokio::test]
async fn a_paused_site_keeps_its_letters_and_not_those_of_its_slot() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let held = desk.released("ada@receiver.test").await;
    let now = desk.store.now().await.unwrap();
    let site = PauseSelector { site: Some(held.site.clone()), ..PauseSelector::default() };
    desk.store.pause(&site, "the receiver asked", now).await.unwrap();
    let free = desk.released("ada@elsewhere.test").await;
    assert_eq!(desk.claim(&lease, &held).await, Some(Verdict::Paused));
    assert_eq!(desk.claim(&lease, &free).await, Some(Verdict::Go));
}

#[tokio::test]
async fn a_message_past_its_time_to_live_is_closed_wherever_it_rests() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let soon = |recipient: &str| {
        let mut call = desk.call(now, &[recipient], Some(now));
        call.messages[0].expires_at = now + chrono::Duration::seconds(60);
        call
    };
    let calls = [soon("a@one.test"), soon("b@two.test"), soon("c@three.test"), soon("d@four.test")];
    let ids: Vec<_> = calls.iter().map(|call| call.messages[0].id).collect();
    desk.store.accept(&calls, now).await.unwrap();
    let lease = desk.store.take_lease("shard.0", "a sender", Duration::from_secs(600)).await.unwrap().unwrap();
    let released = desk.release().await;
    let of = |index: usize| released.iter().find(|released| released.message == ids[index]).unwrap();
    // One is being sent, one is back at rest, one travels, one rests in a paused queue.
    desk.claim(&lease, of(0)).await;
    desk.claim(&lease, of(1)).await;
    let back = outcome(&lease, of(1), What::GivenBack { wait: Duration::ZERO });
    desk.store.record(&[back]).await.unwrap();
    desk.claim(&lease, of(3)).await;
    desk.store.record(&[outcome(&lease, of(3), What::GivenBack { wait: Duration::ZERO })]).await.unwrap();
    let queue = PauseSelector { queue: Some(of(3).queue), ..PauseSelector::default() };
    desk.store.pause(&queue, "held", now).await.unwrap();
    desk.store.advance_clock(Duration::from_secs(61)).await.unwrap();
    let recorded = desk.store.record(&[outcome(&lease, of(0), deferred())]).await.unwrap();
    assert_eq!(recorded, [Recorded::Closed(Closing::Expired)]);
    assert!(desk.release().await.is_empty());
    assert_eq!(desk.claim(&lease, of(2)).await, Some(Verdict::Closed(Closing::Expired)));
    let queues = desk.store.all_queues().await.unwrap();
    assert_eq!(desk.store.expire(&queues, 100).await.unwrap(), 1);
    for id in ids {
        assert_eq!(desk.whereabouts(id).await, Whereabouts::Closed(Closing::Expired));
    }
    desk.assert_clean().await;
}

#[tokio::test]
async fn a_deferral_that_would_come_due_after_the_time_to_live_ends_the_message_now() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let released = desk.sending(&lease, "ada@receiver.test").await;
    let far = outcome(&lease, &released, What::Deferred { wait: Duration::from_secs(30 * 24 * 3600) });
    assert_eq!(desk.store.record(&[far]).await.unwrap(), [Recorded::Closed(Closing::Expired)]);
}

#[tokio::test]
async fn a_cancel_is_never_lost_to_a_message_that_changes_tables() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    for round in 0..30 {
        let id = desk.waiting(&format!("r{round}@receiver.test")).await;
        let (released, cancelled) = tokio::join!(desk.release(), desk.store.cancel_message(desk.tenant, id));
        assert!(cancelled.unwrap());
        // Everything that begins after the cancel was answered sees it.
        for released in released {
            assert_eq!(desk.claim(&lease, &released).await, Some(Verdict::Closed(Closing::Cancelled)));
        }
        desk.release().await;
        assert_eq!(desk.whereabouts(id).await, Whereabouts::Closed(Closing::Cancelled));
    }
    desk.assert_clean().await;
}
