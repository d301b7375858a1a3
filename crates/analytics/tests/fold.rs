//! The fold against real neighbours.

use bus::{Bus, BusConfig};
use domain::{BatchId, ContentId, Lane, Mailbox, MessageId, SiteId, TenantId};
use mailfleet_analytics::{Analytics, AnalyticsConfig, EVENT_KIND, LEASE, Metrics, Neighbours};
use service::{Health, Lifecycle};
use std::time::Duration;
use store::{AcceptCall, AcceptOutcome, ContentKind, LeaseTerms, NewContent, NewMessage, Store};
use testkit::{LIMIT, TestDatabase, shared, until};
use tokio::task::JoinSet;

fn quick() -> AnalyticsConfig {
    AnalyticsConfig {
        lease: LeaseTerms {
            term: Duration::from_secs(4),
            renew_every: Duration::from_millis(500),
            safety: Duration::from_millis(500),
            retry_every: Duration::from_millis(50),
        },
        fold_batch: 300,
        poll_min: Duration::from_millis(10),
        poll_max: Duration::from_millis(50),
        full_look_interval: Duration::from_millis(200),
        compact_interval: Duration::from_millis(100),
        measure_interval: Duration::from_millis(100),
        ..AnalyticsConfig::default()
    }
}

struct Running {
    life: Lifecycle,
    health: Health,
    metrics: Metrics,
    task: JoinSet<()>,
}

impl Running {
    fn start(store: &Store, bus: Option<Bus>, owner: &str) -> Self {
        let life = Lifecycle::new();
        let health = Health::new(life.clone());
        let neighbours = Neighbours { store: store.clone(), bus, owner: owner.to_owned(), health: health.clone() };
        let analytics = Analytics::build(quick(), neighbours).expect("a valid configuration");
        let metrics = analytics.metrics().clone();
        let mut task = JoinSet::new();
        task.spawn(analytics.run(life.clone()));
        Self { life, health, metrics, task }
    }

    fn leads(&self) -> bool {
        self.metrics.leading.get() == 1
    }

    async fn stop(mut self) {
        self.life.trigger_shutdown();
        let ended = tokio::time::timeout(LIMIT, self.task.join_next()).await;
        ended.expect("ends in time").expect("was running").expect("did not panic");
    }
}

/// Accepts `count` messages straight on their way: one fact each.
async fn accept(store: &Store, count: u32) -> Vec<MessageId> {
    let now = store.now().await.expect("answers");
    let (tenant, batch) = (TenantId::new(now), BatchId::new(now));
    let content = ContentId::of(tenant, &[b"a content"]);
    let message = |index| {
        let recipient: Mailbox = format!("someone-{index}@gmail.com").parse().expect("an address");
        NewMessage {
            id: MessageId::of_batch(batch, index),
            content,
            recipient,
            variables: "{}".to_owned(),
            lane: Lane::Transactional,
            site: SiteId::of_domain("gmail.com"),
            due: None,
            expires_at: now + Duration::from_secs(3_600),
            overrides: None,
            trace: None,
        }
    };
    let messages: Vec<NewMessage> = (0..count).map(message).collect();
    let ids = messages.iter().map(|message| message.id).collect();
    let call = AcceptCall {
        tenant,
        campaign: None,
        batch,
        size: count,
        refused: serde_json::Value::Array(Vec::new()),
        idempotency: None,
        labels: Default::default(),
        template: None,
        contents: vec![NewContent { id: content, kind: ContentKind::Mail, body: b"a content".to_vec(), carried: 0 }],
        messages,
    };
    let outcomes = store.accept(&[call], now).await.expect("accepts");
    assert!(matches!(outcomes[0], AcceptOutcome::Accepted { .. }));
    ids
}

async fn until_folded(store: &Store, events: i64) {
    until("every fact is folded", async || {
        let audit = store.audit().await.expect("answers");
        audit.facts == 0 && audit.events == events
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fact_gets_the_next_number_and_is_counted_once() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let running = Running::start(&store, None, "one");
    // Calls that commit beside the fold, and a second fold at the same time, as after a stopped holder woke up.
    let calls = async {
        tokio::join!(accept(&store, 700), accept(&store, 1), accept(&store, 900), accept(&store, 50));
    };
    let intruder = async {
        for _ in 0..10 {
            store.fold(0, 100).await.expect("folds");
        }
    };
    tokio::join!(calls, intruder);
    until_folded(&store, 1_651).await;
    let audit = store.audit().await.expect("answers");
    assert!(audit.is_clean(), "{audit:?}");
    until("the last number is known", async || running.metrics.seq.get() == 1_651).await;
    assert_eq!(running.metrics.folded.get(), running.metrics.logged.get());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_instance_folds_when_the_first_is_killed() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut first = Running::start(&store, None, "first");
    until("the first leads", async || first.leads()).await;
    let second = Running::start(&store, None, "second");
    until("the second stands by", async || second.health.readiness().ok).await;
    assert!(!second.leads());
    first.task.shutdown().await;
    accept(&store, 10).await;
    store.advance_clock(quick().lease.term).await.expect("answers");
    until_folded(&store, 10).await;
    assert!(second.leads());
    second.stop().await;
    let leases = store.leases().await.expect("answers");
    assert!(leases.iter().all(|lease| lease.name != LEASE || !lease.live));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fold_is_announced_on_the_bus() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let config = BusConfig {
        url: shared().await.nats_url.clone(),
        prefix: format!("a{}", std::process::id()).parse().expect("a prefix"),
        ..BusConfig::default()
    };
    let bus = Bus::connect(config).await.expect("the broker is there");
    let mut events = bus.events().await.expect("listens");
    bus.flush(LIMIT).await;
    let running = Running::start(&store, Some(bus.clone()), "one");
    accept(&store, 3).await;
    let event = tokio::time::timeout(LIMIT, events.next()).await.expect("comes in time").expect("is connected");
    assert_eq!(event.subject.kind(), EVENT_KIND);
    let body: serde_json::Value = serde_json::from_slice(&event.body).expect("is JSON");
    assert_eq!((&body["seq"], &body["logged"]), (&3.into(), &3.into()));
    running.stop().await;
}
