//! The bus against a real broker.

mod common;

use common::{Broker, eventually, job, letter, shards, soon};
use domain::{Lane, ShardCount};
use mailfleet_bus::{
    Bus, BusConfig, EventSubject, PublishError, RenderChunk, SendChunk, Stage, cut_jobs, cut_letters, topology,
};
use std::{
    num::NonZeroU16,
    time::{Duration, Instant},
};

async fn publish_one_job(bus: &Bus, index: u32) -> RenderChunk {
    let (subject, chunk) = cut_jobs(vec![job(index, "gmail.com")], shards()).remove(0);
    bus.publish_render(&subject, &chunk).await.expect("publishes");
    chunk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_pulled_and_what_is_acknowledged_is_gone() {
    let broker = Broker::start();
    let bus = broker.bus().await;
    let letters = (0..10).map(|index| letter(index, "gmail.com", 40_000)).collect();
    let chunks = cut_letters(letters, shards());
    assert_eq!(chunks.len(), 2);
    for result in bus.publish_all(&chunks, 8).await {
        result.expect("publishes");
    }
    let (subject, _) = chunks[0];
    let mut puller = bus.send_jobs(Lane::Bulk, subject.shard);
    for (_, chunk) in &chunks {
        let delivery = soon(puller.next()).await;
        assert_eq!((delivery.subject, delivery.delivered), (subject, 1));
        assert_eq!(&delivery.payload, chunk);
        delivery.ack().await.expect("acknowledges");
    }
    let empty = async || topology::look(&bus, shards()).await.ok().filter(|sight| sight.chunks == 0);
    eventually("the stream is empty", empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shard_gets_its_own_letters_only() {
    let broker = Broker::start();
    let bus = broker.bus().await;
    let domains = ["gmail.com", "outlook.com", "yahoo.com", "gmx.de", "example.org", "example.net", "example.com"];
    let letters = domains.iter().zip(0..).map(|(domain, index)| letter(index, domain, 10)).collect();
    let chunks: Vec<(_, SendChunk)> = cut_letters(letters, shards());
    assert!(bus.publish_all(&chunks, 3).await.iter().all(Result::is_ok));
    for shard in shards().all() {
        let mut puller = bus.send_jobs(Lane::Bulk, shard);
        for _ in chunks.iter().filter(|(subject, _)| subject.shard == shard) {
            let delivery = soon(puller.next()).await;
            assert_eq!(delivery.subject.shard, shard);
            delivery.ack().await.expect("acknowledges");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_is_handed_back_comes_again() {
    let broker = Broker::start();
    let bus = broker.bus().await;
    let chunk = publish_one_job(&bus, 1).await;
    let mut puller = bus.render_jobs(Lane::Bulk);
    let first = soon(puller.next()).await;
    assert_eq!(first.delivered, 1);
    first.nak(Duration::from_millis(50)).await.expect("hands back");
    let second = soon(puller.next()).await;
    assert_eq!((second.delivered, &second.payload), (2, &chunk));
    second.ack().await.expect("acknowledges");
    assert_eq!(bus.stats().redelivered.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_its_holder_forgets_goes_to_another() {
    let broker = Broker::start();
    let config = BusConfig { ack_wait: Duration::from_millis(300), ..broker.config() };
    let bus = broker.connect(config).await;
    topology::apply(&bus, shards()).await.expect("applies");
    publish_one_job(&bus, 1).await;
    let mut dying = bus.render_jobs(Lane::Bulk);
    drop(soon(dying.next()).await);
    drop(dying);
    let again = soon(bus.render_jobs(Lane::Bulk).next()).await;
    assert!(again.delivered > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_chunk_published_twice_is_there_once() {
    let broker = Broker::start();
    let bus = broker.bus().await;
    let (subject, chunk) = cut_jobs(vec![job(1, "gmail.com")], shards()).remove(0);
    for _ in 0..3 {
        bus.publish_render(&subject, &chunk).await.expect("publishes");
    }
    assert_eq!(topology::look(&bus, shards()).await.expect("looks").chunks, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_puller_outlives_a_broker_that_forgot_everything() {
    let mut broker = Broker::start();
    let bus = broker.bus().await;
    let before = topology::look(&bus, shards()).await.expect("looks").identity.expect("all streams are there");
    let mut puller = bus.render_jobs(Lane::Bulk);
    publish_one_job(&bus, 1).await;
    soon(puller.next()).await.ack().await.expect("acknowledges");

    // From here on the puller waits, across the loss and the time without streams.
    let waiting = {
        let bus = bus.clone();
        async move {
            let delivery = puller.next().await;
            delivery.ack().await.expect("acknowledges");
            (bus.stats().rebuilt.get(), puller)
        }
    };
    let story = async {
        broker.restart();
        let gone = async || topology::look(&bus, shards()).await.ok().filter(|sight| sight.missing.len() == 5);
        let sight = eventually("the streams are seen to be gone", gone).await;
        assert_eq!(sight.identity, None);
        let (subject, chunk) = cut_jobs(vec![job(2, "gmail.com")], shards()).remove(0);
        let error = bus.publish_render(&subject, &chunk).await.expect_err("has no stream");
        assert!(matches!(error, PublishError::NoStream) && !error.is_unknown(), "{error:?}");
        let applied = topology::apply(&bus, shards()).await.expect("applies");
        assert_eq!((applied.created_streams.len(), applied.created_consumers.len()), (5, 10));
        let after = topology::look(&bus, shards()).await.expect("looks").identity.expect("all streams are there");
        assert_ne!(before, after);
        publish_one_job(&bus, 3).await;
    };
    let ((tries, mut puller), ()) = soon(async { tokio::join!(waiting, story) }).await;
    assert!(tries < 200, "{tries} tries");
    publish_one_job(&bus, 4).await;
    soon(puller.next()).await.ack().await.expect("acknowledges");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_puller_waits_without_hurry_for_streams_that_are_not_there_yet() {
    let broker = Broker::start();
    let bus = broker.connect(broker.config()).await;
    let mut puller = bus.render_jobs(Lane::Bulk);
    let begun = Instant::now();
    let story = async {
        eventually("it tried some times", async || (bus.stats().rebuilt.get() >= 5).then_some(())).await;
        // 10, 20, 40 and 80 ms, less a quarter at most.
        assert!(begun.elapsed() >= Duration::from_millis(110));
        topology::apply(&bus, shards()).await.expect("applies");
        publish_one_job(&bus, 1).await;
    };
    let (delivery, ()) = soon(async { tokio::join!(puller.next(), story) }).await;
    delivery.ack().await.expect("acknowledges");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_chunk_may_be_given_up_and_taken_up_again() {
    let broker = Broker::start();
    let bus = broker.bus().await;
    let mut puller = bus.render_jobs(Lane::Bulk);
    for index in 0..50 {
        let given_up = tokio::time::timeout(Duration::from_micros(200), puller.next()).await;
        assert!(given_up.is_err());
        let chunk = publish_one_job(&bus, index).await;
        let delivery = soon(puller.next()).await;
        assert_eq!((delivery.delivered, &delivery.payload), (1, &chunk));
        delivery.ack().await.expect("acknowledges");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_puller_outlives_streams_that_are_deleted_under_it() {
    let broker = Broker::start();
    let bus = broker.bus().await;
    let mut puller = bus.render_jobs(Lane::Bulk);
    publish_one_job(&bus, 1).await;
    soon(puller.next()).await.ack().await.expect("acknowledges");
    let story = async {
        topology::wipe(&bus).await.expect("wipes");
        topology::apply(&bus, shards()).await.expect("applies");
        publish_one_job(&bus, 2).await;
    };
    let (delivery, ()) = soon(async { tokio::join!(puller.next(), story) }).await;
    delivery.ack().await.expect("acknowledges");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_refuses_and_takes_again_when_it_has_room() {
    let broker = Broker::start();
    let config = BusConfig { send_max_bytes: 400_000, ..broker.config() };
    let bus = broker.connect(config).await;
    topology::apply(&bus, shards()).await.expect("applies");
    let chunk = |index| cut_letters(vec![letter(index, "gmail.com", 200_000)], shards()).remove(0);
    let (subject, first) = chunk(1);
    bus.publish_send(&subject, &first).await.expect("has room for one");
    let (_, second) = chunk(2);
    let error = bus.publish_send(&subject, &second).await.expect_err("has no room for two");
    assert!(matches!(error, PublishError::Refused(_)), "{error:?}");
    assert!(!error.is_unknown() && !error.is_permanent());
    let mut puller = bus.send_jobs(Lane::Bulk, subject.shard);
    soon(puller.next()).await.ack().await.expect("acknowledges");
    eventually("there is room", async || bus.publish_send(&subject, &second).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_above_the_limit_is_refused_for_good() {
    let broker = Broker::start();
    let bus = broker.bus().await;
    let (subject, chunk) = cut_letters(vec![letter(1, "gmail.com", 2_000_000)], shards()).remove(0);
    let error = bus.publish_send(&subject, &chunk).await.expect_err("is too large");
    assert!(error.is_permanent() && !error.is_unknown(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_broker_fails_publishes_and_the_probe_at_once_and_heals() {
    let mut broker = Broker::start();
    let bus = broker.bus().await;
    bus.probe(Duration::from_secs(2)).await.expect("comes back");
    assert!(bus.is_healthy());
    broker.kill();
    eventually("the loss is noticed", async || (!bus.is_connected()).then_some(())).await;
    bus.probe(Duration::from_millis(200)).await.expect_err("does not come back");
    assert!(!bus.is_healthy());
    let (subject, chunk) = cut_jobs(vec![job(1, "gmail.com")], shards()).remove(0);
    let error = bus.publish_render(&subject, &chunk).await.expect_err("reaches nobody");
    assert!(matches!(error, PublishError::Unreachable), "{error:?}");
    bus.ring(&[1]).await;
    broker.restart();
    eventually("the topology can be put back", async || topology::apply(&bus, shards()).await.ok()).await;
    eventually("the probe comes back", async || bus.probe(Duration::from_secs(1)).await.ok()).await;
    assert!(bus.is_healthy());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applying_twice_changes_nothing_and_settings_are_brought_in_line() {
    let broker = Broker::start();
    let bus = broker.connect(broker.config()).await;
    let first = topology::apply(&bus, shards()).await.expect("applies");
    assert_eq!(first.created_streams.len(), 5);
    assert_eq!(first.created_consumers.len(), 2 + 2 * 4);
    let before = topology::look(&bus, shards()).await.expect("looks");
    assert!(before.missing.is_empty());
    assert!(topology::apply(&bus, shards()).await.expect("applies").is_nothing());

    let config = BusConfig { send_max_bytes: 8_000_000, ack_wait: Duration::from_secs(7), ..broker.config() };
    let other = broker.connect(config).await;
    let changed = topology::apply(&other, shards()).await.expect("applies");
    assert_eq!((changed.updated_streams.len(), changed.updated_consumers.len()), (2, 10));
    assert!(changed.created_streams.is_empty());
    assert!(topology::apply(&other, shards()).await.expect("applies").is_nothing());
    assert_eq!(topology::look(&other, shards()).await.expect("looks").identity, before.identity);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_of_shards_that_are_no_more_are_removed_with_what_they_held() {
    let broker = Broker::start();
    let bus = broker.bus().await;
    let chunks = (0..20).map(|index| letter(index, &format!("example{index}.org"), 10)).collect();
    let chunks = cut_letters(chunks, shards());
    assert!(bus.publish_all(&chunks, 8).await.iter().all(Result::is_ok));
    let kept = chunks.iter().filter(|(subject, _)| subject.shard.number() < 2).count();
    let two = ShardCount(NonZeroU16::new(2).expect("not zero"));
    let applied = topology::apply(&bus, two).await.expect("applies");
    assert_eq!(applied.removed_consumers.len(), 4);
    let sight = topology::look(&bus, two).await.expect("looks");
    assert_eq!(sight.chunks, u64::try_from(kept).expect("few"));
    assert!(!topology::look(&bus, shards()).await.expect("looks").missing.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_another_kind_is_reported_and_left_alone() {
    let broker = Broker::start();
    let bus = broker.connect(broker.config()).await;
    let client = async_nats::connect(&bus.config().url).await.expect("connects");
    let name = topology::stream_name(bus.prefix(), Stage::Send, Lane::Bulk);
    let stranger = async_nats::jetstream::stream::Config {
        name: name.clone(),
        subjects: vec!["t1.send.bulk.>".to_owned()],
        ..Default::default()
    };
    async_nats::jetstream::new(client).create_stream(stranger).await.expect("creates");
    let error = topology::apply(&bus, shards()).await.expect_err("refuses");
    assert!(error.to_string().contains(&name) && error.to_string().contains("storage"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_thrown_away_and_counted() {
    let broker = Broker::start();
    let bus = broker.bus().await;
    let client = async_nats::connect(&bus.config().url).await.expect("connects");
    let stranger = async_nats::jetstream::new(client);
    let (subject, _) = cut_jobs(vec![job(1, "gmail.com")], shards()).remove(0);
    let subject = mailfleet_bus::WorkSubject::subject(&subject, bus.prefix());
    let header = |version: &str| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Mailfleet-Kind", "render");
        headers.insert("Mailfleet-Version", version);
        headers
    };
    for publish in [
        stranger.publish(subject.clone(), "hello".into()).await,
        stranger.publish_with_headers(subject.clone(), header("1"), "hello".into()).await,
        stranger.publish_with_headers(subject.clone(), header("99"), "hello".into()).await,
        stranger.publish_with_headers("t1.render.bulk.nowhere".to_owned(), header("1"), "hello".into()).await,
    ] {
        publish.expect("publishes").await.expect("is stored");
    }
    let chunk = publish_one_job(&bus, 1).await;
    let mut puller = bus.render_jobs(Lane::Bulk);
    let delivery = soon(puller.next()).await;
    assert_eq!(delivery.payload, chunk);
    assert_eq!(bus.stats().undecodable.get(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_prefixes_on_one_broker_do_not_meet() {
    let broker = Broker::start();
    let one = broker.bus().await;
    let other = BusConfig { prefix: "t2".parse().expect("a prefix"), ..broker.config() };
    let other = broker.connect(other).await;
    topology::apply(&other, shards()).await.expect("applies");
    publish_one_job(&one, 1).await;
    assert_eq!(topology::look(&one, shards()).await.expect("looks").chunks, 1);
    assert_eq!(topology::look(&other, shards()).await.expect("looks").chunks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rings_and_events_reach_who_listens() {
    let broker = Broker::start();
    let bus = broker.bus().await;
    let mut doorbells = bus.doorbells().await.expect("listens");
    let mut events = bus.events().await.expect("listens");
    let listener = bus.clone();
    listener.flush(Duration::from_secs(5)).await;
    let subject = EventSubject::new("delivered").expect("a kind");
    bus.ring(&[4, 9]).await;
    bus.announce(&subject, bytes::Bytes::from_static(b"{}")).await;
    assert_eq!(soon(doorbells.next()).await, Some(vec![4, 9]));
    assert_eq!(soon(events.next()).await.expect("hears").subject, subject);
}
