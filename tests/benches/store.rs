//! The statements of a mail's road, in batches as the services make them, on a private Postgres whose commits reach
//! the disk. One batch an iteration; the throughput is its mails'. Wall time: the commit's wait for the disk is in it.

#![allow(clippy::unwrap_used, missing_docs)]

use chrono::{DateTime, Utc};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use domain::{BatchId, ContentId, Lane, MessageId, SiteId, TenantId, fact::FactDetail};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use store::{
    AcceptCall, Claim, ContentKind, Lease, NewContent, NewMessage, Outcome, Quota, Released, Store, StoreConfig,
    Tenant, What,
};
use testkit::{PostgresOptions, PostgresServer};
use tokio::runtime::Runtime;

/// Messages in one accept, release, record and fold.
const BATCH: u32 = 500;
/// Messages in one claim.
const CLAIM: usize = 200;
/// Longer than any of this takes.
const TERM: Duration = Duration::from_secs(3_600);
const VARIABLES: &str = r#"{"name":"Ada 7","order":"B-7","city":"Turku","street":"Quay 7","item":"Lamp","size":"M","colour":"blue","price":"19.90","date":"2 May","clerk":"Noor"}"#;

/// A database of its own.
struct Desk {
    runtime: Runtime,
    store: Store,
    tenant: TenantId,
    lease: Lease,
    server: PostgresServer,
    folder: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = std::env::temp_dir().join(format!("mailfleet-store-bench-{}", std::process::id()));
        let options = PostgresOptions { stop_on_drop: true, ..PostgresOptions::default() };
        let (server, store, tenant, lease) = runtime.block_on(async {
            let server = PostgresServer::start(&folder, options).await.unwrap();
            store::admin::create_database(&server.url("postgres"), "bench", None).await.unwrap();
            store::migrate(&server.url("bench")).await.unwrap();
            let config = StoreConfig { url: server.url("bench"), ..StoreConfig::default() };
            let store = Store::connect(&config).await.unwrap();
            let now = store.now().await.unwrap();
            let tenant = TenantId::new(now);
            store.create_tenant(&Tenant { id: tenant, name: "bench".to_owned(), created_at: now }).await.unwrap();
            let lease = store.take_lease("shard.0", "bench", TERM).await.unwrap().unwrap();
            (server, store, tenant, lease)
        });
        Self { runtime, store, tenant, lease, server, folder }
    }

    fn call(&self, now: DateTime<Utc>) -> AcceptCall {
        let batch = BatchId::new(now);
        let content = ContentId::of(self.tenant, &[b"content"]);
        let message = |index: u32| {
            let domain = format!("receiver{}.test", index % 8);
            NewMessage {
                id: MessageId::of_batch(batch, index),
                content,
                recipient: format!("r{index}@{domain}").parse().unwrap(),
                site: SiteId::of_domain(&domain),
                variables: VARIABLES.to_owned(),
                lane: Lane::Bulk,
                due: Some(now),
                expires_at: now + chrono::Duration::days(3),
                overrides: None,
                trace: None,
            }
        };
        AcceptCall {
            tenant: self.tenant,
            campaign: None,
            batch,
            size: BATCH,
            refused: serde_json::json!([]),
            idempotency: None,
            labels: Default::default(),
            template: None,
            contents: vec![NewContent { id: content, kind: ContentKind::Mail, body: b"{}".to_vec(), carried: 0 }],
            messages: (0..BATCH).map(message).collect(),
        }
    }

    async fn accept(&self) -> Duration {
        let now = self.store.now().await.unwrap();
        let calls = [self.call(now)];
        let begun = Instant::now();
        self.store.accept(&calls, now).await.unwrap();
        begun.elapsed()
    }

    async fn release(&self) -> (Vec<Released>, Duration) {
        let due = self.store.due_queues(&[]).await.unwrap();
        let quota = |id| Quota { queue: id, count: BATCH, lower: DateTime::UNIX_EPOCH };
        let quotas: Vec<Quota> = due.iter().map(|queue| quota(queue.id)).collect();
        let begun = Instant::now();
        let released = self.store.release(&quotas).await.unwrap();
        assert_eq!(released.len(), BATCH as usize);
        (released, begun.elapsed())
    }

    async fn claim(&self, released: &[Released]) -> Duration {
        let mut took = Duration::ZERO;
        for some in released.chunks(CLAIM) {
            let claims: Vec<Claim> =
                some.iter().map(|one| Claim { message: one.message, release: one.release }).collect();
            let begun = Instant::now();
            let claimed = self.store.claim(&self.lease, &claims).await.unwrap();
            took += begun.elapsed();
            assert_eq!(claimed.len(), some.len());
        }
        took
    }

    async fn record(&self, released: &[Released]) -> Duration {
        let outcomes: Vec<Outcome> = released
            .iter()
            .map(|one| Outcome {
                message: one.message,
                release: one.release,
                epoch: self.lease.epoch,
                queue: one.queue,
                site: one.site.clone(),
                what: What::Delivered,
                detail: FactDetail { route: Some("relay".to_owned()), ..FactDetail::default() },
            })
            .collect();
        let begun = Instant::now();
        self.store.record(&outcomes).await.unwrap();
        begun.elapsed()
    }

    /// Both facts of each message of a batch.
    async fn fold(&self) -> Duration {
        let begun = Instant::now();
        while self.store.fold(0, 2 * BATCH).await.unwrap().taken > 0 {}
        begun.elapsed()
    }

    /// A batch from accept to the log; how long each step took.
    async fn road(&self) -> [Duration; 5] {
        let accept = self.accept().await;
        let (released, release) = self.release().await;
        let claim = self.claim(&released).await;
        let record = self.record(&released).await;
        [accept, release, claim, record, self.fold().await]
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let stopped = self.runtime.block_on(async {
            self.store.close().await;
            self.server.stop().await?;
            PostgresServer::remove(&self.folder).await
        });
        stopped.unwrap();
    }
}

/// Every step is timed on whole roads, so that each finds the tables as the fleet would.
fn road(criterion: &mut Criterion) {
    let desk = Desk::new();
    let mut group = criterion.benchmark_group("batch_of_500");
    group.throughput(Throughput::Elements(BATCH.into())).sample_size(20).measurement_time(Duration::from_secs(8));
    for (step, name) in ["accept", "release", "claim", "record", "fold"].into_iter().enumerate() {
        group.bench_function(name, |bench| {
            bench.iter_custom(|times| {
                desk.runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        took += desk.road().await[step];
                    }
                    took
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, road);
criterion_main!(benches);
