//! The broker and its users under faults: nothing that was accepted is lost, nothing is sent twice.

use crate::addresses;
use domain::{Closing, Lane};
use mailfleet_tests::{Fleet, Kind, Verdict, mail};
use proto::v1::MessageState;
use testkit::until;

/// Mails of a load.
const LOAD: usize = 300;

/// Many mails in both lanes, to receivers that take a moment.
async fn load(fleet: &Fleet) {
    let (answer, _) = fleet.submit_batch(mail().to_all(addresses(LOAD, "slow-20ms", "receiver.test"))).await;
    assert_eq!(answer.accepted as usize, LOAD);
    for chunk in addresses(50, "slow-20ms.urgent", "other.test").chunks(25) {
        fleet.submit_all(mail().to_all(chunk)).await;
    }
}

/// All of it is delivered, each once.
fn all_delivered_once(verdict: &Verdict) {
    assert_eq!(verdict.of(Closing::Delivered), LOAD + 50, "{verdict:?}");
    assert_eq!((verdict.doubts, verdict.surplus), (0, 0), "{verdict:?}");
}

async fn in_motion(fleet: &Fleet) {
    until("mail is in motion", async || fleet.sink.stats().accepted > 20).await;
}

#[tokio::test]
async fn mail_is_accepted_without_a_broker_and_goes_when_it_is_back() {
    let mut fleet = Fleet::builder().private_nats().start().await;
    fleet.nats().stop().await.unwrap();
    let urgent = fleet.submit(mail().to("ann@receiver.test")).await;
    let bulk = fleet.submit(mail().to("bob@receiver.test").lane(Lane::Bulk)).await;
    assert!(matches!(fleet.get(urgent).await.state(), MessageState::Queued | MessageState::Released));
    fleet.nats().restart().await.unwrap();
    for id in [urgent, bulk] {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    }
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.surplus), (2, 0));
}

#[tokio::test]
async fn a_broker_that_is_killed_and_wiped_under_load_loses_and_doubles_nothing() {
    let mut fleet = Fleet::builder().private_nats().start().await;
    load(&fleet).await;
    for _ in 0..3 {
        in_motion(&fleet).await;
        fleet.nats().wipe().await.unwrap();
        let seen = fleet.sink.stats().accepted;
        until("mail moves again", async || fleet.sink.stats().accepted > seen + 20).await;
    }
    all_delivered_once(&fleet.assert_sound().await);
}

#[tokio::test]
async fn a_renderer_that_dies_with_chunks_in_hand_is_replaced() {
    let mut fleet = Fleet::start().await;
    load(&fleet).await;
    fleet.crash("renderer").await;
    fleet.submit_all(mail().to_all(addresses(10, "late", "receiver.test"))).await;
    fleet.launch(Kind::Renderer, "another").await;
    fleet.crash("another").await;
    fleet.launch(Kind::Renderer, "renderer").await;
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.surplus), (LOAD + 60, 0), "{verdict:?}");
}

#[tokio::test]
async fn ingest_that_dies_between_commit_and_publish_leaves_mail_that_goes_all_the_same() {
    let mut fleet = Fleet::start().await;
    for chunk in addresses(200, "r", "receiver.test").chunks(50) {
        fleet.submit_all(mail().to_all(chunk)).await;
    }
    fleet.crash("ingest").await;
    fleet.launch(Kind::Ingest, "ingest").await;
    let id = fleet.submit(mail().to("ann@receiver.test")).await;
    fleet.ended(id).await;
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.surplus), (201, 0), "{verdict:?}");
}

#[tokio::test]
async fn everything_dies_once_and_every_mail_still_has_one_ending() {
    let mut fleet = Fleet::builder().private_nats().private_postgres().start().await;
    load(&fleet).await;
    in_motion(&fleet).await;
    fleet.crash("sender").await;
    fleet.nats().wipe().await.unwrap();
    fleet.launch(Kind::Sender, "sender").await;
    fleet.crash("dispatcher").await;
    fleet.launch(Kind::Dispatcher, "dispatcher").await;
    fleet.postgres().restart().await.unwrap();
    fleet.crash("renderer").await;
    fleet.launch(Kind::Renderer, "renderer").await;
    fleet.crash("analytics").await;
    fleet.launch(Kind::Analytics, "analytics").await;
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), LOAD + 50, "{verdict:?}");
}
