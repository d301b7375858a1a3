//! Routes that are warmed up: no more than the day's cap, the rest goes another way or waits.

use crate::addresses;
use domain::MessageId;
use mailfleet_tests::{Fleet, Kind, mail};
use proto::v1::{
    ListWarmupsRequest, MessageState, PauseQueueRequest, QueueSelector, RemoveWarmupRequest, ResumeQueueRequest,
    SetWarmupRequest, Warmup, WarmupOverflow,
};
use sender::SenderConfig;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::until;

async fn fleet(routes: &[&str]) -> Fleet {
    let mut fleet = Fleet::builder().without(Kind::Sender).start().await;
    let sink = fleet.sink.addr();
    let relay = json!({"kind": "relay", "host": sink.ip(), "port": sink.port(), "tls": "none"});
    let all: serde_json::Map<String, Value> = routes.iter().map(|name| ((*name).to_owned(), relay.clone())).collect();
    let pool: Vec<Value> =
        routes.iter().enumerate().map(|(at, name)| json!({"route": name, "order": at + 1})).collect();
    let config = json!({"routes": all, "pools": {"all": {"routes": pool}}});
    let config: SenderConfig = serde_json::from_value(config).unwrap();
    let sender = &mut fleet.settings.sender;
    (sender.route, sender.routes, sender.pools) = (None, config.routes, config.pools);
    // An answer of the ledger is taken for true as long: these days are short.
    sender.desk.hold = Duration::from_millis(200);
    fleet
}

const DAY: u64 = 24 * 3_600;

async fn launch(fleet: &mut Fleet) {
    // Days are those of UTC: late in one, an hour that passes would end it. So the tests begin with one.
    let late = u64::try_from(service::clock::now().timestamp()).unwrap() % DAY;
    fleet.clock.advance(Duration::from_secs(DAY - late)).await;
    fleet.launch(Kind::Sender, "sender").await;
    fleet.ready().await;
}

fn plan(route: &str, ladder: &[u32], overflow: WarmupOverflow) -> Warmup {
    Warmup {
        route: route.to_owned(),
        ladder: ladder.to_vec(),
        overflow: overflow.into(),
        // A burst of some, so that no test waits.
        spread: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Warmup::default()
    }
}

async fn set(fleet: &Fleet, warmup: Warmup) -> Warmup {
    let request = SetWarmupRequest { warmup: Some(warmup) };
    fleet.delivery().set_warmup(request).await.unwrap().into_inner().warmup.unwrap()
}

async fn list(fleet: &Fleet) -> Vec<Warmup> {
    fleet.delivery().list_warmups(ListWarmupsRequest {}).await.unwrap().into_inner().warmups
}

/// Lets time pass. The jump takes every lease, and whoever claims before he knows it loses the permits: nothing is
/// released until all of them hold theirs again.
async fn pass(fleet: &Fleet, time: Duration) {
    let selector = Some(QueueSelector { tenant_id: Some(fleet.tenant.clone()), ..QueueSelector::default() });
    let pause = PauseQueueRequest { selector: selector.clone(), reason: "time passes".to_owned() };
    fleet.all_queues().pause_queue(pause).await.unwrap();
    fleet.clock.advance(time).await;
    fleet.ready().await;
    fleet.all_queues().resume_queue(ResumeQueueRequest { selector }).await.unwrap();
}

/// Lets some minutes pass when everything rests for longer than a moment: what was told to wait until tomorrow, just
/// before the day began, comes again within the hour. Few, since the day must not end before the ledger is asked.
async fn perhaps_some_minutes_pass(fleet: &Fleet, ids: &[MessageId]) {
    let soon = fleet.clock.now().await.timestamp() + 30;
    for id in ids {
        let seen = fleet.get(*id).await;
        let rests = seen.next_attempt_at.is_some_and(|at| at.seconds > soon);
        if seen.state() != MessageState::Delivered && !rests {
            return;
        }
    }
    pass(fleet, Duration::from_secs(601)).await;
}

async fn by(fleet: &Fleet, ids: &[MessageId], route: &str) -> usize {
    let mut count = 0;
    for id in ids {
        let seen = fleet.get(*id).await;
        count += usize::from(seen.timeline.iter().any(|event| event.event == "delivered" && event.route == route));
    }
    count
}

#[tokio::test]
async fn a_route_that_is_warmed_up_never_sends_more_than_its_cap_and_the_rest_goes_by_the_others() {
    let mut fleet = fleet(&["new", "warm"]).await;
    set(&fleet, plan("new", &[10, 20], WarmupOverflow::Routes)).await;
    launch(&mut fleet).await;
    // The plan is known before the first letter is chosen for.
    let first = fleet.submit(mail().to("first@receiver.test")).await;
    fleet.ended(first).await;
    until("the plan is in use", async || list(&fleet).await[0].taken > 0).await;
    let (_, ids) = fleet.submit_batch(mail().to_all(addresses(60, "r", "receiver.test"))).await;
    let ids: Vec<MessageId> = ids.into_iter().flatten().collect();
    for id in &ids {
        assert_eq!(fleet.ended(*id).await.state(), MessageState::Delivered);
    }
    let new = by(&fleet, &ids, "new").await;
    assert!(new <= 10, "{new} by the new route");
    assert_eq!(new + by(&fleet, &ids, "warm").await, 60);
    let seen = list(&fleet).await;
    assert!((seen[0].cap, seen[0].rung) == (10, 0) && seen[0].taken <= 10, "{seen:?}");
    fleet.assert_sound().await;
}

#[tokio::test]
async fn what_is_above_the_cap_waits_for_tomorrow_and_a_good_day_goes_a_rung_up() {
    let mut fleet = fleet(&["new"]).await;
    set(&fleet, plan("new", &[10, 20, 1_000], WarmupOverflow::Wait)).await;
    launch(&mut fleet).await;
    let week = Duration::from_secs(7 * 24 * 3_600);
    let (_, ids) = fleet.submit_batch(mail().time_to_live(week).to_all(addresses(40, "r", "receiver.test"))).await;
    let ids: Vec<MessageId> = ids.into_iter().flatten().collect();
    until("the cap is used up", async || fleet.sink.stats().accepted == 10).await;
    fleet.at_rest().await;
    let seen = list(&fleet).await;
    assert_eq!((seen[0].cap, seen[0].taken), (10, 10));
    for (day, cap, sent) in [(1, 20, 30), (2, 1_000, 40)] {
        pass(&fleet, Duration::from_secs(DAY)).await;
        until(&format!("day {day} is used up"), async || {
            if fleet.sink.stats().accepted < sent {
                perhaps_some_minutes_pass(&fleet, &ids).await;
            }
            fleet.sink.stats().accepted == sent
        })
        .await;
        let seen = list(&fleet).await;
        assert_eq!((seen[0].cap, seen[0].rung), (cap, day), "{seen:?}");
        assert_eq!((seen[0].days[0].step.as_str(), seen[0].days[0].why.as_str()), ("up", "receivers were content"));
    }
    for id in ids {
        let seen = fleet.ended(id).await;
        assert_eq!((seen.state(), seen.attempts), (MessageState::Delivered, 1), "a wait of our own is no attempt");
    }
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_day_on_which_receivers_complain_goes_a_rung_down_unless_the_plan_is_held() {
    let mut fleet = fleet(&["new", "other"]).await;
    for (route, held) in [("new", false), ("other", true)] {
        let plan = plan(route, &[10, 20, 40], WarmupOverflow::Routes);
        set(&fleet, Warmup { rung: 1, held, ..plan }).await;
    }
    launch(&mut fleet).await;
    let (_, ids) = fleet.submit_batch(mail().to_all(addresses(40, "unknown", "receiver.test"))).await;
    for id in ids.into_iter().flatten() {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Bounced);
    }
    fleet.at_rest().await;
    pass(&fleet, Duration::from_secs(DAY)).await;
    let (sent, ids) = fleet.submit_batch(mail().to_all(addresses(40, "r", "receiver.test"))).await;
    let ids: Vec<MessageId> = ids.into_iter().flatten().collect();
    until("both begin their day", async || {
        perhaps_some_minutes_pass(&fleet, &ids).await;
        list(&fleet).await.iter().all(|plan| plan.cap > 0)
    })
    .await;
    let seen = list(&fleet).await;
    assert_eq!((seen[0].route.as_str(), seen[0].rung, seen[0].cap), ("new", 0, 10));
    assert_eq!(seen[0].days[0].step, "down");
    assert!(seen[0].days[0].why.contains("bounced"), "{:?}", seen[0].days[0]);
    assert_eq!((seen[1].route.as_str(), seen[1].rung, seen[1].days[0].step.as_str()), ("other", 1, "held"));
    for route in ["new", "other"] {
        let request = RemoveWarmupRequest { route: route.to_owned(), site: String::new() };
        assert!(fleet.delivery().remove_warmup(request.clone()).await.unwrap().into_inner().removed);
        assert!(!fleet.delivery().remove_warmup(request).await.unwrap().into_inner().removed);
    }
    fleet.mails().cancel_batch(proto::v1::CancelBatchRequest { batch_id: sent.batch_id }).await.unwrap();
    fleet.assert_sound().await;
}

#[tokio::test]
async fn however_many_senders_take_permits_at_once_the_cap_holds() {
    let fleet = Fleet::builder().without(Kind::Sender).start().await;
    let mut warmup = plan("new", &[500], WarmupOverflow::Wait);
    warmup.site = "receiver.test".to_owned();
    set(&fleet, warmup).await;
    let id = fleet.store.warmups().await.unwrap()[0].id;
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = fleet.store.clone();
        takers.spawn(async move {
            let mut taken = 0;
            for most in [30, 1, 40, 25, 60, 10] {
                taken += store.take_warmup(id, most).await.unwrap().granted;
            }
            taken
        });
    }
    let mut taken = 0;
    while let Some(one) = takers.join_next().await {
        taken += one.unwrap();
    }
    assert_eq!(taken, 500, "a minute's worth is the whole cap here");
    let slice = fleet.store.take_warmup(id, 1).await.unwrap();
    assert!(slice.granted == 0 && !slice.is_over && slice.wait > Duration::ZERO, "{slice:?}");
}

#[tokio::test]
async fn a_plan_with_a_mistake_is_refused_with_its_field() {
    let fleet = Fleet::builder().without(Kind::Sender).start().await;
    let good = plan("new", &[10], WarmupOverflow::Routes);
    for (warmup, field) in [
        (Warmup { route: "New".to_owned(), ..good.clone() }, "warmup.route"),
        (Warmup { ladder: vec![10, 5], ..good.clone() }, "warmup.ladder"),
        (Warmup { rung: 90, ..good.clone() }, "warmup.rung"),
        (Warmup { spread: Some(prost_types::Duration { seconds: 59, nanos: 0 }), ..good }, "warmup.spread"),
    ] {
        let refused = fleet.delivery().set_warmup(SetWarmupRequest { warmup: Some(warmup) }).await.unwrap_err();
        assert_eq!(mailfleet_tests::fields(&refused), [field]);
    }
    assert!(list(&fleet).await.is_empty());
}
