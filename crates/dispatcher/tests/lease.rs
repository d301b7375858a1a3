//! Keeping leases, against a real database.

use std::time::Duration;
use store::{LeaseKeeper, LeaseTerms};
use testkit::{LIMIT, TestDatabase, until};
use tokio::task::JoinSet;

const TERMS: LeaseTerms = LeaseTerms {
    term: Duration::from_secs(3),
    renew_every: Duration::from_millis(200),
    safety: Duration::from_millis(500),
    retry_every: Duration::from_millis(50),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_renewed_and_what_is_dropped_is_free_after_its_term() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let keeper = LeaseKeeper::new(store.clone(), "one".to_owned(), TERMS);
    let kept = keeper.try_acquire("shard.1").await.expect("answers").expect("is free");
    let dropped = keeper.try_acquire("shard.2").await.expect("answers").expect("is free");
    assert_ne!(kept.epoch(), dropped.epoch());
    assert!(keeper.try_acquire("shard.1").await.expect("answers").is_none());
    let (renewals, before) = (keeper.clone(), kept.until());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { renewals.run().await });
    until("it is renewed", async || kept.until() > before).await;
    drop(dropped);
    let other = LeaseKeeper::new(store.clone(), "other".to_owned(), TERMS);
    let taken = tokio::time::timeout(LIMIT, other.acquire("shard.2", std::future::pending())).await;
    assert!(taken.expect("in time").expect("nobody stopped it").is_live());
    assert!(kept.is_live());
    keeper.give_up_all().await.expect("answers");
    assert!(!kept.is_live());
    tokio::time::timeout(LIMIT, kept.lost()).await.expect("ends at once");
    assert!(other.try_acquire("shard.1").await.expect("answers").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenure_that_nobody_renews_ends_before_its_term_by_the_local_clock() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let keeper = LeaseKeeper::new(store.clone(), "one".to_owned(), TERMS);
    let lease = keeper.try_acquire("fold").await.expect("answers").expect("is free");
    tokio::time::timeout(LIMIT, lease.lost()).await.expect("ends");
    assert!(!lease.is_live());
    // The database still counts it as held: the margin.
    assert!(store.leases().await.expect("answers")[0].live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ran_out_at_the_database_is_lost_at_the_next_renewal() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let keeper = LeaseKeeper::new(store.clone(), "one".to_owned(), LeaseTerms { term: LIMIT, ..TERMS });
    let lease = keeper.try_acquire("fold").await.expect("answers").expect("is free");
    store.advance_clock(LIMIT).await.expect("answers");
    tokio::select! {
        () = keeper.run() => {}
        ended = tokio::time::timeout(LIMIT / 2, lease.lost()) => ended.expect("at the next renewal"),
    }
    assert!(!lease.is_live());
}
