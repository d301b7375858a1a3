//! Who waits for whom, and how fast a receiver is sent to.

use crate::addresses;
use domain::{Closing, Lane};
use mailfleet_tests::{
    Fleet, Kind,
    dns::{DnsServer, Table},
    mail,
};
use proto::v1::MessageState;
use sender::{AddressPolicy, DirectConfig, RouteConfig};
use serde_json::json;
use sqlx::Connection;
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use testkit::until;

#[tokio::test]
async fn a_receiver_that_hangs_delays_no_other() {
    const CONNECTIONS: usize = 4;
    let fleet = Fleet::builder()
        .sink(|sink| sink.hang = Duration::from_secs(60))
        .settings(|settings| {
            settings.sender.deadlines.dot = Duration::from_secs(10);
            let default = json!({"max_connections": CONNECTIONS, "rate": "none", "connection_rate": "none"});
            settings.shape(json!({"default": default}));
        })
        .start()
        .await;
    let stuck = fleet.submit_all(mail().to_all(addresses(8, "hang-after-dot-once", "stuck.test"))).await;
    until("the receiver hangs", async || fleet.sink.stats().accepted as usize >= CONNECTIONS).await;
    let (_, ids) = fleet.submit_batch(mail().to_all((0..100).map(|index| format!("ann@r{index}.test")))).await;
    for id in ids.into_iter().flatten() {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    }
    // All of them overtook the ones that hang, whose deadline has not even come.
    let mut hanging = 0;
    for id in stuck {
        hanging += usize::from(fleet.get(id).await.state() == MessageState::Sending);
    }
    assert!(hanging >= CONNECTIONS, "{hanging}");
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.doubts), (108, 8), "{verdict:?}");
}

#[tokio::test]
async fn bulk_mail_delays_no_transactional_mail_even_at_the_same_receiver() {
    let fleet = Fleet::builder()
        .settings(|settings| settings.shape(json!({"default": {"max_connections": 3, "rate": "none"}})))
        .start()
        .await;
    let (sent, _) = fleet.submit_batch(mail().to_all(addresses(500, "slow-100ms", "receiver.test"))).await;
    until("bulk is under way", async || fleet.sink.stats().accepted > 5).await;
    for index in 0..5 {
        let begun = Instant::now();
        let id = fleet.submit(mail().to(&format!("urgent.{index}@receiver.test"))).await;
        fleet.ended(id).await;
        // Bulk alone needs 500 × 0.1 s ÷ 2 connections.
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    }
    assert!(fleet.sink.stats().accepted < 400);
    fleet.mails().cancel_batch(proto::v1::CancelBatchRequest { batch_id: sent.batch_id }).await.unwrap();
    fleet.assert_sound().await;
}

#[tokio::test]
async fn urgent_mail_does_not_wait_for_a_claim_of_bulk_mail() {
    let mut fleet = Fleet::builder().without(Kind::Renderer).start().await;
    let (sent, _) = fleet.submit_batch(mail().to_all(addresses(20, "r", "receiver.test"))).await;
    let [mut holder, mut watcher] = [fleet.connection().await, fleet.connection().await];
    let mut count = async |query: &'static str| {
        let count: i64 = sqlx::query_scalar(query).fetch_one(&mut watcher).await.unwrap();
        count
    };
    until("bulk is released", async || count("select count(*) from mailfleet.moving").await == 20).await;
    let mut held = holder.begin().await.unwrap();
    sqlx::query("select from mailfleet.moving for update").execute(&mut *held).await.unwrap();
    fleet.launch(Kind::Renderer, "renderer").await;
    let waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    until("the claim waits for its rows", async || count(waits).await > 0).await;
    let urgent = fleet.submit(mail().to("ann@receiver.test")).await;
    assert_eq!(fleet.ended(urgent).await.state(), MessageState::Delivered);
    held.commit().await.unwrap();
    assert_eq!(fleet.assert_sound().await.of(Closing::Delivered), 21, "{sent:?}");
}

#[tokio::test]
async fn a_receiver_never_sees_more_connections_than_it_is_given() {
    let hosts = Table::default().mx("receiver.test", &[(10, "mx.test.")]).host("mx.test", Ipv4Addr::LOCALHOST.into());
    let dns = DnsServer::start(hosts).await;
    let resolvers = vec![dns.address()];
    let fleet = Fleet::builder()
        .settings(|settings| {
            let direct = DirectConfig { resolvers, addresses: AddressPolicy::Any, ..DirectConfig::default() };
            settings.sender.route = Some(RouteConfig::Direct(direct));
            let limits =
                json!({"max_connections": 3, "messages_per_connection": 5, "rate": "none", "connection_rate": "none"});
            settings.shape(json!({"default": limits}));
        })
        .start()
        .await;
    fleet.submit_batch(mail().to_all(addresses(60, "slow-20ms", "receiver.test"))).await;
    fleet.submit_all(mail().lane(Lane::Transactional).to_all(addresses(30, "slow-20ms.u", "receiver.test"))).await;
    until("all are taken", async || fleet.sink.stats().accepted == 90).await;
    let stats = fleet.sink.stats();
    assert!(stats.peak <= 3, "{stats:?}");
    assert!(stats.connections >= 90 / 5, "{stats:?}");
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_receiver_never_gets_mail_faster_than_its_rate() {
    let fleet = Fleet::builder()
        .settings(|settings| {
            let limits = json!({"rate": "50/s", "burst": 5, "connection_rate": "none"});
            settings.shape(
                json!({"sites": {"receiver.test": limits}, "default": {"rate": "none", "connection_rate": "none"}}),
            );
        })
        .start()
        .await;
    let begun = Instant::now();
    fleet.submit_batch(mail().to_all(addresses(150, "r", "receiver.test"))).await;
    until("all are taken", async || fleet.sink.stats().accepted == 150).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(2_850), "150 mails at 50/s in {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.deferred), (150, 0));
}

#[tokio::test]
async fn a_receiver_that_asks_for_patience_gets_it_and_then_its_mail() {
    let fleet = Fleet::start().await;
    let ids = fleet.submit_all(mail().to("busy-once@receiver.test").to("ann@receiver.test")).await;
    let seen = fleet.settled(ids[0]).await;
    assert_eq!((seen.state(), seen.timeline.last().unwrap().smtp_code), (MessageState::Queued, 421));
    fleet.clock.advance(Duration::from_secs(60)).await;
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), 2);
}

#[tokio::test]
async fn a_large_campaign_delays_no_small_one_to_the_same_receiver() {
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.shape(json!({"default": {"max_connections": 4, "rate": "none", "connection_rate": "none"}}))
        })
        .start()
        .await;
    let campaign = |number: u8| format!("0190a0b0-0000-7000-8000-0000000000{number:02}");
    let large = mail().campaign(&campaign(1)).to_all(addresses(800, "slow-50ms.large", "receiver.test"));
    let (large, _) = fleet.submit_batch(large).await;
    until("the large one is under way", async || fleet.sink.stats().accepted > 10).await;
    let small = mail().campaign(&campaign(2)).to_all(addresses(10, "small", "receiver.test"));
    let (_, ids) = fleet.submit_batch(small).await;
    for id in ids.into_iter().flatten() {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    }
    let then = fleet.sink.stats().accepted;
    assert!(then < 400, "{then} of the large one went before the small one was through");
    fleet.mails().cancel_batch(proto::v1::CancelBatchRequest { batch_id: large.batch_id }).await.unwrap();
    fleet.assert_sound().await;
}
