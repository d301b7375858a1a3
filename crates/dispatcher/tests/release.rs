//! The release loop against real neighbours.

mod common;

use common::{Call, House, bulk, quick};
use domain::{Closing, Lane, Slot};
use mailfleet_dispatcher::DispatcherConfig;
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};
use store::{PauseSelector, Whereabouts};
use testkit::{NatsOptions, NatsServer, until};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_travels_in_chunks_of_one_slot_to_the_renderers() {
    let house = House::new().await;
    let google = house.accept(bulk(250)).await;
    let other = house.accept(Call { domain: "example.org", ..bulk(3) }).await;
    let urgent = house.accept(Call { lane: Lane::Transactional, ..bulk(2) }).await;
    let dispatcher = house.dispatcher("one", quick());
    house.wait_for_streams().await;
    let chunks = house.chunks(Lane::Bulk, 253).await;
    let mut slots: BTreeMap<Slot, usize> = BTreeMap::new();
    for chunk in &chunks {
        assert!(chunk.len() <= 100);
        let slot = chunk[0].slot;
        assert!(chunk.iter().all(|job| job.slot == slot && job.lane == Lane::Bulk));
        *slots.entry(slot).or_default() += chunk.len();
    }
    assert_eq!(slots[&"google".parse().expect("a slot")], 250);
    assert_eq!(slots.len(), 2);
    let jobs: Vec<_> = chunks.into_iter().flatten().collect();
    let ids: HashSet<_> = jobs.iter().map(|job| job.message).collect();
    assert_eq!(ids, google.ids.iter().chain(&other.ids).copied().collect());
    assert!(jobs.iter().all(|job| (job.release, job.attempt, job.alone) == (1, 0, false)));
    assert!(jobs.iter().all(|job| &job.variables[..] == br#"{"name":"you"}"#));
    let urgent_jobs = house.jobs(Lane::Transactional, 2).await;
    assert!(urgent_jobs.iter().all(|job| urgent.ids.contains(&job.message)));
    assert_eq!(dispatcher.released(Lane::Bulk), 253);
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_brings_a_known_queue_to_its_turn_before_the_next_look() {
    let house = House::new().await;
    let config = DispatcherConfig { look_interval: HOUR, ..quick() };
    let dispatcher = house.dispatcher("one", config);
    house.wait_for_streams().await;
    let call = bulk(1);
    let (tenant, first) = (call.tenant, house.accept(call).await);
    // A ring may be lost, so it is rung until it is heard; the first also makes the queue known.
    until("the first is released", async || {
        house.bus.ring(&[first.queue]).await;
        dispatcher.released(Lane::Bulk) == 1
    })
    .await;
    let second = house.accept(Call { tenant, ..bulk(1) }).await;
    assert_eq!(second.queue, first.queue);
    until("the second is released", async || {
        house.bus.ring(&[second.queue]).await;
        dispatcher.released(Lane::Bulk) == 2
    })
    .await;
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_tenant_releases_nothing_until_it_is_resumed() {
    let house = House::new().await;
    let held = bulk(5);
    let selector = PauseSelector { tenant: Some(held.tenant), ..PauseSelector::default() };
    house.store.pause(&selector, "a test", house.clock.now().await).await.expect("pauses");
    let paused = house.accept(held).await;
    let dispatcher = house.dispatcher("one", quick());
    house.wait_for_streams().await;
    // Twice, so that at least one whole look happened after the first.
    for _ in 0..2 {
        let free = house.accept(bulk(1)).await;
        assert_eq!(house.jobs(Lane::Bulk, 1).await[0].message, free.ids[0]);
    }
    for id in &paused.ids {
        let Whereabouts::Waiting { paused, .. } = house.whereabouts(*id).await else { panic!("not waiting") };
        assert!(paused);
    }
    house.store.resume(&selector).await.expect("resumes");
    let came: HashSet<_> = house.jobs(Lane::Bulk, 5).await.iter().map(|job| job.message).collect();
    assert_eq!(came, paused.ids.iter().copied().collect());
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_waits_for_its_time() {
    let house = House::new().await;
    let later = house.accept(Call { due_in: HOUR, ..bulk(1) }).await;
    let dispatcher = house.dispatcher("one", quick());
    house.wait_for_streams().await;
    for _ in 0..2 {
        let now = house.accept(bulk(1)).await;
        assert_eq!(house.jobs(Lane::Bulk, 1).await[0].message, now.ids[0]);
    }
    assert!(matches!(house.whereabouts(later.ids[0]).await, Whereabouts::Waiting { .. }));
    house.clock.advance(HOUR).await;
    assert_eq!(house.jobs(Lane::Bulk, 1).await[0].message, later.ids[0]);
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_never_has_more_in_motion_than_its_window_and_tenants_share_it() {
    let house = House::new().await;
    let large = house.accept(bulk(2_000)).await;
    let small = house.accept(bulk(20)).await;
    let config = DispatcherConfig { min_window: 100, start_window: 100, max_window: 100, ..quick() };
    let dispatcher = house.dispatcher("one", config);
    house.wait_for_streams().await;
    let first: Vec<_> = house.jobs(Lane::Bulk, 100).await.iter().map(|job| job.message).collect();
    assert!(small.ids.iter().all(|id| first.contains(id)), "the small tenant had its turn");
    // What is cancelled leaves, and makes room for as many.
    assert_eq!(house.in_motion().await, 100);
    let gone: Vec<_> = first.iter().copied().filter(|id| large.ids.contains(id)).collect();
    assert_eq!(gone.len(), 80);
    assert_eq!(house.store.refuse(&gone, Closing::Cancelled).await.expect("closes"), 80);
    let next = house.jobs(Lane::Bulk, 80).await;
    assert!(next.iter().all(|job| large.ids.contains(&job.message)));
    assert_eq!(house.in_motion().await, 100);
    assert_eq!(dispatcher.released(Lane::Bulk), 180);
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_of_bulk_gives_rows_back_and_holds_up_no_urgent_mail() {
    let mut house = House::new().await;
    // Room for about one chunk.
    let mut config = house.bus.config().clone();
    config.render_max_bytes = 80 * 1024;
    house.bus = bus::Bus::connect(config).await.expect("the broker is there");
    let lot = house.accept(bulk(2_000)).await;
    let dispatcher = house.dispatcher("one", quick());
    house.wait_for_streams().await;
    let given_back = || dispatcher.metrics.given_back.get_or_create(&[("lane", "bulk")]).get();
    until("the broker refused some", async || given_back() > 0).await;
    let urgent = house.accept(Call { lane: Lane::Transactional, ..bulk(1) }).await;
    assert_eq!(house.jobs(Lane::Transactional, 1).await[0].message, urgent.ids[0]);
    // Whoever takes chunks gets every message in the end.
    let mut puller = house.bus.render_jobs(Lane::Bulk);
    let mut seen = HashSet::new();
    while seen.len() < lot.ids.len() {
        let delivery = tokio::time::timeout(testkit::LIMIT, puller.next()).await.expect("more comes");
        // As a sender that is done with them: what is only taken stays in motion.
        let taken: Vec<_> = delivery.payload.items.iter().map(|job| job.message).collect();
        house.store.refuse(&taken, Closing::Delivered).await.expect("closes");
        seen.extend(taken);
        delivery.ack().await.expect("acknowledges");
    }
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_released_while_the_broker_is_down_and_everything_after() {
    let folder = testkit::shared::folder().join(format!("broker-{}", std::process::id()));
    let options = NatsOptions { stop_on_drop: true, ..NatsOptions::default() };
    let mut server = NatsServer::start(&folder, options).await.expect("starts");
    let house = House::at(&server.url()).await;
    let dispatcher = house.dispatcher("one", quick());
    house.wait_for_streams().await;
    let first = house.accept(bulk(1)).await;
    assert_eq!(house.jobs(Lane::Bulk, 1).await[0].message, first.ids[0]);
    server.kill9().await.expect("kills");
    until("the loss is seen", async || dispatcher.metrics.bus_up.get() == 0).await;
    let resting = house.accept(bulk(3)).await;
    for id in &resting.ids {
        assert!(matches!(house.whereabouts(*id).await, Whereabouts::Waiting { .. }));
    }
    assert_eq!(dispatcher.released(Lane::Bulk), 1);
    server.restart().await.expect("restarts");
    // The first, released under the old epoch, comes again with the others.
    let jobs = house.jobs(Lane::Bulk, 4).await;
    let came: HashSet<_> = jobs.iter().map(|job| (job.message, job.release)).collect();
    assert!(came.contains(&(first.ids[0], 2)));
    assert!(resting.ids.iter().all(|id| came.contains(&(*id, 1))));
    assert!(house.store.bus_state().await.expect("answers").epoch > 1);
    dispatcher.stop().await;
    drop(server);
    std::fs::remove_dir_all(&folder).expect("nobody uses it any more");
}
