//! Leases, repair, doubt, marks and expiry against real neighbours.

mod common;

use bus::topology;
use common::{Call, House, Running, bulk, quick};
use domain::fact::{FactDetail, FactKind};
use domain::{Closing, Lane, SiteId};
use mailfleet_dispatcher::{DispatcherConfig, LEASE};
use std::{collections::HashSet, time::Duration};
use store::{Claim, Lease, LeaseTerms, Outcome, PauseSelector, Recorded, Verdict, What, Whereabouts};
use testkit::until;

const HOUR: Duration = Duration::from_secs(3_600);

/// With a lease that outlasts the jumps of the clock, for tests that count what one tenure did.
fn lasting() -> DispatcherConfig {
    DispatcherConfig { lease: LeaseTerms { term: 24 * HOUR, ..quick().lease }, ..quick() }
}

async fn holder(house: &House) -> Option<String> {
    let leases = house.store.leases().await.expect("answers");
    leases.into_iter().find(|lease| lease.name == LEASE && lease.live).map(|lease| lease.owner)
}

async fn until_leads(running: &Running) {
    until("it leads", async || running.leads()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_leads_and_the_other_follows_when_it_is_killed() {
    let house = House::new().await;
    let first = house.dispatcher("first", quick());
    until_leads(&first).await;
    let second = house.dispatcher("second", quick());
    until("the second stands by", async || second.health.readiness().ok).await;
    assert!(first.leads() && !second.leads());
    assert_eq!(holder(&house).await.as_deref(), Some("first"));
    first.kill().await;
    // Its lease runs out; nobody gave it back.
    assert!(!second.leads());
    house.clock.advance(quick().lease.term).await;
    until_leads(&second).await;
    assert_eq!(holder(&house).await.as_deref(), Some("second"));
    let accepted = house.accept(bulk(1)).await;
    assert_eq!(house.jobs(Lane::Bulk, 1).await[0].message, accepted.ids[0]);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_gives_the_lease_back() {
    let house = House::new().await;
    let running = house.dispatcher("one", quick());
    until_leads(&running).await;
    running.stop().await;
    assert_eq!(holder(&house).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_lease_was_taken_stops_and_stands_by() {
    let house = House::new().await;
    let first = house.dispatcher("first", quick());
    until_leads(&first).await;
    // As if it had been stopped for a while: its lease ran out, and the database gives it to another. The first may
    // be quicker and take it again; then it is stopped once more.
    let taken = testkit::eventually(testkit::LIMIT, async || {
        house.clock.advance(quick().lease.term).await;
        house.store.take_lease(LEASE, "another", HOUR).await.expect("answers")
    });
    let taken = taken.await.expect("another gets it");
    until("the first stands by", async || !first.leads()).await;
    assert_eq!(holder(&house).await.as_deref(), Some("another"));
    house.store.give_up_leases(&[taken.epoch]).await.expect("gives it back");
    until_leads(&first).await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_wiped_broker_held_is_released_again_under_another_epoch() {
    let house = House::new().await;
    let dispatcher = house.dispatcher("one", quick());
    house.wait_for_streams().await;
    let accepted = house.accept(bulk(150)).await;
    until("all are released", async || dispatcher.released(Lane::Bulk) == 150).await;
    let before = house.store.bus_state().await.expect("answers");
    topology::wipe(&house.bus).await.expect("wipes");
    let mut jobs = house.jobs(Lane::Bulk, 150).await;
    jobs.retain(|job| job.release == 2);
    let after = house.store.bus_state().await.expect("answers");
    assert_eq!(after.epoch, before.epoch + 1);
    assert_ne!(after.identity, before.identity);
    let ids: HashSet<_> = jobs.iter().map(|job| job.message).collect();
    assert_eq!(ids, accepted.ids.iter().copied().collect());
    assert!(jobs.iter().all(|job| job.bus_epoch == after.epoch && !job.alone));
    assert_eq!(dispatcher.metrics.poisoned.get(), 0);
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_release_is_repaired_travels_alone_and_fails_after_the_third_loss() {
    let house = House::new().await;
    let dispatcher = house.dispatcher("one", DispatcherConfig { poison_losses: 3, ..lasting() });
    house.wait_for_streams().await;
    let accepted = house.accept(bulk(2)).await;
    assert_eq!(house.jobs(Lane::Bulk, 2).await.len(), 2);
    for release in [2, 3] {
        house.clock.advance(Duration::from_secs(46)).await;
        for chunk in house.chunks(Lane::Bulk, 2).await {
            assert_eq!(chunk.len(), 1);
            assert!(chunk[0].alone);
            assert_eq!(chunk[0].release, release);
        }
    }
    house.clock.advance(Duration::from_secs(46)).await;
    house.wait_until_closed().await;
    let view = house.store.message(None, accepted.ids[0]).await.expect("answers").expect("was accepted");
    assert_eq!(view.whereabouts, Whereabouts::Closed(Closing::Failed));
    assert_eq!(view.events.iter().filter(|event| event.kind == FactKind::Lost).count(), 3);
    until("the poison is counted", async || dispatcher.metrics.poisoned.get() == 2).await;
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_batch_is_closed_where_it_rests() {
    let house = House::new().await;
    let call = Call { due_in: HOUR, ..bulk(2_300) };
    let (tenant, accepted) = (call.tenant, house.accept(call).await);
    let dispatcher = house.dispatcher("one", quick());
    assert!(house.store.cancel_batch(tenant, accepted.batch).await.expect("answers"));
    house.wait_until_closed().await;
    until("the mark is settled", async || house.store.unsettled_count().await.expect("answers") == 0).await;
    for id in [accepted.ids[0], accepted.ids[2_299]] {
        assert_eq!(house.whereabouts(id).await, Whereabouts::Closed(Closing::Cancelled));
    }
    assert_eq!(dispatcher.metrics.marked.get_or_create(&[("result", "cancelled")]).get(), 2_300);
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_known_to_be_delivered_is_closed_where_it_rests() {
    let house = House::new().await;
    let accepted = house.accept(Call { due_in: HOUR, ..bulk(2) }).await;
    // The 250 of an attempt that nobody knew of any more.
    let taken = Outcome {
        message: accepted.ids[1],
        release: 1,
        epoch: 0,
        queue: 1,
        site: SiteId::from_stored("receiver.test".to_owned()),
        what: What::Delivered,
        detail: FactDetail::default(),
    };
    assert_eq!(house.store.record(&[taken]).await.expect("answers"), [Recorded::Late]);
    let dispatcher = house.dispatcher("one", quick());
    until("the mark is settled", async || house.store.unsettled_count().await.expect("answers") == 0).await;
    assert_eq!(house.whereabouts(accepted.ids[1]).await, Whereabouts::Closed(Closing::Delivered));
    assert!(matches!(house.whereabouts(accepted.ids[0]).await, Whereabouts::Waiting { .. }));
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_outlives_its_time_to_live_in_a_paused_queue_expires() {
    let house = House::new().await;
    let call = Call { ttl: HOUR, ..bulk(30) };
    let selector = PauseSelector { tenant: Some(call.tenant), ..PauseSelector::default() };
    house.store.pause(&selector, "a test", house.clock.now().await).await.expect("pauses");
    let accepted = house.accept(call).await;
    let dispatcher = house.dispatcher("one", lasting());
    house.clock.advance(HOUR).await;
    house.wait_until_closed().await;
    assert_eq!(house.whereabouts(accepted.ids[0]).await, Whereabouts::Closed(Closing::Expired));
    until("they are counted", async || dispatcher.metrics.expired.get() == 30).await;
    dispatcher.stop().await;
}

/// A sender that claims one message and is never heard of again.
async fn vanish(house: &House, lane: Lane) -> domain::MessageId {
    house.wait_for_streams().await;
    let accepted = house.accept(Call { lane, ..bulk(1) }).await;
    let job = house.jobs(lane, 1).await.remove(0);
    let lease: Lease =
        house.store.take_lease("shard.0", "a sender", HOUR).await.expect("answers").expect("nobody holds it");
    let claim = Claim { message: job.message, release: job.release };
    let verdicts = house.store.claim(&lease, &[claim]).await.expect("answers");
    assert_eq!(verdicts[&claim], Verdict::Go);
    house.store.give_up_leases(&[lease.epoch]).await.expect("answers");
    accepted.ids[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_doubt_is_sent_again_after_the_grace() {
    let house = House::new().await;
    let dispatcher = house.dispatcher("one", lasting());
    let id = vanish(&house, Lane::Bulk).await;
    assert!(matches!(house.whereabouts(id).await, Whereabouts::Sending { .. }));
    house.clock.advance(quick().doubt_grace).await;
    let job = house.jobs(Lane::Bulk, 1).await.remove(0);
    assert_eq!((job.message, job.release, job.attempt), (id, 2, 1));
    assert_eq!(dispatcher.metrics.doubts_opened.get(), 1);
    assert_eq!(dispatcher.metrics.doubts_closed.get_or_create(&[("result", "sent_again")]).get(), 1);
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_must_not_repeat_ends_doubt_as_unknown() {
    let house = House::new().await;
    let config = DispatcherConfig { resend_transactional: false, ..lasting() };
    let dispatcher = house.dispatcher("one", config);
    let id = vanish(&house, Lane::Transactional).await;
    house.clock.advance(quick().doubt_grace).await;
    house.wait_until_closed().await;
    assert_eq!(house.whereabouts(id).await, Whereabouts::Closed(Closing::Unknown));
    until("it is counted", async || {
        dispatcher.metrics.doubts_closed.get_or_create(&[("result", "unknown")]).get() == 1
    })
    .await;
    dispatcher.stop().await;
}
