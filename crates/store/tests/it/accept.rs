//! Accepting: group commit, idempotency, and the first place of a message.

use crate::desk::Desk;
use chrono::{DateTime, Utc};
use domain::{BatchId, Lane};
use store::{AcceptCall, AcceptOutcome, Idempotency, Whereabouts};

fn keyed(desk: &Desk, now: DateTime<Utc>, key: &str, digest: u8) -> AcceptCall {
    let mut call = desk.call(now, &["ada@receiver.test", "bob@receiver.test"], Some(now));
    call.idempotency =
        Some(Idempotency { key: key.to_owned(), digest: [digest; 32], expires_at: now + chrono::Duration::hours(24) });
    call
}

#[tokio::test]
async fn a_call_that_is_committed_twice_is_stored_once() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let call = desk.call(now, &["ada@receiver.test", "bob@receiver.test"], Some(now));
    desk.store.accept(std::slice::from_ref(&call), now).await.unwrap();
    desk.store.accept(std::slice::from_ref(&call), now).await.unwrap();
    assert_eq!(desk.release().await.len(), 2);
    desk.store.accept(&[call], now).await.unwrap();
    assert!(desk.release().await.is_empty(), "a repeat brings nothing back");
    desk.assert_clean().await;
    assert_eq!(desk.store.audit().await.unwrap().messages, 2);
}

#[tokio::test]
async fn calls_of_one_group_are_all_accepted() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let calls: Vec<_> = (0..40).map(|n| desk.call(now, &[&format!("r{n}@receiver{n}.test")], Some(now))).collect();
    let outcomes = desk.store.accept(&calls, now).await.unwrap();
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, AcceptOutcome::Accepted { queues, .. } if queues.len() == 1))
    );
    assert_eq!(desk.release().await.len(), 40);
}

#[tokio::test]
async fn transactional_mail_without_a_due_time_is_released_at_once() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let mut call = desk.call(now, &["ada@receiver.test"], None);
    call.messages[0].lane = Lane::Transactional;
    let id = call.messages[0].id;
    let outcomes = desk.store.accept(&[call], now).await.unwrap();
    let AcceptOutcome::Accepted { bus_epoch, .. } = outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(bus_epoch, desk.store.bus_state().await.unwrap().epoch);
    assert!(matches!(desk.whereabouts(id).await, Whereabouts::Released { .. }));
}

#[tokio::test]
async fn the_same_key_gives_the_same_answer_and_another_payload_a_refusal() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let mut first = keyed(&desk, now, "order-7", 1);
    first.refused = serde_json::json!([{"index": 2, "reason": "INVALID_ADDRESS"}]);
    desk.store.accept(std::slice::from_ref(&first), now).await.unwrap();
    let (again, other) = (keyed(&desk, now, "order-7", 1), keyed(&desk, now, "order-7", 2));
    let outcomes = desk.store.accept(&[again, other], now).await.unwrap();
    let AcceptOutcome::Replayed(replay) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!((replay.batch, replay.size, &replay.refused), (first.batch, 2, &first.refused));
    assert_eq!(outcomes[1], AcceptOutcome::KeyReused);
    assert_eq!(desk.store.audit().await.unwrap().messages, 2);
}

#[tokio::test]
async fn a_hundred_calls_under_one_key_make_one_set_of_messages() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let groups: Vec<Vec<AcceptCall>> =
        (0..20).map(|_| (0..5).map(|_| keyed(&desk, now, "same", 1)).collect()).collect();
    let mut running = tokio::task::JoinSet::new();
    for group in groups {
        let store = desk.store.clone();
        running.spawn(async move { store.accept(&group, now).await.unwrap() });
    }
    let mut accepted = 0;
    let mut batches = std::collections::HashSet::<BatchId>::new();
    while let Some(outcomes) = running.join_next().await {
        for outcome in outcomes.unwrap() {
            match outcome {
                AcceptOutcome::Accepted { .. } => accepted += 1,
                AcceptOutcome::Replayed(replay) => {
                    batches.insert(replay.batch);
                }
                AcceptOutcome::KeyReused => panic!("the payload is the same"),
            }
        }
    }
    assert_eq!((accepted, batches.len()), (1, 1));
    assert_eq!(desk.store.audit().await.unwrap().messages, 2);
}

#[tokio::test]
async fn a_key_may_be_used_anew_when_its_time_is_over() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    desk.store.accept(&[keyed(&desk, now, "daily", 1)], now).await.unwrap();
    let later = now + chrono::Duration::hours(25);
    let outcomes = desk.store.accept(&[keyed(&desk, later, "daily", 2)], later).await.unwrap();
    assert!(matches!(outcomes[0], AcceptOutcome::Accepted { .. }));
    assert_eq!(desk.store.forget_idempotency(later + chrono::Duration::hours(48), 10).await.unwrap(), 1);
}
