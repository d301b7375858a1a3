//! What holds mail back, and lets it go: schedules, pauses, cancels, suppressions, the time to live.

use crate::addresses;
use domain::{Closing, Lane};
use mailfleet_tests::{Fleet, mail};
use proto::v1::{self, MessageState};
use std::time::Duration;
use testkit::until;

const CAMPAIGN: &str = "0190a0b0-0000-7000-8000-00000000c001";
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_greylisted_mail_is_deferred_and_delivered_when_its_time_comes() {
    let fleet = Fleet::start().await;
    let id = fleet.submit(mail().to("greylist-once@sink.test")).await;
    let seen = fleet.settled(id).await;
    assert_eq!((seen.state(), seen.attempts), (MessageState::Queued, 1));
    assert!(seen.next_attempt_at.is_some() && !seen.waits_for.is_empty());
    fleet.clock.advance(MINUTE).await;
    let seen = fleet.ended(id).await;
    // The jump of the clock may make a release look lost, which is no attempt.
    let timeline: Vec<_> = seen.timeline.iter().filter(|event| event.event != "lost_release").collect();
    let events: Vec<&str> = timeline.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(events, ["accepted", "deferred", "delivered"]);
    assert_eq!((timeline[1].smtp_code, timeline[1].bounce_class.as_str()), (450, "greylisted"));
    assert_eq!(timeline.iter().map(|event| event.attempt).collect::<Vec<_>>(), [0, 1, 2]);
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.deferred), (1, 1));
}

#[tokio::test]
async fn every_reply_leads_to_its_own_ending() {
    let fleet = Fleet::start().await;
    let ids =
        fleet.submit_all(mail().to("unknown@a.test").to("full@b.test").to("reject-data@c.test").to("ok@d.test")).await;
    let unknown = fleet.ended(ids[0]).await;
    assert_eq!(unknown.state(), MessageState::Bounced);
    let bounce = unknown.timeline.last().unwrap();
    assert_eq!((bounce.smtp_code, bounce.enhanced_status.as_str()), (550, "5.1.1"));
    assert_eq!(bounce.bounce_class, "invalid_recipient");
    assert_eq!(fleet.ended(ids[2]).await.state(), MessageState::Bounced);
    assert_eq!(fleet.ended(ids[3]).await.state(), MessageState::Delivered);
    assert_eq!(fleet.settled(ids[1]).await.timeline.last().unwrap().smtp_code, 552);
    fleet.clock.advance(48 * 60 * MINUTE).await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_mail_for_later_waits_for_its_time() {
    let fleet = Fleet::start().await;
    let when = fleet.clock.now().await + chrono::Duration::hours(2);
    let ids = fleet.submit_all(mail().to("ann@receiver.test").to("bob@receiver.test").at(when)).await;
    let now = fleet.submit(mail().to("cem@receiver.test")).await;
    fleet.ended(now).await;
    let seen = fleet.get(ids[0]).await;
    assert_eq!((seen.state(), seen.attempts), (MessageState::Queued, 0));
    assert_eq!(seen.next_attempt_at.unwrap().seconds, when.timestamp());
    fleet.clock.advance(121 * MINUTE).await;
    assert_eq!(fleet.assert_sound().await.of(Closing::Delivered), 3);
}

#[tokio::test]
async fn a_mail_that_outlives_its_time_expires() {
    let fleet = Fleet::start().await;
    let id = fleet.submit(mail().to("tempfail@sink.test").time_to_live(5 * MINUTE)).await;
    fleet.settled(id).await;
    fleet.clock.advance(6 * MINUTE).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Expired);
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Expired), verdict.deferred), (1, 1));
}

#[tokio::test]
async fn a_cancelled_mail_is_not_sent_whatever_table_it_rests_in() {
    let fleet = Fleet::start().await;
    let later = fleet.clock.now().await + chrono::Duration::hours(1);
    let scheduled = fleet.submit(mail().to("ann@receiver.test").at(later)).await;
    let deferred = fleet.submit(mail().to("greylist-once@receiver.test")).await;
    fleet.settled(deferred).await;
    let delivered = fleet.submit(mail().to("bob@receiver.test")).await;
    fleet.ended(delivered).await;
    for (id, at_once) in [(scheduled, true), (deferred, true), (delivered, false)] {
        let request = v1::CancelMessageRequest { message_id: id.to_string() };
        let answer = fleet.mails().cancel_message(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.state() == MessageState::Delivered, !at_once, "{:?}", answer.state());
        fleet.mails().cancel_message(request).await.unwrap();
    }
    fleet.clock.advance(120 * MINUTE).await;
    assert_eq!(fleet.ended(scheduled).await.state(), MessageState::Cancelled);
    assert_eq!(fleet.ended(deferred).await.state(), MessageState::Cancelled);
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Cancelled), verdict.of(Closing::Delivered)), (2, 1));
}

#[tokio::test]
async fn a_cancelled_batch_stops_under_way_and_is_closed_in_pieces() {
    const COUNT: usize = 600;
    let fleet = Fleet::builder()
        .settings(|settings| settings.shape(serde_json::json!({"default": {"max_connections": 2, "rate": "none"}})))
        .start()
        .await;
    let (sent, _) = fleet.submit_batch(mail().to_all(addresses(COUNT, "slow-20ms", "receiver.test"))).await;
    until("some are delivered", async || fleet.sink.stats().accepted > 10).await;
    fleet.mails().cancel_batch(v1::CancelBatchRequest { batch_id: sent.batch_id }).await.unwrap();
    let then = fleet.sink.stats().accepted as usize;
    let claimed_ahead = 2 * fleet.settings.sender.desk.ahead_per_connection.get() as usize;
    let verdict = fleet.assert_sound().await;
    let (delivered, cancelled) = (verdict.of(Closing::Delivered), verdict.of(Closing::Cancelled));
    assert_eq!(delivered + cancelled, COUNT);
    assert!(delivered <= then + claimed_ahead, "{delivered} delivered, {then} when it was cancelled");
}

#[tokio::test]
async fn who_is_suppressed_gets_nothing_that_was_not_under_way() {
    let fleet = Fleet::start().await;
    let later = fleet.clock.now().await + chrono::Duration::hours(1);
    let queued = fleet.submit(mail().to("ann@receiver.test").at(later)).await;
    let suppress = v1::AddSuppressionRequest {
        emails: vec!["Ann@Receiver.test".to_owned()],
        reason: "left".to_owned(),
        ..Default::default()
    };
    let answer = fleet.suppressions().add_suppression(suppress).await.unwrap().into_inner();
    assert_eq!((answer.added, answer.messages_closed), (1, 1));
    assert_eq!(fleet.get(queued).await.state(), MessageState::Suppressed);
    // And what comes after it, in either lane.
    let fresh = fleet.submit(mail().to("ann@receiver.test")).await;
    let bulk = fleet.submit(mail().to("ann@receiver.test").lane(Lane::Bulk)).await;
    for id in [fresh, bulk] {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Suppressed);
    }
    let remove = v1::RemoveSuppressionRequest { email: "ann@receiver.test".to_owned() };
    let removed = fleet.suppressions().remove_suppression(remove).await.unwrap().into_inner().removed;
    // A call that is repeated because its answer went wrong on purpose finds it removed.
    assert!(removed || fleet.settings.faults.is_some());
    let welcome = fleet.submit(mail().to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(welcome).await.state(), MessageState::Delivered);
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Suppressed), verdict.of(Closing::Delivered)), (3, 1));
}

#[tokio::test]
async fn no_claim_that_begins_after_a_suppression_succeeds() {
    const COUNT: usize = 300;
    let fleet = Fleet::builder()
        .settings(|settings| settings.shape(serde_json::json!({"default": {"max_connections": 2, "rate": "none"}})))
        .start()
        .await;
    let emails = addresses(COUNT, "slow-20ms", "receiver.test");
    let (_, ids) = fleet.submit_batch(mail().to_all(&emails)).await;
    until("some are delivered", async || fleet.sink.stats().accepted > 10).await;
    let mut suppressed = Vec::new();
    for index in (0..COUNT).step_by(6) {
        let request = v1::AddSuppressionRequest {
            emails: vec![emails[index].clone()],
            reason: String::new(),
            ..Default::default()
        };
        fleet.suppressions().add_suppression(request).await.unwrap();
        suppressed.push((ids[index].unwrap(), fleet.clock.now().await));
    }
    let patience = chrono::Duration::from_std(fleet.settings.sender.desk.start_within).unwrap();
    let mut stopped = 0;
    for (id, since) in suppressed {
        let seen = fleet.ended(id).await;
        if seen.state() == MessageState::Suppressed {
            stopped += 1;
            continue;
        }
        // Then its claim was there already, and a claimed letter begins within that time or is given back.
        let last = seen.timeline.last().unwrap();
        let (at, took) = (last.at.unwrap(), last.took.unwrap_or_default());
        let at = chrono::DateTime::from_timestamp(at.seconds, at.nanos as u32).unwrap();
        let begun = at - chrono::Duration::seconds(took.seconds) - chrono::Duration::nanoseconds(took.nanos.into());
        assert!(begun <= since + patience + chrono::Duration::seconds(1), "{seen:?} suppressed at {since}");
    }
    assert!(stopped > 20, "{stopped}");
    fleet.assert_sound().await;
}

/// A pause holds what it names and nothing else, and what it held goes when it ends.
async fn pauses(held: &'static str, free: &'static str, selector: impl AsyncFn(&Fleet) -> v1::QueueSelector) {
    let fleet = Fleet::start().await;
    let post = |email: &str, campaign: &str| mail().to(email).campaign(campaign).lane(Lane::Bulk);
    // The queue exists once something has been in it.
    let first = fleet.submit(post(held, CAMPAIGN)).await;
    fleet.ended(first).await;
    let selector = Some(selector(&fleet).await);
    let pause = v1::PauseQueueRequest { selector: selector.clone(), reason: "test".to_owned() };
    fleet.all_queues().pause_queue(pause).await.unwrap();
    let paused = fleet.submit(post(held, CAMPAIGN)).await;
    let urgent = fleet.submit(mail().to(held).campaign(CAMPAIGN).lane(Lane::Bulk)).await;
    if !free.is_empty() {
        let goes = fleet.submit(post(free, "")).await;
        assert_eq!(fleet.ended(goes).await.state(), MessageState::Delivered);
    }
    for id in [paused, urgent] {
        let seen = fleet.seen(id, "waits", |seen| seen.state() == MessageState::Queued).await;
        assert!(!seen.waits_for.is_empty());
        if selector.as_ref().is_some_and(|selector| selector.site.is_none()) {
            assert_eq!(seen.waits_for, "its queue to be resumed");
        }
    }
    fleet.all_queues().resume_queue(v1::ResumeQueueRequest { selector }).await.unwrap();
    assert_eq!(fleet.all_queues().list_queues(v1::ListQueuesRequest {}).await.unwrap().into_inner().pauses, []);
    // A letter that a sender put back for the pause looks again half a minute later.
    fleet.clock.advance(MINUTE).await;
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_paused_tenant_waits() {
    pauses("ann@receiver.test", "", async |fleet| v1::QueueSelector {
        tenant_id: Some(fleet.tenant.clone()),
        ..Default::default()
    })
    .await;
}

#[tokio::test]
async fn a_paused_campaign_waits_and_no_other() {
    pauses("ann@receiver.test", "bob@receiver.test", async |fleet| v1::QueueSelector {
        tenant_id: Some(fleet.tenant.clone()),
        campaign_id: Some(CAMPAIGN.to_owned()),
        ..Default::default()
    })
    .await;
}

#[tokio::test]
async fn a_paused_queue_waits_and_no_other() {
    pauses("ann@gmail.com", "bob@receiver.test", async |fleet| {
        let queues = fleet.store.all_queues().await.unwrap();
        assert_eq!(queues.len(), 1);
        v1::QueueSelector { queue_id: Some(queues[0]), ..Default::default() }
    })
    .await;
}

#[tokio::test]
async fn a_paused_site_waits_and_no_other() {
    pauses("ann@receiver.test", "bob@other.test", async |_| v1::QueueSelector {
        site: Some("receiver.test".to_owned()),
        ..Default::default()
    })
    .await;
}
