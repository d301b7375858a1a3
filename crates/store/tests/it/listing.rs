//! Lists and the log, as callers walk through them.

use crate::desk::{Desk, outcome};
use chrono::{DateTime, TimeDelta, Utc};
use domain::{CampaignId, Closing, Labels, MessageId, Overrides, Place, TenantId};
use std::collections::BTreeMap;
use store::{AcceptCall, ListFilter, ListPosition, What};

fn labels(tag: &str) -> Labels {
    let metadata = BTreeMap::from([("order".to_owned(), "17".to_owned())]);
    Labels { tags: vec![tag.to_owned()], metadata, ..Labels::default() }
}

/// Accepts a call at a time of its own.
async fn accept(desk: &Desk, minute: i64, count: usize, change: impl FnOnce(&mut AcceptCall)) -> Vec<MessageId> {
    let now = desk.store.now().await.unwrap();
    let at: DateTime<Utc> = now - TimeDelta::minutes(60 - minute);
    let recipients: Vec<String> = (0..count).map(|index| format!("R{index}@receiver{minute}.test")).collect();
    let names: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let mut call = desk.call(at, &names, Some(now));
    change(&mut call);
    let ids = call.messages.iter().map(|message| message.id).collect();
    desk.store.accept(&[call], now).await.unwrap();
    ids
}

async fn all(desk: &Desk, tenant: TenantId, filter: &ListFilter, page: usize) -> Vec<MessageId> {
    let (mut found, mut after) = (Vec::new(), None::<ListPosition>);
    loop {
        let (listed, next) = desk.store.list_messages(tenant, filter, after, page).await.unwrap();
        assert!(listed.len() <= page);
        found.extend(listed.iter().map(|one| one.id));
        after = next;
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_hold_each_message_once_newest_call_first() {
    let desk = Desk::new().await;
    let mut expected = Vec::new();
    for (minute, count) in [(1, 7), (2, 1), (3, 600), (4, 1), (5, 3)] {
        let ids = accept(&desk, minute, count, |_| {}).await;
        expected = [ids, expected].concat();
    }
    for page in [1_000, 500, 7, 1] {
        if page == 1 {
            let (first, next) = desk.store.list_messages(desk.tenant, &ListFilter::default(), None, 1).await.unwrap();
            assert_eq!((first[0].id, next.is_some()), (expected[0], true));
            continue;
        }
        assert_eq!(all(&desk, desk.tenant, &ListFilter::default(), page).await, expected, "pages of {page}");
    }
    let stranger = TenantId::new(desk.store.now().await.unwrap());
    assert!(all(&desk, stranger, &ListFilter::default(), 100).await.is_empty());
}

#[tokio::test]
async fn filters_are_met_by_call_by_recipient_and_by_state() {
    let desk = Desk::new().await;
    let campaign = CampaignId::new(desk.store.now().await.unwrap());
    let old = accept(&desk, 1, 2, |call| call.labels = labels("a")).await;
    let own = accept(&desk, 2, 3, |call| {
        call.campaign = Some(campaign);
        call.labels = Labels { own_tags: true, ..labels("b") };
        let own = Overrides { tags: vec!["a".to_owned()], ..Overrides::default() };
        call.messages[1].overrides = Some(serde_json::to_string(&own).unwrap());
    })
    .await;
    let plain = accept(&desk, 3, 1, |_| {}).await;
    let list = async |filter: ListFilter| all(&desk, desk.tenant, &filter, 100).await;
    let none = ListFilter::default;
    assert_eq!(list(ListFilter { tag: Some("a".to_owned()), ..none() }).await, [own[1], old[0], old[1]]);
    assert_eq!(list(ListFilter { tag: Some("b".to_owned()), ..none() }).await, own);
    assert_eq!(list(ListFilter { campaign: Some(campaign), ..none() }).await, own);
    let recipient = Some("r0@RECEIVER1.test".parse().unwrap());
    assert_eq!(list(ListFilter { recipient, ..none() }).await, [old[0]]);
    let (from, before) = (Some(own[0].created_at()), Some(plain[0].created_at()));
    assert_eq!(list(ListFilter { from, ..none() }).await, [&plain[..], &own[..]].concat());
    assert_eq!(list(ListFilter { before, ..none() }).await, [&own[..], &old[..]].concat());
    assert_eq!(list(ListFilter { from, before, ..none() }).await, own);

    let lease = desk.lease(0).await;
    let released = desk.release().await;
    let sent = released.iter().find(|one| one.message == plain[0]).unwrap();
    desk.claim(&lease, sent).await.unwrap();
    assert_eq!(list(ListFilter { place: Some(Place::Sending), ..none() }).await, plain);
    desk.store.record(&[outcome(&lease, sent, What::Delivered)]).await.unwrap();
    let delivered = ListFilter { place: Some(Place::Closed(Closing::Delivered)), ..none() };
    assert_eq!(list(delivered.clone()).await, plain, "before the fold");
    desk.assert_clean().await;
    assert_eq!(list(delivered.clone()).await, plain, "and after it");
    assert_eq!(list(ListFilter { place: Some(Place::Released), ..none() }).await, [&own[..], &old[..]].concat());

    let (listed, _) = desk.store.list_messages(desk.tenant, &none(), None, 100).await.unwrap();
    assert!(listed[0].closed_at.is_some() && listed[1].closed_at.is_none());
    assert_eq!(listed[2].labels.tags, ["b", "a"]);
    assert_eq!(listed[1].labels.metadata["order"], "17");
    assert_eq!(desk.view(own[1]).await.labels, listed[2].labels);
}

#[tokio::test]
async fn a_long_walk_is_cut_and_goes_on() {
    let desk = Desk::new().await;
    let needle = accept(&desk, 1, 1, |_| {}).await;
    for minute in 2..5 {
        accept(&desk, minute, 5_000, |_| {}).await;
    }
    let filter = ListFilter { recipient: Some("r0@receiver1.test".parse().unwrap()), ..ListFilter::default() };
    let (found, next) = desk.store.list_messages(desk.tenant, &filter, None, 10).await.unwrap();
    assert!(found.is_empty() && next.is_some(), "15,000 messages are not looked up at once");
    assert_eq!(all(&desk, desk.tenant, &filter, 10).await, needle);
}

#[tokio::test]
async fn the_log_is_read_in_windows_without_a_gap_and_by_tenant() {
    let desk = Desk::new().await;
    let ids = accept(&desk, 1, 50, |call| call.labels = labels("a")).await;
    assert_eq!(desk.store.log_range().await.unwrap(), (1, 0));
    desk.assert_clean().await;
    assert_eq!(desk.store.log_range().await.unwrap(), (1, 50));
    let (mut at, mut told) = (0, Vec::new());
    loop {
        let page = desk.store.log_after(&[desk.tenant], at, 7).await.unwrap();
        assert!(page.upto <= at + 7 && page.entries.iter().all(|entry| entry.seq > at && entry.seq <= page.upto));
        told.extend(page.entries.iter().map(|entry| (entry.seq, entry.message)));
        assert!(page.entries.iter().all(|entry| entry.labels == labels("a") && entry.tenant == desk.tenant));
        at = page.upto;
        if page.upto == page.head {
            break;
        }
    }
    assert_eq!(told.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=50).collect::<Vec<i64>>());
    let mut messages: Vec<MessageId> = told.into_iter().map(|(_, message)| message).collect();
    messages.sort_unstable();
    let mut expected = ids;
    expected.sort_unstable();
    assert_eq!(messages, expected);
    let stranger = TenantId::new(desk.store.now().await.unwrap());
    let page = desk.store.log_after(&[stranger], 0, 100).await.unwrap();
    assert!(page.entries.is_empty() && page.upto == 50);
}
