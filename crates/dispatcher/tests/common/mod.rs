//! A database, a prefix on a broker, and dispatchers that run at a tenth of their intervals.

#![allow(dead_code, reason = "each test program uses a part of it")]

use bus::{Bus, BusConfig, Delivery, Job, Puller, RenderChunk, topology};
use chrono::{DateTime, Utc};
use domain::{BatchId, CampaignId, ContentId, Lane, Mailbox, MessageId, ShardCount, SiteId, TenantId};
use mailfleet_dispatcher::{Dispatcher, DispatcherConfig, Metrics, Neighbours};
use service::{Health, Lifecycle};
use std::{
    collections::BTreeMap,
    num::NonZeroU16,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use store::{AcceptCall, AcceptOutcome, ContentKind, LeaseTerms, NewContent, NewMessage, Store, Whereabouts};
use testkit::{LIMIT, TestDatabase, VirtualClock, shared, until};
use tokio::task::JoinSet;

/// What the recipients are, when nothing else is said.
pub const DOMAIN: &str = "gmail.com";

static NEXT: AtomicU32 = AtomicU32::new(0);

pub fn shards() -> ShardCount {
    ShardCount(NonZeroU16::new(4).expect("not zero"))
}

/// Intervals at a tenth, the lease long enough for a busy machine.
pub fn quick() -> DispatcherConfig {
    DispatcherConfig {
        lease: LeaseTerms {
            term: Duration::from_secs(4),
            renew_every: Duration::from_millis(500),
            safety: Duration::from_millis(500),
            retry_every: Duration::from_millis(50),
        },
        look_interval: Duration::from_millis(100),
        full_look_interval: Duration::from_secs(1),
        recount_interval: Duration::from_millis(100),
        recount_busy_interval: Duration::from_millis(50),
        refused_delay: Duration::from_millis(100),
        bus_interval: Duration::from_millis(100),
        repair_interval: Duration::from_millis(100),
        mark_interval: Duration::from_millis(100),
        expire_interval: Duration::from_millis(200),
        ..DispatcherConfig::default()
    }
}

/// Everything around the dispatchers of one test.
pub struct House {
    pub store: Store,
    pub bus: Bus,
    pub clock: VirtualClock,
    /// Kept: what a puller has asked for and nobody takes comes again only after a while.
    pullers: tokio::sync::Mutex<BTreeMap<Lane, Puller<RenderChunk>>>,
    pub database: TestDatabase,
}

impl House {
    pub async fn new() -> Self {
        Self::at(&shared().await.nats_url).await
    }

    /// With another broker than the shared one.
    pub async fn at(nats_url: &str) -> Self {
        let database = TestDatabase::create().await;
        let store = database.store().await;
        let prefix = format!("d{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let config = BusConfig {
            url: nats_url.to_owned(),
            prefix: prefix.parse().expect("a prefix"),
            publish_timeout: Duration::from_millis(500),
            render_max_bytes: 8 << 20,
            send_max_bytes: 8 << 20,
            ..BusConfig::default()
        };
        let bus = Bus::connect(config).await.expect("the broker is there");
        Self { clock: VirtualClock::of(&store), store, bus, pullers: Default::default(), database }
    }

    /// Starts a dispatcher.
    pub fn dispatcher(&self, owner: &str, config: DispatcherConfig) -> Running {
        let life = Lifecycle::new();
        let health = Health::new(life.clone());
        let neighbours = Neighbours {
            store: self.store.clone(),
            bus: self.bus.clone(),
            shards: shards(),
            owner: owner.to_owned(),
            health: health.clone(),
        };
        let dispatcher = Dispatcher::build(config, neighbours).expect("a valid configuration");
        let metrics = dispatcher.metrics().clone();
        let mut task = JoinSet::new();
        task.spawn(dispatcher.run(life.clone()));
        Running { life, health, metrics, task }
    }

    /// Accepts a call of bulk mail.
    pub async fn accept(&self, call: Call) -> Accepted {
        let now = self.clock.now().await;
        let batch = BatchId::new(now);
        let content = ContentId::of(call.tenant, &[b"a content"]);
        let messages: Vec<NewMessage> = (0..call.count)
            .map(|index| {
                let recipient: Mailbox = format!("someone-{index}@{}", call.domain).parse().expect("an address");
                NewMessage {
                    id: MessageId::of_batch(batch, index),
                    content,
                    site: SiteId::of_domain(call.domain),
                    recipient,
                    variables: "{\"name\":\"you\"}".to_owned(),
                    lane: call.lane,
                    due: Some(now + call.due_in),
                    expires_at: now + call.ttl,
                    overrides: None,
                    trace: None,
                }
            })
            .collect();
        let ids = messages.iter().map(|message| message.id).collect();
        let accept = AcceptCall {
            tenant: call.tenant,
            campaign: call.campaign,
            batch,
            size: call.count,
            refused: serde_json::Value::Array(Vec::new()),
            idempotency: None,
            labels: Default::default(),
            template: None,
            contents: vec![NewContent {
                id: content,
                kind: ContentKind::Mail,
                body: b"a content".to_vec(),
                carried: 0,
            }],
            messages,
        };
        let outcome = self.store.accept(&[accept], now).await.expect("accepts").remove(0);
        let AcceptOutcome::Accepted { queues, .. } = outcome else { panic!("not accepted: {outcome:?}") };
        Accepted { batch, ids, queue: queues[0] }
    }

    pub async fn whereabouts(&self, id: MessageId) -> Whereabouts {
        self.store.message(None, id).await.expect("answers").expect("was accepted").whereabouts
    }

    /// Takes jobs off the bus until there are `count`, acknowledging them.
    pub async fn jobs(&self, lane: Lane, count: usize) -> Vec<Job> {
        self.chunks(lane, count).await.into_iter().flatten().collect()
    }

    /// The same, chunk by chunk.
    pub async fn chunks(&self, lane: Lane, count: usize) -> Vec<Vec<Job>> {
        let mut pullers = self.pullers.lock().await;
        let puller = pullers.entry(lane).or_insert_with(|| self.bus.render_jobs(lane));
        let mut chunks: Vec<Vec<Job>> = Vec::new();
        let mut have = 0;
        while have < count {
            let next = tokio::time::timeout(LIMIT, puller.next()).await;
            let Delivery { payload, handle, .. } =
                next.unwrap_or_else(|_| panic!("{have} of {count} jobs came in time"));
            handle.ack().await.expect("acknowledges");
            have += payload.items.len();
            chunks.push(payload.items);
        }
        chunks
    }

    /// Waits until the streams are there, as everybody but the dispatcher does.
    pub async fn wait_for_streams(&self) {
        let there = async || topology::look(&self.bus, shards()).await.is_ok_and(|sight| sight.missing.is_empty());
        until("the streams are there", there).await;
    }

    /// Waits until nothing waits or moves.
    pub async fn wait_until_closed(&self) {
        until("everything is closed", async || self.store.audit().await.expect("answers").open == 0).await;
    }

    pub async fn in_motion(&self) -> u32 {
        self.store.in_motion().await.expect("answers").iter().map(|moving| moving.count).sum()
    }
}

/// What to accept.
pub struct Call {
    pub tenant: TenantId,
    pub campaign: Option<CampaignId>,
    pub lane: Lane,
    pub domain: &'static str,
    pub count: u32,
    pub due_in: Duration,
    pub ttl: Duration,
}

pub fn tenant() -> TenantId {
    TenantId::new(DateTime::<Utc>::from_timestamp(1_790_000_000, 0).expect("a time"))
}

/// Bulk mail of a tenant of its own, due now.
pub fn bulk(count: u32) -> Call {
    Call {
        tenant: tenant(),
        campaign: None,
        lane: Lane::Bulk,
        domain: DOMAIN,
        count,
        due_in: Duration::ZERO,
        ttl: Duration::from_secs(86_400),
    }
}

pub struct Accepted {
    pub batch: BatchId,
    pub ids: Vec<MessageId>,
    pub queue: i64,
}

/// A dispatcher that runs.
pub struct Running {
    pub life: Lifecycle,
    pub health: Health,
    pub metrics: Metrics,
    task: JoinSet<()>,
}

impl Running {
    pub fn leads(&self) -> bool {
        self.metrics.leading.get() == 1
    }

    pub fn released(&self, lane: Lane) -> u64 {
        self.metrics.released.get_or_create(&[("lane", lane.as_str())]).get()
    }

    /// Ends it as a shutdown does.
    pub async fn stop(mut self) {
        self.life.trigger_shutdown();
        let ended = tokio::time::timeout(LIMIT, self.task.join_next()).await;
        ended.expect("ends in time").expect("was running").expect("did not panic");
    }

    /// Ends it in the middle of whatever it does.
    pub async fn kill(mut self) {
        self.task.shutdown().await;
    }
}
