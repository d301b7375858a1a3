//! Standby dispatchers, a database that goes away, and figures that add up afterwards.

use crate::addresses;
use domain::Closing;
use mailfleet_tests::{Fleet, Kind, mail};
use testkit::until;
use tonic::Code;

const LOAD: usize = 200;

#[tokio::test]
async fn a_standby_dispatcher_takes_over_from_one_that_dies() {
    let mut fleet = Fleet::start().await;
    fleet.launch(Kind::Dispatcher, "standby").await;
    fleet.submit_batch(mail().to_all(addresses(LOAD, "greylist-once", "receiver.test"))).await;
    fleet.crash("dispatcher").await;
    until("the standby leads", async || {
        let leases = fleet.store.leases().await.unwrap();
        leases.iter().any(|lease| lease.live && lease.name == dispatcher::LEASE && lease.owner == "standby")
    })
    .await;
    until("each was tried", async || fleet.sink.stats().refused >= LOAD as u64).await;
    fleet.at_rest().await;
    fleet.clock.advance(std::time::Duration::from_secs(60)).await;
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.deferred, verdict.surplus), (LOAD, LOAD, 0), "{verdict:?}");
}

#[tokio::test]
async fn postgres_is_killed_under_load_and_whatever_was_answered_is_delivered() {
    let mut fleet = Fleet::builder().private_postgres().start().await;
    fleet.submit_batch(mail().to_all(addresses(LOAD, "slow-20ms", "receiver.test"))).await;
    until("mail is in motion", async || fleet.sink.stats().accepted > 20).await;
    fleet.postgres().kill9().await.unwrap();
    // Refused with the advice to repeat, or not answered at all: the key makes the repeat harmless.
    let post = mail().to("ann@receiver.test").key("once");
    let refused = fleet.mails().send_message(post.clone().message()).await.unwrap_err();
    assert!(matches!(refused.code(), Code::Unavailable | Code::DeadlineExceeded), "{refused:?}");
    fleet.postgres().restart().await.unwrap();
    let mut ids = Vec::new();
    until("the repeat is taken", async || match fleet.mails().send_message(post.clone().message()).await {
        Ok(answer) => {
            ids = answer.into_inner().message_ids;
            true
        }
        Err(_) => false,
    })
    .await;
    fleet.know(&ids);
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), LOAD + 1, "{verdict:?}");
    assert!(verdict.surplus <= verdict.doubts);
}

#[tokio::test]
async fn the_figures_by_site_are_what_happened() {
    let fleet = Fleet::start().await;
    let mut post = mail().to_all(addresses(30, "r", "one.test")).to_all(addresses(20, "unknown", "two.test"));
    post = post.to_all(addresses(10, "greylist-once", "two.test"));
    fleet.submit_batch(post).await;
    until("each was tried", async || fleet.sink.stats().refused >= 30).await;
    fleet.at_rest().await;
    fleet.clock.advance(std::time::Duration::from_secs(60)).await;
    until("it is counted", async || {
        let audit = fleet.store.audit().await.unwrap();
        audit.open == 0 && audit.facts == 0
    })
    .await;
    let figures = fleet.store.site_figures(None, None).await;
    let figures = figures.unwrap();
    let of = |site: &str| figures.iter().find(|one| one.site == site).cloned().unwrap_or_default();
    assert_eq!((of("one.test").accepted, of("one.test").delivered), (30, 30));
    let two = of("two.test");
    assert_eq!((two.accepted, two.delivered, two.bounced, two.deferred_then_delivered), (30, 10, 20, 10));
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_fold_that_dies_is_taken_over_and_nothing_is_counted_twice() {
    let mut fleet = Fleet::builder().settings(|settings| settings.analytics.fold_batch = 7).start().await;
    fleet.launch(Kind::Analytics, "standby").await;
    fleet.submit_batch(mail().to_all(addresses(LOAD, "r", "receiver.test"))).await;
    until("the fold is at work", async || fleet.store.audit().await.unwrap().events > 20).await;
    fleet.crash("analytics").await;
    fleet.launch(Kind::Analytics, "third").await;
    fleet.crash("standby").await;
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), LOAD);
}
