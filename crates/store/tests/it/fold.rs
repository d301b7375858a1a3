//! The fold: every fact counted once, no number missing.

use crate::desk::{Desk, deferred, outcome};
use domain::Closing;
use store::{What, Whereabouts};

#[tokio::test]
async fn folding_twice_counts_once() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let released = desk.sending(&lease, "ada@receiver.test").await;
    desk.store.record(&[outcome(&lease, &released, What::Delivered)]).await.unwrap();
    let first = desk.store.fold(0, 100).await.unwrap();
    assert_eq!((first.taken, first.logged), (2, 2));
    assert_eq!(desk.store.fold(0, 100).await.unwrap().taken, 0);
    // A fact that comes again, under another number, is taken and not logged.
    let pool = desk.pool().await;
    sqlx::query(
        "insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
         select message_id, kind, ordinal, closing, release_no, $1, site, at, detail from mailfleet.message_events",
    )
    .bind(released.queue)
    .execute(&pool)
    .await
    .unwrap();
    let again = desk.store.fold(0, 100).await.unwrap();
    assert_eq!((again.taken, again.logged), (2, 0));
    desk.assert_clean().await;
    assert_eq!(desk.store.audit().await.unwrap().events, 2);
}

#[tokio::test]
async fn two_folds_at_once_leave_no_gap_and_count_nothing_twice() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    for batch in 0..20 {
        let recipients: Vec<String> = (0..100).map(|n| format!("r{n}@receiver{}.test", batch)).collect();
        let names: Vec<&str> = recipients.iter().map(String::as_str).collect();
        desk.store.accept(&[desk.call(now, &names, Some(now))], now).await.unwrap();
    }
    let fold = async || {
        let mut logged = 0;
        while let done @ store::Fold { taken: 1.., .. } = desk.store.fold(0, 70).await.unwrap() {
            logged += done.logged;
        }
        logged
    };
    let (one, two, three) = tokio::join!(fold(), fold(), fold());
    assert_eq!(one + two + three, 2_000);
    desk.assert_clean().await;
}

#[tokio::test]
async fn figures_by_site_tell_what_was_deferred_and_then_delivered() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let first = desk.sending(&lease, "ada@receiver.test").await;
    desk.store.record(&[outcome(&lease, &first, deferred())]).await.unwrap();
    desk.store.advance_clock(std::time::Duration::from_secs(61)).await.unwrap();
    let lease = desk.lease(0).await;
    let second = desk.release().await.remove(0);
    desk.claim(&lease, &second).await;
    desk.store.record(&[outcome(&lease, &second, What::Delivered)]).await.unwrap();
    let bounced = desk.sending(&lease, "nobody@elsewhere.test").await;
    desk.store.record(&[outcome(&lease, &bounced, What::Bounced)]).await.unwrap();
    assert_eq!(desk.whereabouts(bounced.message).await, Whereabouts::Closed(Closing::Bounced));
    desk.assert_clean().await;
    let figures = desk.store.site_figures(Some(desk.tenant), None).await.unwrap();
    let of = |site: &str| figures.iter().find(|figures| figures.site == site).unwrap();
    let receiver = of("receiver.test");
    assert_eq!((receiver.accepted, receiver.delivered, receiver.deferred_then_delivered), (1, 1, 1));
    assert!(receiver.p50_ms.unwrap() >= 61_000.0);
    assert_eq!((of("elsewhere.test").bounced, of("elsewhere.test").delivered), (1, 0));
}

#[tokio::test]
async fn hours_and_days_are_the_sums_of_their_minutes_however_often_they_are_compacted() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    desk.store.accept(&[desk.call(now, &["a@x.test", "b@y.test", "c@x.test"], Some(now))], now).await.unwrap();
    desk.assert_clean().await;
    let pool = desk.pool().await;
    for _ in 0..2 {
        desk.store.compact(now - chrono::Duration::days(1), now + chrono::Duration::days(1)).await.unwrap();
        let (minutes, hours, days): (i64, i64, i64) = sqlx::query_as(
            "select (select sum(events) from mailfleet.rollup_minute)::bigint,
                    (select sum(events) from mailfleet.rollup_hour)::bigint,
                    (select sum(events) from mailfleet.rollup_day)::bigint",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!((minutes, hours, days), (3, 3, 3));
    }
}

#[tokio::test]
async fn an_audit_finds_what_does_not_add_up() {
    let desk = Desk::new().await;
    desk.waiting("ada@receiver.test").await;
    desk.assert_clean().await;
    let pool = desk.pool().await;
    sqlx::query("update mailfleet.rollup_minute set events = events + 1").execute(&pool).await.unwrap();
    assert_eq!(desk.store.audit().await.unwrap().rollup_mismatches, 1);
    sqlx::query("delete from mailfleet.waiting").execute(&pool).await.unwrap();
    assert_eq!(desk.store.audit().await.unwrap().orphans, 1);
    sqlx::query("update mailfleet.message_events set seq = 5").execute(&pool).await.unwrap();
    assert!(desk.store.audit().await.unwrap().seq_gaps > 0);
}

#[tokio::test]
async fn partitions_are_made_ahead_and_only_once() {
    let desk = Desk::new().await;
    let (_, strayed) = desk.store.keep_partitions(7).await.unwrap();
    assert_eq!(strayed, 0);
    assert_eq!(desk.store.keep_partitions(7).await.unwrap(), (0, 0));
    assert_eq!(desk.store.keep_partitions(9).await.unwrap().0, 4);
}
