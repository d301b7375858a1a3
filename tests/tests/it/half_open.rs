//! Neighbours that neither answer nor hang up: the worst kind.

use crate::addresses;
use domain::Closing;
use mailfleet_tests::{Fleet, Kind, mail};
use testkit::{Fault, until};

const LOAD: usize = 200;

/// Mail in the hands of a sender whose way to Postgres can be disturbed.
async fn sender_behind_a_proxy() -> (Fleet, testkit::FaultProxy) {
    let mut fleet = Fleet::builder()
        .without(Kind::Sender)
        .settings(|settings| {
            let limits = serde_json::json!({"max_connections": 5, "rate": "none", "connection_rate": "none"});
            settings.shape(serde_json::json!({"default": limits}));
        })
        .start()
        .await;
    let proxy = fleet.before_postgres().await;
    fleet.launch_through(Kind::Sender, "first", &proxy).await;
    fleet.ready().await;
    fleet.submit_batch(mail().to_all(addresses(LOAD, "slow-50ms", "receiver.test"))).await;
    until("the sender is at work", async || fleet.sink.stats().accepted > 20).await;
    (fleet, proxy)
}

async fn owned_by(fleet: &Fleet, owner: &str) -> usize {
    let leases = fleet.store.leases().await.unwrap();
    leases.iter().filter(|lease| lease.live && lease.name.starts_with("shard") && lease.owner == owner).count()
}

#[tokio::test]
async fn a_sender_cut_off_from_postgres_stops_before_its_lease_ends_and_loses_to_the_next_owner() {
    let (mut fleet, proxy) = sender_behind_a_proxy().await;
    proxy.set(Fault::Hold);
    fleet.launch(Kind::Sender, "second").await;
    let all = usize::from(fleet.settings.shards.0.get());
    until("the second owns all shards", async || owned_by(&fleet, "second").await == all).await;
    until("the second delivers", async || fleet.sink.stats().accepted > LOAD as u64 / 2).await;
    // The first wakes up with outcomes of claims that are no longer its own.
    proxy.set(Fault::Nothing);
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), LOAD, "{verdict:?}");
    assert!(verdict.surplus <= verdict.doubts, "{verdict:?}");
}

#[tokio::test]
async fn what_is_claimed_under_a_lease_that_is_over_waits_for_no_repair() {
    let mut fleet = Fleet::builder()
        .without(Kind::Sender)
        .settings(|settings| settings.dispatcher.repair_after = 3 * testkit::LIMIT)
        .start()
        .await;
    let proxy = fleet.before_postgres().await;
    fleet.launch_through(Kind::Sender, "first", &proxy).await;
    fleet.ready().await;
    let warm = fleet.submit(mail().to("bob@receiver.test")).await;
    fleet.ended(warm).await;
    // Its claim reaches Postgres when the lease is over, and finds nothing to claim.
    proxy.set(Fault::Hold);
    let id = fleet.submit(mail().to("ann@receiver.test")).await;
    until("its lease is over", async || owned_by(&fleet, "first").await == 0).await;
    proxy.set(Fault::Nothing);
    let seen = fleet.ended(id).await;
    assert!(seen.timeline.iter().all(|event| event.event != "lost"), "{seen:?}");
    fleet.assert_sound().await;
}

#[tokio::test]
async fn answers_to_commits_that_get_lost_change_nothing() {
    let (fleet, proxy) = sender_behind_a_proxy().await;
    proxy.set(Fault::LoseAnswers);
    let sent = proxy.passed();
    until("statements went out and were not answered", async || proxy.passed() > sent + 500).await;
    proxy.set(Fault::Cut);
    proxy.set(Fault::Nothing);
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), LOAD, "{verdict:?}");
    assert!(verdict.surplus <= verdict.doubts, "{verdict:?}");
}

#[tokio::test]
async fn an_accept_whose_answer_was_lost_is_there_when_it_is_repeated() {
    let mut fleet = Fleet::start().await;
    let proxy = fleet.before_postgres().await;
    fleet.crash("ingest").await;
    fleet.settings.ingest.server.call_timeout = std::time::Duration::from_secs(2);
    fleet.launch_through(Kind::Ingest, "ingest", &proxy).await;
    let warm = fleet.submit(mail().to("bob@receiver.test")).await;
    fleet.ended(warm).await;
    proxy.set(Fault::LoseAnswers);
    let post = mail().to("ann@receiver.test").key("once");
    let lost = fleet.mails().send_message(post.clone().message()).await.unwrap_err();
    assert!(matches!(lost.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded), "{lost:?}");
    proxy.set(Fault::Cut);
    proxy.set(Fault::Nothing);
    let mut ids = Vec::new();
    until("the repeat is answered", async || match fleet.mails().send_message(post.clone().message()).await {
        Ok(answer) => {
            ids = answer.into_inner().message_ids;
            true
        }
        Err(_) => false,
    })
    .await;
    fleet.know(&ids);
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.surplus), (2, 0));
}

#[tokio::test]
async fn a_broker_that_says_nothing_holds_mail_up_and_loses_none() {
    let mut fleet = Fleet::builder().without(Kind::Renderer).without(Kind::Sender).start().await;
    let proxy = fleet.before_nats().await;
    let direct = std::mem::replace(&mut fleet.settings.bus.url, format!("nats://{}", proxy.address()));
    fleet.launch(Kind::Renderer, "renderer").await;
    fleet.launch(Kind::Sender, "sender").await;
    fleet.ready().await;
    fleet.submit_batch(mail().to_all(addresses(LOAD, "slow-20ms", "receiver.test"))).await;
    for fault in [Fault::Hold, Fault::LoseAnswers, Fault::Cut] {
        let before = fleet.sink.stats().accepted;
        until("mail moves", async || fleet.sink.stats().accepted > before + 10).await;
        proxy.set(fault);
        let sent = proxy.passed();
        // What was pulled already goes on, and then there is nothing to do but to ask the broker again.
        until("the fault was felt", async || fault == Fault::Cut || fault == Fault::Hold || proxy.passed() > sent)
            .await;
        proxy.set(Fault::Nothing);
    }
    fleet.settings.bus.url = direct;
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.doubts, verdict.surplus), (LOAD, 0, 0), "{verdict:?}");
}
