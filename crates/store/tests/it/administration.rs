//! Domain keys, quotas, scopes of suppressions, the audit log, dead letters and figures.

use crate::desk::{Desk, TERM, outcome};
use domain::fact::{FactDetail, FactKind};
use domain::{ApiKeyId, BatchId, Closing, DkimKeyId, Lane, Mailbox, MessageId, SendingDomainId, TenantId};
use std::{collections::HashSet, time::Duration};
use store::{
    AcceptCall, Actor, Ask, Dimensions, DkimAlgorithm, DoubtPolicy, KeyState, MetricBucket, MetricsQuery, NewDkimKey,
    NewSuppression, QuotaPeriod, Quotas, Recorded, Released, Requeue, SendingDomain, Suppressed, SuppressionCause,
    SuppressionFilter, Tenant, Verdict, What, Whereabouts,
};

fn key(desk: &Desk, selector: &str) -> NewDkimKey {
    NewDkimKey {
        id: DkimKeyId::new(desk.tenant.created_at()),
        selector: selector.to_owned(),
        algorithm: DkimAlgorithm::Rsa,
        sealed_private_key: vec![1],
        dns_txt: "v=DKIM1; p=AAAA".to_owned(),
    }
}

async fn sending_domain(desk: &Desk) -> SendingDomain {
    let now = desk.store.now().await.unwrap();
    let domain = SendingDomain {
        id: SendingDomainId::new(now),
        tenant: desk.tenant,
        domain: "example.com".parse().unwrap(),
        return_path_domain: "bounces.example.com".parse().unwrap(),
        unsigned: false,
        created_at: now,
        verified_at: None,
    };
    desk.store.create_sending_domain(&domain, &[key(desk, "one")]).await.unwrap();
    domain
}

#[tokio::test]
async fn a_domain_signs_with_its_active_keys_at_every_moment_of_a_rotation() {
    let desk = Desk::new().await;
    let domain = sending_domain(&desk).await;
    let now = desk.store.now().await.unwrap();
    let signs_with = async || {
        let (_, keys) = desk.store.sending_domain(desk.tenant, &domain.domain).await.unwrap().unwrap();
        keys.into_iter().map(|key| key.selector).collect::<Vec<_>>()
    };
    let activate = async |tenant, selector: &str| {
        let selectors = HashSet::from([selector.to_owned()]);
        desk.store.activate_domain_keys(tenant, domain.id, &selectors, now).await.unwrap()
    };
    assert!(!activate(desk.tenant, "two").await, "nothing is pending");
    assert_eq!(signs_with().await, ["one"]);
    // Two at a time: one makes keys, the other finds them.
    let (two, three) = ([key(&desk, "two")], [key(&desk, "three")]);
    let (first, second) = tokio::join!(
        desk.store.rotate_domain_keys(desk.tenant, domain.id, &two, now),
        desk.store.rotate_domain_keys(desk.tenant, domain.id, &three, now),
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first ^ second);
    let (new, none) = if first { ("two", "three") } else { ("three", "two") };
    assert_eq!(signs_with().await, ["one"]);
    let stranger = TenantId::new(now);
    assert!(!activate(stranger, new).await);
    assert!(!desk.store.rotate_domain_keys(stranger, domain.id, &[key(&desk, "four")], now).await.unwrap());
    assert!(!activate(desk.tenant, none).await, "it is not what is pending");
    assert!(activate(desk.tenant, new).await);
    assert!(activate(desk.tenant, new).await, "a repeat");
    assert!(!activate(desk.tenant, "one").await);
    let (_, keys) = desk.store.sending_domain_with_keys(desk.tenant, &domain.domain).await.unwrap().unwrap();
    let of = |state| keys.iter().filter(|key| key.state == state).map(|key| key.selector.clone()).collect::<Vec<_>>();
    assert_eq!((of(KeyState::Retired), of(KeyState::Pending).len()), (vec!["one".to_owned()], 0));
    assert_eq!(signs_with().await, of(KeyState::Active));
}

#[tokio::test]
async fn a_suppression_of_bulk_mail_lets_a_password_reset_through() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let now = desk.store.now().await.unwrap();
    let ada: Mailbox = "ada@receiver.test".parse().unwrap();
    let mut urgent = desk.call(now, &["ada@receiver.test"], Some(now));
    urgent.messages[0].lane = Lane::Transactional;
    let reset = urgent.messages[0].id;
    desk.store.accept(&[urgent], now).await.unwrap();
    let newsletter = desk.waiting("ada@receiver.test").await;
    let bulk = NewSuppression { bulk_only: true, ..NewSuppression::all(ada.clone(), SuppressionCause::Unsubscribe) };
    let done = desk.store.suppress(Some(desk.tenant), std::slice::from_ref(&bulk)).await.unwrap();
    assert_eq!(done, Suppressed { added: 1, closed: 1 });
    assert_eq!(desk.whereabouts(newsletter).await, Whereabouts::Closed(Closing::Suppressed));
    let later = desk.waiting("ada@receiver.test").await;
    let released = desk.release().await;
    let of = |id: MessageId| released.iter().find(|released| released.message == id).unwrap();
    assert_eq!(desk.claim(&lease, of(reset)).await, Some(Verdict::Go));
    assert_eq!(desk.claim(&lease, of(later)).await, Some(Verdict::Closed(Closing::Suppressed)));
    // A complaint widens it, and nothing narrows it again.
    let complaint = NewSuppression::all(ada.clone(), SuppressionCause::Complaint);
    desk.store.suppress(Some(desk.tenant), &[complaint]).await.unwrap();
    desk.store.suppress(Some(desk.tenant), &[bulk]).await.unwrap();
    let found = desk.store.suppression(desk.tenant, ada.hash()).await.unwrap().unwrap();
    assert_eq!((found.cause, found.bulk_only), (SuppressionCause::Complaint, false));
    desk.assert_clean().await;
}

#[tokio::test]
async fn a_list_of_suppressions_is_told_once_in_pages_and_to_its_tenant_alone() {
    let desk = Desk::new().await;
    let stranger = TenantId::new(desk.store.now().await.unwrap());
    let entry = |n: usize| {
        let cause = if n.is_multiple_of(2) { SuppressionCause::HardBounce } else { SuppressionCause::Manual };
        NewSuppression::all(format!("r{n}@receiver.test").parse().unwrap(), cause)
    };
    let mut entries: Vec<NewSuppression> = (0..25).map(entry).collect();
    entries.push(entry(3)); // twice in one call
    assert_eq!(desk.store.suppress(Some(desk.tenant), &entries).await.unwrap().added, 25);
    let again = desk.store.suppress(Some(desk.tenant), &entries).await.unwrap();
    assert_eq!(again, Suppressed::default());
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = desk.store.suppressions(desk.tenant, &SuppressionFilter::default(), after, 10).await.unwrap();
        after = page.last().map(|entry| entry.place);
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|entry| entry.address));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 25);
    let bounces = SuppressionFilter { cause: Some(SuppressionCause::HardBounce), ..SuppressionFilter::default() };
    assert_eq!(desk.store.suppressions(desk.tenant, &bounces, None, 100).await.unwrap().len(), 13);
    assert!(desk.store.suppressions(stranger, &SuppressionFilter::default(), None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_many_borrow_at_once_never_exceeds_the_quota_and_a_new_hour_is_fresh() {
    let desk = Desk::new().await;
    let ask = [
        Ask { period: QuotaPeriod::Hour, limit: 100, least: 7 },
        Ask { period: QuotaPeriod::Day, limit: 1_000, least: 7 },
    ];
    let borrow = async || {
        let mut amount = 0;
        for _ in 0..10 {
            let loans = desk.store.borrow_quota(desk.tenant, &ask).await.unwrap();
            amount += loans.iter().find(|loan| loan.period == QuotaPeriod::Hour).unwrap().amount;
        }
        amount
    };
    let (one, two, three) = tokio::join!(borrow(), borrow(), borrow());
    assert!((94..=100).contains(&(one + two + three)), "{one} {two} {three}");
    let lent = desk.store.lent_quota(desk.tenant).await.unwrap();
    assert_eq!(lent.hour, one + two + three);
    let over = desk.store.borrow_quota(desk.tenant, &ask[..1]).await.unwrap()[0];
    assert_eq!(over.amount, 0);
    let now = desk.store.now().await.unwrap();
    let left = (over.ends_at - now).to_std().unwrap();
    assert!(left <= Duration::from_secs(3_600));
    desk.store.advance_clock(left).await.unwrap();
    assert_eq!(desk.store.lent_quota(desk.tenant).await.unwrap().hour, 0);
    assert_eq!(desk.store.borrow_quota(desk.tenant, &ask[..1]).await.unwrap()[0].amount, 7);
}

#[tokio::test]
async fn a_backlog_is_counted_as_far_as_was_asked_and_by_tenant() {
    let desk = Desk::new().await;
    for n in 0..5 {
        desk.waiting(&format!("r@receiver{n}.test")).await;
    }
    assert_eq!(desk.store.backlog(desk.tenant, 100).await.unwrap(), 5);
    assert_eq!(desk.store.backlog(desk.tenant, 3).await.unwrap(), 3);
    let stranger = TenantId::new(desk.store.now().await.unwrap());
    assert_eq!(desk.store.backlog(stranger, 100).await.unwrap(), 0);
}

#[tokio::test]
async fn a_change_and_its_entry_in_the_audit_log_are_one() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let who = ApiKeyId::new(now);
    let store = desk.store.acting(Actor { key: Some(who), call: "TenantService.CreateTenant" });
    let tenant = Tenant { id: TenantId::new(now), name: "acme".to_owned(), created_at: now };
    store.create_tenant(&tenant).await.unwrap();
    let taken = Tenant { id: TenantId::new(now), ..tenant.clone() };
    store.create_tenant(&taken).await.unwrap_err();
    let quotas = Quotas { per_hour: Some(10), per_day: Some(0), backlog: None };
    let (_, kept) = store.update_tenant(tenant.id, Some("apex"), &quotas).await.unwrap().unwrap();
    assert_eq!(kept, Quotas { per_hour: Some(10), per_day: None, backlog: None });
    let resource = format!("tenants/{}", tenant.id);
    let entries = desk.store.audit_events(None, None, i64::MAX, 10).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.resource.as_str()).collect::<Vec<_>>(), [&resource, &resource]);
    assert!(entries.iter().all(|entry| entry.key == Some(who) && entry.tenant == Some(tenant.id)));
    assert!(desk.store.audit_events(Some(desk.tenant), None, i64::MAX, 10).await.unwrap().is_empty());
    let older = desk.store.audit_events(None, Some(who), entries[0].id, 10).await.unwrap();
    assert_eq!(older, entries[1..]);
}

/// A message that ended as failed, with its end in the log.
async fn dead_letter(desk: &Desk, recipient: &str) -> MessageId {
    let released = desk.released(recipient).await;
    fail(desk, &released).await;
    released.message
}

async fn fail(desk: &Desk, released: &Released) {
    let reason = FactDetail { text: Some("the variable city is missing".to_owned()), ..FactDetail::default() };
    assert!(desk.store.fail(released.message, released.release, &reason).await.unwrap());
    desk.store.fold(0, 1_000).await.unwrap();
}

async fn again(desk: &Desk, old: MessageId) -> (AcceptCall, Requeue) {
    let now = desk.store.now().await.unwrap();
    let mut call = desk.call(now, &["ada@receiver.test"], Some(now));
    call.batch = BatchId::new(now);
    call.messages[0].id = MessageId::of_batch(call.batch, 0);
    call.contents.clear();
    let new = call.messages[0].id;
    (call, Requeue { old, new })
}

/// Sends a dead letter again, and again when that has failed too; returns the last message, which waits.
async fn sent_again_twice(desk: &Desk, dead: MessageId) -> MessageId {
    let now = desk.store.now().await.unwrap();
    let (call, first) = again(desk, dead).await;
    assert_eq!(desk.store.requeue(vec![call], &[first], now).await.unwrap().0, [first]);
    let released = desk.release().await.remove(0);
    assert_eq!(released.message, first.new);
    fail(desk, &released).await;
    let (call, second) = again(desk, first.new).await;
    assert_eq!(desk.store.requeue(vec![call], &[second], now).await.unwrap().0, [second]);
    second.new
}

#[tokio::test]
async fn a_dead_letter_is_requeued_once_however_many_ask_for_it_at_once() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let old = dead_letter(&desk, "ada@receiver.test").await;
    let found = desk.store.dead_letters(desk.tenant, None, i64::MAX, 10).await.unwrap();
    assert_eq!((found[0].message, found[0].text.as_str()), (old, "the variable city is missing"));
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (call, pair) = again(&desk, old).await;
        let store = desk.store.clone();
        asking.spawn(async move { store.requeue(vec![call], &[pair], now).await.unwrap().0 });
    }
    let mut answers = asking.join_all().await;
    answers.dedup();
    assert_eq!(answers.len(), 1, "all get the same message");
    let new = answers[0][0].new;
    assert!(matches!(desk.whereabouts(new).await, Whereabouts::Waiting { .. }));
    assert_eq!(desk.whereabouts(old).await, Whereabouts::Closed(Closing::Failed));
    desk.assert_clean().await;
    assert_eq!(desk.store.audit().await.unwrap().messages, 2);
    let found = desk.store.dead_letters(desk.tenant, None, i64::MAX, 10).await.unwrap();
    assert_eq!(found[0].requeued_as, Some(new));
    let stranger = TenantId::new(now);
    assert!(desk.store.dead_letters(stranger, None, i64::MAX, 10).await.unwrap().is_empty());
    assert!(desk.store.dead_letters_among(stranger, &[old]).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_called_back_is_not_requeued() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let old = dead_letter(&desk, "ada@receiver.test").await;
    desk.store.cancel_message(desk.tenant, old).await.unwrap();
    let (call, pair) = again(&desk, old).await;
    assert_eq!(desk.store.requeue(vec![call], &[pair], now).await.unwrap(), (Vec::new(), Vec::new()));
    assert_eq!(desk.store.audit().await.unwrap().messages, 1);
}

#[tokio::test]
async fn a_cancel_reaches_what_a_message_was_sent_again_as() {
    let desk = Desk::new().await;
    let old = dead_letter(&desk, "ada@receiver.test").await;
    let last = sent_again_twice(&desk, old).await;
    let batch = desk.view(old).await.batch;
    assert!(desk.store.cancel_batch(desk.tenant, batch).await.unwrap());
    assert!(desk.release().await.is_empty());
    let (call, third) = again(&desk, last).await;
    let now = desk.store.now().await.unwrap();
    assert_eq!(desk.store.requeue(vec![call], &[third], now).await.unwrap().0, []);
}

#[tokio::test]
async fn news_of_a_delivery_calls_back_what_was_sent_again() {
    let desk = Desk::new().await;
    let lease = desk.lease(0).await;
    let first = desk.sending(&lease, "ada@receiver.test").await;
    desk.store.advance_clock(TERM * 2).await.unwrap();
    desk.store.open_doubts(Duration::from_secs(1), 10).await.unwrap();
    desk.store.close_doubts(DoubtPolicy { resend_transactional: true, resend_bulk: true }, 10).await.unwrap();
    fail(&desk, &desk.release().await.remove(0)).await;
    sent_again_twice(&desk, first.message).await;
    assert_eq!(desk.store.record(&[outcome(&lease, &first, What::Delivered)]).await.unwrap(), [Recorded::Late]);
    assert!(desk.release().await.is_empty());
}

#[tokio::test]
async fn a_cancel_and_a_requeue_at_once_leave_nothing_to_send() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    for round in 0..20 {
        let old = dead_letter(&desk, &format!("r{round}@receiver.test")).await;
        let (call, pair) = again(&desk, old).await;
        let pairs = [pair];
        let (requeued, cancelled) =
            tokio::join!(desk.store.requeue(vec![call], &pairs, now), desk.store.cancel_message(desk.tenant, old),);
        requeued.unwrap();
        assert!(cancelled.unwrap());
        assert!(desk.release().await.is_empty(), "round {round}");
    }
}

#[tokio::test]
async fn figures_are_those_of_the_log_in_every_bucket_and_by_every_dimension() {
    let desk = Desk::new().await;
    let now = desk.store.now().await.unwrap();
    let lease = desk.lease(0).await;
    let sent = desk.sending(&lease, "ada@receiver.test").await;
    desk.store.record(&[outcome(&lease, &sent, What::Delivered)]).await.unwrap();
    let refused = desk.sending(&lease, "nobody@elsewhere.test").await;
    desk.store.record(&[outcome(&lease, &refused, What::Bounced)]).await.unwrap();
    desk.assert_clean().await;
    desk.store.compact(now - chrono::Duration::days(1), now + chrono::Duration::days(1)).await.unwrap();
    let question = |bucket| MetricsQuery {
        tenant: Some(desk.tenant),
        start: now,
        end: now + chrono::Duration::minutes(2),
        bucket,
        by: Dimensions::default(),
        campaign: None,
        template: None,
        lane: None,
        site: None,
        route: None,
        events: Vec::new(),
    };
    for bucket in [MetricBucket::Minute, MetricBucket::Hour, MetricBucket::Day] {
        let rows = desk.store.metrics(&question(bucket), 100).await.unwrap();
        let of = |event| rows.iter().filter(|row| row.event == event).map(|row| row.count).sum::<u64>();
        assert_eq!((of("accepted"), of("delivered"), of("bounced")), (2, 1, 1), "{bucket:?}");
    }
    let by = Dimensions { tenant: true, campaign: true, template: true, lane: true, site: true, route: true };
    let events = vec![(FactKind::Final, Some(Closing::Delivered))];
    let rows = desk.store.metrics(&MetricsQuery { by, events, ..question(MetricBucket::Hour) }, 100).await.unwrap();
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!((row.site.as_str(), row.route.as_str(), row.count), ("receiver.test", "relay", 1));
    assert_eq!((row.tenant, row.lane, row.campaign), (Some(desk.tenant), Some(Lane::Bulk), None));
    let stranger = MetricsQuery { tenant: Some(TenantId::new(now)), ..question(MetricBucket::Day) };
    assert!(desk.store.metrics(&stranger, 100).await.unwrap().is_empty());
}
