//! Senders that die: what their journals prove, who takes over, and what a doubt leads to.

use crate::addresses;
use domain::Closing;
use mailfleet_tests::{Fleet, Kind, mail};
use proto::v1::MessageState;
use std::time::Duration;
use testkit::until;

const LOAD: usize = 200;
/// Connections to a site, and so the most dots that are under way at once.
const CONNECTIONS: usize = 5;

async fn fleet() -> Fleet {
    Fleet::builder()
        .settings(|settings| {
            let shape = serde_json::json!({"default": {"max_connections": CONNECTIONS, "rate": "none", "connection_rate": "none"}});
            settings.shape(shape);
        })
        .start()
        .await
}

/// Mail in the hands of the sender, some of it delivered.
async fn in_hand(fleet: &Fleet) {
    fleet.submit_batch(mail().to_all(addresses(LOAD, "slow-50ms", "receiver.test"))).await;
    until("the sender is at work", async || fleet.sink.stats().accepted > 20).await;
}

#[tokio::test]
async fn a_sender_that_comes_back_to_its_journal_doubts_only_dots_without_a_reply() {
    let mut fleet = fleet().await;
    in_hand(&fleet).await;
    fleet.crash("sender").await;
    fleet.launch(Kind::Sender, "sender").await;
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), LOAD);
    assert!(verdict.doubts <= CONNECTIONS, "{verdict:?}");
}

#[tokio::test]
async fn a_sender_that_is_gone_with_its_journal_is_taken_over_from_when_its_lease_ends() {
    let mut fleet = fleet().await;
    in_hand(&fleet).await;
    fleet.crash("sender").await;
    fleet.lose_journal("sender");
    fleet.launch(Kind::Sender, "replacement").await;
    let is_faulty = fleet.settings.faults.is_some();
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), LOAD);
    assert!(verdict.surplus <= verdict.doubts, "{verdict:?}");
    // Outcomes whose record goes wrong on purpose wait for their second try, and are in doubt as well.
    assert!(is_faulty || verdict.surplus <= CONNECTIONS, "{verdict:?}");
}

#[tokio::test]
async fn a_sender_that_is_told_to_stop_leaves_no_doubt() {
    let mut fleet = fleet().await;
    in_hand(&fleet).await;
    fleet.stop("sender").await;
    let seen = fleet.store.leases().await.unwrap();
    assert!(seen.iter().all(|lease| !lease.live || !lease.name.starts_with("shard")), "{seen:?}");
    fleet.launch(Kind::Sender, "replacement").await;
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.doubts, verdict.surplus), (LOAD, 0, 0));
}

#[tokio::test]
async fn two_senders_share_the_shards_and_one_takes_over_from_the_other() {
    let mut fleet = fleet().await;
    fleet.launch(Kind::Sender, "second").await;
    let owned = async |fleet: &Fleet, owner: &str| {
        let leases = fleet.store.leases().await.unwrap();
        leases.iter().filter(|lease| lease.live && lease.name.starts_with("shard") && lease.owner == owner).count()
    };
    let half = usize::from(fleet.settings.shards.0.get()) / 2;
    until("each owns half", async || owned(&fleet, "sender").await == half && owned(&fleet, "second").await == half)
        .await;
    let domains: Vec<String> = (0..40).map(|index| format!("slow-50ms@receiver{index}.test")).collect();
    fleet.submit_batch(mail().to_all(&domains)).await;
    fleet.submit_batch(mail().to_all(addresses(LOAD, "slow-50ms", "receiver.test"))).await;
    until("they are at work", async || fleet.sink.stats().accepted > 20).await;
    fleet.crash("second").await;
    until("the other owns all", async || owned(&fleet, "sender").await == 2 * half).await;
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), LOAD + 40, "{verdict:?}");
    assert!(verdict.surplus <= verdict.doubts);
}

#[tokio::test]
async fn a_dot_without_a_reply_is_doubt_and_goes_again_with_the_same_id() {
    let fleet = Fleet::start().await;
    let id = fleet.submit(mail().to("drop-after-dot-once@receiver.test")).await;
    let seen = fleet.ended(id).await;
    assert_eq!(seen.state(), MessageState::Delivered);
    assert!(seen.timeline.iter().any(|event| event.event == "in_doubt"), "{seen:?}");
    let copies = fleet.sink.mails_to("drop-after-dot-once@receiver.test");
    assert_eq!(copies.len(), 2);
    assert_eq!(copies[0].message_id, copies[1].message_id);
    assert_eq!(copies[0].body, copies[1].body, "the same bytes");
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.doubts, verdict.surplus), (1, 1));
}

#[tokio::test]
async fn doubt_ends_as_unknown_where_the_policy_says_so() {
    let fleet = Fleet::builder().settings(|settings| settings.dispatcher.resend_transactional = false).start().await;
    let id = fleet.submit(mail().to("drop-after-dot@receiver.test")).await;
    assert_eq!(fleet.ended(id).await.state(), MessageState::Unknown);
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Unknown), verdict.doubts, verdict.surplus), (1, 1, 0));
}

#[tokio::test]
async fn a_session_that_breaks_before_the_dot_is_a_deferral_and_never_a_doubt() {
    let fleet = Fleet::start().await;
    let id = fleet.submit(mail().to("drop-before-dot-once@receiver.test")).await;
    let seen = fleet.settled(id).await;
    assert_eq!((seen.state(), seen.attempts), (MessageState::Queued, 1), "{seen:?}");
    fleet.clock.advance(Duration::from_secs(60)).await;
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.doubts, verdict.surplus), (1, 0, 0));
}
